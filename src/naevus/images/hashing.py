"""Perceptual hashes: 64 bits that stay nearly the same when a picture is scaled or re-encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from naevus.images.geometry import VIEWS, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 32
_KEPT = slice(1, 9)  # without the zeroth row and column, which hold the light's gradient


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma of an RGB picture (ITU-R BT.601), H x W; a grey one as it is."""
    if pixels.ndim == 2:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def hashes_of_views(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the DCT hashes of the eight views of a picture, in the order of `geometry.VIEWS`.

    A grey view is reduced to 32 x 32 and transformed by the cosine transform; the 8 x 8
    coefficients of lowest frequency (but the zeroth) against their median are one bit each
    (C. Zauner: Implementation and benchmarking of perceptual image hash functions, 2010, 3.2.1).

    The spectrum of a mirrored or turned picture is the picture's with signs and axes changed:
    one transform is enough.

    Args:
        pixels: H x W x 3 or H x W.

    Returns:
        Shape (8,).
    """
    spectrum = _spectrum(grey_of(pixels))
    return np.array([_bits(_viewed(spectrum, k)) for k in VIEWS], np.uint64)


def hamming(a: NDArray[np.uint64] | np.uint64, b: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return in how many of the 64 bits hashes differ; shapes are broadcast."""
    different: NDArray[np.uint8] = np.bitwise_count(a ^ b)
    return different


def _spectrum(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = resize(grey, _SIDE, _SIDE).astype(np.float32)
    return np.asarray(cv2.dct(small)[_KEPT, _KEPT], np.float32)


def _viewed(spectrum: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    signs = np.where(np.arange(1, 9) % 2, np.float32(-1), np.float32(1))
    mirrored = spectrum * signs if k & 4 else spectrum
    for _ in range(k & 3):
        mirrored = mirrored.T * signs[:, None]  # a quarter turn: transposed, then upside down
    return mirrored


def _bits(spectrum: NDArray[np.float32]) -> int:
    above = (spectrum > np.median(spectrum)).ravel()
    return int.from_bytes(np.packbits(above).tobytes(), "big")
