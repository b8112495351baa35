"""Intervals by group: width, coverage, and agreement with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import roc_auc_score

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking, means_of, quantiles_of
from naevus.evaluation.intervals import (
    Interval,
    balanced_accuracy_interval,
    bca_interval,
    grouped_ratios,
    mean_interval,
    percentile_interval,
    recall_intervals,
    recovered_interval,
    weighted_intervals,
    wilson_interval,
)


def width(interval: Interval) -> float:
    return interval.high - interval.low


def names(numbers: np.ndarray) -> list[str]:
    return [f"g{number}" for number in numbers]


def test_few_groups_give_no_interval() -> None:
    values = np.linspace(0, 1, 9)
    few = mean_interval(values, names(np.arange(9)))
    assert (few.value, few.known, str(few)) == (0.5, False, "0.500")
    assert mean_interval(np.append(values, 0.5), names(np.arange(10))).known
    assert not mean_interval([0.25] * 200, names(np.arange(200))).known  # nothing varies
    assert not mean_interval([1.0] * 200, names(np.arange(200))).known  # no fraction of images


def test_a_fraction_of_few_groups_has_wilson_s_interval() -> None:
    right = [True] * 19 + [False] * 2
    found = mean_interval(right, names(np.arange(21)))
    theirs = binomtest(19, 21).proportion_ci(method="wilson")
    assert found == pytest.approx((19 / 21, theirs.low, theirs.high))
    assert (round(found.low, 3), round(found.high, 3)) == (0.711, 0.973)
    perfect = mean_interval([True] * 500, names(np.arange(500)))
    assert perfect == pytest.approx((1, binomtest(500, 500).proportion_ci(method="wilson").low, 1))


def test_a_leaning_mean_of_few_groups_has_a_bca_interval() -> None:
    values = np.random.default_rng(1).lognormal(sigma=1.2, size=40)
    groups = names(np.arange(40))
    assert mean_interval(values, groups) == bca_interval(means_of(values[:, None]), groups)


def test_each_figure_has_the_interval_of_its_number_of_groups() -> None:
    values = np.random.default_rng(0).random((150, 3)) ** 2
    groups = names(np.arange(150))
    few, some, all_ = weighted_intervals(means_of(values), groups, count=[9, 99, 150])
    assert not few.known
    assert some == pytest.approx(bca_interval(means_of(values[:, 1:2]), groups))
    assert all_ == pytest.approx(weighted_intervals(means_of(values[:, 2:]), groups)[0])
    assert not any(one.known for one in weighted_intervals(means_of(values), groups, count=[9] * 3))


def test_a_recovered_fraction_is_wilson_s_also_of_shared_weights() -> None:
    right = np.array([True, False, True, True, False, True])
    apart = [interval.low for interval in (
        recovered_interval(right[:, None], np.ones((6, 1)), list("abcdef")),
        wilson_interval(right, list("abcdef")),
    )]  # fmt: skip
    assert apart[0] == pytest.approx(apart[1])
    copies, thirds = np.repeat(right, 3)[:, None], np.full((18, 1), 1 / 3)
    shared = recovered_interval(copies * thirds, thirds, list(np.repeat(list("abcdef"), 3)))
    assert shared.low == pytest.approx(apart[0])


def test_a_balanced_accuracy_with_a_rare_class_is_recovered_from_its_recalls() -> None:
    truth = ["MEL"] * 5 + ["NV"] * 60
    predictions = ["MEL"] * 5 + ["NV"] * 45 + ["MEL"] * 15
    found = balanced_accuracy_interval(truth, predictions, names(np.arange(65)))
    parts = [binomtest(*pair).proportion_ci(method="wilson") for pair in ((5, 5), (45, 60))]
    below = np.hypot(1 - parts[0].low, 0.75 - parts[1].low) / 2
    above = np.hypot(0, parts[1].high - 0.75) / 2
    assert found == pytest.approx((0.875, 0.875 - below, 0.875 + above))


def test_balanced_accuracies_with_rare_classes_are_covered() -> None:
    rng = np.random.default_rng(11)
    recalls, counts = np.array([0.6, 0.9, 0.8]), (8, 15, 40)
    truth = np.repeat(np.arange(3), counts)
    found = []
    for _ in range(400):
        right = rng.random(len(truth)) < recalls[truth]
        answers = np.where(right, truth, (truth + 1) % 3)
        codes, predicted = truth.astype(str).tolist(), answers.astype(str).tolist()
        found.append(balanced_accuracy_interval(codes, predicted, names(np.arange(len(truth)))))
    assert 0.93 <= coverage(found, float(recalls.mean())) <= 0.985


def test_correlated_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=60), 5)  # five equal images per lesion
    single = mean_interval(values, names(np.arange(300)))
    grouped = mean_interval(values, names(np.repeat(np.arange(60), 5)))
    assert grouped.value == single.value
    assert width(grouped) / width(single) == pytest.approx(np.sqrt(5), rel=0.15)


def test_uncorrelated_groups_do_not_widen_the_interval() -> None:
    values = np.tile([False, True], 100)
    grouped = mean_interval(values, names(np.repeat(np.arange(100), 2)))
    assert grouped == pytest.approx(wilson_interval(values, names(np.arange(200)))[:3])


def test_independent_images_agree_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=150)
    interval = mean_interval(values, names(np.arange(150)))
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(theirs.low, abs=0.1 * width(interval))
    assert interval.high == pytest.approx(theirs.high, abs=0.1 * width(interval))


def naive_balanced_accuracies(
    truth: list[str], predictions: list[str], groups: list[str], draws: int
) -> list[float]:
    """Draw lesions of each diagnosis with replacement, and score their images."""
    rng = np.random.default_rng(5)
    strata: dict[str, list[str]] = {}
    for diagnosis, group in zip(truth, groups, strict=True):
        if group not in strata.setdefault(diagnosis, []):
            strata[diagnosis].append(group)
    found = []
    for _ in range(draws):
        pile = [
            index
            for lesions in strata.values()
            for group in rng.choice(lesions, len(lesions))
            for index, other in enumerate(groups)
            if other == group
        ]
        recalls = []
        for diagnosis in strata:
            hits = [predictions[i] == diagnosis for i in pile if truth[i] == diagnosis]
            recalls.append(np.mean(hits))
        found.append(float(np.mean(recalls)))
    return found


def test_balanced_accuracy_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    lesions = np.repeat(np.arange(40), rng.integers(1, 4, 40))
    truth = [("MEL", "NV", "NV", "BCC")[lesion % 4] for lesion in lesions]
    predictions = [
        code if rng.random() < 0.7 else str(rng.choice(["MEL", "NV", "BCC"])) for code in truth
    ]
    groups = names(lesions)
    interval = balanced_accuracy_interval(truth, predictions, groups)
    naive = naive_balanced_accuracies(truth, predictions, groups, 1000)
    low, high = np.quantile(naive, (0.025, 0.975))
    assert interval.low == pytest.approx(low, abs=0.1 * width(interval))
    assert interval.high == pytest.approx(high, abs=0.1 * width(interval))
    assert interval.low < interval.value < interval.high


def test_a_class_without_images_does_not_count() -> None:
    truth = ["MEL", "MEL", "NV", "NV"]
    predictions = ["MEL", "VASC", "NV", "NV"]  # VASC is predicted, but never true
    interval = balanced_accuracy_interval(truth, predictions, ["a", "b", "c", "d"])
    assert interval.value == pytest.approx((0.5 + 1) / 2)
    assert 0 <= interval.low < 0.75 < interval.high <= 1


def test_undefined_ratios_are_left_out_of_a_draw() -> None:
    # Class 1 has one lesion; without strata, many draws do not contain it.
    numerators = np.array([[1.0, 0], [1, 0], [0, 0]])
    denominators = np.array([[1.0, 0], [1, 0], [0, 1]])
    draws = grouped_ratios(numerators, denominators, ["a", "b", "c"], draws=500)
    assert set(np.round(draws, 6)) == {0.0, 0.5, 1.0}
    by_class = grouped_ratios(numerators, denominators, ["a", "b", "c"], ["x", "x", "y"], draws=500)
    assert set(by_class) == {0.5}


def test_equal_seeds_give_equal_draws() -> None:
    values = np.random.default_rng(4).random((30, 1))
    groups = names(np.arange(30) // 2)
    one, other = (grouped_ratios(values, np.ones_like(values), groups) for _ in range(2))
    assert len(one) == 2000
    assert np.array_equal(one, other)
    fewer = grouped_ratios(values, np.ones_like(values), groups, draws=130, seed=1)
    assert len(fewer) == 130


def test_the_value_is_independent_of_the_order_of_images() -> None:
    values, groups = np.array([0.1, 0.5, 0.9, 0.3]), ["b", "a", "b", "c"]
    backwards = mean_interval(values[::-1], groups[::-1])
    assert backwards.value == pytest.approx(mean_interval(values, groups).value)
    assert str(Interval(0.8123, 0.79, 0.8312)) == "0.812 (0.790 to 0.831)"


@given(st.integers(0, 40), st.integers(1, 40))
def test_ungrouped_images_have_the_wilson_interval(right: int, wrong: int) -> None:
    values = [1] * right + [0] * wrong
    ours = wilson_interval(values, names(np.arange(len(values))))
    theirs = binomtest(right, right + wrong).proportion_ci(method="wilson")
    assert ours.groups == len(values)
    assert ours[:3] == pytest.approx((right / (right + wrong), theirs.low, theirs.high))


def test_copies_in_a_group_count_once() -> None:
    right, numbers = np.tile([1, 1, 0, 1, 0], 20), np.arange(100)
    single = wilson_interval(right, names(numbers))
    copied = wilson_interval(np.repeat(right, 8), names(np.repeat(numbers, 8)))
    assert copied.groups == 100
    assert copied[:3] == pytest.approx(single[:3], rel=0.01)
    perfect = wilson_interval(np.ones(40), names(np.repeat(np.arange(5), 8)))
    theirs = binomtest(5, 5).proportion_ci(method="wilson")
    assert perfect[:3] == pytest.approx((1, theirs.low, 1))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40),
)
def test_a_fraction_stays_in_its_interval(images: list[tuple[bool, int]]) -> None:
    right, numbers = zip(*images, strict=True)
    fraction = wilson_interval(right, [str(number) for number in numbers])
    assert 0 <= fraction.low <= fraction.value <= fraction.high <= 1
    assert fraction.groups == len(set(numbers))


def test_recalls_are_reported_with_their_groups() -> None:
    truth = ["MEL", "MEL", "MEL", "NV", "NV"]
    recalls = recall_intervals(truth, ["MEL", "NV", "MEL", "NV", "NV"], ["a", "a", "b", "c", "d"])
    assert list(recalls) == ["MEL", "NV"]
    assert recalls["MEL"].value == pytest.approx(2 / 3)
    assert recalls["MEL"].groups == 2
    assert str(recalls["NV"]) == "1.000 (0.342 to 1.000), n = 2"


def test_proportions_without_counts_are_refused() -> None:
    with pytest.raises(DataError, match="0 or 1"):
        wilson_interval([0.5], ["a"])
    with pytest.raises(DataError, match="not a finite number"):
        wilson_interval([np.nan], ["a"])
    with pytest.raises(DataError, match="not a finite number"):
        mean_interval([0.1, np.nan], ["a", "b"])


def clustered(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values of one to three images per group, with intraclass correlation 0.5."""
    numbers = np.repeat(np.arange(groups), rng.integers(1, 4, groups))
    values = rng.normal(size=groups)[numbers] + rng.normal(size=len(numbers))
    return values, numbers


