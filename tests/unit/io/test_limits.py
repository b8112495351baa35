"""Tables that would fill the memory are an error in one line, before they are read."""

from __future__ import annotations

import io
import json
import os
import threading
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naevus.datasets.folds import Folds
from naevus.datasets.patient_table import PatientTable
from naevus.datasets.selection import lesions_in, paths_in_list
from naevus.errors import ConfigError, NaevusError
from naevus.evaluation.challenge.classification import read_table as read_official
from naevus.io import limits
from naevus.io.formats import read_csv, read_json, read_parquet, read_table
from naevus.runs.recipe import load_recipe
from naevus.runs.run import read_oof

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READERS: dict[str, Callable[[Path], object]] = {
    "table": read_table,
    "metadata": PatientTable.read,
    "lesions": lambda path: lesions_in(path, []),
    "folds": Folds.read,
    "input list": paths_in_list,
    "submission": read_official,
    "own": lambda path: read_csv(path, "write it again"),
}
TABLES = [name for name in READERS if name != "input list"]


def refused(path: Path, read: Callable[[Path], object], problem: str) -> None:
    with pytest.raises(NaevusError, match=problem) as raised:
        read(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(f"; {limits.SMALLER}")
    assert "\n" not in text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("reader", READERS)
def test_more_rows_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, encoding: str, end: str
) -> None:
    monkeypatch.setattr(limits, "ROWS", 50)
    path = tmp_path / "t.csv"
    path.write_bytes(end.join(["image,fold", *(f"i{n},0" for n in range(60))]).encode(encoding))
    refused(path, READERS[reader], "has more than 50 rows")


def test_as_many_rows_as_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROWS", 50)
    path = tmp_path / "t.csv"
    path.write_text("image,fold\n" + "a,0\n" * 50)
    assert len(read_table(path)) == 50
    assert len(read_csv(path, "")) == 50


@pytest.mark.parametrize("reader", TABLES)
def test_more_columns_than_allowed(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "t.csv"
    names = ",".join(f"c{n}" for n in range(9_999))
    path.write_text(f"image_id,{names}\n" + "a,1\n" * 3)
    refused(path, READERS[reader], "has 10,000 columns, more than 1,000")


@pytest.mark.parametrize("reader", TABLES)
def test_few_characters_that_become_many_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setattr(limits, "CELLS", 1000)
    path = tmp_path / "t.csv"
    path.write_text("image_id" + ",b" * 99 + "\n" + "a\n" * 50)
    refused(path, READERS[reader], "has more than 1,000 cells")


@pytest.mark.parametrize("reader", READERS)
def test_a_file_larger_than_allowed_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setattr(limits, "TEXT", 2**20)
    path = tmp_path / "t.csv"
    path.write_bytes(b"image_id,note\na,")
    with path.open("r+b") as stream:  # a cell of a gigabyte, which takes no space
        stream.truncate(2**30)
    tracemalloc.start()
    refused(path, READERS[reader], "is larger than 1 MB")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("quoted", [False, True])
def test_a_cell_longer_than_allowed(tmp_path: Path, quoted: bool) -> None:
    path = tmp_path / "t.csv"
    cell = '"' + "x\n" * 70_000 + '"' if quoted else "x" * 140_000
    path.write_text(f"image_id,note\na,{cell}\n")
    refused(
        path,
        read_table,
        r"has a cell of 1[34].,... characters in the column note, more than 131,072",
    )


def test_a_pipe_is_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TEXT", 2**16)
    for content, fine in (("image_id,dx\na,nv\n", True), ("a,b\n" * 2**17, False)):
        path = tmp_path / f"{fine}.csv"
        os.mkfifo(path)
        writing = threading.Thread(target=_write, args=(path, content), daemon=True)
        writing.start()
        if fine:
            assert read_table(path)["dx"].tolist() == ["nv"]
        else:
            refused(path, read_table, "is larger than")
        writing.join(5)


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content)
    except BrokenPipeError:
        return


# Workbooks


