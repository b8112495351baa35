"""Whether the masks that a job learns, or cuts crops by, are there and can be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.datasets.masksurvey import check_masks, implausible_problem, refuse
from naevus.errors import DataError
from naevus.images.masks import PLAUSIBLE_SHARES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.datasets.cache import PixelStore
    from naevus.images.preprocess import Source
    from naevus.runs.recipe import TrainConfig

_REMEDY = "name masks of a model that did not train on them with --masks, or pass --force"


class CropCounts(NamedTuple):
    """What became of the crops of a cache.

    Attributes:
        images: How many images the cache has.
        cropped: How many were cut round their lesion.
        without_mask: Ids without a mask file: centre squares.
        implausible_mask: Ids whose mask is empty, nearly so, or nearly full: centre squares.
    """

    images: int
    cropped: int
    without_mask: tuple[str, ...]
    implausible_mask: tuple[str, ...]

    @classmethod
    def of(cls, store: PixelStore, sources: Sequence[Source]) -> CropCounts:
        """Count the crops of a cache made from these sources."""
        outlined = {source.image_id for source in sources if source.mask_path is not None}
        squares = [name for name in store.ids if store.modes[name] == "full"]
        return cls(
            len(store.ids),
            len(store.ids) - len(squares),
            tuple(name for name in squares if name not in outlined),
            tuple(name for name in squares if name in outlined),
        )

    def __str__(self) -> str:
        return (
            f"{self.cropped} of {self.images} images cut round the lesion, {len(self.without_mask)}"
            f" centre squares for want of a mask, {len(self.implausible_mask)} for an implausible "
            "one"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return self._asdict()


def check_before(
    sources: Sequence[Source], config: TrainConfig, where: Path, *, force: bool, arm: str = ""
) -> list[str]:
    """Refuse masks that a job cannot use, before anything is cached; some are looked at.

    Args:
        sources: The images with the masks that the job will use.
        config: The recipe.
        where: Where the masks are, for messages.
        force: Take them nevertheless.
        arm: The ablation's arm that wants them.

    Returns:
        What would have been refused, with ``force``.

    Raises:
        DataError: Most images to be cropped have no mask, or most masks are empty or full, seem
            turned round, or cannot be read.
    """
    crops = config.task == "classification" and config.data.crop_mode != "full"
    if config.task == "classification" and not crops:
        return []
    masks = [source.mask_path for source in sources if source.mask_path is not None]
    lacking = len(sources) - len(masks)
    notes = []
    if crops and 2 * lacking > len(sources):
        what = f"{lacking} of {len(sources)} images have no mask"
        problem = (f"{what} for arm {arm}" if arm else f"{what} to be cropped by", _REMEDY)
        notes.append(refuse(problem, where, force=force))
    notes.append(check_masks(masks, where, force=force))
    return [note for note in notes if note is not None]


def check_cropped(counts: CropCounts, where: Path, *, force: bool) -> list[str]:
    """Refuse a cache of crops most of which are centre squares.

    Raises:
        DataError: They are, and it is not forced.
    """
    if 2 * counts.cropped >= counts.images:
        return []
    note = refuse((str(counts), _REMEDY), where, force=force)
    return [] if note is None else [note]


def check_learnt(store: PixelStore, where: Path, *, force: bool) -> list[str]:
    """Refuse a cache of masks most of which are empty or full.

    Raises:
        DataError: They are and it is not forced, or there is no mask at all.
    """
    if not store.ids:
        first = next(iter(store.quarantined.values()), "there are none")
        raise DataError(
            f"{where}: no mask can be used: {first}", "look at them with `naevus data check`"
        )
    shares = np.array([np.count_nonzero(store[name] > 127) for name in store.ids])
    shares = shares / store.pixels[0].size
    empty = int((shares < PLAUSIBLE_SHARES[0]).sum())
    full = int((shares > PLAUSIBLE_SHARES[1]).sum())
    note = refuse(implausible_problem(len(shares), empty, full), where, force=force)
    return [] if note is None else [note]
