"""Networks that output NaN or infinity: the image fails, and gets no diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pandas as pd
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.cli.main import app
from naevus.errors import BundleError, ImageError
from naevus.export.ood import features_of
from naevus.images.read import write_png
from naevus.inference.cam import class_activation_map
from naevus.inference.ensemble import faults_of
from naevus.inference.networks import open_networks
from naevus.inference.out_of_fold import oof_logits, oof_scores
from naevus.inference.prediction import Prediction
from naevus.inference.predictor import Predictor, load
from naevus.types import FailedImage
from tests.helpers.onnx_graphs import whole_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

BLACK = np.zeros((70, 90, 3), np.uint8)
KINDS = [
    ("names.onnx", "logits", "nan"),
    ("names.onnx", "logits", "inf"),
    ("names.onnx", "logits", "-inf"),
    ("names.onnx", "embedding", "nan"),
    ("names.onnx", "embedding", "1e+06"),  # too large for stored half precision
    ("names.onnx", "cam", "nan"),
    ("segmentation.onnx", "logit", "nan"),
    ("segmentation.onnx", "logit", "inf"),
]
STEPS: dict[str, list[tuple[str, float | None]]] = {
    "nan": [("Sub", 1.0), ("Log", None), ("Mul", 1e-20)],
    "inf": [("Log", None), ("Mul", -1e-20)],
    "-inf": [("Log", None), ("Mul", 1e-20)],
    "1e+06": [("Sub", 1.0), ("Min", 0.0), ("Mul", -1e6)],
}
"""What is made of an image's greatest value, and added to an output: almost 0 unless it is 0."""


