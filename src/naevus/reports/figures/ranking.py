"""How well each class's probability ranks its pictures above the others: ROC and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.evaluation.bootstrap import Ranking
from naevus.reports.figures.style import GREY, axes, legend_below, line_of, styled, thinned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    ByClass = Mapping[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]


@styled
def roc_figure(classes: ByClass, areas: Mapping[str, float | None]) -> Figure:
    """Draw a ROC curve for each class.

    Args:
        classes: By code, N truths and N probabilities; each has both sides.
        areas: By code, the area under the curve.
    """
    figure, pair = axes("1 - specificity", "sensitivity", unit=True)
    pair.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for number, (code, (truth, probability)) in enumerate(classes.items()):
        sensitivity, false_positive = _rates(truth, probability)
        rows = thinned(len(sensitivity))
        label = f"{code} {areas[code]:.3f}"
        pair.plot(false_positive[rows], sensitivity[rows], label=label, **line_of(number))
    legend_below(pair)
    return figure


@styled
def precision_recall_figure(classes: ByClass, precisions: Mapping[str, float | None]) -> Figure:
    """Draw precision against recall for each class.

    Args:
        classes: By code, N truths and N probabilities; each has both sides.
        precisions: By code, the average precision.
    """
    figure, pair = axes("recall", "precision", unit=True)
    for number, (code, (truth, probability)) in enumerate(classes.items()):
        sensitivity, false_positive = _rates(truth, probability)
        found = sensitivity[1:] * truth.sum()
        precision = found / (found + false_positive[1:] * (~truth).sum())
        rows = thinned(len(precision))
        label = f"{code} {precisions[code]:.3f}"
        pair.plot(
            sensitivity[1:][rows],
            precision[rows],
            label=label,
            drawstyle="steps",
            **line_of(number),
        )
    legend_below(pair)
    return figure


def _rates(
    truth: NDArray[np.bool_], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ranking = Ranking.of(truth, probability)
    sensitivity, false_positive = ranking.curve(np.ones((1, len(truth))))
    return sensitivity[0], false_positive[0]
