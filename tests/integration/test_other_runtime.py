"""The code on the page about deployment: another runtime with equal results, and a service."""

from __future__ import annotations

import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import naevus
from naevus.bundles.bundle import Bundle, builtin
from naevus.images.preprocess import cut
from naevus.images.read import write_png
from tests.helpers import ROOT
from tests.helpers.mixed_inputs import mixed_bundle
from tests.helpers.onnx_graphs import CONFORMAL, whole_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from naevus import Predictor
    from naevus.types import CropMode

PAGE = ROOT / "docs" / "how-to" / "deploy.md"
# Height, width, and the half axes of the lesion. One lesion is nearly as long as the image is high.
SHAPES = [(420, 560, 150, 130), (512, 512, 180, 120), (640, 480, 110, 170), (450, 600, 210, 140)]


def block_with(word: str) -> dict[str, Any]:
    """Run the page's block of Python that has a word, and return its names."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = (each for each in blocks if word in each)
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


def drawn(shape: tuple[int, int, int, int], seed: int) -> NDArray[np.uint8]:
    height, width, across, down = shape
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (214, 170, 150), np.uint8)
    centre = (width // 2, height // 2)
    cv2.ellipse(image, centre, (across, down), 20, 0, 360, (110, 70, 55), -1)
    cv2.ellipse(image, centre, (across // 2, down // 3), 60, 0, 360, (60, 40, 45), -1)
    noise = np.kron(rng.normal(0, 8, (height // 4, width // 4, 3)), np.ones((4, 4, 1)))
    noisy = np.pad(noise, ((0, height % 4), (0, width % 4), (0, 0))) + image
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


@pytest.fixture(scope="module", params=["built-in", "mixed"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in bundle, and the same with a first classifier of centre squares."""
    place = tmp_path_factory.mktemp("other-runtime") / "bundle"
    if request.param == "mixed":
        return mixed_bundle(Bundle.read(builtin()), place, 0, "full").folder
    return Path(shutil.copytree(builtin(), place))


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    pytest.importorskip("onnxruntime")
    return naevus.load(bundle, engine="onnxruntime", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def example(bundle: Path) -> Iterator[dict[str, Any]]:
    """The block about another runtime, with the bundle in the folder it names."""
    pytest.importorskip("onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bundle.parent)
        yield block_with("InferenceSession")


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_the_example_gives_the_probabilities_of_naevus(
    tmp_path: Path, predictor: Predictor, example: dict[str, Any], number: int
) -> None:
    path, mask_path = tmp_path / "photo.png", tmp_path / "mask.png"
    pixels = drawn(SHAPES[number], number)
    write_png(path, pixels)
    prediction = predictor(path)
    assert prediction.mask is not None
    assert prediction.crop_mode == "crop"
    write_png(mask_path, prediction.mask)
    found = example["probabilities"](path, mask_path)
    assert list(found) == list(prediction.probabilities)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    same = True
    spec = example["spec"]
    for member in spec["members"]:
        mode, size = member.get("crop_mode") or spec["crop_mode"], member["input_size"]
        ours = cut(pixels, prediction.mask, mode=mode, size=size).pixels
        theirs = example["crop"](pixels, prediction.mask, size, mode)
        difference = np.abs(ours.astype(int) - theirs)
        # Values halfway between two grey levels; they are frequent at simple ratios, as 512 : 160.
        assert difference.max() <= 1
        assert (difference > 0).mean() < (0.01 if mode == "crop" else 0.15)
        same = same and not difference.any()
    tolerance = 1e-9 if same else 0.01
    for code, probability in prediction.probabilities.items():
        assert found[code] == pytest.approx(probability, abs=tolerance)


def test_equal_pixels_give_equal_probabilities(
    tmp_path: Path, predictor: Predictor, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With naevus's own crops, nothing is left to rounding: the last digits are the same."""

    def crop(
        image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, mode: CropMode
    ) -> NDArray[np.uint8]:
        return cut(image, mask, mode=mode, size=size).pixels

    monkeypatch.setitem(example["probabilities"].__globals__, "crop", crop)
    for number, shape in enumerate(SHAPES):
        write_png(tmp_path / "photo.png", drawn(shape, number))
        prediction = predictor(tmp_path / "photo.png")
        assert prediction.mask is not None
        write_png(tmp_path / "mask.png", prediction.mask)
        found = example["probabilities"](tmp_path / "photo.png", tmp_path / "mask.png")
        assert found == pytest.approx(dict(prediction.probabilities), abs=1e-9)


def test_the_service_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_bundle(tmp_path / "bundle", conformal=CONFORMAL)
    loaded = naevus.load(tmp_path / "bundle", threads=1)
    monkeypatch.setattr(naevus, "load", lambda **_: loaded)
    handler = block_with("BaseHTTPRequestHandler")["Handler"]
    handler.log_message = lambda *_: None
    write_png(tmp_path / "lesion.png", drawn((120, 160, 40, 30), 0))
    content = (tmp_path / "lesion.png").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert json.load(answer) == loaded.info()
            with urllib.request.urlopen(address, content, timeout=30) as answer:
                values = json.load(answer)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(address, b"no image", timeout=30)
        finally:
            server.shutdown()
    assert values == loaded(content).to_dict()
    assert values["mask_polygons"]
    with caught.value as refused:
        assert refused.code == 422
        assert "is not a JPEG" in json.load(refused)["error"]
