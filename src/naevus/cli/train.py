"""``naevus train``: fold models of either task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from naevus.cli.console import console, log_on_screen, reporter
from naevus.cli.options import (
    NETWORKS,
    TRAINING,
    Cache,
    Copies,
    DataFolderIfGiven,
    Fold,
    FoldsFile,
    Force,
    ImageTypeIfGiven,
    Masks,
    OutIfGiven,
    Set,
    Task,
    TaxonomyIfGiven,
)
from naevus.errors import ConfigError

if TYPE_CHECKING:
    from naevus.runs.recipe import Recipe


def train(
    task: Task,
    data: DataFolderIfGiven = None,
    out: OutIfGiven = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            help="A TOML file; settings that it leaves out have their defaults.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    settings: Set = None,
    show_recipe: Annotated[
        bool,
        typer.Option(
            "--show-recipe",
            help="Print the recipe with all its settings as TOML, and stop.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    folds: FoldsFile = None,
    fold: Fold = None,
    masks: Masks = None,
    copies: Copies = None,
    image_type: ImageTypeIfGiven = None,
    taxonomy: TaxonomyIfGiven = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            help="A run whose weights to start from, fold by fold.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            metavar="imagenet|none|FILE",
            help="Weights that the encoder starts from; FILE is safetensors with timm's names.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Train networks, one a fold, and predict what each held out.

    Examples:
      naevus train segmentation ISIC2018 --out runs/seg
      naevus train classification ISIC2018 --fold 0 --set epochs=5 --out runs/cls

    Writes checkpoints, bundles and out-of-fold predictions to the run's folder, OUT. The same
    command resumes an interrupted run, and several commands can train different folds of a run at
    the same time. Settings come from the recipe, then from --set. To write a recipe of your own,
    start from what --show-recipe prints:

      naevus train classification --show-recipe > my.toml
    """
    from naevus.runs.recipe import load_recipe, parse_setting, to_toml
    from naevus.training.unused import once, refuse_unused

    overrides = once(
        [parse_setting(text) for text in settings or ()],
        {
            "--pretrained network.pretrained": pretrained,
            "--image-type data.image_type": image_type,
            "--taxonomy data.taxonomy": taxonomy,
        },
    )
    resolved = load_recipe(recipe, task, overrides)
    if init_from is not None and (resolved.pretrained_file or "network.pretrained" in overrides):
        raise ConfigError("network.pretrained does nothing beside --init-from", "give one of them")
    if show_recipe:
        given = {"DATA": data, "--out": out, "--folds": folds, "--fold": fold, "--masks": masks,
                 "--copies": copies, "--init-from": init_from, "--cache": cache}  # fmt: skip
        for name in (name for name, value in given.items() if value):
            raise ConfigError(f"{name} does nothing beside --show-recipe", f"leave out {name}")
        console.print(to_toml(resolved), soft_wrap=True, end="")
        return
    if data is None or out is None:
        raise ConfigError(
            f"no {'data set' if data is None else 'folder for the run'} is named",
            f"run naevus train {task} DATA --out RUN",
        )
    training_data = _MaterialGiven(masks, tuple(copies or ()), init_from, cache, force)
    refuse_unused(resolved, overrides, masks=masks, copies=training_data.copies)
    _train(resolved, data, out, folds, fold, training_data)


class _MaterialGiven(NamedTuple):
    """What networks learn from, beside the data set."""

    masks: Path | None
    copies: tuple[Path, ...]
    init_from: Path | None
    cache: Path | None
    force: bool


def _train(
    resolved: Recipe,
    data: Path,
    out: Path,
    folds: Path | None,
    fold: list[int] | None,
    given: _MaterialGiven,
) -> None:
    from naevus.runs.run import Run, copies_in, held, images_and_folds

    source = Run.open(given.init_from) if given.init_from else None
    dataset, split = images_and_folds(data, resolved, folds, given.masks, given.copies, reporter)
    from naevus.training.data import TrainingData
    from naevus.training.train import check_training_data, inputs_of, train_folds

    training_data = TrainingData(
        dataset,
        given.cache or out.parent / "cache",
        masks=given.masks,
        copies=given.copies,
        init_from=source,
        force=given.force,
        pretrained=resolved.pretrained_file,
        further=tuple(
            copies_in(folder, dataset, resolved)
            for folder in given.copies
            if resolved.task == "attributes"
        ),
    )
    check_training_data(training_data, resolved, reporter)
    chosen = list(range(split.k)) if fold is None else list(dict.fromkeys(fold))
    for number in chosen:
        split.held_out(number)  # refuses a fold that is not there, before a folder is made
    with held(out, lambda: reporter.message(f"waiting for another training to prepare {out}")):
        run = Run.start(out, resolved, split, inputs_of(dataset, training_data))
    with log_on_screen():
        train_folds(run, chosen, training_data, reporter)
