"""The page of a report and the files next to it, from simulated predictions."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from naevus.cli.evaluate import evaluate, report
from naevus.cli.main import app
from naevus.datasets.layouts import load
from naevus.datasets.sources import mask_file
from naevus.datasets.synthetic import write_isic2018
from naevus.errors import BundleError, DataError, NaevusError, RunError
from naevus.evaluation.priors import rebalance
from naevus.images.maskfile import read_mask
from naevus.images.quality import typology_angle
from naevus.images.read import read, write_png
from naevus.io.files import write_json
from naevus.reports import figures
from naevus.reports.background import appearances, tone_of
from naevus.reports.gallery import (
    fold_classifiers,
    no_classifier,
    predictions_classifier,
)
from naevus.reports.html import write_report
from naevus.reports.report import make_report
from naevus.runs.evaluate import evaluate_results
from naevus.runs.manifest import prediction_command
from naevus.runs.results import results_of_predictions
from naevus.taxonomy import BINARY, ISIC2018
from tests.helpers.html_page import HtmlPage
from tests.helpers.onnx_graphs import classification_bundle

if TYPE_CHECKING:
    from naevus.bundles.bundle import Bundle
    from naevus.datasets.dataset import Dataset
    from naevus.types import CropMode


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_isic2018(folder, images=60, size=48)
    return load(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return classification_bundle(tmp_path_factory.mktemp("bundle") / "b", explained=True)


@pytest.fixture(scope="module")
def predictions(data: Dataset, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of two simulated networks, and masks that are shifted by a pixel."""
    folder = tmp_path_factory.mktemp("predicted")
    random = np.random.default_rng(0)
    known = data.with_diagnosis().table.drop_duplicates("image_id")
    truth = np.array([ISIC2018.index(code) for code in known["diagnosis"]])
    members = random.dirichlet(np.ones(7), (2, len(known))) + 0.3 * np.eye(7)[truth]
    members /= members.sum(axis=2, keepdims=True)
    natural = members.mean(axis=0)
    table = pd.DataFrame({"image_id": known["image_id"].to_numpy(str)})
    for place, code in enumerate(ISIC2018.codes):
        table[f"prob_{code}"] = natural[:, place]
        table[f"balanced_prob_{code}"] = rebalance(natural, [1 / 7] * 7)[:, place]
    by_image: list[Any] = [list(map(list, each)) for each in members.transpose(1, 0, 2)]
    table["member_probs"] = by_image
    masked = data.with_masks().table.drop_duplicates("image_id")
    only_masks = masked[~masked["image_id"].isin(table["image_id"])][["image_id"]]
    pd.concat([table, only_masks]).to_parquet(folder / "predictions.parquet")
    made_with = {"tta": "flips", "engine": "openvino", "bundles": [bundle.sha256]}
    write_json(folder / "predict.json", {"classifier": made_with, "masks": True})
    (folder / "failed.csv").write_text("image_id,path,problem\nbroken,broken.jpg,is empty\n")
    for row in data.with_masks().rows():
        assert row.mask_path is not None
        shifted = np.roll(read_mask(row.mask_path), 1, axis=0)
        write_png(folder / "masks" / f"{row.image_id}_segmentation.png", shifted)
    return folder


