"""The Python interface gives the same results as the command."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import simplejpeg

import naevus
from naevus.bundles import bundle as bundles
from naevus.bundles.bundle import pack
from naevus.datasets.sources import find_images
from naevus.errors import BundleError, ConfigError, DataError, ImageError, NaevusError
from naevus.images.geometry import Box
from naevus.images.read import read, write_png
from naevus.inference import batch, predictor
from naevus.inference.lesions import lesions_schema
from naevus.inference.networks import open_networks
from naevus.inference.options import OutputOptions
from naevus.inference.prediction import NOTICE, Prediction
from naevus.inference.sheets import first_predictions
from naevus.io.extras import how_to_install
from naevus.io.files import sha256
from naevus.types import FLAGS, FailedImage
from tests.helpers.onnx_graphs import (
    CONFORMAL,
    PATIENT,
    classification_bundle,
    segmentation_bundle,
    whole_bundle,
)
from tests.helpers.tables import classification_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from naevus.inference.predictor import Predictor

CODES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]


def synthetic(seed: int, height: int = 120, width: int = 180) -> NDArray[np.uint8]:
    """Light noise with a dark rectangle far from the border."""
    rng = np.random.default_rng(seed)
    image = rng.integers(190, 240, (height, width, 3), dtype=np.uint8)
    top, left = rng.integers(20, 40, 2)
    image[top : top + 50, left : left + 70] = rng.integers(20, 100, (50, 70, 3))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one bundle, and five images."""
    made = tmp_path_factory.mktemp("load")
    whole_bundle(made / "bundle", conformal=CONFORMAL, temperature=2.0)
    for number in range(5):
        write_png(made / "images" / f"p{number}.png", synthetic(number))
    return made


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Predictor:
    return naevus.load(folder / "bundle", threads=2)


@pytest.fixture
def files(folder: Path) -> list[Path]:
    return sorted((folder / "images").iterdir())


def test_python_and_the_command_predict_the_same(
    tmp_path: Path, folder: Path, loaded: Predictor, files: list[Path]
) -> None:
    networks = open_networks(bundles.find_bundles([folder / "bundle"]), threads=2)
    batch.predict(find_images([folder / "images"]).sources, tmp_path / "out", **networks._asdict())
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    prediction = loaded(files)
    assert [each.image_id for each in prediction] == table["image_id"].tolist()
    for row, each in zip(table.to_dict("records"), prediction, strict=True):
        assert [row[f"prob_{code}"] for code in CODES] == list(each.probabilities.values())
        assert [row[f"balanced_prob_{code}"] for code in CODES] == list(
            each.balanced_probabilities.values()
        )
        assert row["predicted"] == each.predicted
        assert row["predicted_balanced"] == each.predicted_balanced
        assert tuple(row["prediction_set"]) == each.prediction_set
        assert list(row["quality_flags"]) == list(each.flags)
        assert (row["confidence"], row["lesion_area"]) == (each.confidence, each.lesion_area)
        assert each.mask is not None
        mask = read(tmp_path / "out" / "masks" / f"{each.image_id}_segmentation.png")
        np.testing.assert_array_equal(mask[:, :, 0] > 0, each.mask)


def test_a_prediction_has_all_values_of_an_image(loaded: Predictor, files: list[Path]) -> None:
    prediction = loaded(files[0])
    assert isinstance(prediction, Prediction)
    assert (prediction.image_id, prediction.image) == ("p0", files[0])
    assert prediction.mask is not None
    assert prediction.mask.shape == (prediction.height, prediction.width) == (120, 180)
    assert prediction.mask is prediction.mask  # unpacked once
    assert prediction.lesion_area == prediction.mask.mean()
    assert prediction.heatmap is not None
    assert prediction.heatmap.shape == (120, 180)
    assert prediction.heatmap.max() == 1
    assert prediction.embedding is not None
    assert prediction.embedding.shape == (8,)
    assert prediction.prediction_set is not None
    reached = zip(CODES, prediction.probabilities.values(), CONFORMAL["thresholds"], strict=True)  # type: ignore[call-overload]
    assert prediction.prediction_set == tuple(
        code
        for code, fraction, least in reached
        if fraction >= least or code == prediction.predicted
    )
    assert prediction.coverage == 0.9
    assert prediction.uncertainty is None


