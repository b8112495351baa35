"""What answers to pictures that networks never saw say of them, as ``bundle.json`` holds it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from naevus.bundles.figures import ClassFigures, Figure, ScoreSpec, SubgroupFigures
from naevus.evaluation.calibration import CalibrationScores
from naevus.evaluation.conformal import Conformal, SetScores, cross_fitted_sets
from naevus.evaluation.evaluate import classification_scores, scored
from naevus.evaluation.intervals import recall_intervals
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.scaling import Scaling, cross_fitted, fit_scaling, parts_of, scaled
from naevus.evaluation.segmentation import segmentation_scores
from naevus.evaluation.subgroups import age_bands, subgroup_scores
from naevus.evaluation.tables import probabilities, rebalanced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from naevus.evaluation.calibration import BinnedError
    from naevus.evaluation.classification import ClassificationScores
    from naevus.evaluation.intervals import Interval, Proportion
    from naevus.taxonomy import Taxonomy


class Diagnosing(NamedTuple):
    """What is known of networks that diagnose, from answers to pictures they never saw.

    Attributes:
        scaling: Temperature and offsets fitted on all of these answers: what is shipped.
        conformal: Thresholds of prediction sets at that scaling, likewise.
        scores: Headline and calibration figures, scaled and with sets fitted elsewhere.
        by_class: Figures of each diagnosis, likewise.
        subgroups: Figures by sex and age, where these are known.
    """

    scaling: Scaling
    conformal: Conformal
    scores: tuple[ScoreSpec, ...]
    by_class: tuple[ClassFigures, ...]
    subgroups: tuple[SubgroupFigures, ...]


def counted(table: pd.DataFrame) -> str:
    """Return how many pictures a table has, of how many lesions, and of which folds."""
    text = f"{len(table):,} pictures of {table['group_id'].nunique():,} lesions"
    if "fold" not in table.columns:
        return text
    folds = sorted(table["fold"].unique().tolist())
    numbers = ", ".join(map(str, folds))
    return f"{text}, held out by fold{'s' if len(folds) > 1 else ''} {numbers}"


@repeatable
def outlining(table: pd.DataFrame, whose: str) -> tuple[ScoreSpec, ...]:
    """Return the figures of networks that outline.

    Args:
        table: What `evaluation.outoffold.segmentation_scores` reads, out of fold.
        whose: Whose figures they are, such as ``of the recipe, out of fold``.
    """
    scores, intervals = segmentation_scores(table)
    on = f"{whose}: {counted(table)}"
    return (
        _score("mean Jaccard index", intervals["jaccard"], on),
        _score("thresholded Jaccard index", intervals["thresholded_jaccard"], on),
        ScoreSpec(name="Jaccard index below 0.65, share", value=scores.below_threshold, on=on),
    )


@repeatable
def diagnosing(
    table: pd.DataFrame, taxonomy: Taxonomy, whose: str, records: pd.DataFrame | None
) -> Diagnosing:
    """Fit scaling and prediction sets, and judge them where they were not fitted.

    Each fold is judged by what was fitted on the others, a single fold by halves of its lesions.

    Args:
        table: What `evaluation.outoffold.probabilities` reads, with ``image_id``, ``group_id``
            and ``truth``, out of fold.
        taxonomy: The diagnoses.
        whose: Whose figures they are, such as ``of the recipe, out of fold``.
        records: Rows of the data set by image id (``sex``, ``age``); None where it is not there.

    Raises:
        DataError: A column is missing, or there are too few lesions to part.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    table = table.sort_values("image_id", ignore_index=True)  # a draw is by position
    natural, _ = probabilities(table, taxonomy)
    truth = np.array([taxonomy.index(code) for code in table["truth"]], np.intp)
    groups, parts = table["group_id"].tolist(), parts_of(table)
    scaling = fit_scaling(natural, truth)
    conformal = Conformal.fit(scaled(natural, scaling), truth, groups, taxonomy.codes)
    elsewhere = cross_fitted(natural, truth, parts).natural
    balanced = rebalanced(table, elsewhere, taxonomy)
    scores, intervals = scored(table, elsewhere, balanced, taxonomy)
    sets = cross_fitted_sets(natural, truth, groups, taxonomy.codes, parts)
    covered = SetScores.from_sets(sets, truth, groups, taxonomy.codes)
    on = f"{whose}: {counted(table)}"
    fitted = f"{on}; temperature, offsets and sets fitted elsewhere, {_parted(table, parts)}"
    plain = classification_scores(table, taxonomy)[1]["balanced_accuracy"]
    answers = np.array(taxonomy.codes, object)[balanced.argmax(axis=1)].tolist()
    recalls = recall_intervals(table["truth"].tolist(), answers, groups)
    return Diagnosing(
        scaling=scaling,
        conformal=conformal,
        scores=(
            _score("balanced accuracy, balanced decision", intervals["balanced_accuracy"], fitted),
            _score("the same, not calibrated", plain, on),
            _score("accuracy, probable decision", intervals["accuracy"], fitted),
            *_calibration(elsewhere, truth, groups, "", fitted),
            *_calibration(natural, truth, groups, ", not calibrated", on),
            *_sets(covered, _wanting(sets, parts, taxonomy), fitted),
        ),
        by_class=tuple(_by_class(scores, recalls, covered)),
        subgroups=_subgroups(table, answers, records),
    )


