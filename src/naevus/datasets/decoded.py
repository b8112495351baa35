"""Pictures decoded when they are asked for, as a cache would hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.images.preprocess import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from naevus.images.preprocess import Form, Source


class DecodedPictures:
    """Squares by id.

    Args:
        sources: The files.
        form: What a cache's rows would look like.
    """

    def __init__(self, sources: Sequence[Source], form: Form) -> None:
        self._sources = {source.image_id: source for source in sources}
        self._form = form

    def __getitem__(self, image_id: str) -> NDArray[np.uint8]:
        """Return the picture, S x S x 3.

        Raises:
            PictureError: It cannot be read.
        """
        return render(self._sources[image_id], self._form).pixels

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._sources
