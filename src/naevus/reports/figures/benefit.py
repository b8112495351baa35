"""What acting on a probability is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.reports.figures.style import GREY, axes, legend_below, line_of, styled

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.figure import Figure


@styled
def benefit_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw decision curves with their intervals (Vickers & Elkin 2006).

    Args:
        curves: By name, what `evaluation.clinic.decision_curve` returns.
    """
    figure, pair = axes("threshold of the probability", "net benefit")
    pair.axhline(0, color=GREY, linewidth=1)
    top = 0.0
    for number, (name, curve) in enumerate(curves.items()):
        line = line_of(number)
        pair.fill_between(
            curve["threshold"], curve["low"], curve["high"], color=line["color"], alpha=0.15,
            linewidth=0,
        )  # fmt: skip
        pair.plot(curve["threshold"], curve["net_benefit"], label=name, **line)
        pair.plot(
            curve["threshold"], curve["act_on_all"], color=line["color"], linewidth=1,
            linestyle=":",
        )  # fmt: skip
        top = max(top, float(curve["high"].max()))
    pair.set(xlim=(0, float(max(curve["threshold"].max() for curve in curves.values()))))
    pair.set(ylim=(-0.15 * top, 1.1 * top))
    legend_below(pair, columns=2)
    return figure