def _workbook(path: Path, rows: list[list[object]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in rows:
        sheet.append(row)
    book.save(path)
    return path


def _changed(path: Path, old: str, new: str) -> None:
    """Replace a text in the first sheet of a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {each: archive.read(each) for each in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert old.encode() in parts[sheet]
    parts[sheet] = parts[sheet].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ({"ROWS": 8}, "has more than 8 rows"),
        ({"COLUMNS": 2}, "has 3 columns, more than 2"),
        ({"CELLS": 20}, "has more than 20 cells"),
        ({"TEXT": 4000}, "is larger than .* when it is unpacked"),
        ({"CELL": 9}, "has a cell of 10 characters, more than 9"),
    ],
)
def test_a_workbook_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], problem: str
) -> None:
    path = _workbook(
        tmp_path / "t.xlsx", [["image_id", "age", "sex"], *[["0123456789", 5, "f"]] * 9]
    )
    assert len(read_table(path)) == 9
    for name, value in limit.items():
        monkeypatch.setattr(limits, name, value)
    refused(path, read_table, problem)


def test_a_workbook_that_states_a_million_rows_takes_no_memory(tmp_path: Path) -> None:
    path = _workbook(tmp_path / "t.xlsx", [["image_id", "age"], ["a", 5]])
    _changed(path, "<sheetData>", '<dimension ref="A1:XFD1048576"/><sheetData>')
    tracemalloc.start()
    table = read_table(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.to_dict("list") == {"image_id": ["a"], "age": ["5"]}
    assert peak < 2**24


def test_empty_cells_at_the_end_of_a_row_are_no_columns(tmp_path: Path) -> None:
    rows: list[list[object]] = [["image_id", "age", *[None] * 2000], ["a", 5, *[None] * 2000]]
    table = read_table(_workbook(tmp_path / "t.xlsx", rows))
    assert table.to_dict("list") == {"image_id": ["a"], "age": ["5"]}


# Parquet


def _parquet(path: Path, table: dict[str, object], **options: object) -> Path:
    pq.write_table(pa.table(table), path, **options)
    return path


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ({"ROWS": 400}, "has more than 400 rows"),
        ({"COLUMNS": 3}, "has 4 columns, more than 3"),
        ({"CELLS": 1000}, "has more than 1,000 cells"),
        ({"MEMORY": 5000}, "has more than .* cells, or .* MB"),
        ({"MEMORY": 100_000}, "has more than .* of text"),
        ({"CELL": 99, "MEMORY": 100_000}, "has a cell of 300 characters in image_id"),
    ],
)
def test_a_parquet_table_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], problem: str
) -> None:
    texts = ["x" * 300 for _ in range(500)]
    path = _parquet(
        tmp_path / "t.parquet",
        {
            "image_id": texts,
            "logit_A": np.zeros(500),
            "logit_B": np.arange(500.0),
            "sets": [["a"]] * 500,
        },
    )
    whole = read_parquet(path, "write it again")
    assert (len(whole), path.stat().st_size < 15_000) == (500, True)
    for name, value in limit.items():
        monkeypatch.setattr(limits, name, value)
    refused(path, lambda path: read_parquet(path, "write it again"), problem)


@pytest.mark.parametrize(("length", "problem"), [(20_000, "MB of text"), (150_000, "150,000")])
@pytest.mark.parametrize("kind", ["text", "bytes", "list"])
def test_a_small_table_of_large_texts_is_not_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, length: int, problem: str
) -> None:
    monkeypatch.setattr(limits, "MEMORY", 2**20)
    text = b"\xff" * length if kind == "bytes" else "x" * length
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int32()), pa.array([text]))
    if kind == "list":
        column = pa.ListArray.from_arrays(pa.array(range(101), pa.int32()), column)
    small = _parquet(tmp_path / "t.parquet", {"image_id": ["a"] * 100, "more": column})
    assert small.stat().st_size < 20_000
    refused(small, lambda path: read_parquet(path, ""), problem)


def test_texts_stored_as_differences_are_refused(tmp_path: Path) -> None:
    path = _parquet(
        tmp_path / "t.parquet",
        {"image_id": ["a", "ab"]},
        use_dictionary=False,
        column_encoding={"image_id": "DELTA_BYTE_ARRAY"},
    )
    refused(path, lambda path: read_parquet(path, ""), "stores texts as differences")


@pytest.mark.parametrize("rows", [0, 3])
def test_limits_leave_other_tables_as_they_are(tmp_path: Path, rows: int) -> None:
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(rows)],
            "prob_MEL": np.linspace(0, 1, rows),
            "predicted": pd.Categorical(["NV"] * rows),
            "flag": [True] * rows,
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    again = read_parquet(tmp_path / "t.parquet", "", text=())
    pd.testing.assert_frame_equal(again, pd.read_parquet(tmp_path / "t.parquet"))


# Settings


@pytest.mark.parametrize(
    ("limit", "value", "problem"),
    [("JSON", 100, "is larger than"), ("JSON_VALUES", 50, "has more than 50 values")],
)
def test_json_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, problem: str
) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"values": [[]] * 60}))
    assert read_json(path, "")
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(NaevusError, match=f"t.json: {problem}"):
        read_json(path, "write it again")


@pytest.mark.parametrize("content", [b"#" * 2**24 + b"#", b"a = " + b"[" * 100_000, b"\xff"])
def test_hostile_toml_is_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"r\.toml: is not TOML \(.*\); correct the file"):
        load_recipe(path)


def test_a_device_without_end_is_read_up_to_the_limit(tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    with pytest.raises(limits.TooLargeError, match="larger than"):
        limits.read_limited(endless, 1000)


def test_an_archive_is_judged_by_its_table_of_contents() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(2**20))
    limits.check_archive(content)


def test_an_out_of_fold_table_of_a_run_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROWS", 1)
    (tmp_path / "fold-0").mkdir()
    path = _parquet(tmp_path / "fold-0" / "oof.parquet", {"image_id": ["a", "b"]})
    refused(path, read_oof, "has more than 1 rows")
