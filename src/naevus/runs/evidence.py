"""The evidence for a bundle: calibration and metrics from out-of-fold predictions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.bundles.figures import ClassFigures, Figure, ScoreSpec, SubgroupFigures
from naevus.bundles.spec import PatientSpec
from naevus.errors import DataError
from naevus.evaluation.attributes import AttributesEvaluation
from naevus.evaluation.bootstrap import repeatable
from naevus.evaluation.conformal import Conformal, SetScores
from naevus.evaluation.evaluate import ClassificationEvaluation, ProbabilityMetrics
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.out_of_fold import combined, taxonomy_of
from naevus.evaluation.patient import (
    PatientModel,
    cross_fitted_patients,
    known_in_others,
    patients_of,
    with_log_odds,
)
from naevus.evaluation.scaling import Scaling, fit_scaling, scaled
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.evaluation.subgroups import age_bands
from naevus.io.words import images_of, plural
from naevus.runs.run import lesions_of
from naevus.taxonomy import ATTRIBUTES
from naevus.types import Patient, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.calibration import BinnedError, CalibrationScores
    from naevus.evaluation.intervals import Interval, Proportion
    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.evaluation.lesions import LesionEvaluation
    from naevus.evaluation.subgroups import Subgroup
    from naevus.runs.run import Run


# Calibration and figures of ``bundle.json``.


class ClassificationEvidence(NamedTuple):
    """Calibration and metrics of a classifier, from predictions for held-out images.

    Attributes:
        scaling: Temperature and offsets fitted on all of these predictions, for the bundle.
        conformal: Thresholds of prediction sets after that scaling, fitted on the same.
        patient: Terms of the patient's data and thresholds with them, fitted on the same; None if
            too few data are known to score them.
        scores: Headline and calibration metrics; scaling and sets are cross-fitted.
        by_class: Metrics of each diagnosis, cross-fitted.
        subgroups: Metrics by sex and age where these are known, cross-fitted.
    """

    scaling: Scaling
    conformal: Conformal
    patient: PatientSpec | None
    scores: tuple[ScoreSpec, ...]
    by_class: tuple[ClassFigures, ...]
    subgroups: tuple[SubgroupFigures, ...]
    unit: Unit = "lesion"


def describe(table: pd.DataFrame, unit: Unit = "lesion") -> str:
    """Describe a table: the numbers of images and of groups, and the folds."""
    text = images_of(len(table), table["group_id"].nunique(), unit)
    if "fold" not in table.columns:
        return text
    folds = sorted(table["fold"].unique().tolist())
    numbers = ", ".join(map(str, folds))
    return f"{text}, held out in fold{'s' if len(folds) > 1 else ''} {numbers}"


def segmentation(table: pd.DataFrame, source: str, unit: Unit = "lesion") -> tuple[ScoreSpec, ...]:
    """Return the scores of segmentation networks.

    Args:
        table: An out-of-fold table for `SegmentationEvaluation.of`.
        source: The source of the predictions, such as ``out-of-fold predictions of the recipe``.
        unit: What the groups are.
    """
    found = SegmentationEvaluation.of(table, unit)
    on = f"{source}: {describe(table, unit)}"
    return (
        _score("mean Jaccard index", found.metrics["jaccard"], on),
        _score("thresholded Jaccard index", found.metrics["thresholded_jaccard"], on),
        ScoreSpec(
            name="fraction of images with a Jaccard index below 0.65",
            value=found.failed.value,
            measured_on=on,
        ),
    )


@repeatable
def classification(
    table: pd.DataFrame, source: str, records: pd.DataFrame | None, unit: Unit = "lesion"
) -> ClassificationEvidence:
    """Fit scaling and prediction sets, and evaluate both by cross-fitting.

    Each fold is evaluated with a calibration fitted on the other folds; a single fold is split
    into two halves by lesion.

    Args:
        table: An out-of-fold table for `oof_classified`, with ``image_id``, ``group_id`` and
            ``diagnosis``.
        source: The source of the predictions, such as ``out-of-fold predictions of the recipe``.
        records: Rows of the data set by image id (``sex``, ``age``, and maybe ``lesion_id``), if
            it is available.
        unit: What the groups are.

    Raises:
        DataError: A column is missing, or there are too few lesions to split.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    table = table.sort_values("image_id", ignore_index=True)  # random draws depend on the order
    if records is not None and "lesion_id" in records.columns:
        table["lesion_id"] = table["image_id"].map(records["lesion_id"])
    labelled = oof_classified(table)
    natural, taxonomy = labelled.natural, labelled.taxonomy
    truth = np.array([taxonomy.index(code) for code in labelled.truth], np.intp)
    scaling = fit_scaling(natural, truth)
    conformal = Conformal.fit(scaled(natural, scaling), truth, labelled.groups, taxonomy.codes)
    found = ClassificationEvaluation.of(
        labelled, _attributes(table, records), always_calibrated=True, unit=unit
    )
    assert found.calibrated is not None  # always
    on = f"{source}: {describe(table, unit)}"
    patient, more = _patient(labelled, scaling, records, on, unit)
    return ClassificationEvidence(
        scaling=scaling,
        conformal=conformal,
        patient=patient,
        scores=(*_scores(found, on), *more),
        by_class=tuple(_by_class(found)),
        subgroups=tuple(map(_subgroup, found.calibrated.subgroups)),
        unit=unit,
    )


