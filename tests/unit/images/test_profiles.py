"""Colours: every way in which a file says what its colours mean, and what is not believed."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from naevus.errors import ImageError
from naevus.images import profiles
from naevus.images.profiles import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    BT2020,
    DISPLAY_P3,
    SRGB,
    BrokenProfileError,
    Primaries,
    conversion,
    matrix_profile,
)
from naevus.images.read import ImageBytes, read, read_stored, read_with_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

PROPHOTO = Primaries((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585))
SPACES: dict[str, tuple[Primaries, float | None]] = {
    "display-p3": (DISPLAY_P3, None),
    "adobe": (ADOBE_RGB, ADOBE_GAMMA),
    "prophoto": (PROPHOTO, 1.8),
    "bt2020": (BT2020, 2.2),
    "gamma 1.8": (SRGB, 1.8),
}


def skin(height: int = 96, width: int = 128) -> Pixels:
    """Colours of skin and lesions, dark to light, within sRGB."""
    y, x = np.mgrid[0:height, 0:width]
    red = 60 + 180 * x / (width - 1)
    green = red * (0.45 + 0.4 * y / (height - 1))
    blue = green * (0.7 + 0.25 * np.sin(x / 17))
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def linear(pixels: Pixels) -> NDArray[np.float64]:
    values = pixels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_xyz(space: Primaries) -> NDArray[np.float64]:
    """The matrix of linear RGB to XYZ, by its definition: the channels' sum is the white."""
    corners = np.array([[x / y, 1, (1 - x - y) / y] for x, y in space]).T
    matrix: NDArray[np.float64] = corners[:, :3] * np.linalg.solve(corners[:, :3], corners[:, 3])
    return matrix


def stored_in(space: Primaries, gamma: float | None, pixels: Pixels) -> Pixels:
    """What a camera stores of sRGB pixels in another space (Bradford where whites differ)."""
    own = to_xyz(space)
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    to_white, from_white = (bradford @ matrix.sum(axis=1) for matrix in (own, to_xyz(SRGB)))
    adapt = np.linalg.inv(bradford) @ np.diag(to_white / from_white) @ bradford
    there = linear(pixels) @ (np.linalg.inv(own) @ adapt @ to_xyz(SRGB)).T
    there = np.clip(there, 0, 1)
    if gamma is None:
        curved = np.where(there <= 0.0031308, there * 12.92, 1.055 * there ** (1 / 2.4) - 0.055)
    else:
        curved = there ** (1 / gamma)
    return np.asarray((255 * curved).round(), np.uint8)


def file_of(
    pixels: Pixels, input_spec: str = "PNG", mode: str = "RGB", **options: Any
) -> ImageBytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, input_spec, **options)
    return ImageBytes(f"colours.{input_spec.lower()}", buffer.getvalue())


def difference(found: Pixels, expected: Pixels) -> float:
    return float(np.abs(found.astype(int) - expected).mean())


LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
INPUT_SPECS: dict[str, dict[str, Any]] = {
    **LOSSLESS,
    "JPEG": {"quality": 98, "subsampling": 0},
    "AVIF": {"quality": 98, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("input_spec", INPUT_SPECS)
@pytest.mark.parametrize("name", SPACES)
def test_a_profile_is_applied_in_every_format(input_spec: str, name: str) -> None:
    space, gamma = SPACES[name]
    stored = stored_in(space, gamma, skin())
    profile = matrix_profile(space, gamma)
    found = read_with_header(
        file_of(stored, input_spec, icc_profile=profile, **INPUT_SPECS[input_spec])
    )
    assert difference(stored, skin()) > 3
    # What is lost by compression is stretched by wide spaces.
    assert difference(found.pixels, skin()) < (1.5 if input_spec == "AVIF" else 1)
    assert not found.flags
    without = read(file_of(stored, input_spec, **INPUT_SPECS[input_spec]))
    assert difference(without, stored) < 1


@pytest.mark.parametrize("name", SPACES)
def test_colours_and_scaled_decoding_go_together(name: str) -> None:
    pixels = np.asarray(Image.fromarray(skin()).resize((1024, 768), Image.Resampling.BICUBIC))
    space, gamma = SPACES[name]
    options: dict[str, Any] = {"quality": 95, "icc_profile": matrix_profile(space, gamma)}
    found = read(file_of(stored_in(space, gamma, pixels), "JPEG", **options), shortest=90)
    assert found.shape == (192, 256, 3)
    small = np.asarray(Image.fromarray(pixels).resize((256, 192), Image.Resampling.BOX))
    assert difference(found, small) < 1.5


def test_a_real_display_p3_file_equals_its_srgb_twin(shared_field: Path) -> None:
    folder = shared_field / "colour"
    twin = read(folder / "display_p3_same_in_srgb.jpg")
    assert difference(read(folder / "display_p3.jpg"), twin) < 1
    for name in ("adobe", "prophoto"):
        space, gamma = SPACES[name]
        profile = matrix_profile(space, gamma)
        copy = file_of(stored_in(space, gamma, twin), "JPEG", quality=97, icc_profile=profile)
        assert difference(read(copy), twin) < 1.5


def made_by_littlecms() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_table(entries: int) -> bytes:
    """SRGB as HP made it: curves as tables, of 1,024 entries; shorter ones are known, too."""
    at = np.linspace(0, 1, entries)
    values = np.where(at <= 0.04045, at / 12.92, ((at + 0.055) / 1.055) ** 2.4)
    numbers = (values * 65535).round().astype(">u2").tobytes()
    curve = b"curv\0\0\0\0" + struct.pack(">I", entries) + numbers
    columns = zip(b"rgb", profiles._to_pcs(SRGB), strict=True)
    tags = {bytes((name,)) + b"XYZ": profiles._xyz(column) for name, column in columns}
    return profiles._profile(tags | {name + b"TRC": curve for name in (b"r", b"g", b"b")})


@pytest.mark.parametrize(
    "profile", [made_by_littlecms(), matrix_profile(SRGB, None), with_table(1024), with_table(26)]
)
def test_profiles_that_equal_srgb_change_no_pixel(profile: bytes) -> None:
    assert conversion(profile, "RGB") is None
    np.testing.assert_array_equal(read(file_of(skin(), icc_profile=profile)), skin())


def test_profiles_close_to_srgb_are_applied() -> None:
    for space, gamma in ((SRGB, 2.2), (SRGB._replace(red=(0.65, 0.33)), None)):
        assert conversion(matrix_profile(space, gamma), "RGB") is not None


def cut(profile: bytes) -> bytes:
    return profile[: len(profile) // 2]


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut": cut,
    "text": lambda profile: b"no profile at all" * 40,
    "of nothing": lambda profile: profile.replace(b"RGB XYZ ", b"6CLRXYZ "),
    "without curves": lambda profile: profile.replace(b"TRC", b"TRX"),
    "of light that is dark": lambda profile: profile.replace(
        profile[profile.index(b"para") :][:32], struct.pack(">4s4xHxxi16x", b"para", 0, 0)
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_profile_is_ignored_and_flagged(kind: str) -> None:
    profile = BROKEN[kind](matrix_profile(DISPLAY_P3, None))
    for input_spec, options in INPUT_SPECS.items():
        found = read_with_header(file_of(skin(), input_spec, icc_profile=profile, **options))
        assert found.flags == ("broken_profile",), input_spec
        assert difference(found.pixels, skin()) < 1
    with pytest.raises(BrokenProfileError):
        conversion(profile, "RGB")


def test_a_profile_that_does_not_fit_the_channels_is_broken() -> None:
    profile = matrix_profile(DISPLAY_P3, None)
    with pytest.raises(BrokenProfileError, match="RGB for an image of CMYK"):
        conversion(profile, "CMYK")
    with pytest.raises(BrokenProfileError, match="L for an image of RGB"):
        conversion(grey_profile(1.8), "RGB")
    ink = read_with_header(file_of(skin(), "JPEG", "CMYK", icc_profile=profile))
    assert ink.flags == ("broken_profile",)


def grey_profile(gamma: float) -> bytes:
    profile = matrix_profile(SRGB, gamma).replace(b"RGB XYZ ", b"GRAYXYZ ")
    return profile.replace(b"rTRC", b"kTRC")


@pytest.mark.parametrize("input_spec", ["PNG", "TIFF", "JPEG"])
def test_a_grey_profile_is_applied(input_spec: str) -> None:
    grey = skin()[:, :, 1]
    options = {} if input_spec != "JPEG" else {"quality": 98}
    found = read(file_of(grey, input_spec, "L", icc_profile=grey_profile(1.0), **options))
    linear_light = grey / 255
    expected = 255 * (1.055 * linear_light ** (1 / 2.4) - 0.055)
    assert np.abs(found - expected[:, :, None]).mean() < 1
    assert (np.ptp(found, axis=2) <= 1).all()
    same = read(file_of(grey, input_spec, "L", icc_profile=matrix_profile(SRGB, None), **options))
    assert difference(same[:, :, 0], grey) < 1


def test_masks_are_values_and_keep_them() -> None:
    grey = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    for mode, profile in (("L", grey_profile(1.0)), ("RGB", matrix_profile(PROPHOTO, 1.8))):
        mask = file_of(grey, "PNG", mode, icc_profile=profile)
        values = read_stored(mask).values
        np.testing.assert_array_equal(values if mode == "L" else values[:, :, 1], grey)


def ink_profile() -> bytes:
    """A printer whose inks are perfect: a table of CMYK to Lab with two steps an axis."""
    corners = []
    for index in range(16):
        cyan, magenta, yellow, black = ((index >> n) & 1 for n in (3, 2, 1, 0))
        light = np.array([1 - cyan, 1 - magenta, 1 - yellow]) * (1 - black) * 255
        corners.append(light.astype(np.uint8))
    pixels = np.array(corners)[None]
    lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    values = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), lab))[0].astype(np.uint8)
    signed = values.astype(np.int16)
    table = np.stack(
        [signed[:, 0], (signed[:, 1] + 128) % 256, (signed[:, 2] + 128) % 256], axis=1
    ).astype(np.uint8)
    identity = np.arange(256, dtype=np.uint8).tobytes()
    lut = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2)
    lut += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut += identity * 4 + table.tobytes() + identity * 3
    start = 128 + 4 + 12
    header = struct.pack(
        ">I4xI4s4s4s12x4s", start + len(lut), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp"
    ).ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", start, len(lut)) + lut


