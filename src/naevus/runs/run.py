"""A run: the folder of one training job, and its finished folds."""

from __future__ import annotations

import html
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus import __version__
from naevus.bundles.bundle import runs_before
from naevus.datasets.folds import Folds
from naevus.errors import DataError, RunError
from naevus.evaluation.mask_metrics import MaskScore
from naevus.evaluation.tables import check_finite, has_values, left_out, numbers_of, refuse_left_out
from naevus.io.figures import curve_figure
from naevus.io.files import atomic, lock, sweep, write_json, write_text
from naevus.io.formats import read_csv, read_json, read_parquet
from naevus.io.progress import SILENT, warn_all
from naevus.io.settings import differences
from naevus.runs.environment import environment
from naevus.runs.recipe import Recipe, load_recipe, to_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from matplotlib.figure import Figure

    from naevus.evaluation.tables import LeftOut
    from naevus.io.progress import Reporter
    from naevus.types import Unit


WEIGHTS = "weights.safetensors"

_AGAIN = "train it again into another folder"
_INPUTS = {
    "data": (str,),
    "fingerprint": (str,),
    "layout": (str,),
    "images": (int,),
    "masks": (str, type(None)),
}
_MORE = {"copies": (list, type(None)), "init_from": (str, type(None)), "unit": (str,)}
"""Types of the entries of ``inputs.json``; the second group is absent from older runs."""


