"""How training went, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from naevus.reports.figures.style import axes, legend_below, line_of, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@styled
def learning_figure(history: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw a column of the folds' histories.

    Args:
        history: ``fold, epoch`` and the column.
        column: Which.
        label: What it is, in words.
    """
    figure, pair = axes("epoch", label)
    for number, (fold, rows) in enumerate(history.dropna(subset=[column]).groupby("fold")):
        pair.plot(
            rows["epoch"] + 1, rows[column], label=f"fold {fold}", marker="o", markersize=3,
            **line_of(number),
        )  # fmt: skip
    pair.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(pair, columns=5)
    return figure
