"""What answering only when sure would bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.reports.figures.style import COLOURS, GREY, axes, styled, thinned

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@styled
def risk_coverage_figure(curve: pd.DataFrame) -> Figure:
    """Draw the share of wrong answers against the share of pictures that are answered.

    Args:
        curve: ``coverage`` and ``risk`` of `SelectiveScores`.
    """
    figure, pair = axes("share of pictures answered, the surest first", "share of wrong answers")
    pair.axhline(float(curve["risk"].iloc[-1]), color=GREY, linewidth=1, linestyle=":")
    shown = curve.iloc[list(thinned(len(curve)))]
    pair.plot(shown["coverage"], shown["risk"], color=COLOURS[0])
    pair.set(xlim=(0, 1.01), ylim=(0, None))
    return figure
