"""Comparison of two recipes: differences, p values, and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.attributes import AttributesEvaluation, cross_fitted_counts
from naevus.evaluation.classification import ClassificationScores
from naevus.evaluation.comparison import compare
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.taxonomy import ATTRIBUTES, BINARY
from tests.helpers.tables import diagnoses, masks

if TYPE_CHECKING:
    from collections.abc import Callable


def scores_of(table: pd.DataFrame) -> ClassificationScores:
    return ClassificationEvaluation.of(oof_classified(table)).as_predicted.scores


def test_a_better_network_is_stated_in_one_sentence() -> None:
    a, b = diagnoses(1.0), diagnoses(4.0)
    found = compare(a, b)
    headline, natural, accuracy = found.differences
    ours, theirs = (scores_of(table) for table in (a, b))
    assert headline.a == pytest.approx(ours.balanced.balanced_accuracy)
    assert headline.b == pytest.approx(theirs.balanced.balanced_accuracy)
    assert natural.b == pytest.approx(theirs.natural.balanced_accuracy)
    assert accuracy.a == pytest.approx(ours.natural.accuracy)
    assert headline.difference.low > 0
    assert headline.p < 0.001
    assert found.sentences[0].startswith("balanced accuracy, balanced decision: B is better by")
    assert found.sentences[0].endswith("120 lesions")
    assert str(found).count("\n") == 2


def test_recalls_and_changes_are_those_of_the_balanced_decision() -> None:
    a, b = diagnoses(1.0), diagnoses(4.0)
    found = compare(a, b)
    ours, theirs = (scores_of(table).balanced for table in (a, b))
    recalls = {each.score.removeprefix("recall of "): each for each in found.recalls}
    assert list(recalls) == ["MEL", "NV", "BCC"]
    for before, after in zip(ours.classes[:3], theirs.classes[:3], strict=True):
        assert recalls[before.code].a == pytest.approx(before.recall)
        assert recalls[before.code].b == pytest.approx(after.recall)
        lesions = a.loc[a["diagnosis"] == before.code, "group_id"].nunique()
        assert recalls[before.code].groups == lesions
    effects = pd.Series([change.effect for change in found.changed]).value_counts()
    right = theirs.confusion.trace() - ours.confusion.trace()
    assert effects["fixed"] - effects.get("broken", 0) == right
    truths = dict(zip(a["image_id"], a["diagnosis"], strict=True))
    for change in found.changed:
        assert change.a != change.b
        assert change.truth == truths[change.image_id]
        assert (change.effect == "fixed") == (change.b == change.truth)
    assert found.mcnemar.groups == 120
    assert found.mcnemar.only_b > found.mcnemar.only_a


def test_two_seeds_of_a_network_do_not_differ() -> None:
    found = compare(diagnoses(seed=1), diagnoses(seed=2), ("one", "other"))
    assert "no clear difference between one and other" in found.sentences[0]
    assert not found.differences[0].distinguishable
    same = compare(diagnoses(), diagnoses())
    assert same.changed == ()
    assert {difference.p for difference in same.differences} == {1.0}


def test_masks_are_compared_by_jaccard_and_thresholded_jaccard() -> None:
    a, b = masks(), masks(-0.03)
    found = compare(a, b)
    thresholded, jaccard = found.differences
    ours, theirs = (SegmentationEvaluation.of(table).metrics for table in (a, b))
    (before, *_), (after, *_) = ours["jaccard"], theirs["jaccard"]
    assert jaccard.difference.value == pytest.approx(after - before)
    assert thresholded.a == pytest.approx(ours["thresholded_jaccard"].value)
    assert thresholded.b == pytest.approx(theirs["thresholded_jaccard"].value)
    assert "A is better by" in found.sentences[0]
    crossed = (a["jaccard"] >= 0.65) & (b["jaccard"] < 0.65)
    assert [change.image_id for change in found.changed] == a["image_id"][crossed].tolist()
    assert {change.effect for change in found.changed} == {"broken"}
    assert found.recalls == ()


def attributes(wrong: float, seed: int, images: int = 60) -> pd.DataFrame:
    """Return counts at one threshold of two attributes; a fraction of their pixels is wrong."""
    truth = np.random.default_rng(0)  # the same images for every table
    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {
        "image_id": [f"p{n:03}" for n in range(images)],
        "group_id": [f"g{n // 2}" for n in range(images)],
        "pixels": [1000] * images,
    }
    for name in ATTRIBUTES:
        shown = name in {"globules", "streaks"}
        true = truth.integers(0, 400, images) * shown
        missed = rng.binomial(true, wrong)
        invented = rng.binomial(100 * shown, wrong, images)
        rows[f"true_{name}"] = true.tolist()
        rows[f"hit_{name}"] = [[int(count)] for count in true - missed]
        rows[f"predicted_{name}"] = [[int(count)] for count in true - missed + invented]
        rows[f"presence_{name}"] = [0.5] * images
    return pd.DataFrame(rows)


def test_attributes_are_compared_by_their_pooled_jaccard_indices() -> None:
    a, b = attributes(0.3, 1), attributes(0.2, 2)
    found = compare(a, b)
    assert found.task == "attributes"
    assert [one.score for one in found.differences] == [
        "pooled Jaccard", "globules, pooled Jaccard", "streaks, pooled Jaccard",
    ]  # fmt: skip
    ours, theirs = (AttributesEvaluation.of(table) for table in (a, b))
    headline, globules, _ = found.differences
    assert (headline.a, headline.b) == pytest.approx((ours.jaccard.value, theirs.jaccard.value))
    assert globules.b == pytest.approx(theirs.by_attribute["globules"].jaccard.value)
    assert headline.difference.value == pytest.approx(headline.b - headline.a)
    assert headline.distinguishable
    back = compare(b, a).differences[0]
    assert back.difference.value == pytest.approx(-headline.difference.value)
    assert back.difference.low == pytest.approx(-headline.difference.high)
    assert "pooled Jaccard: B is better by" in str(found)


def test_equal_attributes_do_not_differ() -> None:
    a = attributes(0.3, 1)
    found = compare(a, a.sample(frac=1, random_state=0))
    assert all(one.difference.value == 0 for one in found.differences)
    assert all(one.p == 1 for one in found.differences)
    assert not found.changed


def test_the_interval_of_a_pooled_index_is_that_of_the_bootstrap() -> None:
    """Resample lesions of both tables together; the indices have different denominators."""
    a, b = attributes(0.3, 3), attributes(0.25, 4)
    counts = [cross_fitted_counts(table).sum(axis=1) for table in (a, b)]
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 30, (4000, 30))
    weights = np.stack([np.bincount(one, minlength=30) for one in drawn])
    sums = [weights @ cut.reshape(30, 2, 3).sum(axis=1) for cut in counts]
    ours, theirs = (cut[:, 0] / (cut[:, 1] + cut[:, 2] - cut[:, 0]) for cut in sums)
    low, high = np.quantile(theirs - ours, [0.025, 0.975])
    found = compare(a, b, corrected=False).differences[0].difference
    assert found.low == pytest.approx(low, abs=0.25 * (high - low))
    assert found.high == pytest.approx(high, abs=0.25 * (high - low))


@pytest.mark.parametrize("column", ["true_globules", "pixels", "group_id"])
def test_attributes_of_other_ground_truth_are_refused(column: str) -> None:
    a = attributes(0.3, 1)
    other = a.copy()
    other.loc[0, column] = "g9" if column == "group_id" else 999
    with pytest.raises(DataError, match="images in common have another"):
        compare(a, other)


def test_images_are_joined_by_id() -> None:
    a, b = diagnoses(), diagnoses(seed=3)
    shuffled = compare(a.sample(frac=1, random_state=0), b.sample(frac=1, random_state=1))
    assert shuffled.to_dict() == compare(a, b).to_dict()
    part = compare(a.iloc[:200], b.iloc[40:], allow_missing=True)
    assert (part.images, part.groups, part.only_a, part.only_b) == (160, 80, 40, 40)


def test_comparisons_are_converted_to_json_and_tables() -> None:
    found = compare(diagnoses(), diagnoses(2.0))
    output = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert output["differences"][0]["difference"]["value"] == found.differences[0].difference.value
    assert len(output["changed"]) == len(found.changed)
    tables = found.tables()
    assert tables["differences"]["low"].tolist() == [d.difference.low for d in found.differences]
    assert tables["recalls"]["groups"].sum() == 120
    assert tables["changed"].columns.tolist() == ["image_id", "truth", "a", "b", "effect"]


def test_results_of_different_kinds_are_refused() -> None:
    a = diagnoses()
    other = a.assign(diagnosis=a["diagnosis"].replace("NV", "BKL"))
    with pytest.raises(DataError, match=r"another diagnosis in A than in B, such as p\d+; name"):
        compare(a, other)
    with pytest.raises(
        DataError, match="240 of the 240 images in common have another group in A than in B"
    ):
        compare(a, a.assign(group_id="x" + a["group_id"]))
    with pytest.raises(DataError, match="240 of the 240 images in common have another group"):
        compare(a, a.assign(group_id=None))
    with pytest.raises(DataError, match="no image in common"):
        compare(a, a.assign(image_id="q" + a["image_id"]))
    with pytest.raises(DataError, match="runs of different tasks"):
        compare(a, masks())
    with pytest.raises(DataError, match="B: p000 occurs twice"):
        compare(a, pd.concat([a, a.iloc[:1]]))
    with pytest.raises(DataError, match="B: has no column group_id"):
        compare(masks(), masks().drop(columns="group_id"))
    with pytest.raises(DataError, match="without image_id"):
        compare(a, a.assign(image_id=None))


def test_other_classes_are_refused() -> None:
    a = diagnoses()
    renamed = {
        f"{kind}_{old}": f"{kind}_{new}"
        for kind in ("logit", "class_prior", "class_weight")
        for old, new in zip(("MEL", "NV"), BINARY.codes, strict=True)
    }
    fewer = a.rename(columns=renamed).drop(
        columns=[
            name
            for name in a.columns
            if name.startswith(("logit_", "class_prior_", "class_weight_"))
        ],
        errors="ignore",
    )
    with pytest.raises(DataError, match="different classes"):
        compare(a, fewer)
    with pytest.raises(DataError, match="unknown diagnosis 'MEL'"):
        compare(*(a.rename(columns={"logit_MEL": "logit_MOLE"}),) * 2)
    with pytest.raises(DataError, match="unknown diagnosis 'XYZ'"):
        compare(*(a.assign(diagnosis="XYZ"),) * 2)


@pytest.mark.parametrize(
    ("renamed", "same"),
    [(lambda n: n % 5, True), (lambda n: (n % 5 + 2) % 5, True), (lambda n: n % 4, False),
     (lambda n: min(n % 5, 3), False)],
    ids=["equal", "renumbered", "others", "joined"],
)  # fmt: skip
def test_other_folds_are_said_not_refused(renamed: Callable[[int], int], same: bool) -> None:
    a, b = diagnoses(1.0), diagnoses(4.0)
    groups = [int(each[1:]) for each in a["group_id"]]
    ours = a.assign(fold=[each % 5 for each in groups])
    theirs = b.assign(fold=[renamed(each) for each in groups])
    assert compare(ours, theirs).same_folds is same
    assert compare(ours, b).same_folds, "a table without folds cannot tell"
    assert compare(ours, theirs).to_dict()["same_folds"] is same


def test_tables_without_common_images_are_described() -> None:
    a = diagnoses(1.0).assign(fold=[0] * 120 + [2] * 120)
    b = diagnoses(1.0).iloc[:2].assign(image_id=["x", "y"], fold=1)
    with pytest.raises(DataError) as caught:
        compare(a, b, ("runs/a", "runs/b"))
    assert str(caught.value) == (
        "runs/a (240 images of folds 0, 2) and runs/b (2 images of fold 1) have no image in "
        "common; name runs over the same data and folds"
    )
