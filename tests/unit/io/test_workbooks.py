"""Workbooks that naevus writes for Excel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from naevus.io.workbooks import write_workbook

if TYPE_CHECKING:
    from pathlib import Path


def test_a_workbook_has_the_same_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    rows: list[list[Any]] = [["=1+1", 0.25], ["b", None]]
    for name, now in (("one", 1_000_000_000.0), ("other", 2_000_000_000.0)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        write_workbook(tmp_path / f"{name}.xlsx", ["id", "prob"], rows, {"prob": "0.0%", "no": "0"})
    assert (tmp_path / "one.xlsx").read_bytes() == (tmp_path / "other.xlsx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.xlsx", "other.xlsx"]
    sheet = openpyxl.load_workbook(tmp_path / "one.xlsx").active
    found = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert found == [["id", "prob"], *rows]
    assert sheet["A2"].data_type == "s"
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("B2", "A1:B3")


def test_a_workbook_shows_numbers_in_the_formats_of_their_columns(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    header = ["id", *(f"p{number}" for number in range(30)), "other", "count"]
    rows = [[f"i{number}", *[number / 8] * 31, number] for number in range(5)]
    formats = {**{f"p{number}": "0.0%" for number in range(30)}, "id": "0.00", "count": "0.00"}
    write_workbook(tmp_path / "t.xlsx", header, rows, formats)
    write_workbook(tmp_path / "none.xlsx", header, [], formats)
    sheet = openpyxl.load_workbook(tmp_path / "t.xlsx").active
    assert [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)] == rows
    for row in sheet.iter_rows(min_row=2):
        assert [cell.number_format for cell in row] == ["General", *["0.0%"] * 30, *["General"] * 2]
    assert sheet.auto_filter.ref == "A1:AG6"
    empty = openpyxl.load_workbook(tmp_path / "none.xlsx").active
    assert empty.auto_filter.ref == "A1:AG1"
