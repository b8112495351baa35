"""All figures of a report, and their style."""

from __future__ import annotations

import io
import re
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.io.figures import style, whole_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.calibration import ReliabilityBin
    from naevus.evaluation.classification import RankingCurve

P = ParamSpec("P")

INK = "#1c1f27"
"""The colour of text, axes and uncoloured marks; a page replaces it with its text colour."""
GREY = "#858b96"
"""The colour of reference lines; visible on white and on black."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", INK)
"""Distinguishable for colour-blind readers (Okabe & Ito 2008), with a contrast of at least 3 to
light and dark pages, unlike orange, sky blue and yellow. Lines of one colour differ in dashes."""
DASHES = ("-", "--", "-.")
_SIZE = (4.6, 3.7)  # inches: 10-point text stays readable on a phone
_RC: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.color": GREY,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,  # text stays text
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "naevus",  # the same figure gives the same bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


def check_installed() -> None:
    """Check that figures can be drawn, before a long job starts.

    Raises:
        NaevusError: matplotlib is not installed.
    """
    style(_RC)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the style of this package, independent of the user's settings."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style(_RC):
            return draw(*args, **kwargs)

    return drawn


def axes(
    xlabel: str, ylabel: str, *, size: tuple[float, float] = _SIZE, unit: bool = False
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes.

    Args:
        xlabel: The label of the horizontal axis.
        ylabel: The label of the vertical axis.
        size: Width and height in inches.
        unit: Whether both axes range from 0 to 1.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

    figure = Figure(figsize=size, layout="constrained")
    pair = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    if unit:
        pair.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure, pair


def line_of(number: int) -> dict[str, Any]:
    """Return colour and dashes of the line with this number; the first 15 are all different."""
    round_, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": DASHES[round_ % len(DASHES)]}


def legend_below(pair: Axes, columns: int = 3) -> None:
    """Put the legend below the axes, where it covers nothing."""
    pair.figure.legend(loc="outside lower center", ncols=columns)


def thinned(count: int, most: int = 400) -> Sequence[int]:
    """Return about ``most`` evenly spaced positions of ``count``, including the first and last."""
    step = max(1, count // most)
    return sorted({*range(0, count, step), count - 1})


def svg(figure: Figure) -> str:
    """Return a figure as an SVG document with text as text."""
    stream = io.StringIO()
    with style(_RC):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def pdf(figure: Figure) -> bytes:
    """Return a figure as a PDF document with embedded fonts."""
    stream = io.BytesIO()
    about = {"CreationDate": None, "Creator": None, "Producer": None}
    with style(_RC):
        figure.savefig(stream, format="pdf", metadata=about)
    return stream.getvalue()


def inlined(document: str, name: str) -> str:
    """Return an SVG document as an element of a page.

    Its main colour becomes the page's text colour, its ids start with ``name`` so that figures
    do not share ids, and it takes the available width. It is hidden from screen readers, because
    the page has a description.
    """
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # A style rule inside an inlined element would apply to the whole page.
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", element, flags=re.DOTALL)
    element = _IDS.sub(rf"\g<1>{name}-", element)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = element.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    element = element.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return element.replace(INK, "currentColor")


# Net benefit.


@styled
def benefit_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw decision curves with their intervals (Vickers & Elkin 2006).

    Args:
        curves: By name, results of `evaluation.operating_points.decision_curve`.
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


# Confusion matrix.

_BLUE = "#005a96"
_PALEST = 0.07  # opacity of a cell without images: the grid is visible on white and on black
_DARK = 0.79  # on white, white and black text are equally readable at this opacity


@styled
def confusion_figure(counts: NDArray[np.int64], codes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: colours are fractions of the true class, numbers are counts.

    Cells are transparent to suit light and dark pages. Text is black, which becomes white on a
    dark page, or white if the cell itself is dark.

    Args:
        counts: C x C; rows are the ground truth, columns the predictions.
        codes: The C codes.
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415 (as above)

    totals = counts.sum(axis=1, keepdims=True)
    class_priors = counts / np.maximum(totals, 1)
    side = max(4.2, 0.62 * len(codes))
    figure, pair = axes("predicted", "ground truth", size=(side + 0.4, side))
    pair.grid(visible=False)
    for row, column in np.ndindex(counts.shape):
        fraction = class_priors[row, column]
        depth = _PALEST + (1 - _PALEST) * fraction
        pair.add_patch(
            Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, color=_BLUE, alpha=depth, lw=0)
        )
        words = f"{counts[row, column]:,}\n{_per_cent(fraction)}" if counts[row, column] else "0"
        colour = "#ffffff" if depth > _DARK else "#000000"
        pair.text(column + 0.5, row + 0.5, words, ha="center", va="center", color=colour, size=8)
    pair.set(xlim=(0, len(codes)), ylim=(len(codes), 0))
    pair.set_xticks(np.arange(len(codes)) + 0.5, codes, size=8.5)
    pair.set_yticks(np.arange(len(codes)) + 0.5, codes, size=8.5)
    pair.tick_params(length=0)
    pair.spines[:].set_visible(False)
    return figure


def _per_cent(fraction: float) -> str:
    return "<1 %" if fraction < 0.005 else f"{100 * fraction:.0f} %"


# Selective prediction.


@styled
def risk_coverage_figure(curve: pd.DataFrame) -> Figure:
    """Draw risk, the fraction of wrong predictions, against coverage.

    Args:
        curve: ``coverage`` and ``risk`` of `SelectiveScores`.
    """
    figure, pair = axes(
        "coverage, the most confident images first", "risk: fraction of wrong predictions"
    )
    pair.axhline(float(curve["risk"].iloc[-1]), color=GREY, linewidth=1, linestyle=":")
    shown = curve.iloc[list(thinned(len(curve)))]
    pair.plot(shown["coverage"], shown["risk"], color=COLOURS[0])
    pair.set(xlim=(0, 1.01), ylim=(0, None))
    return figure


# Distribution of the Jaccard index, and other thresholds.


@styled
def jaccard_figure(jaccard: ArrayLike) -> Figure:
    """Draw a histogram of Jaccard indices, with those below the challenge's threshold marked."""
    values = np.asarray(jaccard, np.float64)
    figure, pair = axes("Jaccard index", "images")
    edges = np.linspace(0, 1, 41)
    for part, colour in (
        (values[values < JACCARD_THRESHOLD], COLOURS[1]),
        (values[values >= JACCARD_THRESHOLD], COLOURS[0]),
    ):
        pair.hist(part, bins=edges.tolist(), color=colour)
    pair.axvline(JACCARD_THRESHOLD, color=INK, linewidth=1, linestyle="--")
    pair.set_xlim(0, 1)
    whole_numbers(pair.yaxis)
    pair.grid(visible=False, axis="x")
    return figure


