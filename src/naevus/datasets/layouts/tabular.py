"""Rows from tables that name images: shared by the readers of most layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.dataset import Problem
from naevus.datasets.layouts.images import Images, is_mask_folder, split_of, stem_of
from naevus.datasets.layouts.labels import code_of, to_codes
from naevus.datasets.layouts.parsing import (
    ParsedLayout,
    fill,
    masks_in,
    once,
    subfolders,
)
from naevus.datasets.layouts.values import MALIGNANCY, READERS, refuse_unknown_splits
from naevus.datasets.listing import mask_owner
from naevus.errors import DataError
from naevus.io.formats import key_of, known_columns
from naevus.taxonomy import BINARY, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

KEY = "image_id"

IGNORED = "ignored columns"
"""The problem that names the columns of a user's table that are not used."""

_DIAGNOSES = ("diagnosis", "benign_malignant")
"""The columns that are not read where there is one column per class."""

_CHALLENGE_2017 = {"melanoma", "seborrheic_keratosis"}
"""The two columns of Part 3 of ISIC 2017; an image with neither is a nevus."""


def rows_of(
    table: pd.DataFrame,
    source: Path,
    problems: list[Problem],
    taxonomy: Taxonomy | None = None,
) -> tuple[pd.DataFrame, Taxonomy | None]:
    """Return the rows of a table, indexed by its names of the images.

    Args:
        table: From `tables.read_table`, with a column of ids or paths.
        source: The file, for messages.
        problems: The list to which values that are not understood are added.
        taxonomy: The taxonomy of the diagnoses; by default the best match.

    Returns:
        The rows, with columns of `Record` (``diagnosis`` as codes), and the taxonomy of the
        diagnoses, if there are any.

    Raises:
        DataError: No column names the images, or most diagnoses are not understood.
    """
    columns = known_columns(table)
    name = columns.get("path") or columns.get(KEY)
    if name is None:
        raise DataError(
            f"{source}: no column names the images (it has {', '.join(table.columns)})",
            "call it image_id or path",
        )
    table = once(table, name, source, problems)
    rows = pd.DataFrame(index=table.index)
    if "path" in columns and KEY in columns and columns[KEY] in table.columns:
        rows[KEY] = table[columns[KEY]].map(stem_of, na_action="ignore").astype("string")
    for column, read in READERS.items():
        if column in columns:
            # Without a known value, pandas gives a column of no type, which takes no text later.
            rows[column] = read(table[columns[column]]).astype("string")
    if "split" in rows.columns:
        refuse_unknown_splits(rows["split"], source)
    codes, found = diagnoses_of(table, columns, source, problems, taxonomy)
    if codes is not None:
        rows["diagnosis"] = codes
    return rows, found


def ignored_columns(table: pd.DataFrame, source: Path) -> list[Problem]:
    """Return a problem that names the columns of a table that nothing reads, if there are any."""
    used = known_columns(table)
    classes = class_columns(table)
    if len(classes) > 1:
        used = {name: own for name, own in used.items() if name not in _DIAGNOSES}
    else:
        classes = []
    unused = [name for name in table.columns if name not in {*used.values(), *classes}]
    return [Problem(IGNORED, source.name, ", ".join(unused))] if unused else []


def diagnoses_of(
    table: pd.DataFrame,
    columns: dict[str, str],
    source: Path,
    problems: list[Problem],
    taxonomy: Taxonomy | None,
) -> tuple[pd.Series[str] | None, Taxonomy | None]:
    """Return codes from class columns, the label column, or benign and malignant.

    Benign and malignant are used if they label more than twice as many images as the diagnoses
    do, as in ISIC 2020.
    """
    onehot = class_columns(table)
    if len(onehot) > 1:
        labels = from_classes(table, onehot, source, problems)
        return to_codes(labels, problems, taxonomy, source=source)
    binary = columns.get("benign_malignant")
    malignancy = None
    if binary is not None and taxonomy in {None, BINARY}:
        texts = table[binary].str.lower().str.replace(r"\.0+$", "", regex=True)
        malignancy = texts.map(MALIGNANCY).astype("string").fillna(table[binary])
    if "diagnosis" not in columns:
        if malignancy is None:
            return None, None
        return to_codes(malignancy, problems, taxonomy, source=source)
    labels = table[columns["diagnosis"]]
    if malignancy is not None:
        fine = labels.dropna().map(code_of)
        understood = int(fine.fillna("").ne("").sum())
        if 2 * understood < int(to_codes(malignancy, [], BINARY)[0].notna().sum()):
            return to_codes(malignancy, problems, BINARY, source=source)
    return to_codes(labels, problems, taxonomy, source=source)


