"""An ablation: a plan of arms in TOML, their training, and what became of each."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from naevus.bundles.bundle import Bundle
from naevus.errors import ConfigError, DataError, PictureError
from naevus.evaluation.ablation import ablation, decided
from naevus.evaluation.tables import combined, taxonomy_of
from naevus.images.geometry import box_of, square_with_margin
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.inference.out_of_fold import heldout_logits
from naevus.io.files import atomic
from naevus.io.progress import SILENT
from naevus.runs.recipe import Section, TrainConfig, load_config
from naevus.runs.run import Run, held, read_heldout
from naevus.training.data import Material
from naevus.training.train import check_material, inputs_of, prepare, train_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.datasets.cache import PixelStore
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.ablation import Ablation
    from naevus.images.preprocess import Source
    from naevus.io.progress import Reporter
    from naevus.types import ViewSet


_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
BUDGET = ("epochs", "batch_size", "sizes", "seed", "early_stopping", "precision")
"""What all arms have alike."""


class ArmPlan(Section):
    """One arm: a training of its own, another look at one, or the mean of several.

    ``set`` changes settings of the recipe, by dotted names; ``of`` takes another arm's network and
    sees pictures in ``views`` or answers by ``decision``; ``mean`` averages other arms' logits.
    """

    about: str
    set: dict[str, Any] = Field(default_factory=dict)
    detail_of: str | None = Field(
        default=None, description="An arm with crops: this one's pictures get no more pixels."
    )
    of: str | None = None
    views: Literal["none", "half-turn", "flips", "d4"] = "none"
    decision: Literal["balanced", "raw", "probable"] = "balanced"
    mean: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        trained = bool(self.set) or self.detail_of is not None
        if trained + (self.of is not None) + bool(self.mean) > 1:
            raise ValueError("an arm either trains, looks at another (of), or is a mean")
        if self.of is None and (self.views, self.decision) != ("none", "balanced"):
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


class Plan(Section):
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


def load_plan(path: Path) -> Plan:
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
        return Plan.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{path}: {where + ': ' if where else ''}{said}",
            "see recipes/ablations for an example",
        ) from error


def recipes(
    plan: Plan, folder: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, TrainConfig]:
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
        name: load_config(folder / plan.recipe, "classification", {**shared, **arm.set})
        for name, arm in plan.arms.items()
        if arm.trained
    }


# An ablation's arms: what each is trained on, and what it answers to the held-out pictures.


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

    plan: Plan
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
        self, shown: tuple[str, ...], every: dict[str, TrainConfig], *, allow_missing: bool
    ) -> Ablation:
        """Train what is not trained, and compare."""
        arms = self.plan.arms
        configs = {name: every[name] for name in self.plan.to_train(shown)}
        for name, config in configs.items():
            detail_of = arms[name].detail_of
            self._train(name, self._coarser(config, every, detail_of) if detail_of else config)
        tables = {}
        for name in shown:
            with self.reporter.progress(f"asking {name}") as move:
                tables[name] = answers_of(self.plan, name, self.trained, move)
        abouts = {name: arms[name].about for name in shown}
        budget = budget_of(configs[self.plan.reference], self.fold)
        if any(config.data.crop_mode != "full" for config in configs.values()):
            own = "the data set's own masks, which are better than a model's"
            budget += f" Crops are cut by {'predicted masks' if self.masks else own}."
        reference = self.plan.reference
        return ablation(
            self.plan.title, budget, tables, abouts, reference, allow_missing=allow_missing
        )

    def _material(self, config: TrainConfig) -> Material:

        # Centre squares are the same whatever the masks: one cache for all arms that see them.
        masks = None if config.data.crop_mode == "full" else self.masks
        return Material(
            self.dataset,
            self.cache,
            masks=masks,
            copies=self.copies,
            force=self.force,
            pretrained=config.pretrained_file,
        )

    def _coarser(
        self, config: TrainConfig, every: dict[str, TrainConfig], name: str
    ) -> TrainConfig:

        crops = every[name]
        sources = self._material(crops).sources()
        check_material(self._material(crops), crops, self.reporter, name)
        with self.reporter.progress("measuring crops") as move:
            return with_detail(config, side_of_crops(sources, crops.data.crop_margin, move))

    def _train(self, name: str, config: TrainConfig) -> None:

        material = self._material(config)
        check_material(material, config, self.reporter, name)
        inputs = inputs_of(self.dataset, material)

        def store() -> PixelStore:
            if "pictures" not in material.stores:
                prepare(material, config, lambda _: lambda _done, _total: None)
            return material.stores["pictures"]

        folder = self.out / "arms" / name
        with held(folder):
            run = Run.start(folder, config, self.folds, inputs)
        self.trained[name] = Trained(run, self.fold, store)
        if self.fold not in run.finished():
            self.reporter.message(name, "arm")
            train_folds(run, [self.fold], material, self.reporter)
