"""Task 1 scores and errors, compared with the official tool's results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from naevus.errors import SubmissionError
from naevus.evaluation.challenge import score_segmentation
from tests.helpers.golden import flat

if TYPE_CHECKING:
    from pathlib import Path


# Official messages and the corresponding ones of this project.
SAYINGS = {
    "rgb": "not single-channel",
    "other_size": "has 30 x 20 pixels; expected 60 x 40",
    "missing": "no matching submission for ISIC_0000001",
    "stray_same_number": "multiple matching submissions for ISIC_0000001",
    "truncated": "truncated",
    "empty_folder": "no matching submission for ISIC_0000001",
}


def write_mask(path: Path, values: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("case", range(8))
def test_segmentation_scores_equal_the_official_scorer(golden: Path, case: int) -> None:
    folder = golden / "segmentation" / f"case_{case:02d}"
    expected = flat(json.loads((folder / "expected.json").read_text()))
    scores = flat(score_segmentation(folder / "truth", folder / "prediction"))
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, rel=0, abs=1e-9)


def test_masks_that_the_official_scorer_refuses_are_refused(golden: Path, tmp_path: Path) -> None:
    verdicts = json.loads((golden / "refused_masks" / "verdicts.json").read_text())
    for name, verdict in verdicts.items():
        folder = golden / "refused_masks" / name
        prediction = folder / "prediction"
        if not prediction.is_dir():  # copying may drop empty folders
            prediction = tmp_path
        if verdict["accepted"]:
            scored = score_segmentation(folder / "truth", prediction)
            assert scored["overall"] == pytest.approx(verdict["overall"], abs=1e-9), name
            continue
        with pytest.raises(SubmissionError) as caught:
            score_segmentation(folder / "truth", prediction)
        assert SAYINGS[name] in caught.value.message, name
        assert caught.value.remedy


def test_empty_masks_score_one_and_other_files_are_ignored(tmp_path: Path) -> None:
    nothing = np.zeros((5, 8), np.uint8)
    for name in ("truth", "prediction"):
        write_mask(tmp_path / name / "ISIC_0000001_segmentation.png", nothing)
    (tmp_path / "truth" / "LICENSE.txt").write_text("CC-0")
    assert score_segmentation(tmp_path / "truth", tmp_path / "prediction")["overall"] == 1


def test_palettes_transparency_and_16_bits_are_refused(tmp_path: Path) -> None:
    grey = np.full((5, 8), 255, np.uint8)
    write_mask(tmp_path / "truth" / "ISIC_0000001_segmentation.png", grey)
    path = tmp_path / "prediction" / "ISIC_0000001_segmentation.png"
    for mode in ("P", "LA", "RGBA", "I;16"):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grey).convert(mode).save(path)
        with pytest.raises(SubmissionError, match="single-channel"):
            score_segmentation(tmp_path / "truth", tmp_path / "prediction")


def test_unusable_ground_truth_masks_are_errors(tmp_path: Path) -> None:
    grey = np.arange(40, dtype=np.uint8).reshape(5, 8)
    write_mask(tmp_path / "prediction" / "ISIC_0000001_segmentation.png", grey)
    truth = tmp_path / "truth"
    with pytest.raises(SubmissionError, match="truth does not exist"):
        score_segmentation(truth, tmp_path / "prediction")
    truth.mkdir()
    with pytest.raises(SubmissionError, match="no ground truth"):
        score_segmentation(truth, tmp_path / "prediction")
    write_mask(truth / "ISIC_0000001_segmentation.png", grey)
    with pytest.raises(SubmissionError, match="other than 0 and 255"):
        score_segmentation(truth, tmp_path / "prediction")
    write_mask(truth / "0000000.png", grey)
    with pytest.raises(SubmissionError, match="unknown ground truth"):
        score_segmentation(truth, tmp_path / "prediction")
