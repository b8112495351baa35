"""Scores of attribute masks, compared with the official tool's results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from naevus.errors import SubmissionError
from naevus.evaluation.attributes import PooledCounts, attribute_row, jaccard
from naevus.evaluation.challenge import score_attributes
from naevus.taxonomy import ATTRIBUTES
from tests.helpers.golden import flat

if TYPE_CHECKING:
    from pathlib import Path

# Official messages and the corresponding ones of this project.
SAYINGS = {
    "missing": "no matching submission for ISIC_0000101_attribute_globules.png",
    "other_size": "has 20 x 20 pixels; expected 50 x 40",
    "colour": "not single-channel",
    "twice": "multiple matching submissions for ISIC_0000101_attribute_globules.png",
    "not_an_image": "could not be decoded",
}


@pytest.mark.parametrize("case", range(6))
def test_attribute_scores_equal_the_official_scorer(golden: Path, case: int) -> None:
    folder = golden / "attributes" / f"case_{case:02d}"
    expected = flat(json.loads((folder / "expected.json").read_text()))
    scores = flat(score_attributes(folder / "truth", folder / "prediction"))
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, rel=0, abs=1e-9)


def test_attribute_masks_that_the_official_scorer_refuses_are_refused(golden: Path) -> None:
    folder = golden / "refused_attributes"
    verdicts = json.loads((folder / "verdicts.json").read_text())
    assert {name for name, verdict in verdicts.items() if not verdict["accepted"]} == set(SAYINGS)
    for name, verdict in verdicts.items():
        if verdict["accepted"]:
            scores = score_attributes(folder / "truth", folder / name)
            assert scores["overall"] == pytest.approx(verdict["overall"], abs=1e-9), name
            continue
        with pytest.raises(SubmissionError) as caught:
            score_attributes(folder / "truth", folder / name)
        assert SAYINGS[name] in caught.value.message, name
        assert caught.value.remedy


@pytest.mark.parametrize("name", ["ISIC_0000001_segmentation.png", "notes_attribute_streaks.png"])
def test_unknown_ground_truth_files_are_refused(tmp_path: Path, name: str) -> None:
    Image.new("L", (4, 4)).save(tmp_path / name)
    with pytest.raises(SubmissionError, match="unknown ground truth file"):
        score_attributes(tmp_path, tmp_path)


def test_an_empty_ground_truth_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="no ground truth masks"):
        score_attributes(tmp_path, tmp_path)


def test_counts_at_thresholds_pool_to_the_official_score(tmp_path: Path) -> None:
    """Use images of different sizes, so that the division by pixels matters."""
    rng = np.random.default_rng(5)
    thresholds = dict(zip(ATTRIBUTES, (0.05, 0.3, 0.5, 0.7, 0.95), strict=True))
    rows = []
    for number, (height, width) in enumerate([(20, 30), (44, 17), (8, 8)]):
        truths, maps = {}, []
        for attribute in ATTRIBUTES:
            truth = rng.random((height, width)) < rng.choice([0.0, 0.3])
            probability = np.clip(0.5 * truth + 0.6 * rng.random(truth.shape), 0, 1)
            probability = probability.astype(np.float32)
            name = f"ISIC_{number:07d}_attribute_{attribute}.png"
            for folder, mask in (
                ("truth", truth),
                ("masks", probability > thresholds[attribute]),
            ):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / folder / name)
            truths[attribute] = truth
            maps.append(probability)
        rows.append(attribute_row(maps, truths, [0.0] * len(ATTRIBUTES)))
    counts = PooledCounts.of(pd.DataFrame(rows))
    cut = counts.at(list(thresholds.values()))
    official = score_attributes(tmp_path / "truth", tmp_path / "masks")
    assert float(jaccard(*cut.sum((0, 1)))) == pytest.approx(official["overall"], abs=1e-12)
    for k, attribute in enumerate(ATTRIBUTES):
        found = float(jaccard(*cut[:, k].sum(0)))
        assert found == pytest.approx(official[attribute]["jaccard"], abs=1e-12)
