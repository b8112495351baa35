"""Pictures of a run, as its networks learnt to see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from naevus.datasets.decoded import DecodedPictures
from naevus.datasets.pixelstore import PixelStore
from naevus.errors import DataError, PictureError
from naevus.images.geometry import resize
from naevus.training.export.data import dataset_of
from naevus.training.job import Material, learning_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from naevus.training.run import Run


class Pictures(Protocol):
    """Squares by id."""

    def __getitem__(self, image_id: str, /) -> NDArray[np.uint8]:
        """Return the picture, S x S x 3."""
        ...

    def __contains__(self, image_id: object, /) -> bool:
        """Tell whether the picture is there."""
        ...


def pictures_of(run: Run, data: Path | None = None) -> DecodedPictures | PixelStore:
    """Return a run's training pictures: from its data set, else from the cache beside the run.

    Args:
        run: The run.
        data: The data set's folder, where it has moved since.

    Raises:
        DataError: ``data`` is another data set, or the pictures are nowhere.
    """
    config = run.config
    form = learning_of(config).forms(config)["pictures"]
    dataset = dataset_of(run, data)
    if dataset is not None:
        masks = run.inputs["masks"]
        material = Material(dataset, run.folder, masks=Path(masks) if masks else None)
        return DecodedPictures(material.sources(), form)
    # Folds may know pictures that the run did not use: of another part, without a diagnosis.
    listed, wanted = run.folds.table["image_id"].tolist(), run.inputs["pictures"]
    for settings in sorted((run.folder.parent / "cache").glob("*/store.json")):
        store = PixelStore.open(settings.parent)
        known = sum(name in store or name in store.quarantined for name in listed)
        if store.form == form and known == wanted:
            return store
    raise DataError(
        f"{run.folder}: its pictures are neither in their folder nor cached beside the run",
        "name the data set with --data",
    )


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
