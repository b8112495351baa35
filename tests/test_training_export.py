"""ONNX files: the same numbers elsewhere, the same bytes again, and no trace of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from naevus.inference.engines import OpenVINOEngine
from naevus.training.export import OPSET, export_onnx
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def outputs(path: Path, pixels: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """What ONNX Runtime and OpenVINO make of the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"pixels": pixels})[0], OpenVINOEngine(path, threads=1).run(pixels)]


EXPORTED = [
    pytest.param("plain-unet", None, "logit", 40, id="plain"),
    pytest.param(None, "test_resnet", "logits", 64, id="classifier"),
    pytest.param(None, LITE0, "logits", 64, id="classifier-lite0", marks=pytest.mark.slow),
    pytest.param("unet", LITE0, "logit", 80, id="unet-lite0", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("architecture", "encoder", "output", "size"), EXPORTED)
def test_the_onnx_file_is_the_network_and_nothing_else(
    architecture: str | None, encoder: str | None, output: str, size: int, tmp_path: Path
) -> None:
    weights: Any = "imagenet" if encoder == LITE0 else "none"
    if architecture is None:
        network = Preprocessed(build_classifier(encoder or "", weights=weights))
    else:
        decoder = {"channels": [4, 8, 8]} if encoder is None else {}
        network = Preprocessed(build_segmenter(architecture, encoder or "", weights, decoder))
    path = tmp_path / "network.onnx"
    export_onnx(network, path, input_size=size, output=output)

    assert all(module.training for module in network.modules())
    network.eval()
    for pictures in (1, 3):
        pixels = np.random.default_rng(pictures).integers(
            0, 256, (pictures, size, size, 3), dtype=np.uint8
        )
        with torch.no_grad():
            expected = network(torch.from_numpy(pixels)).numpy()
        for found in outputs(path, pixels):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["pixels"]
    assert [value.name for value in model.graph.output] == [output]
    assert [opset.version for opset in model.opset_import if not opset.domain] == [OPSET]
    content = path.read_bytes()
    here = Path(__file__).resolve()
    for folder in (here.parents[1], Path.home(), Path(torch.__file__).parents[1], tmp_path):
        assert str(folder).encode() not in content
    for trace in (b".py", b"site-packages", b"Traceback", b"stack_trace", b"torch", b"timm"):
        assert trace not in content


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    network = Preprocessed(
        build_segmenter("plain-unet", weights="none", decoder={"channels": [4, 8]})
    )
    files = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for file in files:
        export_onnx(network, file, input_size=32, output="logit")
    assert files[0].read_bytes() == files[1].read_bytes()
