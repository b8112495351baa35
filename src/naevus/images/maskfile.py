"""Read lesion masks from files, in any encoding that is unambiguous.

Masks are written in many ways. `read_mask` decides from the file alone:

===================================  =========================================================
two values, one of them 0            the other is lesion: 0/1, 0/255, 0/65535, in 8 or 16 bits
grey values, most of them near the   values above 127 (of 255) are lesion; contours may be soft
ends (JPEG, smoothed contours)
palette                              by the colours, as viewers show them; by the indices only if
                                     all of them have the same colour
two colours, one of them black       the other is lesion (as in palettes of PASCAL VOC)
transparency                         ignored if it is constant; it is the mask if the colour is
                                     constant
all 0; all 255 (65,535 in 16 bits)   empty; full
===================================  =========================================================

Everything else is an error: another constant value, several labels, only dark greys, more than two
colours, a photograph. No mask is read as empty because of its encoding. A single file cannot show
whether lesions are dark instead of light; `naevus.datasets.masksurvey` checks all of them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.errors import ImageError
from naevus.images.decoders import upright
from naevus.images.read import ImageBytes, Limits, probe_with_turn, read_stored

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from naevus.images.read import Header, ImageFile

_log = logging.getLogger(__name__)
_REMEDY: Final = "write it as a grey PNG of 0 (skin) and 255 (lesion)"
_USUAL: Final = "0 and 255"
_MIDDLE: Final = (64, 191)
_MOST_BETWEEN = 0.25
"""Largest fraction of a mask's pixels in the middle; photographs have more."""
_CHROMA = 24
"""Grey levels by which the channels of a lossy grey image may differ."""
_MOST_DIFFERENT = 0.01
_LIMITS = Limits()


class MaskFile(NamedTuple):
    """A mask and its encoding.

    Attributes:
        mask: H x W, true on the lesion.
        encoding: How the file encodes it, such as ``0 and 255``.
        values: Number of distinct values in the file.
    """

    mask: NDArray[np.bool_]
    encoding: str
    values: int

    @property
    def usual(self) -> bool:
        """Whether it has the usual encoding, 0 and 255."""
        return self.encoding == _USUAL


def read_mask(path: ImageFile, limits: Limits = _LIMITS) -> NDArray[np.bool_]:
    """Read a mask in any unambiguous encoding.

    Returns:
        H x W, true on the lesion.

    Raises:
        ImageError: The file cannot be read, or its encoding is ambiguous.
    """
    return read_mask_file(path, limits).mask


def read_mask_file(path: ImageFile, limits: Limits = _LIMITS) -> MaskFile:
    """Read a mask and its encoding.

    Raises:
        ImageError: As `read_mask`.
    """
    # A mask has the size of its image, which may be a JPEG.
    stored = read_stored(path, replace(limits, pixels=limits.pixels_of("JPEG")))
    try:
        return _decided(stored.values, stored.palette, lossy=stored.format == "JPEG")
    except _UndecidedError as error:
        named = Path(path.name) if isinstance(path, ImageBytes) else path
        raise ImageError(named, str(error), _REMEDY) from None


def read_mask_of(
    path: Path, image: Path, limits: Limits = _LIMITS, *, scaled: bool = False
) -> NDArray[np.bool_]:
    """Read the mask of an image, in the image's upright orientation.

    If EXIF rotates the image by a quarter turn, the sizes show whether the mask belongs to the
    stored or the upright image, and it is rotated accordingly. If the sizes cannot show it (square
    images, half turns, mirrored images), the mask is assumed to be upright and a warning is logged.

    Args:
        path: The mask file.
        image: The image file; only its header is read.
        limits: Limits that are checked before decoding.
        scaled: Whether the mask may have another size than the image, in the same proportions.

    Returns:
        H x W, true on the lesion.

    Raises:
        ImageError: As `read_mask`, or the image's header cannot be read, or the sizes differ.
    """
    header, turn = probe_with_turn(image, limits)
    return fitted(read_mask(path, limits), path, header, turn, scaled=scaled)


def fitted(
    mask: NDArray[np.bool_], path: Path, header: Header, turn: int, *, scaled: bool = False
) -> NDArray[np.bool_]:
    """Rotate a mask to the upright orientation of its image; see `read_mask_of`.

    Raises:
        ImageError: The mask and the image differ in size.
    """
    height, width = mask.shape
    quarter = turn in {5, 6, 7, 8}
    if _same_frame(width, height, header.width, header.height, scaled=scaled):
        if orientation_uncertain(header, turn):
            _log.warning(
                "%s: EXIF rotates its image, and the size does not show whether the mask is "
                "rotated too; the mask is assumed to be upright",
                path,
            )
        return mask
    if quarter and _same_frame(height, width, header.width, header.height, scaled=scaled):
        return upright(mask.view(np.uint8), turn).view(np.bool_)
    raise ImageError(
        path,
        f"has {width} x {height} pixels, but its image {header.width} x {header.height}",
        "give each mask the size of its image",
    )


