"""Which diagnoses are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from naevus.reports.figures.style import axes, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_PALE_TO_BLUE = LinearSegmentedColormap.from_list("pale to blue", ["#f4f7fa", "#00416d"])
_DARK = 0.7  # white and black texts are equally readable there


@styled
def confusion_figure(counts: NDArray[np.int64], codes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: the colour is the share of the true class, the numbers are counts.

    Args:
        counts: C x C; rows are the truth, columns the answers.
        codes: The C codes.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = max(4.2, 0.62 * len(codes))
    figure, pair = axes("answer", "truth", size=(side + 0.4, side))
    pair.grid(visible=False)
    pair.pcolormesh(shares, cmap=_PALE_TO_BLUE, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        words = f"{counts[row, column]:,}\n{share:.0%}" if counts[row, column] else "0"
        colour = "#ffffff" if share > _DARK else "#000000"
        pair.text(column + 0.5, row + 0.5, words, ha="center", va="center", color=colour, size=8)
    pair.set_xticks(np.arange(len(codes)) + 0.5, codes, size=8.5)
    pair.set_yticks(np.arange(len(codes)) + 0.5, codes, size=8.5)
    pair.tick_params(length=0)
    pair.spines[:].set_visible(False)
    pair.invert_yaxis()
    return figure
