from __future__ import annotations

import codecs
import csv
import errno
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naevus.datasets.sources import find_images, images_of_split, kept_ids, unique
from naevus.errors import ConfigError, DataError, NaevusError
from naevus.evaluation.challenge.lint import lint_classification
from naevus.images import read as reading
from naevus.images.maskfile import read_mask
from naevus.images.measurements import COLUMNS
from naevus.images.preprocess import ImageFiles
from naevus.images.read import read, write_png
from naevus.inference import batch
from naevus.inference.batch import predict
from naevus.inference.classifier import Classifier
from naevus.inference.heatmaps import canvas_of, draw_heatmap
from naevus.inference.options import OutputOptions
from naevus.inference.predictor import Predictor
from naevus.inference.segmenter import Segmenter
from naevus.inference.sheets import first_predictions
from naevus.io import files, parallel
from naevus.runs import prediction_tables, predictions
from naevus.runs.prediction_tables import about
from naevus.runs.predictions import PredictionsFolder
from naevus.taxonomy import ISIC2018
from tests.helpers.onnx_graphs import CONFORMAL, classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from naevus.bundles.bundle import Bundle
    from naevus.images.read import Limits

COUNT = 7


def draw(path: Path, seed: int, height: int = 60, width: int = 90) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(190, 250, (height, width, 3), dtype=np.uint8)
    top, left = rng.integers(5, 20, 2)
    image[top : top + 30, left : left + 40] = rng.integers(20, 110, 3)
    write_png(path, image)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return (
        segmentation_bundle(folder / "s"),
        classification_bundle(folder / "c", crop_mode="crop", seeds=(0, 1)),
    )


@pytest.fixture(scope="module")
def segmenter(bundles: tuple[Bundle, Bundle]) -> Segmenter:
    return Segmenter(bundles[0], threads=1)