@pytest.fixture(scope="module")
def written(
    data: Dataset, predictions: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    results = results_of_predictions(predictions, data)
    evaluation = evaluate_results(results, appearances(results))
    classifier_of = predictions_classifier(results, [bundle])
    document = make_report(results, evaluation, classifier_of)
    out = tmp_path_factory.mktemp("report")
    return write_report(document, evaluation, out, figures=True).parent


def test_the_page_is_well_formed_and_self_contained(written: Path) -> None:
    page = (written / "report.html").read_text()
    parsed = HtmlPage(page)
    assert parsed.open == []
    assert parsed.headings[0] == ("h1", "Report of " + parsed.title.removeprefix("Report of "))
    levels = [int(level[1]) for level, _ in parsed.headings]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert parsed.first_text_of_main.startswith("Of ")
    assert len(parsed.ids) == len(set(parsed.ids))
    ids = set(parsed.ids)
    for address in parsed.addresses:
        assert address.startswith("data:image/jpeg;base64,") or address[1:] in ids, address
    assert all(name in ids for name in re.findall(r"url\(#([^)]+)\)", page))
    without_names = re.sub(r'xmlns(:\w+)?="[^"]+"', "", page)
    assert "http" not in without_names.replace('http-equiv="', "")
    assert len(page) < 10_000_000
    assert figures.INK not in page.split("</style>", 1)[1]
    assert "<title>Report of" in page


def test_galleries_show_each_kind(written: Path) -> None:
    page = (written / "report.html").read_text()
    values = json.loads((written / "report.json").read_text())
    galleries = values["sections"]["images"]["images"]
    assert set(galleries) == {
        "best", "worst", "uncertain", "disagreed", "best-masks", "usual-masks", "worst-masks",
    }  # fmt: skip
    with_cam = sum(len(galleries[name]) for name in ("best", "worst", "uncertain", "disagreed"))
    assert HtmlPage(page).images == sum(map(len, galleries.values())) + with_cam
    assert not set(galleries["best"]) & set(galleries["worst"])
    assert "Heatmaps:" in page


def test_heatmaps_need_the_bundles_of_the_predictions(
    data: Dataset, predictions: Path, tmp_path: Path
) -> None:
    other = classification_bundle(tmp_path / "other", explained=True, seeds=(5,))
    results = results_of_predictions(predictions, data)
    evaluation = evaluate_results(results)
    with pytest.raises(BundleError, match="other classification bundles"):
        predictions_classifier(results, [other])
    assert predictions_classifier(results, []) is no_classifier
    without = make_report(results, evaluation)
    unseen = make_report(results, evaluation, images=False)
    assert {section.name for section in without.sections} == {
        "images", *(section.name for section in unseen.sections),
    }  # fmt: skip
    assert not any(
        image.cam
        for section in without.sections
        for gallery in section.galleries
        for image in gallery.images
    )


@pytest.mark.parametrize("mode", ["crop", "blank", "full"])
def test_heatmaps_of_crops_need_the_masks(
    data: Dataset, predictions: Path, tmp_path: Path, mode: CropMode
) -> None:
    """Without them the centre square would be drawn, which the network did not get."""
    made = classification_bundle(tmp_path / "b", explained=True, crop_mode=mode)
    folder = shutil.copytree(predictions, tmp_path / "predicted")
    settings = json.loads((folder / "predict.json").read_text())
    settings["classifier"]["bundles"] = [made.sha256]
    (folder / "predict.json").write_text(json.dumps(settings))
    there = results_of_predictions(folder, data)
    assert predictions_classifier(there, [made]) is not no_classifier
    unknown = replace(data, table=data.table.assign(mask_path=None))  # a mask may then be missing
    for mask in sorted((folder / "masks").iterdir())[::2]:
        mask.unlink()
    there = results_of_predictions(folder, unknown)
    report = make_report(there, evaluate_results(there), predictions_classifier(there, [made]))
    shown = [image for section in report.sections for gallery in section.galleries
             for image in gallery.images if not gallery.name.endswith("masks")]  # fmt: skip
    known = [there.predicted_mask(image.image_id) is not None for image in shown]
    assert len(set(known)) == 2
    assert [bool(image.cam) for image in shown] == [mode == "full" or each for each in known]
    shutil.rmtree(folder / "masks")
    results = results_of_predictions(folder, data)
    if mode == "full":
        assert predictions_classifier(results, [made]) is not no_classifier
        return
    with pytest.raises(DataError, match="heatmaps need the masks"):
        predictions_classifier(results, [made])
    gone = replace(results, out_of_fold=True)
    assert fold_classifiers(gone) is no_classifier
    notes = [text for section in make_report(gone, evaluate_results(gone)).sections
             for text in section.notes]  # fmt: skip
    assert "There are no heatmaps: the masks that the crops were made with are gone." in notes


def test_heatmaps_show_the_predicted_class(
    data: Dataset, predictions: Path, bundle: Bundle
) -> None:
    sides = {one.code: "MALIGNANT" if one.malignant else "BENIGN" for one in ISIC2018.diagnoses}
    table = data.table.assign(diagnosis=data.table["diagnosis"].map(sides).astype("string"))
    coarse = replace(data, table=table, taxonomy=BINARY)
    results = results_of_predictions(predictions, coarse)
    assert any("folded into benign" in note for note in results.notes)
    with pytest.raises(
        DataError, match=r"heatmaps are of MEL, .* scored classes are BENIGN, MALIGNANT"
    ):
        predictions_classifier(results, [bundle])


def test_every_table_and_figure_is_written_next_to_the_page(written: Path) -> None:
    values = json.loads((written / "report.json").read_text())
    names = [name for section in values["sections"].values() for name in section["tables"]]
    assert len(names) == len(set(names))
    assert {path.stem for path in (written / "tables").iterdir()} == set(names)
    for name in names:
        table = pd.read_csv(written / "tables" / f"{name}.csv")
        stored = pd.read_parquet(written / "tables" / f"{name}.parquet")
        pd.testing.assert_frame_equal(table, pd.read_csv(StringIO(stored.to_csv(index=False))))
        rows = json.loads((written / "tables" / f"{name}.json").read_text())
        assert len(rows) == len(table)
        assert all(list(row) == list(table.columns) for row in rows)
    figures = {path.stem for path in (written / "figures").iterdir()}
    assert figures == {
        "confusion", "operating-points-roc", "roc", "precision-recall", "jaccard", "thresholds",
    }  # fmt: skip
    notes = [note for section in values["sections"].values() for note in section["notes"]]
    for title in ("Net benefit", "Reliability", "Risk and coverage"):  # of too few lesions
        assert [note for note in notes if f"“{title}”" in note]
    for name in figures:
        ET.parse(written / "figures" / f"{name}.svg")
        assert (written / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_summary_shows_the_scores_of_the_tables(written: Path) -> None:
    values = json.loads((written / "report.json").read_text())
    scores = pd.read_csv(written / "tables" / "scores.csv").set_index("score")["value"]
    masks = pd.read_csv(written / "tables" / "mask-scores.csv").set_index("score")["value"]
    assert f"{100 * scores['balanced accuracy']:.1f} %" in values["summary"]
    assert f"{masks['jaccard']:.3f}" in values["summary"]
    (unanswered,) = values["sections"]["data"]["tables"]["unanswered"]
    assert unanswered == {"image_id": "broken", "why": "is empty"}
    (note,) = values["notes"]
    assert "unknown" in note
    command = values["sections"]["provenance"]["command"].split("\n")
    assert command[0] == (
        "naevus predict IMAGES --bundle BUNDLE --tta flips --engine openvino --out OUT"
    )
    assert command[1] == "naevus report OUT --data data"


MADE_WITH = {"tta": "none", "bundles": ["a"]}


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"segmenter": {**MADE_WITH, "bundles": ["b"]}}, "--bundle BUNDLE --bundle BUNDLE"),
        ({"classifier": {**MADE_WITH, "prevalence": [0.5, 0.5]}}, "--prevalence PREVALENCE"),
        ({"metadata": {"columns": ["age"], "known": {}}}, "--metadata METADATA"),
        ({"metadata": {"columns": ["age"]}}, ""),  # what the data set knows
        ({"metadata": {"columns": [], "mm_per_pixel": 0.02}}, "--mm-per-pixel 0.02"),
        ({"metadata": {"columns": [], "mm_per_pixel": "of each image"}}, "--metadata METADATA"),
        (
            {"metadata": {"columns": ["age"], "known": {}, "mm_per_pixel": 0.02}},
            "--metadata METADATA --mm-per-pixel 0.02",
        ),
        ({"heatmaps": True, "embeddings": True}, "--heatmaps --embeddings"),
        ({"heatmaps": "MEL", "embeddings": False}, "--heatmaps-of MEL"),
        ({"classifier": None, "crops": [], "write_crops": True}, "--only masks"),
        ({"classifier": None, "masks": False, "crops": [{}]}, "--only crops"),
        ({"masks": False, "nested": True}, "--no-masks --nested"),
        ({"write_crops": False, "batch": 8}, "--no-crops --batch-size 8"),
        ({"shard": "2/16"}, "--shard 2/16"),
    ],
)
def test_the_command_has_every_option_that_changes_the_result(
    data: Dataset, settings: dict[str, object], options: str
) -> None:
    made = {"segmenter": MADE_WITH, "classifier": MADE_WITH, "masks": True, "crops": [{}]}
    predicted, reported = prediction_command({**made, **settings}, data).split("\n")
    words = predicted.replace(" --tta none", "").removeprefix("naevus predict IMAGES ")
    one = "" if options.startswith("--bundle") else "--bundle BUNDLE "
    assert words == f"{one}{options}{' ' * bool(options)}--out OUT"
    assert reported == "naevus report OUT --data data"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--figures", "--allow-missing"),
        ("--split", "train", "--part", "task3", "--no-thumbnails", "--allow-missing"),
        ("--bundle", "BUNDLE"),
    ],
)
def test_the_command_has_the_options_of_the_report(
    data: Dataset, predictions: Path, bundle: Bundle, tmp_path: Path, options: tuple[str, ...]
) -> None:
    given = [str(bundle.folder) if word == "BUNDLE" else word for word in options]
    words = ["report", predictions, "--data", data.root, *given, "--out", tmp_path]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    sections = json.loads((tmp_path / "report.json").read_text())["sections"]
    command = sections["provenance"]["command"].split("\n")[1]
    assert command.split() == ["naevus", "report", "OUT", "--data", "data", *options]


