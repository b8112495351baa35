"""A drawn data set on disk, in the layout of the ISIC 2018 challenge.

https://challenge.isic-archive.com/data/#2018
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2

import naevus
from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.datasets.synthetic.plan import plan
from naevus.errors import DataError
from naevus.images.read import write_png
from naevus.io.files import write_bytes, write_csv, write_json
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from naevus.datasets.synthetic.plan import Picture

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
    pictures: int = 160,
    seed: int = 2018,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    splits: Sequence[str] = ("train",),
) -> None:
    """Draw a data set into ``root`` in the official ISIC 2018 layout, Tasks 1 and 3.

    Pictures are JPEG, masks PNG of 0 and 255. The training part has masks of both tasks,
    one-hot diagnoses, lesion groupings, HAM10000's metadata and the groups of Task 1; validation
    and test parts have the pictures, Task 1's masks and Task 3's diagnoses. An interrupted call
    goes on where it stopped when it is made again.

    Args:
        root: The folder, empty or absent, or begun by a call with the same settings.
        pictures: How many the training split has; the others have a fifth of it each,
            at least 20.
        seed: Where the randomness comes from; the same seed gives the same bytes.
        size: Height and width of the pictures, in pixels.
        progress: Called with the pictures drawn so far and all pictures.
        splits: Some of ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: Too few pictures or another setting out of range.
        DataError: The folder holds something else.
    """
    planned = plan(pictures, seed, splits)
    _claim(
        root,
        {
            "drawn_by": f"naevus {naevus.__version__}",
            "pictures": pictures,
            "seed": seed,
            "size": size,
            "splits": list(splits),
        },
    )
    with _one_thread():
        for done, picture in enumerate(planned, start=1):
            _write_picture(root, picture, size)
            if progress is not None:
                progress(done, len(planned))
    _write_tables(root, planned)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV to one thread: pictures this small lose more by waiting than they gain."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Mark the folder as this data set's; refuse one that holds anything else."""
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
            f"{root} holds something other than this drawn data set",
            "choose an empty folder, or remove that one",
        )
    write_json(marker, settings)


def _write_picture(root: Path, picture: Picture, size: int) -> None:
    """Draw and write one picture and its mask, the picture last; leave one that is there."""
    official = _OFFICIAL[picture.split]
    path = root / _INPUTS[picture.task].format(official) / f"{picture.image_id}.jpg"
    if path.is_file():
        return
    lesion = picture.lesion
    pixels, mask = draw_lesion(lesion.diagnosis, lesion.seed, size, picture.photograph)
    masks = _TASK1_TRUTH.format(official) if picture.task == "task1" else _HAM_MASKS
    if picture.task == "task1" or picture.split == "train":
        write_png(root / masks / f"{picture.image_id}_segmentation.png", mask)
    # OpenCV's encoder expects BGR.
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    write_bytes(path, encoded.tobytes())


def _write_tables(root: Path, planned: Sequence[Picture]) -> None:
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


def _write_lesions(root: Path, task3: Sequence[Picture]) -> None:
    """Write which pictures show one lesion, and HAM10000's table of patients."""
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
