"""Join folds that several machines trained into one run, after checking that they fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from naevus.datasets.sources import mask_file
from naevus.errors import RunError
from naevus.io.files import flush_together, link, sha256, sha256_of, staged, write_json, write_text
from naevus.io.formats import read_json
from naevus.io.progress import SILENT
from naevus.io.settings import differences
from naevus.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from naevus.io.progress import Reporter

RECORD: Final = "gather.json"
"""The record of a joined folder: what it was joined from."""
_PLACES: Final = ("data", "masks", "copies", "init_from")
"""Inputs that name places, which differ between machines; their content is compared by hashes."""
OF_RUN: Final = (
    "run.toml", "inputs.json", "environment.json", "contents.json", "crops.json", "failed.csv",
    "folds.csv",
)  # fmt: skip
"""The files of a run that are not of one fold, but for its log and its joined predictions."""
_LOG: Final = "train.log"
_AGAIN: Final = "gather only folds of one training (`naevus train --fold`)"
ANOTHER: Final = "choose another --out, or delete this folder"


def gather_folds(parts: Sequence[Path], out: Path, *, reporter: Reporter = SILENT) -> Run:
    """Join the folds of one training into one run, as one machine would have written it.

    Calling it again does nothing.

    Args:
        parts: Runs with some of the folds each, in any order.
        out: The folder to write, which must not exist or be empty.
        reporter: Receives progress, and notes on packages and places that differ.

    Raises:
        RunError: Recipe, data, folds or the version of naevus differ; or a fold is finished nowhere
            or twice.
        NaevusError: ``out`` holds other files, or the disk is full.
    """
    runs = [Run.open(part) for part in parts]
    for run in runs[1:]:
        _check_alike(runs[0], run, reporter)
    owners = _owners(runs)
    key = sha256_of(
        *(f"{fold} {sha256(run.fold_folder(fold) / 'oof.parquet')}" for fold, run in owners.items())
    )
    if (out / RECORD).exists() and read_json(out / RECORD, ANOTHER).get("key") == key:
        return Run.open(out)
    with staged(out, key) as making:
        for name in OF_RUN:
            if (runs[0].folder / name).exists():
                link(runs[0].folder / name, making / name)
        with reporter.progress("linking folds", len(owners)) as move:
            for fold, run in owners.items():
                link_fold(run, fold, making)
                move(fold + 1, len(owners))
        logs = [run.folder / _LOG for run in runs]
        write_text(making / _LOG, "".join(log.read_text("utf-8") for log in logs if log.exists()))
        Run.open(making).join()
        roots = {str(fold): str(run.folder) for fold, run in owners.items()}
        write_json(making / RECORD, {"key": key, "folds": roots})
        flush_together([making / RECORD])
    return Run.open(out)


def _check_alike(first: Run, other: Run, reporter: Reporter) -> None:
    """Check that two runs are of the same training.

    Raises:
        RunError: They are not.
    """
    versions = [_read(run, "environment.json") for run in (first, other)]
    for what, why in (
        ("settings", differences(first.recipe.settings(), other.recipe.settings())),
        ("data", differences(*(_inputs(run, places=False) for run in (first, other)))),
        ("folds", first.folds.differ(other.folds)),
        ("files", _differing_files(first, other)),
        ("version", differences(*({"naevus": each.get("naevus")} for each in versions))),
    ):
        if why:
            raise RunError(
                f"{first.folder} and {other.folder} differ in their {what}: {why}", _AGAIN
            )
    places = [_inputs(run, places=True) for run in (first, other)]
    for why in (differences(*places), differences(*versions)):
        if why:
            reporter.warning(f"{first.folder} was trained otherwise than {other.folder}: {why}")


def _inputs(run: Run, *, places: bool) -> dict[str, Any]:
    return {name: value for name, value in run.inputs.items() if (name in _PLACES) == places}


def _differing_files(first: Run, other: Run) -> str:
    """Return how the images differ, by the hashes of the files; empty if they do not."""
    ours, theirs = (_read(run, "contents.json") for run in (first, other))
    if ours == theirs:
        return ""
    for name in sorted({*ours.get("files", {}), *theirs.get("files", {})}):
        hashes = [each.get("files", {}).get(name, {}) for each in (ours, theirs)]
        for image_id in sorted({*hashes[0], *hashes[1]}):
            if hashes[0].get(image_id) != hashes[1].get(image_id):
                return f"{image_id} (in {name}) is not the same file"
    return "images are decoded differently"


def _read(run: Run, name: str) -> dict[str, Any]:
    path = run.folder / name
    return read_json(path, "train it again", error=RunError) if path.exists() else {}


def _owners(runs: Sequence[Run]) -> dict[int, Run]:
    """Return the run in which each fold is finished.

    Raises:
        RunError: A fold is finished in none, or in two.
    """
    owners: dict[int, Run] = {}
    for run in runs:
        for fold in run.finished():
            if fold in owners:
                raise RunError(
                    f"fold {fold} is finished in {owners[fold].folder} and in {run.folder}",
                    "name one of them",
                )
            owners[fold] = run
    missing = [str(fold) for fold in range(runs[0].folds.k) if fold not in owners]
    if missing:
        raise RunError(
            f"{len(missing)} of {runs[0].folds.k} folds are finished in none of these runs: "
            f"{', '.join(missing)}",
            "train them (`naevus train --fold`), or name their runs too",
        )
    return dict(sorted(owners.items()))


def link_fold(run: Run, fold: int, out: Path, without: Collection[str] = ()) -> None:
    """Link a fold's files, and the masks that it predicted.

    Args:
        run: The run.
        fold: The fold.
        out: The folder of the new run.
        without: Names of files to leave out.
    """
    folder = run.fold_folder(fold)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        if not path.name.startswith(".") and path.name not in without:
            link(path, out / path.relative_to(run.folder))
    if (run.folder / "masks").is_dir():
        for image_id in run.folds.held_out(fold):
            mask = mask_file(run.folder / "masks", image_id)
            if mask.exists():
                link(mask, out / mask.relative_to(run.folder))
