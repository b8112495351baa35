"""Commands on files that are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner

from naevus.cli.main import app

if TYPE_CHECKING:
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
