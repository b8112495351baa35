"""Folds: the held-out images of each fold, in whole groups; written once, then read."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from naevus.datasets.dataset import joined, unit_of
from naevus.datasets.listing import printable, problem_of_id
from naevus.errors import DataError, FoldsError
from naevus.io.extras import require
from naevus.io.files import write_bytes
from naevus.io.formats import read_table
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset
    from naevus.io.progress import Reporter


# Whole groups: join them, assign them to folds, sample a fraction of them.
#
# Tables here have the columns ``image_id, group_id, stratum``; a stratum (the diagnosis) should
# have the same proportion everywhere.


def assign_groups(table: pd.DataFrame, k: int, rng: np.random.Generator) -> NDArray[np.object_]:
    """Assign whole groups to ``k`` folds with similar strata (``StratifiedGroupKFold``).

    Args:
        table: The images.
        k: Number of folds, at least 2.
        rng: Random numbers that decide between equivalent groups.

    Returns:
        The fold of each row, ``"0"`` to ``"k-1"``.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    require("evaluate", "making folds")
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415 (an extra)

    strata = _coarse(table["stratum"], k)
    # Groups are shuffled here, by shuffled names, and not by the splitter: up to scikit-learn 1.7
    # its own shuffling undoes the stratification (github.com/scikit-learn/scikit-learn/pull/32540).
    names, inverse = np.unique(table["group_id"].to_numpy(dtype=str), return_inverse=True)
    groups = rng.permutation(len(names))[inverse]
    fold = np.empty(len(table), dtype=object)
    for number, (_, held_out) in enumerate(StratifiedGroupKFold(k).split(table, strata, groups)):
        fold[held_out] = str(number)
    return fold


