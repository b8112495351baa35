"""The section about ranking: curves by diagnosis, and what must not be missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from naevus.evaluation.operating_points import ClinicalScores, decision_curve, targets_of
from naevus.reports.content.columns import spread
from naevus.reports.document import Drawing, Section, Table
from naevus.reports.figures.benefit import benefit_figure
from naevus.reports.figures.ranking import precision_recall_figure, roc_figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from naevus.evaluation.evaluate import Answers


def ranking_section(answers: Answers) -> Section:
    """Return ROC and precision-recall curves by diagnosis."""
    diagnosed, names = answers.diagnosed, np.array(answers.truth, object)
    classes = {
        code: (np.asarray(names == code), diagnosed.natural[:, place])
        for place, code in enumerate(diagnosed.taxonomy.codes)
        if (names == code).any() and (names != code).any()
    }
    areas, precisions = answers.scores.auc, answers.scores.average_precision
    return Section(
        "ranking",
        "Ranking",
        ("How well each probability ranks its diagnosis above the others at any threshold.",),
        drawings=(
            Drawing(
                "roc",
                "ROC by diagnosis",
                roc_figure(classes, areas),
                f"Areas under the curves: {_listed(areas, classes)}.",
            ),
            Drawing(
                "precision-recall",
                "Precision and recall by diagnosis",
                precision_recall_figure(classes, precisions),
                f"Average precisions: {_listed(precisions, classes)}.",
            ),
        ),
    )


def clinic_section(answers: Answers) -> Section | None:
    """Return melanoma and malignancy against the rest; None where only one side is there."""
    diagnosed = answers.diagnosed
    targets = targets_of(diagnosed.natural, answers.truth, diagnosed.taxonomy)
    if not targets:
        return None
    scores = [ClinicalScores.from_target(one, answers.groups, answers.folds) for one in targets]
    areas = {one.name: one.auc.value for one in scores}
    curves = {one.name: decision_curve(one, answers.groups) for one in targets}
    table = pd.concat(
        curve.rename(columns={"low": "net_benefit_low", "high": "net_benefit_high"}).assign(
            **{"against the rest": name}
        )
        for name, curve in curves.items()
    )
    return Section(
        "clinic",
        "What must not be missed",
        ("The natural probabilities of the diagnoses add up; thresholds hold for this case mix.",),
        (
            Table("clinic", "Against the rest", pd.DataFrame(map(_row, scores))),
            Table("net-benefit", "Net benefit, values", table, folded=True),
        ),
        (
            Drawing(
                "clinic-roc",
                "ROC against the rest",
                roc_figure({one.name: (one.truth, one.probability) for one in targets}, areas),
                f"Areas under the curves: {_listed(areas, areas)}.",
            ),
            Drawing(
                "net-benefit",
                "Net benefit",
                benefit_figure(curves),
                "Found cases a picture, less what false alarms cost, were all acted on whose "
                "probability is the threshold or more; dotted: acting on everybody.",
            ),
        ),
    )


def _row(found: ClinicalScores) -> dict[str, Any]:
    return {
        "against the rest": found.name,
        "pictures with it": found.positives,
        **spread("AUC", found.auc),
        **({} if found.fold_auc is None else spread("mean AUC of folds", found.fold_auc)),
        **spread("sensitivity at specificity 0.9", found.sensitivity_at[0.9]),
        **spread("specificity at sensitivity 0.9", found.specificity_at[0.9]),
    }


def _listed(values: Mapping[str, float | None], classes: Iterable[str]) -> str:
    return ", ".join(f"{code} {values[code]:.3f}" for code in classes)