@pytest.mark.parametrize("input_spec", ["JPEG", "TIFF"])
def test_cmyk_with_a_profile_is_converted(input_spec: str) -> None:
    profile = ink_profile()
    assert conversion(profile, "CMYK") is not None
    ink = np.zeros((16, 48, 4), np.uint8)
    ink[:, 16:32, 3] = 255  # black ink
    ink[:, 32:, 1:3] = 255  # magenta and yellow: red
    buffer = io.BytesIO()
    options = {"quality": 98} if input_spec == "JPEG" else {}
    Image.fromarray(ink, "CMYK").save(buffer, input_spec, icc_profile=profile, **options)
    found = read_with_header(ImageBytes("ink", buffer.getvalue()))
    assert not found.flags
    white, black, red = found.pixels[8, [8, 24, 40]].astype(int)
    assert white.min() > 245
    assert black.max() < 12
    assert red[0] > 200
    assert red[1:].max() < 60


def saying(input_spec: str, index: str | None, space: int | None) -> dict[str, Any]:
    """Pillow's options for a file whose EXIF says so; of a TIFF it is one of the tags."""
    if input_spec == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        inner: dict[int, Any] = {} if space is None else {0xA001: space}
        tags[0x8769] = inner if index is None else inner | {0xA005: {1: index}}
        return {"tiffinfo": tags}
    made = Image.Exif()
    made[0x010F] = "a camera"
    if space is not None:
        made.get_ifd(0x8769)[0xA001] = space
    if index is not None:
        made.get_ifd(0x8769)[0xA005] = {1: index + "\0"}
    return {"exif": made, **INPUT_SPECS[input_spec]}


@pytest.mark.parametrize(
    ("index", "space", "adobe"),
    [
        ("R03", 0xFFFF, True),
        ("R03", None, True),
        (None, 2, True),
        ("R98", 2, True),
        ("R98", 1, False),
        ("R03", 1, False),  # contradicts itself: what most files are is taken
        (None, 0xFFFF, False),
    ],
)
@pytest.mark.parametrize("input_spec", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_adobe_rgb_that_only_exif_declares(
    input_spec: str, index: str | None, space: int | None, *, adobe: bool
) -> None:
    stored = stored_in(ADOBE_RGB, ADOBE_GAMMA, skin())
    image = file_of(stored, input_spec, **saying(input_spec, index, space))
    expected = skin() if adobe else stored
    assert difference(read(image), expected) < 1
    assert difference(stored, skin()) > 3
    # A profile that is there counts for more.
    profile = matrix_profile(SRGB, None)
    both = file_of(stored, input_spec, icc_profile=profile, **saying(input_spec, index, space))
    assert difference(read(both), stored) < 1


def with_chunks(image: ImageBytes, *chunks: tuple[bytes, bytes]) -> ImageBytes:
    """Put chunks into a PNG, after its header."""
    written = b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )  # fmt: skip
    return ImageBytes(image.name, image.content[:33] + written + image.content[33:])


def chromaticities(space: Primaries) -> tuple[bytes, bytes]:
    numbers = [value for pair in (space.white, *space[:3]) for value in pair]
    return b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in numbers))


def gamma_of(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(100_000 / value))


