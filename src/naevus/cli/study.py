"""``naevus ablate`` and ``shortcuts``: what changes gain, what is guessed without a lesion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import (
    AllowMissing,
    Force,
    open_run,
)
from naevus.cli.console import console, errors, progress
from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from naevus.datasets.cache import PixelStore
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.ablation import Ablation
    from naevus.evaluation.shortcuts import ShortcutScores
    from naevus.images.preprocess import Source
    from naevus.runs.recipe import TrainConfig
    from naevus.runs.run import Run
    from naevus.taxonomy import Taxonomy
    from naevus.training.data import Material
    from naevus.workflows.ablation import Plan, Trained
    from naevus.workflows.shortcuts import Hiding


# ``naevus shortcuts``: what can be guessed of the diagnoses without the lesion.

_METADATA = "age, sex and site alone"
_OWN = "the run's own answers"
_BY_WAY = {
    "whole": "embedding of the whole picture",
    "blanked": "... with the lesion filled",
    "common hole": "... with a common hole filled",
    "border ring": "... of the border ring alone",
}
_FITTING = "... of lesions that fit in it"


def shortcuts(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of classification.")],
    data: Annotated[
        Path | None, typer.Option(help="Its data set, with masks, if it is no longer there.")
    ] = None,
    allow_missing: AllowMissing = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell how well diagnoses are guessed from what is not the lesion.

    Gradient boosting guesses by age, sex and site alone; logistic regression by the run's frozen
    embeddings of pictures whose lesion is hidden: filled with the mean colour of the skin, in its
    own outline or in a hole that is the same in all pictures, or all but a ring at the border.
    What is far above chance there may be learnt in place of the lesion. Every guess is about a
    lesion that neither network nor guesser saw. Kept in RUN/shortcuts.json.

    Examples:
      naevus shortcuts runs/cls
      naevus shortcuts runs/cls --data ISIC2018 --json
    """
    from naevus.io.files import write_json
    from naevus.runs.run import dataset_of

    opened = open_run(run, allow_missing=allow_missing)
    if opened.config.task != "classification":
        raise DataError(f"{run}: is no run of classification", "name one")
    table = opened.answers()
    dataset = dataset_of(opened, data)
    if dataset is None:
        raise DataError(f"{opened.inputs['data']}: is not there", "name the data set with --data")
    records = dataset.table.drop_duplicates("image_id").set_index("image_id", drop=False)
    scores, hiding = _scores(opened, table, records)
    told = _told(hiding, scores, len(table))
    found = {**scores.to_dict(), **told}
    write_json(run / "shortcuts.json", found)
    if json:
        console.print_json(data=found)
        return
    for part in _tables(scores, told):
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


def _scores(run: Run, table: pd.DataFrame, records: pd.DataFrame) -> tuple[ShortcutScores, Hiding]:
    import numpy as np

    from naevus.evaluation.shortcuts import ShortcutScores
    from naevus.evaluation.tables import probabilities, taxonomy_of
    from naevus.workflows.shortcuts import hiding_of

    taxonomy = taxonomy_of(table)
    sources = _sources(table, records)
    with errors.status("drawing the common hole"):
        hiding = hiding_of(sources)
    parts = [_of_fold(run, fold, table, sources, hiding, taxonomy) for fold in run.finished()]
    ids = [image_id for known, _ in parts for image_id in known]
    chosen = table.set_index("image_id", drop=False).loc[ids]
    own = probabilities(chosen, taxonomy)[1]
    balanced = {_OWN: own}
    for way, name in _BY_WAY.items():
        balanced[name] = np.concatenate([guessed[way] for _, guessed in parts])
        if way == "common hole":
            balanced[_FITTING] = balanced[name]
    with errors.status("guessing by age, sex and site"):
        balanced[_METADATA] = _by_metadata(run, records, ids, taxonomy)
    truth, groups = chosen["truth"].tolist(), chosen["group_id"].tolist()
    within = {_FITTING: np.isin(ids, list(hiding.fits))}
    with errors.status("scoring the guesses"):
        return ShortcutScores.of(balanced, truth, groups, taxonomy, within), hiding


def _sources(table: pd.DataFrame, records: pd.DataFrame) -> list[Source]:
    from naevus.images.preprocess import Source

    there = records[records["image_id"].isin(table["image_id"])]
    there = there[there["path"].notna() & there["mask_path"].notna()]
    if there.empty:
        raise DataError(
            "no picture of the run has a mask", "name its data set, with masks, with --data"
        )
    return [
        Source(image_id, Path(path), Path(mask))
        for image_id, path, mask in there[["image_id", "path", "mask_path"]].to_numpy()
    ]


