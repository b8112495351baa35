"""Ablations: the training of a plan's arms, and their comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from naevus.bundles.bundle import Bundle
from naevus.datasets.dataset import unit_of
from naevus.errors import DataError, ImageError
from naevus.evaluation.ablation import ablation, decided
from naevus.evaluation.out_of_fold import combined, taxonomy_of
from naevus.images.geometry import box_of, square_with_margin
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.inference.out_of_fold import oof_logits
from naevus.io.files import atomic
from naevus.io.progress import SILENT
from naevus.io.words import counted
from naevus.runs.run import Run, held, read_oof
from naevus.training.data import TrainingData
from naevus.training.prepare import check_training_data, inputs_of, prepare, start_run
from naevus.training.train import train_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.datasets.cache import ImageCache
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.ablation import Ablation
    from naevus.images.preprocess import ImageFiles
    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe
    from naevus.types import TTA, Unit
    from naevus.workflows.ablation_plan import AblationPlan


# Arms: their training and out-of-fold predictions.


@dataclass(frozen=True)
class Trained:
    """A finished fold of a trained arm.

    Attributes:
        run: Its run.
        fold: The fold.
        cache: Opens the cache of its images; called only if they must be predicted again.
    """

    run: Run
    fold: int
    cache: Callable[[], ImageCache]

    def predictions(
        self, tta: TTA = "none", progress: Callable[[int, int], None] | None = None
    ) -> pd.DataFrame:
        """Return the fold's out-of-fold table with test-time augmentation; cached in a file."""
        folder = self.run.fold_folder(self.fold)
        table = read_oof(folder / "oof.parquet")
        if tta == "none":
            return table
        kept = folder / f"oof-{tta}.parquet"
        if not kept.exists():
            bundle = Bundle.read(self.run.bundle_folder(self.fold))
            ids = table["image_id"].tolist()
            found = oof_logits(bundle, self.cache(), ids, tta=tta, progress=progress)
            rest = table[["image_id", *(c for c in table.columns if c not in found.columns)]]
            with atomic(kept) as temporary:
                found.merge(rest, on="image_id", validate="one_to_one").to_parquet(
                    temporary, index=False
                )
        return read_oof(kept)


def evaluated_predictions(
    plan: AblationPlan,
    name: str,
    trained: Mapping[str, Trained],
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return an arm's out-of-fold table.

    Args:
        plan: The plan.
        name: The arm.
        trained: The finished arms that it depends on, or the arm itself.
        progress: Called with (done, total) images if some are predicted again.
    """
    arm = plan.arms[name]
    if arm.mean:
        tables = [trained[other].predictions() for other in arm.mean]
        return combined(tables, taxonomy_of(tables[0]), arm.mean)
    table = trained[arm.of or name].predictions(arm.tta, progress)
    return table if arm.decision == "balanced" else decided(table, arm.decision)


def budget_of(recipe: Recipe, fold: int, unit: Unit) -> str:
    """Describe the budget of every arm, and what the intervals are by."""
    sizes = ", ".join(f"{size} px" for _, size in recipe.sizes)
    epochs = counted(recipe.epochs, "epoch")
    return (
        f"Each trained arm had {epochs} at {sizes}, batches of {recipe.batch_size} "
        f"and seed {recipe.seed}, and was trained once. The arms are compared on the held-out "
        f"fold {fold}. Differences are in points, with 95 % intervals by {unit}, which do "
        "not include the variation between seeds."
    )


def side_of_crops(
    sources: Sequence[ImageFiles], margin: float, progress: Callable[[int, int], None] | None = None
) -> int:
    """Return the median side of the crops in their images, in pixels.

    Args:
        sources: Images with masks of their size.
        margin: Margin of the crops (`naevus.images.preprocess`).
        progress: Called with (done, total) images.

    Raises:
        DataError: No mask contains a lesion.
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
        raise DataError("no mask contains a lesion", "name other masks")
    return round(float(np.median(sides)))


def _mask_of(source: ImageFiles) -> NDArray[np.bool_] | None:
    try:
        return None if source.mask_path is None else read_mask_of(source.mask_path, source.path)
    except ImageError:  # the image is left out of the caches and reported there
        return None


def with_detail(recipe: Recipe, side: int) -> Recipe:
    """Return a recipe whose cached images have at most ``side`` pixels a side.

    They are enlarged to the network's size, like crops.
    """
    size = min(recipe.data.cache_size, side)
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"cache_size": size, "copies_size": size})}
    )