def class_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns named like diagnoses with numbers from 0 to 1."""
    found = []
    for name in table.columns:
        if not code_of(name):
            continue
        numbers = _numbers(table[name])
        if numbers.notna().sum() == table[name].notna().sum() and numbers.between(0, 1).all():
            found.append(name)
    return found


def from_classes(
    table: pd.DataFrame, onehot: Sequence[str], source: Path, problems: list[Problem]
) -> pd.Series[str]:
    """Return the name of each row's one class; rows with none or several are problems."""
    marks = table[list(onehot)].apply(_numbers).fillna(0.0) > 0.5
    labels = marks.idxmax(axis="columns").astype("string")
    times = marks.sum(axis="columns")
    labels = labels.where(times == 1)
    if {key_of(name) for name in onehot} == _CHALLENGE_2017:
        labels = labels.mask(times == 0, "nevus")
    problems.extend(
        Problem("row without one diagnosis", str(name), str(source))
        for name in labels.index[labels.isna()]
    )
    return labels


def parsed_layout_of(
    tables: Iterable[tuple[pd.DataFrame, Path]],
    images: Images,
    *,
    masks: dict[str, str] | None = None,
    taxonomy: Taxonomy | None = None,
    split: str | None = None,
) -> ParsedLayout:
    """Return the rows of all images that are named in tables or found below a folder.

    Args:
        tables: Tables with their files; the first known value of an image counts. Lesions,
            patients and groups are joined over all tables.
        images: The images.
        masks: Image id → mask.
        taxonomy: The taxonomy of the diagnoses.
        split: Split of images for which neither tables nor names of files or folders give one.
    """
    problems: list[Problem] = []
    frame = pd.DataFrame({KEY: pd.Series(dtype="string")})
    parsed = ParsedLayout(frame, problems=problems)
    chosen = taxonomy
    for table, source in tables:
        rows, found = rows_of(table, source, problems, chosen)
        named = split_of(source.stem)
        if named is not None:
            own = rows["split"] if "split" in rows.columns else pd.Series(pd.NA, rows.index)
            rows["split"] = own.astype("string").fillna(named)
        chosen = chosen or found
        _add(parsed, rows, images, source)
    _add_rest(parsed, images)
    frame = parsed.frame
    if "mask_path" in frame.columns:
        frame["mask_path"] = _named_masks(parsed, images.root, masks or {})
    frame["path"] = frame["place"].map(images.paths).astype("string")
    places = frame["place"].map(lambda text: split_of(*text.split("/")[:-1]), na_action="ignore")
    for fallback in (places.astype("string"), pd.Series(split, index=frame.index, dtype="string")):
        frame["split"] = frame["split"].fillna(fallback) if "split" in frame.columns else fallback
    if masks:
        _add_masks(parsed, masks)
    parsed.frame = frame.drop(columns="place")
    parsed.taxonomy = chosen or parsed.taxonomy
    return parsed


def _named_masks(parsed: ParsedLayout, root: Path, masks: dict[str, str]) -> pd.Series[str]:
    """Return the mask files that a table gives by path below ``root`` or by file name."""

    def found(name: str) -> str | None:
        path = root / name.replace("\\", "/")
        if path.is_file():
            return str(path.absolute())
        return masks.get(mask_owner(stem_of(name)))

    named = parsed.frame["mask_path"]
    paths = named.map(found, na_action="ignore").astype("string")
    parsed.problems.extend(
        Problem("row without mask", str(each), str(name))
        for each, name in zip(
            parsed.frame.loc[named.notna() & paths.isna(), KEY],
            named[paths.isna()].dropna(),
            strict=True,
        )
    )
    return paths


def masks_below(root: Path, problems: list[Problem], deep: int = 3) -> dict[str, str]:
    """Return image id → mask from the mask folders below ``root``."""
    found: dict[str, str] = {}
    if not root.is_dir():
        return found
    for folder in subfolders(root):
        if is_mask_folder(folder.name):
            for inside in (folder, *subfolders(folder)):
                found = masks_in(inside, problems) | found
        elif deep > 1:
            found = masks_below(folder, problems, deep - 1) | found
    return found


