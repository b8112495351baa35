from __future__ import annotations

import numpy as np
import pytest

from naevus.images.geometry import Box
from naevus.images.heat import heat_over


def test_lies_where_the_classifier_looked() -> None:
    activation = np.array([[0, 0], [0, 3]], np.float32)
    heat = heat_over(activation, Box(20, 0, 80, 60), 60, 100)
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
    heat = heat_over(np.ones((5, 5), np.float32), box, 30, 40)
    inside = np.zeros((30, 40), bool)
    inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = True
    np.testing.assert_array_equal(heat > 0, inside)


def test_what_speaks_against_the_class_is_no_heat() -> None:
    heat = heat_over(np.full((5, 5), -2, np.float32), Box(0, 0, 20, 20), 20, 20)
    assert (heat == 0).all()
