"""The data set: a typed table with one row per image."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from naevus.datasets.listing import printable, problem_of_id
from naevus.errors import DataError
from naevus.io.figures import count_figure
from naevus.io.files import sha256_of
from naevus.io.words import counted
from naevus.taxonomy import ATTRIBUTES, ISIC2018, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matplotlib.figure import Figure

    from naevus.types import Unit


# The findings of an audit.

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """A problem of the data.

    ``error``: unusable data, or data that makes results wrong; ``warning``: should be checked.
    """

    kind: str
    severity: Severity
    subject: str
    detail: str


def joined(names: pd.Series[str], ties: Iterable[pd.Series[str]]) -> list[str]:
    """Return the group of each row after joining rows that share a value of any of ``ties``.

    Args:
        names: The initial group of each row; rows with the same name are one group.
        ties: Values by row, as long as ``names``; missing values join nothing.

    Returns:
        The group of each row: the alphabetically first of the joined names.
    """
    places, ordered = names.astype(object).factorize(sort=True)
    group = np.asarray(places, np.int64)
    shared = [group.copy()]
    shared += [np.asarray(tie.astype(object).factorize()[0], np.int64) for tie in ties]
    before = None
    while before is None or not np.array_equal(before, group):
        before = group
        for values in shared:
            there = values >= 0
            least = np.full(values.max(initial=-1) + 1, len(ordered), np.int64)
            np.minimum.at(least, values[there], group[there])
            group = group.copy()
            group[there] = least[values[there]]
    return [str(ordered[place]) for place in group]


SPLITS = ("train", "validation", "test")
"""The splits of a layout; folds are made from the first."""

NUMBERS = ("age",)
"""The columns that are not text."""


class Problem(NamedTuple):
    """A problem that a layout found: its kind, its subject (an id or a file), and the detail."""

    kind: str
    subject: str
    detail: str


class Record(NamedTuple):
    """One image: a row of the table, with ``None`` for unknown values."""

    image_id: str
    path: Path | None
    mask_path: Path | None
    diagnosis: str | None
    lesion_id: str | None
    group_id: str
    age: float | None
    sex: str | None
    site: str | None
    confirmation: str | None
    split: str
    part: str
    patient_id: str | None = None
    image_type: str | None = None
    attribute_globules: Path | None = None
    attribute_milia_like_cyst: Path | None = None
    attribute_negative_network: Path | None = None
    attribute_pigment_network: Path | None = None
    attribute_streaks: Path | None = None
    fitzpatrick_skin_type: str | None = None
    dermoscopic_type: str | None = None
    anatom_site: str | None = None

    @property
    def attributes(self) -> dict[str, Path]:
        """The image's attribute mask files, by attribute."""
        files = {name: getattr(self, column) for name, column in ATTRIBUTE_COLUMNS.items()}
        return {name: path for name, path in files.items() if path is not None}


COLUMNS = Record._fields
"""The table's columns, in order."""

ATTRIBUTE_COLUMNS: Final[dict[str, str]] = {name: f"attribute_{name}" for name in ATTRIBUTES}
"""The column with the mask file of each attribute; an empty mask means that it is absent."""

PATHS: Final = ("path", "mask_path", *ATTRIBUTE_COLUMNS.values())
"""The columns with files."""

DERMOSCOPIC = "dermoscopic"
"""The image type that the networks are made for; images of unknown type count as such."""


