"""Which diagnoses are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle

from naevus.reports.figures.style import axes, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_BLUE = "#005a96"
_PALEST = 0.07  # of a cell without pictures: the grid is seen, on white and on black
_DARK = 0.79  # on white, white and black texts are equally readable there


@styled
def confusion_figure(counts: NDArray[np.int64], codes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: the colour is the share of the true class, the numbers are counts.

    Cells let through what is behind them, so that they suit a light and a dark page. Texts are
    black, which a dark page turns to white, or white, where the cell itself is dark.

    Args:
        counts: C x C; rows are the truth, columns the answers.
        codes: The C codes.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = max(4.2, 0.62 * len(codes))
    figure, pair = axes("answer", "truth", size=(side + 0.4, side))
    pair.grid(visible=False)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        depth = _PALEST + (1 - _PALEST) * share
        pair.add_patch(
            Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, color=_BLUE, alpha=depth, lw=0)
        )
        words = f"{counts[row, column]:,}\n{_per_cent(share)}" if counts[row, column] else "0"
        colour = "#ffffff" if depth > _DARK else "#000000"
        pair.text(column + 0.5, row + 0.5, words, ha="center", va="center", color=colour, size=8)
    pair.set(xlim=(0, len(codes)), ylim=(len(codes), 0))
    pair.set_xticks(np.arange(len(codes)) + 0.5, codes, size=8.5)
    pair.set_yticks(np.arange(len(codes)) + 0.5, codes, size=8.5)
    pair.tick_params(length=0)
    pair.spines[:].set_visible(False)
    return figure


def _per_cent(share: float) -> str:
    return "<1 %" if share < 0.005 else f"{100 * share:.0f} %"