def orientation_uncertain(header: Header, turn: int) -> bool:
    """Return whether a mask's size cannot show if it belongs to the stored or upright image."""
    return turn in {2, 3, 4} or (turn > 1 and header.width == header.height)


def _same_frame(width: int, height: int, wide: int, high: int, *, scaled: bool) -> bool:
    if (width, height) == (wide, high):
        return True
    # Sides are rounded when an image is resized.
    return scaled and abs(width * high - height * wide) <= max(width, height, wide, high)


class _UndecidedError(ValueError):
    """A mask with an ambiguous encoding; the message gives the reason."""


def _decided(values: NDArray[Any], palette: NDArray[np.uint8] | None, *, lossy: bool) -> MaskFile:
    if palette is not None:
        return _of_palette(values, palette)
    if values.ndim == 2:
        return _of_grey(values, lossy=lossy)
    if values.shape[2] in {2, 4}:
        return _of_transparent(values, lossy=lossy)
    return _of_colours(values, lossy=lossy)


def _of_palette(numbers: NDArray[np.uint8], palette: NDArray[np.uint8]) -> MaskFile:
    used = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
    if len(used) > 1 and (palette[used] == palette[used[0]]).all():
        return _of_grey(numbers, lossy=False)
    found = _of_colours(palette[numbers], lossy=False)
    return found._replace(encoding=f"palette: {found.encoding}")


def _of_transparent(values: NDArray[Any], *, lossy: bool) -> MaskFile:
    alpha, colours = values[..., -1], values[..., :-1]
    if alpha.min() == alpha.max():
        return _of_colours(colours, lossy=lossy)
    by_alpha = _of_grey(alpha, lossy=lossy)
    if (colours == colours[0, 0]).all():
        return by_alpha._replace(encoding=f"transparency: {by_alpha.encoding}")
    found = _of_colours(colours, lossy=lossy)
    if np.mean(found.mask != by_alpha.mask) > _MOST_DIFFERENT:
        raise _UndecidedError("has one mask in its colours and another in its transparency")
    return found


def _of_colours(values: NDArray[Any], *, lossy: bool) -> MaskFile:
    if values.shape[2] == 1:
        return _of_grey(values[..., 0], lossy=lossy)
    first, rest = values[..., 0], values[..., 1:]
    if (rest == first[..., None]).all():
        return _of_grey(first, lossy=lossy)
    if lossy and np.ptp(values.astype(np.int32), axis=2).max() <= _CHROMA:
        return _of_grey(values[..., 1], lossy=True)
    packed = values.astype(np.uint64) @ np.array([1 << 32, 1 << 16, 1], np.uint64)
    lit = packed[packed > 0]
    if lit.size == packed.size or not (lit == lit[0]).all():
        raise _UndecidedError("is in colour, but not one colour on black")
    return MaskFile(packed > 0, "one colour on black", 2)


def _of_grey(values: NDArray[Any], *, lossy: bool) -> MaskFile:
    deep = values.dtype.itemsize > 1
    counts = np.bincount(values.ravel())
    used = np.flatnonzero(counts)
    low, high = int(used[0]), int(used[-1])
    white = 65535 if deep else 255
    depth = " in 16 bits" if deep else ""
    if len(used) == 1:
        if low not in {0, white}:
            raise _UndecidedError(f"has the value {low}{depth} everywhere: it may be empty or full")
        return MaskFile(values > 0, _USUAL, 1)
    if len(used) == 2 and low == 0 and not lossy:
        return MaskFile(values > 0, f"0 and {high}{depth}", 2)
    if deep and high > 255:
        values = values >> 8
        counts = np.bincount(values.ravel())
        low, high = low >> 8, high >> 8
    if high <= 127 or low > 127:
        raise _UndecidedError(
            f"has {len(used)} values between {used[0]} and {used[-1]}{depth}, and it is not clear "
            "which of them are lesion"
        )
    between = counts[_MIDDLE[0] : _MIDDLE[1] + 1].sum() / counts.sum()
    if between > _MOST_BETWEEN:
        raise _UndecidedError(
            f"is not a mask: {between:.0%} of its pixels are neither dark nor light"
        )
    return MaskFile(np.asarray(values > 127), f"grey values{depth}, split at the middle", len(used))