def coverage(found: list[Interval], truth: float) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


def test_intervals_of_jaccard_means_have_nominal_coverage() -> None:
    rng = np.random.default_rng(6)
    found = []
    for seed in range(400):
        values, numbers = clustered(rng, 120)
        jaccard = ndtr(values)[:, None]
        draws = grouped_ratios(jaccard, np.ones_like(jaccard), names(numbers), draws=300, seed=seed)
        found.append(percentile_interval(float(jaccard.mean()), draws))
    assert 0.93 <= coverage(found, 0.5) <= 0.97


def test_intervals_of_balanced_accuracy_have_nominal_coverage() -> None:
    rng = np.random.default_rng(7)
    levels = (1.0, 0.3)  # these set the recall of a class
    truth = np.mean([ndtr(level / np.sqrt(2)) for level in levels])
    found = []
    for seed in range(400):
        values, numbers = zip(*(clustered(rng, 100) for _ in levels), strict=True)
        classes = np.repeat([0, 1], [len(each) for each in values])
        right = np.concatenate(values) + np.array(levels)[classes] > 0
        groups = names(np.concatenate(numbers) + 100 * classes)
        member = classes[:, None] == np.arange(2)
        hits = member & right[:, None]
        draws = grouped_ratios(hits, member, groups, names(classes), draws=300, seed=seed)
        found.append(percentile_interval(float((hits.sum(0) / member.sum(0)).mean()), draws))
    assert 0.93 <= coverage(found, float(truth)) <= 0.97