def _of_fold(
    run: Run,
    fold: int,
    table: pd.DataFrame,
    sources: Sequence[Source],
    hiding: Hiding,
    taxonomy: Taxonomy,
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Return the ids of a fold's pictures, and guesses of their diagnoses by each embedding."""
    from naevus.bundles.bundle import Bundle
    from naevus.evaluation.shortcuts import by_embeddings
    from naevus.workflows.shortcuts import hidden_features

    rows = table[table["fold"] == fold].set_index("image_id")
    own = [source for source in sources if source.image_id in rows.index]
    bundle = Bundle.read(run.bundle_folder(fold))
    with progress(f"hiding the lesions of fold {fold}", len(own)) as move:
        features = hidden_features(bundle, own, hiding, progress=move)
    known = rows.loc[features.ids]
    truth, groups = known["truth"].tolist(), known["group_id"].tolist()
    with errors.status(f"guessing by the embeddings of fold {fold}"):
        guesses = {
            way: by_embeddings(embedded, truth, groups, taxonomy.codes)
            for way, embedded in features.embeddings.items()
        }
    return features.ids, guesses


def _by_metadata(
    run: Run, records: pd.DataFrame, ids: Sequence[str], taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """Guess by the models of the run's folds, all of them: they need no network."""
    import pandas as pd

    from naevus.evaluation.shortcuts import by_metadata

    folds = run.folds.table.set_index("image_id")["fold"]
    folds = folds[folds != "test"]  # what stands apart for a last test teaches nobody
    known = records[records["diagnosis"].notna() & records["image_id"].isin(folds.index)]
    parts = pd.factorize(known["image_id"].map(folds))[0]
    guessed = by_metadata(known, known["diagnosis"].tolist(), parts, taxonomy.codes)
    places = known.index.get_indexer(pd.Index(ids))
    if (places < 0).any():  # -1 would be the last picture's guess
        strange = [image_id for image_id, place in zip(ids, places, strict=True) if place < 0]
        raise DataError(
            f"{run.folder}: {len(strange)} pictures with an answer have no diagnosis in the data "
            f"set or stand in no fold, such as {strange[0]}",
            "name the run's own data set with --data",
        )
    return guessed[places]


def _told(hiding: Hiding, scores: ShortcutScores, answers: int) -> dict[str, float]:
    return {
        "without_mask": answers - scores.pictures,
        "hole": float(hiding.hole.mean()),
        "fits": len(hiding.fits) / scores.pictures,
    }


def _tables(scores: ShortcutScores, told: Mapping[str, float]) -> Iterable[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from naevus.reports.document import spread_with_interval

    table = Table(
        "guessed from", title=f"{scores.pictures:,} pictures of {scores.groups:,} lesions"
    )
    for column in ("lesions", "balanced accuracy", "mean AUC", "melanoma AUC"):
        table.add_column(column, justify="right")
    for guess in scores.guesses:
        table.add_row(
            guess.source,
            f"{guess.groups:,}",
            spread_with_interval(guess.balanced_accuracy),
            spread_with_interval(guess.mean_auc),
            spread_with_interval(guess.melanoma),
        )
    table.add_row("chance", "", f"{scores.chance:.3f}", "0.500", "0.500", style="dim")
    table.caption = "95 % intervals by lesion; AUCs rank balanced probabilities"
    yield table
    if told["without_mask"]:
        yield Text(
            f"note: {told['without_mask']:,} pictures with an answer have no plausible mask and "
            "are left out",
            style="yellow",
        )
    yield Text(
        f"The common hole covers {told['hole']:.0%} of the picture; {told['fits']:.0%} of the "
        "lesions fit in. Of the others, what sticks out is filled too and may tell their size."
    )


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
    from naevus.training.unused import once, refuse_unused_by_all
    from naevus.workflows.ablation import load_plan, recipes

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
        from naevus.workflows.ablation import answers_of, budget_of

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
        from naevus.workflows.ablation import side_of_crops, with_detail

        crops = every[name]
        sources = self._material(crops).sources()
        check_material(self._material(crops), crops, name)
        with progress("measuring crops") as move:
            return with_detail(config, side_of_crops(sources, crops.data.crop_margin, move))

    def _train(self, name: str, config: TrainConfig) -> None:
        from naevus.cli.console import logged
        from naevus.cli.train import check_material, inputs_of, train_folds
        from naevus.runs.run import Run, held
        from naevus.training.train import prepare
        from naevus.workflows.ablation import Trained

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
