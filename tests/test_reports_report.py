"""The report: figures, page, files beside it, galleries, and the command."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.report import report
from naevus.datasets.layouts import load
from naevus.datasets.synthetic import write_isic2018
from naevus.errors import DataError, RunError
from naevus.evaluation.decisions import rebalance
from naevus.files import write_json
from naevus.images.read import read_mask, write_png
from naevus.reports.content.pictures import _disagreement, _in_turn
from naevus.reports.document import Document, Drawing, Section, Table
from naevus.reports.figures import style
from naevus.reports.figures.confusion import confusion_figure
from naevus.reports.figures.coverage import risk_coverage_figure
from naevus.reports.figures.jaccard import jaccard_figure
from naevus.reports.page import grid_of, render
from naevus.reports.report import make_report, write_report
from naevus.reports.results import of_predictions
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.records import Dataset

app = typer.Typer()
app.command()(report)


class Outline(HTMLParser):
    """Collects tags, ids, references, texts."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.images = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"] or "")
        for name in ("src", "href", "xlink:href"):
            if name in values:
                self.addresses.append(values[name] or "")
        self.images += tag == "img"
        assert tag != "img" or "alt" in values
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_isic2018(folder, pictures=60, size=48)
    return load(folder)


@pytest.fixture(scope="module")
def predictions(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of two made-up networks, and masks that are shifted by a pixel."""
    folder = tmp_path_factory.mktemp("predicted")
    random = np.random.default_rng(0)
    known = data.with_diagnosis().table.drop_duplicates("image_id")
    truth = np.array([ISIC2018.index(code) for code in known["diagnosis"]])
    members = random.dirichlet(np.ones(7), (2, len(known))) + 0.3 * np.eye(7)[truth]
    members /= members.sum(axis=2, keepdims=True)
    natural = members.mean(axis=0)
    table = pd.DataFrame({"image_id": known["image_id"].to_numpy(str)})
    for place, code in enumerate(ISIC2018.codes):
        table[f"p_{code}"] = natural[:, place]
        table[f"b_{code}"] = rebalance(natural, [1 / 7] * 7)[:, place]
    by_picture: list[Any] = [list(map(list, each)) for each in members.transpose(1, 0, 2)]
    table["members"] = by_picture
    masked = data.with_masks().table.drop_duplicates("image_id")
    only_masks = masked[~masked["image_id"].isin(table["image_id"])][["image_id"]]
    pd.concat([table, only_masks]).to_parquet(folder / "predictions.parquet")
    write_json(folder / "predict.json", {"views": "none", "bundles": ["abc"]})
    (folder / "refused.csv").write_text("image_id,path,problem\nbroken,broken.jpg,is empty\n")
    for row in data.with_masks().rows():
        assert row.mask_path is not None
        shifted = np.roll(read_mask(row.mask_path), 1, axis=0)
        write_png(folder / "masks" / f"{row.image_id}_segmentation.png", shifted)
    return folder


@pytest.fixture(scope="module")
def written(data: Dataset, predictions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = make_report(of_predictions(predictions, data))
    return write_report(document, tmp_path_factory.mktemp("report")).parent


def test_the_page_is_well_formed_and_needs_nothing_else(written: Path) -> None:
    page = (written / "report.html").read_text()
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    ids = set(outline.ids)
    for address in outline.addresses:
        assert address.startswith("data:image/jpeg;base64,") or address[1:] in ids, address
    assert all(name in ids for name in re.findall(r"url\(#([^)]+)\)", page))
    without_names = re.sub(r'xmlns(:\w+)?="[^"]+"', "", page)
    assert "http" not in without_names.replace('http-equiv="', "")
    assert len(page) < 10_000_000
    assert style.INK not in page.split("</style>", 1)[1]
    assert "<title>Report of" in page


def test_galleries_show_each_kind(written: Path) -> None:
    page = (written / "report.html").read_text()
    values = json.loads((written / "report.json").read_text())
    galleries = values["sections"]["pictures"]["pictures"]
    assert set(galleries) == {
        "best", "worst", "doubtful", "disagreed", "best-masks", "worst-masks",
    }  # fmt: skip
    assert Outline(page).images == sum(map(len, galleries.values()))
    assert not set(galleries["best"]) & set(galleries["worst"])


def test_every_table_and_figure_stands_beside_the_page(written: Path) -> None:
    values = json.loads((written / "report.json").read_text())
    names = [name for section in values["sections"].values() for name in section["tables"]]
    assert len(names) == len(set(names))
    assert {path.stem for path in (written / "tables").iterdir()} == set(names)
    for name in names:
        table = pd.read_csv(written / "tables" / f"{name}.csv")
        stored = pd.read_parquet(written / "tables" / f"{name}.parquet")
        pd.testing.assert_frame_equal(table, pd.read_csv(StringIO(stored.to_csv(index=False))))
    figures = {path.stem for path in (written / "figures").iterdir()}
    assert figures == {
        "confusion", "roc", "precision-recall", "reliability", "risk-coverage", "jaccard",
    }  # fmt: skip
    for name in figures:
        ET.parse(written / "figures" / f"{name}.svg")
        assert (written / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_summary_tells_the_scores_of_the_tables(written: Path) -> None:
    values = json.loads((written / "report.json").read_text())
    scores = pd.read_csv(written / "tables" / "scores.csv").set_index("score")["value"]
    masks = pd.read_csv(written / "tables" / "mask-scores.csv").set_index("score")["value"]
    assert f"{scores['balanced accuracy']:.1%}" in values["summary"]
    assert f"{masks['jaccard']:.3f}" in values["summary"]
    (unanswered,) = values["sections"]["data"]["tables"]["unanswered"]
    assert unanswered == {"image_id": "broken", "why": "is empty"}


def test_the_same_values_give_the_same_figure() -> None:
    drawn = style.svg(jaccard_figure([0.2, 0.9]))
    assert drawn == style.svg(jaccard_figure([0.2, 0.9]))
    assert style.pdf(jaccard_figure([0.2])) == style.pdf(jaccard_figure([0.2]))


def test_inlined_figures_share_no_ids_and_take_the_ink_of_the_page() -> None:
    curve = pd.DataFrame({"coverage": [0.5, 1.0], "risk": [0.0, 0.1]})
    drawn = style.svg(risk_coverage_figure(curve))
    first, second = style.inlined(drawn, "one"), style.inlined(drawn, "other")
    ids = [set(re.findall(r'\bid="([^"]+)"', each)) for each in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert style.INK in drawn
    assert style.INK not in first
    assert "currentColor" in first
    assert "<style" not in first
    assert "share of wrong answers" in first  # texts are texts


def test_numbers_are_for_reading_and_intervals_share_a_cell() -> None:
    frame = pd.DataFrame(
        {
            "class": ["MEL", "<NV>"],
            "recall": [0.5, None],
            "recall_low": [0.4, None],
            "recall_high": [0.6, None],
            "pictures": [12000, 3],
            "small": [False, True],
        }
    )
    grid = grid_of(Table("classes", "By class", frame))
    assert grid.headings == [("class", False), ("recall", True), ("pictures", True)]
    words = [[cell.words for cell in cells] for cells, _ in grid.rows]
    assert words == [["MEL", "0.500 (0.400 to 0.600)", "12,000"], ["<NV>", "", "3"]]
    assert [float(cells[2].key) for cells, _ in grid.rows] == [12000, 3]
    assert [grey for _, grey in grid.rows] == [False, True]
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ["A", "B"])
    section = Section(
        "s", "S", tables=(Table("t", "T", frame),), drawings=(Drawing("c", "C", figure),)
    )
    page = render(Document("t", "s", (section,)), {"c": style.svg(figure)})
    assert "&lt;NV&gt;" in page
    assert "<NV>" not in page


def test_the_best_are_one_of_each_class_in_turn() -> None:
    classes = np.array([0, 0, 0, 1, 1, 2])
    right = np.array([True, True, True, True, False, True])
    order = np.array([2, 0, 1, 4, 3, 5])
    assert _in_turn(order, classes, right).tolist() == [2, 3, 5, 0, 1]


def test_disagreement_is_between_networks_or_within_a_lesion() -> None:
    natural = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    table = pd.DataFrame({"group_id": ["a", "a", "b"]})
    apart, _ = _disagreement(table, natural)
    assert apart == pytest.approx([0.4, 0.4, 0])
    members: list[Any] = [[[1, 0], [0, 1]], [[0.3, 0.7], [0.3, 0.7]], [[1, 0], [1, 0]]]
    table["members"] = members
    apart, _ = _disagreement(table, natural)
    assert apart == pytest.approx([np.log(2), 0, 0])


def test_a_run_is_reported_without_its_pictures(data: Dataset, tmp_path: Path) -> None:
    from tests.finished_runs import finished_run  # late: torch takes seconds

    run = finished_run(tmp_path / "run", "classification", data.root, folds=(0, 1))
    heldout = pd.concat(
        pd.read_parquet(run.fold_folder(fold) / "heldout.parquet").assign(f=fold) for fold in (0, 1)
    )
    known = data.part("task3").table.set_index("image_id").loc[heldout["image_id"]]
    heldout = heldout.assign(
        truth=known["diagnosis"].to_numpy(), group_id=known["group_id"].to_numpy()
    )
    for code in ISIC2018.codes:
        heldout[f"logit_{code}"] = 2.0 * (heldout["truth"] == code)
    heldout["logit_NV"] += 1.5
    for fold in (0, 1):
        rows = heldout[heldout["f"] == fold]
        rows.iloc[1:].drop(columns="f").to_parquet(run.fold_folder(fold) / "heldout.parquet")
        history = pd.DataFrame({"epoch": [0, 1], "loss": [2.0, 1.0], "inner_score": [0.1, 0.2]})
        history.to_csv(run.fold_folder(fold) / "history.csv", index=False)
    inputs = json.loads((run.folder / "inputs.json").read_text())
    write_json(run.folder / "inputs.json", {**inputs, "data": "moved"})
    result = CliRunner().invoke(app, [str(run.folder)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "moved is not there" in result.output
    values = json.loads((run.folder / "report" / "report.json").read_text())
    sections = values["sections"]
    assert "pictures" not in sections
    assert "subgroups" not in sections
    assert values["summary"].startswith("Held out while training: ")
    assert len(sections["data"]["tables"]["unanswered"]) == 2
    assert sections["provenance"]["command"].startswith("naevus train classification moved")
    assert (run.folder / "report" / "figures" / "learning-loss.svg").exists()
    recipe = {row["name"]: row["value"] for row in sections["provenance"]["tables"]["recipe"]}
    assert recipe["network.backbone"] == "test_resnet"


def test_what_is_no_result_is_refused(data: Dataset, predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run nor predictions"):
        report(tmp_path)
    with pytest.raises(DataError, match="needs the truth"):
        report(predictions)
    table = pd.read_parquet(predictions / "predictions.parquet")
    table.assign(image_id="x" + table["image_id"]).to_parquet(tmp_path / "predictions.parquet")
    write_json(tmp_path / "predict.json", {})
    with pytest.raises(DataError, match="no truth"):
        of_predictions(tmp_path, data)
