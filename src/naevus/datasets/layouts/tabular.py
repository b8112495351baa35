"""Rows from tables that name images: shared by the readers of most layouts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from naevus.datasets.dataset import DERMOSCOPIC, Problem
from naevus.datasets.layouts.images import Images, is_mask_folder, split_of, stem_of
from naevus.datasets.layouts.labels import (
    code_of,
    known,
    to_codes,
    to_confirmations,
)
from naevus.datasets.layouts.parsing import (
    ParsedLayout,
    fill,
    masks_in,
    once,
    subfolders,
)
from naevus.datasets.listing import ids_of, mask_owner
from naevus.errors import DataError
from naevus.io.files import sha256_of
from naevus.io.formats import key_of, known_columns, read_table
from naevus.taxonomy import BINARY, Taxonomy
from naevus.types import METADATA, Patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

KEY = "image_id"
_SEXES = {
    "m": "male", "mann": "male", "mannlich": "male", "maennlich": "male", "masculine": "male",
    "f": "female", "w": "female", "frau": "female", "weiblich": "female", "woman": "female",
    "man": "male",
}  # fmt: skip
_MALIGNANT = {"1": "MALIGNANT", "true": "MALIGNANT", "yes": "MALIGNANT", "ja": "MALIGNANT",
              "0": "BENIGN", "false": "BENIGN", "no": "BENIGN", "nein": "BENIGN"}  # fmt: skip
_IMAGE_TYPES = {
    "tile": ("tile", "tbp"),
    "clinical": ("clinic", "macro", "overview"),
    DERMOSCOPIC: ("derm",),
}
"""Words for types of images, in order of precedence."""

_SKIN_TYPES = ("I", "II", "III", "IV", "V", "VI")
"""Fitzpatrick's skin types, from the lightest."""

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
        rows[KEY] = table[columns[KEY]].map(stem_of, na_action="ignore")
    for column, read in _READ.items():
        if column in columns:
            rows[column] = read(table[columns[column]])
    codes, found = diagnoses_of(table, columns, source, problems, taxonomy)
    if codes is not None:
        rows["diagnosis"] = codes
    return rows, found


def _sexes(texts: pd.Series[str]) -> pd.Series[str]:
    spelled = known(texts)
    return spelled.map(lambda text: _SEXES.get(key_of(text), text), na_action="ignore")


def _splits(texts: pd.Series[str]) -> pd.Series[str]:
    return texts.map(lambda text: split_of(text) or "train", na_action="ignore")


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
        malignancy = texts.map(_MALIGNANT).fillna(table[binary])
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


