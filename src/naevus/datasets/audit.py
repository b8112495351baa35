"""The audit of a data set: every check, and its results in one object."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pandas as pd

from naevus.datasets import duplicates
from naevus.datasets.dataset import ATTRIBUTE_COLUMNS, Finding, lesion_names, unit_of
from naevus.datasets.duplicates import (
    SIDE,
    Appearance,
    appearance_of,
    copies_table,
    copy_findings,
    merged_groups,
    summary,
)
from naevus.datasets.masksurvey import survey
from naevus.errors import ImageError
from naevus.images.maskfile import (
    MaskFile,
    fitted,
    orientation_uncertain,
    read_mask,
    read_mask_file,
)
from naevus.images.masks import PLAUSIBLE_FRACTIONS, area_fraction, plausible
from naevus.images.read import Header, Limits, probe, probe_with_turn, read_with_header
from naevus.io.files import sha256, write_json, write_text
from naevus.io.formats import csv_of
from naevus.io.words import counted, plural
from naevus.types import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from naevus.datasets.dataset import Dataset, Problem, Record

    Item = TypeVar("Item")

    Result = TypeVar("Result")


__all__ = ["Audit", "Finding", "audit"]


# Every image file is read once: is it complete, what size is it, does it look usable?

_ERRORS = {
    "row without image",
    "image in two splits",
    "two rows of one id",
    "two files of one id",
    "lesion in several groups",
}
_LOOK_AHEAD = 32


class CheckedFile(NamedTuple):
    """One image file: its properties, or why it cannot be read."""

    image_id: str
    header: Header | None
    sha256: str
    appearance: Appearance | None
    problem: str
    flags: tuple[str, ...] = ()


def check_file(image_id: str, path: Path, limits: Limits) -> CheckedFile:
    """Read a whole image file, at the smallest possible scale."""
    try:
        header = probe(path, limits)
        decoded = read_with_header(path, shortest=SIDE, limits=limits)
        appearance = appearance_of(decoded.pixels)
        return CheckedFile(image_id, header, sha256(path), appearance, "", decoded.flags)
    except ImageError as error:
        return CheckedFile(image_id, None, "", None, error.problem)


def file_findings(checked: Iterable[CheckedFile]) -> list[Finding]:
    """Return unreadable images with the reason, and images that are damaged but readable."""
    checked = list(checked)
    unusable = [
        Finding("unusable image", "error", image_header.image_id, image_header.problem)
        for image_header in checked
        if image_header.problem
    ]
    doubtful = [
        Finding("doubtful image", "warning", image_header.image_id, sentence)
        for image_header in checked
        for sentence in explained(image_header.flags).values()
    ]
    return unusable + doubtful


def layout_findings(problems: Iterable[Problem]) -> list[Finding]:
    """Return the layout's findings; those that lose or mix up images are errors."""
    return [
        Finding(kind, "error" if kind in _ERRORS else "warning", subject, detail)
        for kind, subject, detail in problems
    ]


