"""Masks as people write them: read as they are meant, or refused, never read as empty."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from naevus.errors import ImageError
from naevus.images.maskfile import read_mask, read_mask_file, read_mask_of
from naevus.images.read import Limits, write_png

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


HEIGHT, WIDTH = 60, 84


ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


LESION = np.asarray((ROWS - 25) ** 2 / 200 + (COLUMNS - 50) ** 2 / 500 < 1)
NUMBERS = LESION.astype(np.uint8)


def coloured(*colours: tuple[int, ...]) -> NDArray[np.uint8]:
    """The lesion in the second colour."""
    return np.array(colours, np.uint8)[NUMBERS]


def indexed(numbers: NDArray[np.uint8], *colours: tuple[int, int, int], **more: Any) -> Any:
    """What writes a palette image; the rest of its palette is black."""

    def write(path: Path) -> None:
        image = Image.fromarray(numbers, "L").convert("L")
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([value for colour in colours for value in colour])
        image.save(path, **more)

    return write


def pillow(pixels: NDArray[Any], mode: str | None = None, **more: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = Image.fromarray(pixels)
        (image if mode is None else image.convert(mode)).save(path, **more)

    return write


def opencv(pixels: NDArray[Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())

    return write


SOFT = cv2.GaussianBlur(NUMBERS * 255, (0, 0), 1.2)
VOC = ((0, 0, 0), (128, 0, 0), (0, 128, 0))
WIDE = NUMBERS.astype(np.uint16)
READ: dict[str, tuple[str, Callable[[Path], None]]] = {
    "0 and 255": ("a.png", pillow(NUMBERS * 255)),
    "0 and 1": ("a.png", pillow(NUMBERS)),
    "0 and 2, one label of several": ("a.png", pillow(NUMBERS * 2)),
    "0 and 38, VOC made grey": ("a.png", pillow(NUMBERS * 38)),
    "0 and 127": ("a.png", pillow(NUMBERS * 127)),
    "0 and 1 in BMP": ("a.bmp", pillow(NUMBERS)),
    "0 and 1 in TIFF": ("a.tif", pillow(NUMBERS, compression="tiff_lzw")),
    "lossless WebP": ("a.webp", pillow(NUMBERS * 255, "RGB", lossless=True)),
    "1 bit": ("a.png", pillow(NUMBERS * 255, "1")),
    "1 bit TIFF": ("a.tif", pillow(NUMBERS * 255, "1", compression="group4")),
    "1 bit BMP": ("a.bmp", pillow(NUMBERS * 255, "1")),
    "16 bits 0 and 1": ("a.png", pillow(WIDE)),
    "16 bits 0 and 255": ("a.png", pillow(WIDE * 255)),
    "16 bits 0 and 65535": ("a.png", pillow(WIDE * 65535)),
    "16 bits TIFF 0 and 255": ("a.tif", opencv(WIDE * 255)),
    "16 bits soft": ("a.png", pillow(SOFT.astype(np.uint16) * 257)),
    "16 bits RGB 0 and 255": ("a.png", opencv(np.dstack([WIDE * 255] * 3))),
    "16 bits RGBA 0 and 1": ("a.png", opencv(np.dstack([*[WIDE] * 3, np.full_like(WIDE, 65535)]))),
    "VOC palette": ("a.png", indexed(NUMBERS, *VOC)),
    "VOC palette, second class": ("a.png", indexed(NUMBERS * 2, *VOC)),
    "VOC palette, 255": ("a.png", indexed(NUMBERS * 255, *VOC, *[(224, 224, 192)] * 253)),
    "palette of greys": ("a.png", indexed(NUMBERS, (0, 0, 0), (255, 255, 255))),
    "palette of greys, turned": ("a.png", indexed(1 - NUMBERS, (255, 255, 255), (0, 0, 0))),
    "palette of one colour": ("a.png", indexed(NUMBERS, (0, 0, 0), (0, 0, 0))),
    "palette, numbers alone": ("a.png", indexed(NUMBERS, (0, 0, 0), (1, 1, 1))),
    "palette, 1 bit deep": ("a.png", indexed(NUMBERS, *VOC[:2], bits=1)),
    "palette GIF": ("a.gif", indexed(NUMBERS, *VOC)),
    "palette with transparency": ("a.png", indexed(NUMBERS, *VOC, transparency=0)),
    "grey palette of Pillow": ("a.png", pillow(NUMBERS * 255, "P")),
    "RGB": ("a.png", pillow(NUMBERS * 255, "RGB")),
    "RGB 0 and 1": ("a.png", pillow(np.dstack([NUMBERS] * 3))),
    "red on black": ("a.png", pillow(coloured((0, 0, 0), (255, 0, 0)))),
    "blue on black": ("a.bmp", pillow(coloured((0, 0, 0), (0, 0, 3)))),
    "opaque": ("a.png", pillow(NUMBERS * 255, "RGBA")),
    "opaque 0 and 1": ("a.png", pillow(coloured((0, 0, 0, 255), (1, 1, 1, 255)))),
    "grey, opaque": ("a.png", pillow(NUMBERS * 255, "LA")),
    "all transparent": ("a.png", pillow(coloured((0, 0, 0, 0), (255, 255, 255, 0)))),
    "white where not transparent": ("a.png", pillow(coloured((0, 0, 0, 0), (255,) * 4))),
    "overlay of one colour": ("a.png", pillow(coloured((255, 0, 0, 0), (255, 0, 0, 90)))),
    "overlay on black": ("a.png", pillow(coloured((0, 0, 0, 0), (0, 255, 0, 128)))),
    "soft": ("a.png", pillow(SOFT)),
    "JPEG": ("a.jpg", pillow(NUMBERS * 255, quality=75)),
    "JPEG in colour": ("a.jpg", pillow(NUMBERS * 255, "RGB", quality=60)),
    "nearly 0 and 255": ("a.png", pillow(np.where(LESION, 250, 4).astype(np.uint8))),
}


@pytest.mark.parametrize("kind", READ)
def test_masks_are_read_as_they_are_meant(tmp_path: Path, kind: str) -> None:
    name, write = READ[kind]
    write(tmp_path / name)
    found = read_mask(tmp_path / name)
    assert found.shape == LESION.shape
    assert found.dtype == np.bool_
    unlike = float(np.mean(found != LESION))
    assert unlike <= (0.01 if "soft" in kind or "JPEG" in kind else 0)
    assert not found.all()
    assert found.any()


SHADES = np.linspace(60, 200, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "all 1": ("a.png", pillow(np.ones_like(NUMBERS)), "has the value 1 everywhere"),
    "all 255 of 65535": ("a.png", pillow(np.full_like(WIDE, 255)), "value 255 in 16 bits everywh"),
    "1 and 2": ("a.png", pillow(NUMBERS + 1), "2 values between 1 and 2"),
    "three labels": ("a.png", pillow(NUMBERS + (ROWS > 50).astype(np.uint8) * 2), "3 values"),
    "dark greys": ("a.png", pillow(SOFT // 3), "it is not clear which of them are lesion"),
    "light greys": ("a.png", pillow(SOFT // 3 + 160), "is not clear"),
    "a dark JPEG": ("a.jpg", pillow(NUMBERS * 20, quality=95), "is not clear"),
    "a photograph": ("a.png", pillow(SHADES), "is not a mask: "),
    "two colours": ("a.png", pillow(coloured((0, 0, 255), (255, 0, 0))), "is in colour"),
    "red on white": ("a.png", pillow(coloured((255, 255, 255), (255, 0, 0))), "is in colour"),
    "VOC with its border": (
        "a.png",
        indexed(np.where(SOFT % 255, 2, NUMBERS).astype(np.uint8), *VOC),
        "is in colour, but not one colour on black",
    ),
    "ADE20K palette": ("a.png", indexed(NUMBERS, (120, 120, 120), (180, 120, 120)), "in colour"),
    "two masks": (
        "a.png",
        pillow(np.dstack([*[NUMBERS * 255] * 3, NUMBERS[:, ::-1] * 255])),
        "one mask in its colours and another in its transparency",
    ),
    "32 bits": (
        "a.tif",
        pillow(LESION.astype(np.float32)),
        "32 bits per channel, which is not",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_masks_are_refused(tmp_path: Path, kind: str) -> None:
    name, write, message = REFUSED[kind]
    write(tmp_path / name)
    with pytest.raises(ImageError, match=message) as refused:
        read_mask(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize(("value", "full"), [(0, False), (255, True), (65535, True)])
def test_empty_and_full_masks_are_read(tmp_path: Path, value: int, full: bool) -> None:
    kind = np.uint16 if value > 255 else np.uint8
    pillow(np.full((4, 5), value, kind))(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png") == full).all()


def test_foreground_begins_above_127(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_png(path, np.array([[0, 0, 0, 1, 127, 128, 255, 255, 255]], np.uint8))
    found = read_mask_file(path)
    assert found.mask[0].tolist() == [False] * 5 + [True] * 4
    assert (found.values, found.usual) == (5, False)


def exif(turn: int) -> Image.Exif:
    output = Image.Exif()
    output[0x0112] = turn
    return output


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_masks_of_rotated_images_are_rotated(
    tmp_path: Path, turn: int, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    image, mask = tmp_path / f"image{suffix}", tmp_path / "mask.png"
    stored = NUMBERS * np.uint8(255)
    Image.fromarray(stored).convert("RGB").save(image, exif=exif(turn))
    with Image.open(image) as opened:
        output = opened.getexif().get(0x0112, 1)
    assert output == turn
    turned = Image.fromarray(stored)
    turned.getexif()[0x0112] = turn
    upright = np.array(ImageOps.exif_transpose(turned))
    with caplog.at_level(logging.WARNING):
        write_png(mask, upright)
        np.testing.assert_array_equal(read_mask_of(mask, image), upright > 0)
        assert bool(caplog.records) == (turn in {2, 3, 4}), "sizes do not tell"
        if turn > 4:
            write_png(mask, stored)
            np.testing.assert_array_equal(read_mask_of(mask, image), upright > 0)
            assert not caplog.records


def test_a_rotated_square_image_is_flagged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square = LESION[:, :HEIGHT]
    Image.new("RGB", (HEIGHT, HEIGHT)).save(tmp_path / "a.jpg", exif=exif(6))
    write_png(tmp_path / "a.png", square)
    np.testing.assert_array_equal(read_mask_of(tmp_path / "a.png", tmp_path / "a.jpg"), square)
    assert "does not show whether the mask is rotated" in caplog.text


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", LESION)
    for size in ((WIDTH, HEIGHT + 1), (HEIGHT, WIDTH), (WIDTH * 2, HEIGHT * 2)):
        Image.new("RGB", size).save(tmp_path / "a.png")
        with pytest.raises(
            ImageError, match=rf"84 x 60 pixels, but its image {size[0]} x {size[1]}"
        ):
            read_mask_of(tmp_path / "mask.png", tmp_path / "a.png")
    for size in ((WIDTH * 2 + 1, HEIGHT * 2), (42, 30)):
        Image.new("RGB", size).save(tmp_path / "a.png")
        assert read_mask_of(tmp_path / "mask.png", tmp_path / "a.png", scaled=True).any()
    Image.new("RGB", (100, 60)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="its image 100 x 60"):
        read_mask_of(tmp_path / "mask.png", tmp_path / "a.png", scaled=True)


def test_a_mask_may_be_as_large_as_a_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"JPEG": LESION.size, "PNG": LESION.size - 1}
    monkeypatch.setattr(Limits, "pixels_of", lambda self, name: self.pixels or limits[name])
    path = tmp_path / "mask.png"
    write_png(path, NUMBERS)
    assert np.array_equal(read_mask(path), LESION)
    with pytest.raises(ImageError, match="more than the limit"):
        read_mask(path, Limits(LESION.size - 1))
    limits["JPEG"] -= 1
    with pytest.raises(ImageError, match="more than the limit"):
        read_mask(path)
