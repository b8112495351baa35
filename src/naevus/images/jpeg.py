"""JPEG: scaled decoding by libjpeg-turbo, and repair of files with harmless defects.

A valid file is decoded once, strictly: every warning is an error, because libjpeg-turbo fills
missing data with grey and only warns. If that fails, the markers are rewritten without harmless
defects: odd spectral bytes in the header of a sequential scan, bytes before a marker, padding
before the end, a missing end marker, an unknown JFIF revision or Adobe transform. A file that then
decodes strictly is complete. Otherwise warnings are tolerated only if no scan ran out of data: the
same file with other bytes after each scan must give the same pixels. Such a file is flagged as
damaged.

A file must define the tables that its scans use. libjpeg-turbo keeps those of the file before:
without its own, an image would be decoded with another image's, and look different each time.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import simplejpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SPARE: Final = 1.25
"""How much larger than needed a JPEG is decoded, so that resizing can average."""

MOST_SCANS: Final = 20
"""Scans allowed in the largest image; smaller images may have more, since decoding time grows with
scans and pixels. Progressive files usually have 10 scans, optimised ones up to 15."""

BEGINNING: Final = b"\xff\xd8"

_END = b"\xff\xd9"
_SOS, _SOF_PROGRESSIVE, _APP0, _APP14, _DRI = 0xDA, {0xC2, 0xC6, 0xCA, 0xCE}, 0xE0, 0xEE, 0xDD
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {0xCC}
_HUFFMAN, _QUANTISATION = 0xC4, 0xDB
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_LONE = frozenset({0x01, *range(0xD0, 0xD8)})
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_MOST_MARKERS = 20_000
_STRAY = 16  # bytes before markers that may be dropped without a flag
_PAD = 1  # zero bytes that may belong to the end of a scan's data, which is padded with ones
# Appended to scans that may be short: without 0xFF, and different from the first bit on.
_TAILS = (b"\x00" * 64, b"\xaa\x55\x9c\x31" * 16, b"\xf3\x6d\xb5\x4a" * 16)


class Decoded(NamedTuple):
    """Pixels, H x W x 3 (H x W x 4 if CMYK, see `decode`), and whether the file is damaged."""

    pixels: NDArray[np.uint8]
    damaged: bool


def decode(data: bytes, shortest: int | None, *, progressive: bool) -> Decoded:
    """Decode a JPEG, at the smallest scale M/8 that leaves ``SPARE * shortest`` pixels.

    Args:
        data: The file's bytes.
        shortest: Required length of the shorter side in pixels; None: full size.
        progressive: Whether it is progressive: libjpeg-turbo does not report missing scans.

    Returns:
        RGB, or CMYK as stored if the file has four components; not yet upright.

    Raises:
        ValueError: The data is truncated or damaged beyond use.
    """
    _check_tables(data)  # what repairs a file leaves its tables as they are
    try:
        pixels = _decoded(data, shortest, strict=True)
        return Decoded(pixels, damaged=progressive and _lacks_scans(data))
    except ValueError as error:
        fixed = fix(data)
        if fixed is None:
            raise
        return _tolerant(fixed, shortest, error)


def check_scans(data: bytes, pixels: int, most_pixels: int) -> None:
    """Reject a file whose scans take longer than `MOST_SCANS` over the largest allowed image.

    Raises:
        ValueError: It has too many scans.
    """
    most = max(MOST_SCANS * most_pixels // max(pixels, 1), MOST_SCANS)
    # A rough count first, which includes thumbnails and anything after the image.
    if data.count(b"\xff\xda") <= most:
        return
    walked = _walked(data)
    count = sum(piece.marker == _SOS for piece in walked.pieces)
    if count > most:
        raise ValueError(f"it has {count:,} scans; at this size at most {most:,} are read")


@dataclass
class _Piece:
    marker: int
    content: bytes  # marker, length and payload; for a scan only its header
    entropy: bytes = b""


@dataclass
class _Walked:
    pieces: list[_Piece] = field(default_factory=list)
    stray: list[bytes] = field(default_factory=list)
    ended: bool = False
    broken: bool = False

    def frame(self) -> _Piece | None:
        return next((piece for piece in self.pieces if piece.marker in _SOF), None)


@dataclass(frozen=True)
class Fixed:
    """A repaired JPEG, split into its segments.

    Attributes:
        doubtful: Whether more than harmless bytes were dropped.
    """

    walked: _Walked
    doubtful: bool

    def content(self, tail: bytes = b"", zeros: int | None = None) -> bytes:
        """Return the file's bytes.

        Args:
            tail: Bytes to append to each scan.
            zeros: How many zero bytes to keep at the end of the last scan; None: all.
        """
        *before, last = self.walked.pieces
        parts = [BEGINNING]
        for piece in before:
            parts += [piece.content, piece.entropy, tail if piece.marker == _SOS else b""]
        entropy = last.entropy if zeros is None else _trimmed(last.entropy, zeros)
        return b"".join([*parts, last.content, entropy, tail, _END])


def fix(data: bytes) -> Fixed | None:
    """Rewrite a JPEG's markers as viewers interpret them.

    Returns:
        None if there is no image, or its header or one of its scans is missing.
    """
    walked = _walked(data)
    frame = walked.frame()
    if walked.broken or frame is None or not any(piece.marker == _SOS for piece in walked.pieces):
        return None
    while walked.pieces[-1].marker != _SOS:  # unused tables
        walked.pieces.pop()
    if not _all_scans(walked, frame) or (frame.marker in _ARITHMETIC and not walked.ended):
        return None
    for piece in walked.pieces:
        piece.content = _fixed(piece, frame)
    stray = b"".join(walked.stray)
    harmless = len(stray) <= _STRAY or not stray.strip(b"\0")
    return Fixed(walked, not harmless)


def _decoded(
    data: bytes, shortest: int | None, *, strict: bool, fill: int | None = None
) -> NDArray[np.uint8]:
    """Decode; ``fill`` is the value of pixels at full size that the decoder does not write."""
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    least = ceil(SPARE * shortest) if shortest else 0
    if least > min(height, width):  # libjpeg-turbo would enlarge
        least = 0
    buffer = None if fill is None else np.full((height, width, 4), fill, np.uint8)
    wanted = "CMYK" if space in {"CMYK", "YCCK"} else "RGB"
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, wanted, min_height=least, min_width=least, buffer=buffer, strict=strict
    )
    return decoded


def _check_tables(data: bytes) -> None:
    """Raise a `ValueError` if a file lacks tables that its scans use, or its header is invalid."""
    walked = _walked(data, scans=1)
    frame = walked.frame()
    if frame is None or walked.pieces[-1].marker != _SOS:
        return  # the decoder says what is missing
    if frame.marker in _SOF_PROGRESSIVE or walked.pieces[-1].content[4] < frame.content[9]:
        walked = _walked(data)  # there are more scans
    if walked.broken:
        raise ValueError("its header is truncated or invalid")
    defined: set[tuple[int, int]] = set()
    for piece in walked.pieces:
        if piece.marker in {_HUFFMAN, _QUANTISATION}:
            defined.update(_tables(piece))
        elif piece.marker == _SOS and not defined.issuperset(_used_tables(piece, frame)):
            raise ValueError("it lacks the tables to decode it with")


def _tables(piece: _Piece) -> Iterator[tuple[int, int]]:
    """Yield marker and number of each table that a segment defines."""
    content, at = piece.content, 4
    while at < len(content):
        number = content[at]
        yield piece.marker, number & 15 if piece.marker == _QUANTISATION else number
        if piece.marker == _QUANTISATION:
            at += 1 + (128 if number >> 4 else 64)
        else:
            at += 17 + sum(content[at + 1 : at + 17])


def _used_tables(scan: _Piece, frame: _Piece) -> Iterator[tuple[int, int]]:
    """Yield marker and number of each table that a scan uses (ITU-T T.81, B.2.3)."""
    quantisation = {
        frame.content[10 + 3 * n]: frame.content[12 + 3 * n] for n in range(frame.content[9])
    }
    count = scan.content[4]
    first, _, bits = scan.content[5 + 2 * count :]
    for n in range(count):
        component, tables = scan.content[5 + 2 * n : 7 + 2 * n]
        if component in quantisation and frame.marker not in _LOSSLESS:
            yield _QUANTISATION, quantisation[component]
        if frame.marker in _ARITHMETIC:
            continue
        progressive = frame.marker in _SOF_PROGRESSIVE
        if not progressive or (first == 0 and bits >> 4 == 0):
            yield _HUFFMAN, tables >> 4
        if (not progressive or first > 0) and frame.marker not in _LOSSLESS:
            yield _HUFFMAN, 0x10 | tables & 15


def _tolerant(fixed: Fixed, shortest: int | None, error: ValueError) -> Decoded:
    for zeros in (None, *range(_PAD + 1)):
        try:
            pixels = _decoded(fixed.content(zeros=zeros), shortest, strict=True)
            return Decoded(pixels, fixed.doubtful)
        except ValueError:
            continue
    if not _restarts_are_there(fixed.walked) or _runs_out(fixed):
        raise error
    return Decoded(_decoded(fixed.content(), shortest, strict=False), damaged=True)


def _runs_out(fixed: Fixed) -> bool:
    """Return whether pixels depend on bytes after a scan: then the scan lacks data.

    Zeros at the end of the file are not data: an interrupted download leaves them. The comparison
    is at full size, where the last coefficient of the last block counts. Each buffer is filled
    differently: an error after a warning is reported as a warning, and leaves pixels undecoded.
    """
    decoded = (
        _decoded(fixed.content(tail, _PAD), None, strict=False, fill=85 * number)
        for number, tail in enumerate(_TAILS)
    )
    hashes = {hashlib.sha256(pixels.data).digest() for pixels in decoded}
    return len(hashes) > 1


def _restarts_are_there(walked: _Walked) -> bool:
    """Return whether each scan has all its restart markers; otherwise parts are missing."""
    frame = walked.frame()
    assert frame is not None
    interval = 0
    for piece in walked.pieces:
        if piece.marker == _DRI:
            interval = int.from_bytes(piece.content[4:6], "big")
        elif piece.marker == _SOS and interval:
            needed = ceil(_units(frame.content, piece.content) / interval) - 1
            if len(_RESTART.findall(piece.entropy)) < needed:
                return False
    return True


def _units(frame: bytes, scan: bytes) -> int:
    """Return the number of minimum coded units (MCUs) of a scan (ITU-T T.81, A.2)."""
    height, width = (int.from_bytes(frame[at : at + 2], "big") for at in (5, 7))
    sampling = {frame[10 + 3 * n]: divmod(frame[11 + 3 * n], 16) for n in range(frame[9])}
    across, down = (max(factors[axis] for factors in sampling.values()) for axis in (0, 1))
    if scan[4] > 1:
        return ceil(width / (8 * across)) * ceil(height / (8 * down))
    own_across, own_down = sampling.get(scan[5], (across, down))
    columns = ceil(ceil(width * own_across / across) / 8)
    return columns * ceil(ceil(height * own_down / down) / 8)


def _lacks_scans(data: bytes) -> bool:
    walked = _walked(data)
    frame = walked.frame()
    return not walked.broken and frame is not None and not _all_scans(walked, frame)


def _all_scans(walked: _Walked, frame: _Piece) -> bool:
    """Return whether the scans complete every coefficient of every component."""
    components = {frame.content[10 + 3 * n] for n in range(frame.content[9])}
    left = {(component, at): 1 for component in components for at in range(64)}
    for piece in walked.pieces:
        if piece.marker != _SOS:
            continue
        count = piece.content[4]
        first, last, bits = piece.content[5 + 2 * count : 8 + 2 * count]
        if frame.marker not in _SOF_PROGRESSIVE:
            first, last, bits = 0, 63, 0
        for n in range(count):
            for at in range(first, min(last, 63) + 1):
                left[piece.content[5 + 2 * n], at] = bits & 15
    return not any(left.values())


def _walked(data: bytes, scans: int | None = None) -> _Walked:
    """Split a file at its markers, found as by libjpeg's ``next_marker``.

    Args:
        data: The file's bytes.
        scans: Number of scans after which to stop, before the last one's data; None: all.
    """
    walked = _Walked()
    at = len(BEGINNING)
    for _ in range(_MOST_MARKERS):
        found = _NEXT_MARKER.search(data, at)
        if found is None:
            return walked
        walked.stray.append(data[at : found.start()].strip(b"\xff"))
        marker, at = data[found.end() - 1], found.end()
        if marker == _END[1]:
            walked.ended = True
            return walked
        if marker in _LONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        piece = _Piece(marker, bytes((0xFF, marker)) + data[at : at + length])
        if length < 2 or len(piece.content) != length + 2 or not _well_formed(piece):
            walked.broken = True  # a truncated or invalid header
            return walked
        at += length
        if marker == _SOS:
            scans = None if scans is None else scans - 1
            if scans == 0:
                walked.pieces.append(piece)
                return walked
            following = _NEXT_MARKER.search(data, at)
            stop = len(data) if following is None else following.start()
            piece.entropy = data[at:stop].rstrip(b"\xff")  # fill bytes (data has 0 after 0xFF)
            at = stop
        walked.pieces.append(piece)
    walked.broken = True
    return walked


def _well_formed(piece: _Piece) -> bool:
    content = piece.content
    if piece.marker == _SOS:
        return len(content) > 4 and len(content) == 8 + 2 * content[4]
    if piece.marker in _SOF:
        return len(content) > 9 and len(content) == 10 + 3 * content[9] and content[9] > 0
    return piece.marker != _DRI or len(content) == 6


def _fixed(piece: _Piece, frame: _Piece) -> bytes:
    content = piece.content
    if piece.marker == _SOS and frame.marker not in _SOF_PROGRESSIVE:
        return content[:-3] + b"\x00\x3f\x00"  # the only values of a sequential scan
    if piece.marker == _APP0 and content[4:9] == b"JFIF\0" and len(content) >= 11:
        return content[:9] + b"\x01\x01" + content[11:]
    if piece.marker == _APP14 and content[4:9] == b"Adobe" and len(content) >= 16:
        # libjpeg-turbo's interpretation of an unknown transform.
        usual = 2 if frame.content[9] == 4 else 1
        return content if content[15] <= 2 else content[:15] + bytes((usual,)) + content[16:]
    return content


def _trimmed(entropy: bytes, zeros: int) -> bytes:
    """Return a scan's data with at most ``zeros`` zero bytes at its end."""
    kept = entropy.rstrip(b"\0")
    if kept.endswith(b"\xff"):  # a stuffed byte
        kept += b"\0"
    return kept + entropy[len(kept) : len(kept) + zeros]
