"""Artefacts over the skin: dark hair, and the marks of rulers and printed scales.

Both are thin and darker than what surrounds them. The black-hat transform finds such structures
(Lee et al., DullRazor, Computers in Biology and Medicine 1997). In tiles of 8 x 8 pixels, their
structure tensor (Bigün & Granlund, ICCV 1987) says whether they have one direction, as hair and
printed lines do, or many, as a pigment network does.

Widths and limits are set for images with a shorter side of about 256 pixels, on half of
``results/labels/quality-flags.csv``; `benchmarks/quality_flags.py` judges them on the other half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_WIDEST = 7  # pixels; hair and scale marks are not wider
_DARKER = 5  # levels of 255 below their surroundings
_TILE = 8
_ONE_DIRECTION = 0.6  # coherence: 1 for parallel lines, 0 for a mesh
_FLAT = 50  # squared gradient: below it, a direction is noise


class Artefacts(NamedTuple):
    """What is found over the skin of an image."""

    hair: float
    """Fraction of the field of view under dark hair, 0..1."""
    ruler: float
    """How regular the most regular row of marks is, 0..1; skin and most hair stay below 0.6."""


def artefacts_of(grey: NDArray[np.uint8], field: NDArray[np.bool_]) -> Artefacts:
    """Measure hair and rulers.

    Args:
        grey: H x W luminance, with a shorter side of about 256 pixels.
        field: H x W, where hair is measured; rulers are sought in the whole image.
    """
    thin = thin_structures(grey)
    tiles = _tiles(thin)
    hair = np.where(tiles.coherence > _ONE_DIRECTION, tiles.dark, 0)
    inside = _averaged(field.astype(np.float32))
    return Artefacts(float((hair * inside).sum() / inside.sum()), _regularity(thin, tiles))


def thin_structures(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how much darker pixels of thin structures are than their surroundings, H x W."""
    square = np.ones((_WIDEST, _WIDEST), np.uint8)
    return np.asarray(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, square), np.uint8)


class _Tiles(NamedTuple):
    """Thin structures in each tile of an image, rows x columns of tiles."""

    dark: Floats
    """Fraction of the tile that they cover."""
    normal: Floats
    """The direction across them, in radians from the horizontal."""
    coherence: Floats
    """0: all directions; 1: one direction."""
    power: Floats
    """Mean squared gradient."""
    column: Floats
    """Their centre in the image; meaningful where there are any."""
    row: Floats


