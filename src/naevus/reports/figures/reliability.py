"""Whether pictures of a stated probability are as often right as was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.reports.figures.style import GREY, axes, legend_below, line_of, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from naevus.evaluation.calibration import ReliabilityBin


@styled
def reliability_figure(curves: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Draw reliability curves with their intervals; the dotted diagonal is honesty.

    Args:
        curves: By name.
    """
    figure, pair = axes("stated probability of the answer", "share that was right", unit=True)
    pair.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for number, (name, bins) in enumerate(curves.items()):
        stated = [each.stated for each in bins]
        found = np.array([each.found[:3] for each in bins])
        spread = np.abs(found[:, 1:] - found[:, :1]).T
        pair.errorbar(
            stated, found[:, 0], yerr=spread, label=name, marker="os^"[number % 3], markersize=4,
            elinewidth=0.9, **line_of(number),
        )  # fmt: skip
    legend_below(pair, columns=2)
    return figure
