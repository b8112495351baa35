from __future__ import annotations

import numpy as np
import pytest

from naevus.images.geometry import Box
from naevus.inference.cam import Activation, glowing, heat_over

CORNER = np.array([[0, 0], [0, 3]], np.float32)


def test_lies_where_the_classifier_looked() -> None:
    heat = heat_over([Activation(CORNER, Box(20, 0, 80, 60), (60, 100))], 60, 100)
    assert heat.shape == (60, 100)
    assert (heat[:, :20] == 0).all()
    assert (heat[:, 80:] == 0).all()
    assert heat.max() == 1
    row, column = divmod(int(heat.argmax()), 100)
    assert row >= 45
    assert column >= 65
    assert heat[5, 25] == 0


@pytest.mark.parametrize("box", [Box(-10, 0, 50, 60), Box(0, -5, 40, 35), Box(-3, -3, 43, 43)])
def test_a_square_larger_than_the_picture_is_cut_to_it(box: Box) -> None:
    heat = heat_over([Activation(np.ones((5, 5), np.float32), box, (30, 40))], 30, 40)
    inside = np.zeros((30, 40), bool)
    inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = True
    np.testing.assert_array_equal(heat > 0, inside)


def test_what_speaks_against_the_class_is_no_heat() -> None:
    against = Activation(np.full((5, 5), -2, np.float32), Box(0, 0, 20, 20), (20, 20))
    assert (heat_over([against], 20, 20) == 0).all()


def test_a_picture_of_another_size_is_heated_in_the_same_places() -> None:
    activation = Activation(CORNER, Box(20, 0, 80, 60), (60, 100))
    small, large = heat_over([activation], 60, 100), heat_over([activation], 240, 400)
    shrunk = large.reshape(60, 4, 100, 4).mean((1, 3))
    assert np.abs(shrunk - small).max() < 0.05
    assert heat_over([activation], 1, 1).shape == (1, 1)  # a square of no pixel keeps one


@pytest.mark.parametrize(("offset", "place"), [((1, 0), (2, 2)), ((0, -2), (1, 0)), ((3, 3), None)])
def test_a_map_is_drawn_where_what_it_shows_lies(
    offset: tuple[float, float], place: tuple[int, int] | None
) -> None:
    cells = np.zeros((4, 4), np.float32)
    cells[1, 2] = 1
    heat = heat_over([Activation(cells, Box(4, 8, 44, 48), (50, 50), offset)], 50, 50)
    drawn = heat[8:48, 4:44].reshape(4, 10, 4, 10).mean((1, 3))
    if place is None:
        assert heat.max() == 0
    else:
        assert np.unravel_index(drawn.argmax(), drawn.shape) == place
    assert (heat[:8] == 0).all()
    assert (heat[48:] == 0).all()


def test_members_are_averaged_before_anything_is_left_out() -> None:
    one = Activation(np.array([[2, -6]], np.float32), Box(0, 0, 2, 1), (1, 2))
    other = Activation(np.array([[2, 2]], np.float32), Box(0, 0, 2, 1), (1, 2))
    np.testing.assert_allclose(heat_over([one, other], 1, 2), [[1, 0]])


def test_the_picture_shows_through_and_glows_where_it_is_hot() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    cold = glowing(pixels, np.zeros((8, 9), np.float32))
    assert cold.shape == pixels.shape
    assert cold.dtype == np.uint8
    assert np.ptp(cold, axis=2).mean() < 0.5 * np.ptp(pixels, axis=2).mean()  # paled
    heat = np.zeros((8, 9), np.float32)
    heat[3, 4], heat[5, 5] = 1, 0.4
    drawn = glowing(pixels, heat)
    np.testing.assert_array_equal(drawn[heat == 0], cold[heat == 0])
    yellow = np.array([253, 231, 37])  # viridis ends with it
    np.testing.assert_allclose(drawn[3, 4], 0.25 * cold[3, 4] + 0.75 * yellow, atol=1)
    assert (drawn[5, 5] != cold[5, 5]).any()