def test_png_colour_chunks_are_applied_in_order() -> None:
    wide = file_of(stored_in(ADOBE_RGB, ADOBE_GAMMA, skin()))
    stored = read(wide)
    for chunks in (
        [gamma_of(ADOBE_GAMMA), chromaticities(ADOBE_RGB)],
        [chromaticities(ADOBE_RGB), gamma_of(ADOBE_GAMMA)],
    ):
        assert difference(read(with_chunks(wide, *chunks)), skin()) < 1.5
        output = with_chunks(wide, (b"sRGB", b"\0"), *chunks)
        np.testing.assert_array_equal(read(output), stored)
    np.testing.assert_array_equal(
        read(with_chunks(wide, gamma_of(2.2), chromaticities(SRGB))), stored
    )
    steep = file_of(stored_in(SRGB, 1.0, skin()))
    assert difference(read(with_chunks(steep, gamma_of(1.0))), skin()) < 1.5
    for bad in ([gamma_of(1.0), (b"cHRM", bytes(32))], [(b"gAMA", bytes(4))]):
        found = read_with_header(with_chunks(wide, *bad))
        assert found.flags == ("broken_profile",)
        np.testing.assert_array_equal(found.pixels, stored)


def test_code_points_of_a_png() -> None:
    wide = file_of(stored_in(DISPLAY_P3, None, skin()))
    assert difference(read(with_chunks(wide, (b"cICP", bytes((12, 13, 0, 1))))), skin()) < 1
    for plain in ((1, 13), (2, 2), (1, 1)):
        kept = read_with_header(with_chunks(wide, (b"cICP", bytes((*plain, 0, 1)))))
        np.testing.assert_array_equal(kept.pixels, read(wide))
        assert not kept.flags
    for bright in ((9, 16), (9, 18), (12, 77)):
        reported = read_with_header(with_chunks(wide, (b"cICP", bytes((*bright, 0, 1)))))
        assert reported.flags == ("broken_profile",)


def test_code_points_of_an_avif() -> None:
    image = file_of(stored_in(DISPLAY_P3, None, skin()), "AVIF", **INPUT_SPECS["AVIF"])
    at = image.content.index(b"colrnclx") + 8
    assert difference(read(image), skin()) > 3
    content = image.content[:at] + struct.pack(">HH", 12, 13) + image.content[at + 4 :]
    assert difference(read(ImageBytes("p3.avif", content)), skin()) < 1.5


def test_the_profile_of_a_jpeg_2000() -> None:
    image = file_of(stored_in(DISPLAY_P3, None, skin()), "JPEG2000")
    profile = matrix_profile(DISPLAY_P3, None)
    content = image.content
    at = content.index(b"colr") - 4
    length = int.from_bytes(content[at : at + 4], "big")
    box = struct.pack(">I4s3B", 11 + len(profile), b"colr", 2, 0, 0) + profile
    header = content.index(b"jp2h") - 4
    size = int.from_bytes(content[header : header + 4], "big") + len(box) - length
    changed = content[:at] + box + content[at + length :]
    changed = changed[:header] + struct.pack(">I", size) + changed[header + 4 :]
    found = read_with_header(ImageBytes("p3.jp2", changed))
    assert not found.flags
    assert difference(found.pixels, skin()) < 1


def test_transparency_and_profile_are_both_applied() -> None:
    stored = stored_in(DISPLAY_P3, None, skin())
    alpha = np.full(stored.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    alpha[20:40] = 102
    buffer = io.BytesIO()
    profile = matrix_profile(DISPLAY_P3, None)
    Image.fromarray(np.dstack([stored, alpha])).save(buffer, "PNG", icc_profile=profile)
    fraction = alpha[:, :, None] / 255
    expected = (skin() * fraction + 255 * (1 - fraction)).round().astype(np.uint8)
    assert difference(read(ImageBytes("alpha.png", buffer.getvalue())), expected) < 1


def test_a_palette_has_the_profiles_colours() -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(stored_in(DISPLAY_P3, None, skin())).quantize(250)
    plain = np.asarray(image.convert("RGB"))
    image.save(buffer, "PNG", icc_profile=matrix_profile(DISPLAY_P3, None))
    chosen = conversion(matrix_profile(DISPLAY_P3, None), "RGB")
    assert chosen is not None
    np.testing.assert_array_equal(read(ImageBytes("p.png", buffer.getvalue())), chosen.apply(plain))


def test_a_profile_does_not_excuse_a_cut_file() -> None:
    image = file_of(skin(), "JPEG", icc_profile=matrix_profile(DISPLAY_P3, None))
    with pytest.raises(ImageError, match="truncated"):
        read(ImageBytes("cut", image.content[:-60]))