def _patient(
    labelled: LabelledPredictions,
    scaling: Scaling,
    records: pd.DataFrame | None,
    on: str,
    unit: Unit,
) -> tuple[PatientSpec | None, list[ScoreSpec]]:
    """Return the model of the patient's data, and cross-fitted scores with these data."""
    if records is None:
        return None, []
    patients = patients_of(records.reindex(labelled.table["image_id"]))
    if not known_in_others(labelled, patients):
        return None, []  # a model that cannot be scored is not made
    taxonomy, groups = labelled.taxonomy, labelled.groups
    truth = np.array([taxonomy.index(code) for code in labelled.truth], np.intp)
    calibrated = scaled(labelled.natural, scaling)
    model = PatientModel.fit(calibrated, truth, patients, taxonomy.codes)
    given = with_log_odds(calibrated, model.log_odds(patients))
    known = np.array([model.is_known(one) for one in patients])
    numbers = ", ".join(
        f"{name} of {sum(getattr(one, name) is not None for one in patients):,}"
        for name in Patient._fields
    )
    names = np.array(groups, object)
    conformal = Conformal.fit(given[known], truth[known], names[known].tolist(), taxonomy.codes)
    spec = PatientSpec.model_validate(
        {
            **model.to_dict(),
            "conformal": conformal.to_dict(),
            "fitted_on": f"{on}; {numbers} images is known",
        }
    )
    return spec, list(_patient_scores(labelled, patients, on, unit))


def _patient_scores(
    labelled: LabelledPredictions, patients: Sequence[Patient], on: str, unit: Unit
) -> Iterator[ScoreSpec]:
    found = cross_fitted_patients(labelled, patients)
    metrics = ProbabilityMetrics.of(found.given, {})
    taxonomy, truth = labelled.taxonomy, labelled.truth
    places = [taxonomy.index(code) for code in truth]
    sets = SetScores.from_sets(found.sets, places, labelled.groups, taxonomy.codes)
    fitted = f"{on}; calibration, terms of the patient's data and prediction sets cross-fitted"
    data = "with the patient's data"
    balanced = metrics.intervals["balanced_accuracy"]
    yield _score(f"balanced accuracy, balanced decision, {data}", balanced, fitted)
    yield _score(f"accuracy, natural decision, {data}", metrics.intervals["accuracy"], fitted)
    yield from _calibration(metrics.calibration, f", {data}", fitted)
    name = f"coverage of {100 * sets.coverage:g} % prediction sets {data}, one image per {unit}"
    yield _score(name, sets.overall.lesions, fitted)


def _attributes(table: pd.DataFrame, records: pd.DataFrame | None) -> dict[str, list[Any]]:
    """Return the attributes of the card's subgroups, which most data sets have."""
    if records is None:
        return {}
    rows = records.reindex(table["image_id"])
    return {"sex": rows["sex"].tolist(), "age": age_bands(rows["age"].astype("float64"))}


