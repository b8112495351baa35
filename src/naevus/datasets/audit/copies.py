"""Pictures that are in the data more than once: what follows for groups, splits and labels."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus.datasets.audit.duplicates import components
from naevus.datasets.audit.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from naevus.datasets.audit.duplicates import Match

LARGEST_MERGE = 12
"""Groups joined into more pictures than this are told and left as they are."""

COLUMNS = (
    "image_a", "image_b", "part_a", "part_b", "group_a", "group_b", "kind", "view", "correlation",
)  # fmt: skip


def copies_table(
    rows: pd.DataFrame, same: Iterable[tuple[int, int]], near: Iterable[Match]
) -> pd.DataFrame:
    """Return the duplicate pairs.

    Args:
        rows: The pictures' rows of the data set's table, by position.
        same: Positions of files with the same bytes.
        near: Confirmed near-duplicates.

    Returns:
        The columns `COLUMNS`; ``kind`` is ``exact`` or ``near``, ``view`` the view of the second
        picture that fits the first. A near pair of files with the same bytes is left out.
    """
    exact = list(same)
    alike = {position: first for first, position in exact}
    pairs = [(one, other, "exact", 0, 1.0) for one, other in exact]
    for one, other, view, correlation in near:
        if alike.get(one, one) != alike.get(other, other):
            pairs.append((one, other, "near", view, round(correlation, 4)))
    columns = [rows[name].tolist() for name in ("image_id", "part", "group_id")]
    table = [
        (*(column[at] for column in columns for at in (one, other)), kind, view, correlation)
        for one, other, kind, view, correlation in pairs
    ]
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    return frame[(frame["image_a"] != frame["image_b"]) | (frame["kind"] == "near")]


def merged_groups(
    copies: pd.DataFrame, rows: pd.DataFrame
) -> tuple[dict[str, str], list[list[str]], list[Finding]]:
    """Join the groups that duplicates connect.

    Returns:
        Image id → joined group, for pictures whose group grew; the joined groups' picture ids,
        largest first; and a finding for each that would hold more than `LARGEST_MERGE` pictures
        and is therefore not joined.
    """
    members = rows.groupby("group_id")["image_id"].agg(list).to_dict()
    across = copies[copies["group_a"] != copies["group_b"]]
    groups: dict[str, str] = {}
    merged, findings = [], []
    for names in components(zip(across["group_a"], across["group_b"], strict=True)):
        pictures = sorted(image_id for name in names for image_id in members[name])
        merged.append(pictures)
        if len(pictures) > LARGEST_MERGE:
            detail = f"{len(pictures)} pictures of {len(names)} groups; not merged, look at them"
            findings.append(Finding("large merged component", "error", pictures[0], detail))
        else:
            groups.update(dict.fromkeys(pictures, min(names)))
    return groups, sorted(merged, key=len, reverse=True), findings


def copy_findings(copies: pd.DataFrame, rows: pd.DataFrame) -> list[Finding]:
    """Return what duplicates break: one file twice, labels, splits; and lesions that are one."""
    known = {(row.part, row.image_id): row for row in rows.itertuples()}
    findings: list[Finding] = []
    for pair in copies.itertuples():
        one, other = known[pair.part_a, pair.image_a], known[pair.part_b, pair.image_b]
        findings.extend(_pair_findings(pair, one, other))
    return findings


def _pair_findings(pair: Any, one: Any, other: Any) -> Iterator[Finding]:
    subject = f"{pair.image_a} {pair.image_b}"
    if pair.kind == "exact":
        yield Finding("exact duplicate", "error", subject, "the files have the same bytes")
    elif pair.group_a != pair.group_b:
        tasks = "across tasks" if pair.part_a != pair.part_b else "across lesions"
        detail = f"{pair.group_a} and {pair.group_b}, correlation {pair.correlation:.3f}"
        yield Finding(f"near-duplicate {tasks}", "warning", subject, detail)
    for column, kind in (("split", "splits"), ("diagnosis", "diagnoses")):
        values = getattr(one, column), getattr(other, column)
        if pd.notna(values[0]) and pd.notna(values[1]) and values[0] != values[1]:
            detail = f"{values[0]} and {values[1]}"
            yield Finding(f"duplicate with different {kind}", "error", subject, detail)


def summary(copies: pd.DataFrame) -> dict[str, int]:
    """Return how many pairs of each sort there are."""
    across = copies["group_a"] != copies["group_b"]
    tasks = copies["part_a"] != copies["part_b"]
    kinds = Counter(copies["kind"])
    return {
        "exact pairs": kinds["exact"],
        "near pairs of one group": int(((copies["kind"] == "near") & ~across).sum()),
        "near pairs across lesions": int(((copies["kind"] == "near") & across & ~tasks).sum()),
        "near pairs across tasks": int(((copies["kind"] == "near") & across & tasks).sum()),
    }
