"""Pictures of a run, as its networks learnt to see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from naevus.datasets.cache import PixelStore
from naevus.datasets.sources import DecodedPictures
from naevus.errors import DataError
from naevus.runs.run import dataset_of
from naevus.training.job import Material, learning_of

if TYPE_CHECKING:
    from naevus.runs.run import Run


def pictures_of(run: Run, data: Path | None = None) -> DecodedPictures | PixelStore:
    """Return a run's training pictures: from its data set, else from the cache beside the run.

    Args:
        run: The run.
        data: The data set's folder, where it has moved since.

    Raises:
        DataError: ``data`` is another data set, or the pictures are nowhere.
    """
    config = run.config
    dataset = dataset_of(run, data)
    if dataset is not None:
        form = learning_of(config).forms(config)["pictures"]
        masks = run.inputs["masks"]
        material = Material(dataset, run.folder, masks=Path(masks) if masks else None)
        return DecodedPictures(material.sources(), form)
    key = run.cache_key("pictures")
    for settings in sorted((run.folder.parent / "cache").glob("*/store.json")):
        store = PixelStore.open(settings.parent)
        if store.key == key:
            return store
    raise DataError(
        f"{run.folder}: its pictures are neither in their folder nor cached beside the run",
        "name the data set with --data",
    )
