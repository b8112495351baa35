"""One prediction per lesion: the mean of its images' logits, and how far the images disagree."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.priors import geometric_means
from naevus.inference.probabilities import ClassProbabilities
from naevus.io.files import atomic, write_csv
from naevus.io.words import counted
from naevus.types import FailedImage, Patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from naevus.inference.prediction import Prediction
    from naevus.runs.predictions import PredictionsFolder

    SetsOf = Callable[
        [NDArray[np.float64], NDArray[np.float64], Sequence[Patient] | None],
        NDArray[np.bool_] | None,
    ]
    """From L x C natural and L x C balanced probabilities, given what is known of the L patients,
    to L x C prediction sets, if any."""


@dataclass(frozen=True)
class Lesion(ClassProbabilities):
    """The prediction for a lesion from all its images; for research only, never a diagnosis.

    Without a predicted image the dictionaries are empty, and values derived from them are None.

    Attributes:
        lesion_id: Its id.
        images: Ids of its predicted images, in order.
        image_predicted: The class with the highest natural probability in each of these images.
        failed: Ids of its images without a prediction.
        probabilities: Natural probability of each class, by code: the normalised exponential of
            the mean log-probability over the images.
        balanced_probabilities: Probability of each class under equal class priors.
        disagreement: Standard deviation over the images of the natural probability of
            ``predicted``; None for a single image.
        prediction_set: The classes that cannot be ruled out; None if the images have no sets. The
            thresholds were fitted on single images, so nothing guarantees the coverage of sets for
            several images.
        taxonomy: Name of the taxonomy, if it is a known one.
    """

    lesion_id: str
    images: tuple[str, ...]
    image_predicted: tuple[str, ...]
    failed: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    balanced_probabilities: Mapping[str, float] = field(default_factory=dict)
    disagreement: float | None = None
    prediction_set: tuple[str, ...] | None = None
    taxonomy: str | None = field(default=None, repr=False)

    @property
    def differing(self) -> int:
        """The number of images for which another class than ``predicted`` was predicted."""
        return sum(code != self.predicted for code in self.image_predicted)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as a dictionary that JSON can hold."""
        return {
            "lesion_id": self.lesion_id,
            "images": len(self.images),
            "failed_images": len(self.failed),
            "predicted": self.predicted,
            "predicted_balanced": self.predicted_balanced,
            "confidence": self.confidence,
            "disagreement": self.disagreement,
            "differing_images": self.differing,
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "image_ids": list(self.images),
            "image_predicted": list(self.image_predicted),
            "failed_ids": list(self.failed),
            "probabilities": dict(self.probabilities),
            "balanced_probabilities": dict(self.balanced_probabilities),
        }

    def to_row(self) -> dict[str, Any]:
        """Return the row of ``lesions.parquet``, by column."""
        row = self.to_dict()
        natural, balanced = row.pop("probabilities"), row.pop("balanced_probabilities")
        return {
            **row,
            **{f"prob_{code}": value for code, value in natural.items()},
            **{f"balanced_prob_{code}": value for code, value in balanced.items()},
        }

    def __str__(self) -> str:
        """Return the prediction in a few lines."""
        count = counted(len(self.images), "image")
        lines = [f"{self.lesion_id}: {count}"]
        if self.predicted is not None:
            lines.append(f"Most probable: {self.name_of(self.predicted)}, {self.confidence:.0%}")
        if self.disagreement is not None:
            lines.append(
                f"The probability differs by {self.disagreement:.2f} between images (standard "
                f"deviation); {self.differing} of them have another prediction."
            )
        lines += [
            f"  {image_id}: {code}"
            for image_id, code in zip(self.images, self.image_predicted, strict=True)
        ]
        lines += [f"  {image_id}: failed" for image_id in self.failed]
        return "\n".join(lines)


class ImageProbabilities(NamedTuple):
    """What was predicted for N images of C classes.

    Attributes:
        ids: N image ids.
        classes: C codes.
        natural: N x C natural probabilities.
        balanced: N x C balanced probabilities.
        taxonomy: Name of the taxonomy, if it is a known one.
        patients: What is known of the patients of the N images; empty without metadata.
    """

    ids: Sequence[str]
    classes: Sequence[str]
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    taxonomy: str | None = None
    patients: Sequence[Patient] = ()


