"""Labels that contradict each other, and how many there are of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.audit.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naevus.datasets.records import Dataset

_FEWEST_LESIONS = 5
_AGES = (0, 20, 40, 60, 80, 200)
_AGE_BANDS = ("under 20", "20-39", "40-59", "60-79", "80 and over")
UNKNOWN = "unknown"


def label_findings(dataset: Dataset) -> list[Finding]:
    """Return contradictions within lesions, leaks between splits, and classes with few lesions."""
    table = dataset.table
    findings = [
        *_contradictions(table, "diagnosis", "contradictory diagnoses", "lesion_id"),
        *_contradictions(table, "sex", "contradictory sexes", "lesion_id"),
        *_contradictions(table, "split", "group in several splits", "group_id"),
    ]
    for part, rows in table.groupby("part"):
        known = rows["diagnosis"].notna()
        trained = rows[rows["split"] == "train"]
        absent = int(trained["diagnosis"].isna().sum())
        if known.any() and absent:
            detail = f"{absent} of {len(trained)} training pictures have no diagnosis"
            findings.append(Finding("no diagnosis", "warning", str(part), detail))
        lesions = trained.groupby("diagnosis")["group_id"].nunique()
        findings.extend(
            Finding("few lesions", "warning", f"{part} {code}", f"{count} lesions to train on")
            for code, count in lesions.items()
            if count < _FEWEST_LESIONS
        )
        findings.extend(_without_masks(str(part), rows))
    return findings


def counts(dataset: Dataset) -> pd.DataFrame:
    """Return how many pictures and lesions there are of each class and subgroup.

    Returns:
        Columns ``part, column, value, pictures, lesions``; lesions are groups where no lesion is
        known. Diagnoses stand in the taxonomy's order, ages in bands of twenty years.
    """
    table = dataset.table.assign(age_band=_bands(dataset.table["age"]))
    orders = {"diagnosis": dataset.taxonomy.codes, "age_band": _AGE_BANDS}
    rows = []
    for part, pictures in table.groupby("part", sort=True):
        for column in (
            "image_type",
            "split",
            "diagnosis",
            "sex",
            "age_band",
            "site",
            "confirmation",
        ):
            if pictures[column].isna().all():
                continue
            values = pictures[column].astype("string").fillna(UNKNOWN)
            for value in _ordered(values, orders.get(column, ())):
                of_it = pictures[values == value]
                lesions = of_it["lesion_id"].fillna(of_it["group_id"]).nunique()
                rows.append((part, column, value, len(of_it), lesions))
    return pd.DataFrame(rows, columns=["part", "column", "value", "pictures", "lesions"])


def _without_masks(part: str, rows: pd.DataFrame) -> Iterator[Finding]:
    """Tell of the pictures without a mask, where others of their part have one."""
    without = rows.loc[rows["mask_path"].isna() & rows["path"].notna(), "image_id"].tolist()
    if without and rows["mask_path"].notna().any():
        shown = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
        yield Finding(
            "no mask", "warning", part, f"{len(without)} of {len(rows)} pictures: {shown}"
        )


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