def _scores(found: ClassificationEvaluation, on: str) -> Iterator[ScoreSpec]:
    """Yield headline metrics, calibration errors and set coverage, all cross-fitted."""
    plain, calibrated, sets = found.as_predicted, found.calibrated, found.sets
    assert calibrated is not None
    assert sets is not None
    parts = len(found.scalings)
    how = f"the {parts} folds" if found.by_fold else f"two halves of the {plural(found.unit)}"
    fitted = f"{on}; temperature, offsets and prediction sets cross-fitted over {how}"
    balanced = calibrated.intervals["balanced_accuracy"]
    yield _score("balanced accuracy, balanced decision", balanced, fitted)
    uncalibrated = plain.intervals["balanced_accuracy"]
    yield _score("balanced accuracy, balanced decision, uncalibrated", uncalibrated, on)
    yield _score("accuracy, natural decision", calibrated.intervals["accuracy"], fitted)
    yield from _calibration(calibrated.calibration, "", fitted)
    yield from _calibration(plain.calibration, ", uncalibrated", on)
    yield from _sets(sets, found.in_every_set, fitted, found.unit)
    if found.lesions is not None:
        yield from _lesions(found.lesions, on)


def _lesions(found: LesionEvaluation, on: str) -> Iterator[ScoreSpec]:
    """Yield metrics of one answer per lesion."""
    scores, several = found.every.together, found.several.together.answers
    on = f"{on}; the mean logit of each lesion's images, {several:,} lesions have two or more"
    for name in ("balanced_accuracy", "accuracy"):
        title = name.replace("_", " ")
        yield _score(f"one answer per lesion: {title}", scores.metrics[name], on)
    if scores.calibrated_error is not None:
        fitted = f"{on}; temperature and offsets cross-fitted on single images"
        chance = f"about {scores.calibrated_error.chance:.3f} is expected by chance"
        name = f"one answer per lesion: calibration error, 15 bins ({chance})"
        yield _score(name, scores.calibrated_error, fitted)


def _score(name: str, interval: Interval | Proportion | BinnedError, on: str) -> ScoreSpec:
    return ScoreSpec(name=name, measured_on=on, **figure_of(interval).model_dump())


def figure_of(interval: Interval | Proportion | BinnedError) -> Figure:
    """Return a value with its interval, if there is one, as ``bundle.json`` has it."""
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        return Figure(value=interval.value, low=interval.low, high=interval.high)
    return Figure(value=interval.value)


def _calibration(found: CalibrationScores, how: str, on: str) -> Iterator[ScoreSpec]:
    chance = f"about {found.ece.chance:.3f} is expected by chance"
    yield _score(f"expected calibration error{how}, 15 bins ({chance})", found.ece, on)
    yield _score(f"negative log-likelihood{how}, nats", found.nll, on)


def _sets(sets: SetScores, in_every_set: Sequence[str], on: str, unit: Unit) -> Iterator[ScoreSpec]:
    name = f"coverage of {100 * sets.coverage:g} % prediction sets"
    yield _score(f"{name}, one image per {unit}", sets.overall.lesions, on)
    yield _score(f"{name}, all images", sets.overall.images, on)
    listed = ", ".join(in_every_set)
    few = f" ({listed}: in every set, too few {plural(unit)} to fit a threshold)" if listed else ""
    size = f"mean number of diagnoses in a set{few}"
    yield ScoreSpec(name=size, value=sets.overall.size, measured_on=on)
    yield ScoreSpec(name="fraction of sets with one diagnosis", value=sets.single, measured_on=on)


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
            recall=recall and figure_of(recall),
            precision=one.precision,
            auc=calibrated.scores.auc[one.code],
            covered=covered and figure_of(covered.lesions),
        )


def _subgroup(one: Subgroup) -> SubgroupFigures:
    return SubgroupFigures(
        attribute=one.attribute,
        value=one.value,
        images=one.images,
        groups=one.groups,
        small=one.small,
        balanced_accuracy=one.balanced_accuracy and figure_of(one.balanced_accuracy),
        over=one.classes,
        gap=one.gap,
        p_holm=one.p_holm,
    )