def put_together(
    lesions: Sequence[str | None],
    predicted: ImageProbabilities,
    failed: Sequence[tuple[str, str]] = (),
    sets_of: SetsOf | None = None,
) -> list[Lesion]:
    """Put the predictions of images together by lesion.

    Args:
        lesions: N ids of the images' lesions; images without one are left out.
        predicted: What was predicted for the images.
        failed: Image and lesion of each image without a prediction.
        sets_of: Returns the lesions' prediction sets.

    Returns:
        The lesions, sorted by id; images keep their order.

    Examples:
        >>> images = ImageProbabilities(
        ...     ["a", "b"], ["MEL", "NV"], *[np.array([[0.9, 0.1], [0.4, 0.6]])] * 2)
        >>> (lesion,) = put_together(["left arm", "left arm"], images, [("c", "left arm")])
        >>> lesion.predicted, round(lesion.confidence, 2), round(lesion.disagreement, 2)
        ('MEL', 0.71, 0.25)
        >>> lesion.image_predicted, lesion.differing, lesion.failed
        (('MEL', 'NV'), 1, ('c',))
    """
    known = [number for number, lesion in enumerate(lesions) if lesion is not None]
    of_images = [str(lesions[number]) for number in known]
    names, members = np.unique(np.array(of_images, object).astype(str), return_inverse=True)
    rows = predicted.natural[known]
    natural = geometric_means(rows, members, len(names))
    balanced = geometric_means(predicted.balanced[known], members, len(names))
    sets = None
    if sets_of is not None and len(names):
        sets = sets_of(natural, balanced, _patients(predicted.patients, known, members))
    codes = np.array(predicted.classes, object)
    answers = codes[rows.argmax(axis=1)] if len(rows) else codes[:0]
    own: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(of_images):
        own[name].append(place)
    lost: dict[str, list[str]] = defaultdict(list)
    for image_id, name in failed:
        lost[name].append(image_id)
    found = []
    for number, name in enumerate(map(str, names)):
        places = own[name]
        of_predicted = rows[places, natural[number].argmax()]
        found.append(
            Lesion(
                name,
                tuple(predicted.ids[known[place]] for place in places),
                tuple(answers[places].tolist()),
                tuple(sorted(lost.pop(name, ()))),
                _by_code(predicted.classes, natural[number]),
                _by_code(predicted.classes, balanced[number]),
                float(np.std(of_predicted)) if len(places) > 1 else None,
                None if sets is None else tuple(codes[sets[number]].tolist()),
                predicted.taxonomy,
            )
        )
    found += [Lesion(name, (), (), tuple(sorted(ids))) for name, ids in lost.items()]
    return sorted(found, key=lambda lesion: lesion.lesion_id)


def _patients(
    of_images: Sequence[Patient], known: Sequence[int], members: NDArray[np.intp]
) -> list[Patient] | None:
    """Return for each lesion what is known of the first of its images that has metadata."""
    if not of_images:
        return None
    found = [Patient()] * (int(members.max(initial=-1)) + 1)
    for number, lesion in zip(known, members.tolist(), strict=True):
        found[lesion] = of_images[number] if found[lesion] == Patient() else found[lesion]
    return found


def lesions_of(
    outcomes: Iterable[tuple[str, Prediction | FailedImage]], sets_of: SetsOf | None = None
) -> list[Lesion]:
    """Put predictions together by lesion.

    Args:
        outcomes: The lesion of each image, and its prediction by a classifier, or its failure.
        sets_of: Returns the lesions' prediction sets.

    Returns:
        The lesions, sorted by id.
    """
    lesions, predicted, failed = [], [], []
    for name, each in outcomes:
        if isinstance(each, FailedImage):
            failed.append((each.image_id, name))
        else:
            lesions.append(name)
            predicted.append(each)
    codes = list(predicted[0].probabilities) if predicted else []
    # A scale or a lesion's id are metadata, too, and change no odds.
    patients = any(set(Patient._fields) & set(each.metadata) for each in predicted)
    natural = [[each.probabilities[code] for code in codes] for each in predicted]
    balanced = [[each.balanced_probabilities[code] for code in codes] for each in predicted]
    probabilities = ImageProbabilities(
        [each.image_id for each in predicted],
        codes,
        np.array(natural, np.float64).reshape(len(predicted), len(codes)),
        np.array(balanced, np.float64).reshape(len(predicted), len(codes)),
        predicted[0].taxonomy if predicted else None,
        [_patient(each.metadata) for each in predicted] if patients else [],
    )
    return put_together(lesions, probabilities, failed, sets_of)


def _patient(metadata: Mapping[str, Any]) -> Patient:
    return Patient(*(metadata.get(name) for name in Patient._fields))


def _by_code(classes: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(classes, values.tolist(), strict=True))


def known_lesions(lesions: Mapping[str, Any]) -> dict[str, str]:
    """Return lesion ids as text, without those that are not known (None, NaN, NA or empty).

    Raises:
        DataError: An id is neither text nor a whole number.
    """
    named = {image_id: lesion_name(lesion) for image_id, lesion in lesions.items()}
    return {image_id: lesion for image_id, lesion in named.items() if lesion is not None}


def lesion_name(lesion: Any) -> str | None:
    """Return a lesion's id as text; None if it is not known (None, NaN, NA or empty).

    Raises:
        DataError: It is neither text nor a whole number.
    """
    import pandas as pd  # noqa: PLC0415 (slow to import)

    if pd.api.types.is_scalar(lesion) and pd.isna(lesion):
        return None
    if not isinstance(lesion, str | int | np.integer) or isinstance(lesion, bool):
        raise DataError(f"a lesion is {lesion!r}", "give its id as text or a whole number")
    return str(lesion).strip() or None