@pytest.fixture(scope="module")
def classifier(bundles: tuple[Bundle, Bundle]) -> Classifier:
    return Classifier(bundles[1], threads=1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(COUNT):
        draw(tmp_path / "images" / f"ISIC_{number:07d}.png", number)
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "batches", lambda items, _: parallel.batches(items, 3))


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_writes_masks_crops_and_tables(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    result = predict(
        find_images([images]).sources,
        out,
        segmenter=segmenter,
        classifier=classifier,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (result.predicted, result.reused, result.failed) == (COUNT, 0, ())
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]
    assert len(result.members) == 3
    assert all(path.exists() for path in result.files)
    table = pd.read_parquet(out / "predictions.parquet")
    assert table["image_id"].tolist() == [f"ISIC_{number:07d}" for number in range(COUNT)]
    one = Predictor(segmenter, classifier)(images / "ISIC_0000004.png")
    row = table.iloc[4]
    assert one.mask is not None
    p = row[[f"prob_{code}" for code in ISIC2018.codes]].to_numpy(float)
    b = row[[f"balanced_prob_{code}" for code in ISIC2018.codes]].to_numpy(float)
    np.testing.assert_allclose(p, list(one.probabilities.values()), atol=1e-5)
    np.testing.assert_allclose(b, list(one.balanced_probabilities.values()), atol=1e-5)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert row["predicted"] == ISIC2018.codes[int(p.argmax())]
    assert row["predicted_balanced"] == ISIC2018.codes[int(b.argmax())]
    assert row["confidence"] == pytest.approx(p.max())
    assert np.stack(row["member_probs"]).shape == (2, 7)
    assert row["crop_mode"] == "crop"
    assert list(row["quality_flags"]) == list(one.flags)
    assert row["uncertainty"] == pytest.approx(one.uncertainty)
    assert row["prediction_set"] is None
    assert (row["height"], row["width"]) == (60, 90)
    assert row["path"] == str(images / "ISIC_0000004.png")
    shas = [bundle.sha256 for each in (segmenter, classifier) for bundle in each.bundles]
    assert row["bundle_sha256"] == ",".join(shas)
    mask_path = out / "masks" / "ISIC_0000004_segmentation.png"
    mask = read_mask(mask_path)
    assert mask.shape == (60, 90)
    assert (mask == one.mask).mean() > 0.999
    assert row["lesion_area"] == pytest.approx(mask.mean())
    assert read(out / "crops" / "ISIC_0000004.png").shape == (32, 32, 3)
    metadata = about(out / "predictions.parquet")
    assert metadata["classes"] == list(ISIC2018.codes)
    assert len(metadata["members"]) == 2


@pytest.mark.parametrize(("decision", "kind"), [("balanced", "balanced_prob"), ("natural", "prob")])
def test_the_submission_contains_the_requested_decision(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier,
    decision: Any, kind: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    sources = find_images([images]).sources
    predict(sources, out, segmenter=segmenter, classifier=classifier)
    assert not (out / "submission.csv").exists()  # balanced probabilities, easily misread
    again = predict(
        sources,
        out,
        OutputOptions(submission=True, decision=decision),
        segmenter=segmenter,
        classifier=classifier,
    )
    assert again.reused == COUNT  # the decision needs no new prediction
    assert out / "submission.csv" in again.files
    table = pd.read_parquet(out / "predictions.parquet")
    submission = pd.read_csv(out / "submission.csv")
    assert submission.columns.tolist() == ["image", *ISIC2018.codes]
    assert submission["image"].tolist() == table["image_id"].tolist()
    np.testing.assert_allclose(
        submission[list(ISIC2018.codes)],
        table[[f"{kind}_{code}" for code in ISIC2018.codes]],
        atol=2e-9,
    )
    predict(sources, out, segmenter=segmenter, classifier=classifier)
    pd.testing.assert_frame_equal(pd.read_csv(out / "submission.csv"), submission)
    if decision == "natural":
        with pytest.raises(ConfigError, match="is that of a submission, which is not asked for"):
            predict(
                sources,
                out,
                OutputOptions(decision=decision),
                segmenter=segmenter,
                classifier=classifier,
            )
    with pytest.raises(ConfigError, match="needs the diagnoses of a challenge"):
        predict(
            sources,
            tmp_path / "m",
            OutputOptions(only="masks", submission=True),
            segmenter=segmenter,
        )
    assert not (tmp_path / "m").exists()


def test_the_sheet_is_for_excel(
    tmp_path: Path, images: Path, segmenter: Segmenter, explained: Classifier
) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    draw(images / "=1+1, ä.png", 3)
    (images / "+bad.png").write_bytes(b"")
    out = tmp_path / "out"
    sources = find_images([images]).sources
    result = predict(
        sources, out, OutputOptions(xlsx=True), segmenter=segmenter, classifier=explained
    )
    assert {out / "predictions.csv", out / "predictions.xlsx"} <= set(result.files)
    assert (out / "predictions.csv").read_bytes().startswith(codecs.BOM_UTF8)
    sheet = pd.read_csv(out / "predictions.csv")
    table = pd.read_parquet(out / "predictions.parquet")
    assert sheet["image_id"].tolist()[0] == "'=1+1, ä"
    assert table["image_id"].tolist()[0] == "=1+1, ä"
    assert sheet.columns.tolist()[:5] == [
        "image_id", "predicted", "confidence", "uncertainty", "malignant_prob"
    ]  # fmt: skip
    probabilities = [f"prob_{code}" for code in ISIC2018.codes]
    assert [name for name in sheet.columns if name.startswith("prob_")] == probabilities
    np.testing.assert_allclose(sheet[probabilities], table[probabilities])
    malignant = [f"prob_{each.code}" for each in ISIC2018.diagnoses if each.malignant]
    np.testing.assert_allclose(sheet["malignant_prob"], table[malignant].sum(axis=1))
    for name in ("predicted", "predicted_balanced"):
        assert sheet[name].tolist() == table[name].tolist()
    np.testing.assert_allclose(sheet["confidence"], table[probabilities].max(axis=1))
    assert sheet["prediction_set"].tolist() == table["prediction_set"].map(";".join).tolist()
    assert (
        sheet["quality_flags"].fillna("").tolist() == table["quality_flags"].map(";".join).tolist()
    )
    same = ["lesion_area", *COLUMNS.values(), "height", "width", "uncertainty"]
    np.testing.assert_allclose(sheet[same], table[same])
    book = pd.read_excel(out / "predictions.xlsx")
    assert book.columns.tolist() == sheet.columns.tolist()
    assert book["image_id"].tolist() == table["image_id"].tolist()  # a text is no formula there
    np.testing.assert_allclose(book[probabilities], table[probabilities])
    head, first = openpyxl.load_workbook(out / "predictions.xlsx").active.iter_rows(max_row=2)
    shown = {name.value: cell.number_format for name, cell in zip(head, first, strict=True)}
    assert {shown[name] for name in (*probabilities, "confidence", "malignant_prob")} == {"0.0%"}
    assert shown["lesion_asymmetry"] in {"0.00", "General"}  # blank without a lesion
    assert shown["height"] == "General"
    assert pd.read_csv(out / "failed.csv")["image_id"].tolist() == ["'+bad"]
    assert list(PredictionsFolder(out).problems()) == ["+bad"]
    assert result.answers == table["predicted"].value_counts().to_dict()
    assert result.flags == table["quality_flags"].explode().value_counts().to_dict()
    predict(sources, tmp_path / "masks", OutputOptions(only="masks"), segmenter=segmenter)
    bare = pd.read_csv(tmp_path / "masks" / "predictions.csv").columns.tolist()
    sizes = ["lesion_area", *COLUMNS.values(), "lesion_touches_border", "height", "width"]
    assert bare == ["image_id", "quality_flags", *sizes, "path"]


def test_derived_files_stay_while_the_predictions_do(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    pytest.importorskip("openpyxl")
    out = tmp_path / "out"
    lesions = {f"ISIC_{number:07d}": f"L{number // 2}" for number in range(COUNT)}

    def job(**options: Any) -> batch.BatchResult:
        sources = find_images([images]).sources
        known = options.pop("lesions", None)
        return predict(
            sources, out, OutputOptions(**options),
            segmenter=segmenter, classifier=classifier, lesions=known,
        )  # fmt: skip

    everything = {"xlsx": True, "submission": True}
    assert not job(**everything, lesions=lesions).removed
    book, submission = out / "predictions.xlsx", out / "submission.csv"
    book.write_bytes(b"with a reader's notes")
    for options in ({}, everything, {"xlsx": True}, {"submission": True, "decision": "natural"}):
        result = job(**options, lesions=lesions)
        assert not result.removed
        assert {book, submission} <= set(result.files)
        assert book.read_bytes() == b"with a reader's notes"
    # Without the lesions the table has another column.
    found = job(xlsx=True)
    assert book.read_bytes() != b"with a reader's notes"
    assert {each.name for each in found.removed} == {
        "submission.csv", "lesions.parquet", "lesions.csv"
    }  # fmt: skip
    assert not any(each.exists() or each in found.files for each in found.removed)
    assert f"removed, since it was made from other predictions: {submission}" in str(found)
    draw(images / "ISIC_0000099.png", 99)
    changed = job()
    assert changed.removed == (book,)
    assert not book.exists()
    assert not job().removed


def test_a_job_killed_before_its_table_is_complete_leaves_no_stale_workbook(
    tmp_path: Path, images: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openpyxl")
    out = tmp_path / "out"
    sources = find_images([images]).sources
    predict(sources[1:], out, OutputOptions(xlsx=True), segmenter=segmenter)
    with monkeypatch.context() as patched:
        patched.setattr(batch, "write_sheets", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(sources, out, segmenter=segmenter)
    assert not predict(sources, out, segmenter=segmenter).removed
    assert not (out / "predictions.xlsx").exists()


def test_order_and_threads_do_not_change_the_bytes(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    sources = find_images([images]).sources
    for name, given, threads in (("a", sources, 1), ("b", sources[::-1], 4)):
        predict(given, tmp_path / name, segmenter=segmenter, classifier=classifier, threads=threads)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A classifier of two members with class activation maps."""
    folder = tmp_path_factory.mktemp("explained")
    bundle = classification_bundle(
        folder / "c", crop_mode="crop", seeds=(0, 1), explained=True, conformal=CONFORMAL
    )
    return Classifier(bundle, threads=1)


def test_heatmaps_and_embeddings_are_written_on_request(
    tmp_path: Path, images: Path, segmenter: Segmenter, explained: Classifier
) -> None:
    out = tmp_path / "out"
    draw(images / "large.png", 3, 700, 1000)
    (images / "bad.png").write_bytes(b"")
    result = predict(
        find_images([images]).sources,
        out,
        OutputOptions(heatmaps=True, embeddings=True),
        segmenter=segmenter,
        classifier=explained,
    )
    assert {out / "heatmaps", out / "embeddings.parquet"} <= set(result.files)
    ids = [f"ISIC_{number:07d}" for number in range(COUNT)] + ["large"]
    assert sorted(path.stem for path in (out / "heatmaps").iterdir()) == ids
    height, width, _ = read(out / "heatmaps" / "large.png").shape
    assert (height > 384, width) == (True, 549)
    output = Predictor(segmenter, explained)(images / "ISIC_0000004.png")
    assert output.heatmap is not None
    assert output.mask is not None
    assert output.embedding is not None
    assert output.predicted is not None
    canvas = canvas_of(read(images / "ISIC_0000004.png"), output.mask, {})
    expected = draw_heatmap(output, canvas, output.predicted)
    written = read(out / "heatmaps" / "ISIC_0000004.png")
    assert np.abs(written.astype(int) - expected).max() <= 2
    table = pd.read_parquet(out / "embeddings.parquet")
    assert table["image_id"].tolist() == ids
    assert table["embedding"][4].dtype == np.float16
    assert table["embedding"][4].shape == (16,)  # two members' features
    np.testing.assert_allclose(table["embedding"][4], output.embedding, rtol=2e-3, atol=1e-3)
    assert len(about(out / "embeddings.parquet")["members"]) == 2
    row = pd.read_parquet(out / "predictions.parquet").iloc[4]
    assert tuple(row["prediction_set"]) == output.prediction_set
    assert about(out / "predictions.parquet")["coverage"] == 0.9
    (again,) = first_predictions(out / "predictions.parquet", 1)
    assert str(again) == str(Predictor(segmenter, explained)(images / "ISIC_0000000.png"))


def test_heatmaps_of_any_class(
    tmp_path: Path, images: Path, segmenter: Segmenter, explained: Classifier
) -> None:
    sources, out = find_images([images]).sources, tmp_path / "out"
    wanted: dict[str, Any] = {"segmenter": segmenter, "classifier": explained}
    predict(sources, out, OutputOptions(heatmaps="df"), **wanted)
    output = Predictor(segmenter, explained)(images / "ISIC_0000004.png")
    canvas = canvas_of(read(images / "ISIC_0000004.png"), output.mask, {})
    written = read(out / "heatmaps" / "ISIC_0000004.png").astype(int)
    assert np.abs(written - draw_heatmap(output, canvas, "DF")).max() <= 2
    for other in (True, "MEL"):
        with pytest.raises(NaevusError, match=r"other settings \(heatmaps\)"):
            predict(sources, out, OutputOptions(heatmaps=other), **wanted)
    with pytest.raises(ConfigError, match="heatmaps of 'SCC': the bundle has no such class"):
        predict(sources, tmp_path / "unknown", OutputOptions(heatmaps="SCC"), **wanted)
    assert not (tmp_path / "unknown").exists()


def test_there_are_no_heatmaps_without_diagnoses(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier,
    explained: Classifier,
) -> None:  # fmt: skip
    sources, out = find_images([images]).sources, tmp_path / "out"
    with pytest.raises(ConfigError, match="with the output 'cam'"):
        predict(
            sources, out, OutputOptions(heatmaps=True), segmenter=segmenter, classifier=classifier
        )
    for asked in (OutputOptions(heatmaps=True), OutputOptions(embeddings=True)):
        with pytest.raises(ConfigError, match="none is used here"):
            predict(sources, out, asked, segmenter=segmenter)
        masks = replace(asked, only="masks")
        with pytest.raises(ConfigError, match="none is used here"):
            predict(sources, out, masks, segmenter=segmenter, classifier=explained)
    assert not out.exists()


class _StopError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [0, 3, 6, 7])
def test_an_interrupted_job_resumes_with_the_same_result(
    tmp_path: Path, images: Path, segmenter: Segmenter, explained: Classifier, stop_at: int
) -> None:
    sources = find_images([images]).sources
    wanted: dict[str, Any] = {
        "segmenter": segmenter,
        "classifier": explained,
        "outputs": OutputOptions(heatmaps=True, embeddings=True),
    }
    predict(sources, tmp_path / "whole", **wanted)

    def stop(done: int, _: int) -> None:
        if done == stop_at:
            raise _StopError

    with pytest.raises(_StopError):
        predict(sources, tmp_path / "cut", **wanted, progress=stop)
    result = predict(sources, tmp_path / "cut", **wanted)
    assert result.reused == stop_at
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")


KILLED = """
import os, pathlib, signal, sys
from naevus.bundles.bundle import Bundle
from naevus.datasets.sources import find_images
from naevus.inference import batch
from naevus.inference.classifier import Classifier
from naevus.inference.segmenter import Segmenter
from naevus.io import parallel

folder, images, out = map(pathlib.Path, sys.argv[1:])
batch.batches = lambda items, _: parallel.batches(items, 3)
batch.predict(
    find_images([images]).sources,
    out,
    segmenter=Segmenter(Bundle.read(folder / "s")),
    classifier=Classifier(Bundle.read(folder / "c")),
    progress=lambda done, total: done == 3 and os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_a_killed_job_resumes(
    tmp_path: Path, images: Path, bundles: tuple[Bundle, Bundle], segmenter: Segmenter,
    classifier: Classifier,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    folder = bundles[0].folder.parent
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(images), str(out)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (out / ".parts" / "half.part").write_bytes(b"PAR1")
    (out / "crops" / ".ISIC_0000006.abcd1234.tmp.png").write_bytes(b"")
    sources = find_images([images]).sources
    result = predict(sources, out, segmenter=segmenter, classifier=classifier)
    assert (result.predicted, result.reused) == (COUNT, 3)
    predict(sources, tmp_path / "whole", segmenter=segmenter, classifier=classifier)
    assert contents(tmp_path / "whole") == contents(out)


@pytest.mark.parametrize("parts", [".parts", ".parts/embeddings"])
def test_a_damaged_part_is_predicted_again(
    tmp_path: Path, images: Path, explained: Classifier, segmenter: Segmenter, parts: str
) -> None:
    sources = find_images([images]).sources
    out = tmp_path / "out"
    predict(sources, out, OutputOptions(embeddings=True), segmenter=segmenter, classifier=explained)
    before = contents(out)
    part = min((out / parts).glob("*.part"))
    part.write_bytes(part.read_bytes()[:100])
    again = predict(
        sources, out, OutputOptions(embeddings=True), segmenter=segmenter, classifier=explained
    )
    assert again.reused < COUNT
    assert contents(out) == before


def _rows_of(part: Path) -> pa.Table:
    return pq.read_table(pa.BufferReader(part.read_bytes()[:-32]))


def _write(part: Path, table: pa.Table) -> None:
    """Write a part that is sound but holds other rows."""
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    whole = content.getvalue().to_pybytes()
    part.write_bytes(whole + hashlib.sha256(whole).digest())


def _two_rows_fewer(part: Path) -> None:
    table = _rows_of(part)
    _write(part, table.slice(0, table.num_rows - 2))


def _one_row_called_otherwise(part: Path) -> None:
    table = _rows_of(part)
    ids = ["another", *table.column("image_id").to_pylist()[1:]]
    _write(part, table.set_column(0, table.schema.field(0), [ids]))


def _one_byte_otherwise(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[len(content) // 8] ^= 0xFF
    part.write_bytes(content)


@pytest.mark.parametrize("parts", [".parts", ".parts/embeddings"])
@pytest.mark.parametrize("harm", [_two_rows_fewer, _one_row_called_otherwise, _one_byte_otherwise])
def test_lost_or_changed_rows_are_predicted_again(
    tmp_path: Path, images: Path, explained: Classifier, segmenter: Segmenter, parts: str,
    harm: Callable[[Path], None],
) -> None:  # fmt: skip
    sources, out = find_images([images]).sources, tmp_path / "out"
    wanted: dict[str, Any] = {
        "segmenter": segmenter,
        "classifier": explained,
        "outputs": OutputOptions(embeddings=True),
    }
    predict(sources, out, **wanted)
    before = contents(out)
    harm(max((out / parts).glob("*.part"), key=lambda part: part.stat().st_size))
    again = predict(sources, out, **wanted)
    assert (again.predicted, again.reused < COUNT) == (COUNT, True)
    assert contents(out) == before
    assert predict(sources, out, **wanted).reused == COUNT


@pytest.mark.parametrize("harmed", ["masks", "crops", "heatmaps"])
@pytest.mark.parametrize("left", [0, 60])
def test_truncated_image_files_are_written_again(
    tmp_path: Path, images: Path, explained: Classifier, segmenter: Segmenter, harmed: str,
    left: int,
) -> None:  # fmt: skip
    sources, out = find_images([images]).sources, tmp_path / "out"
    wanted: dict[str, Any] = {
        "segmenter": segmenter,
        "classifier": explained,
        "outputs": OutputOptions(heatmaps=True),
    }
    predict(sources, out, **wanted)
    before = contents(out)
    cut = max((out / harmed).iterdir())
    cut.write_bytes(cut.read_bytes()[:left])
    assert predict(sources, out, **wanted).reused < COUNT
    assert contents(out) == before


def test_a_batch_s_files_are_flushed_before_its_rows_mark_it_as_done(
    tmp_path: Path, images: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    together, flush, replace = files.flush_together, files.flush, Path.replace

    def flushing(path: Path) -> None:
        flushed.append(str(path))
        flush(path)

    def flushing_together(paths: list[Path]) -> None:
        flushed.extend(map(str, paths))
        together(paths)

    def replacing(path: Path, to: Path) -> Path:
        if to.parent.name == ".parts":
            known = set(flushed)
            assert str(path) in known
            ids = _rows_of(path).column("image_id").to_pylist()
            assert {str(out / "crops" / f"{name}.png") for name in ids} <= known
            assert {str(out / "masks" / f"{name}_segmentation.png") for name in ids} <= known
            seen.extend(ids)
        return replace(path, to)

    out, seen = tmp_path / "out", list[str]()
    monkeypatch.setattr(predictions, "flush_together", flushing_together)
    monkeypatch.setattr(prediction_tables, "flush", flushing)
    monkeypatch.setattr(Path, "replace", replacing)
    predict(find_images([images]).sources, out, segmenter=segmenter)
    assert len(seen) == COUNT


def test_files_are_flushed_one_by_one_if_they_cannot_be_flushed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(files, "_flushed_at_once", lambda _: False)
    monkeypatch.setattr(files, "flush", flushed.append)
    files.flush_together([tmp_path / "a" / "1", tmp_path / "a" / "2"])
    assert flushed == [tmp_path / "a" / "1", tmp_path / "a" / "2", tmp_path / "a"]
    files.flush_together([])


@pytest.mark.parametrize("gone", ["masks", "crops", "heatmaps"])
def test_deleted_image_files_are_written_again(
    tmp_path: Path, images: Path, explained: Classifier, segmenter: Segmenter, gone: str
) -> None:
    sources, out = find_images([images]).sources, tmp_path / "out"
    wanted: dict[str, Any] = {
        "segmenter": segmenter,
        "classifier": explained,
        "outputs": OutputOptions(heatmaps=True),
    }
    predict(sources, out, **wanted)
    before = contents(out)
    min((out / gone).iterdir()).unlink()
    assert predict(sources, out, **wanted).reused < COUNT
    assert contents(out) == before
    assert predict(sources, out, **wanted).reused == COUNT


def test_files_of_an_image_that_fails_now_are_deleted(
    tmp_path: Path, images: Path, explained: Classifier, segmenter: Segmenter
) -> None:
    out = tmp_path / "out"
    wanted: dict[str, Any] = {
        "segmenter": segmenter,
        "classifier": explained,
        "outputs": OutputOptions(heatmaps=True),
    }
    predict(find_images([images]).sources, out, **wanted)
    (images / "ISIC_0000005.png").write_bytes(b"")
    predict(find_images([images]).sources, out, **wanted)
    assert not list(out.glob("*/ISIC_0000005*"))
    assert len(list(out.glob("*/ISIC_0000004*"))) == 3


def test_a_changed_image_is_predicted_again(
    tmp_path: Path, images: Path, segmenter: Segmenter, explained: Classifier
) -> None:
    out = tmp_path / "out"
    wanted: dict[str, Any] = {"classifier": explained, "outputs": OutputOptions(embeddings=True)}
    predict(find_images([images]).sources, out, segmenter=segmenter, **wanted)
    draw(images / "ISIC_0000005.png", 99)
    draw(images / "ISIC_0000009.png", 9)
    result = predict(find_images([images]).sources, out, segmenter=segmenter, **wanted)
    assert (result.predicted, result.reused) == (COUNT + 1, 3)
    mask = read_mask(out / "masks" / "ISIC_0000005_segmentation.png")
    expected = segmenter.mask(read(images / "ISIC_0000005.png"))
    assert (mask == expected).mean() > 0.999
    assert len(list((out / ".parts").glob("*.part"))) == 3
    assert len(list((out / ".parts" / "embeddings").iterdir())) == 3


def vanishes(path: Path) -> None:
    path.unlink()


def is_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def becomes_another(path: Path) -> None:
    draw(path, 99)


def fails(path: Path) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("happens", [vanishes, is_cut, becomes_another, fails])
def test_an_image_that_changes_while_it_is_read_is_read_again(
    happens: Callable[[Path], None], tmp_path: Path, images: Path, segmenter: Segmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sources, changing = find_images([images]).sources, images / "ISIC_0000004.png"
    predict(sources, tmp_path / "whole", segmenter=segmenter)
    before, status = changing.read_bytes(), changing.stat()
    opened = reading._opened

    def open_late(source: Path, limits: Limits) -> Any:
        if source == changing:
            try:
                happens(changing)
            except OSError as error:
                raise reading._unreadable(changing, error) from None
        return opened(source, limits)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_opened", open_late)
        first = predict(sources, tmp_path / "out", segmenter=segmenter)
    assert len(first.failed) == (happens is not becomes_another)
    changing.write_bytes(before)
    os.utime(changing, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = predict(sources, tmp_path / "out", segmenter=segmenter)
    assert (again.predicted, again.reused) == (COUNT, COUNT - 3)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert predict(sources, tmp_path / "out", segmenter=segmenter).reused == COUNT


@pytest.mark.parametrize("jump_s", [-(10**9), -3600, 3600, 10**9])
def test_a_clock_that_jumps_loses_nothing(
    jump_s: int, tmp_path: Path, images: Path, segmenter: Segmenter
) -> None:
    out, sources = tmp_path / "out", find_images([images]).sources
    predict(sources, out, segmenter=segmenter)
    before = contents(out)
    for path in images.iterdir():
        os.utime(path, ns=(0, path.stat().st_mtime_ns + jump_s * 10**9))
    parts = {path.name for path in (out / ".parts").iterdir()}
    assert predict(sources, out, segmenter=segmenter).reused == 0
    after = contents(out)
    assert parts.isdisjoint(path.name for path in (out / ".parts").iterdir())
    for name in before.keys() | after.keys():
        assert name.startswith(".parts") or before[name] == after[name]
    for path in out.rglob("*.p*"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + jump_s * 10**9))
    assert predict(sources, out, segmenter=segmenter).reused == COUNT


def test_other_settings_or_images_need_another_folder(
    tmp_path: Path, images: Path, bundles: tuple[Bundle, Bundle], segmenter: Segmenter,
    classifier: Classifier,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    sources = find_images([images]).sources
    predict(sources, out, segmenter=segmenter, classifier=classifier)
    before = contents(out)
    flipped = Segmenter(bundles[0], tta="flips", threads=1)
    with pytest.raises(NaevusError, match=r"other settings \(segmenter\.tta\).*another --out"):
        predict(sources, out, segmenter=flipped, classifier=classifier)
    with pytest.raises(NaevusError, match="other settings"):
        predict(sources, out, OutputOptions(only="masks"), segmenter=segmenter)
    with pytest.raises(NaevusError, match="other images, such as ISIC_0000006"):
        predict(sources[:-1], out, segmenter=segmenter, classifier=classifier)
    assert contents(out) == before


def test_a_folder_with_other_content_is_not_changed(
    tmp_path: Path, images: Path, segmenter: Segmenter
) -> None:
    with pytest.raises(NaevusError, match="holds other files"):
        predict(find_images([images]).sources, images, segmenter=segmenter)
    (tmp_path / "file").write_text("")
    with pytest.raises(NaevusError, match="another --out"):
        predict(find_images([images]).sources, tmp_path / "file", segmenter=segmenter)


def test_unreadable_images_are_listed_and_the_others_predicted(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    (images / "ISIC_0000001.png").write_bytes(b"")
    cut = (images / "ISIC_0000003.png").read_bytes()
    (images / "ISIC_0000003.png").write_bytes(cut[: len(cut) // 2])
    (images / "aaa.jpg").write_bytes(b"no image")
    sources = [*find_images([images]).sources, ImageFiles("zzz", images / "absent.jpg")]
    out = tmp_path / "out"
    result = predict(
        sources, out, OutputOptions(submission=True), segmenter=segmenter, classifier=classifier
    )
    bad = ["ISIC_0000001", "ISIC_0000003", "aaa", "zzz"]
    assert [failed.image_id for failed in result.failed] == bad
    assert result.predicted == COUNT - 2
    with (out / "failed.csv").open(newline="") as stream_:
        rows = list(csv.DictReader(stream_))
    assert [row["image_id"] for row in rows] == bad
    assert all(row["problem"] and "\n" not in row["problem"] for row in rows)
    table = pd.read_parquet(out / "predictions.parquet")
    assert not set(bad) & set(table["image_id"])
    assert len(pd.read_csv(out / "submission.csv")) == COUNT - 2
    again = predict(sources, out, segmenter=segmenter, classifier=classifier)
    assert again.failed == result.failed
    for name in ("ISIC_0000001", "ISIC_0000003", "aaa"):
        suffix = "jpg" if name == "aaa" else "png"
        draw(tmp_path / "good.png", 5)
        (images / f"{name}.{suffix}").write_bytes((tmp_path / "good.png").read_bytes())
    draw(images / "absent.jpg", 6)
    fixed = predict(sources, out, segmenter=segmenter, classifier=classifier)
    assert (fixed.failed, fixed.predicted) == ((), COUNT + 2)
    assert not (out / "failed.csv").exists()


def test_only_unreadable_images_is_an_error(
    tmp_path: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    out = tmp_path / "out"
    result = predict(
        [ImageFiles("a", tmp_path / "a.png")], out, segmenter=segmenter, classifier=classifier
    )
    assert (result.predicted, len(result.failed)) == (0, 1)
    table = pd.read_parquet(out / "predictions.parquet")
    assert len(table) == 0
    assert "prob_MEL" in table.columns


def test_masks_alone_and_crops_alone(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    sources = find_images([images]).sources
    predict(
        sources,
        tmp_path / "m",
        OutputOptions(only="masks"),
        segmenter=segmenter,
        classifier=classifier,
    )
    predict(
        sources,
        tmp_path / "c",
        OutputOptions(only="crops"),
        segmenter=segmenter,
        classifier=classifier,
    )
    predict(sources, tmp_path / "d", OutputOptions(only="crops"), segmenter=segmenter)
    names = {out: {path.name for path in (tmp_path / out).iterdir()} for out in "mcd"}
    tables = {"predictions.csv", "predictions.parquet"}
    common = {".ids.csv", ".lock", ".parts", "predict.json", *tables}
    assert names["m"] == {*common, "masks"}
    assert names["c"] == names["d"] == {*common, "crops"}
    assert read(tmp_path / "c" / "crops" / "ISIC_0000000.png").shape == (32, 32, 3)
    assert read(tmp_path / "d" / "crops" / "ISIC_0000000.png").shape == (256, 256, 3)
    table = pd.read_parquet(tmp_path / "m" / "predictions.parquet")
    assert table["predicted_balanced"].isna().all()
    assert (table["lesion_area"] > 0.1).all()
    with pytest.raises(ConfigError, match="segmentation bundle"):
        predict(sources, tmp_path / "e", OutputOptions(only="crops"), classifier=classifier)
    with pytest.raises(ConfigError, match="segmentation bundle"):
        predict(sources, tmp_path / "e", OutputOptions(only="masks"))


def test_row_groups_are_merged(
    tmp_path: Path, images: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("naevus.runs.prediction_tables._ROW_GROUP", 5)
    predict(find_images([images]).sources, tmp_path / "out", segmenter=segmenter)
    groups = pq.ParquetFile(tmp_path / "out" / "predictions.parquet").metadata.num_row_groups
    assert groups == 2


def test_a_full_disk_is_reported_in_one_line_without_failed_images(
    tmp_path: Path, images: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NaevusError, match="No space left on device"):
        predict(find_images([images]).sources, tmp_path / "out", segmenter=segmenter)


def test_images_are_found_below_folders(tmp_path: Path, images: Path) -> None:
    draw(images / "deep" / "er" / "X.PNG", 1)
    passed = (
        "a_segmentation.png",
        "B_Mask.TIF",
        ".hidden.png",
        ".cache/b.png",
        "notes.txt",
        "README",
    )
    for name in passed:
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"")
    draw(images / "out" / "masks" / "c.png", 1)
    extra = tmp_path / "extra.dat"
    extra.write_bytes(b"")
    again = images / "ISIC_0000003.png"
    found = find_images([images, extra, again], without=images / "out")
    assert [source.image_id for source in found.sources] == [
        *(f"ISIC_{number:07d}" for number in range(COUNT)),
        "X",
        "extra",
    ]
    assert found.left_out == {".txt": 1, "hidden": 2, "masks": 2, "without suffix": 1}
    assert (found.failed, found.renamed) == ([], [])


def test_wrong_inputs_are_errors(tmp_path: Path, images: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "report.pdf").write_bytes(b"")
    with pytest.raises(DataError, match=r"no images there \(1 .pdf\)"):
        find_images([tmp_path / "empty"])
    for absent in ("absent", "x" * 5000, "a/" * 3000):
        with pytest.raises(DataError, match="does not exist"):
            find_images([tmp_path / absent])
    with pytest.raises(DataError, match="path separator"):
        unique([ImageFiles("../x", images / "x.png")])
    with pytest.raises(DataError, match=r"a occurs twice: .*1.png and .*2.png"):
        unique([ImageFiles("a", images / "1.png"), ImageFiles("a", images / "2.png")])


def test_files_with_the_same_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/1.jpg", "2.png", "c/3.png", "3.png"):
        draw(tmp_path / "photos" / name, 1)
    (tmp_path / "photos" / "again.png").symlink_to("2.png")
    (tmp_path / "photos" / "d").mkdir()
    (tmp_path / "photos" / "d" / "2.png").symlink_to("../2.png")
    found = find_images([tmp_path / "photos"])
    names = {
        source.image_id: source.path.relative_to(tmp_path / "photos").as_posix()
        for source in found.sources
    }
    assert names == {
        "a__1": "a/1.png", "b__1.png": "b/1.png", "b__1.jpg": "b/1.jpg", "2": "2.png",
        "c__3": "c/3.png", "3": "3.png", "again": "again.png",
    }  # fmt: skip
    assert found.renamed == ["a__1", "b__1.jpg", "b__1.png", "c__3"]
    several = find_images([tmp_path / "photos" / name for name in ("a", "b/1.png", "2.png")])
    assert [source.image_id for source in several.sources] == ["2", "a__1", "b__1"]


def test_cyclic_links_to_folders_end(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "a" / "1.png", 1)
    draw(tmp_path / "elsewhere" / "2.png", 1)
    (tmp_path / "photos" / "a" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "0").symlink_to(tmp_path / "photos" / "a")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos" / "a")
    (tmp_path / "photos" / "self").symlink_to("self")
    (tmp_path / "photos" / "broken.png").symlink_to("nothing.png")
    found = find_images([tmp_path / "photos"]).sources
    assert [source.path.relative_to(tmp_path).as_posix() for source in found] == [
        "photos/a/1.png", "photos/link/2.png", "photos/broken.png",
    ]  # fmt: skip


def test_a_file_added_later_changes_no_id(
    tmp_path: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"

    def run() -> dict[str, str]:
        found = find_images([photos], without=out, kept=kept_ids(out))
        predict(
            found.sources,
            out,
            OutputOptions(submission=True),
            segmenter=segmenter,
            classifier=classifier,
        )
        table = pd.read_parquet(out / "predictions.parquet")
        ids = table["image_id"].tolist()
        assert sorted(path.stem for path in (out / "crops").iterdir()) == ids
        assert pd.read_csv(out / "submission.csv", dtype={"image": str})["image"].tolist() == ids
        paths = [path.removeprefix(f"{photos}/") for path in table["path"]]
        return dict(zip(paths, ids, strict=True))

    draw(photos / "b" / "1.png", 1)
    draw(photos / "2.png", 2)
    assert run() == {"b/1.png": "1", "2.png": "2"}
    draw(photos / "a" / "1.png", 3)
    draw(photos / "a" / "b" / "2.png", 4)
    assert run() == {"b/1.png": "1", "2.png": "2", "a/1.png": "a__1", "a/b/2.png": "a__b__2"}
    draw(photos / "a__1.png", 5)
    assert run() == {
        "b/1.png": "1", "2.png": "2", "a/1.png": "a__1", "a/b/2.png": "a__b__2",
        "a__1.png": "a__1.png",
    }  # fmt: skip


def test_a_concurrent_job_with_other_ids_is_reported(
    tmp_path: Path, images: Path, segmenter: Segmenter
) -> None:
    (first, *rest) = find_images([images]).sources
    predict([first, *rest], tmp_path / "out", segmenter=segmenter)
    with pytest.raises(NaevusError, match=r"has named .*ISIC_0000000.*start this one again"):
        predict([first._replace(image_id="a"), first, *rest], tmp_path / "out", segmenter=segmenter)


def test_names_that_cannot_be_ids_are_listed(
    tmp_path: Path, images: Path, segmenter: Segmenter, classifier: Classifier
) -> None:
    bad = {
        b"two\nlines.png": "has a line break",
        b"caf\xe9.png": "is not UTF-8; rename",
        b"x" * 240 + b".png": "has 240 bytes",
        b"back\\slash.png": "has a path separator",
    }
    for name in bad:
        Path(os.fsdecode(os.fsencode(images) + b"/" + name)).write_bytes(b"")
    latin = Path(os.fsdecode(os.fsencode(images) + b"/caf\xe9"))
    latin.mkdir()
    (latin / "1.png").write_bytes(b"")
    for odd in ('comma, "quoted"', "=1+1", "@x", "grün", "two words"):
        draw(images / f"{odd}.png", 1)
    found = find_images([images])
    assert len(found.failed) == len(bad) + 1
    for name, problem in bad.items():
        (entry,) = [each for each in found.failed if f"name {problem}" in each.problem]
        assert str(entry.path).isprintable(), name
    out = tmp_path / "out"
    result = predict(
        found.sources,
        out,
        OutputOptions(submission=True),
        segmenter=segmenter,
        classifier=classifier,
        unusable=found.failed,
    )
    assert (result.predicted, len(result.failed)) == (COUNT + 5, len(bad) + 1)
    listed = pd.read_csv(out / "failed.csv")
    assert listed["problem"].str.contains("rename it").all()
    assert "caf\\xe9" in listed["image_id"].tolist()
    submitted = pd.read_csv(out / "submission.csv")["image"].tolist()
    assert submitted == [source.image_id for source in found.sources]
    assert not lint_classification(out / "submission.csv", submitted)


def test_a_split_of_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    draw(folder / "ISIC2018_Task3_Validation_Input" / "ISIC_0000001.jpg", 1)
    draw(folder / "ISIC2018_Task3_Test_Input" / "ISIC_0000002.jpg", 2)
    (found,) = images_of_split([folder], "validation")
    assert found.image_id == "ISIC_0000001"
    draw(folder / "ISIC2018_Task1-2_Test_Input" / "ISIC_0000003.jpg", 3)
    assert len(images_of_split([folder], "test")) == 2
    (alone,) = images_of_split([folder], "test", "task3")
    assert alone.image_id == "ISIC_0000002"
    with pytest.raises(DataError, match="no images in split 'train'"):
        images_of_split([folder], "train")
    with pytest.raises(DataError):
        images_of_split([tmp_path / "data" / "ISIC2018_Task3_Test_Input"], "test")
