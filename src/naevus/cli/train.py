"""``naevus train``: train a network per fold."""

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
            help="A TOML file; omitted settings have their defaults.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    settings: Set = None,
    show_recipe: Annotated[
        bool,
        typer.Option(
            "--show-recipe",
            help="Print the recipe with all its settings as TOML and exit.",
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
            help="A run to initialise the weights from, fold by fold.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            metavar="imagenet|none|FILE",
            help="Initial weights of the encoder; FILE is a safetensors file with timm's names.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Train one network per fold, and predict its held-out images.

    Examples:
      naevus train segmentation ISIC2018 --out runs/seg
      naevus train classification ISIC2018 --fold 0 --set epochs=5 --out runs/cls

    Writes checkpoints, bundles and out-of-fold predictions to the run folder, OUT. The same
    command resumes an interrupted run, and several commands can train different folds of a run at
    the same time. --set overrides settings of the recipe. To write your own recipe, start from
    the output of --show-recipe:

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
        raise ConfigError(
            "network.pretrained has no effect with --init-from", "leave out one of them"
        )
    if show_recipe:
        given = {"DATA": data, "--out": out, "--folds": folds, "--fold": fold, "--masks": masks,
                 "--copies": copies, "--init-from": init_from, "--cache": cache}  # fmt: skip
        for name in (name for name, value in given.items() if value):
            raise ConfigError(f"{name} has no effect with --show-recipe", f"leave out {name}")
        console.print(to_toml(resolved), soft_wrap=True, end="")
        return
    if data is None or out is None:
        raise ConfigError(
            f"{'DATA' if data is None else '--out'} is missing",
            f"run naevus train {task} DATA --out RUN",
        )
    inputs = _Inputs(masks, tuple(copies or ()), init_from, cache, force)
    refuse_unused(resolved, overrides, masks=masks, copies=inputs.copies)
    _train(resolved, data, out, folds, fold, inputs)


class _Inputs(NamedTuple):
    """The inputs of a training job besides its data set."""

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
    given: _Inputs,
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
        split.held_out(number)  # refuses an unknown fold before a folder is created
    with held(out, lambda: reporter.message(f"waiting for another job to prepare {out}")):
        run = Run.start(out, resolved, split, inputs_of(dataset, training_data))
    with log_on_screen():
        train_folds(run, chosen, training_data, reporter)
