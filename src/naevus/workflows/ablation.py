"""An ablation: a plan of arms in TOML, their training, and what became of each."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from naevus.bundles.bundle import Bundle
from naevus.errors import ConfigError, DataError, ImageError
from naevus.evaluation.ablation import ablation, decided
from naevus.evaluation.tables import combined, taxonomy_of
from naevus.images.geometry import box_of, square_with_margin
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.inference.out_of_fold import oof_logits
from naevus.io.files import atomic
from naevus.io.progress import SILENT
from naevus.runs.recipe import Recipe, Section, load_recipe
from naevus.runs.run import Run, held, read_oof
from naevus.training.data import TrainingData
from naevus.training.train import check_training_data, inputs_of, prepare, train_folds

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
    from naevus.types import TTA


_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
BUDGET = ("epochs", "batch_size", "sizes", "seed", "early_stopping", "precision")
"""What all arms have alike."""


class ArmPlan(Section):
    """One arm: a training of its own, another look at one, or the mean of several.

    ``set`` changes settings of the recipe, by dotted names; ``of`` takes another arm's network and
    sees images in ``tta`` or answers by ``decision``; ``mean`` averages other arms' logits.
    """

    about: str
    set: dict[str, Any] = Field(default_factory=dict)
    detail_of: str | None = Field(
        default=None, description="An arm with crops: this one's images get no more pixels."
    )
    of: str | None = None
    tta: Literal["none", "half-turn", "flips", "d4"] = "none"
    decision: Literal["balanced", "raw", "probable"] = "balanced"
    mean: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        trained = bool(self.set) or self.detail_of is not None
        if trained + (self.of is not None) + bool(self.mean) > 1:
            raise ValueError("an arm either trains, looks at another (of), or is a mean")
        if self.of is None and (self.tta, self.decision) != ("none", "balanced"):
            raise ValueError("views and decision need `of`: the arm whose network answers")
        if len(self.mean) == 1:
            raise ValueError("a mean is of two arms or more")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The arms that this one is made from."""
        return (*self.mean, *([self.of] if self.of else []))

    @property
    def trained(self) -> bool:
        """Whether it has a network of its own."""
        return not self.needs


class AblationPlan(Section):
    """A title, the recipe's file, what changes for all arms, and the arms; one is the reference."""

    title: str
    recipe: str
    reference: str
    settings: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, ArmPlan]

    @model_validator(mode="after")
    def _names_are_arms(self) -> Self:
        for name, arm in self.arms.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: name arms in small letters, digits and hyphens")
            for other in (*arm.needs, *([arm.detail_of] if arm.detail_of else [])):
                if other not in self.arms or not self.arms[other].trained:
                    raise ValueError(f"{name} is made from {other}, which is no arm that trains")
            if budget := sorted(set(arm.set) & set(BUDGET)):
                raise ValueError(f"{name} may not set {budget[0]}: all arms have one budget")
        if self.reference not in self.arms or not self.arms[self.reference].trained:
            raise ValueError(f"the reference {self.reference} is no arm that trains")
        return self

    def shown(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the reference and these arms in the plan's order; no names mean all.

        Raises:
            ConfigError: There is no such arm.
        """
        if unknown := sorted(set(names) - set(self.arms)):
            raise ConfigError(f"no arm is called {unknown[0]}", f"there are {', '.join(self.arms)}")
        return tuple(n for n in self.arms if not names or n in names or n == self.reference)

    def to_train(self, shown: tuple[str, ...]) -> tuple[str, ...]:
        """Return the arms that must be trained for these to be shown, in the plan's order."""
        needed = {one for name in shown for one in (self.arms[name].needs or (name,))}
        return tuple(name for name in self.arms if name in needed)


def load_plan(path: Path) -> AblationPlan:
    """Read a plan.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or is no plan.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read", "name an existing plan") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error})", "mend the file") from error
    try:
        return AblationPlan.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{path}: {where + ': ' if where else ''}{reason}",
            "see recipes/ablations for an example",
        ) from error


def recipes(
    plan: AblationPlan, folder: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, Recipe]:
    """Return the resolved recipe of each arm that trains.

    Args:
        plan: The plan.
        folder: Where it lies; its recipe is named from there.
        overrides: Settings of all arms, before each arm's own.

    Raises:
        ConfigError: The recipe cannot be read, is not for diagnoses, or a setting is unknown.
    """
    shared = {**plan.settings, **(overrides or {})}
    return {
        name: load_recipe(folder / plan.recipe, "classification", {**shared, **arm.set})
        for name, arm in plan.arms.items()
        if arm.trained
    }


# An ablation's arms: what each is trained on, and what it answers to the held-out images.


@dataclass(frozen=True)
class Trained:
    """A finished fold of an arm that trains.

    Attributes:
        run: Its run.
        fold: The fold.
        cache: Opens the cache of its images; called where they are to be seen again.
    """

    run: Run
    fold: int
    cache: Callable[[], ImageCache]

    def predictions(
        self, tta: TTA = "none", progress: Callable[[int, int], None] | None = None
    ) -> pd.DataFrame:
        """Return the fold's out-of-fold table, its images seen in some views; kept in a file."""
        folder = self.run.fold_folder(self.fold)
        table = read_oof(folder / "oof.parquet")
        if tta == "none":
            return table
        kept = folder / f"oof-{tta}.parquet"
        if not kept.exists():
            bundle = Bundle.read(self.run.bundle_folder(self.fold))
            ids = table["image_id"].tolist()
            seen = oof_logits(bundle, self.cache(), ids, tta=tta, progress=progress)
            rest = table[["image_id", *(c for c in table.columns if c not in seen.columns)]]
            with atomic(kept) as temporary:
                seen.merge(rest, on="image_id", validate="one_to_one").to_parquet(
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
        trained: The finished arms that it is, or is made from.
        progress: Called with (done, total) images where some are seen again.
    """
    arm = plan.arms[name]
    if arm.mean:
        tables = [trained[other].predictions() for other in arm.mean]
        return combined(tables, taxonomy_of(tables[0]), arm.mean)
    table = trained[arm.of or name].predictions(arm.tta, progress)
    return table if arm.decision == "balanced" else decided(table, arm.decision)


def budget_of(recipe: Recipe, fold: int) -> str:
    """Say what every arm was given."""
    sizes = ", ".join(f"{size} px" for _, size in recipe.sizes)
    return (
        f"Each trained arm had {recipe.epochs} passes at {sizes}, batches of {recipe.batch_size}, "
        f"seed {recipe.seed}, and was trained once; what is compared is fold {fold}, held out. "
        "Differences are in points with 95 % intervals by lesion; they tell nothing of "
        "how another seed would have come out."
    )


def side_of_crops(
    sources: Sequence[ImageFiles], margin: float, progress: Callable[[int, int], None] | None = None
) -> int:
    """Return the median side of the crops' squares in their images, in pixels.

    Args:
        sources: Images with masks of their size.
        margin: Of the crops (`naevus.images.preprocess`).
        progress: Called with (done, total) images.

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


def _mask_of(source: ImageFiles) -> NDArray[np.bool_] | None:
    try:
        return None if source.mask_path is None else read_mask_of(source.mask_path, source.path)
    except ImageError:  # its image is left out of the caches, and told there
        return None


def with_detail(recipe: Recipe, side: int) -> Recipe:
    """Return a recipe whose images have at most ``side`` pixels a side of their own.

    They are enlarged from it to the network's size, as crops are.
    """
    size = min(recipe.data.cache_size, side)
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"cache_size": size, "copies_size": size})}
    )