def spoil(source: Path, target: Path, output: str, value: str) -> None:
    """Change a graph to output ``value`` for completely black images."""
    model = onnx.load(source)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["sound" if name == output else name for name in node.output]
        node.input[:] = ["sound" if name == output else name for name in node.input]
    rank = len(
        next(each for each in graph.output if each.name == output).type.tensor_type.shape.dim
    )
    steps = STEPS[value]
    constants = {
        "spoil_axes": np.array([1, 2, 3], np.int64),
        "spoil_shape": np.array([-1] + [1] * (rank - 1), np.int64),
        **{
            f"spoil_{n}": np.float32(constant)
            for n, (_, constant) in enumerate(steps)
            if constant is not None
        },
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    nodes = [
        helper.make_node("Cast", ["pixels"], ["spoil_cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["spoil_cast", "spoil_axes"], ["spoil_max"], keepdims=0),
    ]
    last = "spoil_max"
    for n, (operator, constant) in enumerate(steps):
        inputs = [last] if constant is None else [last, f"spoil_{n}"]
        last = f"spoil_step_{n}"
        nodes.append(helper.make_node(operator, inputs, [last]))
    nodes += [
        helper.make_node("Reshape", [last, "spoil_shape"], ["spoil_added"]),
        helper.make_node("Add", ["sound", "spoil_added"], [output]),
    ]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def spoilt(tmp_path: Path, file: str, output: str, value: str, **settings: str) -> Bundle:
    sound = whole_bundle(tmp_path / "sound", **settings)
    files = {each.name: each for each in (tmp_path / "sound-graphs").glob("*.onnx")}
    spoil(files[file], tmp_path / file, output, value)
    return write_bundle(tmp_path / "spoilt", sound.spec, {**files, file: tmp_path / file})


def images(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(4)
    made = [rng.integers(150, 240, (70, 90, 3), dtype=np.uint8) for _ in range(count)]
    for image in made:
        image[20:50, 30:60] = rng.integers(30, 90, 3)
    return made


def folder_of(tmp_path: Path) -> Path:
    for number, pixels in enumerate(images(5)):
        write_png(tmp_path / "in" / f"ISIC_{number:07d}.png", BLACK if number == 2 else pixels)
    return tmp_path / "in"


@pytest.mark.parametrize(("file", "output", "value"), KINDS)
def test_from_python_the_image_fails_and_the_others_are_unaffected(
    tmp_path: Path, file: str, output: str, value: str
) -> None:
    bundle = spoilt(tmp_path, file, output, value)
    predictor = load(bundle.folder, threads=1)
    sound = images(4)
    prediction = list(predictor.stream([*sound[:2], BLACK, *sound[2:]], errors="yield"))
    assert [isinstance(each, FailedImage) for each in prediction] == [
        False,
        False,
        True,
        False,
        False,
    ]
    failed = prediction[2]
    assert isinstance(failed, FailedImage)
    assert failed.problem.startswith(f"network {bundle.sha256[:8]}/{file.removesuffix('.onnx')}")
    assert f"{value} in {output!r}" in failed.problem
    expected = load(tmp_path / "sound", threads=1)(sound)
    found = [each for each in prediction if isinstance(each, Prediction)]
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-6)
        assert one.box == other.box
    with pytest.raises(ImageError, match=r"image 0: network .* is not valid"):
        predictor(BLACK)


@pytest.mark.parametrize(("file", "output", "value"), [KINDS[0], KINDS[4], KINDS[6]])
def test_in_a_job_the_image_is_listed_and_the_others_predicted(
    tmp_path: Path, file: str, output: str, value: str
) -> None:
    bundle = spoilt(tmp_path, file, output, value)
    out = tmp_path / "out"
    words = ["predict", str(folder_of(tmp_path)), "--bundle", str(bundle.folder)]
    ended = CliRunner().invoke(app, [*words, "--out", str(out), "--embeddings", "--submission"])
    assert ended.exit_code == 1, ended.output  # as for every failed image
    rows = pq.read_table(out / "predictions.parquet").to_pandas()
    names = [f"ISIC_{number:07d}" for number in (0, 1, 3, 4)]
    assert rows["image_id"].tolist() == names
    assert np.isfinite(rows.filter(regex="^[pb]_").to_numpy(float)).all()
    assert pq.read_table(out / "embeddings.parquet").column("image_id").to_pylist() == names
    assert pd.read_csv(out / "submission.csv")["image"].tolist() == names
    failed = pd.read_csv(out / "failed.csv")
    assert failed["image_id"].tolist() == ["ISIC_0000002"]
    assert failed["problem"].str.contains(value, regex=False).all()
    # Files written before its diagnosis are removed.
    assert sorted(path.stem for path in (out / "crops").glob("*.png")) == names
    assert len(list((out / "masks").glob("*.png"))) == len(names)


def test_an_ensemble_with_one_invalid_network_does_not_predict(tmp_path: Path) -> None:
    bad = spoilt(tmp_path, *KINDS[0])
    networks = open_networks([bad, Bundle.read(tmp_path / "sound")], threads=1)
    prediction = list(Predictor(*networks, threads=1).stream([BLACK, *images(1)], errors="yield"))
    assert [type(each) for each in prediction] == [FailedImage, Prediction]


@pytest.mark.parametrize(("file", "output", "value"), [KINDS[0], KINDS[3], KINDS[6]])
def test_errors_of_measurements_name_network_and_image(
    tmp_path: Path, file: str, output: str, value: str
) -> None:
    bundle = spoilt(tmp_path, file, output, value)
    by_id = {"dark": BLACK, "fine": images(1)[0]}
    write_png(tmp_path / "dark.png", BLACK)
    write_png(tmp_path / "truth.png", np.full((70, 90), 255, np.uint8))
    masked = [("dark", tmp_path / "dark.png", tmp_path / "truth.png")]
    measured: dict[str, Callable[[], object]] = {
        "logit": lambda: oof_scores(bundle, masked),
        "embedding": lambda: features_of(bundle.folder / file, by_id, sorted(by_id), size=32),
        "logits": lambda: oof_logits(bundle, by_id, sorted(by_id)),
    }
    with pytest.raises(BundleError, match=rf"dark: network .*{value} in '{output}'"):
        measured[output]()


def test_a_heatmap_of_non_finite_values_is_refused(tmp_path: Path) -> None:
    _, classifier = open_networks([spoilt(tmp_path, *KINDS[5])], threads=1)
    assert classifier is not None
    with pytest.raises(BundleError, match="is not valid"):
        class_activation_map(classifier, BLACK, np.ones((70, 90), bool), "MEL")


@pytest.mark.parametrize("place", [0, 1, 6])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_a_single_non_finite_value_is_a_fault(place: int, value: float) -> None:
    values = np.linspace(-5, 5, 21, dtype=np.float32).reshape(3, 7)
    assert faults_of("n", {"logits": values}) == {}
    values[1, place] = value
    assert list(faults_of("n", {"texture": np.zeros((3, 2)), "logits": values})) == [1]