def same_files(checked: list[CheckedFile]) -> list[tuple[int, int]]:
    """Return positions of files with the same bytes: the first paired with each later one."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, image_header in enumerate(checked):
        if image_header.sha256:
            positions[image_header.sha256].append(position)
    return [(first, other) for first, *others in positions.values() for other in others]


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield ``work(item)`` in order, with a small look-ahead."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= _LOOK_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


# Contradictory labels, and counts of each label.

_FEWEST_LESIONS = 5
_AGES = (0, 20, 40, 60, 80, 200)
_AGE_BANDS = ("under 20", "20-39", "40-59", "60-79", "80 and over")
UNKNOWN = "unknown"


def label_findings(dataset: Dataset) -> list[Finding]:
    """Return contradictions within lesions, leaks between splits, and rare classes."""
    table = dataset.table
    findings = [
        *_contradictions(table, "diagnosis", "contradictory diagnoses", "lesion_id"),
        *_contradictions(table, "sex", "contradictory sexes", "lesion_id"),
        *_contradictions(table, "split", "group in several splits", "group_id"),
    ]
    for part, rows in dataset.at_hand().table.groupby("part"):
        known = rows["diagnosis"].notna()
        trained = rows[rows["split"] == "train"]
        absent = int(trained["diagnosis"].isna().sum())
        if known.any() and absent:
            detail = f"{absent} of {len(trained)} training images have no diagnosis"
            findings.append(Finding("no diagnosis", "warning", str(part), detail))
        groups = trained.groupby("diagnosis")["group_id"].nunique()
        what = unit_of(trained)
        findings.extend(
            Finding(
                f"few {plural(what)}",
                "warning",
                f"{part} {code}",
                f"{counted(count, what)} to train on",
            )
            for code, count in groups.items()
            if count < _FEWEST_LESIONS
        )
        findings.extend(_without_masks(str(part), rows))
    return findings


def counts(dataset: Dataset) -> pd.DataFrame:
    """Count the images (`Dataset.at_hand`) and lesions of each class and subgroup.

    Returns:
        Columns ``part, column, value, images, lesions``; groups count as lesions if no lesion is
        known. Diagnoses are in the taxonomy's order, ages in bands of twenty years.
    """
    table = dataset.at_hand().table
    table = table.assign(age_band=_bands(table["age"]))
    orders = {"diagnosis": dataset.taxonomy.codes, "age_band": _AGE_BANDS}
    rows = []
    for part, images in table.groupby("part", sort=True):
        for column in (
            "image_type",
            "split",
            "diagnosis",
            "sex",
            "age_band",
            "site",
            "confirmation",
        ):
            if images[column].isna().all():
                continue
            values = images[column].astype("string").fillna(UNKNOWN)
            for value in _ordered(values, orders.get(column, ())):
                of_it = images[values == value]
                rows.append((part, column, value, len(of_it), lesion_names(of_it).nunique()))
    return pd.DataFrame(rows, columns=["part", "column", "value", "images", "lesions"])


def _without_masks(part: str, rows: pd.DataFrame) -> Iterator[Finding]:
    """Report images without a mask if others of their part have one."""
    without = rows.loc[rows["mask_path"].isna() & rows["path"].notna(), "image_id"].tolist()
    if without and rows["mask_path"].notna().any():
        shown = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
        yield Finding("no mask", "warning", part, f"{len(without)} of {len(rows)} images: {shown}")


def _contradictions(table: pd.DataFrame, column: str, kind: str, group: str) -> Iterator[Finding]:
    known = table[table[group].notna() & table[column].notna()]
    kinds = known.groupby(group)[column].nunique()
    for name in kinds.index[kinds > 1]:
        rows = known[known[group] == name]
        detail = ", ".join(f"{row.image_id} {getattr(row, column)}" for row in rows.itertuples())
        yield Finding(kind, "warning" if column == "sex" else "error", str(name), detail)


def _bands(age: pd.Series[float]) -> pd.Series[str]:
    years = age.astype("float64")
    return pd.cut(years, _AGES, right=False, labels=_AGE_BANDS).astype("string")


def _ordered(values: pd.Series[str], order: tuple[str, ...]) -> list[str]:
    present = list(values.value_counts().index)
    known = [value for value in order if value in present]
    rest = [value for value in present if value not in known and value != UNKNOWN]
    return known + rest + ([UNKNOWN] if UNKNOWN in present else [])


# Implausible masks.


def mask_findings(
    image_id: str,
    path: Path,
    image: Path,
    image_header: Header | None,
    limits: Limits,
    attribute: str | None = None,
) -> list[Finding]:
    """Return the findings about one mask file.

    Args:
        image_id: The image of the mask.
        path: The mask file.
        image: The image's file.
        image_header: Header of the image, if it could be read.
        limits: Limits checked on the header alone.
        attribute: The attribute of the mask, which may be small or empty; None: the lesion.
    """
    try:
        found = read_mask_file(path, limits)
    except ImageError as error:
        return [Finding("unusable mask", "error", image_id, error.problem)]
    findings = [
        *_fitting(image_id, found, path, image, image_header, limits),
        *_encoding(image_id, found),
    ]
    fraction = area_fraction(found.mask)
    if not (plausible(found.mask) or (attribute and fraction <= PLAUSIBLE_FRACTIONS[1])):
        detail = f"covers {fraction:.2%} of the image"
        findings.append(Finding("implausible mask", "warning", image_id, detail))
    return findings


def _fitting(
    image_id: str,
    found: MaskFile,
    path: Path,
    image: Path,
    image_header: Header | None,
    limits: Limits,
) -> list[Finding]:
    if image_header is None:
        return []
    header, turn = probe_with_turn(image, limits)
    height, width = found.mask.shape
    try:
        fitted(found.mask, path, header, turn)
    except ImageError:
        detail = f"mask {width} x {height}, image {header.width} x {header.height}"
        return [Finding("mask of another size", "error", image_id, detail)]
    if orientation_uncertain(header, turn):
        detail = "EXIF rotates the image; the mask's size does not show whether it is rotated too"
        return [Finding("mask maybe turned", "warning", image_id, detail)]
    return []


def _encoding(image_id: str, found: MaskFile) -> list[Finding]:
    if found.usual:
        return []
    detail = f"read as {found.encoding}"
    if found.values == 2:  # noqa: PD011
        return [Finding("mask written unusually", "warning", image_id, detail)]
    return [Finding("mask not binary", "warning", image_id, f"{detail}; {found.values} values")]  # noqa: PD011


_ORDER = {"error": 0, "warning": 1}


@dataclass(frozen=True)
class Audit:
    """The findings about a data set, and its counts.

    Attributes:
        layout: The layout it was read with.
        images: Number of images.
        patients: Number of known patients.
        findings: The findings, errors first.
        counts: Images and lesions of each class and subgroup, see `counts`.
        duplicates: Pairs of duplicates, see `copies_table`.
        merged: Ids of images whose groups were joined because of duplicates, largest group first.
        groups: Image id → joined group, for ``make_folds(groups=...)``.
    """

    layout: str
    images: int
    patients: int
    findings: list[Finding]
    counts: pd.DataFrame
    duplicates: pd.DataFrame
    merged: list[list[str]]
    groups: dict[str, str]

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def kinds(self) -> list[tuple[str, str, int, Finding]]:
        """Return severity, kind, number and first finding of each kind, errors first."""
        number = Counter(finding.kind for finding in self.findings)
        first = {finding.kind: finding for finding in reversed(self.findings)}
        listed = [
            (first[kind].severity, kind, count, first[kind]) for kind, count in number.items()
        ]
        return sorted(listed, key=lambda line: (_ORDER[line[0]], -line[2]))

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as a table: ``kind, severity, subject, detail``."""
        return pd.DataFrame(self.findings, columns=list(Finding._fields))

    def to_json(self) -> dict[str, Any]:
        """Return the audit as a dictionary that JSON can hold."""
        return {
            "layout": self.layout,
            "images": self.images,
            "patients": self.patients,
            "errors": self.errors,
            "warnings": len(self.findings) - self.errors,
            "findings": [finding._asdict() for finding in self.findings],
            "counts": self.counts.to_dict("records"),
            "duplicates": {
                **summary(self.duplicates),
                "threshold": duplicates.CORRELATION,
                "measured": duplicates.MEASURED,
                "merged": self.merged,
                "groups": self.groups,
            },
        }

    def write(self, folder: Path) -> None:
        """Write ``check.json``, ``findings.csv`` and ``duplicates.csv``."""
        write_json(folder / "check.json", self.to_json())
        for name, table in (("findings", self.to_frame()), ("duplicates", self.duplicates)):
            write_text(folder / f"{name}.csv", csv_of(table))


