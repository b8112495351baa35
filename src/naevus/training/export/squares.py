"""Pictures by id, at the size that a network sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from naevus.errors import DataError, PictureError
from naevus.images.geometry import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Pictures(Protocol):
    """Squares by id."""

    def __getitem__(self, image_id: str, /) -> NDArray[np.uint8]:
        """Return the picture, S x S x 3."""
        ...

    def __contains__(self, image_id: object, /) -> bool:
        """Tell whether the picture is there."""
        ...


def squares(pictures: Pictures, ids: Sequence[str], size: int) -> NDArray[np.uint8]:
    """Return pictures at a network's size, N x S x S x 3; those that cannot be read are left out.

    Args:
        pictures: Where they are.
        ids: Which ones.
        size: S, pixels.

    Raises:
        DataError: None can be read.
    """
    found = []
    for image_id in ids:
        if image_id not in pictures:
            continue
        try:
            found.append(resize(pictures[image_id], size, size))
        except PictureError:
            continue
    if not found:
        raise DataError("no picture can be read", "name the data set with --data")
    return np.stack(found)
