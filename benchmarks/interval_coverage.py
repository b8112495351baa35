"""Coverage of the 95 % intervals, by simulation.

Lesions with one to four images are simulated, with half of the variance between lesions, and as
many lesions of each diagnosis as in a fifth of ISIC 2018 Task 3 or Task 1. The true values are
known, so each interval either covers its value or not. All intervals come from the functions of
`naevus evaluate`, with the same number of resamples.

    python benchmarks/interval_coverage.py --repeats 500

prints a Markdown table; a fraction has a standard error of about 1 point at 500 repeats.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

from naevus.evaluation.bootstrap import Ranking, quantiles_of
from naevus.evaluation.intervals import (
    Interval,
    balanced_accuracy_interval,
    bca_interval,
    grouped_ratios,
    mean_interval,
    percentile_interval,
    weighted_intervals,
    wilson_interval,
)
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.evaluation.paired_tests import paired_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

LESIONS = {"NV": 1080, "BKL": 145, "MEL": 123, "BCC": 65, "AKIEC": 46, "VASC": 20, "DF": 15}
"""A fifth of ISIC 2018 Task 3."""
LEVELS = {"NV": 1.2, "BKL": 0.6, "MEL": 0.5, "BCC": 0.9, "AKIEC": 0.7, "VASC": 1.5, "DF": 0.6}
"""How far right answers are from wrong ones: recalls of 0.69 to 0.93."""
MASKS = 420
"""Lesions in a fifth of ISIC 2018 Task 1."""
IMAGES = (0.75, 0.19, 0.05, 0.01)
"""Fractions of lesions with one, two, three and four images."""
QUALITY = 1.1
"""Of the masks: a Jaccard index is the normal distribution at this plus a normal deviate."""

Draw = Callable[[np.random.Generator], Interval]


class Figure(NamedTuple):
    """A metric with a known true value."""

    name: str
    lesions: int
    truth: float
    draw: Draw


def deviates(rng: np.random.Generator, lesions: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return standard normal values of images, with correlation 1/2 in lesions, and the lesions."""
    numbers = np.repeat(np.arange(lesions), rng.choice(4, lesions, p=IMAGES) + 1)
    common = rng.normal(size=lesions)[numbers]
    return (common + rng.normal(size=len(numbers))) / np.sqrt(2), numbers


def names(numbers: NDArray[Any], before: str = "") -> list[str]:
    """Return the ids of lesions."""
    return [f"{before}{number}" for number in numbers]