def audit(
    dataset: Dataset,
    *,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = Limits(),  # noqa: B008
    workers: int = 2,
) -> Audit:
    """Check files, masks, labels and duplicates of ``dataset``.

    Every image and mask file is read once, images at the smallest scale that decodes them whole.

    Args:
        dataset: The data set; it is not changed.
        progress: Called with (done, total): first for the images and masks, then for the pairs
            to register.
        limits: Files and images above these limits become findings.
        workers: Number of threads.
    """
    with_images = dataset.images()
    checked, findings, shown = _read_all(with_images, limits, workers, progress)
    usable = [image_header for image_header in checked if image_header.appearance is not None]
    rows = with_images.table.loc[
        [not image_header.problem for image_header in checked]
    ].reset_index(drop=True)
    near = duplicates.find_duplicates(
        [image_header.appearance for image_header in usable if image_header.appearance is not None],
        workers=workers,
        progress=progress,
    )
    copies = copies_table(rows, same_files(usable), near)
    groups, merged, large = merged_groups(copies, with_images.table)
    found = [
        *file_findings(checked),
        *layout_findings(dataset.problems),
        *findings,
        *label_findings(dataset),
        *_masks_as_a_whole(with_images, limits),
        *copy_findings(copies, rows),
        *large,
    ]
    return Audit(
        layout=dataset.layout,
        images=len(with_images),
        patients=with_images.patients,
        findings=sorted(found, key=lambda finding: _ORDER[finding.severity]),
        counts=pd.concat([counts(dataset), _shown_attributes(with_images, shown)]),
        duplicates=copies,
        merged=merged,
        groups=groups,
    )