class LesionCounts(NamedTuple):
    """What a job found of lesions.

    Attributes:
        lesions: The number of lesions, also of those whose images all failed.
        images: The number of their predicted images.
        several: The number of lesions with two or more predicted images.
        differing: The number of these whose images have different predictions.
        failed: The number of failed images of the lesions.
        unknown: The number of predicted images of unknown lesions: left out.
    """

    lesions: int
    images: int
    several: int
    differing: int
    failed: int
    unknown: int

    @classmethod
    def of(cls, lesions: Sequence[Lesion], images: int) -> Self:
        """Count lesions of a job that predicted some images."""
        known = sum(len(each.images) for each in lesions)
        return cls(
            len(lesions),
            known,
            sum(len(each.images) > 1 for each in lesions),
            sum(len({*each.image_predicted}) > 1 for each in lesions),
            sum(len(each.failed) for each in lesions),
            images - known,
        )

    def __str__(self) -> str:
        parts = [
            f"{counted(self.lesions, 'lesion')} from {counted(self.images, 'image')}",
            f"with several images: {self.several:,}",
            f"whose images have different predictions: {self.differing:,}",
            *([f"failed images: {self.failed:,}"] if self.failed else []),
            *([f"images left out, lesion unknown: {self.unknown:,}"] if self.unknown else []),
        ]
        return "; ".join(parts)


def write_lesions(
    folder: PredictionsFolder,
    lesions: Mapping[str, str],
    failed: Sequence[FailedImage],
    sets_of: SetsOf | None,
) -> LesionCounts:
    """Write ``lesions.parquet`` and ``lesions.csv`` from a folder's table of predictions.

    In the CSV, lists are joined by semicolons.

    Args:
        folder: The folder; its table of predictions is complete.
        lesions: The lesion of each image, by image id.
        failed: The images without a prediction.
        sets_of: Returns the lesions' prediction sets.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415 (slow to import)
    import pyarrow.parquet as pq  # noqa: PLC0415

    from naevus.runs.prediction_tables import about, read_rows  # noqa: PLC0415 (brings pyarrow)

    metadata = about(folder.table)
    classes: list[str] = metadata["classes"]
    columns = [[f"{kind}_{code}" for code in classes] for kind in ("prob", "balanced_prob")]
    noted = metadata.get("metadata", {})
    given = noted["columns"] if "known" in noted else []  # otherwise they are kept without effect
    table = read_rows(folder.table, ["image_id", *columns[0], *columns[1], *given])
    patients = [_patient(row) for row in table.select(given).to_pylist()] if given else []
    ids: list[str] = table.column("image_id").to_pylist()
    natural, balanced = (
        np.stack([table.column(name).to_numpy() for name in names], axis=1) for names in columns
    )
    found = put_together(
        [lesions.get(image_id) for image_id in ids],
        ImageProbabilities(ids, classes, natural, balanced, metadata["taxonomy"], patients),
        [(each.image_id, lesions[each.image_id]) for each in failed if each.image_id in lesions],
        sets_of,
    )
    schema = lesions_schema(classes, metadata)
    rows = [lesion.to_row() for lesion in found]
    parquet, text = folder.lesions
    with atomic(parquet) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
    values = [[row.get(name) for name in schema.names] for row in rows]
    joined = [[";".join(v) if isinstance(v, list) else v for v in row] for row in values]
    write_csv(text, schema.names, joined, spreadsheet=True)
    return LesionCounts.of(found, len(ids))


def lesions_schema(classes: Sequence[str], about: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of ``lesions.parquet``: the values of `Lesion`.

    Args:
        classes: Codes in order.
        about: The file's metadata under ``naevus``.
    """
    import pyarrow as pa  # noqa: PLC0415 (slow to import)

    from naevus.runs.prediction_tables import ABOUT  # noqa: PLC0415 (brings pyarrow)

    numbers = [f"{kind}_{code}" for kind in ("prob", "balanced_prob") for code in classes]
    texts = pa.list_(pa.string())
    fields = [
        ("lesion_id", pa.string()),
        ("images", pa.int32()),
        ("failed_images", pa.int32()),
        ("predicted", pa.string()),
        ("predicted_balanced", pa.string()),
        ("confidence", pa.float64()),
        ("disagreement", pa.float64()),
        ("differing_images", pa.int32()),
        *((name, pa.float64()) for name in numbers),
        ("prediction_set", texts),
        ("image_ids", texts),
        ("image_predicted", texts),
        ("failed_ids", texts),
    ]
    return pa.schema(fields, metadata={ABOUT: json.dumps(about, sort_keys=True).encode()})