@dataclass(frozen=True)
class Run:
    """A training job on disk: its settings, inputs and folds, and a folder for each fold.

    Attributes:
        folder: The run's folder.
        recipe: The resolved recipe.
        folds: The fold of each image.
        inputs: Sources of the images: ``data``, ``copies``, ``masks``, fingerprints.
        allow_missing: Whether images held out by finished folds may have no prediction.
    """

    folder: Path
    recipe: Recipe
    folds: Folds
    inputs: dict[str, Any]
    allow_missing: bool = False

    @classmethod
    def start(cls, folder: Path, recipe: Recipe, folds: Folds, inputs: dict[str, Any]) -> Run:
        """Create a run's folder, or resume the run in it.

        The recipe keeps the hash of a pretrained file, not its path: files move, runs are shared.

        Raises:
            WeightsError: The pretrained file cannot be read.
            RunError: The folder contains a run with other settings, folds or data.
        """
        recipe = recipe.with_pretrained_hash()
        if (folder / "run.toml").exists():
            cls.open(folder).refuse_other(recipe, folds, inputs)
            return cls(folder, recipe, folds, inputs)
        folds.write(folder / "folds.csv")
        write_json(folder / "inputs.json", inputs)
        write_json(folder / "environment.json", environment())
        write_text(folder / "run.toml", to_toml(recipe))
        return cls(folder, recipe, folds, inputs)

    @classmethod
    def open(cls, folder: str | Path, *, allow_missing: bool = False) -> Run:
        """Open an existing run.

        Args:
            folder: Its folder.
            allow_missing: Whether images held out by finished folds may have no prediction.

        Raises:
            RunError: The folder is not a run, or the run is incomplete.

        Examples:
            >>> run = Run.open("runs/cls")
            >>> print(run)
            runs/cls: classification with tf_efficientnet_lite0 at 160 px
            2 of 2 folds finished, 24 training images of ISIC2018
            >>> run.predictions()[["image_id", "diagnosis", "fold"]].shape
            (24, 3)
        """
        folder = Path(folder)
        path = folder / "run.toml"
        if not path.exists():
            problem = ": is not a run (no run.toml)" if folder.exists() else " does not exist"
            raise RunError(f"{folder}{problem}", "name a folder made by train")
        inputs = read_json(
            folder / "inputs.json", _AGAIN, members=_INPUTS, optional=_MORE, error=RunError
        )
        folds = Folds.read(folder / "folds.csv")
        return cls(folder, load_recipe(path), folds, inputs, allow_missing)

    @property
    def unit(self) -> Unit:
        """What the groups are; of older runs it is not known, and they are taken as lesions."""
        unit: Unit = self.inputs.get("unit", "lesion")
        return unit

    def refuse_other(self, recipe: Recipe, folds: Folds, inputs: Mapping[str, Any]) -> None:
        """Refuse to resume this run with other settings, folds or data, and say which differ.

        Raises:
            RunError: They differ.
        """
        for what, why, remedy in (
            ("settings", differences(self.recipe.settings(), recipe.settings()), "set it back"),
            # Older runs do not say what their groups are; the fingerprint has the groups.
            (
                "data",
                differences(self.inputs | {"unit": ""}, {**inputs, "unit": ""}),
                "name the same data",
            ),
            ("folds", self.folds.differ(folds), f"pass --folds {self.folder / 'folds.csv'}"),
        ):
            if why:
                raise RunError(
                    f"{self.folder}: contains a run with other {what}: {why}{self._made_by()}",
                    f"{remedy}, or choose another --out",
                )

    def _made_by(self) -> str:
        """Return the version that started the run, if it is another one."""
        noted = read_json(self.folder / "environment.json", _AGAIN, error=RunError)
        version = noted.get("naevus", __version__)
        return "" if version == __version__ else f" (it is of naevus {version}, not {__version__})"

    def __str__(self) -> str:
        """Return the network, the training data and the finished folds as text."""
        recipe, data = self.recipe, Path(self.inputs["data"]).name
        size = f"{recipe.architecture} at {recipe.input_size} px"
        done = f"{len(self.finished())} of {self.folds.k} folds finished"
        images = f"{self.inputs['images']:,} training images of {data}"
        limited = f", limited to {recipe.data.limit:,} for a trial" if recipe.data.limit else ""
        return f"{self.folder}: {recipe.task} with {size}\n{done}, {images}{limited}"

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return the run's settings and state as a dictionary that JSON can hold."""
        return {
            "folder": str(self.folder),
            "recipe": self.recipe.to_dict(),
            "inputs": dict(self.inputs),
            "folds": self.folds.k,
            "finished": self.finished(),
        }

    def history(self, folds: Sequence[int] | None = None) -> pd.DataFrame | None:
        """Return the training history: ``fold, epoch`` and the log of each epoch.

        Args:
            folds: Only these folds; None: all that have started.

        Returns:
            One row per epoch; None if no fold has a history.

        Raises:
            RunError: A history cannot be read.
        """
        tables = [
            read_csv(path, "delete it: training does not need it", error=RunError).assign(fold=k)
            for k in (range(self.folds.k) if folds is None else folds)
            if (path := self.fold_folder(k) / "history.csv").exists()
        ]
        return pd.concat(tables, ignore_index=True) if tables else None

    def plot(self) -> Figure:
        """Draw the training and validation loss of each fold by epoch.

        Raises:
            RunError: No fold has a history.
            NaevusError: matplotlib is not installed.
        """
        history = self.history()
        if history is None:
            raise RunError(f"{self.folder}: no fold has a history", "train at least one epoch")
        names = {"train_loss": "training", "val_loss": "validation"}
        curves = {
            f"fold {fold}, {names[name]}": (rows["epoch"].tolist(), rows[name].tolist())
            for fold, rows in history.groupby("fold")
            for name in names
            if has_values(rows, name)
        }
        return curve_figure(curves, str(self.folder), xlabel="epoch", ylabel="loss")

    def hold_to(self, keys: Mapping[str, str], files: Mapping[str, Mapping[str, str]]) -> None:
        """Record the hashes of the images, or check them against the recorded ones.

        Args:
            keys: Key of each image cache, by its name; it covers files and decoding.
            files: Hash of each image's files, by cache and image id.

        Raises:
            RunError: Files or decoding have changed since the run was started.
        """
        path = self.folder / "contents.json"
        theirs = {name: dict(files[name]) for name in files}
        now = {"caches": dict(keys), "files": theirs}
        if not path.exists():
            write_json(path, now)
            return
        then = _read_contents(path)
        if then == now:
            return
        ours: dict[str, dict[str, str]] = then["files"]
        changed = [
            (image_id, name)
            for name in sorted({*ours, *theirs})
            for image_id in sorted({*ours.get(name, {}), *theirs.get(name, {})})
            if ours.get(name, {}).get(image_id) != theirs.get(name, {}).get(image_id)
        ]
        if not changed:
            raise RunError(
                f"{self.folder}: images are decoded differently than when the run was started",
                "train into another folder, or use the version of naevus in environment.json",
            )
        image_id, name = changed[0]
        raise RunError(
            f"{self.folder}: {image_id} (in {name}) is not the file that the run was started with "
            f"({len(changed)} such files)",
            "put the files back, or train into another folder",
        )

    def cache_key(self, name: str) -> str | None:
        """Return the recorded key of a cache; None if there is none yet."""
        path = self.folder / "contents.json"
        return _read_contents(path)["caches"].get(name) if path.exists() else None

    def fold_folder(self, fold: int) -> Path:
        """Return the folder of one fold."""
        return self.folder / f"fold-{fold}"

    def bundle_folder(self, fold: int) -> Path:
        """Return the folder of one fold's bundle."""
        return self.fold_folder(fold) / "bundle"

    def finished(self) -> list[int]:
        """Return the folds that are trained and have predictions for their held-out images."""
        return [
            fold
            for fold in range(self.folds.k)
            if (self.fold_folder(fold) / "oof.parquet").exists()
        ]

    def unfinished(self) -> RunError:
        """Return the error that no fold is finished."""
        remedy = "train at least one fold"
        for before in runs_before(self.folder)[-1:]:
            remedy += f", or name {before}, the run before it was extended"
        return RunError(f"{self.folder}: no fold is finished", remedy)

    def join(self) -> pd.DataFrame:
        """Join the folds' held-out predictions by id into ``oof.parquet``.

        Returns:
            As `predictions`, but images without a prediction are allowed; training reported them.

        Raises:
            RunError: As `predictions`.
        """
        joined = self._joined()
        with atomic(self.folder / "oof.parquet") as temporary:
            joined.to_parquet(temporary, index=False)
        return joined

    def predictions(self) -> pd.DataFrame:
        """Return the finished folds' held-out predictions, joined by id; writes nothing.

        Returns:
            One row per image, with the ``fold`` that held out its group and predicted it.

        Raises:
            RunError: No fold is finished, an image was predicted twice or by the wrong fold, or
                a held-out image has no prediction and ``allow_missing`` is false.
            DataError: A value is not a finite number.
        """
        joined = self._joined()
        refuse_left_out(self.left_out(joined), str(self.folder), allow_missing=self.allow_missing)
        return joined

    def left_out(self, predictions: pd.DataFrame) -> tuple[LeftOut, ...]:
        """Return the images that finished folds hold out and that have no prediction.

        Folds may contain images that the run could not use: without a mask or a diagnosis.
        """
        due = {image_id for fold in self.finished() for image_id in self.folds.held_out(fold)}
        contents = self.folder / "contents.json"
        if contents.exists():
            due &= _read_contents(contents)["files"].get("images", {}).keys()
        what = "held-out images have no prediction (failed.csv may give the reason)"
        return left_out((what, due.difference(predictions["image_id"])))

    def _joined(self) -> pd.DataFrame:
        finished = self.finished()
        if not finished:
            raise self.unfinished()
        tables = []
        for fold in finished:
            path = self.fold_folder(fold) / "oof.parquet"
            table = read_oof(path)
            unknown_ids = set(table["image_id"]) - set(self.folds.held_out(fold))
            if unknown_ids:
                raise RunError(
                    f"{self.folder}: fold {fold} predicted {min(unknown_ids)}, which it trained on",
                    f"delete {self.fold_folder(fold).name} and train it again",
                )
            twice = table.loc[table["image_id"].duplicated(), "image_id"]
            if len(twice):
                raise RunError(
                    f"{self.folder}: fold {fold} predicted {twice.iloc[0]} twice",
                    f"delete {self.fold_folder(fold).name} and train it again",
                )
            kinds = ("logit", "class_prior", "class_weight", "peak", *MaskScore._fields)
            check_finite(table, numbers_of(table, kinds), str(path))
            tables.append(table.assign(fold=fold))
        return pd.concat(tables).sort_values("image_id", ignore_index=True)


