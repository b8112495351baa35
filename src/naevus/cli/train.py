"""``naevus train`` and ``recipe``: fold models of both tasks, and their settings."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from naevus.cli.answers import Force, tell
from naevus.cli.console import console, errors, logged, progress, remark
from naevus.cli.datasets import (
    IMAGE_TYPE_HELP,
    TAXONOMY_HELP,
    ImageType,
    TaxonomyName,
    tell_exceptions,
    tell_types,
)
from naevus.errors import ConfigError, DataError
from naevus.io.files import write_json, write_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.runs.recipe import TrainConfig
    from naevus.runs.run import Run
    from naevus.training.data import Material


# ``naevus recipe``: every setting of a training job, with its value.


def recipe(
    task: Annotated[
        Literal["segmentation", "classification"], typer.Argument(help="What would be learnt.")
    ],
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
    task: Annotated[
        Literal["segmentation", "classification"], typer.Argument(help="What is learnt.")
    ],
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
        typer.Option(help="Other copies of the same ids; one is drawn at random each time."),
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
    weights: Annotated[
        Literal["imagenet", "none"] | None, typer.Option(help="What the encoder starts from.")
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
    from naevus.runs.run import Run, held
    from naevus.training.unused import once, refuse_unused

    overrides = once(
        [parse_setting(text) for text in setting or ()],
        {
            "--weights network.weights": weights,
            "--image-type data.image_type": image_type,
            "--taxonomy data.taxonomy": taxonomy,
        },
    )
    if warm_start is not None and "network.weights" in overrides:
        raise ConfigError("network.weights does nothing beside --from", "give one of them")
    config = load_config(recipe, task, overrides)
    refuse_unused(config, overrides, masks=masks, copies=copies or ())
    source = Run.open(warm_start) if warm_start else None
    dataset, dealt = pictures_and_folds(data, config, folds, masks, copies or [])
    from naevus.training.data import Material

    material = Material(
        dataset,
        cache or out.parent / "cache",
        masks=masks,
        copies=tuple(copies or ()),
        warm_start=source,
        force=force,
    )
    check_material(material, config)
    chosen = list(range(dealt.k)) if fold is None else [fold]
    for number in chosen:
        dealt.held_out(number)  # refuses a fold that is not there, before a folder is made
    with held(out):
        run = Run.start(out, config, dealt, inputs_of(dataset, material))
        with logged(out / "train.log"):
            train_folds(run, chosen, material)


def pictures_and_folds(
    data: Path,
    config: TrainConfig,
    folds: Path | None,
    masks: Path | None,
    copies: Sequence[Path],
) -> tuple[Dataset, Folds]:
    """Return what a recipe can learn from in a folder, and the folds to do it in.

    Args:
        data: The folder.
        config: The recipe.
        folds: A file of folds; None: they are dealt here.
        masks: A folder of masks that crops are cut by; looked at before anything else is done.
        copies: Folders of other copies, likewise.

    Raises:
        DataError: A folder is absent, or holds no mask of any picture; or there are no pictures.
        FoldsError: The folds are of other pictures.
    """
    from naevus.datasets.folds import Folds, make_folds
    from naevus.runs.run import load_for, pictures_of_parts, select_pictures

    loaded = load_for(data, config)
    for folder in (*copies, *([masks] if masks else ())):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder", "name a folder of files by image id")
    if masks and not any((masks / f"{name}_segmentation.png").exists() for name in loaded.ids):
        raise DataError(f"{masks}: holds no mask of any picture", "name OUT/masks of predict")
    dataset = select_pictures(loaded, config)
    tell_types(loaded, config.data.image_type)
    if config.task == "classification" and loaded.taxonomy != dataset.taxonomy:
        console.print(f"classes: {', '.join(dataset.taxonomy.codes)} (those that are there)")
    if folds is None:
        return dataset, make_folds(dataset)
    dealt = Folds.read(folds)
    tell_exceptions(dealt)
    dealt.check(dataset, among=pictures_of_parts(loaded, config))
    return dataset, dealt


def check_material(material: Material, config: TrainConfig, arm: str = "") -> None:
    """Look at the masks that a job will use, before a folder is made for it.

    Raises:
        DataError: As `naevus.training.masks.check_before`.
    """
    from naevus.training.masks import check_before

    where = material.masks or material.dataset.root
    tell(check_before(material.sources(), config, where, force=material.force, arm=arm))


def train_folds(run: Run, folds: list[int], material: Material) -> None:
    """Build the caches, train the folds one after the other, and print how they did."""
    from naevus.training.loop import Watch
    from naevus.training.train import check_cached, prepare, train_fold

    with ExitStack() as stack:
        refused = prepare(material, run.config, lambda what: stack.enter_context(progress(what)))
    tell(check_cached(material, run.config))
    stores = material.stores
    run.hold_to(
        {name: store.key for name, store in stores.items()},
        {name: store.contents for name, store in stores.items()},
    )
    _tell_crops(run, material)
    for image_id, why in refused.items():
        remark("left out", f" {image_id}: {why}", to=errors)
    write_list(run.folder / "refused.csv", ("image_id", "problem"), sorted(refused.items()))
    for fold in folds:
        with progress(f"{run.config.task} fold {fold}") as move:
            train_fold(run, fold, material, Watch(move, lambda _: None))
    run.join()
    console.print(f"run: {run.folder}")


def _tell_crops(run: Run, material: Material) -> None:
    """Print what became of crops, and keep it in the run's folder."""
    from naevus.training.masks import CropCounts

    if run.config.task == "segmentation" or run.config.data.crop_mode == "full":
        return
    sources = material.sources()
    counts = {name: CropCounts.of(store, sources) for name, store in material.stores.items()}
    for name, counted in counts.items():
        console.print(f"crops ({name}): {counted}")
    write_json(run.folder / "crops.json", {name: each.to_json() for name, each in counts.items()})


def inputs_of(dataset: Dataset, material: Material) -> dict[str, Any]:
    """Return where a run's pictures come from; a run goes on only with the same."""
    return {
        "data": str(dataset.root.resolve()),
        "layout": dataset.layout,
        "pictures": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "masks": str(material.masks.resolve()) if material.masks else None,
        "copies": [str(folder.resolve()) for folder in material.copies],
        "warm_start": str(material.warm_start.folder.resolve()) if material.warm_start else None,
    }
