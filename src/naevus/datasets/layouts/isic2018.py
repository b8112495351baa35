"""The ISIC 2018 challenge, Tasks 1 to 3, as unpacked; any of its files may be absent.

Tasks 1 and 2 share their images: they are one part, ``task1``, and a row may have the lesion mask,
the attribute masks, or both.

https://challenge.isic-archive.com/data/#2018
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.dataset import ATTRIBUTE_COLUMNS, Problem
from naevus.datasets.layouts import ham10000
from naevus.datasets.layouts.labels import to_confirmations
from naevus.datasets.layouts.parsing import (
    ParsedLayout,
    attribute_masks_in,
    fill,
    images_in,
    masks_in,
    once,
    unnested,
)
from naevus.datasets.layouts.tabular import from_classes
from naevus.io.formats import read_table
from naevus.io.words import counted
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.taxonomy import Taxonomy

NAME = "isic2018"
DESCRIPTION = "folders ISIC2018_Task1-2_Training_Input, ISIC2018_Task3_Training_Input and so on"

_SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
_INPUTS = {"task1": "ISIC2018_Task1-2_{}_Input", "task3": "ISIC2018_Task3_{}_Input"}
_TRUTHS = {"task1": "ISIC2018_Task1_{}_GroundTruth", "task3": "ISIC2018_Task3_{}_GroundTruth"}
_ATTRIBUTES = "ISIC2018_Task2_{}_GroundTruth*"
"""Versions of the training masks, which the challenge corrected; the last version is used."""
_LESIONS = "ISIC2018_Task3_Training_LesionGroupings.csv"


def matches(root: Path) -> bool:
    """Return whether one of the challenge's folders is in ``root``."""
    patterns = (*_INPUTS.values(), *_TRUTHS.values())
    return any(
        (root / pattern.format(split)).is_dir()
        for pattern in patterns
        for split in _SPLITS.values()
    ) or any(_attribute_folders(root, name) for name in _SPLITS.values())


def read(root: Path, _taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the images, lesion and attribute masks, diagnoses and lesions of all tasks."""
    problems: list[Problem] = []
    pieces = []
    for split, name in _SPLITS.items():
        pieces.append(_task1(root, split, name, problems))
        pieces.append(_task3(root, split, name, problems))
    frame = pd.concat([piece for piece in pieces if len(piece)] or pieces[:1], ignore_index=True)
    frame = _without_later_twins(frame, problems)
    parsed = ParsedLayout(frame, ISIC2018, problems)
    _add_lesions(root, parsed)
    _add_ham(root, parsed)
    _note_shared_ids(parsed)
    return parsed


def _task1(root: Path, split: str, name: str, problems: list[Problem]) -> pd.DataFrame:
    images = _inputs(root, "task1", name, problems)
    masks = masks_in(unnested(root / _TRUTHS["task1"].format(name)), problems)
    frame = _rows(images, masks, split, "task1", problems, what="mask without image")
    if masks:
        problems.extend(
            Problem("image without mask", image_id, images[image_id])
            for image_id in sorted(images.keys() - masks.keys())
        )
    frame["mask_path"] = frame["image_id"].map(masks).astype("string")
    for column, found in _attributes(root, images, split, name, problems).items():
        frame[column] = frame["image_id"].map(found).astype("string")
    return frame


def _attributes(
    root: Path, images: dict[str, str], split: str, name: str, problems: list[Problem]
) -> dict[str, dict[str, str]]:
    """Return column → image id → attribute mask, for images that exist."""
    folders = _attribute_folders(root, name)
    if not folders:
        return {}
    problems.extend(
        Problem("older masks", folder.name, f"{folders[-1].name} was taken")
        for folder in folders[:-1]
    )
    masks = attribute_masks_in(unnested(folders[-1]), problems)
    known = {image_id for found in masks.values() for image_id in found}
    problems.extend(
        Problem("mask without image", image_id, f"task2, {split}")
        for image_id in sorted(known - images.keys())
    )
    problems.extend(
        Problem("image without attribute", image_id, ", ".join(absent))
        for image_id in sorted(images)
        if (absent := [attribute for attribute in masks if image_id not in masks[attribute]])
    )
    return {ATTRIBUTE_COLUMNS[attribute]: found for attribute, found in masks.items()}


def _attribute_folders(root: Path, name: str) -> list[Path]:
    """Return the folders of a split's attribute masks, by name."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.glob(_ATTRIBUTES.format(name)) if path.is_dir())


def _task3(root: Path, split: str, name: str, problems: list[Problem]) -> pd.DataFrame:
    images = _inputs(root, "task3", name, problems)
    truth = _truth(root, name, problems)
    frame = _rows(images, truth, split, "task3", problems, what="row without image")
    if truth:
        problems.extend(
            Problem("image without row", image_id, images[image_id])
            for image_id in sorted(images.keys() - truth.keys())
        )
    diagnosis = frame["image_id"].map(truth).astype("string")
    return frame.assign(diagnosis=diagnosis.mask(diagnosis == ""))


def _inputs(root: Path, part: str, name: str, problems: list[Problem]) -> dict[str, str]:
    return images_in(unnested(root / _INPUTS[part].format(name)), problems)


def _rows(
    images: dict[str, str],
    others: dict[str, str],
    split: str,
    part: str,
    problems: list[Problem],
    *,
    what: str,
) -> pd.DataFrame:
    alone = sorted(others.keys() - images.keys())
    if images:
        problems.extend(Problem(what, image_id, f"{part}, {split}") for image_id in alone)
    elif alone:
        problems.append(
            Problem(
                "folder without images", f"{part} {split}", f"{counted(len(alone), 'image')} absent"
            )
        )
    ids = pd.Series([*images, *alone], dtype="string")
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": ids.map(images).astype("string"),
            "split": split,
            "part": part,
        }
    )