def lesions_of(run: Run) -> pd.DataFrame | None:
    """Return the mask scores of an attribute run's lesion masks, out of fold.

    One row per image, as in the out-of-fold table of a segmentation run: of the data set's own copy
    if it has a ground-truth mask, otherwise of the first copy that has. None if the run does not
    learn lesion masks.

    Raises:
        RunError: A table is damaged.
    """
    paths = [run.fold_folder(fold) / "lesions.parquet" for fold in run.finished()]
    tables = [read_oof(path) for path in paths if path.exists()]
    # A fold's table has the data set's own copies first.
    return pd.concat(tables).drop_duplicates("image_id", ignore_index=True) if tables else None


def read_oof(path: Path) -> pd.DataFrame:
    """Read a fold's predictions for the images that it held out.

    Raises:
        RunError: The file is absent or damaged.
    """
    remedy = f"delete {path.parent.name} and train it again"
    kinds = ("logit", "class_prior", "class_weight", *MaskScore._fields)
    return read_parquet(path, remedy, numbers=kinds, whole=("fold",), error=RunError)


def open_run(folder: Path, *, allow_missing: bool, reporter: Reporter = SILENT) -> Run:
    """Open a run and report held-out images without a prediction, if these are allowed.

    Raises:
        RunError: The folder is not a run, or the run is incomplete.
    """
    run = Run.open(folder, allow_missing=allow_missing)
    for before in runs_before(folder)[-1:]:
        left = set(Run.open(before).finished()).difference(run.finished())
        if left and run.finished():
            what = f"fold {', '.join(map(str, sorted(left)))}"
            reporter.warning(f"{folder}: {what} is not trained again yet; {before} has it")
    if allow_missing and run.finished():
        warn_all(
            reporter, (f"{folder}: {one}: left out" for one in run.left_out(run.predictions()))
        )
    return run


