"""``naevus train`` and ``recipe``: fold models of both tasks, and their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from naevus.cli.console import console, log_on_screen, reporter
from naevus.cli.options import IMAGE_TYPE_HELP, TAXONOMY_HELP, Force, ImageType, TaxonomyName
from naevus.errors import ConfigError
from naevus.types import Task

# ``naevus recipe``: every setting of a training job, with its value.


def recipe(
    task: Annotated[Task, typer.Argument(help="What would be learnt.")],
    path: Annotated[
        Path | None, typer.Option("--recipe", help="A TOML file; none prints the defaults.")
    ] = None,
) -> None:
    """Print a recipe with all its settings, as TOML to start one's own from.

    A recipe may leave out what it does not change; with --recipe, what it left out is filled in.

    Examples:
      naevus recipe classification > my.toml
      naevus recipe segmentation --recipe recipes/segmentation.toml
    """
    from naevus.runs.recipe import load_config, to_toml

    console.print(to_toml(load_config(path, task)), soft_wrap=True, end="")


def train(
    task: Annotated[Task, typer.Argument(help="What is learnt.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="The run's folder; an interrupted run goes on.")],
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file; what it leaves out has its default.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as optimiser.clip=0.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Train this fold alone.")] = None,
    folds: Annotated[
        Path | None, typer.Option(help="Folds made by `naevus folds`; else 5 with seed 2018.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Predicted masks that crops are cut by.")
    ] = None,
    copies: Annotated[
        list[Path] | None,
        typer.Option(
            help="Other copies of the same ids; one is drawn at random each time. For attributes "
            "a data set: each copy counts for the masks that lie beside it."
        ),
    ] = None,
    image_type: Annotated[
        ImageType | None, typer.Option(help=f"{IMAGE_TYPE_HELP} The same as data.image_type.")
    ] = None,
    taxonomy: Annotated[
        TaxonomyName | None, typer.Option(help=f"{TAXONOMY_HELP} The same as data.taxonomy.")
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option("--from", help="A run whose weights to start from.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|none|FILE",
            help="What the encoder starts from; FILE is safetensors with timm's names.",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Decoded pictures; beside the run by default.")
    ] = None,
    force: Force = False,
) -> None:
    """Train fold models, export their bundles, and predict what each fold held out.

    Started again after an interruption, with the same words, it goes on where it was. Settings
    come from the recipe, then from --set; `naevus recipe` lists them all.

    Examples:
      naevus train segmentation ISIC2018 --recipe my.toml --out runs/seg
      naevus train classification ISIC2018 --fold 0 --set epochs=5 --out runs/cls
    """
    from naevus.runs.recipe import load_config, parse_setting
    from naevus.runs.run import Run, copies_in, held, images_and_folds
    from naevus.training.unused import once, refuse_unused

    overrides = once(
        [parse_setting(text) for text in setting or ()],
        {
            "--pretrained network.pretrained": pretrained,
            "--image-type data.image_type": image_type,
            "--taxonomy data.taxonomy": taxonomy,
        },
    )
    config = load_config(recipe, task, overrides)
    if warm_start is not None and (config.pretrained_file or "network.pretrained" in overrides):
        raise ConfigError("network.pretrained does nothing beside --from", "give one of them")
    refuse_unused(config, overrides, masks=masks, copies=copies or ())
    source = Run.open(warm_start) if warm_start else None
    dataset, dealt = images_and_folds(data, config, folds, masks, copies or [], reporter)
    from naevus.training.data import Material
    from naevus.training.train import check_material, inputs_of, train_folds

    material = Material(
        dataset,
        cache or out.parent / "cache",
        masks=masks,
        copies=tuple(copies or ()),
        warm_start=source,
        force=force,
        pretrained=config.pretrained_file,
        further=tuple(
            copies_in(folder, dataset, config)
            for folder in copies or ()
            if config.task == "attributes"
        ),
    )
    check_material(material, config, reporter)
    chosen = list(range(dealt.k)) if fold is None else [fold]
    for number in chosen:
        dealt.held_out(number)  # refuses a fold that is not there, before a folder is made
    with held(out):
        run = Run.start(out, config, dealt, inputs_of(dataset, material))
        with log_on_screen():
            train_folds(run, chosen, material, reporter)
