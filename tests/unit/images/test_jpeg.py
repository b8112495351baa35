"""JPEGs that are odd, damaged or made to take long: what viewers open is read, none filled."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from naevus.errors import ImageError
from naevus.images import jpeg
from naevus.images.read import ImageBytes, Limits, probe, read, read_with_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

HEIGHT, WIDTH = 168, 232

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fine": {"subsampling": 0},
    "grey": {"mode": "L"},
    "ink": {"mode": "CMYK"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 7},
}


def image() -> NDArray[np.uint8]:
    """Colours and details everywhere, so that no part of it could be filled unseen."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def encoded(mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image()).convert(mode).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def as_viewers_show_it(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def markers(content: bytes, code: int) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(bytes((0xFF, code))), content)]


def scan_header(content: bytes, first: int, last: int, bits: int) -> bytes:
    """Give the first scan of a sequential JPEG other spectral bytes."""
    at = markers(content, 0xDA)[0]
    end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return content[: end - 3] + bytes((first, last, bits)) + content[end:]


def before_marker(content: bytes, code: int, stray: bytes) -> bytes:
    at = markers(content, code)[0]
    return content[:at] + stray + content[at:]


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "no end marker": lambda content: content[:-2],
    "half an end marker": lambda content: content[:-1],
    "zeros before the end": lambda content: content[:-2] + bytes(40) + content[-2:],
    "fill before the end": lambda content: content[:-2] + b"\xff" * 9 + content[-2:],
    "zeros in place of the end": lambda content: content[:-2] + bytes(4096),
    "a byte before the tables": lambda content: before_marker(content, 0xDB, b"\x07"),
    "a zero before the frame": lambda content: before_marker(content, 0xC4, b"\x00"),
    "five bytes before the scan": lambda content: before_marker(content, 0xDA, b"stray"),
    "padding before the tables": lambda content: before_marker(content, 0xDB, bytes(2000)),
    "a film behind it": lambda content: content + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9,
    "another revision of JFIF": lambda content: content.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1),
}


@pytest.mark.parametrize("change", HARMLESS)
@pytest.mark.parametrize("kind", KINDS)
def test_harmless_irregularities_change_no_pixel(kind: str, change: str) -> None:
    whole = encoded(**KINDS[kind])
    odd = HARMLESS[change](whole)
    for shortest in (None, 60):
        expected = read(ImageBytes("whole", whole), shortest=shortest)
        found = read_with_header(ImageBytes("odd", odd), shortest=shortest)
        np.testing.assert_array_equal(found.pixels, expected)
        assert "damaged" not in found.flags
    assert probe(ImageBytes("odd", odd)) == probe(ImageBytes("whole", whole))


@pytest.mark.parametrize("spectral", [(0, 0, 0), (0, 62, 0), (1, 63, 0), (0, 63, 0x10), (63, 0, 1)])
@pytest.mark.parametrize("kind", ["plain", "grey", "restarts"])
def test_odd_spectral_bytes_of_a_sequential_scan_do_not_count(
    kind: str, spectral: tuple[int, int, int]
) -> None:
    whole = encoded(**KINDS[kind])
    found = read_with_header(ImageBytes("odd", scan_header(whole, *spectral)))
    np.testing.assert_array_equal(found.pixels, read(ImageBytes("whole", whole)))
    assert "damaged" not in found.flags