def test_wilson_intervals_cover_with_few_lesions() -> None:
    rng = np.random.default_rng(8)
    found = []
    for _ in range(1000):
        values, numbers = clustered(rng, 30)
        found.append(Interval(*wilson_interval(values > -1.5, names(numbers))[:3]))
    assert 0.93 <= coverage(found, float(ndtr(1.5 / np.sqrt(2)))) <= 0.97


def test_bca_interval_of_a_skewed_mean_equals_scipy() -> None:
    values = np.random.default_rng(0).lognormal(sigma=1.2, size=40)
    groups = [f"g{n}" for n in range(40)]
    ours = bca_interval(means_of(values[:, None]), groups, draws=20_000)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert ours.high - ours.value > ours.value - ours.low


def test_copies_in_a_group_change_nothing() -> None:
    values = np.random.default_rng(2).lognormal(size=30)
    single = bca_interval(means_of(values[:, None]), [f"g{n}" for n in range(30)])
    copied = bca_interval(
        means_of(np.repeat(values, 3)[:, None]), [f"g{n // 3}" for n in range(90)]
    )
    assert copied == pytest.approx(single)


def test_strata_are_resampled_separately() -> None:
    truth = np.array([1] * 12 + [0] * 200, bool)
    rng = np.random.default_rng(3)
    scores = np.where(truth, 1.5, 0) + rng.normal(size=len(truth))
    groups = [f"g{n}" for n in range(len(truth))]
    ranking = Ranking.of(truth, scores)
    found = bca_interval(ranking.auc, groups, truth.tolist())
    assert found.value == pytest.approx(roc_auc_score(truth, scores))
    assert 0 < found.low < found.value < found.high <= 1
    # The AUC is skewed to 0: the lower half of the interval is longer.
    assert found.value - found.low > found.high - found.value


