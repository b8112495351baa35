"""What runs are known to be worth, from their answers to held-out images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.bundles.spec import ClassFigures, Figure, ScoreSpec, SubgroupFigures
from naevus.errors import DataError
from naevus.evaluation.attributes import AttributesEvaluation
from naevus.evaluation.conformal import Conformal
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.scaling import Scaling, fit_scaling, scaled
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.evaluation.subgroups import age_bands
from naevus.evaluation.tables import combined, oof_classified, taxonomy_of
from naevus.runs.run import lesions_of
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.calibration import BinnedError, CalibrationScores
    from naevus.evaluation.conformal import SetScores
    from naevus.evaluation.intervals import Interval, Proportion
    from naevus.evaluation.subgroups import Subgroup
    from naevus.runs.run import Run


# What answers to images that networks never saw say of them, as ``bundle.json`` holds it.


class ClassificationEvidence(NamedTuple):
    """What is known of networks that diagnose, from answers to images they never saw.

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
    """Return how many images a table has, of how many lesions, and of which folds."""
    text = f"{len(table):,} images of {table['group_id'].nunique():,} lesions"
    if "fold" not in table.columns:
        return text
    folds = sorted(table["fold"].unique().tolist())
    numbers = ", ".join(map(str, folds))
    return f"{text}, held out by fold{'s' if len(folds) > 1 else ''} {numbers}"


def segmentation(table: pd.DataFrame, whose: str) -> tuple[ScoreSpec, ...]:
    """Return the figures of networks that contour.

    Args:
        table: What `SegmentationEvaluation.of` reads, out of fold.
        whose: Whose figures they are, such as ``of the recipe, out of fold``.
    """
    found = SegmentationEvaluation.of(table)
    on = f"{whose}: {counted(table)}"
    return (
        _score("mean Jaccard index", found.metrics["jaccard"], on),
        _score("thresholded Jaccard index", found.metrics["thresholded_jaccard"], on),
        ScoreSpec(name="Jaccard index below 0.65, share", value=found.failed.value, measured_on=on),
    )


@repeatable
def classification(
    table: pd.DataFrame, whose: str, records: pd.DataFrame | None
) -> ClassificationEvidence:
    """Fit scaling and prediction sets, and judge them where they were not fitted.

    Each fold is judged by what was fitted on the others, a single fold by halves of its lesions.

    Args:
        table: What `oof_classified` reads, with ``image_id``, ``group_id`` and ``diagnosis``, out
            of fold.
        whose: Whose figures they are, such as ``of the recipe, out of fold``.
        records: Rows of the data set by image id (``sex``, ``age``); None where it is not there.

    Raises:
        DataError: A column is missing, or there are too few lesions to part.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    table = table.sort_values("image_id", ignore_index=True)  # a draw is by position
    labelled = oof_classified(table)
    natural, taxonomy = labelled.natural, labelled.taxonomy
    truth = np.array([taxonomy.index(code) for code in labelled.truth], np.intp)
    scaling = fit_scaling(natural, truth)
    conformal = Conformal.fit(scaled(natural, scaling), truth, labelled.groups, taxonomy.codes)
    found = ClassificationEvaluation.of(
        labelled, _attributes(table, records), always_calibrated=True
    )
    assert found.calibrated is not None  # always
    return ClassificationEvidence(
        scaling=scaling,
        conformal=conformal,
        scores=tuple(_scores(found, f"{whose}: {counted(table)}")),
        by_class=tuple(_by_class(found)),
        subgroups=tuple(map(_subgroup, found.calibrated.subgroups)),
    )


def _attributes(table: pd.DataFrame, records: pd.DataFrame | None) -> dict[str, list[Any]]:
    """Return what the card's subgroups are by: those that most data sets know."""
    if records is None:
        return {}
    rows = records.reindex(table["image_id"])
    return {"sex": rows["sex"].tolist(), "age": age_bands(rows["age"].astype("float64"))}