def _tiles(thin: NDArray[np.uint8]) -> _Tiles:
    across = cv2.Sobel(thin, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(thin, cv2.CV_32F, 0, 1)
    horizontal, vertical = _averaged(across * across), _averaged(down * down)
    mixed, difference = 2 * _averaged(across * down), horizontal - vertical
    power = horizontal + vertical
    weight = np.square(thin, dtype=np.float32)
    columns = np.arange(thin.shape[1], dtype=np.float32)
    rows = np.arange(thin.shape[0], dtype=np.float32)[:, None]
    total = _averaged(weight) + np.float32(1e-6)
    return _Tiles(
        _averaged((thin >= _DARKER).astype(np.float32)),
        np.arctan2(mixed, difference) / 2,
        np.hypot(mixed, difference) / (power + _FLAT),
        power,
        _averaged(weight * columns) / total,
        _averaged(weight * rows) / total,
    )


def _averaged(values: Floats) -> Floats:
    """Return the means of tiles, dropping the remaining rows and columns."""
    rows, columns = (side // _TILE * _TILE or side for side in values.shape)
    size = max(columns // _TILE, 1), max(rows // _TILE, 1)
    return np.asarray(cv2.resize(values[:rows, :columns], size, interpolation=cv2.INTER_AREA))


# Rulers: tiles on one line, and marks along it that repeat at equal distances.

_LEAST_POWER = 200
_LEAST_COHERENCE = 0.3  # lower than hair's, as marks join their line at a right angle
_MOST_TILES = 100
_LINES = 3  # of each kind
_TILES_OF_A_LINE, _TILES_OF_MARKS = 5, 3
_NEAR, _SLOPE = 2.0, 0.03  # pixels from a line; and by how much more, a pixel farther along it
_PARALLEL = float(np.cos(0.2))
_END = 6  # pixels by which a line is followed beyond its last tile
_HALF = 8  # pixels on each side of a line
_BLACKEST = 40  # so that one hair that crosses does not outweigh the marks
_SURE = 9  # repeats; fewer may be equally far apart by chance


def _means(*rows: tuple[int, int]) -> Floats:
    """Return the weights of a strip's 17 rows in means of some of them: first and last + 1."""
    weights = np.zeros((len(rows), 2 * _HALF + 1), np.float32)
    for weight, (first, end) in zip(weights, rows, strict=True):
        weight[first:end] = 1 / (end - first)
    return weights


_BESIDE = _means((2, 6), (4, 7), (10, 13), (11, 15))  # the line is row 8
_ALONG = _means((6, 11), (3, 14))


class _Line(NamedTuple):
    """A line in the image: a point, a unit vector, and where it begins and ends, in pixels."""

    point: Floats
    direction: Floats
    begins: float
    ends: float


def _regularity(thin: NDArray[np.uint8], tiles: _Tiles) -> float:
    usable = np.where(tiles.power > _LEAST_POWER, tiles.coherence, 0).ravel()
    chosen = np.argsort(-usable, kind="stable")[:_MOST_TILES]
    chosen = chosen[usable[chosen] > _LEAST_COHERENCE]
    centres = np.stack([tiles.column.ravel()[chosen], tiles.row.ravel()[chosen]], axis=1)
    angles = tiles.normal.ravel()[chosen]
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    best = 0.0
    # A scale's base line has marks beside it.
    for line in _lines(centres, normals, _TILES_OF_A_LINE):
        best = max(best, _repeats(_BESIDE @ _strip(thin, line), 3, 22))
    # Marks without a base line are parallel, and the line through them is at a right angle to them.
    turned = np.stack([-normals[:, 1], normals[:, 0]], axis=1)
    for line in _lines(centres, turned, _TILES_OF_MARKS):
        best = max(best, _repeats(_ALONG @ _strip(thin, line), 5, 36))
    return best


def _lines(centres: Floats, normals: Floats, least: int) -> Iterator[_Line]:
    """Yield the lines through most tiles; each tile proposes one and belongs to at most one."""
    if len(centres) < least:
        return
    along = np.stack([-normals[:, 1], normals[:, 0]], axis=1)
    distance, further = (
        np.abs(axes @ centres.T - (axes * centres).sum(axis=1)[:, None])
        for axes in (normals, along)
    )
    member = distance < _NEAR + _SLOPE * further
    member &= np.abs(normals @ normals.T) > _PARALLEL
    left = np.ones(len(centres), np.bool_)
    for _ in range(_LINES):
        counts = (member & left).sum(axis=1) * left
        most = int(counts.argmax())
        if counts[most] < least:
            return
        chosen = member[most] & left
        points = centres[chosen]
        fitted = np.asarray(cv2.fitLine(points, cv2.DIST_L2, 0, 0.01, 0.01), np.float32).ravel()
        positions = (points - fitted[2:]) @ fitted[:2]
        begins, ends = float(positions.min()) - _END, float(positions.max()) + _END
        yield _Line(fitted[2:], fitted[:2], begins, ends)
        left &= ~chosen


def _strip(thin: NDArray[np.uint8], line: _Line) -> Floats:
    """Return the pixels beside a line, 17 x its length; the line is the middle row."""
    normal = np.array([-line.direction[1], line.direction[0]], np.float32)
    corner = line.point + line.begins * line.direction - _HALF * normal
    placed = np.stack([line.direction, normal, corner], axis=1)
    size = max(int(line.ends - line.begins), 1), 2 * _HALF + 1
    linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.minimum(cv2.warpAffine(thin, placed, size, flags=linear), _BLACKEST, dtype=np.float32)


def _repeats(profiles: Floats, shortest: int, longest: int) -> float:
    """Return the largest autocorrelation at a distance after its first zero, 0..1.

    It is multiplied by the square root of the number of repeats over `_SURE`, if they are fewer.

    Args:
        profiles: k x length, the darkness along a line, a pixel each.
        shortest: The least distance between marks in pixels.
        longest: The largest one; at most a third of the line.
    """
    length = profiles.shape[1]
    longest = min(longest, length // 3)
    if longest <= shortest:
        return 0.0
    # Without the changes that are slower than marks.
    profiles = profiles - cv2.blur(profiles, (31, 1), borderType=cv2.BORDER_REFLECT_101)
    # Padded, so that the end does not meet the beginning; powers of two are fastest.
    spectrum = np.fft.rfft(profiles, 1 << (length + longest).bit_length())
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, : longest + 1]
    distances = np.arange(longest + 1)
    power = np.maximum(products[:, :1], 1e-3)
    correlations = products / power * (length / (length - distances))
    passed = np.logical_or.accumulate(correlations < 0, axis=1) & (distances >= shortest)
    repeats = np.minimum(length / np.maximum(distances, 1) / _SURE, 1)
    # The peak is chosen before it is weighted: its multiples are as high, and repeat less often.
    peaks = np.where(passed, correlations, 0)
    chosen = peaks.argmax(axis=1)
    scores = np.clip(peaks[np.arange(len(peaks)), chosen], 0, 1) * np.sqrt(repeats[chosen])
    return float(scores.max())