def test_the_heatmap_covers_the_region_that_the_classifier_used(
    loaded: Predictor, files: list[Path]
) -> None:
    prediction = loaded(files[1])
    assert prediction.activations is not None
    ((maps, box, frame, offset),) = prediction.activations
    assert prediction.crop_mode == "crop"
    assert frame == (120, 180)
    assert offset == (0.0, 0.0)
    assert prediction.box is not None
    assert box.left <= prediction.box.left
    assert box.right >= prediction.box.right
    cam = prediction.cam_of("MEL")
    assert cam is not None
    inside = np.zeros((120, 180), bool)
    inside[box.top : box.bottom, box.left : box.right] = True
    assert (cam[~inside] == 0).all()
    hottest = np.unravel_index(maps[0].argmax(), maps[0].shape)
    row, column = np.unravel_index(cam.argmax(), cam.shape)
    assert abs((row - box.top) / box.height * 8 - hottest[0] - 0.5) < 1
    assert abs((column - box.left) / box.width * 8 - hottest[1] - 0.5) < 1
    with pytest.raises(ConfigError, match="there is no class 'XYZ'"):
        prediction.cam_of("XYZ")


def test_scaled_decoding_does_not_shift_the_heatmap(tmp_path: Path, loaded: Predictor) -> None:
    large = np.repeat(np.repeat(synthetic(3), 8, axis=0), 8, axis=1)
    (tmp_path / "large.jpg").write_bytes(simplejpeg.encode_jpeg(large, quality=95))
    prediction = loaded(tmp_path / "large.jpg")
    assert prediction.activations is not None
    assert prediction.activations[0].frame != (960, 1440)  # it was not decoded whole
    assert prediction.heatmap is not None
    assert prediction.heatmap.shape == (960, 1440)
    small = loaded(synthetic(3))
    assert prediction.box is not None
    assert small.box is not None
    np.testing.assert_allclose(np.array(prediction.box) / 8, small.box, atol=2)
    cam = prediction.cam_of(small.predicted or "", 120, 180)
    assert cam is not None
    assert np.corrcoef(cam.ravel(), small.heatmap.ravel())[0, 1] > 0.8  # type: ignore[union-attr]


def test_pixels_and_files_give_the_same_prediction(loaded: Predictor, files: list[Path]) -> None:
    pixels = read(files[2])
    from_pixels, from_file, from_name = loaded([pixels, files[2], str(files[2])])
    values = from_file.to_dict()
    assert from_name.to_dict() == values
    assert from_pixels.to_dict() == {**values, "image_id": "image 0", "path": None}
    np.testing.assert_array_equal(from_pixels.mask, from_file.mask)


def test_an_unreadable_file_raises_or_is_returned_as_failed(
    tmp_path: Path, loaded: Predictor, files: list[Path]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:500])
    with pytest.raises(ImageError, match=r"broken\.png: is truncated") as raised:
        loaded(broken)
    assert str(raised.value).count("broken.png") == 1
    assert raised.value.remedy == "fetch it again from its source, or save it again"
    with pytest.raises(ImageError, match="does not exist") as raised:
        loaded([files[0], tmp_path / "absent.png"])
    assert raised.value.remedy == "check the name and the folder"
    with pytest.raises(ImageError, match="is a folder") as raised:
        loaded([tmp_path])
    assert raised.value.remedy == "name an image file"
    given = [files[0], broken, files[1]]
    first, bad, last = loaded.stream(given, errors="yield")
    assert isinstance(bad, FailedImage)
    assert (first.image_id, bad.image_id, last.image_id) == ("p0", "broken", "p1")
    assert bad.path == str(broken)
    assert bad.problem.startswith("is truncated, damaged")
    stream = loaded.stream(given)
    assert next(stream).image_id == "p0"
    with pytest.raises(ImageError):
        list(stream)


def test_a_stream_keeps_the_order_and_reads_little_ahead(
    loaded: Predictor, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "BATCH", 3)
    taken: list[int] = []

    def endless() -> Iterator[Path]:
        for number in count():
            taken.append(number)
            yield files[number % 5]

    stream = loaded.stream(endless())
    ids = []
    for _ in range(40):
        ids.append(next(stream).image_id)
        assert len(taken) <= len(ids) + 5 * 3
    assert ids == [f"p{number % 5}" for number in range(40)]
    stream.close()  # type: ignore[attr-defined]