def _add(parsed: ParsedLayout, rows: pd.DataFrame, images: Images, source: Path) -> None:
    """Add a table's rows to the existing ones, by image id."""
    problems = parsed.problems
    places = [images.find(str(name), problems) for name in rows.index]
    ids = [
        stem_of(str(name)) if place is None else images.id_of(place, str(name))
        for name, place in zip(rows.index, places, strict=True)
    ]
    mine = rows.reset_index(drop=True)
    if KEY in mine.columns:
        ids = [
            own if pd.isna(given) else str(given)
            for own, given in zip(ids, mine.pop(KEY), strict=True)
        ]
    mine.insert(0, KEY, pd.Series(ids, dtype="string"))
    mine["place"] = pd.Series(places, dtype="string")
    again = mine.duplicated(KEY)
    problems.extend(
        Problem("two rows of one id", str(each), f"the later one in {source} was left out")
        for each in mine.loc[again, KEY]
    )
    mine = mine[~again].reset_index(drop=True)
    if parsed.frame.empty:
        parsed.frame = mine
    else:
        fresh = mine[~mine[KEY].isin(parsed.frame[KEY])]
        for column in ("lesion_id", "group_id", "patient_id"):
            if column in mine.columns and column in parsed.frame.columns:
                parsed.ties.append(pd.concat([parsed.frame, mine]).pipe(_by_id, column))
        by_id = mine.set_index(KEY)
        for column in by_id.columns:
            fill(parsed.frame, column, by_id[column])
        if len(fresh):
            parsed.frame = pd.concat([parsed.frame, fresh], ignore_index=True)
    absent = mine.loc[mine["place"].isna(), KEY]
    problems.extend(Problem("row without image", str(each), str(source)) for each in absent)


def _by_id(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return the last known value of each id, from the last table."""
    values: pd.Series[str] = frame.dropna(subset=[column]).groupby(KEY)[column].last()
    return values


def _add_rest(parsed: ParsedLayout, images: Images) -> None:
    """Add the images that are in no table, unless a table has others by their names alone."""
    known_ids = set(parsed.frame[KEY])
    named = [(stem_of(place), images.job_ids[place], place) for place in images.rest()]
    twice = [
        (stem if stem in known_ids else each, place)
        for stem, each, place in named
        if known_ids & {stem, each}
    ]
    alone = [(each, place) for stem, each, place in named if not known_ids & {stem, each}]
    parsed.problems.extend(
        Problem("two files of one id", each, f"{place} was left out") for each, place in twice
    )
    if len(parsed.frame):
        parsed.problems.extend(
            Problem("image without row", each, images.paths[place]) for each, place in alone
        )
    more = pd.DataFrame(
        {
            KEY: pd.Series([each for each, _ in alone], dtype="string"),
            "place": pd.Series([place for _, place in alone], dtype="string"),
        }
    )
    parsed.frame = pd.concat([parsed.frame, more], ignore_index=True) if len(parsed.frame) else more


def _add_masks(parsed: ParsedLayout, masks: dict[str, str]) -> None:
    frame = parsed.frame
    folded = {name.casefold(): name for name in masks}
    names = frame[KEY].map(
        lambda each: each if each in masks else folded.get(each.casefold()), na_action="ignore"
    )
    # Files that differ in case alone have other ids than names, and so may a table's images.
    stems = frame["place"].map(stem_of, na_action="ignore").astype("string")
    alone = ~stems.duplicated(keep=False) & ~stems.isin(frame[KEY]) & stems.isin(masks.keys())
    names = names.astype("string").fillna(stems.where(alone))
    found = names.map(masks).astype("string")
    frame["mask_path"] = frame["mask_path"].fillna(found) if "mask_path" in frame.columns else found
    unused = sorted(masks.keys() - set(names.dropna()))
    parsed.problems.extend(Problem("mask without image", each, masks[each]) for each in unused)
    there = frame["path"].notna() if "path" in frame.columns else frame["place"].notna()
    without = frame.loc[there & frame["mask_path"].isna(), KEY]
    parsed.problems.extend(
        Problem("image without mask", str(each), "no mask of that name") for each in without
    )


def _numbers(column: pd.Series[str]) -> pd.Series[float]:
    texts = column.astype("string").str.replace(",", ".")
    return pd.to_numeric(texts, errors="coerce").astype("Float64")
