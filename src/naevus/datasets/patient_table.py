"""Metadata of images that are predicted, by image id: age, sex, site, lesion and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from naevus.datasets.layouts.labels import known
from naevus.datasets.layouts.values import READERS, not_ages, to_ages
from naevus.datasets.row_names import RowNames
from naevus.errors import ConfigError, DataError
from naevus.io.files import sha256_of
from naevus.io.formats import key_of, known_columns, read_table
from naevus.types import METADATA, Patient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from naevus.images.preprocess import ImageFiles

KEY = "image_id"

SCALE = "mm_per_pixel"
"""The column of the scale: millimetres on the skin that a pixel of the image file covers."""

LARGEST_SCALE = 1.0
"""No scale above it is believed: an image of 100 pixels would show 10 cm of skin."""


@dataclass(frozen=True)
class PatientTable:
    """Metadata of images, by id.

    Attributes:
        columns: The columns of `METADATA` that there are.
        rows: The values of each image, in the order of the columns; None: not known.
        names: What the rows call their images.
        images: The key in ``rows`` of each image of a job, by its id (`for_files`).
        everyone: The values of every image, if all are of one patient.
        ignored: Columns that are not used.
        not_ages: Images, and their entries in the column of ages that are none: they count as
            unknown.
        lesions: The lesion of each image, as far as it is known, by the keys of ``rows``.
        scales: The scale of each image in mm per pixel, as far as it is known, by the same keys.
        scale: The scale of every image, if it is the same.
        counting: Whether age, sex and site change the odds; otherwise they are only kept.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    names: RowNames = field(default_factory=RowNames, repr=False)
    images: Mapping[str, str] = field(default_factory=dict, repr=False)
    everyone: tuple[Any, ...] | None = None
    ignored: tuple[str, ...] = ()
    not_ages: tuple[tuple[str, str], ...] = ()
    lesions: Mapping[str, str] = field(default_factory=dict, repr=False)
    scales: Mapping[str, float] = field(default_factory=dict, repr=False)
    scale: float | None = None
    counting: bool = True

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a CSV file or a workbook, whose columns are called as in a data set's table.

        Raises:
            DataError: It cannot be read, no column names the images, it has no age, sex, site or
                scale, a scale is impossible, or two rows of one image have different values.
        """
        return cls.of(read_table(path), str(path), path.parent)

    @classmethod
    def of(cls, table: pd.DataFrame, source: str = "metadata", folder: Path | None = None) -> Self:
        """Return the metadata in a table with a row an image (see `read`).

        Args:
            table: With a column that names the images.
            source: Where it is from, for messages.
            folder: The folder that paths in the table start from.

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
        scale = next((each for each in table.columns if key_of(each) == key_of(SCALE)), None)
        if not set(used) & set(Patient._fields) and scale is None:
            raise DataError(
                f"{source}: has no age, sex or site, and no scale (it has "
                f"{', '.join(table.columns)})",
                f"give it one of the columns {', '.join((*Patient._fields, SCALE))}",
            )
        table = table[table[name].notna()]
        rows = pd.DataFrame(
            {each: READERS[each](table[column]).to_numpy(object) for each, column in used.items()},
            dtype=object,
            index=range(len(table)),
        )
        names = RowNames.of(table[name], folder)
        rows.index = pd.Index(names.keys, dtype=object)
        rows = rows.where(rows.notna(), None)
        left_out: tuple[tuple[str, str], ...] = ()
        if "age" in used:
            entries = table[used["age"]].set_axis(rows.index)
            left_out = tuple((str(image), age) for image, age in not_ages(entries).items())
            ages = to_ages(table[used["age"]]).astype(object)
            rows["age"] = ages.where(ages.notna(), None).to_numpy(object)
        lesions = _lesions(rows["lesion_id"], source) if "lesion_id" in used else {}
        own = {name, scale, *used.values()}
        return cls(
            tuple(used),
            _one_row_each(rows, source),
            names,
            ignored=tuple(each for each in table.columns if each not in own),
            lesions=lesions,
            scales={} if scale is None else _scales(rows.index, table[scale], source),
            not_ages=left_out,
        )

    @classmethod
    def kept(cls, table: pd.DataFrame) -> Self | None:
        """Return what a data set knows of some of its images, to be kept without any effect.

        Args:
            table: Rows of a data set. Of an image in several parts, each column has its first known
                value.

        Returns:
            None if nothing is known.
        """
        rows = table[[KEY, *METADATA]].groupby(KEY).first().astype(object)
        rows = rows.loc[:, rows.notna().any()]
        if rows.empty:
            return None
        rows = rows.where(rows.notna(), None)
        values = {str(image): tuple(row) for image, *row in rows.itertuples(name=None)}
        return cls(tuple(rows.columns), values, counting=False)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Self:
        """Return the metadata of one patient, or of each image by its id.

        Args:
            given: Values by the names in `METADATA` and `SCALE`, or such mappings by image id.

        Examples:
            >>> PatientTable.from_mapping({"age": 55, "site": "back"}).patient("lesion")
            Patient(age=55.0, sex=None, site='back')

        Raises:
            DataError: A name is unknown, or a value is impossible.
        """
        several = bool(given) and all(isinstance(one, Mapping) for one in given.values())
        rows = dict(given) if several else {"": given}
        names = {str(name) for row in rows.values() for name in row}
        strange = sorted(names - {*METADATA, SCALE})
        if strange or not names:
            raise DataError(
                f"metadata: {strange[0]!r} is not known" if strange else "metadata: no values",
                f"use {', '.join((*METADATA, SCALE))}",
            )
        frame = pd.DataFrame.from_dict(rows, orient="index").reset_index(names=KEY)
        if several:
            return cls.of(frame)
        one = cls.of(frame.assign(**{KEY: "patient"}))
        return cls(
            one.columns,
            everyone=one.rows["patient"],
            not_ages=one.not_ages,
            scale=one.scales.get("patient"),
        )

    @property
    def has_patients(self) -> bool:
        """Whether there are columns that change the odds."""
        return self.counting and bool(set(self.columns) & set(Patient._fields))

    @property
    def has_scale(self) -> bool:
        """Whether the scale of an image is known."""
        return self.scale is not None or bool(self.scales)

    def mm_per_pixel(self, image_id: str) -> float | None:
        """Return the scale of an image; None if it is not known."""
        return self.scales.get(self.key_of(image_id) or "", self.scale)

    def with_scale(self, scale: float) -> Self:
        """Return the metadata with one scale for all images.

        Raises:
            DataError: The scale is impossible.
            ConfigError: The metadata have scales already.
        """
        if self.has_scale:
            raise ConfigError(
                f"the scale is given twice: as {scale} mm per pixel and in the metadata",
                "leave out one of them",
            )
        return replace(self, scale=checked_scale(str(scale), "all images"))

    def for_files(self, sources: Sequence[ImageFiles]) -> Self:
        """Return the metadata with the rows of these images, as far as rows name their files."""
        return replace(self, images=self.names.keys_of(sources))

    def key_of(self, image_id: str) -> str | None:
        """Return the key of an image's row in ``rows``; None without a row."""
        key = self.images.get(image_id) or self.names.key_of(image_id)
        return key if key in self.rows else None

    def other_files(self, sources: Sequence[ImageFiles]) -> dict[str, str]:
        """Return the files that rows name in place of those of their images, by image id."""
        found = {self.key_of(each.image_id): each for each in sources}
        places = {key: each.path for key, each in found.items() if key is not None}
        others = self.names.other_files(places)
        return {found[key].image_id: file for key, file in others.items()}

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
        cells += [repr((SCALE, each)) for each in sorted(self.scales.items())]
        cells += [] if self.scale is None else [repr((SCALE, self.scale))]
        cells += [] if self.counting else ["kept"]
        return sha256_of(repr(self.columns), repr(self.everyone), *cells)


