"""JPEG: scaled decoding by libjpeg-turbo, and files that viewers open although they are odd.

A sound file is decoded once, strictly: any warning of libjpeg-turbo ends it, for it fills what a
file lacks with grey and only warns. Then the file's markers are written anew without what is known
to be harmless: odd spectral bytes in the header of a sequential scan, bytes before a marker,
padding before the end, a missing end marker, an unknown JFIF revision or Adobe transform. What
decodes strictly after that is whole. What does not is decoded in spite of its warnings only where
no scan ran out of data: the same file with other bytes after each scan gives the same pixels. Its
pixels are doubtful then, and the file is told to be damaged.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

import simplejpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPARE: Final = 1.25
"""How much larger a scaled JPEG is left than needed, so that resizing has something to average."""

MOST_SCANS: Final = 20
"""A file may have so many scans over the most pixels that are allowed, a smaller one more: each
takes time over all pixels. Usual progressive files have 10 scans, optimised ones up to 15."""

BEGINNING: Final = b"\xff\xd8"

_END = b"\xff\xd9"
_SOS, _SOF_PROGRESSIVE, _APP0, _APP14, _DRI = 0xDA, {0xC2, 0xC6, 0xCA, 0xCE}, 0xE0, 0xEE, 0xDD
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {0xCC}
_LONE = frozenset({0x01, *range(0xD0, 0xD8)})
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_MOST_MARKERS = 20_000
_STRAY = 16  # bytes before markers that may be left out without a doubt
_PAD = 1  # zero bytes that may be the end of a scan's data, which is filled up with ones
# Appended to scans that may be short: no 0xFF, and unlike each other from the first bit on.
_TAILS = (b"\x00" * 64, b"\xaa\x55\x9c\x31" * 16, b"\xf3\x6d\xb5\x4a" * 16)


class Decoded(NamedTuple):
    """Pixels, H x W x 3 (H x W x 4 of ink, see `decode`), and whether they are doubtful."""

    pixels: NDArray[np.uint8]
    damaged: bool


def decode(data: bytes, shortest: int | None, *, progressive: bool) -> Decoded:
    """Decode a JPEG, at the smallest scale M/8 that leaves ``SPARE * shortest`` pixels.

    Args:
        data: The file.
        shortest: Pixels that the shorter side is needed at; None: all.
        progressive: Whether it is progressive: libjpeg-turbo says nothing where scans are missing.

    Returns:
        RGB, or CMYK as it is stored where the file has four components; not yet upright.

    Raises:
        ValueError: The data is cut off or damaged beyond use.
    """
    try:
        pixels = _decoded(data, shortest, strict=True)
        return Decoded(pixels, damaged=progressive and _lacks_scans(data))
    except ValueError as error:
        fixed = fix(data)
        if fixed is None:
            raise
        return _tolerant(fixed, shortest, error)


def check_scans(data: bytes, pixels: int, most_pixels: int) -> None:
    """Refuse a file whose scans take longer than `MOST_SCANS` over the largest image allowed.

    Raises:
        ValueError: It has too many scans.
    """
    most = max(MOST_SCANS * most_pixels // max(pixels, 1), MOST_SCANS)
    # Counted roughly first, thumbnails and all that stands behind the image included.
    if data.count(b"\xff\xda") <= most:
        return
    walked = _walked(data)
    count = sum(piece.marker == _SOS for piece in walked.pieces)
    if count > most:
        raise ValueError(f"it has {count:,} scans; {most:,} at most are read at this size")


@dataclass
class _Piece:
    marker: int
    content: bytes  # marker, length and what follows; of a scan its header
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
    """A JPEG written anew, its scans apart.

    Attributes:
        doubtful: Whether more was left out than harmless bytes.
    """

    walked: _Walked
    doubtful: bool

    def content(self, tail: bytes = b"", zeros: int | None = None) -> bytes:
        """Return the file.

        Args:
            tail: What is appended to each scan.
            zeros: How many of the zero bytes that end the last scan are kept; None: all.
        """
        *before, last = self.walked.pieces
        parts = [BEGINNING]
        for piece in before:
            parts += [piece.content, piece.entropy, tail if piece.marker == _SOS else b""]
        entropy = last.entropy if zeros is None else _trimmed(last.entropy, zeros)
        return b"".join([*parts, last.content, entropy, tail, _END])


def fix(data: bytes) -> Fixed | None:
    """Write a JPEG's markers anew, as a viewer understands them.

    Returns:
        None where there is no image in it, or its header or one of its scans is missing.
    """
    walked = _walked(data)
    frame = walked.frame()
    if walked.broken or frame is None or not any(piece.marker == _SOS for piece in walked.pieces):
        return None
    while walked.pieces[-1].marker != _SOS:  # tables for nothing
        walked.pieces.pop()
    if not _all_scans(walked, frame) or (frame.marker in _ARITHMETIC and not walked.ended):
        return None
    for piece in walked.pieces:
        piece.content = _fixed(piece, frame)
    stray = b"".join(walked.stray)
    harmless = len(stray) <= _STRAY or not stray.strip(b"\0")
    return Fixed(walked, not harmless)


def _decoded(data: bytes, shortest: int | None, *, strict: bool) -> NDArray[np.uint8]:
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    least = ceil(SPARE * shortest) if shortest else 0
    if least > min(height, width):  # libjpeg-turbo would enlarge
        least = 0
    wanted = "CMYK" if space in {"CMYK", "YCCK"} else "RGB"
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, wanted, min_height=least, min_width=least, strict=strict
    )
    return decoded


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
    """Whether pixels depend on what follows a scan: then the scan is short of data.

    Zeros that end the file are no data, but what a download that broke off left unwritten. Compared
    at full size, where the last coefficient of the last block counts.
    """
    hashes = {
        hashlib.sha256(_decoded(fixed.content(tail, _PAD), None, strict=False).data).digest()
        for tail in _TAILS
    }
    return len(hashes) > 1


def _restarts_are_there(walked: _Walked) -> bool:
    """Whether each scan has the restart markers it should: else parts of it are missing."""
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
    """Return how many units (MCUs) a scan has (ITU-T T.81, A.2)."""
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
    """Whether every coefficient of every component was sent whole; else scans are missing."""
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


def _walked(data: bytes) -> _Walked:
    """Take a file apart at its markers, as libjpeg's ``next_marker`` finds them."""
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
            walked.broken = True  # cut off within a header, or nonsense
            return walked
        at += length
        if marker == _SOS:
            following = _NEXT_MARKER.search(data, at)
            stop = len(data) if following is None else following.start()
            piece.entropy = data[at:stop].rstrip(b"\xff")  # fill; as data it is followed by a 0
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
        return content[:-3] + b"\x00\x3f\x00"  # all there is to say of a sequential scan
    if piece.marker == _APP0 and content[4:9] == b"JFIF\0" and len(content) >= 11:
        return content[:9] + b"\x01\x01" + content[11:]
    if piece.marker == _APP14 and content[4:9] == b"Adobe" and len(content) >= 16:
        # What libjpeg-turbo takes an unknown transform for.
        usual = 2 if frame.content[9] == 4 else 1
        return content if content[15] <= 2 else content[:15] + bytes((usual,)) + content[16:]
    return content


def _trimmed(entropy: bytes, zeros: int) -> bytes:
    """Return a scan's data with no more than so many zero bytes after it."""
    kept = entropy.rstrip(b"\0")
    if kept.endswith(b"\xff"):  # a stuffed byte
        kept += b"\0"
    return kept + entropy[len(kept) : len(kept) + zeros]
