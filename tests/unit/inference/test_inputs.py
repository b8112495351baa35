"""The image inputs of a predictor, and its use from threads and processes."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import pytest
import simplejpeg
from PIL import Image

import naevus
from naevus import errors
from naevus.errors import DataError, ImageError, NaevusError
from naevus.images import profiles
from naevus.images.read import ImageBytes, Limits, read
from naevus.inference.predictor import Predictor
from naevus.types import FailedImage
from tests.helpers.onnx_graphs import whole_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray


def synthetic(seed: int, height: int = 120, width: int = 180) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = rng.integers(190, 240, (height, width, 3), dtype=np.uint8)
    top, left = rng.integers(20, 40, 2)
    image[top : top + 50, left : left + 70] = (120, 60, 40)
    return image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "bundle"
    whole_bundle(folder, temperature=2.0)
    return folder


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> Predictor:
    return naevus.load(bundle, threads=2)


def values_of(prediction: Any) -> dict[str, Any]:
    values: dict[str, Any] = prediction.to_dict()
    return {name: value for name, value in values.items() if name not in {"image_id", "path"}}


class Tensor:
    """The interface of another library's tensor."""

    def __init__(self, values: NDArray[Any], device: int = 1) -> None:
        self._values, self._device = values, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0

    def __dlpack__(self, **asked: Any) -> Any:
        return self._values.__dlpack__(**asked)


class ArrayTensor(Tensor):
    """A tensor with another way of conversion to NumPy."""

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        return self._values


def test_all_kinds_of_inputs_give_the_same_prediction(tmp_path: Path, loaded: Predictor) -> None:
    pixels = synthetic(1)
    path = tmp_path / "lesion.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    expected = values_of(loaded(path))
    first = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    input_specs: dict[str, Any] = {
        "name": str(path),
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "named bytes": ImageBytes("upload.png", content),
        "stream": io.BytesIO(content),
        "opened image": Image.open(path),
        "made image": Image.fromarray(pixels),
        "image with alpha": Image.fromarray(pixels).convert("RGBA"),
        "array": pixels,
        "turned round": pixels[:, :, ::-1].copy()[:, :, ::-1],
        "read-only": np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
        "channels first": first,
        "tensor": Tensor(pixels),
        "pinned tensor": Tensor(pixels, 3),
        "array tensor": ArrayTensor(first),
    }
    assert {name: values_of(loaded(given)) for name, given in input_specs.items()} == dict.fromkeys(
        input_specs, expected
    )
    with path.open("rb") as stream:
        assert loaded(stream).image_id == "lesion"
        assert not stream.closed
    with Image.open(path) as image:
        assert loaded(image).image_id == "lesion"
    assert loaded(input_specs["named bytes"]).image_id == "upload"
    several = loaded([path, content, pixels])
    assert [each.image_id for each in several] == ["lesion", "image 1", "image 2"]
    assert [each.image_id for each in loaded(iter([pixels]))] == ["image 0"]


def test_torch_tensors_are_accepted(loaded: Predictor) -> None:
    torch = pytest.importorskip("torch")
    pixels = synthetic(2)
    expected = values_of(loaded(pixels))
    tensor = torch.from_numpy(pixels)
    assert values_of(loaded(tensor)) == values_of(loaded(tensor.permute(2, 0, 1))) == expected
    with pytest.raises(DataError, match=r"float32 \(120, 180, 3\).*0..255.*uint8"):
        loaded(tensor.permute(2, 0, 1).float().requires_grad_().detach() / 255)
    with pytest.raises(DataError, match="is not convertible to an array"):
        loaded(tensor.float().requires_grad_())
    with pytest.raises(DataError, match="is not on the CPU"):
        loaded(tensor.to("meta"))


