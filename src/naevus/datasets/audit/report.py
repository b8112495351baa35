"""The audit of a data set: every check, and its results in one object."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from naevus.datasets.audit import duplicates
from naevus.datasets.audit.copies import copies_table, copy_findings, merged_groups, summary
from naevus.datasets.audit.files import (
    Seen,
    file_findings,
    in_threads,
    layout_findings,
    same_files,
    see,
)
from naevus.datasets.audit.findings import Finding
from naevus.datasets.audit.labels import counts, label_findings
from naevus.datasets.audit.masks import mask_findings
from naevus.datasets.masksurvey import survey
from naevus.images.read import Limits
from naevus.io.files import atomic, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from naevus.datasets.records import Dataset, Record

_ORDER = {"error": 0, "warning": 1}


@dataclass(frozen=True)
class Audit:
    """What is wrong with a data set and how much of everything it holds.

    Attributes:
        layout: The layout it was read as.
        pictures: How many pictures there are.
        findings: What is wrong, errors first.
        counts: Pictures and lesions of each class and subgroup, see `labels.counts`.
        duplicates: Pairs of duplicates, see `copies.copies_table`.
        merged: Ids of the pictures that duplicates join across groups, largest first.
        groups: Image id → joined group, for ``make_folds(groups=...)``.
    """

    layout: str
    pictures: int
    findings: list[Finding]
    counts: pd.DataFrame
    duplicates: pd.DataFrame
    merged: list[list[str]]
    groups: dict[str, str]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def kinds(self) -> list[tuple[str, str, int, Finding]]:
        """Return severity, kind, how many, and the first finding of each kind, errors first."""
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
        """Return everything as what JSON can hold."""
        return {
            "layout": self.layout,
            "pictures": self.pictures,
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
            with atomic(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False, lineterminator="\n")


def audit(
    dataset: Dataset,
    *,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = Limits(),  # noqa: B008
    workers: int = 2,
) -> Audit:
    """Check files, masks, labels and duplicates of ``dataset``.

    Every picture and mask file is read once, pictures at the smallest scale that reads them whole.

    Args:
        dataset: What to check; nothing in it is changed.
        progress: Called with (done, total): first of the pictures read with their masks, then of
            the pairs registered.
        limits: Larger files and pictures are findings.
        workers: Threads.
    """
    with_pictures = dataset.pictures()
    seen, findings = _read_all(with_pictures, limits, workers, progress)
    usable = [picture for picture in seen if picture.look is not None]
    rows = with_pictures.table.loc[[not picture.problem for picture in seen]].reset_index(drop=True)
    near = duplicates.find_duplicates(
        [picture.look for picture in usable if picture.look is not None],
        workers=workers,
        progress=progress,
    )
    copies = copies_table(rows, same_files(usable), near)
    groups, merged, large = merged_groups(copies, with_pictures.table)
    found = [
        *file_findings(seen),
        *layout_findings(dataset.problems),
        *findings,
        *label_findings(dataset),
        *_masks_as_a_whole(with_pictures, limits),
        *copy_findings(copies, rows),
        *large,
    ]
    return Audit(
        layout=dataset.layout,
        pictures=len(with_pictures),
        findings=sorted(found, key=lambda finding: _ORDER[finding.severity]),
        counts=counts(dataset),
        duplicates=copies,
        merged=merged,
        groups=groups,
    )


class _Row(NamedTuple):
    seen: Seen
    findings: list[Finding]


def _read_all(
    dataset: Dataset, limits: Limits, workers: int, progress: Callable[[int, int], None] | None
) -> tuple[list[Seen], list[Finding]]:
    seen: list[Seen] = []
    findings: list[Finding] = []
    for row in in_threads(partial(_read_row, limits=limits), dataset.rows(), workers):
        seen.append(row.seen)
        findings.extend(row.findings)
        if progress is not None:
            progress(len(seen), len(dataset))
    return seen, findings


def _read_row(record: Record, limits: Limits) -> _Row:
    assert record.path is not None
    seen = see(record.image_id, record.path, limits)
    if record.mask_path is None:
        return _Row(seen, [])
    return _Row(seen, _of_mask(record, record.mask_path, seen, limits))


def _masks_as_a_whole(dataset: Dataset, limits: Limits) -> list[Finding]:
    masks = [row.mask_path for row in dataset.rows() if row.mask_path is not None]
    problem = survey(masks, limits).problem()
    return [] if problem is None else [Finding("doubtful masks", "error", "all", problem[0])]


def _of_mask(record: Record, mask: Path, seen: Seen, limits: Limits) -> list[Finding]:
    assert record.path is not None
    return mask_findings(record.image_id, mask, record.path, seen.header, limits)
