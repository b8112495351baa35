"""Sections about how far probabilities are what they say, and about answering only when sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from naevus.evaluation.calibration import CalibrationScores, reliability_curve
from naevus.evaluation.evaluate import AS_GIVEN, FITTED
from naevus.evaluation.scaling import cross_fitted, parts_of
from naevus.evaluation.selective import SelectiveScores
from naevus.reports.content.columns import percent, spread
from naevus.reports.document import Drawing, Section, Table
from naevus.reports.figures.coverage import risk_coverage_figure
from naevus.reports.figures.reliability import reliability_figure

if TYPE_CHECKING:
    from naevus.evaluation.calibration import ReliabilityBin
    from naevus.evaluation.evaluate import Answers


def calibration_section(answers: Answers) -> Section:
    """Return how honest the probabilities are, as given and calibrated elsewhere."""
    diagnosed = answers.diagnosed
    classes = np.array([diagnosed.taxonomy.index(code) for code in answers.truth], np.intp)
    variants = {AS_GIVEN: diagnosed.natural}
    notes = ["How often answers of a stated probability are right; bars are 95 % intervals."]
    if len(set(answers.groups)) >= 2 * len(answers.recalls):
        fitted = cross_fitted(diagnosed.natural, classes, parts_of(diagnosed.table))
        variants[FITTED] = fitted.natural
        told = ", ".join(f"{scaling.temperature:.2f}" for scaling in fitted.scalings)
        notes.append(
            f"Each part's temperature ({told}) and offsets are fitted on the other parts alone."
        )
    rows, curves = [], {}
    for name, natural in variants.items():
        found = CalibrationScores.from_probabilities(natural, classes, answers.groups)
        rows.append(
            {
                "probabilities": name,
                **spread("negative log-likelihood", found.nll),
                **spread("Brier", found.brier),
                **spread("calibration error", found.ece),
                "error by chance": found.ece.chance,
                **spread("class-wise error", found.classwise_ece),
            }
        )
        right = natural.argmax(axis=1) == classes
        curves[name] = reliability_curve(natural.max(axis=1), right, answers.groups)
    return Section(
        "calibration",
        "Honesty of the probabilities",
        tuple(notes),
        (
            Table("calibration", "Calibration; 0 is best", pd.DataFrame(rows)),
            Table("reliability", "Reliability curve", _curve_table(curves), folded=True),
        ),
        (
            Drawing(
                "reliability",
                "Reliability",
                reliability_figure(curves),
                "On the dotted diagonal, what is stated comes true.",
            ),
        ),
    )


def abstaining_section(answers: Answers) -> Section:
    """Return what answering only when sure would bring."""
    natural, codes = answers.diagnosed.natural, np.array(answers.diagnosed.taxonomy.codes, object)
    right = codes[natural.argmax(axis=1)] == np.array(answers.truth, object)
    found = SelectiveScores.from_answers(right, natural.max(axis=1), answers.groups, answers.truth)
    rows = [{"score": "area under the curve", **spread("value", found.aurc)}]
    rows.append({"score": "of it avoidable", **spread("value", found.excess_aurc)})
    for share, interval in found.accuracy_at.items():
        rows.append(
            {"score": f"accuracy of the surest {100 * share:.0f} %", **spread("value", interval)}
        )
    return Section(
        "abstaining",
        "Answering only when sure",
        ("Pictures are answered in the order of their greatest probability, the surest first.",),
        (Table("abstaining", "Risk and coverage", pd.DataFrame(rows)),),
        (
            Drawing(
                "risk-coverage",
                "Risk and coverage",
                risk_coverage_figure(found.curve),
                f"Where all are answered, {percent(found.risk.value)} are wrong (dotted line).",
            ),
        ),
    )


def _curve_table(curves: dict[str, tuple[ReliabilityBin, ...]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "probabilities": name,
            "pictures": one.pictures,
            "lesions": one.found.groups,
            "stated": one.stated,
            **spread("right", one.found),
        }
        for name, bins in curves.items()
        for one in bins
    )
