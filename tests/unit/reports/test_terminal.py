"""Documents on the terminal."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from naevus.evaluation.comparison import Change, Comparison
from naevus.evaluation.evaluate import evaluate
from naevus.evaluation.intervals import Interval
from naevus.evaluation.labelled import LabelledPredictions
from naevus.evaluation.mask_metrics import MaskComparison, mask_table
from naevus.evaluation.paired_tests import Difference, McNemar
from naevus.reports.document import Document, Section, Table, limits, spread_with_interval
from naevus.reports.report import evaluation_document
from naevus.reports.terminal import CHIEF, comparison_tables, document_lines
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rich.console import RenderableType

    from naevus.evaluation.evaluate import Evaluation

IDS = [f"ISIC_{n:07d}" for n in range(7)]


def shown(document: Document, only: Collection[str] | None = None) -> str:
    console = Console(record=True, width=120, color_system="truecolor", force_terminal=True)
    with console.capture() as capture:
        for line in document_lines(document, only):
            console.print(line)
    return capture.get()


def shown_parts(parts: Iterable[RenderableType]) -> str:
    console = Console(record=True, width=120)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def both() -> Evaluation:
    """Return an evaluation: three of seven classes, three of seven correct; one correct mask."""
    values = 0.3 / 7 + 0.7 * np.eye(7)
    truth = [ISIC2018.codes[n % 3] for n in range(7)]
    table = pd.DataFrame({"image_id": IDS, "group_id": IDS, "diagnosis": truth})
    mask = np.eye(5, dtype=bool)
    masks = mask_table({"ISIC_0000042": MaskComparison.of(mask, mask)}).assign(group_id="g")
    return evaluate(
        "both", labelled=LabelledPredictions(table, values, values, ISIC2018), masks=masks
    )


def test_an_evaluation_is_shown_completely() -> None:
    text = shown(evaluation_document(both()))
    assert "AKIEC, BKL, DF, VASC: no image in the ground truth" in text
    assert "1.000 (1.000 to 1.000)" not in text  # too few lesions for such an interval
    assert "0.429 (0.158 to 0.750)" in text  # Wilson, three of seven
    assert "no interval: too few lesions" in text
    assert "No figure" not in text  # a terminal has none anyway
    assert "Neither figure nor table “Other thresholds”: it needs 30 lesions, there are 1." in text
    undrawn = [one for section in evaluation_document(both()).sections for one in section.undrawn]
    assert "No figure “Jaccard indices”: it needs 30 lesions, there are 1." in undrawn
    assert any(one.startswith("MEL, NV, BCC: no curves") for one in undrawn)
    words = ("both", "Scores of masks", "matrix, natural decision")
    for word in words:
        assert word in text, word
    assert "48;2;" in text  # the confusion matrices have coloured cells
    assert "Reliability curve" not in text  # folded


def test_a_report_shows_its_main_tables_only() -> None:
    text = shown(evaluation_document(both()), CHIEF)
    assert "By diagnosis, balanced decision" in text
    assert "specificity" not in text.split("Operating points", maxsplit=1)[0]
    assert "Confusion" not in text


def test_wide_tables_are_transposed_with_notes_below() -> None:
    frame = pd.DataFrame([{"name": "one", **{f"figure {n}": n / 10 for n in range(6)}}])
    section = Section("s", "S", ("About it.",), (Table("t", "T", frame, "A note."),))
    text = shown(Document("D", "Summary.", (section,)))
    (row,) = (line for line in text.splitlines() if "figure 5" in line)
    assert "0.500" in row
    assert "A note." in text


def test_class_means_skip_absent_classes_and_no_fold_is_named_where_there_is_none() -> None:
    document = evaluation_document(both())
    (confusion,) = document.figure_slots
    assert "over the classes present, is 0.444." in confusion.note  # of three of seven
    texts = [*document.notes, document.summary]
    for section in document.sections:
        texts += [section.title, *section.notes, *(table.note for table in section.tables)]
    assert not [text for text in texts if "fold" in text]


@pytest.mark.parametrize("truth", ["MEL", ""])
def test_a_comparison_shows_no_minus_zero_and_no_empty_column(truth: str) -> None:
    same = Interval(-0.0002, -0.0004, -0.0001)
    found = Comparison(
        "segmentation",
        "a",
        "b",
        9,
        9,
        0,
        0,
        (
            Difference("Jaccard", 0.8, 0.7998, same, 0.5, 9),
            Difference("Dice", 0.8, 0.7998, Interval(0.0004, 0.0001, 0.0004), 0.01, 9),
        ),
        (),
        McNemar(9, 1, 0, 0.5),
        (Change("i", truth, "0.700", "0.600", "broken"),),
    )
    text = shown_parts(comparison_tables(found))
    assert not re.search(r"-0\.0+\b", text), text
    assert not re.search(r"-0\.0+\b", f"{found} {found._repr_html_()}")
    assert ("ground truth" in text) == bool(truth)
    assert "broken" in text


@pytest.mark.parametrize(
    "text",
    [
        str(Interval(-0.0004, -0.0001, -0.0)),
        spread_with_interval(Interval(-0.0004, -0.0001, 0.0001)),
        spread_with_interval(Interval(-0.0004, float("nan"), float("nan"))),
        limits(Interval(0.1, -0.0001, 0.0001), "lesion"),
    ],
)
def test_intervals_have_no_minus_zero(text: str) -> None:
    assert "-" not in text
    assert "0.000" in text


def test_no_figure_is_drawn_for_the_terminal() -> None:
    before = "matplotlib" in sys.modules
    document = evaluation_document(both())
    shown(document)
    assert [slot.name for slot in document.figure_slots] == ["confusion"]
    assert before or "matplotlib" not in sys.modules
