"""Task 3 scores and errors, compared with the official tool's results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.errors import SubmissionError
from naevus.evaluation.challenge import score_classification
from naevus.evaluation.challenge.classification import UNDECIDED, decided
from tests.helpers.golden import flat

if TYPE_CHECKING:
    from pathlib import Path


HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
CODES = HEADER.split(",")[1:]


# Official messages and the corresponding ones of this project.
SAYINGS = {
    "missing_row": "missing images: ISIC_0034000",
    "extra_row": "extra images: ISIC_0099999",
    "duplicate_row": "duplicate image rows: ISIC_0034000",
    "missing_column": "missing columns: DF",
    "extra_column": "extra columns: SCC",
    "above_one": "outside the interval",
    "negative": "outside the interval",
    "integer_column": "non-floating-point values in columns: VASC",
    "not_a_number": "missing values for images: ISIC_0034000",
    "text_value": "non-floating-point values in columns: BCC",
}


def write_truth(path: Path, classes: list[str], more: str = "", first: int = 1) -> Path:
    rows = [
        ",".join([f"ISIC_{first + n:07d}", *(str(float(code == name)) for name in CODES)])
        for n, code in enumerate(classes)
    ]
    path.write_text("\n".join([HEADER + more, *rows]) + "\n")
    return path


@pytest.mark.parametrize("case", range(10))
def test_classification_scores_equal_the_official_scorer(golden: Path, case: int) -> None:
    folder = golden / "classification" / f"case_{case:02d}"
    expected = flat(json.loads((folder / "expected.json").read_text()))
    scores = flat(score_classification(folder / "truth.csv", folder / "prediction.csv"))
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, rel=0, abs=1e-9)


def test_tables_that_the_official_scorer_refuses_are_refused(golden: Path) -> None:
    verdicts = json.loads((golden / "refused" / "verdicts.json").read_text())
    for name, verdict in verdicts.items():
        assert not verdict["accepted"]
        with pytest.raises(SubmissionError) as caught:
            score_classification(
                golden / "refused" / "truth.csv", golden / "refused" / f"{name}.csv"
            )
        assert SAYINGS[name] in caught.value.message, name
        assert f"{name}.csv" in caught.value.message
        assert caught.value.remedy


def test_absent_classes_are_noted(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.csv", ["MEL", "NV", "NV", "BCC"])
    prediction = tmp_path / "prediction.csv"
    prediction.write_text(
        f"{HEADER}\n"
        "ISIC_0000001,0.7,0.1,0.1,0.1,0.0,0.0,0.0\n"
        "ISIC_0000002,0.1,0.6,0.1,0.1,0.1,0.0,0.0\n"
        "ISIC_0000003,0.6,0.1,0.1,0.1,0.1,0.0,0.0\n"
        "ISIC_0000004,0.4,0.1,0.4,0.1,0.0,0.0,0.0\n"
    )
    scores = score_classification(truth, prediction)
    assert scores["overall"] == pytest.approx((1 + 0.5 + 0) / 3)  # the tie is wrong
    assert scores["per_category"]["auc"]["DF"] is None
    assert scores["per_category"]["sensitivity"]["VASC"] is None
    sensitivity = scores["per_category"]["sensitivity"]
    present = [sensitivity[code] for code in ("MEL", "NV", "BCC")]
    assert scores["macro_average"]["sensitivity"] == pytest.approx(np.mean(present))
    (note,) = scores["notes"]
    assert "AKIEC, BKL, DF, VASC" in note
    json.dumps(scores, allow_nan=False)


def test_a_ground_truth_of_one_class_is_scored(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.csv", ["NV", "NV"])
    prediction = tmp_path / "prediction.csv"
    prediction.write_text(
        f"{HEADER}\n" + "".join(f"ISIC_000000{n},0.,1.,0.,0.,0.,0.,0.\n" for n in (1, 2))
    )
    scores = score_classification(truth, prediction)
    assert scores["overall"] == 1
    assert scores["macro_average"]["auc"] is None
    json.dumps(scores, allow_nan=False)


def test_the_excluded_image_and_given_weights(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "image,A,B,score_weight,validation_weight\n"
        "ISIC_0035067,1,0,1,0\n"
        "ISIC_0035068,1,0,1,1\n"
        "ISIC_0035069,0,1,3,1\n"
        "ISIC_0035070,0,1,1,1\n"
        "ISIC_0035071,1,0,0,1\n"
    )
    prediction = tmp_path / "prediction.csv"
    prediction.write_text(
        "image,B,A\n"
        "ISIC_0035071,0.8,0.2\n"
        "ISIC_0035070,0.1,0.9\n"
        "ISIC_0035069.jpg,0.9,0.1\n"
        "ISIC_0035068.JPG,0.9,0.1\n"
        "ISIC_0035067,0.2,0.8\n"
    )
    scores = score_classification(truth, prediction)
    assert scores["overall"] == pytest.approx((1 + 3 / 4) / 2)
    assert scores["validation"] == pytest.approx((0 + 1 / 2) / 2)
    assert "notes" not in scores


def test_unsorted_ground_truth_with_weights_is_noted(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("image,A,B\nISIC_0035068,1,0\nISIC_0035067,1,0\nISIC_0035069,0,1\n")
    prediction = tmp_path / "prediction.csv"
    prediction.write_text(truth.read_text().replace(",1", ",1.0").replace(",0", ",0.0"))
    assert "not sorted" in score_classification(truth, prediction)["notes"][0]


def test_ties_are_undecided() -> None:
    values = np.array([[0.4, 0.4, 0.2], [0.2, 0.5, 0.3], [0.0, 0.0, 0.0]])
    assert decided(values).tolist() == [UNDECIDED, 1, UNDECIDED]


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "could not be parsed"),
        (b"\xff\xfe\x00", "could not be parsed"),
        (b"image,MEL\na,0.1\na,0.1,0.2,0.3\n", "could not be parsed"),
        (b"id,MEL\na,0.1\n", "missing column 'image'"),
        (HEADER.encode(), "non-floating-point"),
    ],
)
def test_files_other_than_csv_are_refused(tmp_path: Path, content: bytes, saying: str) -> None:
    truth = write_truth(tmp_path / "truth.csv", ["MEL"])
    (tmp_path / "prediction.csv").write_bytes(content)
    with pytest.raises(SubmissionError, match=saying):
        score_classification(truth, tmp_path / "prediction.csv")


def test_an_unusable_ground_truth_is_an_error(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    with pytest.raises(SubmissionError, match=r"truth\.csv does not exist; name a CSV"):
        score_classification(truth, truth)
    for content in ("image,A\n", "image\na\n", "image,A\na,yes\n", "id,A\na,1\n"):
        truth.write_text(content)
        with pytest.raises(SubmissionError, match=r"truth\.csv"):
            score_classification(truth, truth)
    truth.write_text("image,A,B\nISIC_0035068,1.0,0.0\n")
    with pytest.raises(SubmissionError, match="no image counts"):
        score_classification(truth, truth)