def test_images_are_listed_with_skin_tone_and_quality_flags(
    data: Dataset, predictions: Path, bundle: Bundle, tmp_path: Path
) -> None:
    results = results_of_predictions(predictions, data)
    assert results.records is not None
    assert results.labelled is not None
    first, second, third = results.labelled.table["image_id"].head(3)
    dim, broken = tmp_path / "dim.png", tmp_path / "broken.png"
    write_png(dim, np.random.default_rng(0).integers(0, 40, (48, 48, 3), dtype=np.uint8))
    broken.write_bytes(b"no image")
    records = results.records.copy()
    records.loc[[first, second], "path"] = [str(dim), str(broken)]
    reported: list[tuple[int, int]] = []
    found = appearances(
        replace(results, records=records), lambda done, total: reported.append((done, total))
    )
    assert found is not None
    assert found.loc[first, "quality"] == "dark"
    assert second not in found.index
    mask = read_mask(mask_file(predictions / "masks", third))
    pixels = read(Path(str(records.loc[third, "path"])))
    assert found.loc[third, "tone"] == tone_of(typology_angle(pixels, mask))
    assert reported[-1] == (len(results.labelled.table), len(results.labelled.table))
    assert appearances(replace(results, records=None)) is None


def test_images_without_labels_are_nothing_to_score_against(
    data: Dataset, predictions: Path, tmp_path: Path
) -> None:
    for path in data.images().table["path"]:
        (tmp_path / Path(path).name).hardlink_to(path)
    for command in (report, lambda folder, data: evaluate([folder], data=data)):
        with pytest.raises(DataError, match="no diagnoses and no masks") as caught:
            command(predictions, data=tmp_path)
        assert "without --data, naevus report shows" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_folders_without_results_are_refused(
    data: Dataset, predictions: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="neither a run nor predictions"):
        report(tmp_path)
    with pytest.raises(NaevusError, match="is not a table of predictions"):
        report(predictions)  # an overview, of a table that predict did not write
    table = pd.read_parquet(predictions / "predictions.parquet")
    table.assign(image_id="x" + table["image_id"]).to_parquet(tmp_path / "predictions.parquet")
    write_json(tmp_path / "predict.json", {})
    with pytest.raises(DataError, match="no ground truth"):
        results_of_predictions(tmp_path, data)