RECIPE = "out-of-fold predictions of the recipe"
"""Out-of-fold predictions measure the recipe, not the ensemble of all members in the bundle."""
TASK_MEMBERS = "predictions of exactly these members for images that none of them was trained on"


def recipes_of(count: int) -> str:
    """Return the source of scores of ``count`` networks together, one per run."""
    return RECIPE + f", mean of {count} networks (one per run)" * (count > 1)


class Composition(NamedTuple):
    """The networks of a bundle for one task.

    Attributes:
        origins: Run and fold of each network.
        folds: The held-out folds of the networks, by run.
        averaged: Whether the weights of the networks were averaged into one network.
    """

    origins: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    averaged: bool = False

    def __str__(self) -> str:
        if self.averaged:
            return f"one network with the averaged weights of {len(self.origins)} networks"
        several = len(self.origins) > 1
        return f"an ensemble of {len(self.origins)} networks" if several else "one network"


def segmentation_entry(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the ``bundle.json`` entries of segmentation runs: ``scores``.

    Raises:
        RunError: The predictions of a run are inconsistent.
    """
    several = len(runs) > 1
    return {
        "scores": [
            score
            for run in runs
            for score in segmentation(
                run.predictions(), RECIPE + (f" ({run.folder.name})" * several), run.unit
            )
        ],
        "unit": runs[0].unit,
    }


def attributes_entry(run: Run) -> dict[str, Any]:
    """Return the ``bundle.json`` entries of an attribute run.

    Returns:
        ``scores`` of attributes, of their presence, and of lesion masks if the run has them.
        ``attributes`` contains thresholds and presence, fitted on all out-of-fold predictions for
        use on new images.

    Raises:
        RunError: The predictions of the run are inconsistent.
    """
    entry = attributes_figures(run.predictions(), run.unit)
    lesions = lesions_of(run)
    if lesions is not None:
        entry["scores"] += segmentation(lesions, f"{RECIPE}, lesion masks", run.unit)
    return entry


def attributes_figures(table: pd.DataFrame, unit: Unit = "lesion") -> dict[str, Any]:
    """Return the same from an out-of-fold table of attributes."""
    found = AttributesEvaluation.of(table, unit)
    on = f"{RECIPE}: {describe(table, unit)}"
    crossed = f"{on}; thresholds fitted on the other folds"
    scores = [_score("attributes, pooled Jaccard index", found.jaccard, crossed)]
    for name, one in found.by_attribute.items():
        title = ATTRIBUTES[name]
        scores.append(_score(f"{title}, pooled Jaccard index", one.jaccard, crossed))
        if one.auc is not None:
            scores.append(_score(f"{title}, AUC of presence", one.auc, on))
    presence = [{"slope": slope, "intercept": intercept} for slope, intercept in found.presence]
    return {
        "scores": scores,
        "attributes": {
            "thresholds": found.thresholds,
            "presence": presence,
            "chosen_on": f"out-of-fold predictions: {describe(table, unit)}",
        },
        "unit": unit,
    }


def classification_entry(
    runs: Sequence[Run],
    composition: Composition,
    dataset: Dataset | None,
    calibration: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Return the ``bundle.json`` entries of classification runs.

    Args:
        runs: Runs over the same folds; their out-of-fold logits are averaged, as in an ensemble.
        composition: The networks of the bundle.
        dataset: The data set of the runs, for subgroups, if it is available.
        calibration: Predictions of exactly these members for images that none of them was trained
            on; used in place of the runs' out-of-fold predictions.

    Returns:
        ``scores``, ``by_class`` and ``subgroups``; ``classifier`` contains the scaling, the
        prediction sets, the predictions that both were fitted on, and the terms of the patient's
        data.

    Raises:
        RunError: The predictions of a run are inconsistent.
        DataError: A table has no out-of-fold logits, there are too few lesions, or a network was
            trained on images of ``calibration``.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    records = None if dataset is None else dataset.table.set_index("image_id")
    if calibration is None:
        tables = [run.predictions() for run in runs]
        names, allowed = [str(run.folder) for run in runs], any(run.allow_missing for run in runs)
        return ensemble_entry(
            tables, names, composition, records, allow_missing=allowed, unit=runs[0].unit
        )
    _check(calibration, runs, composition)
    unit = runs[0].unit
    on = f"{TASK_MEMBERS}: {describe(calibration, unit)}"
    return _classification_entry(calibration, TASK_MEMBERS, on, records, unit)


def ensemble_entry(
    tables: Sequence[pd.DataFrame],
    names: Sequence[str],
    composition: Composition,
    records: pd.DataFrame | None,
    *,
    allow_missing: bool = False,
    unit: Unit = "lesion",
) -> dict[str, Any]:
    """Return the same from out-of-fold tables, one per recipe of the ensemble.

    Args:
        tables: Tables over the same folds; their logits are averaged.
        names: Their names in messages.
        composition: The networks of the bundle.
        records: Rows of the data set by image id, if it is available.
        allow_missing: Whether to leave out images that are missing in some table.
        unit: What the groups are.

    Raises:
        DataError: The tables do not fit together, or there are too few lesions.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    table = combined(tables, taxonomy_of(tables[0]), names, allow_missing=allow_missing)
    on = f"out-of-fold predictions: {_basis(table, len(tables), composition, unit)}"
    return _classification_entry(table, recipes_of(len(tables)), on, records, unit)


def _classification_entry(
    table: pd.DataFrame,
    source: str,
    calibrated_on: str,
    records: pd.DataFrame | None,
    unit: Unit,
) -> dict[str, Any]:
    found = classification(table, source, records, unit)
    return {
        "scores": list(found.scores),
        "by_class": found.by_class,
        "subgroups": found.subgroups,
        "unit": found.unit,
        "classifier": {
            "temperature": found.scaling.temperature,
            "offsets": found.scaling.offsets,
            "conformal": found.conformal.to_dict(),
            "calibrated_on": calibrated_on,
            "patient": found.patient and found.patient.model_dump(),
        },
    }


def _basis(table: pd.DataFrame, runs: int, composition: Composition, unit: Unit) -> str:
    """Describe which networks made the predictions, and how they differ from the bundle's."""
    one = "the one network" if runs == 1 else f"the mean of the {runs} networks"
    basis = f"{describe(table, unit)}, each predicted by {one} not trained on its {unit}"
    folds = {*table["fold"].unique().tolist()}
    if not composition.averaged and all(
        {*each} == folds and len(each) == 1 for each in composition.folds
    ):
        return f"{basis}, as in this bundle"
    return f"{basis}; the bundle is {composition}, and its best temperature may differ"


def _check(table: pd.DataFrame, runs: Sequence[Run], composition: Composition) -> None:
    absent = [name for name in ("image_id", "group_id", "diagnosis") if name not in table.columns]
    if absent:
        raise DataError(
            f"the table of predictions has no column {absent[0]}",
            "give a table like the oof.parquet of naevus train",
        )
    unknown_ids = set(table["image_id"]) - set(runs[0].folds.table["image_id"])
    if unknown_ids:
        raise DataError(
            f"{min(unknown_ids)} of the table of predictions is not in the folds of "
            f"{runs[0].folder}",
            "give predictions for images of the same data set",
        )
    ours, theirs = taxonomy_of(runs[0].predictions()), taxonomy_of(table)
    if ours != theirs:
        raise DataError(
            "the table of predictions has other classes than the runs",
            "give a table with the same classes",
        )
    unseen = set.intersection(
        *(
            {*run.folds.held_out(fold), *run.folds.test()}
            for run, folds in zip(runs, composition.folds, strict=True)
            for fold in folds
        )
    )
    trained = set(table["image_id"]) - unseen
    if trained:
        raise DataError(
            f"a network of the bundle was trained on {len(trained):,} of the {len(table):,} images "
            f"in the table of predictions, such as {min(trained)}",
            "give predictions for test images, or for images of a fold that all networks held out",
        )
