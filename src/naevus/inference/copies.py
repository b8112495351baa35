"""Pictures read from files on demand, in the form that a bundle sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.forms import Form, Source, render

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle


class FileSquares:
    """Squares by id, decoded when they are asked for.

    Args:
        bundle: A classification bundle; its crop mode and largest input size are used.
        files: Picture file of each id.
        masks: Folder of masks (``<id>_segmentation.png``) that crops are cut by, if they are.
    """

    def __init__(self, bundle: Bundle, files: Mapping[str, Path], masks: Path | None) -> None:
        spec = bundle.classifier
        size = max(member.input_size for member in spec.members)
        self._form = Form(
            spec.crop_mode,
            size,
            margin=spec.crop_margin,
            colour_constancy=spec.colour_constancy,
        )
        self._files, self._masks = files, masks

    def __getitem__(self, image_id: str) -> NDArray[np.uint8]:
        """Return the picture, S x S x 3.

        Raises:
            PictureError: It cannot be read.
        """
        mask = self._masks / f"{image_id}_segmentation.png" if self._masks else None
        there = mask if mask is not None and mask.exists() else None
        return render(Source(image_id, self._files[image_id], there), self._form).pixels