def _lesions(lesions: pd.Series[Any], source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for image_id, lesion in zip(lesions.index, lesions, strict=True):
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


def _scales(images: pd.Index[Any], scales: pd.Series[str], source: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for image_id, text in zip(images, known(scales), strict=True):
        scale = None if pd.isna(text) else checked_scale(text, f"{source}: {image_id}")
        other = None if scale is None else found.setdefault(image_id, scale)
        if other != scale:
            raise DataError(
                f"{source}: {image_id} stands twice, with the scales {other} and {scale}",
                "keep one row an image, named by its id in predictions.parquet",
            )
    return found


def checked_scale(text: str, where: str) -> float:
    """Return a scale in mm per pixel.

    Args:
        text: The scale.
        where: The file and the image, for messages.

    Raises:
        DataError: It is not a number above 0 and up to 1.
    """
    try:
        scale = float(text.replace(",", "."))
    except ValueError:
        raise DataError(
            f"{where}: the scale {text!r} is not a number", "give millimetres per pixel, as 0.01"
        ) from None
    if not 0 < scale <= LARGEST_SCALE:
        raise DataError(
            f"{where}: a scale of {text} mm per pixel is impossible",
            f"give millimetres per pixel, above 0 and at most {LARGEST_SCALE:g}",
        )
    return scale
