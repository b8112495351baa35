"""A synthetic data set on disk, in the layout of the ISIC 2018 challenge.

https://challenge.isic-archive.com/data/#2018
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

import naevus
from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.errors import ConfigError, DataError
from naevus.images.read import write_png
from naevus.io.files import write_bytes, write_csv, write_json
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any


# Plan of a synthetic data set: ids, diagnoses, lesions and their patients.

SPLITS = ("train", "validation", "test")
_TASKS = ("task1", "task3")
_TASK1_FRACTION = 0.4
# Naevi are the most frequent, as in practice, but small sets still contain every class.
_CLASS_FRACTIONS = dict(
    zip(ISIC2018.codes, (0.16, 0.26, 0.12, 0.11, 0.16, 0.09, 0.10), strict=True)
)
_LESIONS_A_IMAGE = 0.65
_FEWEST_LESIONS = 8
_MOST_PHOTOGRAPHS = 3
_FEWEST_IMAGES = 40
_HELD_OUT_FRACTION, _FEWEST_HELD_OUT = 0.2, 20
# Ids far from those of real images in the ISIC Archive.
_FIRST_ID = 9_000_000
_IDS_A_PART = 100_000
_LESIONS_A_SEED = 1_000_000
_CONFIRMATIONS = ("histo", "consensus", "confocal", "follow_up")
_SITES = ("back", "trunk", "abdomen", "lower extremity", "upper extremity", "face", "chest", "neck")


class Lesion(NamedTuple):
    """A lesion and its patient; ``seed`` determines the drawing of :func:`draw_lesion`."""

    lesion_id: str
    diagnosis: str
    seed: int
    age: int
    sex: str
    site: str
    confirmation: str


class SyntheticImage(NamedTuple):
    """One photograph of a lesion."""

    image_id: str
    split: str
    task: str
    lesion: Lesion
    photograph: int


def plan(images: int, seed: int, splits: Sequence[str]) -> list[SyntheticImage]:
    """Return every image of the data set, sorted by id.

    Two fifths of a split belong to Task 1, the others to Task 3. In the training part of Task 3
    every class has at least eight lesions if the number of images allows it.

    Args:
        images: Size of the training split, at least 40; each other split has a fifth of it, at
            least 20.
        seed: Seed of the random numbers.
        splits: Some of ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: Too few images, a negative seed, or an unknown split.
    """
    unknown = set(splits) - set(SPLITS)
    if images < _FEWEST_IMAGES or seed < 0 or unknown or not splits:
        raise ConfigError(
            f"cannot draw {images} images from seed {seed} for splits {', '.join(splits)}",
            f"use at least {_FEWEST_IMAGES} images, a seed from 0, and splits of "
            f"{', '.join(SPLITS)}",
        )
    planned: list[SyntheticImage] = []
    for split in (name for name in SPLITS if name in splits):
        held_out = max(_FEWEST_HELD_OUT, round(_HELD_OUT_FRACTION * images))
        count = images if split == "train" else held_out
        first = round(_TASK1_FRACTION * count)
        for task, fraction in zip(_TASKS, (first, count - first), strict=True):
            planned += _part(split, task, fraction, seed)
    return planned


def _part(split: str, task: str, count: int, seed: int) -> list[SyntheticImage]:
    """Return the images of one split of one task, with shuffled classes."""
    number = SPLITS.index(split) * len(_TASKS) + _TASKS.index(task)
    rng = np.random.default_rng([seed, number])
    taken: list[tuple[Lesion, int]] = []
    next_lesion = number * _IDS_A_PART
    for diagnosis, wanted in _counts(count).items():
        for photographs in _photographs(rng, wanted):
            lesion = _lesion(rng, diagnosis, next_lesion, seed)
            taken += [(lesion, photograph) for photograph in range(photographs)]
            next_lesion += 1
    first = _FIRST_ID + number * _IDS_A_PART
    return [
        SyntheticImage(f"ISIC_{first + place}", split, task, *taken[index])
        for place, index in enumerate(rng.permutation(len(taken)))
    ]


def _counts(count: int) -> dict[str, int]:
    """Return the number of images of each class: in proportion, none empty if possible."""
    exact = {code: count * fraction for code, fraction in _CLASS_FRACTIONS.items()}
    counts = {code: int(value) for code, value in exact.items()}
    by_remainder = sorted(exact, key=lambda code: counts[code] - exact[code])
    for code in by_remainder[: count - sum(counts.values())]:
        counts[code] += 1
    empty = [code for code, number in counts.items() if number == 0]
    for code in empty if count >= len(counts) else ():
        counts[max(counts, key=lambda other: counts[other])] -= 1
        counts[code] = 1
    return counts


def _photographs(rng: np.random.Generator, images: int) -> list[int]:
    """Return the number of photographs of each lesion of a class."""
    lesions = min(images, max(_FEWEST_LESIONS, round(_LESIONS_A_IMAGE * images)))
    photographs = [1] * lesions
    for _ in range(images - lesions):
        open_ones = [k for k, number in enumerate(photographs) if number < _MOST_PHOTOGRAPHS]
        photographs[int(rng.choice(open_ones))] += 1
    return photographs


def _lesion(rng: np.random.Generator, diagnosis: str, number: int, seed: int) -> Lesion:
    return Lesion(
        lesion_id=f"SYN_{number:07d}",
        diagnosis=diagnosis,
        seed=seed * _LESIONS_A_SEED + number,
        age=5 * int(rng.integers(4, 17)),
        sex=str(rng.choice(("female", "male"))),
        site=str(rng.choice(_SITES)),
        confirmation=str(rng.choice(_CONFIRMATIONS, p=(0.55, 0.2, 0.05, 0.2))),
    )


_MARKER = "synthetic.json"
_QUALITY = 92
_OFFICIAL = {"train": "Training", "validation": "Validation", "test": "Test"}
_INPUTS = {"task1": "ISIC2018_Task1-2_{}_Input", "task3": "ISIC2018_Task3_{}_Input"}
_TASK1_TRUTH = "ISIC2018_Task1_{}_GroundTruth"
_TASK3_TRUTH = "ISIC2018_Task3_{}_GroundTruth"
_HAM_MASKS = "HAM10000_segmentations_lesion_tschandl"
_LONG_CONFIRMATIONS = {
    "histo": "histopathology",
    "consensus": "single image expert consensus",
    "confocal": "confocal microscopy with consensus dermoscopy",
    "follow_up": "serial imaging showing no change",
}


def write_isic2018(
    root: Path,
    *,
    images: int = 160,
    seed: int = 2018,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    splits: Sequence[str] = ("train",),
) -> None:
    """Draw a data set into ``root`` in the official ISIC 2018 layout, Tasks 1 and 3.

    Images are JPEG, masks PNG of 0 and 255. The training part has masks of both tasks,
    one-hot diagnoses, lesion groupings, HAM10000's metadata and the groups of Task 1; validation
    and test parts have the images, Task 1's masks and Task 3's diagnoses. An interrupted call
    continues where it stopped when it is repeated.

    Args:
        root: The folder, empty or absent, or begun by a call with the same settings.
        images: Size of the training split; each other split has a fifth of it,
            at least 20.
        seed: Seed of the random numbers; the same seed gives the same bytes.
        size: Height and width of the images, in pixels.
        progress: Called with the numbers of drawn and of all images.
        splits: Some of ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: Too few images or another setting out of range.
        DataError: The folder contains other files.
    """
    planned = plan(images, seed, splits)
    _claim(
        root,
        {
            "drawn_by": f"naevus {naevus.__version__}",
            "images": images,
            "seed": seed,
            "size": size,
            "splits": list(splits),
        },
    )
    with _one_thread():
        for done, image in enumerate(planned, start=1):
            _write_image(root, image, size)
            if progress is not None:
                progress(done, len(planned))
    _write_tables(root, planned)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit OpenCV to one thread, which is faster for small images."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Mark the folder as this data set's; refuse one with other content."""
    marker = root / _MARKER
    if marker.is_file():
        try:
            same = json.loads(marker.read_text(encoding="utf-8")) == settings
        except ValueError:
            same = False
        if same:
            return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(
            f"{root} contains something other than this synthetic data set",
            "choose an empty folder, or remove that one",
        )
    write_json(marker, settings)


