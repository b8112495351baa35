"""Large jobs: lists of images, what is written of each, subfolders, batches and progress lines."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.console import TerminalReporter
from naevus.cli.predict import predict
from naevus.datasets.layouts import load
from naevus.datasets.sources import find_images
from naevus.errors import ConfigError, DataError, NaevusError
from naevus.evaluation.mask_metrics import compare_folder
from naevus.images.maskfile import read_mask
from naevus.images.read import write_png
from naevus.inference import batch
from naevus.inference.classifier import Classifier
from naevus.inference.options import OutputOptions
from naevus.inference.predictor import Predictor
from naevus.inference.segmenter import Segmenter
from naevus.io.files import nested, stored
from naevus.runs.evaluate import evaluate_results
from naevus.runs.images import masks_used
from naevus.runs.results import results_of_predictions
from tests.helpers.onnx_graphs import (
    attributes_bundle,
    classification_bundle,
    segmentation_bundle,
    whole_bundle,
)

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


def call(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(predict)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bundles")
    made = classification_bundle(folder / "c", crop_mode="crop", explained=True)
    segmenter = Segmenter(
        segmentation_bundle(folder / "s"), attributes=[attributes_bundle(folder / "a")], threads=1
    )
    return {"segmenter": segmenter, "classifier": Classifier(made, threads=1)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("left", "right"):
        for number in range(3):
            image = rng.integers(100, 250, (40, 60, 3), dtype=np.uint8)
            image[10:30, 10 : 40 + number] = 40
            write_png(tmp_path / "photos" / folder / f"p{number}.png", image)
    return tmp_path / "photos"


def pngs(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*.png")}


# What is written of each image.


@pytest.mark.parametrize(
    ("options", "folders"),
    [
        ({}, {"masks", "attributes", "crops"}),
        ({"masks": False}, {"crops"}),
        ({"crops": False}, {"masks", "attributes"}),
        ({"masks": False, "crops": False}, set()),
        ({"masks": False, "crops": False, "heatmaps": True}, {"heatmaps"}),
    ],
)
def test_what_is_left_out_changes_no_prediction(
    tmp_path: Path, photos: Path, networks: dict[str, Any], options: dict[str, Any],
    folders: set[str],
) -> None:  # fmt: skip
    sources = find_images([photos]).sources
    batch.predict(sources, tmp_path / "all", **networks)
    outputs = OutputOptions(**options)
    result = batch.predict(sources, tmp_path / "out", outputs, **networks)
    assert {name.partition("/")[0] for name in pngs(tmp_path / "out")} == folders
    assert {path.name for path in result.files if path.is_dir()} == folders
    whole, fewer = (
        pd.read_parquet(tmp_path / out / "predictions.parquet") for out in ("all", "out")
    )
    pd.testing.assert_frame_equal(fewer, whole)
    again = batch.predict(sources, tmp_path / "out", outputs, **networks)
    assert again.reused == 6


def test_a_segmenter_alone_may_write_its_table_only(
    tmp_path: Path, photos: Path, networks: dict[str, Any]
) -> None:
    segmenter = networks["segmenter"]
    sources = find_images([photos]).sources
    batch.predict(
        sources, tmp_path / "out", OutputOptions(masks=False, crops=False), segmenter=segmenter
    )
    assert pngs(tmp_path / "out") == set()
    assert (pd.read_parquet(tmp_path / "out" / "predictions.parquet")["lesion_area"] > 0).all()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"only": "masks", "crops": False}, "no crops .*: has no effect where only masks"),
        ({"only": "crops", "masks": False}, "no masks .*: has no effect where only crops"),
        ({"only": "masks", "masks": False}, "no masks .*: has no effect"),
        ({"batch_size": 0}, "a batch of 0 images"),
    ],
)
def test_options_that_do_not_count_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        OutputOptions(**options)


def test_leaving_out_masks_has_no_effect_without_a_segmenter(
    tmp_path: Path, photos: Path, networks: dict[str, Any]
) -> None:
    networks = {**networks, "segmenter": None}
    sources, outputs = find_images([photos]).sources, OutputOptions(masks=False)
    with pytest.raises(ConfigError, match="no bundle here segments"):
        batch.predict(sources, tmp_path / "out", outputs, **networks)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--only", "masks", "--no-crops"), "(--no-crops): has no effect where only masks"),
        (("--only", "crops", "--no-masks"), "(--no-masks): has no effect where only crops"),
        (("--split", "test", "--ids", "path"), "--ids does not apply to the split"),
        (("--split", "test", "--input-list", "l.txt"), "--input-list does not apply"),
    ],
)
def test_words_that_do_not_count_are_refused(
    tmp_path: Path, photos: Path, words: tuple[str, ...], problem: str
) -> None:
    result = call(photos, *words, "--out", tmp_path / "out")
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)
    assert not (tmp_path / "out").exists()


# Subfolders.


def test_nested_files_have_the_bytes_of_flat_ones(
    tmp_path: Path, photos: Path, networks: dict[str, Any]
) -> None:
    sources = find_images([photos]).sources
    assert [each.image_id for each in sources[:2]] == ["left__p0", "left__p1"]
    flat, deep = tmp_path / "flat", tmp_path / "deep"
    batch.predict(sources, flat, OutputOptions(heatmaps=True), **networks)
    batch.predict(sources, deep, OutputOptions(heatmaps=True, nested=True), **networks)
    place = hashlib.sha256(b"left__p1").hexdigest()[:2]
    assert f"masks/{place}/left__p1_segmentation.png" in pngs(deep)
    assert f"crops/{place}/left__p1.png" in pngs(deep)
    assert f"heatmaps/{place}/left__p1.png" in pngs(deep)
    assert len(pngs(flat)) == len(pngs(deep)) == 6 * (1 + 1 + 1 + 5)
    by_name = {path.relative_to(deep).parts[0] + path.name: path for path in deep.rglob("*.png")}
    for path in flat.rglob("*.png"):
        there = by_name[path.parent.name + path.name]
        assert there.read_bytes() == path.read_bytes()
        assert there.parent.parent == deep / path.parent.name


def test_a_nested_job_resumes_repairs_and_tidies_up(
    tmp_path: Path, photos: Path, networks: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    work = partial(
        batch.predict,
        find_images([photos]).sources,
        out,
        OutputOptions(nested=True, batch_size=2),
        **networks,
    )
    work()
    before = pngs(out)
    mask = nested(out / "masks" / "right__p2_segmentation.png", "right__p2")
    left = mask.parent / ".right__p2_segmentation.abcdefgh.tmp.png"
    left.write_bytes(b"")
    mask.unlink()
    result = work()
    assert result.reused == 4
    assert pngs(out) == before
    (photos / "right" / "p2.png").write_bytes(b"")
    assert [each.image_id for each in work().failed] == ["right__p2"]
    assert pngs(out) == {name for name in before if "right__p2" not in name}
    with pytest.raises(NaevusError, match=r"other settings \(nested\)"):
        batch.predict(find_images([photos]).sources, out, OutputOptions(batch_size=2), **networks)


def test_every_reader_finds_nested_masks(tmp_path: Path, synthetic_images: Path) -> None:
    bundle = whole_bundle(tmp_path / "b")
    predictor = Predictor(Segmenter(bundle, threads=1), Classifier(bundle, threads=1))
    dataset = load(synthetic_images).part("task1")
    folder = synthetic_images / "ISIC2018_Task1-2_Training_Input"
    rows = [row for row in dataset.rows() if row.path is not None and row.path.parent == folder]
    scores = {}
    for name, deep in (("flat", False), ("deep", True)):
        predictor.to_folder(folder, tmp_path / name, OutputOptions(nested=deep))
        results = results_of_predictions(tmp_path / name, dataset, allow_missing=True)
        scores[name] = str(evaluate_results(results).segmentation)
        assert results.mask_scores is not None
        truths = {row.image_id: row.mask_path for row in rows if row.mask_path is not None}
        compared = compare_folder(truths, tmp_path / name / "masks")
        assert len(compared) == len(truths) == len(results.mask_scores)
        first = rows[0].image_id
        found = results.predicted_mask(first)
        assert found is not None
        assert (found.parent.parent.name == "masks") == deep
        used = masks_used(dataset.select({row.image_id for row in rows}), tmp_path / name / "masks")
        assert used[first] == found
        assert all(path is not None and read_mask(path).any() for path in used.values())
    assert scores["flat"] == scores["deep"]


def test_a_file_in_its_folder_comes_before_one_in_a_subfolder(tmp_path: Path) -> None:
    path = tmp_path / "masks" / "a_segmentation.png"
    below = nested(path, "a")
    assert stored(path, "a") == path  # neither is there: errors name the usual place
    below.parent.mkdir(parents=True)
    below.touch()
    assert stored(path, "a") == below
    path.touch()
    assert stored(path, "a") == path


# Batches.


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_size_of_a_batch_changes_last_digits_at_most(
    tmp_path: Path, photos: Path, networks: dict[str, Any], size: int
) -> None:
    sources = find_images([photos]).sources
    batch.predict(sources, tmp_path / "usual", **networks)
    seen: list[int] = []
    batch.predict(
        sources, tmp_path / "out", OutputOptions(batch_size=size), **networks,
        progress=lambda done, _: seen.append(done),
    )  # fmt: skip
    assert seen == [0, *range(size, 6, size), 6]
    columns = ["prob_MEL", "balanced_prob_NV", "lesion_area"]
    usual, other = (
        pd.read_parquet(tmp_path / name / "predictions.parquet")[columns].to_numpy(float)
        for name in ("usual", "out")
    )
    np.testing.assert_allclose(other, usual, atol=1e-5)
    with pytest.raises(NaevusError, match=r"other settings \(batch\)"):
        batch.predict(sources, tmp_path / "out", **networks)


# Lists of images.


def test_a_list_is_predicted_and_what_is_missing_is_listed(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_bundle(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "first.txt").write_text("# two\nphotos/left/p0.png\nphotos/left/gone.png\n\n")
    result = call("--input-list", "lists/first.txt", "--bundle", "b", "--no-crops")
    assert result.exit_code == 1, result.output
    assert "1 image predicted" in result.output
    assert "failed: photos/left/gone.png: does not exist" in result.output
    out = tmp_path / "predictions" / "first"
    assert pngs(out) == {"masks/p0_segmentation.png"}
    failed = pd.read_csv(out / "failed.csv")
    assert failed["path"].tolist() == ["photos/left/gone.png"]
    (lists / "bad.txt").write_text("s3://bucket/x.jpg\n")
    refused = call("--input-list", "lists/bad.txt", "--bundle", "b")
    assert isinstance(refused.exception, DataError)
    assert "bad.txt, line 1" in str(refused.exception)
    nothing = call("--bundle", "b")
    assert "no images are named" in str(nothing.exception)


def test_a_list_of_missing_files_ends_with_findings(tmp_path: Path) -> None:
    whole_bundle(tmp_path / "b")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'gone.png'}\n")
    words = ("--bundle", tmp_path / "b", "--out", tmp_path / "out")
    result = call("--input-list", tmp_path / "list.txt", *words)
    assert result.exit_code == 1, result.output
    assert len(pd.read_parquet(tmp_path / "out" / "predictions.parquet")) == 0


def test_parts_of_a_list_join_into_what_the_whole_list_gives(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_bundle(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    names = [f"photos/{path.relative_to(photos).as_posix()}" for path in photos.rglob("*.png")]
    for name, lines in (("all", names), ("one", names[:2]), ("two", names[2:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        words = ("--input-list", f"{name}.txt", "--ids", "path", "--bundle", "b", "--nested")
        result = call(*words, "--batch-size", 1, "--out", f"out/{name}")
        assert result.exit_code == 0, result.output
    whole, one, two = (
        pd.read_parquet(tmp_path / "out" / name / "predictions.parquet")
        for name in ("all", "one", "two")
    )
    joined = pd.concat([one, two]).sort_values("image_id", ignore_index=True)
    pd.testing.assert_frame_equal(joined, whole)
    assert "photos__left__p0.png" in set(whole["image_id"])
    apart = pngs(tmp_path / "out" / "one") | pngs(tmp_path / "out" / "two")
    assert apart == pngs(tmp_path / "out" / "all")


def test_ids_of_another_kind_need_another_folder(tmp_path: Path, photos: Path) -> None:
    whole_bundle(tmp_path / "b")
    words = (photos, "--bundle", tmp_path / "b", "--out", tmp_path / "out")
    assert call(*words).exit_code == 0
    other = call(*words, "--ids", "path")
    assert isinstance(other.exception, NaevusError)
    assert "choose another --out" in str(other.exception)


# Progress where standard error is no terminal.


def test_a_line_a_minute_tells_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TerminalReporter().progress("predicting images", 10_000) as move:
        move(1_000, 10_000)  # of an earlier job
        for seconds, done in ((30, 1_300), (60, 1_600), (90, 1_900), (121, 2_210), (900, 10_000)):
            now[0] = float(seconds)
            move(done, 10_000)
    assert capsys.readouterr().err.splitlines() == [
        "predicting images: 1,600 of 10,000, 10.0/s, 14 min left",
        "predicting images: 2,210 of 10,000, 10.0/s, 12 min 59 s left",
    ]


def test_short_jobs_print_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TerminalReporter().progress("reading", 2) as move:
        for done, seconds in ((0, 0.0), (1, 59.0), (2, 300.0)):
            now[0] = seconds
            move(done, 2)
    assert capsys.readouterr().err == ""


def test_a_job_that_stands_still_says_so_without_a_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TerminalReporter().progress("reading") as move:
        move(0, 5)
        now[0] = 61.0
        move(0, 5)
    assert capsys.readouterr().err == "reading: 0 of 5\n"
