from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from naevus.inference import cam
from naevus.inference.cam import cell_offset
from tests.helpers.onnx_graphs import write_classifier, write_displaced, write_explained

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE, CELL = 50, 10


def photographs(size: int, count: int = 20) -> NDArray[np.uint8]:
    """Return pictures of soft stains, which lie anywhere."""
    chance = np.random.default_rng(0)
    noise = chance.normal(0, 1, (count, size, size, 3)).astype(np.float32)
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), CELL) for each in noise])
    return np.asarray(np.clip(128 + 40 * soft / soft.std(), 0, 255), np.uint8)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (5, 5), (7, -1), (-3, 0), (0, 9)])
def test_tells_how_far_from_its_cell_a_thing_lies(down: int, right: int, tmp_path: Path) -> None:
    graph = write_displaced(tmp_path / "g.onnx", size=SIZE, cell=CELL, down=down, right=right)
    measured = cell_offset(graph, photographs(SIZE))
    np.testing.assert_allclose(measured, (down / CELL, right / CELL), atol=0.1)


def test_where_nothing_tells_nothing_is_moved(tmp_path: Path) -> None:
    graph = write_displaced(tmp_path / "g.onnx", size=SIZE, cell=CELL, down=5, right=5)
    assert cell_offset(graph, np.zeros((3, SIZE, SIZE, 3), np.uint8)) == (0, 0)
    assert cell_offset(graph, photographs(SIZE)[:0]) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_unlike_maps_do_not_tell(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(seed)

    class Random:
        outputs = ("logits", "cam")

        def run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            maps = chance.normal(size=(len(pixels), 2, 5, 5)).astype(np.float32)
            return {"logits": maps.mean((2, 3)), "cam": maps}

    monkeypatch.setattr(cam, "open_engine", lambda _graph: Random())
    assert cell_offset(Path("any"), photographs(SIZE)) == (0, 0)


def test_a_graph_without_maps_or_with_coarse_ones_has_none(tmp_path: Path) -> None:
    assert cell_offset(write_classifier(tmp_path / "c.onnx", size=32), photographs(32)) == (0, 0)
    coarse = write_explained(tmp_path / "e.onnx", size=12)
    assert cell_offset(coarse, photographs(12)) == (0, 0)