@dataclass(frozen=True)
class Dataset:
    """Images as a typed table, joined by id and never by position.

    Args:
        table: One row per image with the columns of `Record`, sorted by part and id. Text has
            pandas' ``string`` type, ``age`` is in years (``Float64``); ``pd.NA`` is unknown.
            Ids are unique within a part. `make_table` builds it.
        root: The folder (or manifest file) it was read from.
        layout: The name of its layout.
        taxonomy: The taxonomy of its diagnoses.
        problems: Problems that the layout found.
    """

    table: pd.DataFrame
    root: Path
    layout: str
    taxonomy: Taxonomy = ISIC2018
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def __str__(self) -> str:
        """Return the folder and the number of images of each class and split as text."""
        here = self.at_hand()
        names = lesion_names(here.table) if here.patients else here.table["group_id"]
        lesions = f" of {counted(names.nunique(), 'lesion')}" if here.has_groups else ""
        patients = f" of {counted(here.patients, 'patient')}" if here.patients else ""
        lines = [f"{self.root} ({self.layout}): {counted(len(here), 'image')}{lesions}{patients}"]
        return "\n".join([*lines, self.counts().to_string()] if len(self) else lines)

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        first = html.escape(str(self).partition("\n")[0])
        return f"<p>{first}</p>{self.counts().to_html() if len(self) else ''}"

    def counts(self) -> pd.DataFrame:
        """Count the images of each class (`at_hand`), with a column for each part and split.

        Classes are in the taxonomy's order; images without a diagnosis come last.
        """
        table = self.at_hand().table
        classes = table["diagnosis"].fillna("no diagnosis").astype(object)
        order = [*self.taxonomy.codes, "no diagnosis"]
        several = len(self.parts) > 1
        before = table["part"].astype(str) + " " if several else ""
        columns = before + table["split"].astype(str)
        counted = pd.crosstab(classes, columns).reindex(order).dropna(how="all").astype(int)
        pairs = ((part, split) for part in self.parts for split in SPLITS)
        wanted = [f"{part} {split}" if several else split for part, split in pairs]
        counted = counted[[name for name in wanted if name in counted.columns]]
        counted.index.name = counted.columns.name = None
        return counted

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table: one row per image, with the columns of `Record`."""
        return self.table.copy()

    def to_dict(self) -> dict[str, Any]:
        """Return a summary, without the table, as a dictionary that JSON can hold."""
        here = self.at_hand()
        return {
            "root": str(self.root),
            "layout": self.layout,
            "taxonomy": self.taxonomy.name,
            "images": len(here),
            "groups": int(here.table["group_id"].nunique()),
            "counts": self.counts().to_dict(),
            "problems": [problem._asdict() for problem in self.problems],
        }

    def plot(self) -> Figure:
        """Draw the number of images of each class, by split.

        Raises:
            NaevusError: matplotlib is not installed.
        """
        return count_figure(self.counts(), str(self.root))

    @property
    def ids(self) -> list[str]:
        """The image ids, in the table's order."""
        return self.table["image_id"].tolist()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have rows, sorted."""
        return tuple(sorted(self.table["part"].unique()))

    @property
    def has_groups(self) -> bool:
        """Whether lesions or groups are known; otherwise every image is its own group."""
        named = self.table["group_id"] != self.table["image_id"]
        return bool((named | self.table["lesion_id"].notna()).any())

    @property
    def patients(self) -> int:
        """The number of patients, as far as they are known."""
        return int(self.table["patient_id"].nunique())

    def lesions(self) -> dict[str, str]:
        """Return the lesion of each image, by image id, as far as it is known."""
        known = self.table[self.table["lesion_id"].notna()].drop_duplicates("image_id")
        return dict(zip(known["image_id"], known["lesion_id"], strict=True))

    def part(self, *names: str) -> Dataset:
        """Return the rows of these parts (``"task1"``, ``"task3"``; ``"all"`` elsewhere).

        Raises:
            DataError: The data set has no such part.
        """
        for name in names:
            if name not in self.parts:
                raise DataError(
                    f"{self.root}: no part {name!r}", f"use one of {', '.join(self.parts)}"
                )
        return self._where(self.table["part"].isin(names))

    def split(self, name: str) -> Dataset:
        """Return the rows of one split: ``train``, ``validation`` or ``test`` (possibly none).

        Raises:
            DataError: There is no split of that name.
        """
        if name not in SPLITS:
            raise DataError(f"unknown split {name!r}", f"use one of {', '.join(SPLITS)}")
        return self._where(self.table["split"] == name)

    def of_type(self, image_type: str = "auto") -> Dataset:
        """Return the rows of one image type (``dermoscopic``, ``clinical``, ``tile``), or ``all``.

        Images of unknown type count as dermoscopic. ``auto`` takes the dermoscopic images, or all
        if there are none.

        Raises:
            DataError: There are no images of that type.
        """
        types = self.table["image_type"].fillna(DERMOSCOPIC)
        if image_type == "auto":
            image_type = DERMOSCOPIC if (types == DERMOSCOPIC).any() else "all"
        if image_type == "all":
            return self
        if len(self) and not (types == image_type).any():
            raise DataError(
                f"{self.root}: no {image_type} images",
                f"use one of {', '.join(sorted(types.unique()))}, or all",
            )
        return self._where(types == image_type)

    def image_types(self) -> dict[str, int]:
        """Count the images of each image type, the most frequent first."""
        counts = self.images().table["image_type"].fillna(DERMOSCOPIC).value_counts()
        return {str(name): int(count) for name, count in counts.items()}

    def images(self) -> Dataset:
        """Return the rows whose image exists."""
        return self._where(self.table["path"].notna())

    def at_hand(self) -> Dataset:
        """Return the rows that count as images: those whose image exists.

        Of a part without any image file, such as ground truth alone, all rows count.
        """
        there = self.table["path"].notna()
        return self._where(there | ~there.groupby(self.table["part"]).transform("any"))

    def with_masks(self) -> Dataset:
        """Return the rows with both an image and a mask."""
        return self._where(self.table["path"].notna() & self.table["mask_path"].notna())

    def with_attributes(self) -> Dataset:
        """Return the rows with an image and at least one attribute mask."""
        known = self.table[list(ATTRIBUTE_COLUMNS.values())].notna().any(axis="columns")
        return self._where(self.table["path"].notna() & known)

    def with_diagnosis(self) -> Dataset:
        """Return the rows with a diagnosis."""
        return self._where(self.table["diagnosis"].notna())

    def select(self, image_ids: Iterable[str]) -> Dataset:
        """Return the rows with these ids, in the table's order.

        Raises:
            DataError: One of them is not in the data set.
        """
        wanted = set(image_ids)
        absent = wanted.difference(self.table["image_id"])
        if absent:
            raise DataError(
                f"{self.root}: {len(absent)} images are not in the data set, "
                f"the first is {min(absent)}",
                "use the data set of these ids",
            )
        return self._where(self.table["image_id"].isin(wanted))

    def fingerprint(self) -> str:
        """Return a hash of parts, ids, groups and diagnoses, independent of the folder's name."""
        columns = self.table[["part", "image_id", "group_id", "diagnosis"]].fillna("")
        return sha256_of(*columns.to_numpy(dtype=object).ravel())

    def rows(self) -> Iterator[Record]:
        """Yield every row as a `Record`."""
        columns = [self._values(name) for name in COLUMNS]
        for values in zip(*columns, strict=True):
            yield Record(*values)

    def _values(self, name: str) -> list[Any]:
        column = self.table[name].astype(object)
        values = column.where(column.notna(), None).tolist()
        if name in PATHS:
            return [None if value is None else Path(value) for value in values]
        return values

    def _where(self, keep: pd.Series[bool]) -> Dataset:
        return replace(self, table=self.table[keep.astype(bool)].reset_index(drop=True))