def test_grey_equals_three_equal_channels(loaded: Predictor) -> None:
    grey = synthetic(3).mean(axis=2).astype(np.uint8)
    expected = values_of(loaded(np.repeat(grey[:, :, None], 3, axis=2)))
    for given in (grey, grey[None], grey[:, :, None], Image.fromarray(grey)):
        values = values_of(loaded(given))
        assert values["probabilities"] == expected["probabilities"]


def test_a_pillow_image_equals_its_file(tmp_path: Path, loaded: Predictor) -> None:
    pixels = synthetic(4)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    Image.fromarray(pixels).save(turned, quality=95, exif=exif)
    alpha = Image.fromarray(pixels)
    alpha.putalpha(Image.fromarray((pixels[:, :, 0] > 150).astype(np.uint8) * 255))
    alpha.save(clear)
    for path in (turned, clear):
        with Image.open(path) as image:
            by_file, by_image = loaded(path), loaded(image)
        assert (by_image.height, by_image.width) == (by_file.height, by_file.width)
        assert by_image.box == by_file.box
        for code, fraction in by_file.probabilities.items():
            assert by_image.probabilities[code] == pytest.approx(fraction, abs=0.01)


def test_a_pillow_image_is_converted_to_srgb(tmp_path: Path, loaded: Predictor) -> None:
    pixels = synthetic(8)
    swapped = profiles.SRGB._replace(red=profiles.SRGB.blue, blue=profiles.SRGB.red)
    profile = profiles.matrix_profile(swapped, None)
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
    image.info["icc_profile"] = profile
    image.save(tmp_path / "p.png", icc_profile=profile)
    expected = read(tmp_path / "p.png")
    assert np.abs(expected.astype(int) - pixels).max() <= 3  # the profile turns them back
    output = loaded(image)
    np.testing.assert_array_equal(output.image, expected)
    assert values_of(output) == values_of(loaded(tmp_path / "p.png"))
    image.info["icc_profile"] = b"no profile"
    assert "broken_profile" in loaded(image).flags


def test_images_and_pixels_beyond_the_limits_are_refused(loaded: Predictor) -> None:
    job = loaded._pipeline
    small = Predictor(
        job.prediction_options.segmenter,
        job.prediction_options.classifier,
        limits=Limits(pixels=10_000),
    )
    pixels = synthetic(9)
    for given in (pixels, Image.fromarray(pixels), cv2.imencode(".png", pixels)[1].tobytes()):
        with pytest.raises(ImageError, match=r"180 x 120 pixels, more than the limit"):
            small(given)


def test_a_jpeg_that_pillow_has_not_loaded_is_predicted_like_its_file(
    tmp_path: Path, loaded: Predictor
) -> None:
    path = tmp_path / "photo.jpg"
    pixels = cv2.resize(synthetic(10), (1440, 960), interpolation=cv2.INTER_CUBIC)
    path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels)))
    expected = loaded(path)
    with Image.open(path) as image:
        assert values_of(loaded(image)) == values_of(loaded(image)) == values_of(expected)
        assert image.size == (1440, 960)
        by_pixels = loaded(image.convert("RGB"))
    with Image.open(path) as image:
        image.draft("RGB", (360, 240))
        assert (loaded(image).width, loaded(image).height) == image.size == (360, 240)
    for code, fraction in expected.probabilities.items():
        assert by_pixels.probabilities[code] == pytest.approx(fraction, abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (None, "NoneType is not an image"),
        (3, "int is not an image"),
        ({"a.jpg": 1}, "dict is not an image"),
        ([None], "image 0 is of type NoneType.*give a path, bytes"),
        ([["a.jpg"]], "image 0 is of type list"),
        (np.zeros((2, 20, 30, 3), np.uint8), r"as a list: list\(batch\)"),
        (np.zeros((20, 30, 3), np.float32), "scale the values to 0..255"),
        (np.zeros((20, 30, 3), np.uint16), "uint16 .* is not an image; give uint8.*OpenCV"),
        (np.zeros((20, 30), np.bool_), "bool .* is not an image; give uint8"),
        (np.zeros((20, 30, 4), np.uint8), "remove the transparency"),
        (np.zeros((0, 30, 3), np.uint8), "is not an image"),
        (np.zeros(30, np.uint8), "is not an image"),
        (np.ma.masked_equal(np.zeros((20, 30, 3), np.uint8), 0), "masked array"),
        (
            Tensor(np.zeros((20, 30, 3), np.uint8), device=2),
            r"not on the CPU; move it with \.cpu\(\)",
        ),
        (io.StringIO("text"), "gives str, not bytes; open it with 'rb'"),
        (b"", "image 0: is empty"),
        (b"no image", "image 0: is not a"),
    ],
)
def test_inputs_that_are_not_images_are_one_clear_error(
    loaded: Predictor, wrong: Any, problem: str
) -> None:
    with pytest.raises(NaevusError, match=problem) as raised:
        loaded(wrong)
    assert "\n" not in str(raised.value)


