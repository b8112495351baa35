"""Reading: formats, orientation, scaled decoding, and everything that must be refused."""

from __future__ import annotations

import base64
import io
import os
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image

from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.errors import ImageError
from naevus.images import decoders
from naevus.images.decoders import FORMATS
from naevus.images.geometry import squash
from naevus.images.maskfile import read_mask
from naevus.images.read import (
    IMAGE_SUFFIXES,
    ImageBytes,
    Limits,
    _Room,
    allow_megapixels,
    probe,
    read,
    read_with_header,
    write_png,
)
from naevus.io.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

HEIGHT, WIDTH = 120, 176


def grey_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def example(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A smooth image whose four corners differ, so that no orientation is like another."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = 120 + 60 * np.sin(x / 9) * np.cos(y / 7)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


LOSSLESS: dict[str, dict[str, Any]] = {
    "plain.png": {},
    "raw.tif": {},
    "lzw.tiff": {"compression": "tiff_lzw"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "plain.bmp": {},
    "lossless.webp": {"lossless": True},
    "whole.jp2": {},
    "stream.j2k": {},
}
LOSSY: dict[str, dict[str, Any]] = {
    "plain.jpg": {"quality": 95},
    "plain.jfif": {"quality": 95},
    "plain.jpe": {"quality": 95},
    "plain.avif": {"quality": 95},
    "irreversible.jp2": {"irreversible": True, "quality_layers": [40], "quality_mode": "dB"},
    "progressive.JPEG": {"quality": 95, "progressive": True, "format": "JPEG"},
    "jpeg-in.tif": {"compression": "jpeg", "quality": 95},
    "lossy.webp": {"quality": 95},
}


def saved(folder: Path, name: str, options: dict[str, Any], mode: str = "RGB") -> Path:
    path = folder / name
    Image.fromarray(example()).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(("name", "options"), [*LOSSLESS.items(), *LOSSY.items()])
def test_every_format_gives_the_image(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = saved(tmp_path, name, options)
    pixels = read(path)
    assert path.suffix.lower() in IMAGE_SUFFIXES
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    if name in LOSSLESS:
        np.testing.assert_array_equal(pixels, example())
    else:
        assert mean_difference(pixels, example()) < 2
    header = probe(path)
    assert header[:2] == (WIDTH, HEIGHT)
    assert header.format in FORMATS


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path, "really-a-png.jpg", {"format": "PNG"})
    np.testing.assert_array_equal(read(path), example())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["o.jpg", "o.png", "o.tif", "o.webp", "o.avif"])
@pytest.mark.parametrize("shortest", [None, 30])
def test_every_orientation_is_undone(
    tmp_path: Path, orientation: int, name: str, shortest: int | None
) -> None:
    path = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif, "quality": 95}
    if name.endswith("webp"):
        options["lossless"] = True
    Image.fromarray(stored(example(), orientation)).save(path, **options)
    pixels = read(path, shortest=shortest)
    if shortest is None:
        assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert mean_difference(squash(pixels, 24), squash(example(), 24)) < 3
    assert probe(path)[:2] == (WIDTH, HEIGHT)
    both = read_with_header(path, shortest=shortest)
    np.testing.assert_array_equal(both[0], pixels)
    assert both[1] == probe(path)