def make_table(frame: pd.DataFrame, ties: Iterable[pd.Series[str]] = ()) -> pd.DataFrame:
    """Return ``frame`` with all columns in order, with their types and defaults.

    Rows that share a group, a lesion, a patient or a value of ``ties`` are one group.

    Args:
        frame: Rows with at least ``image_id``; any other column of `Record` may be absent. Rows
            without a split get ``train``, rows without a part get ``all``.
        ties: Further groupings, each by image id: other tables' lesions, confirmed duplicates.

    Raises:
        DataError: A column has wrong values, or an id occurs twice in a part.
    """
    table = frame.reindex(columns=list(COLUMNS))
    for name in COLUMNS:
        if name in NUMBERS:
            table[name] = pd.to_numeric(table[name], errors="coerce").astype("Float64")
        else:
            table[name] = _texts(table[name])
    _refuse_nameless(table)
    _refuse_unsound(table)
    table["group_id"] = _groups(table, ties)
    table["split"] = table["split"].fillna("train")
    table["part"] = table["part"].fillna("all")
    _refuse_unknown_splits(table)
    _refuse_twins(table)
    return table.sort_values(["part", "image_id"], kind="stable", ignore_index=True)


def lesion_names(table: pd.DataFrame) -> pd.Series[str]:
    """Return the lesion of each row of a data set's table, for counting.

    Where it is unknown it is the group, or the image if the group is of a patient.
    """
    unknown = table["group_id"].mask(table["patient_id"].notna(), table["image_id"])
    return table["lesion_id"].fillna(unknown)


