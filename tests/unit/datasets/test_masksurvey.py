"""The masks of a data set are checked as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from naevus.datasets.masksurvey import SAMPLE, check_masks, survey
from naevus.errors import DataError
from naevus.images.read import write_png

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


HEIGHT, WIDTH = 60, 84


ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


LESION = np.asarray((ROWS - 25) ** 2 / 200 + (COLUMNS - 50) ** 2 / 500 < 1)
NUMBERS = LESION.astype(np.uint8)


def written(folder: Path, masks: list[NDArray[Any]]) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        write_png(path, mask)
    return paths


EMPTY, FULL = np.zeros_like(LESION), np.ones_like(LESION)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([EMPTY] * 3 + [LESION] * 2, r"3 of 5 masks are empty or full \(3 empty, 0 full\)"),
        ([EMPTY] * 2 + [FULL] * 2 + [LESION] * 3, r"4 of 7 masks are .*\(2 empty, 2 full\)"),
        ([~LESION] * 9 + [LESION], "9 of 10 masks are light along the image border"),
        ([~LESION] * 5 + [LESION] * 5, "5 of 10 masks are light along"),
        ([NUMBERS + 1] * 3 + [NUMBERS], "3 of 4 masks cannot be used: .*0.png: has 2 values"),
    ],
)
def test_implausible_masks_are_refused(
    tmp_path: Path, masks: list[NDArray[Any]], message: str
) -> None:
    paths = written(tmp_path, masks)
    with pytest.raises(DataError, match=message):
        check_masks(paths, tmp_path)
    assert "(--force)" in (check_masks(paths, tmp_path, force=True) or "")


@pytest.mark.parametrize(
    "masks",
    [
        [],
        [LESION],
        [NUMBERS] * 4,
        [EMPTY, LESION],
        [FULL, EMPTY, LESION, LESION],
        [~LESION] * 4 + [LESION] * 6,
    ],
)
def test_plausible_masks_are_accepted(tmp_path: Path, masks: list[NDArray[Any]]) -> None:
    assert check_masks(written(tmp_path, masks), tmp_path) is None


def test_only_a_sample_of_many_masks_is_checked(tmp_path: Path) -> None:
    paths = written(tmp_path, [LESION] * 3) * 300
    assert SAMPLE / 2 <= survey(paths).masks <= SAMPLE