def to_image_types(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ``dermoscopic``, ``clinical`` or ``tile`` for the image types in tables."""

    def one(text: str) -> str:
        key = key_of(text)
        for kind, words in _IMAGE_TYPES.items():
            if any(word in key for word in words):
                return kind
        return key

    return texts.map(one, na_action="ignore").astype("string")


def to_skin_types(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ``I`` to ``VI`` for how tables name Fitzpatrick's skin types.

    Examples:
        >>> to_skin_types(pd.Series(["iii", "3.0", "FST IV", "dark"], dtype="string")).tolist()
        ['III', 'III', 'IV', 'dark']
    """

    def one(text: str) -> str:
        last = re.sub(r"\.0+$", "", text.strip()).upper().split(" ")[-1]
        if last in _SKIN_TYPES:
            return last
        return _SKIN_TYPES[int(last) - 1] if last in set("123456") else text

    return texts.map(one, na_action="ignore").astype("string")


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
    """Add the images that are in no table."""
    rest = images.rest()
    ids = ids_of([PurePosixPath(name) for name in rest])
    known_ids = set(parsed.frame[KEY])
    alone = [(each, place) for each, place in zip(ids, rest, strict=True) if each not in known_ids]
    twice = [(each, place) for each, place in zip(ids, rest, strict=True) if each in known_ids]
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
    found = names.map(masks).astype("string")
    frame["mask_path"] = frame["mask_path"].fillna(found) if "mask_path" in frame.columns else found
    unused = sorted(masks.keys() - set(names.dropna()))
    parsed.problems.extend(Problem("mask without image", each, masks[each]) for each in unused)
    there = frame["path"].notna() if "path" in frame.columns else frame["place"].notna()
    without = frame.loc[there & frame["mask_path"].isna(), KEY]
    parsed.problems.extend(
        Problem("image without mask", str(each), "no mask of that name") for each in without
    )


_READ: dict[str, Callable[[pd.Series[str]], pd.Series[str]]] = {
    **dict.fromkeys(("lesion_id", "group_id", "patient_id", "part"), lambda texts: texts),
    "age": lambda texts: texts.str.replace(",", "."),
    "sex": _sexes,
    "site": known,
    "confirmation": lambda texts: to_confirmations(known(texts)),
    "image_type": to_image_types,
    "fitzpatrick_skin_type": lambda texts: to_skin_types(known(texts)),
    "dermoscopic_type": known,
    "anatom_site": known,
    "split": _splits,
    "mask_path": lambda texts: texts,
}
"""How to read the columns other than diagnoses and images."""


def _numbers(column: pd.Series[str]) -> pd.Series[float]:
    texts = column.astype("string").str.replace(",", ".")
    return pd.to_numeric(texts, errors="coerce").astype("Float64")


# Metadata of images that are predicted.

OLDEST = 120
"""No age above it is believed, in years."""


@dataclass(frozen=True)
class PatientTable:
    """Metadata of images, by id.

    Attributes:
        columns: The columns of `METADATA` that there are.
        rows: The values of each image, in the order of the columns; None: not known.
        aliases: Names of images with their suffix, and the key of each in ``rows``.
        everyone: The values of every image, if all are of one patient.
        ignored: Columns that are not used.
        lesions: The lesion of each image, as far as it is known, by the keys of ``rows``.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)
    everyone: tuple[Any, ...] | None = None
    ignored: tuple[str, ...] = ()
    lesions: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a CSV file or a workbook, whose columns are called as in a data set's table.

        Raises:
            DataError: It cannot be read, no column names the images, it has no age, sex or site,
                an age is impossible, or two rows of one image have different values or lesions.
        """
        return cls.of(read_table(path), str(path))

    @classmethod
    def of(cls, table: pd.DataFrame, source: str = "metadata") -> Self:
        """Return the metadata in a table with a row an image (see `read`).

        Args:
            table: With a column that names the images.
            source: Where it is from, for messages.

        Raises:
            DataError: As `read`.
        """
        table = table.astype("string")
        columns = known_columns(table)
        name = columns.get(KEY) or columns.get("path")
        if name is None:
            raise DataError(
                f"{source}: no column names the images (it has {', '.join(table.columns)})",
                "call it image_id",
            )
        used = {each: columns[each] for each in METADATA if each in columns}
        if not set(used) & set(Patient._fields):
            raise DataError(
                f"{source}: has no age, sex or site (it has {', '.join(table.columns)})",
                f"give it one of the columns {', '.join(Patient._fields)}",
            )
        table = table[table[name].notna()]
        rows = pd.DataFrame(
            {each: _READ[each](table[column]).to_numpy(object) for each, column in used.items()},
            dtype=object,
        )
        names = table[name].str.replace("\\", "/").str.rpartition("/")[2]
        aliases = _aliases(names.unique().tolist())
        rows.index = pd.Index([aliases.get(each, each) for each in names], dtype=object)
        rows = rows.where(rows.notna(), None)
        if "age" in used:
            ages = known(rows["age"].astype("string")).astype(object)
            ages = ages.where(ages.notna(), None)
            rows["age"] = pd.Series(
                [checked_age(age, f"{source}: {image}") for image, age in ages.items()],
                index=rows.index,
                dtype=object,
            )
        lesion = columns.get("lesion_id")
        own = {name, lesion, *used.values()}
        return cls(
            tuple(used),
            _one_row_each(rows, source),
            aliases,
            ignored=tuple(each for each in table.columns if each not in own),
            lesions={} if lesion is None else _lesions(rows.index, table[lesion], source),
        )

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Self:
        """Return the metadata of one patient, or of each image by its id.

        Args:
            given: Values by the names in `METADATA`, or such mappings by image id.

        Examples:
            >>> PatientTable.from_mapping({"age": 55, "site": "back"}).patient("lesion")
            Patient(age=55.0, sex=None, site='back')

        Raises:
            DataError: A name is unknown, or a value is impossible.
        """
        several = bool(given) and all(isinstance(one, Mapping) for one in given.values())
        rows = dict(given) if several else {"": given}
        names = {str(name) for row in rows.values() for name in row}
        strange = sorted(names - set(METADATA))
        if strange or not names:
            raise DataError(
                f"metadata: {strange[0]!r} is not known" if strange else "metadata: no values",
                f"use {', '.join(METADATA)}",
            )
        frame = pd.DataFrame.from_dict(rows, orient="index").reset_index(names=KEY)
        if several:
            return cls.of(frame)
        one = cls.of(frame.assign(**{KEY: "patient"}))
        return cls(one.columns, everyone=one.rows["patient"])

    def key_of(self, image_id: str) -> str | None:
        """Return the key of an image's row in ``rows``; None without a row."""
        key = image_id if image_id in self.rows else self.aliases.get(image_id, "")
        return key if key in self.rows else None

    def lesions_of(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the lesions of some images by image id, as far as they are known."""
        keys = {image_id: self.key_of(image_id) or "" for image_id in ids}
        return {each: self.lesions[key] for each, key in keys.items() if key in self.lesions}

    def values(self, image_id: str) -> dict[str, Any]:
        """Return what is known of an image, by column."""
        absent = self.everyone or (None,) * len(self.columns)
        key = self.key_of(image_id)
        return dict(zip(self.columns, absent if key is None else self.rows[key], strict=True))

    def patient(self, image_id: str) -> Patient:
        """Return the values of an image that change the odds."""
        values = self.values(image_id)
        return Patient(*(values.get(name) for name in Patient._fields))

    def sha256(self) -> str:
        """Return a hash of columns, ids and values, whatever the order of the rows."""
        cells = [repr((name, self.rows[name])) for name in sorted(self.rows)]
        return sha256_of(repr(self.columns), repr(self.everyone), *cells)


def _aliases(names: Sequence[str]) -> dict[str, str]:
    """Return the id of each name that has a suffix, unless several differ in their suffix alone."""
    stems = {name: stem_of(name) for name in names}
    several = Counter(stem for name, stem in stems.items() if stem != name)
    return {name: stem for name, stem in stems.items() if stem != name and several[stem] == 1}


def _lesions(images: pd.Index[Any], lesions: pd.Series[str], source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for image_id, lesion in zip(images, lesions, strict=True):
        other = lesion if pd.isna(lesion) else found.setdefault(image_id, lesion)
        if not pd.isna(lesion) and other != lesion:
            raise DataError(
                f"{source}: the image {image_id} is in two lesions, {other} and {lesion}",
                "keep one of the two rows",
            )
    return found


def _one_row_each(rows: pd.DataFrame, source: str) -> dict[str, tuple[Any, ...]]:
    """Return the values of each image; rows that only fill one another's gaps are joined."""
    found: dict[str, tuple[Any, ...]] = {}
    for image, *values in rows.itertuples(name=None):
        before = found.get(image, (None,) * len(values))
        for column, one, other in zip(rows.columns, before, values, strict=True):
            if one is not None and other is not None and one != other:
                raise DataError(
                    f"{source}: {image} stands twice, with the {column} {one} and {other}",
                    "keep one row an image, named by its id in predictions.parquet",
                )
        found[image] = tuple(
            other if one is None else one for one, other in zip(before, values, strict=True)
        )
    return found


def checked_age(text: str | None, where: str) -> float | None:
    """Return an age in years, or None if it is missing.

    Args:
        text: The age.
        where: The file and the image, for messages.

    Raises:
        DataError: It is not a number from 0 to 120.
    """
    if text is None:
        return None
    try:
        age = float(text)
    except ValueError:
        raise DataError(
            f"{where}: the age {text!r} is not a number", "give years, or leave it empty"
        ) from None
    if not 0 <= age <= OLDEST:
        raise DataError(
            f"{where}: the age {text} is not between 0 and {OLDEST} years",
            "correct it, or leave it empty",
        )
    return age