def test_an_unreadable_image_is_returned_as_failed(tmp_path: Path, loaded: Predictor) -> None:
    pixels = synthetic(5)
    whole = simplejpeg.encode_jpeg(pixels)
    cut = tmp_path / "cut.png"
    Image.fromarray(pixels).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    closed = io.BytesIO(whole)
    closed.close()
    opened = Image.open(cut)
    given = [whole, whole[:300], closed, opened, pixels]
    output = list(loaded.stream(given, errors="yield"))
    bad = [number for number, each in enumerate(output) if isinstance(each, FailedImage)]
    assert bad == [1, 2, 3]
    assert [each.image_id for each in output] == [
        "image 0",
        "image 1",
        "image 2",
        "cut",
        "image 4",
    ]
    with pytest.raises(ImageError, match="image 1: "):
        loaded(given)
    opened.close()


def test_a_folder_gives_a_list(tmp_path: Path, loaded: Predictor) -> None:
    for name in ("a/1.png", "b/1.png", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(synthetic(len(name))).save(tmp_path / name)
    expected = ["2", "a__1", "b__1"]
    for folder in (tmp_path, str(tmp_path)):
        output: Any = loaded(folder)
        assert [each.image_id for each in output] == expected
    (tmp_path / "new\nline.png").write_bytes((tmp_path / "2.png").read_bytes())
    first, *rest = loaded.stream(tmp_path, errors="yield")
    assert isinstance(first, FailedImage)
    assert [each.image_id for each in rest] == expected


def test_a_column_of_a_table_is_several_images(tmp_path: Path, loaded: Predictor) -> None:
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), synthetic(number))
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    expected = [values_of(each) for each in loaded(paths)]
    columns: list[Any] = [pd.Series(paths, dtype="string"), np.array(paths), pd.Index(paths)]
    for column in columns:
        assert [values_of(each) for each in loaded(column)] == expected


def test_an_image_from_memory_is_plotted(tmp_path: Path, loaded: Predictor) -> None:
    pytest.importorskip("matplotlib")
    content = simplejpeg.encode_jpeg(synthetic(6))
    loaded(content).plot().savefig(tmp_path / "p.png")
    assert read(tmp_path / "p.png").shape[1] > 300


def test_threads_share_a_predictor(loaded: Predictor) -> None:
    images = [synthetic(seed) for seed in range(20)]
    alone = [values_of(loaded(image)) for image in images]

    def ask(number: int) -> bool:
        return values_of(loaded(images[number % 20])) == alone[number % 20]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


def test_every_error_can_be_sent_between_processes() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    found = [each for each in kinds if issubclass(each, NaevusError)]
    assert ImageError in found
    for kind in found:
        made: Any = kind
        values = ("is cut off", "fetch it")
        error = made(Path("a.jpg"), *values) if kind is ImageError else made(*values)
        again = copy.copy(error)  # as a process is sent it
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