def test_a_folder_is_streamed_by_id(folder: Path, loaded: Predictor) -> None:
    ids = [prediction.image_id for prediction in loaded.stream(folder / "images")]
    assert ids == [f"p{number}" for number in range(5)]
    assert [
        prediction.image_id for prediction in loaded.stream(str(folder / "images" / "p3.png"))
    ] == ["p3"]
    with pytest.raises(DataError, match="no images there"):
        list(loaded.stream(folder / "bundle"))
    assert loaded([]) == []


def test_flags_are_reported_in_sentences(loaded: Predictor) -> None:
    dark = np.full((120, 160, 3), 20, np.uint8)
    prediction = loaded(dark)
    assert {"implausible_mask", "dark", "cut_by_border"} <= set(prediction.flags)
    assert all(prediction.flags[code] == FLAGS[code] for code in prediction.flags)
    assert prediction.crop_mode == "full"
    empty = loaded(np.full((120, 160, 3), 230, np.uint8))
    assert "empty_mask" in empty.flags
    assert (empty.box, empty.lesion_area) == (None, 0)
    assert not empty.mask.any()  # type: ignore[union-attr]


def test_the_dictionary_survives_json(loaded: Predictor, files: list[Path]) -> None:
    values = loaded(files[0]).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["path"] == str(files[0])
    assert set(values["box"]) == set(Box._fields)
    assert list(values["probabilities"]) == CODES


def test_a_prediction_prints_its_result(loaded: Predictor, files: list[Path]) -> None:
    prediction = loaded(files[0])
    lines = str(prediction).splitlines()
    assert lines[0] == "p0"
    assert f"({prediction.predicted})" in lines[2]
    assert lines[-1] == NOTICE
    bars = [line.split() for line in lines if "%  " in line or line.endswith("%")]
    class_priors = {words[0]: float(words[1].rstrip("%")) for words in bars if words[0] in CODES}
    assert next(iter(class_priors)) == "MEL"
    others = [value for code, value in class_priors.items() if code != "MEL"]
    assert others == sorted(others, reverse=True)
    for code, fraction in prediction.probabilities.items():
        assert class_priors[code] == pytest.approx(100 * fraction, abs=0.051)
    (line,) = [each for each in lines if each.startswith("Prediction set: ")]
    assert line.endswith(". Such sets hold the true diagnosis of at least 90% of lesions.")
    assert str(prediction.predicted) in line
    dark = str(loaded(np.full((120, 160, 3), 20, np.uint8)))
    assert f"! {FLAGS['dark']}" in dark


def test_a_bundle_may_be_given_in_any_form(tmp_path: Path, files: list[Path]) -> None:
    whole = whole_bundle(tmp_path / "whole")
    packed = pack(whole.folder, whole.spec, tmp_path / "whole.naevus")
    one = naevus.load(str(whole.folder))(files[0]).to_dict()
    assert naevus.load(packed)(files[0]).to_dict() == one
    segmentation_bundle(tmp_path / "s")
    for fold in range(2):
        (tmp_path / "run" / f"fold-{fold}").mkdir(parents=True)
        classification_bundle(tmp_path / "run" / f"fold-{fold}" / "bundle", seeds=(fold,))
    prediction = naevus.load([tmp_path / "s", tmp_path / "run"])(files[0])
    assert prediction.mask is not None
    assert prediction.members is not None
    assert prediction.members.shape == (2, 7)
    assert prediction.uncertainty is not None
    alone = naevus.load(tmp_path / "s")(files[0])
    assert (alone.predicted, alone.crop_mode, alone.probabilities) == (None, None, {})
    assert alone.lesion_area == prediction.lesion_area


def test_the_built_in_bundle_is_the_default(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "BUILTIN", tmp_path / "builtin")
    with pytest.raises(
        BundleError, match="this installation of naevus has no built-in bundle; name one"
    ):
        naevus.load()
    whole_bundle(tmp_path / "builtin")
    assert naevus.load()(files[0]).predicted in CODES


def test_a_prevalence_reweights_probabilities(
    tmp_path: Path, folder: Path, loaded: Predictor, files: list[Path]
) -> None:
    operating_points = tmp_path / "clinic.toml"
    operating_points.write_text("".join(f"{code} = {int(code == 'DF')}\n" for code in CODES))
    prediction = naevus.load(folder / "bundle", prevalence=operating_points)(files[0])
    assert (prediction.predicted, prediction.confidence) == ("DF", 1)
    plain = loaded(files[0])
    assert prediction.balanced_probabilities == plain.balanced_probabilities
    assert plain.prediction_set is not None
    assert prediction.prediction_set is not None
    assert set(prediction.prediction_set) == {*plain.prediction_set, "DF"}
    with pytest.raises(ConfigError, match="known diagnoses"):
        naevus.load(segmentation_bundle(tmp_path / "s").folder, prevalence=operating_points)


