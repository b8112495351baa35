"""Heatmaps as files: what is drawn, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageDraw

from naevus.errors import ConfigError
from naevus.images.geometry import Box
from naevus.images.masks import ATTRIBUTE_COLOURS, PREDICTED_COLOUR
from naevus.inference.cam import ActivationMaps, ramp
from naevus.inference.heatmaps import CAVEAT, asked_class, canvas_of, draw_heatmap
from naevus.inference.prediction import Prediction

PIXELS = np.full((400, 600, 3), 180, np.uint8)
BOX = Box(200, 100, 400, 300)


def prediction(maps: np.ndarray | None = None) -> Prediction:
    """Return a prediction of two classes: the first one's evidence is on the left."""
    if maps is None:
        maps = np.zeros((2, 5, 5), np.float32)
        maps[0, :, 0] = maps[1, :, 4] = 1
        maps += 0.2  # as everywhere in an input
    return Prediction(
        "a",
        PIXELS,
        400,
        600,
        probabilities={"MEL": 0.25, "NV": 0.75},
        balanced_probabilities={"MEL": 0.5, "NV": 0.5},
        activations=(
            ActivationMaps(maps, BOX, (400, 600), (0.0, 0.0)),
            ActivationMaps(np.repeat(maps, 2, 1), BOX, (400, 600), (0.0, 0.0)),
        ),
    )


def texts(monkeypatch: pytest.MonkeyPatch, found: Prediction, code: str) -> str:
    """Return everything that is written on a heatmap."""
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, place: object, words: str, *more: object) -> None:
        written.append(words)
        draw(self, place, words, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    draw_heatmap(found, canvas_of(PIXELS, None, {}), code)
    return " ".join(written)


def test_a_heatmap_carries_answer_resolution_and_caveat(monkeypatch: pytest.MonkeyPatch) -> None:
    written = texts(monkeypatch, prediction(), "MEL")
    assert written.isascii()  # other characters are not in the font
    assert "a: NV 75%, MEL 25% Evidence for MEL: none most" in written
    assert "5 x 5 and 10 x 5 cells over a frame; 2 networks, averaged" in written
    assert CAVEAT in written
    assert "frame around what the networks saw" in written


def test_networks_that_see_different_parts_have_a_frame_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = prediction()
    assert found.activations is not None
    crop, other = found.activations
    square = other._replace(box=Box(100, 0, 500, 400))
    both = replace(found, activations=(crop, square))
    assert "frames around what the networks saw" in texts(monkeypatch, both, "MEL")
    drawn = draw_heatmap(both, canvas_of(PIXELS, None, {}), "MEL")
    scale = 384 / 400
    for left in (100, 200):  # of the square, of the crop
        assert (drawn[round(200 * scale), round(left * scale)] == 255).all()


def test_a_single_network_is_not_called_several(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prediction()
    assert found.activations is not None
    one = replace(found, activations=found.activations[:1])
    assert "Resolution: 5 x 5 cells over a frame; one network." in texts(monkeypatch, one, "NV")


def is_coloured(drawn: np.ndarray) -> np.ndarray:
    return np.asarray(np.ptp(drawn[:384].astype(int), axis=2) > 8)


def test_only_evidence_is_tinted() -> None:
    drawn = draw_heatmap(prediction(), canvas_of(PIXELS, None, {}), "MEL")
    left, right, top, bottom = (round(each * 384 / 400) for each in (200, 400, 100, 300))
    assert drawn.shape[1] == 576
    tinted = is_coloured(drawn)
    assert tinted[top + 10 : bottom - 10, left + 2 : left + 20].all()
    outside = tinted.copy()
    outside[top:bottom, left:right] = False
    assert not outside.any()
    assert not tinted[top + 2 : bottom - 2, left + 100 : right - 2].any()  # 0.2 is no evidence
    assert (drawn[top, left : right - 1] == 255).all()  # the frame


def test_any_class_can_be_drawn() -> None:
    canvas = canvas_of(PIXELS, None, {})
    mel, nv = (is_coloured(draw_heatmap(prediction(), canvas, code)) for code in ("MEL", "NV"))
    assert np.nonzero(mel)[1].max() < np.nonzero(nv)[1].min()
    assert asked_class("mel", ["MEL", "NV"]) == "MEL"
    with pytest.raises(ConfigError, match="no such class; use one of MEL, NV"):
        asked_class("SCC", ["MEL", "NV"])


def has(drawn: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Return whether a drawing has about this colour: lines are antialiased."""
    return bool((np.abs(drawn.astype(int) - colour).max(axis=2) < 30).any())


def test_contours_and_their_legend_are_drawn_where_there_are_masks() -> None:
    mask = np.zeros((400, 600), bool)
    mask[150:250, 250:350] = True
    spots = np.zeros((384, 576), bool)
    spots[180:200, 280:300] = True
    plain = draw_heatmap(prediction(), canvas_of(PIXELS, None, {}), "NV")
    canvas = canvas_of(PIXELS, mask, {"globules": spots, "streaks": spots & False})
    drawn = draw_heatmap(prediction(), canvas, "NV")
    for colour in (PREDICTED_COLOUR, ATTRIBUTE_COLOURS["globules"]):
        assert has(drawn[:384], colour)
        assert has(drawn[384:], colour)
        assert not has(plain, colour)
    assert not has(drawn, ATTRIBUTE_COLOURS["streaks"])


def test_a_narrow_image_has_room_for_the_text() -> None:
    small = np.full((40, 60, 3), 180, np.uint8)
    drawn = draw_heatmap(prediction(), canvas_of(small, None, {}), "NV")
    assert drawn.shape[1] == 360
    assert (drawn[:40, :150] == 255).all()
    assert not (drawn[:40, 151:209] == 255).all()


def test_without_positive_evidence_nothing_is_tinted() -> None:
    drawn = draw_heatmap(
        prediction(np.full((2, 5, 5), -1, np.float32)), canvas_of(PIXELS, None, {}), "MEL"
    )
    assert not is_coloured(drawn).any()


def test_the_colour_bar_begins_without_colour_and_ends_in_yellow() -> None:
    (bar,) = ramp(100).astype(int)
    assert (np.ptp(bar[:20], axis=1) == 0).all()
    assert bar[-1][0] > 200 > 120 > bar[-1][2]