@dataclass
class Workshop:
    """Trains the arms of a plan and compares their out-of-fold predictions.

    Attributes:
        plan: The plan.
        dataset: The data set of all arms.
        folds: Its folds.
        fold: The held-out fold.
        out: Output folder, with a run for each trained arm in ``arms``.
        cache: Folder of decoded images.
        masks: Folder of masks to crop by; None: the data set's own masks.
        copies: Folders of other copies of the images.
        force: Whether to use masks that look wrong as a whole.
        reporter: Shows progress.
        trained: The finished arms.
    """

    plan: AblationPlan
    dataset: Dataset
    folds: Folds
    fold: int
    out: Path
    cache: Path
    masks: Path | None = None
    copies: tuple[Path, ...] = ()
    force: bool = False
    reporter: Reporter = SILENT
    trained: dict[str, Trained] = field(default_factory=dict)

    def ablation(
        self, shown: tuple[str, ...], every: dict[str, Recipe], *, allow_missing: bool
    ) -> Ablation:
        """Train the arms that are not finished, and compare all."""
        arms = self.plan.arms
        configs = {name: every[name] for name in self.plan.to_train(shown)}
        for name, recipe in configs.items():
            detail_of = arms[name].detail_of
            self._train(name, self._coarser(recipe, every, detail_of) if detail_of else recipe)
        tables = {}
        for name in shown:
            with self.reporter.progress(f"predicting with {name}") as move:
                tables[name] = evaluated_predictions(self.plan, name, self.trained, move)
        unit = unit_of(self.dataset.table)
        abouts = {name: arms[name].about for name in shown}
        budget = budget_of(configs[self.plan.reference], self.fold, unit)
        if any(recipe.data.crop_mode != "full" for recipe in configs.values()):
            own = "the data set's own masks, which are better than predicted ones"
            budget += f" Crops use {'predicted masks' if self.masks else own}."
        reference = self.plan.reference
        return ablation(
            self.plan.title, budget, tables, abouts, reference, allow_missing=allow_missing,
            unit=unit,
        )  # fmt: skip

    def _training_data(self, recipe: Recipe) -> TrainingData:

        # Centre squares do not depend on masks: all arms that use them share one cache.
        masks = None if recipe.data.crop_mode == "full" else self.masks
        return TrainingData(
            self.dataset,
            self.cache,
            masks=masks,
            copies=self.copies,
            force=self.force,
            pretrained=recipe.pretrained_file,
        )

    def _coarser(self, recipe: Recipe, every: dict[str, Recipe], name: str) -> Recipe:

        crops = every[name]
        sources = self._training_data(crops).sources()
        check_training_data(self._training_data(crops), crops, self.reporter, name)
        with self.reporter.progress("measuring crops") as move:
            return with_detail(recipe, side_of_crops(sources, crops.data.crop_margin, move))

    def _train(self, name: str, recipe: Recipe) -> None:

        training_data = self._training_data(recipe)

        def cache() -> ImageCache:
            if "images" not in training_data.caches:
                prepare(training_data, recipe, lambda _: lambda _done, _total: None)
            return training_data.caches["images"]

        folder = self.out / "arms" / name
        if (folder / "run.toml").exists() and self.fold in Run.open(folder).finished():
            with held(folder):
                inputs = inputs_of(self.dataset, training_data)
                run = Run.start(folder, recipe, self.folds, inputs)
        else:
            self.reporter.message(name, "arm")
            run = start_run(
                folder, recipe, self.folds, training_data, [self.fold], self.reporter, name
            )
            train_folds(run, [self.fold], training_data, self.reporter)
        self.trained[name] = Trained(run, self.fold, cache)