@dataclass
class Workshop:
    """Trains a plan's arms and asks each for its out-of-fold predictions.

    Attributes:
        plan: The plan.
        dataset: What all arms learn from.
        folds: Its folds.
        fold: The fold that is held out.
        out: Where runs go, one a trained arm, under ``arms``.
        cache: Where decoded images go.
        masks: A folder of masks that crops are cut by; the data set's own where there is none.
        copies: Folders of other copies of the images.
        force: Use masks that cannot be right as a whole.
        reporter: Shows how it goes.
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
        """Train what is not trained, and compare."""
        arms = self.plan.arms
        configs = {name: every[name] for name in self.plan.to_train(shown)}
        for name, recipe in configs.items():
            detail_of = arms[name].detail_of
            self._train(name, self._coarser(recipe, every, detail_of) if detail_of else recipe)
        tables = {}
        for name in shown:
            with self.reporter.progress(f"asking {name}") as move:
                tables[name] = evaluated_predictions(self.plan, name, self.trained, move)
        abouts = {name: arms[name].about for name in shown}
        budget = budget_of(configs[self.plan.reference], self.fold)
        if any(recipe.data.crop_mode != "full" for recipe in configs.values()):
            own = "the data set's own masks, which are better than a model's"
            budget += f" Crops are cut by {'predicted masks' if self.masks else own}."
        reference = self.plan.reference
        return ablation(
            self.plan.title, budget, tables, abouts, reference, allow_missing=allow_missing
        )

    def _training_data(self, recipe: Recipe) -> TrainingData:

        # Centre squares are the same whatever the masks: one cache for all arms that see them.
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
        check_training_data(training_data, recipe, self.reporter, name)
        inputs = inputs_of(self.dataset, training_data)

        def cache() -> ImageCache:
            if "images" not in training_data.caches:
                prepare(training_data, recipe, lambda _: lambda _done, _total: None)
            return training_data.caches["images"]

        folder = self.out / "arms" / name
        with held(folder):
            run = Run.start(folder, recipe, self.folds, inputs)
        self.trained[name] = Trained(run, self.fold, cache)
        if self.fold not in run.finished():
            self.reporter.message(name, "arm")
            train_folds(run, [self.fold], training_data, self.reporter)