def _scores(found: ClassificationEvaluation, on: str) -> Iterator[ScoreSpec]:
    """Yield the headline and what calibration and sets are worth, fitted on other parts."""
    plain, calibrated, sets = found.as_predicted, found.calibrated, found.sets
    assert calibrated is not None
    assert sets is not None
    parts = len(found.scalings)
    how = (
        f"each of {parts} folds by the others"
        if found.by_fold
        else "each half of the lesions by the other"
    )
    fitted = f"{on}; temperature, offsets and sets fitted elsewhere, {how}"
    balanced = calibrated.intervals["balanced_accuracy"]
    yield _score("balanced accuracy, balanced decision", balanced, fitted)
    yield _score("the same, not calibrated", plain.intervals["balanced_accuracy"], on)
    yield _score("accuracy, probable decision", calibrated.intervals["accuracy"], fitted)
    yield from _calibration(calibrated.calibration, "", fitted)
    yield from _calibration(plain.calibration, ", not calibrated", on)
    yield from _sets(sets, found.in_every_set, fitted)


def _score(name: str, interval: Interval | Proportion | BinnedError, on: str) -> ScoreSpec:
    return ScoreSpec(name=name, measured_on=on, **_figure(interval).model_dump())


def _figure(interval: Interval | Proportion | BinnedError) -> Figure:
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        return Figure(value=interval.value, low=interval.low, high=interval.high)
    return Figure(value=interval.value)


def _calibration(found: CalibrationScores, how: str, on: str) -> Iterator[ScoreSpec]:
    rng = f"about {found.ece.chance:.3f} by chance alone"
    yield _score(f"expected calibration error{how}, 15 bins ({rng})", found.ece, on)
    yield _score(f"negative log-likelihood{how}, nats", found.nll, on)


def _sets(sets: SetScores, in_every_set: Sequence[str], on: str) -> Iterator[ScoreSpec]:
    name = f"{100 * sets.coverage:g} % sets that hold the truth"
    yield _score(f"{name}, of lesions, one image each", sets.overall.lesions, on)
    yield _score(f"{name}, of images", sets.overall.images, on)
    listed = ", ".join(in_every_set)
    wanting = f" ({listed} in all, for want of lesions to fit on)" if listed else ""
    size = f"mean number of diagnoses in a set{wanting}"
    yield ScoreSpec(name=size, value=sets.overall.size, measured_on=on)
    yield ScoreSpec(name="sets with one diagnosis, share", value=sets.single, measured_on=on)
    yield ScoreSpec(name="empty sets, share", value=sets.empty, measured_on=on)


def _by_class(found: ClassificationEvaluation) -> Iterator[ClassFigures]:
    calibrated, sets = found.calibrated, found.sets
    assert calibrated is not None
    assert sets is not None
    for one in calibrated.scores.balanced.classes:
        recall, covered = calibrated.recalls.get(one.code), sets.classes.get(one.code)
        yield ClassFigures(
            code=one.code,
            images=one.images,
            groups=recall.groups if recall else 0,
            recall=recall and _figure(recall),
            precision=one.precision,
            auc=calibrated.scores.auc[one.code],
            covered=covered and _figure(covered.lesions),
        )


def _subgroup(one: Subgroup) -> SubgroupFigures:
    return SubgroupFigures(
        attribute=one.attribute,
        value=one.value,
        images=one.images,
        groups=one.groups,
        small=one.small,
        balanced_accuracy=one.balanced_accuracy and _figure(one.balanced_accuracy),
        over=one.classes,
        gap=one.gap,
        p_holm=one.p_holm,
    )


RECIPE = "of the recipe, out of fold"
"""Whose figures out-of-fold answers give: never those of the networks in the bundle, together."""
TASK_MEMBERS = "of this combination, on images that none of its networks saw"


class Composition(NamedTuple):
    """What a bundle has of a task.

    Attributes:
        origins: Run and fold of each network.
        folds: The folds that networks held out, by run.
        averaged: Whether the networks' weights became one network's.
    """

    origins: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    averaged: bool = False

    def __str__(self) -> str:
        if self.averaged:
            return f"one network, the average of the weights of {len(self.origins)}"
        return f"the mean of {len(self.origins)} networks" if len(self.origins) > 1 else "a network"


