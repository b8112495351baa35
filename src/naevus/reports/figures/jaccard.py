"""How the masks' Jaccard indices are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.evaluation.scoring.segmentation import JACCARD_THRESHOLD
from naevus.reports.figures.style import COLOURS, INK, axes, styled

if TYPE_CHECKING:
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
