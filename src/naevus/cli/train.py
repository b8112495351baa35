"""``naevus train``: train a network per fold."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, log_on_screen, reporter
from naevus.cli.options import (
    NETWORKS,
    TRAINING,
    Cache,
    Copies,
    DataFolderIfGiven,
    Device,
    Fold,
    FoldsFile,
    Force,
    ImageTypeIfGiven,
    InitFrom,
    Limit,
    Masks,
    OutIfGiven,
    Set,
    Task,
    TaxonomyIfGiven,
    Track,
    TrainingThreads,
)
from naevus.errors import ConfigError
from naevus.io.torchrun import speaks
from naevus.io.words import counted

if TYPE_CHECKING:
    from naevus.runs.run import Run


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
            help="Print the recipe with all its settings, commented, as TOML and exit.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    folds: FoldsFile = None,
    fold: Fold = None,
    masks: Masks = None,
    copies: Copies = None,
    image_type: ImageTypeIfGiven = None,
    taxonomy: TaxonomyIfGiven = None,
    limit: Limit = None,
    init_from: InitFrom = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            metavar="imagenet|none|FILE",
            help="Initial weights of the encoder; FILE is a safetensors file with timm's names.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    track: Track = None,
    device: Device = "auto",
    threads: TrainingThreads = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Train one network per fold, and predict its held-out images.

    Examples:
      naevus train segmentation ISIC2018 --out runs/seg
      naevus train classification ISIC2018 --fold 0 --set epochs=5 --out runs/cls
      naevus train segmentation ISIC2018 --limit 100 --set epochs=1 --out runs/try
      torchrun --nproc-per-node 2 -m naevus train classification DATA --out cls

    Writes checkpoints, bundles and out-of-fold predictions to the run folder, OUT. The same
    command resumes an interrupted run from the last checkpoint, which is written at the end of an
    epoch and every two minutes. Several commands can train different folds of a run at the same
    time. --set overrides settings of the recipe. To write your own recipe, start from
    the output of --show-recipe:

      naevus train classification --show-recipe > my.toml
    """
    from naevus.io.settings import parse_setting
    from naevus.runs.recipe import load_recipe, to_toml
    from naevus.training.unused import once, refuse_unused

    overrides = once(
        [parse_setting(text) for text in settings or ()],
        {
            "--pretrained network.pretrained": pretrained,
            "--image-type data.image_type": image_type,
            "--taxonomy data.taxonomy": taxonomy,
            "--limit data.limit": limit,
        },
    )
    resolved = load_recipe(recipe, task, overrides)
    if init_from is not None and (resolved.pretrained_file or "network.pretrained" in overrides):
        raise ConfigError(
            "network.pretrained has no effect with --init-from", "leave out one of them"
        )
    if show_recipe:
        given = {"DATA": data, "--out": out, "--folds": folds, "--fold": fold, "--masks": masks,
                 "--copies": copies, "--init-from": init_from, "--track": track,
                 "--threads": threads, "--cache": cache}  # fmt: skip
        for name in (name for name, value in given.items() if value):
            raise ConfigError(f"{name} has no effect with --show-recipe", f"leave out {name}")
        console.print(to_toml(resolved, comments=True), soft_wrap=True, end="")
        return
    if data is None or out is None:
        raise ConfigError(
            f"{'DATA' if data is None else '--out'} is missing",
            f"run naevus train {task} DATA --out RUN",
        )
    refuse_unused(resolved, overrides, masks=masks, copies=tuple(copies or ()))
    from naevus.training.callbacks import tracker
    from naevus.training.job import train as train_run

    with log_on_screen() if speaks() else nullcontext():
        run = train_run(
            resolved,
            data,
            out=out,
            folds=folds,
            fold=fold,
            masks=masks,
            copies=copies or (),
            init_from=init_from,
            cache=cache,
            force=force,
            device=device,
            threads=threads,
            callbacks=[tracker(name, out) for name in track or ()],
            reporter=reporter,
        )
    if speaks():
        _say_what_next(run)


def _say_what_next(run: Run) -> None:
    """Print the commands that follow a training."""
    place = shlex.quote(str(run.folder))
    left = run.folds.k - len(run.finished())
    if left:
        reporter.message(f"{counted(left, 'fold')}; without --fold all are trained", "not trained")
    reporter.message(f"naevus evaluate {place}", "To evaluate it")
    reporter.message(f"naevus report {place}", "To look at it")
    reporter.message(f"naevus predict IMAGES --bundle {place}", "To use it")
