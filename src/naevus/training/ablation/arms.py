"""An ablation's arms: what each is trained on, and what it answers to the held-out pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from naevus.bundles.bundle import Bundle
from naevus.errors import DataError, PictureError
from naevus.evaluation.ablation import decided
from naevus.evaluation.tables import combined, taxonomy_of
from naevus.images.geometry import box_of, square_with_margin
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.inference.out_of_fold import heldout_logits
from naevus.io.files import atomic
from naevus.runs.run import read_heldout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.datasets.cache import PixelStore
    from naevus.images.preprocess import Source
    from naevus.runs.recipe import TrainConfig
    from naevus.runs.run import Run
    from naevus.training.ablation.plan import Plan
    from naevus.types import ViewSet


@dataclass(frozen=True)
class Trained:
    """A finished fold of an arm that trains.

    Attributes:
        run: Its run.
        fold: The fold.
        store: Opens the cache of its pictures; called where they are to be seen again.
    """

    run: Run
    fold: int
    store: Callable[[], PixelStore]

    def answers(
        self, views: ViewSet = "none", progress: Callable[[int, int], None] | None = None
    ) -> pd.DataFrame:
        """Return the fold's out-of-fold table, its pictures seen in some views; kept in a file."""
        folder = self.run.fold_folder(self.fold)
        table = read_heldout(folder / "heldout.parquet")
        if views == "none":
            return table
        kept = folder / f"heldout-{views}.parquet"
        if not kept.exists():
            bundle = Bundle.read(self.run.bundle_folder(self.fold))
            ids = table["image_id"].tolist()
            seen = heldout_logits(bundle, self.store(), ids, views=views, progress=progress)
            rest = table[["image_id", *(c for c in table.columns if c not in seen.columns)]]
            with atomic(kept) as temporary:
                seen.merge(rest, on="image_id", validate="one_to_one").to_parquet(
                    temporary, index=False
                )
        return read_heldout(kept)


def answers_of(
    plan: Plan,
    name: str,
    trained: Mapping[str, Trained],
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return an arm's out-of-fold table.

    Args:
        plan: The plan.
        name: The arm.
        trained: The finished arms that it is, or is made from.
        progress: Called with (done, total) pictures where some are seen again.
    """
    arm = plan.arms[name]
    if arm.mean:
        tables = [trained[other].answers() for other in arm.mean]
        return combined(tables, taxonomy_of(tables[0]), arm.mean)
    table = trained[arm.of or name].answers(arm.views, progress)
    return table if arm.decision == "balanced" else decided(table, arm.decision)


def budget_of(config: TrainConfig, fold: int) -> str:
    """Say what every arm was given."""
    sizes = ", ".join(f"{size} px" for _, size in config.sizes)
    return (
        f"Each trained arm had {config.epochs} passes at {sizes}, batches of {config.batch_size}, "
        f"seed {config.seed}, and was trained once; what is compared is fold {fold}, held out. "
        "Differences are in points with 95 % intervals by lesion; they tell nothing of "
        "how another seed would have come out."
    )


def side_of_crops(
    sources: Sequence[Source], margin: float, progress: Callable[[int, int], None] | None = None
) -> int:
    """Return the median side of the crops' squares in their pictures, in pixels.

    Args:
        sources: Pictures with masks of their size.
        margin: Of the crops (`naevus.images.preprocess`).
        progress: Called with (done, total) pictures.

    Raises:
        DataError: No mask shows a lesion.
    """
    sides = []
    for done, source in enumerate(sources, start=1):
        mask = _mask_of(source)
        box = box_of(mask) if mask is not None and plausible(mask) else None
        if mask is not None and box is not None:
            sides.append(square_with_margin(box, margin, *mask.shape).width)
        if progress is not None:
            progress(done, len(sources))
    if not sides:
        raise DataError("no mask shows a lesion", "name other masks")
    return round(float(np.median(sides)))


def _mask_of(source: Source) -> NDArray[np.bool_] | None:
    try:
        return None if source.mask_path is None else read_mask_of(source.mask_path, source.path)
    except PictureError:  # its picture is left out of the caches, and told there
        return None


def with_detail(config: TrainConfig, side: int) -> TrainConfig:
    """Return a recipe whose pictures have at most ``side`` pixels a side of their own.

    They are enlarged from it to the network's size, as crops are.
    """
    size = min(config.data.cache_size, side)
    return config.model_copy(
        update={"data": config.data.model_copy(update={"cache_size": size, "copies_size": size})}
    )