def sample_groups(
    table: pd.DataFrame, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Sample whole groups until each stratum has about ``fraction`` of its images.

    A group belongs to the most frequent stratum of its images.

    Returns:
        Whether each row was sampled.
    """
    summary = _summary(table)
    drawn: list[str] = []
    for _, stratum in summary.groupby("stratum", sort=True):
        shuffled = stratum.iloc[rng.permutation(len(stratum))]
        middle = shuffled["size"].cumsum() - shuffled["size"] / 2
        drawn.extend(shuffled.index[middle <= fraction * stratum["size"].sum()])
    return table["group_id"].isin(drawn).to_numpy(dtype=bool)


_FIRST = 3
"""Groups of each stratum that a limit takes first: to train on, to validate on and to hold out."""


def limit_images(dataset: Dataset, count: int, seed: int = 2018) -> Dataset:
    """Return at most ``count`` images of a data set, to try something out on.

    Whole groups are drawn at random. Each part and diagnosis first gets up to three groups; the
    others follow in proportion to their frequency.

    Args:
        dataset: The images.
        count: Maximum number of images; 0 for no limit.
        seed: Seed of the draw.

    Raises:
        DataError: The smallest group has more images.
    """
    if not count or len(dataset) <= count:
        return dataset
    table = dataset.table[["image_id", "group_id"]].copy()
    table["stratum"] = dataset.table["part"] + " " + dataset.table["diagnosis"].fillna("")
    rng, order = np.random.default_rng(seed), []
    for number, (_, stratum) in enumerate(_summary(table).groupby("stratum", sort=True)):
        shuffled = stratum.iloc[rng.permutation(len(stratum))]
        middle = (shuffled["size"].cumsum() - shuffled["size"] / 2) / stratum["size"].sum()
        rows = zip(shuffled.index, shuffled["size"], middle, strict=True)
        for rank, (group, size, fraction) in enumerate(rows):
            place = (0, rank) if rank < _FIRST else (1, fraction)
            order.append((*place, number, str(group), int(size)))
    drawn, left = [], count
    for *_, group, size in sorted(order):
        if size <= left:
            drawn.append(group)
            left -= size
    if not drawn:
        least = min(size for *_, size in order)
        raise DataError(
            f"{dataset.root}: the smallest {unit_of(dataset.table)} has {least} images, more than "
            f"the limit of {count}",
            "raise --limit",
        )
    keep = dataset.table["group_id"].isin(drawn).astype(bool)
    return replace(dataset, table=dataset.table[keep].reset_index(drop=True))


def join_groups(table: pd.DataFrame, groups: Mapping[str, str]) -> list[str]:
    """Return the group of each row after joining images that share either group.

    Args:
        table: The images with their groups.
        groups: Image id → a further grouping; images without an entry keep their group.

    Returns:
        The group of each row: the alphabetically first of the joined groups.
    """
    return joined(table["group_id"], [table["image_id"].map(dict(groups))])


def _coarse(strata: pd.Series[str], k: int) -> NDArray[np.object_]:
    """Merge strata with fewer images than folds into the largest: they cannot be stratified."""
    sizes = strata.value_counts()
    return strata.where(strata.map(sizes) >= k, sizes.index[0]).to_numpy(dtype=object)


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the size and the most frequent stratum of each group, sorted by group."""
    counts = table.groupby(["group_id", "stratum"]).size().rename("size").reset_index()
    order = ["group_id", "size", "stratum"]
    counts = counts.sort_values(order, ascending=[True, False, True])
    first = counts.drop_duplicates("group_id").set_index("group_id")
    return first.assign(size=counts.groupby("group_id")["size"].sum())


HOLD_OUT_FRACTION = 0.2
"""Fraction of images held out if there is only one fold."""

_COLUMNS = ["image_id", "group_id", "fold"]


EXCEPTIONS = "exceptions.csv"
"""File next to folds files: pairs of images of one group that these folds separate."""


class FoldsException(NamedTuple):
    """Two images of one group that folds are known to separate."""

    image_id: str
    other_id: str
    reason: str


@dataclass(frozen=True)
class Folds:
    """The fold of every training image.

    Args:
        table: ``image_id, group_id, fold``, sorted by id. A fold is ``"0"`` … ``"k-1"``,
            ``"train"`` (never held out) or ``"test"`` (no fold trains on it).
        exceptions: Pairs of one group that were separated before this was known; no others may be.
    """

    table: pd.DataFrame
    exceptions: tuple[FoldsException, ...] = ()

    @cached_property
    def k(self) -> int:
        """Number of folds that are held out in turn."""
        numbers = {fold for fold in self.table["fold"] if fold.isdecimal()}
        return len(numbers)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the folds' CSV, which identifies them."""
        return sha256(self._csv()).hexdigest()

    def held_out(self, fold: int) -> list[str]:
        """Return the ids that ``fold`` does not train on and is evaluated on.

        Raises:
            FoldsError: There is no such fold.
        """
        if not 0 <= fold < self.k:
            raise FoldsError(f"there is no fold {fold}", f"choose one of 0 to {self.k - 1}")
        return self._ids(self.table["fold"] == str(fold))

    def training(self, fold: int) -> list[str]:
        """Return the ids that ``fold`` trains on: neither its own nor the test images."""
        held_out = set(self.held_out(fold))
        return [
            image_id
            for image_id in self._ids(self.table["fold"] != "test")
            if image_id not in held_out
        ]

    def test(self) -> list[str]:
        """Return the ids that no fold trains on."""
        return self._ids(self.table["fold"] == "test")

    def hold_out_as(self, other: Folds) -> bool:
        """Return whether both hold out the same images, of the same groups, in the same folds."""
        ours, theirs = (
            each.table[each.table["fold"] != "train"].to_numpy(dtype=str) for each in (self, other)
        )
        return np.array_equal(ours, theirs)

    def differ(self, other: Folds) -> str:
        """Return briefly how other folds differ from these; empty if they do not."""
        if self.sha256 == other.sha256:
            return ""
        ours, theirs = (each.table.set_index("image_id") for each in (self, other))
        absent, new = set(ours.index) - set(theirs.index), set(theirs.index) - set(ours.index)
        if absent or new:
            first = min(absent | new)
            return f"{len(absent)} of {len(ours)} images are absent, {len(new)} are new ({first})"
        moved = ours["fold"] != theirs["fold"]
        if moved.any():
            first = moved[moved].index[0]
            return (
                f"{int(moved.sum())} of {len(ours)} images are in another fold ({first}: "
                f"{theirs.loc[first, 'fold']}, not {ours.loc[first, 'fold']})"
            )
        return "images are in other groups"

    def __str__(self) -> str:
        """Return the number of images and groups that each fold holds out as text."""
        counts = self.table.groupby("fold")["group_id"].agg(["size", "nunique"])
        return "\n".join(
            f"fold {name}: {counted(images, 'image')} of {counted(groups, 'group')}"
            for name, images, groups in counts.itertuples()
        )

    def write(self, path: str | Path) -> None:
        """Write the folds as CSV; an existing file is only accepted if it has the same folds.

        Raises:
            FoldsError: The file has other folds.
        """
        path = Path(path)
        if path.exists() and Folds.read(path).sha256 != self.sha256:
            raise FoldsError(
                f"{path} holds other folds, which may have been trained on",
                "choose another file, or remove it if nothing was trained on it",
            )
        write_bytes(path, self._csv())

    @staticmethod
    def read(path: str | Path) -> Folds:
        """Read folds and the `EXCEPTIONS` next to them, and check that they are complete.

        Raises:
            FoldsError: It is not a folds file, an id occurs twice or cannot name a file, or a group
                is split.
        """
        path = Path(path)
        table = read_table(path, required=_COLUMNS)[_COLUMNS]
        folds = Folds(table.sort_values("image_id", ignore_index=True))
        try:
            _refuse_broken(folds.table)
        except FoldsError as error:
            raise FoldsError(f"{path}: {error.message}", error.remedy) from None
        return replace(folds, exceptions=_exceptions(path.with_name(EXCEPTIONS), folds.table))

    def check(self, dataset: Dataset, among: Dataset | None = None) -> None:
        """Check that these are the folds of the training images of ``dataset``.

        Args:
            dataset: The images to train on or hold out.
            among: The images that the folds may contain: those of ``dataset``, and others without
                the required label. None: ``dataset`` alone.

        Raises:
            FoldsError: Ids were added or removed, or the folds split a group of the data.
        """
        known = eligible(dataset if among is None else among)
        theirs = set(dataset.split("train").images().ids)
        ours = set(self.table["image_id"])
        new, absent = theirs - ours, ours - set(known["image_id"])
        if new or absent:
            raise FoldsError(
                f"the images of {dataset.root} are not those of the folds: "
                f"{len(new)} new, {len(absent)} absent, the first is {min(new | absent)}",
                "use the data, --part and --limit that the folds were made with, or make new folds "
                "in another file",
            )
        assigned = known[known["image_id"].isin(ours)]
        fold = assigned["image_id"].map(self.table.set_index("image_id")["fold"])
        table = self.table.set_index("image_id").loc[assigned["image_id"]].reset_index()
        excused = _excused(table, self.exceptions)
        _refuse_cut(assigned["group_id"], fold, excused)

    def report_exceptions(self, reporter: Reporter) -> None:
        """Report the images of one group that the folds are known to separate."""
        for pair in self.exceptions:
            reporter.message(
                f"the folds separate {pair.image_id} and {pair.other_id} ({pair.reason})",
                "known exception",
            )

    def _csv(self) -> bytes:
        text = io.StringIO()
        self.table.to_csv(text, index=False, lineterminator="\n")
        return text.getvalue().encode()

    def _ids(self, keep: pd.Series[bool]) -> list[str]:
        return self.table.loc[keep.astype(bool), "image_id"].tolist()


def make_folds(
    dataset: Dataset,
    *,
    k: int = 5,
    seed: int = 2018,
    test_fraction: float = 0.0,
    groups: Mapping[str, str] | None = None,
    train_parts: Collection[str] = (),
) -> Folds:
    """Assign the training images to folds by whole groups, stratified by diagnosis.

    Images of the split ``train`` whose file exists take part. They are stratified by part and
    diagnosis (scikit-learn's ``StratifiedGroupKFold``).

    Args:
        dataset: The images; ids must be unique.
        k: Number of folds; with 1, one fold of a fifth of the images is held out.
        seed: Seed of the shuffle.
        test_fraction: The fraction of images that no fold trains on.
        groups: Image id → another grouping (confirmed duplicates); images that share either
            group stay together.
        train_parts: Parts of the data that every fold trains on and none holds out, except for
            lesions that also occur in other parts.

    FoldsError: There are too few groups, ids are not unique, a number is out of range, or
        FoldsError: There are too few groups, ids are not unique, a number makes no sense, or
            the data has no such part.

    Examples:
        >>> from pathlib import Path
        >>> from naevus.datasets.dataset import Dataset, make_table
        >>> lesions = pd.DataFrame(
        ...     {
        ...         "image_id": [f"image-{n}" for n in range(12)],
        ...         "path": [f"image-{n}.jpg" for n in range(12)],
        ...         "lesion_id": [f"lesion-{n // 2}" for n in range(12)],
        ...         "diagnosis": ["NV"] * 8 + ["MEL"] * 4,
        ...     }
        ... )
        >>> folds = make_folds(Dataset(make_table(lesions), Path("photographs"), "manifest"), k=2)
        >>> [len(folds.held_out(fold)) for fold in range(folds.k)]
        [6, 6]
        >>> int(folds.table.groupby("group_id")["fold"].nunique().max())  # no lesion is cut
        1
    """
    if k < 1 or not 0 <= test_fraction < 1:
        raise FoldsError(
            f"{k} folds with a test fraction of {test_fraction} are not possible",
            "use at least 1 fold and a fraction from 0 to below 1",
        )
    table = eligible(dataset)
    if groups:
        table["group_id"] = join_groups(table, groups)
    table["fold"] = "train"
    assigned = table[_assigned(table, dataset, train_parts)]
    if test_fraction > 0:
        chosen = _held_out(assigned, test_fraction, np.random.default_rng((seed, 1)), dataset)
        table.loc[assigned.index[chosen], "fold"] = "test"
    rest = assigned[table.loc[assigned.index, "fold"] == "train"]
    groups_left = rest["group_id"].nunique()
    if groups_left < max(k, 2):
        raise FoldsError(
            f"{dataset.root}: {groups_left} groups of training images are too few for {k} folds",
            "use fewer folds or more images",
        )
    if k == 1:
        chosen = _held_out(rest, HOLD_OUT_FRACTION, np.random.default_rng((seed, 0)), dataset)
        table.loc[rest.index[chosen], "fold"] = "0"
    else:
        table.loc[rest.index, "fold"] = assign_groups(rest, k, np.random.default_rng(seed))
    folds = Folds(table[_COLUMNS].astype("string"))
    _refuse_broken(folds.table)
    return folds


def _held_out(
    table: pd.DataFrame, fraction: float, rng: np.random.Generator, dataset: Dataset
) -> NDArray[np.bool_]:
    """Sample groups to hold out; none would be a fold or a test set without images.

    Raises:
        FoldsError: Every diagnosis has too few groups.
    """
    chosen = sample_groups(table, fraction, rng)
    if not chosen.any():
        raise FoldsError(
            f"{dataset.root}: no diagnosis has enough groups of training images to hold out "
            f"{100 * fraction:g} % of them",
            "use more images or more folds, or hold out a larger fraction",
        )
    return chosen


def join_folds(parts: Sequence[Folds], groups: Mapping[str, str] | None = None) -> Folds:
    """Join the folds of several parts of a data set: fold k holds out the images of all folds k.

    Args:
        parts: The folds, without common images.
        groups: Image id → another grouping, as for `make_folds`; no fold changes.

    Raises:
        FoldsError: The numbers of folds differ, an image occurs twice, or a group is split.
    """
    if len({each.k for each in parts}) > 1:
        numbers = ", ".join(str(each.k) for each in parts)
        raise FoldsError(f"{numbers} folds cannot be joined", "join parts with equally many folds")
    together = pd.concat([each.table for each in parts])
    known = tuple(dict.fromkeys(pair for each in parts for pair in each.exceptions))
    folds = Folds(together.sort_values("image_id", ignore_index=True), known)
    _refuse_broken(folds.table)
    if groups:
        excused = _excused(folds.table, known)
        _refuse_cut(join_groups(folds.table, groups), folds.table["fold"], excused)
    return folds


def _assigned(
    table: pd.DataFrame, dataset: Dataset, train_parts: Collection[str]
) -> NDArray[np.bool_]:
    """Return which rows are assigned: whole groups with an image outside the training-only parts.

    Raises:
        FoldsError: There is no such part.
    """
    for part in train_parts:
        if part not in dataset.parts:
            raise FoldsError(
                f"{dataset.root}: no part {part!r} to train on",
                f"it has {', '.join(dataset.parts)}",
            )
    part_of = dataset.table.set_index("image_id")["part"]
    held = ~table["image_id"].map(part_of).isin(train_parts)
    return np.asarray(table["group_id"].isin(table.loc[held, "group_id"]))


def validation_split(
    folds: Folds, fold: int, dataset: Dataset, fraction: float = 0.1, seed: int = 2018
) -> tuple[list[str], list[str]]:
    """Split the training images of ``fold`` by group, stratified by diagnosis, for validation.

    Args:
        folds: The folds.
        fold: The fold whose training images are split; its held-out images are not touched.
        dataset: The data set with the diagnoses; only its images are returned.
        fraction: The fraction of images in the validation split.
        seed: Seed of the shuffle.

    Returns:
        The training ids and the ids of the validation split, both sorted.
    """
    table = eligible(dataset)
    table = table[table["image_id"].isin(folds.training(fold))].reset_index(drop=True)
    table["group_id"] = table["image_id"].map(folds.table.set_index("image_id")["group_id"])
    validation = sample_groups(table, fraction, np.random.default_rng((seed, 2, fold)))
    ids = table["image_id"]
    return ids[~validation].tolist(), ids[validation].tolist()


def eligible(dataset: Dataset) -> pd.DataFrame:
    """Return ``image_id, group_id, stratum`` of the training images, sorted by id.

    Raises:
        FoldsError: An id is in two parts.
    """
    rows = dataset.split("train").images().table
    table = rows[["image_id", "group_id"]].copy()
    table["stratum"] = rows["part"] + " " + rows["diagnosis"].fillna("")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise FoldsError(f"{twice.iloc[0]} is in two parts", "make folds of one part at a time")
    return table.sort_values("image_id", ignore_index=True)


def _refuse_broken(table: pd.DataFrame) -> None:
    if table.isna().to_numpy().any():
        raise FoldsError("a row is not complete", "use the file as it was written")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise FoldsError(f"{twice.iloc[0]} occurs twice", "use the file as it was written")
    for image_id in table["image_id"]:
        if (problem := problem_of_id(image_id)) is not None:
            raise FoldsError(
                f"the id {printable(image_id)!r} {problem}", "use the file as it was written"
            )
    names = set(table["fold"]) - {"train", "test"}
    if not names or names != {str(number) for number in range(len(names))}:
        raise FoldsError(
            f"the folds are named {', '.join(sorted(names)) or 'nothing'}",
            "number them from 0; train and test may be added",
        )
    _refuse_cut(table["group_id"], table["fold"])


def _exceptions(path: Path, table: pd.DataFrame) -> tuple[FoldsException, ...]:
    """Return the exceptions in a file that concern images of these folds; possibly none."""
    if not path.is_file():
        return ()
    fold = table.set_index("image_id")["fold"]
    pairs = read_table(path, required=FoldsException._fields).fillna("")
    found = [FoldsException(*row) for row in pairs[list(FoldsException._fields)].to_numpy()]
    there = [pair for pair in found if {pair.image_id, pair.other_id} <= set(fold.index)]
    return tuple(pair for pair in there if fold[pair.image_id] != fold[pair.other_id])


def _excused(table: pd.DataFrame, exceptions: Sequence[FoldsException]) -> list[str]:
    """Return the group of each row; groups connected by exceptions are one."""
    pairs = [
        pd.Series("pair", index=[pair.image_id, pair.other_id], dtype="string")
        for pair in exceptions
    ]
    ties = (table["image_id"].map(pair) for pair in pairs)
    return joined(table["group_id"], ties)


def _refuse_cut(
    groups: Sequence[str] | pd.Series[str],
    folds: pd.Series[str],
    excused: Sequence[str] | None = None,
) -> None:
    """Refuse groups that are split between folds.

    Args:
        groups: The group of each row.
        folds: The fold of each row.
        excused: Groups within which folds may differ: those of the folds, joined by exceptions.
    """
    names = pd.Series(groups).to_numpy()
    counts = folds.groupby(names).nunique()
    cut = counts[counts > 1]
    if len(cut) and excused is not None:
        kinds = pd.Series(excused).groupby(names).nunique()
        cut = cut[kinds[cut.index] > 1]
    if len(cut):
        raise FoldsError(
            f"group {cut.index[0]} is split between {cut.iloc[0]} folds ({len(cut)} such groups)",
            "make folds of whole groups",
        )