def stored(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What a camera held that way stores, by EXIF's table of where row 0 and column 0 are."""
    row_zero, column_zero = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    if row_zero in {"left", "right"}:
        columns = pixels if row_zero == "left" else pixels[:, ::-1]
        rows_first = columns if column_zero == "top" else columns[::-1]
        return np.ascontiguousarray(rows_first.swapaxes(0, 1))
    rows = pixels if row_zero == "top" else pixels[::-1]
    return np.ascontiguousarray(rows if column_zero == "left" else rows[:, ::-1])


def test_broken_exif_leaves_the_image_upright_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "exif.jpg"
    broken = b"Exif\0\0II*\0\x08\0\0\0\x40\0" + b"\x12\x01\x03\0\xff\xff\xff\x7f\xff\xff"
    Image.fromarray(example()).save(path, exif=broken)
    assert read(path).shape == (HEIGHT, WIDTH, 3)
    assert probe(path).width == WIDTH


@pytest.mark.parametrize(
    ("shortest", "expected"),
    [(1, (15, 22)), (12, (15, 22)), (13, (30, 44)), (37, (60, 88)), (90, (120, 176)), (500, None)],
)
def test_scaled_decoding_leaves_enough_and_never_enlarges(
    tmp_path: Path, shortest: int, expected: tuple[int, int] | None
) -> None:
    path = saved(tmp_path, "scaled.jpg", {"quality": 95})
    shape = read(path, shortest=shortest).shape[:2]
    assert shape == (expected or (HEIGHT, WIDTH))
    assert min(shape) >= min(shortest, HEIGHT)


def test_scaled_decoding_shows_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.fromarray(example(767, 1022)).save(path, quality=92)
    scaled = read(path, shortest=256)
    assert min(scaled.shape[:2]) < 767
    assert mean_difference(squash(scaled, 256), squash(read(path), 256)) < 1


def far_from_smooth(path: Path, side: int) -> float:
    """How far a scaled decoding is from scikit-image's anti-aliased resizing, in grey levels."""
    transform = pytest.importorskip("skimage.transform")
    smooth = 255 * transform.resize(read(path), (side, side), order=1, anti_aliasing=True)
    return float(np.abs(squash(read(path, shortest=side), side) - smooth).mean())


@pytest.mark.parametrize("side", [128, 200, 256])
def test_scaled_decoding_agrees_with_anti_aliased_resizing(tmp_path: Path, side: int) -> None:
    path = tmp_path / "drawn.jpg"
    Image.fromarray(draw_lesion("MEL", 1, 600)[0]).save(path, quality=92)
    assert far_from_smooth(path, side) <= 2


def test_real_originals_agree_with_anti_aliased_resizing(shared_data: Path) -> None:
    paths = sorted((shared_data / "originals").glob("*.jpg"))[:3]
    assert paths
    assert max(far_from_smooth(path, 256) for path in paths) <= 2


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_of_a_tiff_is_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mode.tif"
    image = Image.fromarray(example()).convert(mode)
    image.save(path)
    np.testing.assert_allclose(read(path), np.asarray(image.convert("RGB")), atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_sixteen_bit_tiff_keeps_its_high_byte(tmp_path: Path, order: str) -> None:
    path = tmp_path / "deep.tif"
    red = example()[:, :, 0]
    data = (red.astype(f"{order}u2") * 257).astype(f"{order}u2")
    mode = "I;16" if order == "<" else "I;16B"
    Image.frombytes(mode, (WIDTH, HEIGHT), data.tobytes()).save(path)
    for channel in range(3):
        np.testing.assert_array_equal(read(path)[:, :, channel], red)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    path = tmp_path / "alpha.png"
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 51, 255  # black: absent, a fifth, whole
    Image.fromarray(pixels).save(path)
    assert read(path)[0, :, 0].tolist() == [255, 204, 0]


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=b"\0\xff")
    assert read(path).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 0x0180, 0x7FFF, 0xFFFF]], np.uint16)
    grey = tmp_path / "grey.png"
    Image.fromarray(values).save(grey)
    assert read(grey)[0, :, 1].tolist() == [0, 1, 127, 255]
    colour = tmp_path / "colour.png"
    rows = b"\0" + np.repeat(values[0], 3).astype(">u2").tobytes()
    colour.write_bytes(png(width=4, height=1, depth=16, colour_type=2, rows=rows))
    assert read(colour)[0, :, 2].tolist() == [0, 1, 127, 255]


