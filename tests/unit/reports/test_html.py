"""The HTML page: cells, sort keys, colours."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import pytest

from naevus.reports import figures
from naevus.reports.document import (
    Document,
    FigureSlot,
    Gallery,
    Headline,
    Section,
    Table,
    Thumbnail,
    grid_of,
    words_of,
)
from naevus.reports.figures import confusion_figure
from naevus.reports.html import render
from tests.helpers.html_page import HtmlPage, contrast

FRAME = pd.DataFrame(
    {
        "class": ["MEL", "<NV>"],
        "recall": [0.5, None],
        "recall_low": [0.4, None],
        "recall_high": [0.6, None],
        "images": [12000, 3],
        "small": [False, True],
    }
)


def page_of(*sections: Section, **parts: Any) -> str:
    synthetic = {
        figure_slot.name: figures.svg(figure_slot.draw())
        for section in sections
        for figure_slot in section.figure_slots
    }
    return render(Document("A title", "A summary.", sections, **parts), synthetic)


def test_numbers_are_rounded_and_share_a_cell_with_intervals() -> None:
    grid = grid_of(Table("classes", "By class", FRAME))
    assert grid.headings == [("class", False), ("recall", True), ("images", True)]
    words = [[cell.words for cell in cells] for cells, _ in grid.rows]
    assert words == [["MEL", "0.500 (0.400 to 0.600)", "12,000"], ["<NV>", "", "3"]]
    assert [float(cells[2].key) for cells, _ in grid.rows] == [12000, 3]
    assert [grey for _, grey in grid.rows] == [False, True]
    assert words_of(-6e-19) == "0.000"


def test_a_table_contains_the_sort_keys_of_its_columns() -> None:
    page = page_of(Section("s", "S", tables=(Table("t", "T", FRAME),)))
    parsed = HtmlPage(page)
    assert parsed.columns == [("class", False), ("recall", True), ("images", True)]
    assert parsed.headlines == ["0.5", "12000.0", "3.0"]
    assert re.search(r'<tr class="small">\s*<th scope="row">&lt;NV&gt;</th>', page)
    assert "<NV>" not in page
    script = page.split("<script>")[1]
    assert 'createElement("button")' in script  # reachable by keyboard
    assert "aria-sort" in script


def test_a_table_without_buttons_can_be_scrolled_by_keyboard() -> None:
    tables = (Table("one", "One row", FRAME.iloc[:1]), Table("two", "Two rows", FRAME))
    page = page_of(Section("s", "S", tables=tables))
    single = '<div class="scroll" tabindex="0" role="region" aria-label="One row">'
    assert page.index(single) < page.index('id="table-one"')
    assert page.count('role="region"') == 1


def test_the_summary_comes_first_and_figures_are_in_order() -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ["A", "B"])
    first = Section("one", "One", figure_slots=(FigureSlot("c", "C", lambda: figure),))
    second = Section("two", "Two", notes=("A note.",), command="naevus train x\nnaevus report y")
    page = page_of(
        first, second, headlines=(Headline("accuracy", "84.7 %", "82.9 to 86.4"),), notes=("N",)
    )
    parsed = HtmlPage(page)
    assert parsed.first_text_of_main == "A summary."
    assert parsed.headings == [("h1", "A title"), ("h2", "One"), ("h2", "Two")]
    assert {"one", "two", "figure-c", "content"} <= set(parsed.ids)
    assert {"#one", "#two", "#content"} <= set(parsed.addresses)
    assert page.index("A summary.") < page.index("84.7 %") < page.index("figure-c")
    assert "naevus train x\nnaevus report y</pre>" in page


def test_narrow_tables_are_beside_figures_and_folded_ones_below() -> None:
    figure = confusion_figure(np.array([[1]]), ["A"])
    wide = FRAME.assign(
        **{f"a column of many words {n}": ["some long words"] * 2 for n in range(5)}
    )
    tables = (
        Table("narrow", "N", FRAME),
        Table("wide", "W", wide),
        Table("folded", "F", FRAME, folded=True),
        Table("empty", "E", FRAME.iloc[:0]),
    )
    page = page_of(
        Section("s", "S", tables=tables, figure_slots=(FigureSlot("c", "C", lambda: figure),))
    )
    beside = page[page.index('<div class="tables">') : page.index('id="table-wide"')]
    assert 'id="table-narrow"' in beside
    assert [grid_of(table).narrow for table in tables] == [True, False, False, False]
    assert re.search(
        r'<details><summary>F</summary>\s*<div class="scroll">\s*<table id="table-fold', page
    )
    assert HtmlPage(page).open == []


def test_galleries_show_images_with_heatmaps() -> None:
    images = (
        Thumbnail("a", ("NV, answered MEL", "probability 0.9"), "QUJD", "REVG", right=False),
        Thumbnail("b", ("NV",), "QUJD", "", right=True),
    )
    page = page_of(Section("s", "S", galleries=(Gallery("g", "G", "note", images),)))
    parsed = HtmlPage(page)
    assert parsed.images == 3
    assert parsed.addresses.count("data:image/jpeg;base64,REVG") == 1
    assert '<span class="wrong">wrong</span><br>NV, answered MEL' in page
    assert '<span class="right">right</span>' in page
    assert parsed.headings[-1] == ("h3", "G")


def themes() -> list[dict[str, str]]:
    """Return the colours of the page by name: light, dark, printed."""
    css = (files("naevus.reports") / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{([^}]+)\}", css)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in blocks]


def test_texts_have_the_contrast_of_wcag_aa() -> None:
    assert len(themes()) == 3
    for theme in themes():
        for paper in ("paper", "card"):
            for ink in ("ink", "strong", "pale", "link", "good", "bad"):
                assert contrast(theme[ink], theme[paper]) >= 4.5, (ink, paper, theme)


def test_lines_are_visible_on_light_and_dark_pages() -> None:
    assert themes()
    assert figures.COLOURS
    for theme in themes():
        for colour in figures.COLOURS:
            synthetic = theme["ink"] if colour == figures.INK else colour
            assert contrast(synthetic, theme["paper"]) >= 3


_SEEN_BY = {  # Machado, Oliveira & Fernandes 2009, severity 1
    "protanope": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip


@pytest.mark.parametrize("reader", _SEEN_BY)
def test_colour_blind_readers_can_distinguish_lines(reader: str) -> None:
    from skimage.color import deltaE_ciede2000, rgb2lab

    rgb = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in figures.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(_SEEN_BY[reader]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    for one in range(len(lab)):
        for other in range(one):
            assert deltaE_ciede2000(lab[one], lab[other]) > 10  # type: ignore[no-untyped-call]
