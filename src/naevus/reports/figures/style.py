"""How figures look and how they are written: SVG for pages, SVG and PDF for papers."""

from __future__ import annotations

import io
import re
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from naevus.errors import NaevusError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError:
    raise NaevusError(
        "matplotlib, which draws the figures, is not installed", 'run pip install "naevus[report]"'
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

P = ParamSpec("P")

INK = "#1c1f27"
"""Of texts, axes and what has no colour of its own; a page puts its own ink in its place."""
GREY = "#858b96"
"""Of what is there to compare with: seen on white and on black."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", INK)
"""Told apart by the colour-blind (Okabe & Ito 2008), each with a contrast of 3 to white and to dark
pages; orange, sky blue and yellow have less. Lines that share a colour differ in their dashes."""
DASHES = ("-", "--", "-.")
_SIZE = (4.6, 3.7)  # inches: 10 points stay readable on a phone
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
    "pdf.fonttype": 42,  # texts stay texts
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "naevus",  # the same figure gives the same bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the house's settings, whatever the user's own are."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_RC):
            return draw(*args, **kwargs)

    return drawn


def axes(
    xlabel: str, ylabel: str, *, size: tuple[float, float] = _SIZE, unit: bool = False
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes.

    Args:
        xlabel: What the horizontal axis is.
        ylabel: What the vertical axis is.
        size: Width and height in inches.
        unit: Whether both axes go from 0 to 1.
    """
    figure = Figure(figsize=size, layout="constrained")
    pair = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    if unit:
        pair.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure, pair


def line_of(number: int) -> dict[str, Any]:
    """Return colour and dashes of the line with this number; no two of 15 are alike."""
    round_, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": DASHES[round_ % len(DASHES)]}


def legend_below(pair: Axes, columns: int = 3) -> None:
    """Put the legend below the axes, where it covers nothing."""
    pair.figure.legend(loc="outside lower center", ncols=columns)


def thinned(count: int, most: int = 400) -> Sequence[int]:
    """Return at most about ``most`` positions of ``count``, with the first and the last."""
    step = max(1, count // most)
    return sorted({*range(0, count, step), count - 1})


def svg(figure: Figure) -> str:
    """Return a figure as an SVG document; texts are texts."""
    stream = io.StringIO()
    with mpl.rc_context(_RC):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def pdf(figure: Figure) -> bytes:
    """Return a figure as a PDF document with its fonts in it."""
    stream = io.BytesIO()
    about = {"CreationDate": None, "Creator": None, "Producer": None}
    with mpl.rc_context(_RC):
        figure.savefig(stream, format="pdf", metadata=about)
    return stream.getvalue()


def inlined(document: str, name: str) -> str:
    """Return an SVG document as an element of a page.

    Its ink becomes the page's, its ids begin with ``name`` so that those of several figures do not
    meet, and it takes the width it is given. It is hidden from screen readers: the page says
    what it shows.
    """
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # A rule inside an inlined element would hold for the whole page.
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", element, flags=re.DOTALL)
    element = _IDS.sub(rf"\g<1>{name}-", element)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = element.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    element = element.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return element.replace(INK, "currentColor")