def _truth(root: Path, name: str, problems: list[Problem]) -> dict[str, str]:
    """Return image id → code ("" if the row has none) from the one-hot table."""
    folder = _TRUTHS["task3"].format(name)
    path = _first(root / folder / f"{folder}.csv", root / f"{folder}.csv")
    if path is None:
        return {}
    table = read_table(path, required=("image", *ISIC2018.codes))
    table = once(table, "image", path, problems)
    codes = from_classes(table, ISIC2018.codes, path, problems).fillna("")
    return dict(zip(codes.index, codes, strict=True))


def _without_later_twins(frame: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Keep one row of an id that occurs in two splits of a part: that of the first split."""
    again = frame.duplicated(["part", "image_id"])
    problems.extend(
        Problem("image in two splits", image_id, f"left out of {part}, {split}")
        for image_id, part, split in frame.loc[again, ["image_id", "part", "split"]].to_numpy()
    )
    return frame[~again].reset_index(drop=True)


def _add_lesions(root: Path, parsed: ParsedLayout) -> None:
    folder = _TRUTHS["task3"].format("Training")
    path = _first(root / folder / _LESIONS, root / _LESIONS)
    if path is None:
        return
    table = read_table(path, required=("image", "lesion_id"))
    table = once(table, "image", path, parsed.problems)
    fill(parsed.frame, "lesion_id", table["lesion_id"])
    if "diagnosis_confirm_type" in table.columns:
        fill(parsed.frame, "confirmation", to_confirmations(table["diagnosis_confirm_type"]))


def _add_ham(root: Path, parsed: ParsedLayout) -> None:
    task3 = parsed.frame["part"] == "task3"
    metadata = ham10000.find_metadata(root)
    if metadata is not None:
        ham10000.join_metadata(
            parsed, ham10000.read_metadata(metadata, parsed.problems), only=task3
        )
    masks = masks_in(unnested(root / ham10000.MASKS), parsed.problems)
    if masks:
        rows = parsed.frame.loc[task3, "image_id"]
        if "mask_path" not in parsed.frame.columns:
            parsed.frame["mask_path"] = pd.Series(pd.NA, index=parsed.frame.index, dtype="string")
        parsed.frame.loc[task3, "mask_path"] = rows.map(masks).astype("string")
        ham10000.note_masks(masks, set(rows), parsed.problems)


def _note_shared_ids(parsed: ParsedLayout) -> None:
    shared = parsed.frame.loc[parsed.frame.duplicated("image_id"), "image_id"]
    parsed.problems.extend(
        Problem("id in both tasks", image_id, "choose one part before working by id")
        for image_id in shared
    )


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
