"""Whether the masks that a job learns, or cuts crops by, are there and can be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.datasets.masksurvey import check_masks, implausible_problem, refuse
from naevus.errors import DataError
from naevus.images.masks import PLAUSIBLE_FRACTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.datasets.cache import ImageCache
    from naevus.images.preprocess import ImageFiles
    from naevus.runs.recipe import Recipe

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
    def of(cls, cache: ImageCache, sources: Sequence[ImageFiles]) -> CropCounts:
        """Count the crops of a cache made from these sources."""
        segmented = {source.image_id for source in sources if source.mask_path is not None}
        full = [name for name in cache.ids if cache.modes[name] == "full"]
        return cls(
            len(cache.ids),
            len(cache.ids) - len(full),
            tuple(name for name in full if name not in segmented),
            tuple(name for name in full if name in segmented),
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
    sources: Sequence[ImageFiles], recipe: Recipe, where: Path, *, force: bool, arm: str = ""
) -> list[str]:
    """Refuse masks that a job cannot use, before anything is cached; some are looked at.

    Args:
        sources: The images with the masks that the job will use.
        recipe: The recipe.
        where: Where the masks are, for messages.
        force: Take them nevertheless.
        arm: The ablation's arm that wants them.

    Returns:
        What would have been refused, with ``force``.

    Raises:
        DataError: Most images to be cropped have no mask, or most masks are empty or full, seem
            turned round, or cannot be read.
    """
    crops = recipe.task == "classification" and recipe.data.crop_mode != "full"
    if recipe.task == "classification" and not crops:
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


def check_learnt(cache: ImageCache, where: Path, *, force: bool) -> list[str]:
    """Refuse a cache of masks most of which are empty or full.

    Raises:
        DataError: They are and it is not forced, or there is no mask at all.
    """
    if not cache.ids:
        first = next(iter(cache.failed.values()), "there are none")
        raise DataError(
            f"{where}: no mask can be used: {first}", "look at them with `naevus data check`"
        )
    fractions = np.array([np.count_nonzero(cache[name] > 127) for name in cache.ids])
    fractions = fractions / cache.pixels[0].size
    empty = int((fractions < PLAUSIBLE_FRACTIONS[0]).sum())
    full = int((fractions > PLAUSIBLE_FRACTIONS[1]).sum())
    note = refuse(implausible_problem(len(fractions), empty, full), where, force=force)
    return [] if note is None else [note]