def classified(rng: np.random.Generator) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return diagnoses, groups, and predictions of two equally good networks."""
    truth: list[str] = []
    groups: list[str] = []
    predictions: tuple[list[str], list[str]] = ([], [])
    wrong = {code: "BKL" if code != "BKL" else "NV" for code in LESIONS}
    for code, lesions in LESIONS.items():
        values, numbers = deviates(rng, lesions)
        others = (values + rng.normal(size=len(values))) / np.sqrt(2)
        truth += [code] * len(values)
        groups += names(numbers, code)
        for codes, each in zip(predictions, (values, others), strict=True):
            codes += [code if right else wrong[code] for right in each + LEVELS[code] > 0]
    return truth, groups, *predictions


def balanced(rng: np.random.Generator) -> Interval:
    """Simulate a balanced accuracy."""
    truth, groups, codes, _ = classified(rng)
    return balanced_accuracy_interval(truth, codes, groups)


def difference(rng: np.random.Generator) -> Interval:
    """Simulate a difference of balanced accuracies whose true value is 0."""
    truth, groups, one, other = classified(rng)
    codes = np.asarray(truth, object)
    member = codes[:, None] == np.array(list(LESIONS), object)[None, :]
    ours, theirs = (member & (codes == np.asarray(each, object))[:, None] for each in (one, other))
    return paired_difference("", ours, theirs, member, groups).difference


def jaccard(figure: Callable[[NDArray[Any], list[str]], Interval]) -> Draw:
    """Return a simulation of a metric of Jaccard indices."""

    def draw(rng: np.random.Generator) -> Interval:
        values, numbers = deviates(rng, MASKS)
        return figure(ndtr(values + QUALITY), names(numbers))

    return draw


def recall(lesions: int, wilson: bool) -> Draw:
    """Return a simulation of the recall of one class."""

    def draw(rng: np.random.Generator) -> Interval:
        values, numbers = deviates(rng, lesions)
        right = values + LEVELS["AKIEC"] > 0
        if wilson:
            return Interval(*wilson_interval(right, names(numbers))[:3])
        hits = right[:, None].astype(float)
        draws = grouped_ratios(hits, np.ones_like(hits), names(numbers))
        return percentile_interval(float(hits.mean()), draws)

    return draw


def auc(lesions: int, bca: bool, others: int = 200) -> Draw:
    """Return a simulation of the AUC of one class against the others."""

    def draw(rng: np.random.Generator) -> Interval:
        ours, numbers = deviates(rng, lesions)
        theirs, more = deviates(rng, others)
        truth = np.repeat([True, False], [len(ours), len(theirs)])
        ranking = Ranking.of(truth, np.concatenate([ours + 2, theirs]))
        groups = names(numbers, "in") + names(more, "out")
        if bca:
            return bca_interval(ranking.auc, groups, truth.tolist())
        (found,) = weighted_intervals(ranking.auc, groups, truth.tolist(), count=lesions + others)
        return found

    return draw


def median(values: NDArray[Any], groups: list[str]) -> Interval:
    """Return the median with its interval."""
    (found,) = weighted_intervals(quantiles_of(values, (0.5,)), groups)
    return found


def figures() -> Iterator[Figure]:
    """Yield the simulated metrics."""
    lesions = sum(LESIONS.values())
    recalls = [float(ndtr(level)) for level in LEVELS.values()]
    yield Figure("balanced accuracy", lesions, float(np.mean(recalls)), balanced)
    yield Figure("difference of two balanced accuracies", lesions, 0.0, difference)
    edge = float(norm.ppf(JACCARD_THRESHOLD)) - QUALITY
    kept, _ = quad(lambda z: float(ndtr(z + QUALITY) * norm.pdf(z)), edge, np.inf)
    yield Figure("mean Jaccard", MASKS, float(ndtr(QUALITY / np.sqrt(2))), jaccard(mean_interval))
    yield Figure(
        "thresholded Jaccard",
        MASKS,
        kept,
        jaccard(lambda j, groups: mean_interval(np.where(j >= JACCARD_THRESHOLD, j, 0), groups)),
    )
    yield Figure("median Jaccard", MASKS, float(ndtr(QUALITY)), jaccard(median))
    yield Figure(
        "fraction of masks below 0.65, Wilson",
        MASKS,
        float(ndtr(edge)),
        jaccard(lambda j, groups: Interval(*wilson_interval(j < JACCARD_THRESHOLD, groups)[:3])),
    )
    for count in (123, 46, 15):
        truth = float(ndtr(LEVELS["AKIEC"]))
        yield Figure("recall of a class, Wilson", count, truth, recall(count, wilson=True))
        yield Figure("recall of a class, bootstrap", count, truth, recall(count, wilson=False))
    for count in (123, 46, 15):
        truth = float(ndtr(2 / np.sqrt(2)))
        yield Figure("AUC of a class, BCa", count, truth, auc(count, bca=True))
        yield Figure("AUC of a class, percentiles", count, truth, auc(count, bca=False))


def main() -> None:
    """Print the coverage of each interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500, help="data sets that are drawn")
    parser.add_argument("--only", default="", help="figures whose name holds this, such as AUC")
    parser.add_argument("--seed", type=int, default=2018)
    chosen = parser.parse_args()
    print("| figure | lesions | truth | holds it | below it | above it | mean width |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for figure in (each for each in figures() if chosen.only in each.name):
        rng = np.random.default_rng(chosen.seed)
        found = np.array([figure.draw(rng) for _ in range(chosen.repeats)])
        below, above = (found[:, 2] < figure.truth).mean(), (found[:, 1] > figure.truth).mean()
        width = (found[:, 2] - found[:, 1]).mean()
        print(
            f"| {figure.name} | {figure.lesions:,} | {figure.truth:.3f} | {1 - below - above:.1%} "
            f"| {below:.1%} | {above:.1%} | {width:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
