"""Commands on files that are damaged."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner

from naevus.cli.main import app
from naevus.datasets.layouts import load
from naevus.errors import NaevusError
from tests.helpers import ROOT
from tests.helpers.layouts import place_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


TABLE = pd.DataFrame({"image_id": ["a", "b"], "logit_MEL": [0.5, -1.0], "logit_NV": [1.0, 2.0]})


def damaged(path: Path, how: str) -> None:
    """Damage an existing file."""
    whole = path.read_bytes()
    if how == "absent":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"no table at all\n",
                "cut": whole[: len(whole) // 2],
                "tail": whole[:-12] + b"\xff" * 12,
                "footer": whole[: -len(whole) // 3] + b"\x80" * 40 + whole[-8:],
                "bytes": b"\xff\xfe\x00{" * 9,
            }[how]
        )


@pytest.mark.parametrize("how", ["folder", "empty", "text", "cut", "bytes"])
def test_commands_report_damaged_predictions(how: str, tmp_path: Path) -> None:
    table = tmp_path / "predictions.parquet"
    TABLE.to_parquet(table)
    damaged(table, how)
    data = tmp_path / "data" / "NV"
    data.mkdir(parents=True)
    pd.DataFrame({"image": ["a"], "diagnosis": ["NV"]}).to_csv(tmp_path / "t.csv", index=False)
    for words in (["compare", table, table], ["evaluate", tmp_path, "--data", tmp_path / "data"]):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 2, result.output
        assert result.stderr.count("\n") == 1


SLIPS: list[tuple[str, Callable[[str], list[str]]]] = [
    ("absent", lambda value: []),
    ("blank", lambda value: [""]),
    ("twice", lambda value: [value, value]),
    ("of signs", lambda value: ["?"]),
]
FOLDERS = sorted(path.parent for path in (ROOT / "tests" / "data" / "layouts").glob("*/TREE.txt"))


def damaged_tables(table: Path) -> Iterator[tuple[str, str]]:
    """Yield the tables that a slip of the hand makes, each with what was done."""
    heading, *rows = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig"))))
    yield "nothing", ""
    yield "only the heading", ",".join(heading) + "\n"
    yield "a row twice", written([heading, *rows, rows[0]])
    yield "half a row", written([heading, *rows[:-1], rows[-1][: len(heading) // 2]])
    yield "an overlong row", written([heading, *rows, [*rows[0], "more"]])
    for at, name in enumerate(heading):
        what, change = SLIPS[at % len(SLIPS)]
        lines = [[*line[:at], *change(line[at]), *line[at + 1 :]] for line in rows]
        first = [*heading[:at], *[name] * len(change("")), *heading[at + 1 :]]
        yield f"{name} {what}", written([first, *lines])


def written(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("source", FOLDERS, ids=lambda path: path.name)
def test_a_damaged_table_of_a_public_data_set_is_one_line(source: Path, tmp_path: Path) -> None:
    place_layout(source, tmp_path / "data")
    for table in sorted((tmp_path / "data").rglob("*.csv")):
        whole = table.read_bytes()
        for what, content in damaged_tables(table):
            table.write_text(content, encoding="utf-8")
            try:
                found = load(tmp_path / "data").table
            except NaevusError as error:
                refused = str(error)
                assert "\n" not in refused, what
            else:
                assert len(found), what
        table.write_bytes(whole)