def open_runs(
    folders: Sequence[Path], *, allow_missing: bool, reporter: Reporter = SILENT
) -> list[Run]:
    """Open one or more runs over the same folds.

    Raises:
        RunError: A run is absent or incomplete.
        DataError: The tasks or the folds differ.
    """
    runs = [open_run(each, allow_missing=allow_missing, reporter=reporter) for each in folders]
    for folder, run in zip(folders, runs, strict=True):
        if run.recipe.task != runs[0].recipe.task:
            raise DataError(
                f"{folders[0]} and {folder} are runs of different tasks", "name runs of one task"
            )
    if not all(runs[0].folds.hold_out_as(run.folds) for run in runs):
        raise DataError("the runs hold out different folds", "name runs of the same folds")
    return runs


def _read_contents(path: Path) -> dict[str, Any]:
    return read_json(path, _AGAIN, members={"caches": (dict,), "files": (dict,)}, error=RunError)


@contextmanager
def held(folder: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Lock the folder of a run or a fold, and remove half-written files of killed processes.

    The run's own folder is locked only while it is prepared and joined, so that several processes
    can train one fold each.

    Args:
        folder: The run's folder, or that of one of its folds.
        waiting: Called before waiting for another process; None: do not wait.

    Raises:
        NaevusError: Another process has the lock, or the folder cannot be written.
    """
    with lock(folder / ".lock", waiting=waiting):
        sweep(folder)
        yield
