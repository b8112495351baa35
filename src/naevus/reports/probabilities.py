"""The report sections on probabilities: calibration, selective prediction and prediction sets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from naevus.evaluation.intervals import FEW
from naevus.io.words import plural
from naevus.reports import figures
from naevus.reports.document import (
    Curve,
    FigureSlot,
    Section,
    Table,
    percent,
    spread,
    with_enough_groups,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from naevus.evaluation.calibration import ReliabilityBin
    from naevus.evaluation.conformal import Coverage
    from naevus.evaluation.evaluate import ClassificationEvaluation, ProbabilityMetrics
    from naevus.types import Unit


AS_PREDICTED: Final = "as predicted"
CALIBRATED: Final = "cross-fitted"


def calibration_section(found: ClassificationEvaluation) -> Section:
    """Return the calibration of the probabilities, as predicted and cross-fitted."""
    variants = {AS_PREDICTED: found.as_predicted}
    notes = []
    calibrated = calibrated_of(found)
    if calibrated is not None:
        variants[CALIBRATED] = calibrated
        temperatures = ", ".join(f"{scaling.temperature:.2f}" for scaling in found.scalings)
        notes.append(
            f"The temperature ({temperatures}) and offsets of each part are fitted on the other "
            "parts."
        )
    curves = {name: metrics.reliability for name, metrics in variants.items()}
    slot = FigureSlot(
        "reliability",
        "Reliability",
        partial(figures.reliability_figure, curves),
        "Observed frequency against predicted probability; bars are 95 % intervals. On the dotted "
        "diagonal, probabilities are perfectly calibrated.",
    )
    values = _reliability(curves, found.unit)
    table = Table("reliability", "Reliability curve", values, folded=True)
    borne = with_enough_groups([Curve(slot, found.groups, FEW, table)], found.unit)
    return Section(
        "calibration",
        "Calibration",
        (*notes, *borne.notes),
        (
            Table("calibration", "Calibration metrics; 0 is best", _calibration(variants)),
            *borne.tables,
        ),
        borne.slots,
    )


def calibrated_of(found: ClassificationEvaluation) -> ProbabilityMetrics | None:
    """Return the metrics of cross-fitted calibration; None if too few groups bear them."""
    return found.calibrated if found.groups >= FEW else None


def _calibration(variants: Mapping[str, ProbabilityMetrics]) -> pd.DataFrame:
    rows = []
    for name, metrics in variants.items():
        one = metrics.calibration
        rows.append(
            {
                "probabilities": name,
                **spread("negative log-likelihood", one.nll),
                **spread("Brier", one.brier),
                **spread("calibration error", one.ece),
                "error by chance": one.ece.chance,
                **spread("error, bins of equal mass", one.ece_equal_mass),
                **spread("class-wise error", one.classwise_ece),
            }
        )
    return pd.DataFrame(rows)


def _reliability(curves: Mapping[str, Iterable[ReliabilityBin]], unit: Unit) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "probabilities": name,
            "images": one.images,
            plural(unit): one.found.groups,
            "stated": one.stated,
            **spread("right", one.found),
        }
        for name, bins in curves.items()
        for one in bins
    )


def selective_section(found: ClassificationEvaluation) -> Section:
    """Return selective prediction and prediction sets."""
    selective = found.selective
    rows = [{"score": "area under the curve", **spread("value", selective.aurc)}]
    rows.append({"score": "excess over perfect ranking", **spread("value", selective.excess_aurc)})
    for fraction, interval in selective.accuracy_at.items():
        rows.append(
            {"score": f"accuracy at {100 * fraction:.0f} % coverage", **spread("value", interval)}
        )
    slot = FigureSlot(
        "risk-coverage",
        "Risk and coverage",
        partial(figures.risk_coverage_figure, selective.curve),
        f"At full coverage, {percent(selective.risk.value)} are wrong (dotted line).",
    )
    borne = with_enough_groups([Curve(slot, found.groups, FEW)], found.unit)
    return Section(
        "selective",
        "Selective prediction",
        ("Images are ordered by their largest probability, the most confident first.",),
        (Table("selective", "Risk and coverage", pd.DataFrame(rows)), *_sets(found)),
        borne.slots,
        undrawn=borne.undrawn,
    )


def _sets(found: ClassificationEvaluation) -> list[Table]:
    sets = found.sets
    if sets is None:
        return []
    rows = [
        *(_coverage(code, one, found.unit) for code, one in sets.classes.items()),
        _coverage("all", sets.overall, found.unit),
    ]
    always = ", ".join(found.in_every_set)
    whose = "the sets are those of the predictions"
    if not found.sets_given:
        whose = "thresholds are fitted on other parts"
    note = (
        f"The nominal coverage is {100 * sets.coverage:g} % per class, with one image per "
        f"{found.unit}; {whose}. {percent(sets.single)} of the sets contain one diagnosis."
    )
    if always:
        few = plural(found.unit)
        note += f" {always}: in all sets, because too few {few} are available for a threshold."
    return [Table("prediction-sets", "Prediction sets", pd.DataFrame(rows), note)]


def _coverage(name: str, one: Coverage, unit: Unit) -> dict[str, Any]:
    return {
        "class": name,
        plural(unit): one.lesions.groups,
        **spread("set holds it", one.lesions),
        **spread("of all images", one.images),
        **spread("diagnoses in a set", one.mean_size),
    }
