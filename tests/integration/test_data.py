"""``naevus data split`` and ``naevus data download`` from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.data import check, download, show, split
from naevus.datasets.folds import Folds
from naevus.errors import ConfigError, FoldsError
from naevus.images.read import write_png

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

app = typer.Typer()
app.command()(check)
app.command()(show)
app.command()(split)
app.command()(download)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty images in two classes, two per lesion."""
    lines = [
        f"p{number:02}.png,L{number // 2},{'NV' if number % 8 < 6 else 'MEL'}"
        for number in range(40)
    ]
    for line in lines:
        (tmp_path / line.partition(",")[0]).write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("\n".join(["path,lesion_id,diagnosis", *lines]) + "\n")
    return tmp_path


def test_folds_are_written_and_shown(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds.csv"
    result = run("split", data, "--out", out, "--k", 4)
    assert result.exit_code == 0, result.output
    made = Folds.read(out)
    assert made.k == 4
    assert made.sha256 in result.output
    assert "40 images, 20 groups" in result.output
    counts = {
        line.split()[1]: line.split()[3::2] for line in result.output.splitlines() if "│" in line
    }
    assert counts["NV"][-1] == "30"
    assert counts["MEL"][-1] == "10"
    assert counts["groups"] == ["5", "5", "5", "5", "20"]


def test_images_alone_are_checked_shown_and_split(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number in range(4):
        write_png(folder / f"{number}.png", rng.integers(0, 255, (64, 64, 3), np.uint8))
    checked = run("check", folder)
    assert checked.exit_code == 0, checked.output
    assert "4 images, layout unlabelled: 0 errors, 0 warnings" in checked.output
    shown = run("show", folder, "--out", tmp_path / "sheet.png")
    assert shown.exit_code == 0, shown.output
    made = run("split", folder, "--k", 2, "--out", tmp_path / "folds.csv")
    assert made.exit_code == 0, made.output
    assert "every image counts as a lesion" in made.output


@pytest.mark.parametrize("command", ["show", "split"])
def test_columns_that_are_not_used_are_named_once(data: Path, tmp_path: Path, command: str) -> None:
    for path in data.glob("*.png"):
        write_png(path, np.full((16, 16, 3), 90, np.uint8))
    manifest = data / "manifest.csv"
    lines = manifest.read_text().splitlines()
    more = [f"{line},old,x" for line in lines[1:]]
    manifest.write_text("\n".join([f"{lines[0]},age_group,notes", *more]) + "\n")
    folder = tmp_path / "out"
    folder.mkdir()
    words = {"show": ["--out", folder / "sheet.png"], "split": ["--out", folder / "folds.csv"]}
    result = run(command, data, *words[command])
    assert result.exit_code == 0, result.output
    assert result.output.count("ignored: age_group, notes (columns of manifest.csv)") == 1


def test_folds_of_some_images_are_of_whole_lesions_and_of_all_diagnoses(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "some.csv"
    words = ("split", data, "--out", out, "--k", 2, "--no-duplicates")
    result = run(*words, "--limit", 16)
    assert result.exit_code == 0, result.output
    assert "limited: 16 of 40 images are used" in result.output
    table = Folds.read(out).table
    assert len(table) == 16
    assert set(table.groupby("group_id").size()) == {2}
    numbers = table["image_id"].str[1:].astype(int)
    assert set(numbers % 8 < 6) == {True, False}, "one of the diagnoses is absent"
    refused = run("split", data, "--out", tmp_path / "b.csv", "--join", out, "--limit", 16)
    assert "--limit would have no effect" in str(refused.exception)


def test_other_folds_are_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds.csv"
    run("split", data, "--out", out)
    assert run("split", data, "--out", out).exit_code == 0
    result = run("split", data, "--out", out, "--seed", 1)
    assert isinstance(result.exception, FoldsError)
    assert "other folds" in str(result.exception)


def test_folds_of_parts_are_joined(data: Path, tmp_path: Path) -> None:
    halves = [tmp_path / "one.csv", tmp_path / "other.csv"]
    run("split", data, "--out", tmp_path / "all.csv", "--no-duplicates")
    table = Folds.read(tmp_path / "all.csv").table
    for half, of_half in zip(halves, (table[:20], table[20:]), strict=True):
        Folds(of_half.reset_index(drop=True)).write(half)
    out = tmp_path / "joined.csv"
    joining = ["--join", halves[0], "--join", halves[1], "--no-duplicates"]
    result = run("split", data, *joining, "--out", out)
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == (tmp_path / "all.csv").read_bytes()
    result = run("split", data, *joining, "--k", "3", "--part", "task1", "--out", out)
    assert isinstance(result.exception, ConfigError)
    assert "--k, --part would have no effect" in str(result.exception)
    result = run("split", data, *joining[:2], "--no-duplicates", "--out", tmp_path / "half.csv")
    assert isinstance(result.exception, FoldsError)  # the other half is of the same part


def photograph(seed: int) -> np.ndarray:
    """A random image, unlike all others."""
    random = np.random.default_rng(seed)
    blotches = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(blotches, (96, 96), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """Twelve images without lesion ids; ``twin`` is a lighter, rotated copy of ``n0``."""
    for number in range(12):
        write_png(tmp_path / "NV" / f"n{number}.png", photograph(number))
    turned = np.ascontiguousarray(np.rot90(photograph(0)))
    write_png(tmp_path / "NV" / "twin.png", cv2.convertScaleAbs(turned, alpha=0.9, beta=12))
    (tmp_path / "NV" / "broken.png").write_bytes(b"x")
    return tmp_path


def test_missing_lesion_ids_are_reported(nameless: Path, tmp_path: Path) -> None:
    result = run("split", nameless, "--out", tmp_path / "folds.csv", "--k", 3)
    assert result.exit_code == 0, result.output
    assert "no lesion ids" in result.output
    assert "2 images in 1 group merged by duplicates" in result.output
    made = Folds.read(tmp_path / "folds.csv")
    assert sum({"n0", "twin"} <= set(made.held_out(fold)) for fold in range(3)) == 1


def test_download_lists_files() -> None:
    result = run("download")
    assert result.exit_code == 0
    assert "ISIC2018_Task3_Training_LesionGroupings.csv" in result.output
    assert "11,165" in result.output


def test_downloading_an_unknown_task_is_refused() -> None:
    assert isinstance(run("download", "--task", 4).exception, ConfigError)
