"""Names and labels that a spreadsheet would run as formulas are written as texts."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from naevus.io.files import FORMULAS, neutral, original, write_csv, write_list
from naevus.io.formats import csv_of, read_table
from naevus.io.workbooks import write_workbook

if TYPE_CHECKING:
    from pathlib import Path

ATTACKS = [
    "=1+1",
    "=cmd|'/C calc'!A0",
    '=HYPERLINK("http://example.org","a")',
    "+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1+1",
    "\uff20SUM(A1)",
]
HARMLESS = ["ISIC_0000000", "a=1", "'quoted", "1e5", "", "\u00e4"]


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


@pytest.mark.parametrize("text", ATTACKS)
def test_a_formula_becomes_a_text_and_back(text: str) -> None:
    assert neutral(text) == f"'{text}"
    assert not neutral(text).startswith(FORMULAS)
    assert original(neutral(text)) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay(text: str) -> None:
    assert neutral(text) == text == original(text)


def test_each_table_for_people_is_neutral(tmp_path: Path) -> None:
    rows = [[text, -0.5] for text in ATTACKS]
    write_csv(tmp_path / "a.csv", ("id", "score"), rows, spreadsheet=True)
    write_list(tmp_path / "b.csv", ("id", "score"), rows)
    frame = pd.DataFrame(rows, columns=["id", "score"])
    (tmp_path / "c.csv").write_text(csv_of(frame), newline="")
    (tmp_path / "d.csv").write_text(csv_of(frame.astype({"id": "category"})), newline="")
    for name in "abcd":
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8-sig") as stream:
            found = list(csv.reader(stream))[1:]
        breaks = "\r" if name in "ab" else "\n"
        texts = [text.replace("\r", breaks) for text in ATTACKS]
        assert found == [[f"'{text}", "-0.5"] for text in texts], name
        assert len(read_table(tmp_path / f"{name}.csv")) == len(ATTACKS)


def test_headings_are_neutral_and_numbers_stay(tmp_path: Path) -> None:
    frame = pd.DataFrame({"=label": [-1, 2], "small": [True, False], "x": [float("nan"), -0.25]})
    assert csv_of(frame) == "'=label,small,x\n-1,True,\n2,False,-0.25\n"


def test_a_workbook_holds_texts(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    texts = [text for text in ATTACKS if "\r" not in text]
    write_workbook(tmp_path / "t.xlsx", ["id", "n"], [[text, 1] for text in texts], {})
    sheet = openpyxl.load_workbook(tmp_path / "t.xlsx").active
    assert [row[0].value for row in sheet.iter_rows(min_row=2)] == texts
    assert {row[0].data_type for row in sheet.iter_rows(min_row=2)} == {"s"}
    assert read_table(tmp_path / "t.xlsx")["id"].tolist() == [text.strip() for text in texts]
