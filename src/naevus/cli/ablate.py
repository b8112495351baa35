"""``naevus ablate``: what each change to a recipe gains or costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import AllowMissing, Force  # noqa: TC001 (typer reads annotations)
from naevus.cli.console import console, errors, progress

if TYPE_CHECKING:
    from naevus.datasets.cache import PixelStore
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.ablation import Ablation
    from naevus.runs.recipe import TrainConfig
    from naevus.training.ablation.arms import Trained
    from naevus.training.ablation.plan import Plan
    from naevus.training.data import Material


def ablate(
    plan: Annotated[Path, typer.Argument(help="What is tried: TOML, as recipes/ablations has.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="Runs and tables; what is there is not made again.")],
    folds: Annotated[
        Path | None, typer.Option(help="Folds made by `naevus folds`; else 5 with seed 2018.")
    ] = None,
    fold: Annotated[int, typer.Option(help="The fold that is held out.")] = 0,
    arm: Annotated[
        list[str] | None, typer.Option(help="This arm and the reference alone; may be repeated.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Predicted masks that crops are cut by.")
    ] = None,
    copies: Annotated[
        list[Path] | None, typer.Option(help="Other copies of the same ids, for every arm.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of all arms.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Decoded pictures; beside the runs by default.")
    ] = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
) -> None:
    """Train a recipe's variations under one budget and compare them on one held-out fold.

    Started again with the same words it goes on; runs are under OUT/arms. The table, with paired
    differences from the reference by lesion, is OUT/ablation.md, .csv and .json.

    Examples:
      naevus ablate plan.toml ISIC2018 --out runs/ablations
      naevus ablate plan.toml ISIC2018 --arm crop --arm both --out runs/crops
    """
    from naevus.cli.train import pictures_and_folds
    from naevus.runs.recipe import parse_setting
    from naevus.training.ablation.plan import load_plan, recipes
    from naevus.training.unused import once, refuse_unused_by_all

    chosen = load_plan(plan)
    shown = chosen.shown(tuple(arm or ()))
    settings = once([parse_setting(text) for text in setting or ()], {})
    configs = recipes(chosen, plan.parent, settings)
    names = chosen.to_train(shown)
    trained = configs[names[0]]
    measured = {chosen.arms[name].detail_of for name in names}
    refuse_unused_by_all(
        [configs[name] for name in configs if name in measured.union(names)],
        settings,
        masks=masks,
        copies=copies or (),
    )
    dataset, dealt = pictures_and_folds(data, trained, folds, masks, copies or [])
    dealt.held_out(fold)  # refuses a fold that is not there, before a folder is made
    workshop = _Workshop(
        chosen, dataset, dealt, fold, out, cache or out / "cache", masks, tuple(copies or ()), force
    )
    found = workshop.ablation(shown, configs, allow_missing=allow_missing)
    _write(found, out)
    _show(found, out)


@dataclass
class _Workshop:
    """Where the arms are trained and asked."""

    plan: Plan
    dataset: Dataset
    folds: Folds
    fold: int
    out: Path
    cache: Path
    masks: Path | None
    copies: tuple[Path, ...]
    force: bool
    trained: dict[str, Trained] = field(default_factory=dict)

    def ablation(
        self, shown: tuple[str, ...], every: dict[str, TrainConfig], *, allow_missing: bool
    ) -> Ablation:
        """Train what is not trained, and compare."""
        from naevus.evaluation.ablation import ablation
        from naevus.training.ablation.arms import answers_of, budget_of

        arms = self.plan.arms
        configs = {name: every[name] for name in self.plan.to_train(shown)}
        for name, config in configs.items():
            detail_of = arms[name].detail_of
            self._train(name, self._coarser(config, every, detail_of) if detail_of else config)
        tables = {}
        for name in shown:
            with progress(f"asking {name}") as move:
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
        from naevus.training.data import Material

        # Centre squares are the same whatever the masks: one cache for all arms that see them.
        masks = None if config.data.crop_mode == "full" else self.masks
        return Material(self.dataset, self.cache, masks=masks, copies=self.copies, force=self.force)

    def _coarser(
        self, config: TrainConfig, every: dict[str, TrainConfig], name: str
    ) -> TrainConfig:
        from naevus.cli.train import check_material
        from naevus.training.ablation.arms import side_of_crops, with_detail

        crops = every[name]
        sources = self._material(crops).sources()
        check_material(self._material(crops), crops, name)
        with progress("measuring crops") as move:
            return with_detail(config, side_of_crops(sources, crops.data.crop_margin, move))

    def _train(self, name: str, config: TrainConfig) -> None:
        from naevus.cli.train import check_material, inputs_of, logged, train_folds
        from naevus.runs.run import Run, held
        from naevus.training.ablation.arms import Trained
        from naevus.training.train import prepare

        material = self._material(config)
        if config.data.crop_mode != "full":
            check_material(material, config, name)
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
                console.rule(f"arm {name}", align="left")
                with logged(run.folder / "train.log"):
                    train_folds(run, [self.fold], material)


def _write(found: Ablation, out: Path) -> None:
    from naevus.io.files import atomic, write_json, write_text

    write_text(out / "ablation.md", found.markdown())
    write_json(out / "ablation.json", found.to_dict())
    with atomic(out / "ablation.csv") as temporary:
        found.table().to_csv(temporary, index=False)


def _show(found: Ablation, out: Path) -> None:
    from rich.table import Table

    head, *rows = found.summary()
    table = Table(title=found.title)
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in (found.budget, *found.lines()):
        console.print(line)
    console.print(f"tables: {out / 'ablation.md'}, .csv, .json")
    errors.print("Research use only, never a diagnosis.", style="dim")
