"""The prediction for one image: values, text, table row and figure."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naevus.datasets.sources import full_path
from naevus.errors import ConfigError
from naevus.evaluation.patient import Effects, effects
from naevus.images.geometry import reduced, resize
from naevus.images.masks import (
    ATTRIBUTE_COLOURS,
    PREDICTED_COLOUR,
    contours,
    draw_attributes,
    draw_contours,
)
from naevus.images.measurements import in_millimetres, size_columns, sizes_in
from naevus.images.read import read
from naevus.inference.cam import cam_over, cells_of, overlay
from naevus.inference.probabilities import ClassProbabilities
from naevus.io.figures import style
from naevus.taxonomy import ATTRIBUTES
from naevus.types import METADATA, FailedImage, explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from naevus.images.geometry import Box
    from naevus.images.measurements import Measurements, Millimetres
    from naevus.images.preprocess import ImageData
    from naevus.inference.cam import ActivationMaps


NOTICE = "For research only: not a medical device, never a diagnosis."
"""Printed below every prediction."""

LIKELY = 0.5
"""Attributes with at least this presence are listed."""
_BAR = 24  # characters, for a probability of 1


@dataclass(frozen=True, eq=False)
class Prediction(ClassProbabilities):
    """The prediction for one image; for research only, never a diagnosis.

    Without a classifier the dictionaries are empty, and values derived from them are None.

    Attributes:
        image_id: The file's name without suffix, or "image N" for pixels.
        image: The image's file or pixels.
        height: Rows of the image in pixels.
        width: Columns of the image in pixels.
        box: The smallest box around the lesion; None without a lesion.
        lesion_area: The lesion's fraction of the image, 0..1; None without a segmenter.
        touches_border: Whether the lesion reaches the image's border; None without a lesion.
        measurements: The lesion's sizes and shape; None without a lesion, if it touches the border,
            or if it is implausible (`naevus.images.measurements.measure`).
        mm_per_pixel: Millimetres on the skin that a pixel covers; None if it is not known.
        crop_mode: The classifier's crop mode: ``full``, ``crop`` or ``blank``; if networks differ,
            that of the first one of crops.
        probabilities: Calibrated natural probability of each class, by code, under the training
            data's class priors or the given prevalence.
        balanced_probabilities: Probability of each class under equal class priors.
        members: M x C, each network's own natural probabilities.
        uncertainty: Standard deviation of the probability of ``predicted`` over networks and TTA;
            None for one network without TTA.
        prediction_set: The classes that cannot be ruled out, ``predicted`` always among them; None
            if the bundle has no thresholds, with several bundles, or with TTA.
        coverage: Probability that the set contains the true class, 0..1.
        flags: Warnings to read before relying on the prediction: code → sentence (`naevus.types`).
        ood_score: Out-of-distribution score: about 0 for most training images, above 1 if the image
            is flagged; None if the bundle has no statistics.
        embedding: F pooled features of the networks; None if a network outputs none.
        attributes: Probability that each dermoscopic attribute is present; empty if no network
            segments attributes.
        metadata: The metadata that was given, by the names in `naevus.types.METADATA`; None: not
            known.
        effects: Which of the metadata changed the odds, and which are unknown to the bundle.
        taxonomy: Name of the taxonomy, if it is a known one.
        bundles: SHA-256 of each bundle that made the prediction.
        naevus_version: The version of naevus that made it; None if a table does not know it.
        packed_mask: The bits of ``mask``, row by row, eight per byte.
        packed_attributes: The bits of ``attribute_masks``.
        activations: Each network's maps for ``heatmap``; None if a network outputs none.
    """

    image_id: str
    image: ImageData
    height: int
    width: int
    box: Box | None = None
    lesion_area: float | None = None
    crop_mode: str | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    balanced_probabilities: Mapping[str, float] = field(default_factory=dict)
    members: NDArray[np.float64] | None = field(default=None, repr=False)
    uncertainty: float | None = None
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    ood_score: float | None = None
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    taxonomy: str | None = field(default=None, repr=False)
    packed_mask: NDArray[np.uint8] | None = field(default=None, repr=False)
    activations: tuple[ActivationMaps, ...] | None = field(default=None, repr=False)
    attributes: Mapping[str, float] = field(default_factory=dict)
    packed_attributes: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    bundles: tuple[str, ...] = field(default=(), repr=False)
    naevus_version: str | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    effects: Effects = field(default=Effects(), repr=False)
    touches_border: bool | None = None
    measurements: Measurements | None = None
    mm_per_pixel: float | None = None

    @property
    def millimetres(self) -> Millimetres | None:
        """The lesion's sizes in millimetres; None if they or the scale are not known."""
        if self.measurements is None or self.mm_per_pixel is None:
            return None
        return in_millimetres(self.measurements, self.mm_per_pixel)

    @cached_property
    def attribute_masks(self) -> dict[str, NDArray[np.bool_]]:
        """Mask of each attribute, height x width; empty if no network segments attributes."""
        return {name: self._unpacked(packed) for name, packed in self.packed_attributes.items()}

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """The lesion mask, height x width; None without a segmenter."""
        return None if self.packed_mask is None else self._unpacked(self.packed_mask)

    def _unpacked(self, packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
        flat = np.unpackbits(packed, count=self.height * self.width).view(np.bool_)
        return flat.reshape(self.height, self.width)

    @cached_property
    def heatmap(self) -> NDArray[np.float32] | None:
        """Class activation map of ``predicted``: height x width, 0..1 (see `cam_of`)."""
        return None if self.predicted is None else self.cam_of(self.predicted)

    def cam_of(
        self, code: str, height: int | None = None, width: int | None = None
    ) -> NDArray[np.float32] | None:
        """Return the class activation map of a class, at the size of the image.

        The mean of a network's map over its places is the class's logit, up to temperature and a
        constant. The maps of several networks are averaged, each shifted by its measured offset.

        Args:
            code: The class.
            height: Rows of the result; None: those of the image.
            width: Columns of the result; None: those of the image.

        Returns:
            height x width, from 0 (no evidence for the class) to 1 (most evidence); None if the
            networks output no maps.

        Raises:
            ConfigError: The class is unknown.
        """
        classes = tuple(self.probabilities)
        if code not in classes:
            raise ConfigError(
                f"there is no class {code!r}", f"use one of {', '.join(classes) or 'none'}"
            )
        if self.activations is None:
            return None
        number = classes.index(code)
        return cam_over(
            [maps.of(number) for maps in self.activations],
            self.height if height is None else height,
            self.width if width is None else width,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all values that fit into JSON: the mask as polygons; no heatmap or embedding.

        ``mask_polygons`` has a list of points [x, y] for each contour of the mask, the largest
        first: centres of the outermost pixels, from the upper left pixel's (0, 0). A hole is
        a further polygon. `cv2.fillPoly` with all of them draws the mask again. It is None without
        a segmenter, and for predictions that were read from a table.
        """
        return {
            "image_id": self.image_id,
            "path": str(self.image) if isinstance(self.image, Path) else None,
            "height": self.height,
            "width": self.width,
            "predicted": self.predicted,
            "predicted_balanced": self.predicted_balanced,
            "probabilities": dict(self.probabilities),
            "balanced_probabilities": dict(self.balanced_probabilities),
            "confidence": self.confidence,
            "uncertainty": self.uncertainty,
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "coverage": self.coverage,
            "ood_score": self.ood_score,
            "quality_flags": dict(self.flags),
            "box": None if self.box is None else self.box._asdict(),
            "lesion_area": self.lesion_area,
            "touches_border": self.touches_border,
            "measurements": None if self.measurements is None else self.measurements._asdict(),
            "mm_per_pixel": self.mm_per_pixel,
            "millimetres": None if self.millimetres is None else self.millimetres._asdict(),
            "mask_polygons": None
            if self.mask is None
            else [points.tolist() for points in contours(self.mask)],
            "attributes": dict(self.attributes),
            "crop_mode": self.crop_mode,
            "bundle_sha256": list(self.bundles),
            "naevus_version": self.naevus_version,
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
            **({"metadata_effects": self.effects._asdict()} if any(self.effects) else {}),
        }

    def to_row(self) -> dict[str, Any]:
        """Return the row of ``predictions.parquet``, by column (`naevus.runs.predictions`)."""
        return {
            "image_id": self.image_id,
            "path": full_path(self.image) if isinstance(self.image, Path) else str(self.image),
            "height": self.height,
            "width": self.width,
            "predicted": self.predicted,
            "predicted_balanced": self.predicted_balanced,
            "prediction_set": self.prediction_set,
            "member_probs": None if self.members is None else self.members.tolist(),
            "confidence": self.confidence,
            "uncertainty": self.uncertainty,
            "ood_score": self.ood_score,
            "quality_flags": list(self.flags),
            "lesion_area": self.lesion_area,
            **size_columns(self.box, self.touches_border, self.measurements, self.mm_per_pixel),
            "crop_mode": self.crop_mode,
            **{f"presence_{name}": fraction for name, fraction in self.attributes.items()},
            **{f"prob_{code}": fraction for code, fraction in self.probabilities.items()},
            **{
                f"balanced_prob_{code}": fraction
                for code, fraction in self.balanced_probabilities.items()
            },
            **self.metadata,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], about: Mapping[str, Any]) -> Prediction:
        """Create a prediction from a row of ``predictions.parquet``: no masks, maps or embedding.

        Args:
            row: The row, by column.
            about: The table's metadata (`naevus.runs.prediction_tables.about`).
        """
        within, classes = row["prediction_set"], about["classes"]
        known = about.get("metadata", {}).get("known")
        return cls(
            row["image_id"],
            Path(row["path"]),
            row["height"],
            row["width"],
            lesion_area=row["lesion_area"],
            crop_mode=row["crop_mode"],
            probabilities={code: row[f"prob_{code}"] for code in classes},
            balanced_probabilities={code: row[f"balanced_prob_{code}"] for code in classes},
            members=None
            if row["member_probs"] is None
            else np.array(row["member_probs"], np.float64),
            uncertainty=row["uncertainty"],
            ood_score=row["ood_score"],
            prediction_set=None if within is None else tuple(within),
            coverage=about["coverage"],
            flags=explained(row["quality_flags"]),
            taxonomy=about["taxonomy"],
            attributes={
                name: row[f"presence_{name}"] for name in ATTRIBUTES if f"presence_{name}" in row
            },
            bundles=tuple(row["bundle_sha256"].split(",")),
            naevus_version=about.get("naevus_version"),
            metadata={name: row[name] for name in METADATA if name in row},
            effects=Effects() if known is None else effects(row, known),
            **sizes_in(row),
        )

    def plot(self) -> Figure:
        """Draw the image with the lesion's contour, its heatmap, and the probabilities.

        Returns:
            A matplotlib figure, for ``savefig`` or a notebook.

        Raises:
            NaevusError: matplotlib is not installed.
            ImageError: The image's file does not exist any more.
        """
        with style(_RC, "predictions"):
            return _plot(self)

    def to_frame(self) -> pd.DataFrame:
        """Return the prediction as a pandas table of one row (see `to_frame` for several)."""
        return to_frame([self])

    def __str__(self) -> str:
        """Return the prediction in a few lines."""
        return "\n".join([*self._lines(), NOTICE])

    def _repr_html_(self) -> str:
        """Return the lines for a notebook; `plot` draws them with the image."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def _lines(self) -> list[str]:
        lines = [self.image_id]
        if self.lesion_area is not None:
            lines.append(f"The lesion covers {self.lesion_area:.1%} of the image{self._extent()}.")
        if self.attributes:
            likely = {name: p for name, p in self.attributes.items() if p >= LIKELY}
            named = ", ".join(
                f"{ATTRIBUTES[name]} ({probability:.0%})"
                for name, probability in sorted(likely.items(), key=lambda pair: -pair[1])
            )
            lines.append(f"Attributes: {named or 'none is likely'}")
        if self.predicted is not None and self.predicted_balanced is not None:
            lines += self._answer(self.predicted, self.predicted_balanced)
        lines += [f"! {sentence}" for sentence in self.flags.values()]
        return lines

    def _values(self, names: Iterable[str]) -> str:
        """Return some of the metadata as text."""
        given = {name: self.metadata[name] for name in names}
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in given.items()
        )

    def _extent(self) -> str:
        """Return the lesion's diameters as the end of a sentence, or why they are not known."""
        if self.touches_border:
            return " and reaches its border, so its size is not known"
        sizes = self.millimetres or self.measurements
        if sizes is None:
            return ""
        unit, digits = ("pixels", 0) if self.millimetres is None else ("mm", 1)
        longest, other = sizes.longest_diameter, sizes.perpendicular_diameter
        return f"; its diameters are {longest:.{digits}f} x {other:.{digits}f} {unit}"

    def _answer(self, predicted: str, balanced: str) -> list[str]:
        lines = [f"Most probable: {self.name_of(predicted)}", ""]
        if self.effects.unknown:
            values = self._values(self.effects.unknown)
            lines.insert(1, f"! Unknown to the bundle, without effect: {values}")
        if self.effects.counted:
            lines.insert(1, f"With the patient's data: {self._values(self.effects.counted)}")
        # Melanoma first, which must not be missed.
        ordered = sorted(self.probabilities.items(), key=lambda pair: (pair[0] != "MEL", -pair[1]))
        width = max(map(len, self.probabilities))
        lines += [
            f"  {code:{width}}  {fraction:6.1%}  {'█' * round(_BAR * fraction)}".rstrip()
            for code, fraction in ordered
        ]
        lines.append("")
        if self.prediction_set is not None and self.coverage is not None:
            inside = [code for code, _ in ordered if code in self.prediction_set]
            lines.append(
                f"Prediction set: {', '.join(inside)}. "
                f"Such sets hold the true diagnosis of at least {self.coverage:.0%} of lesions."
            )
        if balanced != predicted:
            lines.append(f"Most probable if all were equally common: {self.name_of(balanced)}")
        confidence = f"Confidence: {self.confidence:.2f}"
        return [
            *lines,
            confidence
            if self.uncertainty is None
            else f"{confidence}, uncertainty: {self.uncertainty:.2f}",
        ]


def to_frame(predictions: Iterable[Prediction | FailedImage]) -> pd.DataFrame:
    """Return predictions as a pandas table, one row per image.

    Args:
        predictions: From one `Predictor`, in any order.

    Returns:
        The columns of ``predictions.parquet`` except ``bundle_sha256``. If images failed, their
        rows have an id, a path, and the reason in an additional column ``problem``.

    Raises:
        ConfigError: The predictions have different classes, attributes or metadata.

    Examples:
        >>> lesion = Prediction("lesion", Path("lesion.jpg"), 450, 600, lesion_area=0.25,
        ...                     probabilities={"MEL": 0.2, "NV": 0.8})
        >>> lost = FailedImage("lost", "lost.jpg", "does not exist")
        >>> table = to_frame([lesion, lost])
        >>> table["image_id"].tolist(), table["prob_NV"].tolist()
        (['lesion', 'lost'], [0.8, nan])
        >>> table.set_index("image_id").loc["lost", "problem"]
        'does not exist'
    """
    import pyarrow as pa  # noqa: PLC0415 (slow to import)

    from naevus.runs.prediction_tables import Schema  # noqa: PLC0415 (as above)

    given = list(predictions)
    made = [each for each in given if isinstance(each, Prediction)]
    kinds = {
        (tuple(each.probabilities), tuple(each.attributes), tuple(each.metadata)) for each in made
    }
    if len(kinds) > 1:
        raise ConfigError(
            "these predictions have different classes, attributes or metadata",
            "make one table for each predictor",
        )
    classes, attributes, metadata = next(iter(kinds), ((), (), ()))
    scaled = any(each.mm_per_pixel is not None for each in made)
    fields = [
        column
        for column in Schema(classes, (), {}, attributes, metadata, scaled).arrow()
        if column.name != "bundle_sha256"
    ]
    if len(made) < len(given):
        fields.append(pa.field("problem", pa.string()))
    rows = [each.to_row() if isinstance(each, Prediction) else each._asdict() for each in given]
    table: pd.DataFrame = pa.Table.from_pylist(rows, pa.schema(fields)).to_pandas()
    return table


# The figure: the image with its contour, the heatmap and the probabilities.

_SHOWN: Final = 512  # pixels of the shorter side
_ATTRIBUTES: Final = "Attributes"
_PREDICTED, _OTHER = "#0072B2", "#858b96"  # safe for colour-blind readers (Okabe & Ito 2008)
_RC: Final[dict[Any, Any]] = {"font.size": 10, "axes.titlesize": 10, "figure.facecolor": "white"}


def _plot(prediction: Prediction) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

    pixels = _pixels(prediction)
    panels = [(_segmented(prediction, pixels), "Lesion contour" if _has_mask(prediction) else "")]
    if prediction.attribute_masks:
        panels.append((_with_attributes(prediction, pixels), _ATTRIBUTES))
    code = prediction.predicted
    cam = None if code is None else prediction.cam_of(code, *pixels.shape[:2])
    if cam is not None:
        assert prediction.activations is not None
        resolution = cells_of(prediction.activations)
        panels.append((overlay(pixels, cam), f"Evidence for {code}, from {resolution}"))
    count = len(panels) + (code is not None)
    figure = Figure(figsize=(3.6 * count, 4.2), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax, (shown, title) in zip(axes, panels, strict=False):
        ax.imshow(shown)
        ax.set_title(title)
        ax.set_axis_off()
        if title == _ATTRIBUTES:
            _attribute_legend(ax, prediction)
    if code is not None:
        _bars(axes[-1], prediction, code)
    figure.suptitle(_title(prediction))
    figure.supxlabel(_below(prediction, 28 * count), fontsize=8, color="#444444")
    return figure


def _pixels(prediction: Prediction) -> NDArray[np.uint8]:
    image = prediction.image
    if not isinstance(image, np.ndarray):
        image = read(image, shortest=_SHOWN)
    return reduced(image, _SHOWN)


def _has_mask(prediction: Prediction) -> bool:
    return bool(prediction.lesion_area) and prediction.mask is not None


def _segmented(prediction: Prediction, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if prediction.mask is None:
        return pixels
    surface = resize(prediction.mask.view(np.uint8) * np.uint8(255), *pixels.shape[:2])
    return draw_contours(pixels, surface > 127, PREDICTED_COLOUR, 2)


def _with_attributes(prediction: Prediction, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = pixels.shape[:2]
    masks = {
        name: resize(mask.view(np.uint8) * np.uint8(255), *size) > 127
        for name, mask in prediction.attribute_masks.items()
    }
    return draw_attributes(pixels, masks, 2)


def _attribute_legend(ax: Axes, prediction: Prediction) -> None:
    """List the attributes below the image, each in its colour with its probability."""
    from matplotlib.lines import Line2D  # noqa: PLC0415 (as above)

    handles = [
        Line2D([], [], color=(red / 255, green / 255, blue / 255), linewidth=3)
        for red, green, blue in map(ATTRIBUTE_COLOURS.__getitem__, prediction.attributes)
    ]
    labels = [
        f"{ATTRIBUTES[name]} {fraction:.0%}" for name, fraction in prediction.attributes.items()
    ]
    ax.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False,
        fontsize=8,
    )  # fmt: skip


def _bars(ax: Axes, prediction: Prediction, predicted: str) -> None:
    """Draw the probabilities, with a dot for each class in the prediction set."""
    codes = list(prediction.probabilities)
    probabilities = list(prediction.probabilities.values())
    bars = ax.barh(
        codes, probabilities, color=[_PREDICTED if code == predicted else _OTHER for code in codes]
    )
    within = prediction.prediction_set
    marks = ["●" if within is not None and code in within else "" for code in codes]
    labels = [
        f"{fraction:.0%} {mark}".rstrip()
        for fraction, mark in zip(probabilities, marks, strict=True)
    ]
    ax.bar_label(bars, labels, padding=3)
    ax.set_xlim(0, 1.3)  # room for the labels; the axis itself ends at 100 %
    ax.spines["bottom"].set_bounds(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(
        "Probability"
        if within is None
        else f"Probability (●: in the {prediction.coverage:.0%} prediction set)"
    )


def _title(prediction: Prediction) -> str:
    if prediction.predicted is None:
        return prediction.image_id
    confidence = "" if prediction.confidence is None else f", {prediction.confidence:.0%}"
    return f"{prediction.image_id}: {prediction.name_of(prediction.predicted)}{confidence}"


def _below(prediction: Prediction, width: int) -> str:
    lines = [f"! {sentence}" for sentence in prediction.flags.values()]
    return "\n".join(line for text in [*lines, NOTICE] for line in textwrap.wrap(text, width))
