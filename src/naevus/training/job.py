"""One training job: what is cheap is checked and the data are loaded before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naevus import __version__
from naevus.errors import RunError
from naevus.io.extras import require
from naevus.io.outputs import check_free
from naevus.io.parallel import thread_count
from naevus.io.progress import SILENT
from naevus.io.torchrun import speaks
from naevus.runs.images import images_and_folds
from naevus.runs.recipe import Recipe, load_recipe
from naevus.runs.run import Run
from naevus.runs.start import open_start
from naevus.training.splits import check_splits
from naevus.training.unused import refuse_unused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from naevus.datasets.folds import Folds
    from naevus.io.progress import Reporter
    from naevus.training.callbacks import Callback
    from naevus.training.data import TrainingData
    from naevus.training.distributed import Processes

_FIRST: Final = ("folds.csv", "inputs.json", "environment.json")
"""The files that a run has before its recipe."""


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    data: str | Path,
    *,
    out: str | Path,
    folds: str | Path | None = None,
    fold: int | Iterable[int] | None = None,
    masks: str | Path | None = None,
    copies: Iterable[str | Path] = (),
    init_from: str | Path | None = None,
    cache: str | Path | None = None,
    force: bool = False,
    device: str = "auto",
    threads: int | None = None,
    callbacks: Iterable[Callback] = (),
    reporter: Reporter = SILENT,
) -> Run:
    """Train one network per fold, and predict its held-out images; resume where it stopped.

    Processes that torchrun starts divide every batch among them; the first one reports and calls
    the callbacks.

    Args:
        recipe: A recipe, the path of a TOML file, or settings by name, such as
            ``{"task": "segmentation", "optimiser.clip": 0}``.
        data: The data set: a folder in a known layout, or a table of images.
        out: The run's folder. It is created once weights and images are known to be usable.
        folds: A file of folds; None: five folds with seed 2018.
        fold: The folds to train; None: all.
        masks: A folder of predicted masks to crop by; None: the data set's own masks.
        copies: Folders with other copies of the images, named by image id.
        init_from: A run to initialise the weights from, fold by fold; or a bundle, see
            `naevus.runs.start.open_start`.
        cache: Folder for decoded images; None: ``cache`` beside the run.
        force: Whether to use masks that look wrong as a whole.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of the network in this process; None: one per processor, divided among
            the processes of this machine.
        callbacks: Called with the progress of each fold; see `naevus.training.callbacks`.
        reporter: Receives progress, messages and notes.

    Returns:
        The run, with the folds that are finished.

    Raises:
        ConfigError: A setting is unknown, invalid or without effect.
        DataError: The images, masks or labels cannot be used.
        FoldsError: The folds belong to other images, or there is no such fold.
        NaevusError: The folder contains other files.
        RunError: The folder contains a run with other settings, folds or data.
        WeightsError: The initial weights are not available, or do not fit.
    """
    require("train", "training")
    thread_count(threads)  # refuses less than one before anything is read
    recipe = _recipe_of(recipe)
    out, data = Path(out), Path(data)
    pixels = out.parent / "cache" if cache is None else Path(cache)
    check_free(out, "run.toml", (*_FIRST, pixels.name))
    given, mask_folder = tuple(map(Path, copies)), None if masks is None else Path(masks)
    refuse_unused(recipe, masks=mask_folder, copies=given)
    recipe.with_pretrained_hash()  # refuses an absent file
    source = None if init_from is None else open_start(init_from)
    file = None if folds is None else Path(folds)
    reporter = reporter if speaks() else SILENT
    dataset, split = images_and_folds(data, recipe, file, mask_folder, given, reporter)
    every = range(split.k) if fold is None else [fold] if isinstance(fold, int) else fold
    chosen = list(dict.fromkeys(every))
    check_splits(recipe, split, chosen, dataset, reporter)

    # Everything below imports torch, which takes seconds.
    from naevus.training.data import TrainingData  # noqa: PLC0415
    from naevus.training.distributed import open_processes  # noqa: PLC0415
    from naevus.training.prepare import copies_in  # noqa: PLC0415
    from naevus.training.train import train_folds  # noqa: PLC0415

    with open_processes(recipe, device=device, threads=threads) as processes:
        attributes = recipe.task == "attributes"
        training_data = TrainingData(
            dataset,
            pixels,
            masks=mask_folder,
            copies=given,
            init_from=source,
            force=force,
            pretrained=recipe.pretrained_file,
            further=tuple(copies_in(each, dataset, recipe) for each in given if attributes),
        )
        run = _started(processes, out, recipe, split, training_data, chosen, reporter)
        train_folds(run, chosen, training_data, reporter, callbacks, processes)
    return run


def _started(
    processes: Processes,
    out: Path,
    recipe: Recipe,
    split: Folds,
    training_data: TrainingData,
    chosen: Sequence[int],
    reporter: Reporter,
) -> Run:
    """Start or resume a run in the first process; the others wait, and open it and its caches.

    Raises:
        ConfigError: The processes were given different commands or files.
        RunError: A process does not see the run that the first one has written.
    """
    from naevus.training.prepare import prepare, start_run  # noqa: PLC0415 (imports torch)

    processes.agree(
        {
            "naevus": __version__,
            "--out": str(out.resolve()),
            "--fold": ", ".join(map(str, chosen)),
            "the fingerprint of the recipe": recipe.with_pretrained_hash().fingerprint(),
            "the fingerprint of the data": training_data.dataset.fingerprint(),
            "the hash of the folds": split.sha256,
        }
    )
    begun = processes.first(lambda: start_run(out, recipe, split, training_data, chosen, reporter))
    if begun is not None:
        return begun
    if not (out / "run.toml").exists():
        raise RunError(
            f"{out}: process {processes.rank} does not see the run that process 0 wrote there",
            "name a folder that all machines share with --out",
        )
    run = Run.open(out)
    # Opens what the first process has built. A machine with a cache of its own builds it here.
    prepare(training_data, run.recipe, lambda _: lambda _done, _of: None, lambda: None)
    return run


def _recipe_of(recipe: Recipe | Mapping[str, Any] | str | Path) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, (str, Path)):
        return load_recipe(recipe)
    return load_recipe(None, overrides=recipe)
