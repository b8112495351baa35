"""Comparison of two recipes: differences, p values, and errors."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_1samp

from naevus.errors import DataError
from naevus.evaluation.attributes import AttributesEvaluation, cross_fitted_counts
from naevus.evaluation.classification import ClassificationScores
from naevus.evaluation.comparison import Difference, compare, mcnemar, paired_difference, swap_test
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.intervals import Interval
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.taxonomy import ATTRIBUTES, BINARY
from tests.helpers.tables import diagnoses, masks


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
    with pytest.raises(DataError, match="images have another"):
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
    with pytest.raises(DataError, match="240 images have another group in A than in B"):
        compare(a, a.assign(group_id="x" + a["group_id"]))
    with pytest.raises(DataError, match="240 images have another group"):
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


def ones(values: np.ndarray) -> np.ndarray:
    return np.ones_like(values, dtype=float)


def test_a_difference_is_the_mean_of_differences() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 80, 1))
    groups = [f"g{number // 2}" for number in range(80)]
    found = paired_difference("Jaccard", a, b, ones(a), groups)
    assert found.a == pytest.approx(a.mean())
    assert found.b == pytest.approx(b.mean())
    assert found.difference.value == pytest.approx((b - a).mean())
    # The means of 40 lesions are about normal.
    means = (b - a)[:, 0].reshape(40, 2).mean(axis=1)
    theirs = ttest_1samp(means, 0).confidence_interval()
    width = theirs.high - theirs.low
    assert found.difference.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert found.difference.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert found.groups == 40


def test_shared_variation_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    hard, groups = rng.normal(size=(200, 1)), np.arange(200).tolist()
    own = 0.1 + 0.01 * rng.normal(size=(200, 1))
    found = paired_difference("x", hard, hard + own, ones(hard), groups)
    assert found.difference.low == pytest.approx(0.1, abs=0.005)
    assert found.difference.high == pytest.approx(0.1, abs=0.005)
    assert found.distinguishable
    same = paired_difference("x", hard, hard + 0.1, ones(hard), groups)
    assert (same.difference.known, same.distinguishable) == (False, True)


@given(st.integers(0, 500), st.integers(2, 14), st.integers(1, 12), st.floats(-0.6, 0.6))
@settings(deadline=None, max_examples=60)
def test_interval_and_p_never_contradict_each_other(
    seed: int, lesions: int, tests: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 2 * lesions, 1))
    b = b + shift
    groups = (np.arange(2 * lesions) // 2).tolist()
    found = paired_difference("x", a, b, ones(a), groups, tests=tests)
    assert found.p <= 1
    if found.difference.known:
        inside = found.difference.low <= 0 <= found.difference.high
        assert inside != found.distinguishable
    else:
        assert not found.distinguishable  # fewer arrangements than the correction needs
    sentence = found.sentence()
    assert ("is better by" in sentence) == found.distinguishable
    assert ("interval" in sentence) == found.difference.known


def test_few_differing_lesions_decide_nothing() -> None:
    a, b = np.zeros((12, 1)), np.zeros((12, 1))
    b[:4] = 1  # four of four for B: one of sixteen arrangements, and as much on the other side
    found = paired_difference("x", a, b, ones(a), list(range(12)))
    assert found.p == pytest.approx(2 / 16, abs=0.02)
    assert not found.distinguishable
    alone = paired_difference("x", a[:4], b[:4], ones(a[:4]), list(range(4)))
    assert not alone.difference.known


def test_differences_are_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(9)
    covered = []
    for _ in range(200):
        ours, theirs = (rng.random((2, 40)) < [[0.6], [0.75]]).astype(float)
        found = paired_difference(
            "x", ours[:, None], theirs[:, None], np.ones((40, 1)), list(range(40))
        )
        covered.append(found.difference.low <= 0.15 <= found.difference.high)
    assert 0.91 <= np.mean(covered) <= 0.99


def test_more_tests_make_wider_intervals_and_larger_p() -> None:
    a, b = masks(), masks(-0.03)
    b["jaccard"] += np.random.default_rng(0).normal(0, 0.05, 100)
    one, other = (compare(a, b, corrected=corrected).differences[1] for corrected in (False, True))
    assert (one.tests, other.tests) == (1, 2)
    assert other.p == pytest.approx(min(1, 2 * one.p))
    assert other.difference.low < one.difference.low < one.difference.high
    assert one.difference.high < other.difference.high
    found = compare(diagnoses(), diagnoses(seed=3))
    assert {each.tests for each in (*found.differences, *found.recalls)} == {3 + 3}


def test_the_swap_test_equals_the_exact_test() -> None:
    rng = np.random.default_rng(2)
    differences = rng.normal(0.5, size=20)
    groups = np.repeat(np.arange(10), 2)
    sums = differences.reshape(10, 2).sum(axis=1)
    every = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=10)]
    exact = np.mean(np.array(every) >= abs(sums.sum()) - 1e-9)
    found = swap_test(differences, groups.tolist(), permutations=20_000)
    assert found == pytest.approx(exact, abs=0.01)


def test_the_swap_test_of_single_images_equals_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(60), rng.random(60) + 0.08
    theirs = permutation_test(
        (b, a),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(4),
    ).pvalue
    assert swap_test(b - a, np.arange(60).tolist()) == pytest.approx(theirs, abs=0.02)


def test_equal_predictions_do_not_differ() -> None:
    values = np.random.default_rng(5).random((30, 1))
    found = paired_difference("x", values, values, ones(values), ["a", "b"] * 15)
    assert found.p == 1
    assert (found.difference.value, found.difference.known) == (0, False)
    assert not found.distinguishable


def test_p_is_uniform_under_the_null_hypothesis() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 3).tolist()
    found = [
        swap_test(np.repeat(rng.normal(size=40), 3), groups, permutations=199) for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.08
    # If images were treated as independent, copies would count as evidence.
    alone = [
        swap_test(np.repeat(rng.normal(size=40), 3), list(range(120)), permutations=199)
        for _ in range(400)
    ]
    assert np.mean(np.array(alone) <= 0.05) > 0.15


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_a_binomial_test(images: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(column) for column in zip(*images, strict=True))
    found = mcnemar(a, b, list(range(len(a))))
    assert found.only_a == sum(one and not other for one, other in images)
    assert found.only_b == sum(other and not one for one, other in images)
    if found.only_a + found.only_b:
        theirs = binomtest(found.only_a, found.only_a + found.only_b).pvalue
        assert found.p == pytest.approx(theirs)
    else:
        assert found.p == 1


def test_mcnemar_uses_one_image_per_group() -> None:
    a = np.array([True, True, False, True])
    found = mcnemar(a, ~a, ["x", "x", "y", "y"])
    assert found == (2, 1, 1, 1)


def test_sentences_agree_with_p() -> None:
    better = Difference("accuracy", 0.8, 0.818, Interval(0.018, 0.006, 0.031), 0.01, 7469)
    assert better.sentence() == (
        "accuracy: B is better by 1.8 points, 95 % interval 0.6 to 3.1, 7,469 lesions"
    )
    worse = better._replace(difference=Interval(-0.018, -0.031, -0.006))
    assert worse.sentence("old", "new") == (
        "accuracy: old is better by 1.8 points, 95 % interval 0.6 to 3.1, 7,469 lesions"
    )
    unsure = better._replace(difference=Interval(0.018, -0.002, 0.031), p=0.07, groups=1)
    assert unsure.sentence() == (
        "accuracy: no clear difference between A and B: B - A is 1.8 points, "
        "95 % interval -0.2 to 3.1, 1 lesion"
    )
    blank = unsure._replace(difference=Interval(0.018, np.nan, np.nan))
    assert blank.sentence().endswith("B - A is 1.8 points, 1 lesion")
    assert better.to_dict()["difference"] == {"value": 0.018, "low": 0.006, "high": 0.031}


def test_non_finite_values_are_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        paired_difference("x", [[np.nan]], [[1.0]], [[1.0]], ["a"])
    with pytest.raises(DataError, match="no group"):
        swap_test([1.0], [None])
