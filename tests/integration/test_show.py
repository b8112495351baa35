"""``naevus data show``: contact sheets and pages of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.data import show
from naevus.datasets.synthetic import write_isic2018
from naevus.errors import DataError
from naevus.images.read import probe

if TYPE_CHECKING:
    from pathlib import Path


app = typer.Typer()
app.command()(show)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_isic2018(folder, images=40, size=64)
    return folder


def test_show_writes_a_sheet_of_the_chosen_diagnosis(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, [str(data), "--diagnosis", "mel", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert probe(out).height > 192


def test_show_opens_a_page(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def take(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", take)
    out = tmp_path / "page.html"
    arguments = [str(data), "--window", "--count", "5", "--part", "task3", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert opened == [out.as_uri()]
    assert out.read_text().count('"jpeg":') == 5


def test_show_leaves_out_a_broken_image(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ISIC2018_Task3_Training_Input"
    copy.mkdir()
    images = sorted((data / copy.name).glob("*.jpg"))[:3]
    for path in images:
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / images[0].name).write_bytes(b"no image")
    out = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, [str(tmp_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"left out: {copy / images[0].name}" in " ".join(result.output.split())
    assert probe(out).width == 10 + 3 * 202  # room for the title, too


def test_show_refuses_missing_data(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(data), "--diagnosis", "XYZ"])
    assert isinstance(result.exception, DataError)
