"""Checks of the masks that a job learns or crops by: present and plausible."""

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
    """The number of crops and centre squares in a cache.

    Attributes:
        images: Number of images.
        cropped: Number of images that were cropped around their lesion.
        without_mask: Ids without a mask file, kept as centre squares.
        implausible_mask: Ids with an (almost) empty or full mask, kept as centre squares.
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
            f"{self.cropped} of {self.images} images cropped around the lesion; centre squares: "
            f"{len(self.without_mask)} without a mask, {len(self.implausible_mask)} with an "
            "implausible mask"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return self._asdict()


def check_before(
    sources: Sequence[ImageFiles], recipe: Recipe, where: Path, *, force: bool, arm: str = ""
) -> list[str]:
    """Reject masks that a job cannot use, before caching; checks a sample of them.

    Args:
        sources: The images with the masks that the job will use.
        recipe: The recipe.
        where: Folder of the masks, for messages.
        force: Return problems as warnings instead of raising.
        arm: The arm of an ablation that uses the masks.

    Returns:
        The problems that ``force`` ignored.

    Raises:
        DataError: Most images to be cropped have no mask, or most masks are empty, full, inverted
            or unreadable.
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
    """Reject a cache of crops in which most are centre squares.

    Raises:
        DataError: Most are, and ``force`` is not set.
    """
    if 2 * counts.cropped >= counts.images:
        return []
    note = refuse((str(counts), _REMEDY), where, force=force)
    return [] if note is None else [note]


def check_learnt(cache: ImageCache, where: Path, *, force: bool) -> list[str]:
    """Reject a cache of masks in which most are empty or full.

    Raises:
        DataError: Most are and ``force`` is not set, or there is no mask at all.
    """
    if not cache.ids:
        first = next(iter(cache.failed.values()), "there are none")
        raise DataError(f"{where}: no mask can be used: {first}", "run `naevus data check`")
    fractions = np.array([np.count_nonzero(cache[name] > 127) for name in cache.ids])
    fractions = fractions / cache.pixels[0].size
    empty = int((fractions < PLAUSIBLE_FRACTIONS[0]).sum())
    full = int((fractions > PLAUSIBLE_FRACTIONS[1]).sum())
    note = refuse(implausible_problem(len(fractions), empty, full), where, force=force)
    return [] if note is None else [note]
