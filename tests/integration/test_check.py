"""``naevus data check``: findings on the screen and in files."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import typer
from typer.testing import CliRunner

from naevus.cli.data import check
from naevus.images.read import write_png

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def lesion(seed: int, size: int = 160) -> NDArray[np.uint8]:
    """Textured skin with a dark spot in the middle; images differ only in details."""
    random = np.random.default_rng(seed)
    noise = sum(
        cv2.GaussianBlur(random.normal(size=(size, size)), (0, 0), sigma) * sigma * 30
        for sigma in (2, 6, 14)
    )
    y, x = np.mgrid[:size, :size] / size - 0.5
    edge = 0.08 + 0.02 * random.normal() + 0.0002 * np.asarray(noise)
    blotch = 90 / (1 + np.exp((x**2 + y**2 - edge**1.2) * 150))
    grey = 170 + 0.6 * np.asarray(noise) - blotch
    return np.asarray(np.clip(grey[:, :, None] + (25, -10, -20), 0, 255)).astype(np.uint8)


app = typer.Typer()
app.command()(check)


def test_images_without_a_row_are_used_and_warned_of(tmp_path: Path) -> None:
    for number in range(12):
        write_png(tmp_path / f"p{number:02}.png", lesion(number))
    rows = [f"p{number:02}.png,{('nevus', 'melanoma')[number % 2]},60" for number in range(10)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["image,diagnosis,age", *rows, ""]))
    fine = CliRunner().invoke(app, [str(tmp_path)], env={"COLUMNS": "150"})
    assert fine.exit_code == 0, fine.output
    assert re.search(r"warning\s+│ image without row\s+│\s+2 ", fine.stdout), fine.stdout
    assert "12 images" in fine.stdout
    assert "0 errors" in fine.stdout
    table.write_text("\n".join(["image,diagnosis,age", *rows, "p99.png,nevus,about 60", ""]))
    found = CliRunner().invoke(app, [str(tmp_path)], env={"COLUMNS": "150"})
    assert found.exit_code == 1, found.output
    assert re.search(r"error\s+│ row without image\s+│\s+1 ", found.stdout), found.stdout


def test_check_lists_findings_and_writes_them(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(12):
        folder = data / ("NV" if number % 2 else "MEL")
        write_png(folder / f"p{number:02}.png", lesion(number))
    fine = CliRunner().invoke(app, [str(data), "--out", str(out)])
    assert fine.exit_code == 0, fine.output
    assert "12 images" in fine.stdout
    assert str(out) in fine.stdout.splitlines()
    assert {path.name for path in out.iterdir()} == {
        "check.json",
        "findings.csv",
        "duplicates.csv",
    }
    shutil.copy(data / "NV" / "p01.png", data / "MEL" / "p99[x].png")
    found = CliRunner().invoke(app, [str(data)])
    assert found.exit_code == 1
    assert "p01 p99[x]" in found.stdout
    written = CliRunner().invoke(app, [str(data), "--out", str(out), "--json"])
    assert json.loads(written.stdout) == json.loads((out / "check.json").read_text())
    assert len(pd.read_csv(out / "duplicates.csv")) == 1
    assert "exact duplicate" in set(pd.read_csv(out / "findings.csv")["kind"])