def test_metadata_may_be_given_in_any_form(tmp_path: Path, files: list[Path]) -> None:
    whole_bundle(tmp_path / "b", patient=PATIENT)
    predictor = naevus.load(tmp_path / "b", threads=1)
    values = {"age": 60, "site": "back"}
    (tmp_path / "m.csv").write_text("image_id,age,localization\n" + f"{files[0].stem},60,back\n")
    plain = predictor(files[0])
    one = predictor(files[0], metadata=values)
    assert one.metadata == {"age": 60.0, "site": "back"}
    assert one.probabilities != plain.probabilities
    assert "With the patient's data: age 60, site back" in str(one)
    assert "metadata" not in plain.to_dict()
    for given in (
        {files[0].stem: values},
        str(tmp_path / "m.csv"),
        pd.DataFrame({"image_id": [files[0].stem], **{k: [v] for k, v in values.items()}}),
    ):
        assert predictor(files[0], metadata=given).to_dict() == one.to_dict()
        assert (
            predictor(files[1], metadata=given).probabilities == predictor(files[1]).probabilities
        )
    written = predictor.to_folder(files[:1], tmp_path / "out", metadata=values)
    assert pd.read_parquet(written.table)["prob_MEL"][0] == one.probabilities["MEL"]
    with pytest.raises(DataError, match="metadata are of type int"):
        predictor(files[0], metadata=5)  # type: ignore[call-overload]