def _write_image(root: Path, image: SyntheticImage, size: int) -> None:
    """Draw and write one image and its mask, the image last; existing images stay."""
    official = _OFFICIAL[image.split]
    path = root / _INPUTS[image.task].format(official) / f"{image.image_id}.jpg"
    if path.is_file():
        return
    lesion = image.lesion
    pixels, mask = draw_lesion(lesion.diagnosis, lesion.seed, size, image.photograph)
    masks = _TASK1_TRUTH.format(official) if image.task == "task1" else _HAM_MASKS
    if image.task == "task1" or image.split == "train":
        write_png(root / masks / f"{image.image_id}_segmentation.png", mask)
    # OpenCV's encoder expects BGR.
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    write_bytes(path, encoded.tobytes())


def _write_tables(root: Path, planned: Sequence[SyntheticImage]) -> None:
    for split, official in _OFFICIAL.items():
        task3 = [p for p in planned if p.split == split and p.task == "task3"]
        if task3:
            folder = _TASK3_TRUTH.format(official)
            write_csv(
                root / folder / f"{folder}.csv",
                ("image", *ISIC2018.codes),
                ((p.image_id, *_one_hot(p.lesion.diagnosis)) for p in task3),
            )
        if task3 and split == "train":
            _write_lesions(root, task3)
    task1 = [p for p in planned if p.split == "train" and p.task == "task1"]
    if task1:
        write_csv(
            root / "ISIC2018_Task1_Training_Groups.csv",
            ("image", "group_id", "diagnosis"),
            ((p.image_id, p.lesion.lesion_id, p.lesion.diagnosis) for p in task1),
        )


def _write_lesions(root: Path, task3: Sequence[SyntheticImage]) -> None:
    """Write the lesion of each image, and HAM10000's table of patients."""
    write_csv(
        root / _TASK3_TRUTH.format("Training") / "ISIC2018_Task3_Training_LesionGroupings.csv",
        ("image", "lesion_id", "diagnosis_confirm_type"),
        (
            (p.image_id, p.lesion.lesion_id, _LONG_CONFIRMATIONS[p.lesion.confirmation])
            for p in task3
        ),
    )
    write_csv(
        root / "HAM10000_metadata.csv",
        ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"),
        (
            (
                p.lesion.lesion_id,
                p.image_id,
                p.lesion.diagnosis.lower(),
                p.lesion.confirmation,
                float(p.lesion.age),
                p.lesion.sex,
                p.lesion.site,
            )
            for p in task3
        ),
    )


def _one_hot(diagnosis: str) -> list[float]:
    return [float(code == diagnosis) for code in ISIC2018.codes]