def unit_of(table: pd.DataFrame) -> Unit:
    """Return what the groups of a data set's rows are.

    Args:
        table: ``group_id``, and ``patient_id`` if patients are known.

    Returns:
        ``lesion`` if no patient is known, ``patient`` if each group is one patient and the reverse,
        ``group`` if some groups are neither.

    Examples:
        >>> table = pd.DataFrame({"group_id": ["p1", "p1", "c"], "patient_id": ["p1", "p1", None]})
        >>> unit_of(table), unit_of(table[:2]), unit_of(table[["group_id"]])
        ('group', 'patient', 'lesion')
    """
    if "patient_id" not in table.columns or table["patient_id"].isna().all():
        return "lesion"
    pairs = table[["group_id", "patient_id"]].drop_duplicates()
    alike = len(pairs) == pairs["group_id"].nunique() == pairs["patient_id"].nunique()
    return "patient" if alike else "group"


def _groups(table: pd.DataFrame, ties: Iterable[pd.Series[str]]) -> pd.Series[str]:
    own = [table[name] for name in ("group_id", "lesion_id", "patient_id")]
    names = own[0].fillna(own[1]).fillna(own[2])
    shared = [*own, *(table["image_id"].map(tie) for tie in ties)]
    groups = joined(names.fillna(table["image_id"]), shared)
    return pd.Series(groups, index=table.index, dtype="string")


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    texts = column.astype("string").str.strip()
    return texts.mask(texts == "")


def _refuse_nameless(table: pd.DataFrame) -> None:
    nameless = int(table["image_id"].isna().sum())
    if nameless:
        raise DataError(f"{nameless} rows have no image id", "give every row an id")


def _refuse_unsound(table: pd.DataFrame) -> None:
    """Refuse ids that cannot be file names."""
    for image_id in table["image_id"]:
        problem = problem_of_id(image_id)
        if problem is not None:
            raise DataError(
                f"the image id '{printable(image_id)}' {problem}",
                "give it an id that can be a file name",
            )


def _refuse_unknown_splits(table: pd.DataFrame) -> None:
    unknown = sorted(set(table["split"]).difference(SPLITS))
    if unknown:
        raise DataError(f"unknown split {unknown[0]!r}", f"use one of {', '.join(SPLITS)}")


def _refuse_twins(table: pd.DataFrame) -> None:
    twins = table.loc[table.duplicated(["part", "image_id"]), "image_id"]
    if len(twins):
        raise DataError(
            f"image id {twins.iloc[0]} occurs in {1 + int((twins == twins.iloc[0]).sum())} rows "
            f"({twins.nunique()} such ids)",
            "keep one row per image",
        )