def test_a_perfect_rare_class_and_one_group_have_no_interval() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    groups = [f"g{n}" for n in range(7)]
    perfect = bca_interval(Ranking.of(truth, truth.astype(float)).auc, groups, truth.tolist())
    assert (perfect.value, perfect.known) == (1, False)
    assert not bca_interval(means_of([[0.2], [0.6]]), ["a", "a"]).known


def test_a_figure_without_its_only_group_is_left_out() -> None:
    truth = np.array([1, 0, 0, 0], bool)
    ranking = Ranking.of(truth, [0.5, 0.1, 0.7, 0.2])
    together = bca_interval(ranking.auc, ["a", "b", "c", "d"])
    assert together.value == pytest.approx(2 / 3)
    assert together.low <= together.value <= together.high
    one_sided = bca_interval(Ranking.of(~np.zeros(3, bool), [1, 2, 3]).auc, ["a", "b", "c"])
    assert np.isnan(one_sided).all()
    with pytest.raises(DataError, match="no group"):
        bca_interval(ranking.auc, ["a", "b", None, "d"])


def test_intervals_of_medians_have_nominal_coverage() -> None:
    # Plain percentiles would pass too; a wrong sign would not.
    rng = np.random.default_rng(4)
    covered = []
    for seed in range(300):
        values = ndtr(rng.normal(size=60) + 1)
        found = bca_interval(
            quantiles_of(values, (0.5,)), [f"g{n}" for n in range(60)], draws=400, seed=seed
        )
        covered.append(found.low <= ndtr(1) <= found.high)
    assert 0.9 <= np.mean(covered) <= 0.985