def _parted(table: pd.DataFrame, parts: NDArray[np.intp]) -> str:
    count = len(np.unique(parts))
    folds = "fold" in table.columns and len(table["fold"].unique()) > 1
    return (
        f"each of {count} folds by the others" if folds else "each half of the lesions by the other"
    )


def _score(name: str, interval: Interval | Proportion | BinnedError, on: str) -> ScoreSpec:
    return ScoreSpec(name=name, on=on, **_figure(interval).model_dump())


def _figure(interval: Interval | Proportion | BinnedError) -> Figure:
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        return Figure(value=interval.value, low=interval.low, high=interval.high)
    return Figure(value=interval.value)


def _calibration(
    natural: NDArray[np.float64], truth: NDArray[np.intp], groups: list[str], how: str, on: str
) -> Iterator[ScoreSpec]:
    found = CalibrationScores.from_probabilities(natural, truth, groups)
    chance = f"about {found.ece.chance:.3f} by chance alone"
    yield _score(f"expected calibration error{how}, 15 bins ({chance})", found.ece, on)
    yield _score(f"negative log-likelihood{how}, nats", found.nll, on)


def _sets(sets: SetScores, wanting: str, on: str) -> Iterator[ScoreSpec]:
    name = f"{100 * sets.level:g} % sets that hold the truth"
    yield _score(f"{name}, of lesions, one picture each", sets.overall.lesions, on)
    yield _score(f"{name}, of pictures", sets.overall.pictures, on)
    size = f"mean number of diagnoses in a set{wanting}"
    yield ScoreSpec(name=size, value=sets.overall.size, on=on)
    yield ScoreSpec(name="sets with one diagnosis, share", value=sets.single, on=on)
    yield ScoreSpec(name="empty sets, share", value=sets.empty, on=on)


def _wanting(sets: NDArray[np.bool_], parts: NDArray[np.intp], taxonomy: Taxonomy) -> str:
    """Say which classes had too few lesions for a threshold, so that they are in every set."""
    always = np.any([sets[parts == part].all(axis=0) for part in np.unique(parts)], axis=0)
    codes = [code for code, every in zip(taxonomy.codes, always, strict=True) if every]
    return f" ({', '.join(codes)} in all, for want of lesions to fit on)" if codes else ""


def _by_class(
    scores: ClassificationScores, recalls: dict[str, Proportion], sets: SetScores
) -> Iterator[ClassFigures]:
    for one in scores.balanced.classes:
        recall, covered = recalls.get(one.code), sets.classes.get(one.code)
        yield ClassFigures(
            code=one.code,
            pictures=one.pictures,
            groups=recall.groups if recall else 0,
            recall=recall and _figure(recall),
            precision=one.precision,
            auc=scores.auc[one.code],
            covered=covered and _figure(covered.lesions),
        )


def _subgroups(
    table: pd.DataFrame, answers: list[str], records: pd.DataFrame | None
) -> tuple[SubgroupFigures, ...]:
    if records is None:
        return ()
    rows = records.reindex(table["image_id"])
    attributes = {"sex": rows["sex"].tolist(), "age": age_bands(rows["age"].astype("float64"))}
    known = {name: each for name, each in attributes.items() if pd.Series(each).notna().any()}
    if not known:
        return ()
    found = subgroup_scores(table["truth"].tolist(), answers, table["group_id"].tolist(), known)
    return tuple(
        SubgroupFigures(
            attribute=one.attribute,
            value=one.value,
            pictures=one.pictures,
            groups=one.groups,
            small=one.small,
            balanced_accuracy=one.balanced_accuracy and _figure(one.balanced_accuracy),
            over=one.classes,
            gap=one.gap,
            p_holm=one.p_holm,
        )
        for one in found
    )
