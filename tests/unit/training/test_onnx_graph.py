"""ONNX files: the network's outputs, reproducible bytes, and no traces of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from naevus.inference.engines import Engine, OnnxRuntimeEngine, OpenVINOEngine, Outputs
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.onnx_graph import OPSET, export_onnx, scale_by_number, scale_of, write_onnx
from tests.helpers import ROOT

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def outputs(path: Path, pixels: np.ndarray[Any, Any]) -> list[Outputs]:
    """Return the outputs of ONNX Runtime and OpenVINO for the file."""
    engines: list[Engine] = [OnnxRuntimeEngine(path, threads=1), OpenVINOEngine(path, threads=1)]
    return [engine.run(pixels) for engine in engines]


EXPORTED = [
    pytest.param("plain-unet", None, ("logit",), 40, id="plain"),
    pytest.param(
        None, "test_resnet", ("logits", "embedding", "texture", "cam"), 64, id="classifier"
    ),
    pytest.param(None, "test_vit", ("logits", "embedding"), 160, id="without-maps"),
    pytest.param(
        None,
        LITE0,
        ("logits", "embedding", "texture", "cam"),
        64,
        id="lite0",
        marks=pytest.mark.slow,
    ),
    pytest.param("unet", LITE0, ("logit",), 80, id="unet-lite0", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("architecture", "encoder", "names", "size"), EXPORTED)
def test_the_onnx_file_equals_the_network_and_holds_no_traces(
    architecture: str | None,
    encoder: str | None,
    names: tuple[str, ...],
    size: int,
    tmp_path: Path,
) -> None:
    weights: Any = "imagenet" if encoder == LITE0 else "none"
    if architecture is None:
        network = Preprocessed(build_classifier(encoder or "", weights=weights))
    else:
        decoder = {"channels": [4, 8, 8]} if encoder is None else {}
        network = Preprocessed(build_segmenter(architecture, encoder or "", weights, decoder))
    path = tmp_path / "network.onnx"
    export_onnx(network, path, input_size=size)

    assert all(module.training for module in network.modules())
    network.eval()
    for images in (1, 3):
        pixels = np.random.default_rng(images).integers(
            0, 256, (images, size, size, 3), dtype=np.uint8
        )
        with torch.no_grad():
            expected = network(torch.from_numpy(pixels)).numpy()
        for found in outputs(path, pixels):
            assert tuple(found) == names
            assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
            np.testing.assert_allclose(found[names[0]], expected, atol=1e-4, rtol=0)
            if "cam" in names:
                means = found["cam"].mean((2, 3))
                np.testing.assert_allclose(means, found["logits"], atol=1e-4, rtol=0)
            if "embedding" in names:
                classifier: Any = network.network
                head = classifier.head[-1]
                with torch.no_grad():
                    logits = head(torch.from_numpy(found["embedding"])).numpy()
                np.testing.assert_allclose(logits, found["logits"], atol=1e-4, rtol=0)
            if "texture" in names:
                expected_texture = texture(network, torch.from_numpy(pixels))
                np.testing.assert_allclose(found["texture"], expected_texture, atol=1e-3, rtol=1e-3)

    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["pixels"]
    assert tuple(value.name for value in model.graph.output) == names
    assert [opset.version for opset in model.opset_import if not opset.domain] == [OPSET]
    content = path.read_bytes()
    for folder in (ROOT, Path.home(), Path(torch.__file__).parents[1], tmp_path):
        assert str(folder).encode() not in content
    for trace in (b".py", b"site-packages", b"Traceback", b"stack_trace", b"torch", b"timm"):
        assert trace not in content


def texture(network: Preprocessed, pixels: torch.Tensor) -> Any:
    """Compute the mean and deviation of the maps of the backbone's last two stages."""
    classifier: Any = network.network
    with torch.no_grad():
        _, maps = classifier.backbone.forward_intermediates(network.prepared(pixels), indices=2)
        return torch.cat(
            [part for each in maps for part in (each.mean((2, 3)), each.std((2, 3), correction=0))],
            dim=1,
        )


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    network = Preprocessed(
        build_segmenter("plain-unet", weights="none", decoder={"channels": [4, 8]})
    )
    files = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for file in files:
        export_onnx(network, file, input_size=32)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_maps_are_left_out_if_they_are_not_exact(tmp_path: Path) -> None:
    for settings in ({"pooling": "max"}, {"hidden": 8}):
        network = Preprocessed(build_classifier("test_resnet", weights="none", **settings))
        export_onnx(network, tmp_path / "network.onnx", input_size=96)
        graph = onnx.load(tmp_path / "network.onnx").graph
        assert [value.name for value in graph.output] == ["logits", "embedding", "texture"]


def test_scales_give_the_sizes_also_if_engines_round_down() -> None:
    for old in range(1, 70):
        for new in (*range(1, 40), *range(40, 700, 37)):
            scale = np.float32(scale_of(old, new))
            assert int(float(scale) * old) == int(scale * np.float32(old)) == new
            assert abs(float(scale) - new / old) <= 2 * np.spacing(np.float32(new / old))


@pytest.mark.parametrize(("old", "new"), [(3, 20), (6, 20), (3, 28), (7, 25), (20, 3), (5, 40)])
def test_engines_resize_maps_to_sizes_that_are_no_multiples(
    tmp_path: Path, old: int, new: int
) -> None:
    make, number = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["pixels"], ["numbers"], to=number.FLOAT),
         onnx.helper.make_node("Transpose", ["numbers"], ["before"], perm=[0, 3, 1, 2]),
         onnx.helper.make_node("Resize", ["before", "", "", "sizes"], ["map"], mode="linear"),
         onnx.helper.make_node("Identity", ["map"], ["logit"])],
        "resize",
        [make("pixels", number.UINT8, ["batch", old, old, 3])],
        [make("logit", number.FLOAT, ["batch", 3, new, new])],
        [onnx.numpy_helper.from_array(np.array([1, 3, new, new], np.int64), "sizes")],
        value_info=[make("before", number.FLOAT, ["batch", 3, old, old]),
                    make("map", number.FLOAT, ["batch", 3, new, new])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    scale_by_number(model)
    write_onnx(model, tmp_path / "resize.onnx")
    found = outputs(tmp_path / "resize.onnx", np.zeros((2, old, old, 3), np.uint8))
    assert [each["logit"].shape for each in found] == [(2, 3, new, new)] * 2
