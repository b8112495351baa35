"""Pictures of a run, as its networks learnt to see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from naevus.datasets.decoded import DecodedPictures
from naevus.datasets.pixelstore import PixelStore
from naevus.errors import DataError
from naevus.training.export.data import dataset_of
from naevus.training.job import Material, learning_of

if TYPE_CHECKING:
    from naevus.training.run import Run


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