def test_values_unknown_to_the_bundle_are_logged(
    tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    whole_bundle(tmp_path / "b", patient=PATIENT)
    predictor = naevus.load(tmp_path / "b", threads=1)
    found = predictor(files[0], metadata={"age": 50, "site": "elsewhere"})
    assert "site elsewhere (1)" in caplog.text
    assert "With the patient's data: age 50\n" in str(found)
    assert "! Unknown to the bundle, without effect: site elsewhere\n" in str(found)
    assert found.effects == (("age",), ("site",))
    assert found.to_dict()["metadata_effects"] == {"counted": ("age",), "unknown": ("site",)}
    alone = predictor(files[0], metadata={"age": None, "site": "elsewhere"})
    assert "With the patient's data" not in str(alone)
    assert "without effect: site elsewhere" in str(alone)
    written = predictor.to_folder(files[:1], tmp_path / "out", metadata={"site": "elsewhere"})
    (again,) = first_predictions(written.table, 1)
    assert again.effects == ((), ("site",))
    assert "without effect: site elsewhere" in str(again)


def test_a_figure_shows_image_heatmap_and_probabilities(
    tmp_path: Path, loaded: Predictor, files: list[Path]
) -> None:
    pytest.importorskip("matplotlib")
    prediction = loaded(files[0])
    figure = prediction.plot()
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "Lesion contour"
    assert titles[1].startswith(f"Evidence for {prediction.predicted}, from ")
    assert titles[1].endswith(" cells")
    assert "90% prediction set" in titles[2]
    labels = [text.get_text() for text in figure.axes[2].texts]
    assert [label.endswith("●") for label in labels] == [
        code in (prediction.prediction_set or ()) for code in CODES
    ]
    figure.savefig(tmp_path / "figure.png")
    assert read(tmp_path / "figure.png").std() > 10
    plain = naevus.load(segmentation_bundle(tmp_path / "s").folder)(synthetic(1)).plot()
    assert len(plain.axes) == 1


NO_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
import naevus
prediction = naevus.load(sys.argv[1])(sys.argv[2])
try:
    prediction.plot()
except naevus.NaevusError as error:
    print(error)
"""


def test_without_matplotlib_a_figure_names_the_extra(folder: Path, files: list[Path]) -> None:
    words = (sys.executable, "-c", NO_MATPLOTLIB, str(folder / "bundle"), str(files[0]))
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert how_to_install("report") in done.stdout


LIGHT = """
import sys
import naevus
heavy = {"numpy", "cv2", "openvino", "pandas", "pyarrow", "pydantic"}
assert not heavy & set(sys.modules)
assert "load" in dir(naevus)
prediction = naevus.load(sys.argv[1])(sys.argv[2])
assert prediction.predicted
needless = {"pandas", "pyarrow", "matplotlib", "rich", "typer", "jinja2", "torch", "sklearn"}
assert not needless & set(sys.modules), needless & set(sys.modules)
"""


def test_importing_and_loading_import_only_required_packages(
    folder: Path, files: list[Path]
) -> None:
    words = (sys.executable, "-c", LIGHT, str(folder / "bundle"), str(files[0]))
    subprocess.run(words, check=True)


def test_every_public_name_exists_and_is_listed() -> None:
    for name in naevus.__all__:
        assert getattr(naevus, name) is not None
    assert set(naevus.__all__) <= set(dir(naevus))
    lazy = set(naevus.__all__) - {"__version__"}
    assert {name for name in lazy if not issubclass_of_error(name)} == set(naevus._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        naevus.predict  # noqa: B018
    assert naevus.NaevusError is NaevusError
    assert naevus.load is predictor.load


def issubclass_of_error(name: str) -> bool:
    value = getattr(naevus, name)
    return isinstance(value, type) and issubclass(value, NaevusError)


def test_type_checkers_see_the_names_where_they_are_imported_from() -> None:
    tree = ast.parse(Path(naevus.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        name.asname or name.name: f"{node.module}:{name.name}"
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert seen == naevus._HOMES


LAZY = """
import sys
import naevus
for name in ("NaevusError", "ImageError", "FailedImage", "Taxonomy", "TAXONOMIES"):
    getattr(naevus, name)
heavy = {"numpy", "pandas", "pyarrow", "cv2", "openvino", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""


def test_errors_and_taxonomies_import_no_array_library() -> None:
    subprocess.run((sys.executable, "-c", LAZY), check=True)


def test_a_table_of_predictions_equals_the_written_one(
    tmp_path: Path, folder: Path, loaded: Predictor, files: list[Path]
) -> None:
    result = loaded.to_folder(folder / "images", tmp_path / "out", OutputOptions(heatmaps=True))
    assert (result.predicted, result.failed) == (5, ())
    assert str(result).splitlines()[:2] == ["5 images predicted, 0 failed", str(result.table)]
    written = pd.read_parquet(result.table)
    assert (written["bundle_sha256"] == sha256(folder / "bundle" / "bundle.json")).all()
    table = naevus.to_frame(loaded(files))
    pd.testing.assert_frame_equal(table, written.drop(columns="bundle_sha256"))
    again = loaded.to_folder(
        [str(folder / "images")], str(tmp_path / "out"), OutputOptions(heatmaps=True)
    )
    assert again.reused == 5
    one = loaded(files[1]).to_frame()
    pd.testing.assert_frame_equal(one, table.iloc[[1]].reset_index(drop=True))


def test_lesions_are_those_of_the_written_table(
    tmp_path: Path, folder: Path, loaded: Predictor, files: list[Path]
) -> None:
    known = {"p0": "a", "p1": "b", "p2": "a", "p3": "a"}
    result = loaded.to_folder(folder / "images", tmp_path / "out", lesions=known)
    assert result.lesions is not None
    assert (result.lesions.lesions, result.lesions.unknown) == (2, 1)
    assert f"{result.lesions}" in str(result)
    absent = tmp_path / "absent.png"
    images = {name: [file for file in files if known.get(file.stem) == name] for name in "ab"}
    found = loaded.lesions(images)
    schema = lesions_schema(CODES, {})
    written = pd.read_parquet(tmp_path / "out" / "lesions.parquet")
    rows = pa.Table.from_pylist([lesion.to_row() for lesion in found], schema).to_pandas()
    pd.testing.assert_frame_equal(rows, written)
    assert found[0].prediction_set is not None
    assert found[1].prediction_set == loaded(files[1]).prediction_set
    (lesion,) = loaded.lesions({"a": [*images["a"], absent]})
    assert (lesion.failed, lesion.probabilities) == (("absent",), found[0].probabilities)
    with pytest.raises(DataError, match="lesion a is not a list of images"):
        loaded.lesions({"a": files[0]})  # type: ignore[dict-item]
    with pytest.raises(DataError, match="lesion b has no images"):
        loaded.lesions({"a": files, "b": iter([])})
    with pytest.raises(DataError, match="lesion nan has no id"):
        loaded.lesions({np.nan: files})  # type: ignore[dict-item]
    numbered = loaded.lesions({7: [files[0], absent]})  # type: ignore[dict-item]
    assert [(each.lesion_id, each.failed) for each in numbered] == [("7", ("absent",))]
    gaps: dict[str, Any] = known | {"p0": np.nan, "p1": 7, "p2": None}
    other = loaded.to_folder(folder / "images", tmp_path / "gaps", lesions=gaps)
    assert other.lesions is not None
    assert (other.lesions.lesions, other.lesions.unknown) == (2, 3)
    alone = naevus.load(segmentation_bundle(tmp_path / "s").folder)
    with pytest.raises(ConfigError, match="predicted by a classifier"):
        alone.lesions(images)


def test_failed_images_stay_in_the_table_with_their_reason(
    tmp_path: Path, folder: Path, loaded: Predictor, files: list[Path]
) -> None:
    absent = tmp_path / "absent.png"
    table = naevus.to_frame(loaded.stream([files[0], absent], errors="yield"))
    assert table["image_id"].tolist() == ["p0", "absent"]
    assert table["problem"].isna().tolist() == [True, False]
    assert "does not exist" in table["problem"].iloc[1]
    only = naevus.to_frame([FailedImage("a", "a.png", "is cut off")])
    assert only["problem"].tolist() == ["is cut off"]
    assert naevus.to_frame([]).empty
    plain = naevus.load(segmentation_bundle(tmp_path / "s").folder)(files[0])
    with pytest.raises(ConfigError, match="different classes"):
        naevus.to_frame([plain, loaded(files[0])])


def test_a_run_is_evaluated_compared_and_plotted(
    tmp_path: Path, synthetic_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    dataset = naevus.load_dataset(str(synthetic_images))
    runs = [classification_run(tmp_path / name, synthetic_images, n) for n, name in enumerate("ab")]
    evaluation = naevus.evaluate(tmp_path / "a")
    stored = next((tmp_path / "a").rglob("oof.parquet"))
    own: dict[str, Any] = {"part": "task3", "split": "test", "benign": ["AKIEC"],
                           "taxonomy": "isic2018", "image_type": "all"}  # fmt: skip
    for option, given in own.items():
        for subject in (tmp_path / "a", stored):
            with pytest.raises(ConfigError, match=f"{option} applies to predictions only"):
                naevus.evaluate(subject, **{option: given})
    metrics = evaluation.to_frame().set_index("metric")
    assert evaluation.classification is not None
    interval = evaluation.classification.as_predicted.intervals["balanced_accuracy"]
    assert tuple(metrics.loc["balanced_accuracy", ["value", "low", "high"]]) == interval
    tables = evaluation.tables()
    assert tables["confusion"].to_numpy().sum() == tables["classes"]["images"].sum() == 24
    assert len(tables["folds"]) == 2
    compared = naevus.compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert len(compared.to_frame()) == len(compared.differences) + len(compared.recalls)
    assert str(compared).splitlines() == list(compared.sentences)
    opened = naevus.Run.open(str(tmp_path / "a"))
    assert opened.to_dict()["finished"] == [0, 1]
    history = opened.history()
    assert history is not None
    assert history["fold"].tolist() == [0, 0, 1, 1]
    for value in (evaluation, compared, opened, dataset, dataset.part("task3")):
        json.dumps(value.to_dict())
        value.plot().savefig(tmp_path / "figure.png")
        assert read(tmp_path / "figure.png").std() > 5
        assert value._repr_html_().startswith("<p")
    for printed in (evaluation, opened, dataset, opened.folds, opened.recipe, runs[1]):
        assert 1 < len(str(printed).splitlines()) < 100
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for value in (evaluation, compared, opened, dataset):
        with pytest.raises(NaevusError, match=re.escape(how_to_install("report"))):
            value.plot()


def test_counts_cover_every_image_by_class_part_and_split(synthetic_images: Path) -> None:
    dataset = naevus.load_dataset(synthetic_images)
    assert int(dataset.counts().to_numpy().sum()) == len(dataset) == 40
    known = dataset.table["diagnosis"].where(dataset.table["part"] == "task3")
    partly = replace(dataset, table=dataset.table.assign(diagnosis=known))
    assert partly.counts().tail(1).to_numpy().tolist() == [[16, 0]]
    assert partly.counts().index[-1] == "no diagnosis"
    assert list(dataset.part("task3").counts().columns) == ["train"]
    empty = dataset.part("task3").split("test")
    assert str(empty).endswith(": 0 images")
    assert empty._repr_html_()