@pytest.mark.parametrize("name", ["sos_params.jpg", "stray_header_byte.jpg"])
def test_files_of_real_telephones_are_read(shared_field: Path, name: str) -> None:
    folder = shared_field / "jpeg"
    found = read_with_header(folder / name)
    np.testing.assert_array_equal(found.pixels, read(folder / "plain.jpg"))
    assert not found.flags


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_whose_rows_are_missing_is_refused_with_an_end_marker_too(kind: str) -> None:
    whole = encoded(**KINDS[kind])
    start = markers(whole, 0xDA)[0] + 40
    for length in range(start, len(whole) - 12, (len(whole) - start) // 25):
        for ending in (b"", b"\xff\xd9", bytes(3000) + b"\xff\xd9"):
            with pytest.raises(ImageError, match="truncated, damaged"):
                read(ImageBytes("cut", whole[:length] + ending))


def test_a_progressive_file_without_its_last_scans_is_refused() -> None:
    whole = encoded(progressive=True)
    scans = markers(whole, 0xDA)
    assert len(scans) == 10
    for scan in scans[1:]:
        tables = max(at for at in [*markers(whole, 0xC4), scan] if at <= scan)
        for cut in {scan, tables}:
            with pytest.raises(ImageError, match="truncated, damaged"):
                read(ImageBytes("cut", whole[:cut]))
            # Whoever appended the marker, libjpeg-turbo has no warning for it.
            ended = read_with_header(ImageBytes("cut", whole[:cut] + b"\xff\xd9"))
            assert ended.flags == ("damaged",)


def test_uncertain_pixels_are_flagged() -> None:
    whole = encoded(restart_marker_rows=1)
    restarts = [at for code in range(0xD0, 0xD8) for at in markers(whole, code)]
    first, second = sorted(restarts)[3:5]
    cut = whole[: first + 30] + whole[second:]
    found = read_with_header(ImageBytes("cut", cut))
    assert found.flags == ("damaged",)
    np.testing.assert_array_equal(found.pixels, as_viewers_show_it(cut))
    wrong = np.abs(found.pixels.astype(int) - read(ImageBytes("whole", whole))).max(axis=(1, 2)) > 0
    assert 0 < wrong.sum() <= 36  # one row of units, and the chroma of its neighbours
    junk = whole[:-2] + bytes(range(1, 99)) + whole[-2:]
    assert read_with_header(ImageBytes("junk", junk)).flags == ("damaged",)


def test_a_missing_part_between_restarts_is_refused() -> None:
    whole = encoded(restart_marker_rows=1)
    restarts = sorted(at for code in range(0xD0, 0xD8) for at in markers(whole, code))
    for first, second in ((3, 4), (0, 5), (2, 9)):
        with pytest.raises(ImageError, match="damaged"):
            read(ImageBytes("part", whole[: restarts[first]] + whole[restarts[second] :]))


def test_random_damage_is_read_as_viewers_read_it_or_refused() -> None:
    rng = np.random.default_rng(8)
    outcomes: dict[str, int] = {}
    for kind, options in KINDS.items():
        whole = encoded(**options)
        start = markers(whole, 0xDA)[0]
        for _ in range(12):
            broken = bytearray(whole)
            for at in rng.integers(start, len(whole), rng.integers(1, 6)):
                broken[at] = rng.integers(256)
            try:
                found = read_with_header(ImageBytes("broken", bytes(broken)))
            except ImageError:
                outcomes["refused"] = outcomes.get("refused", 0) + 1
                continue
            if kind != "ink":
                shown = as_viewers_show_it(bytes(broken))
                assert np.abs(found.pixels.astype(int) - shown).mean() < 1
            reported = "damaged" if "damaged" in found.flags else "unseen"
            outcomes[reported] = outcomes.get(reported, 0) + 1
    assert outcomes.keys() == {"refused", "damaged", "unseen"}


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    whole = encoded(progressive=True)
    last = markers(whole, 0xDA)[-1]
    return whole[:-2] + whole[last:-2] * count + whole[-2:]


def test_scans_are_bounded_by_pixels() -> None:
    pixels = HEIGHT * WIDTH
    read(ImageBytes("usual", encoded(progressive=True)), limits=Limits(pixels=pixels))
    for ending in (b"", b"\xff\xe1\xff\xff"):
        bomb = ImageBytes("bomb", many_scans(100)[:-2] + ending + b"\xff\xd9")
        with pytest.raises(ImageError, match=r"it has 1\d\d scans; at this size at most 20"):
            read(bomb, limits=Limits(pixels=pixels))
    jpeg.check_scans(many_scans(100), pixels, 6 * pixels)
    # What stands behind an image, such as a film, is no scan.
    jpeg.check_scans(encoded() + b"\xff\xda" * 1000, pixels, pixels)


def test_marks_without_end_take_no_time() -> None:
    for filler in (b"\xff", b"\xff\x01", b"\xff\x01a"):
        odd = b"\xff\xd8" + filler * 200_000
        assert jpeg.fix(odd) is None
        with pytest.raises(ImageError):
            read(ImageBytes("odd", odd))


def without_tables(content: bytes, code: int, nth: int) -> bytes:
    """Turn the nth segment of tables into a comment."""
    at = markers(content, code)[nth]
    return content[: at + 1] + b"\xfe" + content[at + 2 :]


ALREADY_READ = [encoded(), encoded("L"), encoded(progressive=True), encoded("CMYK", optimize=True)]


def answers(content: bytes) -> set[bytes]:
    """Return what is read after each of several other files."""
    found = set()
    for before in ALREADY_READ:
        read(ImageBytes("before", before))
        try:
            found.add(read(ImageBytes("changed", content)).tobytes())
        except ImageError as error:
            found.add(str(error).encode())
    return found


@pytest.mark.parametrize("code", [0xC4, 0xDB], ids=["Huffman", "quantisation"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_tables_is_never_decoded_with_those_of_another(kind: str, code: int) -> None:
    whole = encoded(**KINDS[kind])
    for nth in range(len(markers(whole, code))):
        (answer,) = answers(without_tables(whole, code, nth))
        # Later scans of a progressive file may use tables of earlier ones.
        assert b"lacks the tables" in answer or ("progressive" in kind and nth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0xC4, 0xDB, 0xC0, 0xDA])
def test_what_is_read_does_not_depend_on_the_file_before(kind: str, at: int) -> None:
    whole = encoded(**KINDS[kind])
    rng = np.random.default_rng(at)
    places = markers(whole, at)
    for _ in range(6 if places else 0):
        changed = bytearray(whole)
        place = int(rng.choice(places)) + 2 + int(rng.integers(0, 30))
        changed[place] = int(rng.integers(0, 256))
        assert len(answers(bytes(changed))) == 1