@styled
def threshold_figure(curve: pd.DataFrame) -> Figure:
    """Draw the thresholded Jaccard index and the fraction of masks that reach each threshold.

    Args:
        curve: The curve of `naevus.evaluation.segmentation.SegmentationEvaluation`.
    """
    figure, pair = axes("threshold of the Jaccard index", "")
    for colour, name, label in (
        (COLOURS[0], "thresholded_jaccard", "mean Jaccard index, failures set to 0"),
        (COLOURS[1], "reached", "fraction of masks at or above the threshold"),
    ):
        pair.plot(curve["threshold"], curve[name], color=colour, label=label)
        low, high = curve[f"{name}_low"], curve[f"{name}_high"]
        pair.fill_between(curve["threshold"], low, high, color=colour, alpha=0.2, linewidth=0)
    pair.axvline(JACCARD_THRESHOLD, color=INK, linewidth=1, linestyle="--")
    pair.set(xlim=(0, 1), ylim=(0, 1.01))
    pair.legend(loc="lower left")
    return figure


# Learning curves.


@styled
def learning_figure(history: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw a column of the folds' histories; epochs have the numbers of the log, from 0.

    Args:
        history: ``fold, epoch`` and the column.
        column: The name of the column.
        label: The label of the axis.
    """
    figure, pair = axes("epoch", label)
    for number, (fold, rows) in enumerate(history.dropna(subset=[column]).groupby("fold")):
        pair.plot(
            rows["epoch"], rows[column], label=f"fold {fold}", marker="o", markersize=3,
            **line_of(number),
        )  # fmt: skip
    whole_numbers(pair.xaxis)
    legend_below(pair, columns=5)
    return figure


# ROC and precision-recall curves of the classes.


@styled
def roc_figure(curves: Mapping[str, RankingCurve], areas: Mapping[str, float | None]) -> Figure:
    """Draw a ROC curve for each class.

    Args:
        curves: By code.
        areas: By code, the area under the curve.
    """
    figure, pair = axes("1 - specificity", "sensitivity", unit=True)
    pair.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for number, (code, curve) in enumerate(curves.items()):
        rows = thinned(len(curve.sensitivity))
        label = f"{code} {areas[code]:.3f}"
        pair.plot(
            curve.false_positive_rate[rows], curve.sensitivity[rows], label=label, **line_of(number)
        )
    legend_below(pair)
    return figure


@styled
def precision_recall_figure(
    curves: Mapping[str, RankingCurve], precisions: Mapping[str, float | None]
) -> Figure:
    """Draw precision against recall for each class.

    Args:
        curves: By code.
        precisions: By code, the average precision.
    """
    figure, pair = axes("recall", "precision", unit=True)
    for number, (code, curve) in enumerate(curves.items()):
        recall, precision = curve.sensitivity[1:], curve.precision[1:]  # else undefined
        rows = thinned(len(precision))
        label = f"{code} {precisions[code]:.3f}"
        pair.plot(recall[rows], precision[rows], label=label, drawstyle="steps", **line_of(number))
    legend_below(pair)
    return figure


# Reliability curves.


@styled
def reliability_figure(curves: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Draw reliability curves with their intervals, and the diagonal of perfect calibration.

    Args:
        curves: By name.
    """
    figure, pair = axes("predicted probability", "fraction of correct predictions", unit=True)
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