class _Row(NamedTuple):
    """The findings about an image and its masks, and the attributes that its masks show."""

    checked: CheckedFile
    findings: list[Finding]
    shown: tuple[str, ...] = ()


def _read_all(
    dataset: Dataset, limits: Limits, workers: int, progress: Callable[[int, int], None] | None
) -> tuple[list[CheckedFile], list[Finding], list[tuple[str, ...]]]:
    checked: list[CheckedFile] = []
    findings: list[Finding] = []
    shown: list[tuple[str, ...]] = []
    for row in in_threads(partial(_read_row, limits=limits), dataset.rows(), workers):
        checked.append(row.checked)
        findings.extend(row.findings)
        shown.append(row.shown)
        if progress is not None:
            progress(len(checked), len(dataset))
    return checked, findings, shown


def _read_row(record: Record, limits: Limits) -> _Row:
    assert record.path is not None
    checked = check_file(record.image_id, record.path, limits)
    findings = []
    if record.mask_path is not None:
        findings += _of_mask(record, record.mask_path, checked, limits)
    shown = []
    for attribute, path in record.attributes.items():
        found = _of_mask(record, path, checked, limits, attribute)
        findings += found
        if not any(each.severity == "error" for each in found) and read_mask(path, limits).any():
            shown.append(attribute)
    return _Row(checked, findings, tuple(shown))


def _shown_attributes(dataset: Dataset, shown: list[tuple[str, ...]]) -> pd.DataFrame:
    """Count the images and lesions with each attribute, like `counts`; empty where unknown."""
    rows = []
    for part, table in dataset.table.groupby("part"):
        for name, column in ATTRIBUTE_COLUMNS.items():
            if table[column].isna().all():
                continue
            lesion = lesion_names(table)
            there = lesion[[name in shown[position] for position in table.index]]
            rows.append((part, "attribute", name, len(there), there.nunique()))
    return pd.DataFrame(rows, columns=["part", "column", "value", "images", "lesions"])


def _masks_as_a_whole(dataset: Dataset, limits: Limits) -> list[Finding]:
    masks = [row.mask_path for row in dataset.rows() if row.mask_path is not None]
    problem = survey(masks, limits).problem()
    return [] if problem is None else [Finding("doubtful masks", "error", "all", problem[0])]


def _of_mask(
    record: Record, mask: Path, checked: CheckedFile, limits: Limits, attribute: str | None = None
) -> list[Finding]:
    assert record.path is not None
    found = mask_findings(record.image_id, mask, record.path, checked.header, limits, attribute)
    if attribute is None:
        return found
    return [each._replace(detail=f"{attribute}: {each.detail}") for each in found]
