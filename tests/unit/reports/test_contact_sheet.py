"""Contact sheets, the browser page, and the command that writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.datasets.synthetic import draw_lesion
from naevus.images.masks import ATTRIBUTE_COLOURS, PREDICTED_COLOUR, TRUTH_COLOUR, hexadecimal
from naevus.images.read import probe, read
from naevus.reports.contact_sheet import Tile, contact_sheet, framed, leaf, write_browser

if TYPE_CHECKING:
    from pathlib import Path


def _has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == np.array(colour, np.uint8)).all(axis=-1).any())


def test_a_sheet_shows_every_tile_with_contours_and_frames(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("NV", 1, 96)
    tiles = [
        Tile(pixels, mask, np.roll(mask, 5), f"image {k}\nsecond line", k % 2 == 0)
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


def test_a_wide_image_keeps_its_proportions() -> None:
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


@pytest.mark.parametrize(
    ("words", "drawn"),
    [("Müller Läsion", "Muller Lasion"), ("Łukasz Öß ñ é", "Lukasz Oss n e"), ("写真 1", "?? 1"),
     ("e\u0301\nα", "e\n?"), ("100 × 200", "100 x 200")],
)  # fmt: skip
def test_words_are_drawn_in_letters_that_the_font_has(
    tmp_path: Path, words: str, drawn: str
) -> None:
    pixels, _ = draw_lesion("DF", 1, 96)
    for name, text in (("given", words), ("plain", drawn)):
        contact_sheet([Tile(pixels, caption=text)], tmp_path / f"{name}.png", title=text)
    given, plain = (tmp_path / f"{name}.png" for name in ("given", "plain"))
    assert given.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_long_title_continues_on_the_next_line(tmp_path: Path, count: int) -> None:
    pixels, _ = draw_lesion("DF", 1, 96)
    heights = []
    for title in ("a title", "a longer title: " + "of many words " * 12):
        contact_sheet([Tile(pixels)] * count, tmp_path / "sheet.png", title=title)
        heights.append(read(tmp_path / "sheet.png").shape[0])
    assert heights[1] - heights[0] >= 30
    assert probe(tmp_path / "sheet.png").width >= 600


def test_the_legend_names_all_contours_and_has_as_many_lines_as_it_needs(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("NV", 1, 96)
    path, again = tmp_path / "sheet.png", tmp_path / "again.png"
    colours = {name: ATTRIBUTE_COLOURS[name] for name in ("globules", "streaks")}
    contact_sheet([Tile(pixels, attributes={"globules": mask, "streaks": mask & False})], path)
    assert _has(read(path)[:25], colours["globules"])
    assert not _has(read(path)[:25], colours["streaks"])
    contact_sheet([Tile(pixels)], path, legend=list(colours.items()))
    for colour in colours.values():
        assert _has(read(path)[:25], colour)
    contact_sheet([Tile(pixels)], again, legend=list(colours.items()) * 6)
    assert read(again).shape[0] > read(path).shape[0]


def test_the_page_is_one_file_and_escapes_text(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("MEL", 1, 64)
    name = "</script><b>"
    write_browser([leaf(name, [("site", "<i>")], pixels, mask)], tmp_path / "p.html", title="<u>")
    page = (tmp_path / "p.html").read_text()
    assert name not in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert '"contours": "M' in page
    assert f"--line: {hexadecimal(TRUTH_COLOUR)};" in page