def png(*, width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("shortest", [None, 40])
def test_both_kinds_of_cmyk_are_converted(tmp_path: Path, shortest: int | None) -> None:
    cmyk = Image.fromarray(example()).convert("CMYK")
    adobe, plain = tmp_path / "adobe.jpg", tmp_path / "plain.jpg"
    cmyk.save(adobe, quality=95)  # Pillow writes Adobe's kind: inverted, with their marker
    buffer = io.BytesIO()
    inverted = (255 - np.asarray(cmyk)).tobytes()
    Image.frombytes("CMYK", cmyk.size, inverted).save(buffer, "JPEG", quality=95)
    plain.write_bytes(without_adobe_marker(buffer.getvalue()))
    for path in (adobe, plain):
        pixels = squash(read(path, shortest=shortest), 40)
        assert mean_difference(pixels, squash(example(), 40)) < 3, path.name


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    return jpeg[:start] + jpeg[start + 2 + length :]


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png", "a.gif", "a.avif"])
def test_the_first_frame_is_read_and_flagged(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frames = [Image.new("RGB", (48, 32), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    found = read_with_header(path)
    assert np.abs(found.pixels[0, 0].astype(int) - (200, 0, 0)).max() <= 2
    assert found.flags == ("first_frame",)
    frames[0].save(path, **options)
    assert read_with_header(path).flags == ()


@pytest.mark.parametrize("kinds", [(1,), (1, 1), (4,), (1, 0)])
def test_smaller_copies_among_the_pages_of_a_tiff_are_no_pages(
    tmp_path: Path, kinds: tuple[int, ...]
) -> None:
    path = tmp_path / "pages.tif"
    pages = [Image.fromarray(example())]
    for kind in kinds:
        page = Image.new("RGB", (44, 30), "green")
        page.encoderinfo = {"tiffinfo": {254: kind}}
        pages.append(page)
    pages[0].save(path, save_all=True, append_images=pages[1:])
    found = read_with_header(path)
    np.testing.assert_array_equal(found.pixels, example())
    assert found.flags == (("first_frame",) if 0 in kinds else ())


def test_a_multi_image_jpeg_is_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "two.jpg"
    frames = [Image.fromarray(example()), Image.fromarray(example()[::-1])]
    frames[0].save(path, format="MPO", save_all=True, append_images=frames[1:], quality=95)
    assert probe(path).format == "JPEG"
    assert mean_difference(read(path), example()) < 2


CUT = {
    **LOSSLESS,
    **LOSSY,
    "grey.jpg": {"mode": "L"},
    "ink.jpg": {"mode": "CMYK"},
    "palette.png": {"mode": "P"},
    "palette.bmp": {"mode": "P"},
    "palette.gif": {"mode": "P"},
}


@pytest.mark.parametrize(("name", "options"), CUT.items())
def test_a_file_truncated_anywhere_is_refused(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    options = dict(options)
    path = saved(tmp_path, name, options, options.pop("mode", "RGB"))
    whole = path.read_bytes()
    read(path)
    size = len(whole)
    # A JPEG is whole without its end marker, and a GIF without its last byte.
    last = {"JPEG": size - 4, "GIF": size - 3}.get(probe(path).format, size - 1)
    for length in {1, 3, 10, 30, *(size * k // 20 for k in range(1, 20)), size - 20, last}:
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"damaged|truncated|empty") as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert caught.value.remedy


@pytest.mark.parametrize("shortest", [None, 30])
def test_a_cut_off_jpeg_is_not_filled_with_grey(tmp_path: Path, shortest: int | None) -> None:
    path = saved(tmp_path, "cut.jpg", {"quality": 95})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ImageError, match="truncated"):
        read(path, shortest=shortest)


def test_a_strip_is_refused_whose_square_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    write_png(path, np.zeros((10, 600, 3), np.uint8))
    with pytest.raises(ImageError, match="600 x 10 pixels, too long for the limit of 100,000"):
        read(path, limits=Limits(pixels=100_000))
    assert read(path, limits=Limits(pixels=200_000)).shape == (10, 600, 3)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp", "a.webp"])
def test_bombs_are_refused_from_the_header(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name, {})
    limits = Limits(pixels=HEIGHT * WIDTH - 1)
    with pytest.raises(ImageError, match=r"176 x 120 pixels, more than the limit of 21,119"):
        read(path, limits=limits)
    with pytest.raises(ImageError, match="pixels"):
        probe(path, limits)
    assert read(path, limits=Limits(pixels=HEIGHT * WIDTH)).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_a_huge_header_is_judged_by_our_limit_alone(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"  # 121 megapixels: Pillow would warn; 3,600: it would raise
    path.write_bytes(png(width=side, height=side, depth=8, colour_type=2, rows=b""))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="more than the limit of 100,000,000"):
        read(path)
    assert probe(path, Limits(pixels=side * side)).width == side
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_tiff_beyond_pillows_limit_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, "large.tif", {"compression": "tiff_lzw"})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read(path), example())
    assert Image.MAX_IMAGE_PIXELS == 100


def test_large_files_are_refused_unopened(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", {})
    size = path.stat().st_size
    with pytest.raises(ImageError, match=f"has {size:,} bytes, more than the limit"):
        read(path, limits=Limits(file_bytes=size - 1))


def unusable(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "absent.jpg", "does not exist"
    yield folder, "is a folder"
    empty = folder / "empty.jpg"
    empty.touch()
    yield empty, "is empty"
    text = folder / "page.jpg"
    text.write_text("<html>404 not found</html>")
    yield text, "is not a JPEG"
    pipe = folder / "pipe.jpg"
    os.mkfifo(pipe)
    yield pipe, "is not a regular file"
    yield empty / "below.jpg", "cannot be read"
    yield folder / ("long" * 100), "cannot be read"
    yield folder / "nul\0.jpg", "cannot be read"
    deep = folder / "deep.tif"
    Image.fromarray(np.ones((4, 4), np.float32)).save(deep)
    yield deep, "has 32 bits per channel, which is not supported"
    whole = folder / "whole.tif"
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(whole)
    yield whole, "has 32 bits per channel, which is not supported"
    for kind in (np.float32, np.float64):  # Pillow does not open them
        coloured = folder / f"{kind.__name__}.tif"
        assert cv2.imwrite(str(coloured), np.ones((4, 5, 3), kind))
        yield coloured, f"has {kind.__name__[-2:]} bits per channel, which is not supported"
    cut = folder / "cut.tif"
    cut.write_bytes(coloured.read_bytes()[:6])
    yield cut, "is not a JPEG, PNG, TIFF"


def test_unusable_paths_are_named_with_a_remedy(tmp_path: Path) -> None:
    for path, problem in unusable(tmp_path):
        for mask in (False, True):
            with pytest.raises(ImageError, match=problem) as caught:
                read_mask(path) if mask else read(path)
            assert caught.value.path == path
            assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", {})
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read(path)


def test_a_failing_open_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "a.png", {})

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(Permission denied\)"):
        read(path)


@pytest.mark.parametrize("kind", ["mask", "grey", "colour"])
def test_written_images_come_back_and_are_the_same_bytes(tmp_path: Path, kind: str) -> None:
    colour = example()
    pixels: NDArray[Any] = {
        "mask": colour[:, :, 0] > 80,
        "grey": colour[:, ::-1, 0],
        "colour": colour,
    }[kind]
    first, second = tmp_path / "new" / "first.png", tmp_path / "second.png"
    write_png(first, pixels)
    write_png(second, pixels.copy())
    assert first.read_bytes() == second.read_bytes()
    readers: dict[str, Callable[[Path], NDArray[Any]]] = {
        "mask": read_mask,
        "grey": grey_of,
        "colour": read,
    }
    back = readers[kind](first)
    np.testing.assert_array_equal(back, pixels)
    assert [path.name for path in first.parent.iterdir()] == ["first.png"]


def test_threads_read_together_and_leave_pillow_as_it_was(tmp_path: Path) -> None:
    paths = [saved(tmp_path, name, options) for name, options in LOSSLESS.items()]
    limit = Image.MAX_IMAGE_PIXELS
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for path in paths * 3:
                np.testing.assert_array_equal(read(path), example())
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert limit == Image.MAX_IMAGE_PIXELS


def mean_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_bytes_and_streams_are_read_as_the_file_is(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name, {})
    content = path.read_bytes()
    stream = io.BytesIO(b"before" + content)
    stream.seek(len(b"before"))
    for held in (ImageBytes("upload 3", content), ImageBytes.from_stream(stream, "upload 3")):
        np.testing.assert_array_equal(read(held), read(path))
        assert read(held, shortest=40).shape == read(path, shortest=40).shape
        assert probe(held) == probe(path)
    assert not stream.closed


def test_bytes_that_are_no_image_are_named(tmp_path: Path) -> None:
    content = saved(tmp_path, "a.png", {}).read_bytes()
    for bad, problem in ((b"", "is empty"), (b"%PDF-1.7", "is not a"), (content[:90], "damaged")):
        with pytest.raises(ImageError, match=f"upload 3: {problem}|upload 3: .*{problem}"):
            read(ImageBytes("upload 3", bad))
    few = Limits(file_bytes=len(content) - 1)
    with pytest.raises(ImageError, match=r"upload 3: has .* bytes, more than the limit"):
        ImageBytes.from_stream(io.BytesIO(content), "upload 3", few)
    with pytest.raises(ImageError, match="more than the limit"):
        probe(ImageBytes("upload 3", content), few)
    text: Any = io.StringIO("text")
    with pytest.raises(ImageError, match="gives str, not bytes"):
        ImageBytes.from_stream(text, "upload 3")
    closed = io.BytesIO(content)
    closed.close()
    with pytest.raises(ImageError, match="cannot be read"):
        ImageBytes.from_stream(closed, "upload 3")


HEIC = (
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004fZDn*}000000000XXk=`10000000000aA{+70000000000000"
    "0000000B57=IV*mgE07O6l0RRC200001p#T8@0000000310001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F"
    "#rGn01j|zbZr0t000010002}X>f9I0002pX>en20001XXm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN"
    "^|NjGU00093kN^M!000939=ZZRVE_RDDnbDP18@KU0|1Z!00RI30{|YNAb|yz>g1-mxCm%4AOHXZ10VnZ0{|gn00"
    "967L;=Bbz=;3=025<xY;ta6Y<K_x01W^JfB*mh6lrsCWdHyG00000KmY&$KmY&$C}V74Z~y=RKmY&$0RR91FaQ7m"
    "0RR91000000{{R2@Bjb+0ssI25O8UDX#fBK00RgJ2mk;87-?{AVE_OC000000RRC7fdT^sga7~lU2SAxbN~PVQ78"
    "egSmyuqPXQ{BF&#9wz*T37h6WzGlJYqPm0@H9GB^0DL(}RlL>z;^d*eO6Z^WkI_XhAbWBz+~1BC%`QkUf5l^Zi5%"
    "Cr;J&{@GVc5n"
)
"""An image of 64 x 48 pixels, red from left to right and green from top to bottom, by an encoder
that naevus does not use."""


def test_a_heic_image_is_read_with_the_extra() -> None:
    pytest.importorskip("pi_heif")
    image = ImageBytes("photo.heic", base64.b85decode(HEIC))
    pixels = read(image).astype(int)
    assert probe(image) == (64, 48, "HEIF")
    assert pixels.shape == (48, 64, 3)
    y, x = np.mgrid[0:48, 0:64]
    expected = np.stack([255 * x / 63, 255 * y / 47, np.full_like(x, 120)], axis=-1)
    assert np.abs(pixels - expected).mean() < 6
    for length in (100, 300, 480):
        with pytest.raises(ImageError, match=r"damaged|HEIC"):
            read(ImageBytes("photo.heic", image.content[:length]))


def test_without_the_extra_a_heic_image_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    image = ImageBytes("photo.heic", base64.b85decode(HEIC))
    for reading in (read, probe):
        with pytest.raises(ImageError, match="decoder is not installed") as caught:
            reading(image)
        assert how_to_install("heif") in caught.value.remedy
    assert ".heic" in IMAGE_SUFFIXES


@pytest.mark.parametrize("kind", ["eXIf", "zTXt", "iTXt"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_metadata_behind_the_pixels_of_a_png_counts(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = {
        "eXIf": exif.tobytes()[6:],
        "zTXt": b"Raw profile type exif\0\0" + zlib.compress(
            b"\nexif\n      %d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode()
        ),
        "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta><rdf:Description tiff:Orientation=\"%d\"/>"
        % orientation,
    }[kind]  # fmt: skip
    buffer = io.BytesIO()
    Image.fromarray(stored(example(), orientation)).save(buffer, "PNG")
    whole = buffer.getvalue()
    check = zlib.crc32(kind.encode() + content)
    chunk = struct.pack(">I4s", len(content), kind.encode()) + content + struct.pack(">I", check)
    for at in (len(whole) - 12, 33):
        image = ImageBytes("late.png", whole[:at] + chunk + whole[at:])
        np.testing.assert_array_equal(read(image), example())
        assert read_with_header(image).header == probe(image) == (WIDTH, HEIGHT, "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_decoding_in_strips_equals_decoding_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    alpha = Image.fromarray(example()[:, :, 2])
    image = Image.fromarray(example())
    if mode in {"RGBA", "LA"}:
        image = image.convert(mode[:-1].replace("RGB", "RGB"))
        image.putalpha(alpha)
    image.convert(mode).save(buffer, "PNG")
    whole = read(ImageBytes("whole.png", buffer.getvalue()))
    for pixels in (1, 7 * WIDTH, HEIGHT * WIDTH - 1):
        monkeypatch.setattr("naevus.images.decoders._STRIP", pixels)
        np.testing.assert_array_equal(read(ImageBytes("strips.png", buffer.getvalue())), whole)


def test_pixels_in_flight_are_bounded_over_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(example()).save(buffer, "PNG")
    image = ImageBytes("one.png", buffer.getvalue())
    room = _Room(2 * HEIGHT * WIDTH + 1)
    monkeypatch.setattr("naevus.images.read._IN_FLIGHT", room)
    monkeypatch.setattr("naevus.images.read.SMALL", 0)
    loading, most, guard = 0, 0, threading.Lock()
    load = decoders.load

    def slowly(data: bytes, opened: Any) -> None:
        nonlocal loading, most
        with guard:
            loading += 1
            most = max(most, loading)
        time.sleep(0.01)
        load(data, opened)
        with guard:
            loading -= 1

    monkeypatch.setattr(decoders, "load", slowly)
    with ThreadPoolExecutor(8) as pool:
        pixels = list(pool.map(read, [image] * 24))
    assert most <= 2
    assert all(np.array_equal(each, example()) for each in pixels)
    with room.room_for(100 * HEIGHT * WIDTH):  # a larger one goes alone, and does not wait for ever
        pass
    with pytest.raises(ImageError):  # what fails gives its room back
        read(ImageBytes("cut.png", image.content[:-40]))
    assert room._free == room._all


def test_default_limits_are_those_of_the_format_and_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(example()).save(buffer, "JPEG")
    at = buffer.getvalue().index(b"\xff\xc0") + 5
    photograph = buffer.getvalue()[:at] + struct.pack(">HH", 9000, 12_000)
    photograph += buffer.getvalue()[at + 4 :]
    assert probe(ImageBytes("phone.jpg", photograph)) == (12_000, 9000, "JPEG")
    large = png(width=12_000, height=9000, depth=8, colour_type=2, rows=b"")
    with pytest.raises(ImageError, match=r"limit of 100,000,000.*--megapixels 108"):
        probe(ImageBytes("large.png", large))
    try:
        allow_megapixels(108)
        assert probe(ImageBytes("large.png", large)).width == 12_000
        allow_megapixels(107.9)
        for name, content in (("phone.jpg", photograph), ("large.png", large)):
            with pytest.raises(ImageError, match=r"limit of 107,900,000.*--megapixels 108"):
                probe(ImageBytes(name, content))
    finally:
        allow_megapixels(None)
    assert Limits().settings()["jpeg_pixels"] == 150_000_000
