"""How the masks' Jaccard indices are distributed, and what other thresholds would make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.reports.figures.style import COLOURS, INK, axes, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


@styled
def jaccard_figure(jaccard: ArrayLike) -> Figure:
    """Draw a histogram of Jaccard indices; those below the challenge's threshold stand out."""
    values = np.asarray(jaccard, np.float64)
    figure, pair = axes("Jaccard index", "pictures")
    edges = np.linspace(0, 1, 41)
    for part, colour in (
        (values[values < JACCARD_THRESHOLD], COLOURS[1]),
        (values[values >= JACCARD_THRESHOLD], COLOURS[0]),
    ):
        pair.hist(part, bins=edges.tolist(), color=colour)
    pair.axvline(JACCARD_THRESHOLD, color=INK, linewidth=1, linestyle="--")
    pair.set_xlim(0, 1)
    pair.grid(visible=False, axis="x")
    return figure


@styled
def threshold_figure(curve: pd.DataFrame) -> Figure:
    """Draw the thresholded Jaccard index and the share of masks that reach each threshold.

    Args:
        curve: That of `naevus.evaluation.segmentation.OutlineScores`.
    """
    figure, pair = axes("masks with a smaller Jaccard index count as failed", "")
    for colour, name, label in (
        (COLOURS[0], "thresholded", "mean Jaccard index, failures counting 0"),
        (COLOURS[1], "reached", "share of masks that do not fail"),
    ):
        pair.plot(curve["threshold"], curve[name], color=colour, label=label)
        low, high = curve[f"{name}_low"], curve[f"{name}_high"]
        pair.fill_between(curve["threshold"], low, high, color=colour, alpha=0.2, linewidth=0)
    pair.axvline(JACCARD_THRESHOLD, color=INK, linewidth=1, linestyle="--")
    pair.set(xlim=(0, 1), ylim=(0, 1.01))
    pair.legend(loc="lower left")
    return figure
