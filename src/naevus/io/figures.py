"""Small matplotlib figures of results: intervals, counts, curves; and the one style they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from naevus.errors import NaevusError
from naevus.io.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#1c1f27")
"""Distinguishable for the colour-blind (Okabe & Ito 2008)."""
_RC: Final[dict[Any, Any]] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 10,
    "legend.frameon": False,
}


def style(
    settings: Mapping[Any, Any] = _RC, what: str = "the figures"
) -> AbstractContextManager[Any]:
    """Return matplotlib's settings for a figure, as a context.

    Args:
        settings: Settings by matplotlib's names.
        what: The content of the figure, for the message.

    Raises:
        NaevusError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 (an extra, and slow to import)
    except ImportError:
        raise NaevusError(
            f"matplotlib, which draws {what}, is not installed",
            how_to_install("report"),
        ) from None
    return mpl.rc_context(dict(settings))


def whole_numbers(axis: Axis) -> None:
    """Mark whole numbers alone on an axis, also where it has only one."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 (as above)

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def interval_figure(
    rows: Sequence[tuple[str, float, float, float]],
    title: str = "",
    *,
    xlabel: str,
    reference: float | None = None,
) -> Figure:
    """Draw values with their intervals, the first at the top.

    Args:
        rows: Name, value, low and high end of the interval.
        title: The figure's title.
        xlabel: Label of the x axis.
        reference: Position of a vertical line, such as 0 for differences.

    Raises:
        NaevusError: matplotlib is not installed.
    """
    with style():
        from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

        figure = Figure(figsize=(6.4, 1.4 + 0.32 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for place, (_, value, low, high) in enumerate(rows):
            ax.plot([low, high], [place, place], color=COLOURS[0], linewidth=2)
            ax.plot(value, place, "o", color=COLOURS[0])
        if reference is not None:
            ax.axvline(reference, color=COLOURS[4], linewidth=0.8)
        ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
        ax.invert_yaxis()
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlabel(xlabel)
        ax.set_title(title)
        return figure


def count_figure(counts: pd.DataFrame, title: str = "", *, xlabel: str = "images") -> Figure:
    """Draw a table of counts as stacked bars: one bar per row, one colour per column.

    Raises:
        NaevusError: matplotlib is not installed.
    """
    with style():
        from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

        figure = Figure(figsize=(6.4, 1.4 + 0.32 * len(counts)), layout="constrained")
        ax = figure.subplots()
        names, left = [str(name) for name in counts.index], [0.0] * len(counts)
        for place, column in enumerate(counts.columns):
            values = counts[column].tolist()
            ax.barh(names, values, left=left, label=str(column), color=COLOURS[place % 5])
            left = [sum(pair) for pair in zip(left, values, strict=True)]
        ax.invert_yaxis()
        whole_numbers(ax.xaxis)
        ax.set_xlabel(xlabel)
        ax.set_title(title)
        if len(counts.columns) > 1:
            ax.legend()
        return figure


def curve_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Draw named curves from their x values, which are whole numbers, and y values.

    Raises:
        NaevusError: matplotlib is not installed.
    """
    with style():
        from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

        figure = Figure(figsize=(6.4, 4), layout="constrained")
        ax = figure.subplots()
        for place, (name, (x, y)) in enumerate(curves.items()):
            # A line of one point alone is not seen.
            ax.plot(x, y, label=name, color=COLOURS[place % 5], marker="o", markersize=3)
        whole_numbers(ax.xaxis)
        ax.grid(alpha=0.3)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        ax.set_title(title)
        if len(curves) > 1:
            ax.legend()
        return figure
