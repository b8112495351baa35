from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import naevus
from naevus.bundles import bundle
from naevus.cli.main import app
from naevus.cli.predict import predict
from naevus.errors import BundleError, ConfigError, DataError
from naevus.evaluation.conformal import Conformal
from naevus.images.read import read, write_png
from naevus.inference.engines import openvino
from naevus.inference.prediction import NOTICE
from naevus.inference.sheets import first_predictions
from naevus.runs.prediction_tables import about
from naevus.taxonomy import ATTRIBUTES, ISIC2018
from naevus.types import FLAGS
from tests.helpers.attribute_images import draw
from tests.helpers.onnx_graphs import (
    CONFORMAL,
    PATIENT,
    attributes_bundle,
    classification_bundle,
    segmentation_bundle,
    whole_bundle,
)

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


def call(*arguments: object) -> Result:
    alone = typer.Typer()
    alone.command()(predict)
    return CliRunner().invoke(alone, list(map(str, arguments)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        image = rng.integers(100, 250, (40, 60, 3), dtype=np.uint8)
        image[10:30, 10:40] = 40
        write_png(tmp_path / "images" / f"p{number}.png", image)
    return tmp_path / "images"


def test_a_run_and_a_bundle_predict_a_folder(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    for fold in range(2):
        (tmp_path / "run" / f"fold-{fold}").mkdir(parents=True)
        classification_bundle(
            tmp_path / "run" / f"fold-{fold}" / "bundle", seeds=(fold,), crop_mode="crop"
        )
    bundles = ("--bundle", tmp_path / "run", "--bundle", tmp_path / "s")
    result = call(images, *bundles, "--out", tmp_path / "out", "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "3 images predicted by 3 networks" in result.output
    assert (tmp_path / "out" / "predictions.csv").exists()
    assert not (tmp_path / "out" / "submission.csv").exists()
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    summary = [line.split() for line in result.output.partition("Summary")[2].splitlines()]
    for code, number in table["predicted"].value_counts().items():
        assert ["predicted", code, str(number), f"{number / 3:.1%}"] in summary
    for flag, number in table["quality_flags"].explode().value_counts().items():
        assert ["flag", flag, str(number), f"{number / 3:.1%}"] in summary
    assert ["failed", "0", "0.0%"] in summary
    (images / "bad.jpg").write_bytes(b"")
    result = call(images, *bundles, "--out", tmp_path / "out", "--threads", 1)
    assert result.exit_code == 1
    assert "bad.jpg: is empty; fetch it again from its source\n" in result.output
    assert "failed              1" in result.output
    alone = call(images / "bad.jpg", *bundles, "--out", tmp_path / "alone", "--threads", 1)
    assert alone.exit_code == 1
    assert alone.output.startswith("0 images predicted")
    assert "crops" not in alone.output


def test_a_limit_predicts_images_spread_over_all_and_says_so(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    words = (images, "--bundle", tmp_path / "s", "--out", tmp_path / "out", "--threads", 1)
    result = call(*words, "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "limited: 2 of 3 images are predicted, spread evenly over all" in result.output
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert table["image_id"].tolist() == ["p0", "p2"]
    whole = call(*words)
    assert whole.exit_code == 0, whole.output
    assert "limited" not in whole.output
    assert len(pd.read_parquet(tmp_path / "out" / "predictions.parquet")) == 3


def test_the_default_output_folder_is_named_after_the_first_input(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmentation_bundle(tmp_path / "s")
    classification_bundle(tmp_path / "c", seeds=(0, 1), taxonomy="isic2018")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    bundles = ("--bundle", tmp_path / "s", "--bundle", tmp_path / "c")
    one = call(images / "p1.png", *bundles)
    assert one.exit_code == 0, one.output
    assert [each.name for each in (tmp_path / "elsewhere" / "predictions").iterdir()] == ["p1"]
    several = call(images, *bundles)
    assert several.exit_code == 0, several.output
    table = pd.read_parquet("predictions/images/predictions.parquet").set_index("image_id")
    for name, row in table.iterrows():
        (line,) = (line for line in several.output.splitlines() if f" {name} " in line)
        cells = line.split()
        natural = {code: row[f"prob_{code}"] for code in ISIC2018.codes}
        malignant = sum(natural[each.code] for each in ISIC2018.diagnoses if each.malignant)
        assert cells[1:3] == [f"{natural['MEL']:.2f}", f"{malignant:.2f}"]  # melanoma first
        assert cells[3] == max(natural, key=lambda code: natural[code])
        assert cells[4] == f"{max(natural.values()):.2f}"
    again = call(images, *bundles)
    assert "3 of them were predicted by an earlier job." in again.output
    other = call(images, *bundles, "--tta", "flips")
    assert "predictions/images holds predictions made with other settings" in str(other.exception)
    everything = call(".", "--bundle", tmp_path / "s", "--only", "masks")
    assert "no images there" in str(everything.exception)  # earlier predictions are not images


def test_masks_alone_need_no_classifier(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    out = tmp_path / "out"
    result = call(images / "p1.png", "--bundle", tmp_path / "s", "--only", "masks", "--out", out)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (out / "masks").iterdir()] == ["p1_segmentation.png"]
    assert "lesion area: fraction" in result.output  # the legend is of the columns there are
    assert "±" not in result.output
    assert not (out / "crops").exists()


def test_the_prediction_of_one_image_is_printed(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL)
    words = (images / "p1.png", "--bundle", tmp_path / "b", "--out", tmp_path / "out")
    result = call(*words, "--heatmaps", "--embeddings")
    assert result.exit_code == 0, result.output
    for output in (
        "p1\n",
        "Most probable: ",
        "Prediction set: ",
        "Confidence: ",
        NOTICE,
        "1 image predicted by 2 networks",
    ):
        assert output in result.output
    assert (tmp_path / "out" / "heatmaps" / "p1.png").exists()
    assert (tmp_path / "out" / "embeddings.parquet").exists()
    again = call(*words, "--heatmaps", "--embeddings")  # already predicted
    assert again.output.startswith(result.output.partition("1 image predicted")[0])
    several = call(images, "--bundle", tmp_path / "b", "--out", tmp_path / "all")
    assert "Most probable" not in several.output


def test_a_single_mask_is_reported_too(tmp_path: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    write_png(tmp_path / "dark.png", np.full((60, 80, 3), 20, np.uint8))
    words = (tmp_path / "dark.png", "--bundle", tmp_path / "s", "--out", tmp_path / "out")
    result = call(*words)
    assert result.exit_code == 0, result.output
    written = " ".join(result.output.split())
    assert "The lesion covers 100.0% of the image and reaches its border, so its size" in written
    assert FLAGS["dark"] in written
    assert NOTICE in result.output


def test_the_built_in_bundle_is_the_default(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "BUILTIN", tmp_path / "builtin")
    words = (images, "--out", tmp_path / "out")
    absent = call(*words)
    assert isinstance(absent.exception, BundleError)
    assert "--bundle DIR" in str(absent.exception)
    assert not (tmp_path / "out").exists()
    whole_bundle(tmp_path / "builtin")
    assert call(*words).exit_code == 0
    assert (tmp_path / "out" / "predictions.csv").exists()


def test_a_prevalence_changes_the_natural_decision(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b")
    operating_points = tmp_path / "clinic.toml"
    operating_points.write_text("MEL=1\nNV=0\nBCC=0\nAKIEC=0\nBKL=0\nDF=0\nVASC=0\n")
    words = (images, "--bundle", tmp_path / "b", "--prevalence", operating_points)
    assert call(*words, "--out", tmp_path / "out").exit_code == 0
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert (table["predicted"] == "MEL").all()
    metadata = about(tmp_path / "out" / "predictions.parquet")
    assert metadata["classifier"]["prevalence"] == [1, 0, 0, 0, 0, 0, 0]
    operating_points.write_text("MEL=0.5\n")
    for more in ((), ("absent",)):  # before images are read
        wrong = call(*words, *more, "--out", tmp_path / "other")
        assert isinstance(wrong.exception, ConfigError)
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("word", ["MEL", "mel", "NV"])
def test_a_class_after_heatmaps_is_not_an_image(tmp_path: Path, images: Path, word: str) -> None:
    whole_bundle(tmp_path / "b")
    words = ("--bundle", tmp_path / "b", "--out", tmp_path / "out")
    for arguments in ((images, "--heatmaps", word), ("--heatmaps", word, images)):
        refused = call(*arguments, *words)
        assert isinstance(refused.exception, ConfigError)
        assert f"--heatmaps-of {word.upper()}" in str(refused.exception)
    absent = call("--heatmaps", "XYZ", images, *words)
    assert isinstance(absent.exception, DataError)
    assert "XYZ does not exist" in str(absent.exception)
    assert isinstance(call(word, *words).exception, DataError)  # a name like any other


METADATA = """isic_id,age_approx,sex,anatom_site_general,fitzpatrick_skin_type,diagnosis_1
p0,60,female,anterior torso,II,Benign
p1,,,elsewhere,,Benign
p9,30,male,,IV,Malignant
"""


def test_metadata_change_the_odds_and_are_kept(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL, patient=PATIENT)
    (tmp_path / "metadata.csv").write_text(METADATA)
    words = (images, "--bundle", tmp_path / "b", "--threads", 1)
    assert call(*words, "--out", tmp_path / "plain").exit_code == 0
    given = (*words, "--metadata", tmp_path / "metadata.csv")
    result = call(*given, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for line in (
        "metadata: 1 of 3 images have a value that counts",
        "metadata: without a row: 1 image",
        "metadata: 1 row of images not predicted here",
        "metadata: unknown to the bundle, without effect: site elsewhere (1)",
        "metadata: ignored: diagnosis_1",
    ):
        assert line in result.output
    plain, table = (
        pd.read_parquet(tmp_path / name / "predictions.parquet").set_index("image_id")
        for name in ("plain", "out")
    )
    assert table["age"].tolist()[:1] == [60]
    sheet = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("image_id")
    assert sheet["age"].tolist()[:1] == [60]
    assert sheet["site"].fillna("").tolist() == ["anterior torso", "elsewhere", ""]
    kept = {name: table[name].iloc[0] for name in ("sex", "site", "fitzpatrick_skin_type")}
    assert list(kept.values()) == ["female", "anterior torso", "II"]
    columns = [name for name in plain.columns if name.startswith(("prob_", "balanced_prob_"))]
    before, after = plain[columns].to_numpy(float), table[columns].to_numpy(float)
    assert not np.isclose(before[0], after[0]).any()
    np.testing.assert_array_equal(before[1:], after[1:])
    assert not {"age", "sex", "site"} & set(plain.columns)
    assert "metadata" not in json.loads((tmp_path / "plain" / "predict.json").read_text())


@pytest.mark.parametrize("named", ["zoe", "images"])
def test_rows_for_files_elsewhere_are_noted(tmp_path: Path, images: Path, named: str) -> None:
    whole_bundle(tmp_path / "b", patient=PATIENT)
    shutil.copytree(images, tmp_path / "zoe")
    rows = "".join(f"{named}/p{number}.png,60\n" for number in range(3))
    (tmp_path / "table.csv").write_text(f"path,age\n{rows}")
    words = (images, "--bundle", tmp_path / "b", "--threads", 1, "--out", tmp_path / "out")
    result = call(*words, "--metadata", tmp_path / "table.csv")
    assert result.exit_code == 0, result.output
    note = f"the rows of 3 images name files of other folders, such as {tmp_path / 'zoe/p0.png'}"
    assert (note in result.output.replace("\n", "")) == (named == "zoe")


def test_a_column_of_the_metadata_names_lesions(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL, patient=PATIENT)
    path, out = tmp_path / "metadata.csv", tmp_path / "out"
    path.write_text("image_id,age,lesion_id\np0,60,L1\np1,60,L2\np2,,L2\n")
    words = (images, "--bundle", tmp_path / "b", "--threads", 1, "--out", out)
    result = call(*words, "--metadata", path)
    assert result.exit_code == 0, result.output
    assert "metadata: ignored" not in result.output
    found = pd.read_parquet(out / "lesions.parquet")
    rows = pd.read_parquet(out / "predictions.parquet")
    assert found["image_ids"].map(list).tolist() == [["p0"], ["p1", "p2"]]
    assert rows["lesion_id"].tolist() == ["L1", "L2", "L2"]
    sheet = pd.read_csv(out / "predictions.csv")
    assert sheet["lesion_id"].tolist() == ["L1", "L2", "L2"]
    assert sheet.columns[:3].tolist() == ["image_id", "age", "lesion_id"]
    assert list(found["prediction_set"].iloc[0]) == list(rows["prediction_set"].iloc[0])
    table = tmp_path / "lesions.csv"
    table.write_text("image_id,lesion_id\np0,M1\np1,M1\n")
    hold = "the lesions that --lesions, --group-by or the data set names hold"
    assert hold not in result.output
    for options, number in ((("--lesions", table), 3), (("--group-by", "folder"), 3)):
        other = call(*words, "--metadata", path, *options)
        assert other.exit_code == 0, other.output
        assert f"the lesion_id of {number} images is not used: {hold}" in other.output
    assert call(*words, "--metadata", path, "--lesions", table).exit_code == 0
    named = pd.read_parquet(out / "predictions.parquet")  # as in lesions.parquet
    assert named["lesion_id"].fillna("").tolist() == ["M1", "M1", ""]
    path.write_text("image_id,age,lesion_id\np0,60,L1\np0,60,L2\n")
    other = call(*words, "--metadata", path)
    assert isinstance(other.exception, DataError)
    assert "the image p0 is in two lesions, L1 and L2" in str(other.exception)


def test_other_metadata_need_another_folder(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b", patient=PATIENT)
    path = tmp_path / "metadata.csv"
    path.write_text(METADATA)
    words = (images, "--bundle", tmp_path / "b", "--threads", 1, "--out", tmp_path / "out")
    given = (*words, "--metadata", path)
    assert call(*given).exit_code == 0
    path.write_text(METADATA.replace(",Benign", ",Malignant"))  # a column that is not used
    assert "3 of them were predicted by an earlier job." in call(*given).output
    path.write_text(METADATA.replace("p0,60", "p0,61"))
    for other in (call(*given), call(*words)):
        assert "made with other settings (metadata)" in str(other.exception)


def test_a_scale_gives_sizes_in_millimetres(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b")
    words = (images, "--bundle", tmp_path / "b", "--threads", 1)
    result = call(*words, "--mm-per-pixel", 0.02, "--out", tmp_path / "all")
    assert "metadata: 3 of 3 images have a scale" in result.output
    table = pd.read_parquet(tmp_path / "all" / "predictions.parquet")
    assert table["mm_per_pixel"].tolist() == [0.02] * 3
    masks = [read(path) for path in sorted((tmp_path / "all" / "masks").iterdir())]
    areas = [np.count_nonzero(mask[..., 0]) for mask in masks]
    assert table["lesion_area_px"].tolist() == areas
    np.testing.assert_allclose(table["lesion_area_mm2"], np.array(areas) * 0.02**2)
    for name in ("longest_diameter", "perpendicular_diameter", "perimeter", "equivalent_diameter"):
        pixels = table[f"lesion_{name}_px"]
        np.testing.assert_allclose(table[f"lesion_{name}_mm"], pixels * 0.02)
    sheet = pd.read_csv(tmp_path / "all" / "predictions.csv")
    np.testing.assert_allclose(sheet["lesion_area_mm2"], table["lesion_area_mm2"])
    (tmp_path / "scales.csv").write_text("image_id,mm_per_pixel\np1,0.05\n")
    some = ("--metadata", tmp_path / "scales.csv")
    result = call(*words, *some, "--only", "masks", "--out", tmp_path / "some")
    assert "metadata: 1 of 3 images have a scale" in result.output
    partial = pd.read_parquet(tmp_path / "some" / "predictions.parquet")
    assert partial["lesion_area_mm2"].notna().tolist() == [False, True, False]
    twice = call(*words, *some, "--mm-per-pixel", 0.02, "--out", tmp_path / "twice")
    assert "the scale is given twice" in str(twice.exception)
    other = call(*words, "--mm-per-pixel", 0.03, "--out", tmp_path / "all")
    assert "made with other settings (metadata, metadata.mm_per_pixel)" in str(other.exception)
    classification_bundle(tmp_path / "c", crop_mode="full")
    alone = (images, "--bundle", tmp_path / "c", "--mm-per-pixel", 0.02)
    unused = call(*alone, "--out", tmp_path / "unused")
    assert "no bundle here segments lesions" in str(unused.exception)
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([(48, 64)] * 3, None),
        ([(48, 64), (64, 48), (48, 64)], None),  # a camera held upright
        ([(48, 64), (96, 128), (48, 64)], "2 sizes (64 × 48, 128 × 96)"),
        ([(48, side) for side in (60, 61, 62, 63, 60)], "4 sizes (60 × 48, 61 × 48, 62 × 48 and 1"),
    ],
)
def test_one_scale_for_images_of_several_sizes_is_doubted(
    tmp_path: Path, shapes: list[tuple[int, int]], found: str | None
) -> None:
    for number, shape in enumerate(shapes):
        write_png(tmp_path / "in" / f"{number}.png", np.full((*shape, 3), 128, np.uint8))
    whole_bundle(tmp_path / "b")
    words = (tmp_path / "in", "--bundle", tmp_path / "b", "--threads", 1, "--only", "masks")
    output = call(*words, "--mm-per-pixel", 0.02, "--out", tmp_path / "one").output
    assert output.count("one scale for images of") == (found is not None)
    assert found is None or (found in output and "a column mm_per_pixel" in output)
    ids = "".join(f"{number},0.02\n" for number in range(len(shapes)))
    (tmp_path / "scales.csv").write_text(f"image_id,mm_per_pixel\n{ids}")
    each = call(*words, "--metadata", tmp_path / "scales.csv", "--out", tmp_path / "each").output
    assert f"{len(shapes)} of {len(shapes)} images have a scale" in each
    assert "one scale for images of" not in each


def test_metadata_that_cannot_be_used_are_refused_before_anything_is_loaded(
    tmp_path: Path, images: Path
) -> None:
    path, out = tmp_path / "metadata.csv", tmp_path / "out"
    words = (images, "--bundle", tmp_path / "absent", "--metadata", path, "--out", out)
    for content, problem in (
        ("number,age\np0,50\n", "no column names the images"),
        ("image,age\np0,50\np0,51\n", "p0 stands twice"),
    ):
        path.write_text(content)
        result = call(*words)
        assert isinstance(result.exception, DataError)
        assert problem in str(result.exception)
        assert "\n" not in str(result.exception)
    path.write_text(METADATA)
    unused = call(images, "--metadata", path, "--only", "masks", "--out", out)
    assert "--only masks predicts no diagnoses" in str(unused.exception)
    whole_bundle(tmp_path / "b")
    result = call(images, "--bundle", tmp_path / "b", "--metadata", path, "--out", out)
    assert "has no model of the patient's data" in str(result.exception)
    assert not out.exists()


def test_mistakes_are_errors_with_a_remedy(tmp_path: Path, images: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert isinstance(call(images, "--bundle", tmp_path, *out).exception, BundleError)
    absent = call(tmp_path / "absent", *out)
    assert isinstance(absent.exception, DataError)
    assert call(images, "--bundle", tmp_path, *out, "--tta", "all").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_the_module_is_quick_to_import() -> None:
    code = (
        "import sys, naevus.cli.predict\n"
        "heavy = {'numpy', 'cv2', 'openvino', 'pandas', 'pyarrow', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bf16_reaches_the_engines_and_is_reported(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmentation_bundle(tmp_path / "s")
    words = (images, "--bundle", tmp_path / "s", "--only", "masks", "--precision", "bf16")
    monkeypatch.setattr(openvino, "precisions", lambda: ("fp32",))
    refused = call(*words, "--out", tmp_path / "out")
    assert isinstance(refused.exception, ConfigError)
    assert not (tmp_path / "out").exists()
    assert call(*words[:-2], "--out", tmp_path / "out").exit_code == 0
    output = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert output["segmenter"]["precision"] == "fp32"


def test_a_gpu_that_is_not_there_ends_in_one_line(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    words = (images, "--bundle", tmp_path / "s", "--only", "masks", "--out", tmp_path / "out")
    for more, reason in (
        (("--device", "cuda"), "no CUDA; install onnxruntime-gpu in place of onnxruntime"),
        (("--device", "cuda:1", "--engine", "openvino"), "needs the engine onnxruntime"),
        (("--device", "gpu"), "no device is called 'gpu'; use auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:x", "absent"), "no device is called 'cuda:x'"),  # before images
        (("--device", "cuda", "--engine", "openvino", "absent"), "needs the engine onnxruntime"),
        (("--device", "cuda", "--backend", "ray"), "--backend ray predicts on CPUs"),
    ):
        refused = call(*words, *more)
        assert isinstance(refused.exception, ConfigError)
        assert reason in str(refused.exception)
        assert "\n" not in str(refused.exception)
        assert not (tmp_path / "out").exists()


def test_the_cpu_by_name_gives_the_bytes_of_auto(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    words = (images, "--bundle", tmp_path / "s", "--only", "masks")
    for name, more in (("one", ()), ("other", ("--device", "cpu"))):
        assert call(*words, *more, "--out", tmp_path / name).exit_code == 0
    one, other = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "other")
    )
    assert one == other
    output = json.loads((tmp_path / "one" / "predict.json").read_text())
    assert output["segmenter"]["device"] == "cpu"
    again = call(*words, "--out", tmp_path / "one")
    assert again.exit_code == 0


NOTHING_MORE = """
import sys
from naevus.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {"jinja2", "matplotlib", "sklearn", "scipy", "torch", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""


def test_predicting_files_imports_no_more_than_it_needs(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    classification_bundle(tmp_path / "c", crop_mode="crop")
    bundles = ("--bundle", tmp_path / "s", "--bundle", tmp_path / "c")
    words = map(str, ("predict", images, *bundles, "--out", tmp_path / "out"))
    subprocess.run([sys.executable, "-c", NOTHING_MORE, *words], check=True)
    assert (tmp_path / "out" / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--part", "task3"), "--part selects part of a split"),
        (("--prevalence", "clinic.toml", "--only", "crops"), "--only crops predicts no diagnoses"),
        (("--group-by", "folder", "--only", "masks"), "--only masks predicts no diagnoses"),
        (("--lesions", "l.csv", "--only", "crops"), "--only crops predicts no diagnoses"),
        (("--lesions", "l.csv", "--group-by", "folder"), "both name lesions"),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, images: Path, options: tuple[str, ...], problem: str
) -> None:
    result = call(images, *options, "--out", tmp_path / "out")
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_lesions_are_put_together_from_their_images(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL)
    (images / "bad.png").write_bytes(b"")
    out, table = tmp_path / "out", tmp_path / "lesions.csv"
    table.write_text("image_id,lesion_id\np0,L2\np2,L2\nbad,L1\nelsewhere,L3\n")
    words = (images, "--bundle", tmp_path / "b", "--out", out)
    result = call(*words, "--lesions", table)
    assert result.exit_code == 1, result.output
    assert "2 lesions from 2 images; with several images: 1;" in result.output
    assert "failed images: 1" in result.output
    assert "lesion unknown: 1" in result.output
    found = pd.read_parquet(out / "lesions.parquet")
    lost, lesion = found.to_dict("records")
    assert (lost["lesion_id"], lesion["lesion_id"]) == ("L1", "L2")
    assert lost["failed_ids"].tolist() == ["bad"]
    assert pd.isna(lost["predicted"])
    rows = pd.read_parquet(out / "predictions.parquet")
    assert rows["lesion_id"].fillna("").tolist() == ["L2", "", "L2"]
    sheet = pd.read_csv(out / "predictions.csv")
    assert sheet["lesion_id"].fillna("").tolist() == ["L2", "", "L2"]
    rows = rows.set_index("image_id").loc[["p0", "p2"]]
    for kind in ("prob", "balanced_prob"):
        names = [f"{kind}_{code}" for code in ISIC2018.codes]
        mean = np.exp(np.log(rows[names].to_numpy()).mean(axis=0))
        assert [lesion[name] for name in names] == pytest.approx((mean / mean.sum()).tolist())
    natural = rows[f"prob_{lesion['predicted']}"].to_numpy()
    assert lesion["disagreement"] == pytest.approx(natural.std())
    assert lesion["image_predicted"].tolist() == rows["predicted"].tolist()
    sets = Conformal.from_dict(CONFORMAL).sets([lesion[f"prob_{c}"] for c in ISIC2018.codes])
    assert lesion["prediction_set"].tolist() == list(np.array(ISIC2018.codes)[sets])
    text = pd.read_csv(out / "lesions.csv")
    assert list(text.columns) == list(found.columns)
    assert text["image_ids"].iloc[1] == "p0;p2"
    before = [(out / name).read_bytes() for name in ("lesions.parquet", "lesions.csv")]
    assert call(*words, "--lesions", table).exit_code == 1
    assert [(out / name).read_bytes() for name in ("lesions.parquet", "lesions.csv")] == before
    assert call(*words, "--group-by", "folder").exit_code == 1
    (one,) = pd.read_parquet(out / "lesions.parquet").to_dict("records")
    assert (one["lesion_id"], one["images"], one["failed_images"]) == ("images", 3, 1)
    assert pd.read_parquet(out / "predictions.parquet")["lesion_id"].tolist() == ["images"] * 3
    assert call(*words).exit_code == 1
    assert not list(out.glob("lesions*"))
    assert "lesion_id" not in pd.read_parquet(out / "predictions.parquet").columns


def test_with_a_prevalence_the_sets_of_single_images_stay_theirs(
    tmp_path: Path, images: Path
) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL)
    clinic, table = tmp_path / "clinic.toml", tmp_path / "lesions.csv"
    clinic.write_text("MEL=5\nNV=50\nBCC=20\nAKIEC=0\nBKL=10\nDF=5\nVASC=10\n")
    table.write_text("image_id,lesion_id\n" + "".join(f"p{n},L{n}\n" for n in range(3)))
    words = ("--bundle", tmp_path / "b", "--prevalence", clinic, "--lesions", table)
    result = call(images, *words, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = pd.read_parquet(tmp_path / "out" / "lesions.parquet")
    rows = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    same = [name for name in found.columns if "prob_" in name] + ["predicted", "confidence"]
    pd.testing.assert_frame_equal(found[same], rows[same])
    assert found["prediction_set"].map(list).tolist() == rows["prediction_set"].map(list).tolist()
    assert (found["prob_AKIEC"] == 0).all()


@pytest.mark.parametrize("words", [(), ("--mm-per-pixel", "0.02")], ids=["alone", "with a scale"])
def test_lesions_of_a_data_set_need_no_option(
    words: tuple[str, ...], tmp_path: Path, images: Path
) -> None:
    whole_bundle(tmp_path / "b")
    manifest = images / "manifest.csv"
    manifest.write_text(
        "path,lesion_id,patient_id,age\np0.png,L1,P1,about 60\np1.png,L1,P1,61\np2.png,L2,P2,\n"
    )
    out = tmp_path / "out"
    result = call(images, "--split", "train", "--bundle", tmp_path / "b", "--out", out, *words)
    assert result.exit_code == 0, result.output
    for name in ("predictions.csv", "predictions.parquet"):
        table = pd.read_csv(out / name) if name.endswith("csv") else pd.read_parquet(out / name)
        assert table["patient_id"].tolist() == ["P1", "P1", "P2"]
        assert table["lesion_id"].tolist() == ["L1", "L1", "L2"]
        assert table["age"].fillna(-1).tolist() == [-1, 61, -1]
    (shown, *_) = first_predictions(out / "predictions.parquet", 1)
    assert "patient's data" not in str(shown)  # a data set's values change no odds
    plain = tmp_path / "plain"
    assert call(images, "--bundle", tmp_path / "b", "--out", plain).exit_code == 0
    one, other = (
        pd.read_parquet(each / "predictions.parquet")["prob_MEL"] for each in (out, plain)
    )
    pd.testing.assert_series_equal(one, other)
    found = pd.read_parquet(out / "lesions.parquet")
    assert found["image_ids"].map(list).tolist() == [["p0", "p1"], ["p2"]]
    assert found["prediction_set"].isna().all()


def test_lesions_need_a_classifier(tmp_path: Path, images: Path) -> None:
    segmentation_bundle(tmp_path / "s")
    words = (images, "--bundle", tmp_path / "s", "--out", tmp_path / "out")
    result = call(*words, "--group-by", "folder")
    assert isinstance(result.exception, ConfigError)
    assert "--group-by has no effect: no bundle here classifies" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_attributes_are_written_for_every_image_and_reported(tmp_path: Path) -> None:
    attributes_bundle(tmp_path / "attributes")
    classification_bundle(tmp_path / "classes", explained=True, crop_mode="crop")
    masks = {}
    for number in range(3):
        pixels, masks[f"i{number}"] = draw(number)
        write_png(tmp_path / "images" / f"i{number}.png", pixels)
    out = tmp_path / "out"
    bundles = ("--bundle", tmp_path / "attributes", "--bundle", tmp_path / "classes")
    words = (tmp_path / "images", *bundles, "--heatmaps", "--out", out)
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert f"{out / 'attributes'}" in result.output.replace("\n", "")
    table = pd.read_parquet(out / "predictions.parquet").set_index("image_id")
    for image_id, true in masks.items():
        for name in ATTRIBUTES:
            with Image.open(out / "attributes" / f"{image_id}_attribute_{name}.png") as image:
                assert image.mode == "L"
                values = np.asarray(image)
            assert set(np.unique(values)) <= {0, 255}
            assert ((values > 0) == true[name]).all()
        predicted = naevus.load(tmp_path / "attributes")(tmp_path / "images" / f"{image_id}.png")
        for name, presence in predicted.attributes.items():
            assert table.loc[image_id, f"presence_{name}"] == pytest.approx(presence)
    assert len(list((out / "attributes").iterdir())) == 3 * len(ATTRIBUTES)
    (out / "attributes" / "i1_attribute_streaks.png").unlink()  # as by a job that was killed
    again = call(*words)
    assert again.exit_code == 0, again.output
    assert (out / "attributes" / "i1_attribute_streaks.png").exists()
    assert "of them were predicted by an earlier job" not in again.output
    one = call(tmp_path / "images" / "i0.png", *bundles, "--out", tmp_path / "one")
    assert "Attributes: " in one.output


def test_predictions_are_shown_without_a_ground_truth(tmp_path: Path, images: Path) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL)
    out = tmp_path / "out"
    predicted = call(images, "--bundle", tmp_path / "b", "--out", out)
    assert f"To look at them: naevus report {out}\n" in predicted.output
    runner = CliRunner()
    reported = runner.invoke(app, ["report", str(out)])
    assert reported.exit_code == 0, reported.output
    assert f"{out}/report/overview.html\n{out}/report/overview.png\n" in reported.output
    assert (out / "report" / "overview.html").read_text().count("data:image/jpeg") == 3
    assert read(out / "report" / "overview.png").shape[1] == 10 + 3 * (192 + 10)
    for option in ("--figures", "--no-thumbnails", "--allow-missing", "--split=test"):
        refused = runner.invoke(app, ["report", str(out), option])
        assert refused.exit_code == 2
        assert f"{option.partition('=')[0]} needs --data" in refused.output
    sheet = tmp_path / "sheet.png"
    shown = runner.invoke(app, ["data", "show", str(out), "--count", "2", "--out", str(sheet)])
    assert shown.exit_code == 0, shown.output
    assert "Shown are 2 of 3 images" in shown.output
    assert read(sheet).shape[1] == 10 + 3 * (192 + 10)  # room for the title, too
    refused = runner.invoke(app, ["data", "show", str(out), "--part", "task1"])
    assert "--part, --split and --seed apply to data sets only" in refused.output


def test_a_lesion_of_one_image_has_the_image_s_set_also_with_metadata(
    tmp_path: Path, images: Path
) -> None:
    whole_bundle(tmp_path / "b", conformal=CONFORMAL, patient=PATIENT)
    (tmp_path / "metadata.csv").write_text(METADATA)
    (tmp_path / "lesions.csv").write_text("image_id,lesion_id\np0,a\np1,b\np2,c\n")
    words = (images, "--bundle", tmp_path / "b", "--threads", 1, "--out", tmp_path / "out")
    options = ("--metadata", tmp_path / "metadata.csv", "--lesions", tmp_path / "lesions.csv")
    assert call(*words, *options).exit_code == 0
    single, lesions = (
        pd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("predictions", "lesions")
    )
    for one, other in zip(
        single["prediction_set"].tolist(), lesions["prediction_set"].tolist(), strict=True
    ):
        assert list(one) == list(other)
    np.testing.assert_allclose(single["prob_MEL"], lesions["prob_MEL"], atol=1e-12)
