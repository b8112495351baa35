"""One prediction as a figure: the picture with its outline, the heat map, the probabilities."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naevus.errors import NaevusError
from naevus.images.geometry import reduced, resize
from naevus.images.masks import draw_outline
from naevus.images.read import read
from naevus.inference.cam import glowing
from naevus.inference.prediction import NOTICE

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError:
    raise NaevusError(
        "matplotlib, which draws predictions, is not installed",
        "run pip install 'naevus[report]'",
    ) from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from naevus.inference.prediction import Prediction

_SHOWN: Final = 512  # pixels of the shorter side
_OUTLINE: Final = (0, 255, 255)
_TOLD, _OTHER = "#0072B2", "#858b96"  # told apart by the colour-blind (Okabe & Ito 2008)
_RC: Final[dict[Any, Any]] = {"font.size": 10, "axes.titlesize": 10, "figure.facecolor": "white"}


def plot(prediction: Prediction) -> Figure:
    """Draw a prediction.

    Args:
        prediction: It; a picture's file is read again.

    Raises:
        PictureError: The file cannot be read.
    """
    pixels = _pixels(prediction)
    panels = [(_outlined(prediction, pixels), "Lesion's outline" if _has_mask(prediction) else "")]
    code = prediction.diagnosis
    heat = None if code is None else prediction.heat_of(code, *pixels.shape[:2])
    if heat is not None:
        panels.append((glowing(pixels, heat), f"What speaks for {code}"))
    with mpl.rc_context(_RC):
        count = len(panels) + (code is not None)
        figure = Figure(figsize=(3.6 * count, 4.2), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)[0]
        for ax, (shown, title) in zip(axes, panels, strict=False):
            ax.imshow(shown)
            ax.set_title(title)
            ax.set_axis_off()
        if code is not None:
            _bars(axes[-1], prediction, code)
        figure.suptitle(_title(prediction))
        figure.supxlabel(_below(prediction, 28 * count), fontsize=8, color="#444444")
    return figure


def _pixels(prediction: Prediction) -> NDArray[np.uint8]:
    picture = prediction.picture
    if not isinstance(picture, np.ndarray):
        picture = read(picture, shortest=_SHOWN)
    return reduced(picture, _SHOWN)


def _has_mask(prediction: Prediction) -> bool:
    return bool(prediction.mask_share) and prediction.mask is not None


def _outlined(prediction: Prediction, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if prediction.mask is None:
        return pixels
    surface = resize(prediction.mask.view(np.uint8) * np.uint8(255), *pixels.shape[:2])
    return draw_outline(pixels, surface > 127, _OUTLINE, 2)


def _bars(ax: Axes, prediction: Prediction, told: str) -> None:
    """Draw the probabilities, and a dot where a diagnosis cannot be ruled out."""
    codes = list(prediction.probabilities)
    shares = list(prediction.probabilities.values())
    bars = ax.barh(codes, shares, color=[_TOLD if code == told else _OTHER for code in codes])
    within = prediction.prediction_set
    marks = ["●" if within is not None and code in within else "" for code in codes]
    labels = [f"{share:.0%} {mark}".rstrip() for share, mark in zip(shares, marks, strict=True)]
    ax.bar_label(bars, labels, padding=3)
    ax.set_xlim(0, 1.3)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(
        "Probability"
        if within is None
        else f"Probability (●: in the {prediction.level:.0%} prediction set)"
    )


def _title(prediction: Prediction) -> str:
    if prediction.diagnosis is None:
        return prediction.image_id
    doubt = "" if prediction.doubt is None else f", doubt {prediction.doubt:.2f}"
    return f"{prediction.image_id}: {prediction.name_of(prediction.diagnosis)}{doubt}"


def _below(prediction: Prediction, width: int) -> str:
    lines = [f"! {sentence}" for sentence in prediction.flags.values()]
    return "\n".join(line for text in [*lines, NOTICE] for line in textwrap.wrap(text, width))