def segmentation_entry(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the entries of ``bundle.json`` about runs that contour: ``scores``.

    Raises:
        RunError: A run's answers do not belong together.
    """
    several = len(runs) > 1
    return {
        "scores": [
            score
            for run in runs
            for score in segmentation(
                run.predictions(), RECIPE + (f" ({run.folder.name})" * several)
            )
        ]
    }


def attributes_entry(run: Run) -> dict[str, Any]:
    """Return the entries of ``bundle.json`` about a run that finds attributes.

    Returns:
        ``scores``: of attributes, of their presence, and of lesions where these are learnt; and
        under ``attributes`` thresholds and presence, chosen on all that was held out, for images
        that are not among it.

    Raises:
        RunError: The run's predictions do not belong together.
    """
    table = run.predictions()
    found = AttributesEvaluation.of(table)
    on = f"{RECIPE}: {counted(table)}"
    elsewhere = f"{on}; thresholds chosen on the other folds"
    scores = [_score("attributes, pooled Jaccard index", found.jaccard, elsewhere)]
    for name, one in found.by_attribute.items():
        title = ATTRIBUTES[name]
        scores.append(_score(f"{title}, pooled Jaccard index", one.jaccard, elsewhere))
        if one.auc is not None:
            scores.append(_score(f"{title}, AUC of presence", one.auc, on))
    lesions = lesions_of(run)
    if lesions is not None:
        scores += segmentation(lesions, f"{RECIPE}, of the lesion")
    presence = [{"slope": slope, "intercept": intercept} for slope, intercept in found.presence]
    return {
        "scores": scores,
        "attributes": {
            "thresholds": found.thresholds,
            "presence": presence,
            "chosen_on": f"out-of-fold predictions: {counted(table)}",
        },
    }


def classification_entry(
    runs: Sequence[Run],
    composition: Composition,
    dataset: Dataset | None,
    calibration: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Return the entries about runs that diagnose.

    Args:
        runs: Runs over the same folds; what each says of an image it held out is averaged, as
            in an ensemble.
        composition: What is in the bundle.
        dataset: The runs' data set, for subgroups; None where it is not there.
        calibration: Answers of exactly this combination to images that none of its networks
            saw: they take the place of the runs' own.

    Returns:
        ``scores``, ``by_class`` and ``subgroups``; and under ``classifier`` the scaling, the
        prediction sets, and what these were fitted on.

    Raises:
        RunError: A run's answers do not belong together.
        DataError: A table is not one of held-out logits, or there are too few lesions.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    if calibration is None:
        tables = [run.predictions() for run in runs]
        taxonomy = taxonomy_of(tables[0])
        names, allowed = [str(run.folder) for run in runs], any(run.allow_missing for run in runs)
        table, whose = combined(tables, taxonomy, names, allow_missing=allowed), RECIPE
        source = f"out-of-fold answers: {_source(table, len(runs), composition)}"
    else:
        table, whose = calibration, TASK_MEMBERS
        _check(table, runs)
        source = f"answers {TASK_MEMBERS}: {counted(table)}"
    if len(runs) > 1 and calibration is None:
        whose += f", as the mean of {len(runs)} networks, one a run"
    records = None if dataset is None else dataset.table.set_index("image_id")
    found = classification(table, whose, records)
    return {
        "scores": list(found.scores),
        "by_class": found.by_class,
        "subgroups": found.subgroups,
        "classifier": {
            "temperature": found.scaling.temperature,
            "offsets": found.scaling.offsets,
            "conformal": found.conformal.to_dict(),
            "calibrated_on": source,
        },
    }


def _source(table: pd.DataFrame, runs: int, composition: Composition) -> str:
    """Say whose answers these are, and how that differs from what is shipped."""
    one = "the one network" if runs == 1 else f"the mean of the {runs} networks"
    basis = f"{counted(table)}, each by {one} that had not seen its lesion"
    folds = {*table["fold"].unique().tolist()}
    if not composition.averaged and all(
        {*each} == folds and len(each) == 1 for each in composition.folds
    ):
        return f"{basis}, which is what is shipped"
    return f"{basis}; what is shipped is {composition}, whose own temperature may differ"


def _check(table: pd.DataFrame, runs: Sequence[Run]) -> None:
    absent = [name for name in ("image_id", "group_id", "diagnosis") if name not in table.columns]
    if absent:
        raise DataError(
            f"the table of answers has no column {absent[0]}",
            "give one like the oof.parquet of train",
        )
    unknown_ids = set(table["image_id"]) - set(runs[0].folds.table["image_id"])
    if unknown_ids:
        raise DataError(
            f"{min(unknown_ids)} of the table of answers is not in the folds of {runs[0].folder}",
            "give answers to images of the same data",
        )
    ours, theirs = taxonomy_of(runs[0].predictions()), taxonomy_of(table)
    if ours != theirs:
        raise DataError("the table of answers is about other classes", "give one of the same")
