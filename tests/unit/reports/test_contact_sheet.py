"""Contact sheets, the page to leaf through, and the command that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.data import show
from naevus.datasets.synthetic import draw_lesion, write_isic2018
from naevus.errors import DataError
from naevus.images.read import probe, read
from naevus.reports.contact_sheet import (
    PREDICTED_COLOUR,
    TRUTH_COLOUR,
    Tile,
    contact_sheet,
    framed,
    leaf,
    write_browser,
)

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()
app.command()(show)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_isic2018(folder, pictures=40, size=64)
    return folder


def _has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == np.array(colour, np.uint8)).all(axis=-1).any())


def test_a_sheet_holds_every_tile_with_outlines_and_verdicts(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("NV", 1, 96)
    tiles = [
        Tile(pixels, mask, np.roll(mask, 5), f"picture {k}\nsecond line", k % 2 == 0)
        for k in range(7)
    ]
    path = tmp_path / "sheet.png"
    contact_sheet(tiles, path, columns=3, tile=96, title="seven")
    sheet = read(path)
    assert sheet.shape[1] == 10 + 3 * 106
    assert sheet.shape[0] > 3 * 96
    assert _has(sheet, TRUTH_COLOUR)
    assert _has(sheet, PREDICTED_COLOUR)
    again = tmp_path / "again.png"
    contact_sheet(tiles, again, columns=3, tile=96, title="seven")
    assert path.read_bytes() == again.read_bytes()


def test_fewer_tiles_than_columns_make_a_narrow_sheet(tmp_path: Path) -> None:
    pixels, _ = draw_lesion("DF", 1, 64)
    contact_sheet([Tile(pixels)], tmp_path / "one.png", tile=64)
    assert probe(tmp_path / "one.png").width == 10 + 74


def test_no_tiles_make_an_empty_sheet(tmp_path: Path) -> None:
    contact_sheet([], tmp_path / "none.png", title="nothing")
    assert probe(tmp_path / "none.png").width > 0


def test_a_wide_picture_keeps_its_proportions() -> None:
    square = framed(Tile(np.zeros((50, 100, 3), np.uint8), np.ones((25, 50), bool)), 80)
    assert square.shape == (80, 80, 3)
    assert (square[:19] == 238).all()
    assert not (square[40] == 238).all()


def test_long_captions_do_not_leave_their_tile(tmp_path: Path) -> None:
    pixels, _ = draw_lesion("DF", 1, 64)
    short, long = tmp_path / "short.png", tmp_path / "long.png"
    contact_sheet([Tile(pixels, caption="x")], short, tile=64)
    contact_sheet([Tile(pixels, caption="x" * 300)], long, tile=64)
    assert read(short).shape == read(long).shape
    assert (read(long)[:, -10:] == 255).all()


def test_the_page_is_one_file_and_escapes_what_it_shows(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("MEL", 1, 64)
    name = "</script><b>"
    write_browser([leaf(name, [("site", "<i>")], pixels, mask)], tmp_path / "p.html", title="<u>")
    page = (tmp_path / "p.html").read_text()
    assert name not in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert '"outline": "M' in page


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


def test_show_leaves_out_a_broken_picture(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ISIC2018_Task3_Training_Input"
    copy.mkdir()
    pictures = sorted((data / copy.name).glob("*.jpg"))[:3]
    for path in pictures:
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / pictures[0].name).write_bytes(b"no picture")
    out = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, [str(tmp_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"left out: {copy / pictures[0].name}" in " ".join(result.output.split())
    assert probe(out).width == 10 + 2 * 202


def test_show_refuses_what_is_not_there(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(data), "--diagnosis", "XYZ"])
    assert isinstance(result.exception, DataError)
