"""Repeat a run from its own record, and compare the two: versions, data, scores and bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import pandas as pd

from naevus.datasets.sources import mask_file
from naevus.errors import RunError
from naevus.io.files import sha256, write_json
from naevus.io.formats import read_json
from naevus.io.progress import SILENT
from naevus.reports.report import evaluation_document
from naevus.runs.environment import MACHINE, environment
from naevus.runs.evaluate import evaluate_results
from naevus.runs.recipe_tables import HASHED
from naevus.runs.results import results_of_tables
from naevus.runs.run import WEIGHTS, Run, read_oof
from naevus.runs.start import is_bundle_name
from naevus.training.job import train

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe

Kind = Literal["version", "machine", "data", "score", "bytes"]

_SHOWN: Final = 5  # files named in a difference
RECORD: Final = "reproduction.json"
"""The result of a reproduction, in the folder of the repeated run."""


class Difference(NamedTuple):
    """Something that differs between a run and its repetition.

    Attributes:
        kind: What kind of thing.
        name: Its name.
        there: Its value in the run.
        here: Its value in the repetition.
    """

    kind: Kind
    name: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.name}: {self.there} in the run, {self.here} here"


@dataclass(frozen=True)
class Reproduction:
    """A repeated run, and how it differs.

    Attributes:
        run: The run's folder.
        out: The folder of its repetition.
        folds: The folds that were compared.
        files: Number of compared files.
        scores: Name and value of each score in the run.
        differences: What differs.
    """

    run: Path
    out: Path
    folds: tuple[int, ...]
    files: int
    scores: tuple[tuple[str, str], ...] = ()
    differences: tuple[Difference, ...] = field(default=())

    def of(self, *kinds: Kind) -> tuple[Difference, ...]:
        """Return the differences of some kinds."""
        return tuple(each for each in self.differences if each.kind in kinds)

    @property
    def is_identical(self) -> bool:
        """Whether all results have the same bytes."""
        return not self.of("score", "bytes")

    def __str__(self) -> str:
        """Return what differs, and the verdict in the last line."""
        folds = f"fold{'s' if len(self.folds) > 1 else ''} {', '.join(map(str, self.folds))}"
        verdict = (
            f"{folds}: all {self.files:,} files have the same bytes"
            if self.is_identical
            else f"{folds}: {len(self.of('bytes'))} of {self.files:,} files have other bytes, "
            f"{len(self.of('score'))} of {len(self.scores)} scores differ"
        )
        return "\n".join([*(f"{each.kind}: {each}" for each in self.differences), verdict])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary that JSON can hold."""
        return {
            "run": str(self.run),
            "out": str(self.out),
            "folds": list(self.folds),
            "files": self.files,
            "identical": self.is_identical,
            "scores": dict(self.scores),
            "differences": [each._asdict() for each in self.differences],
        }


@dataclass(frozen=True)
class Places:
    """Where the inputs of a run are now; None: where they were.

    Attributes:
        data: The data set.
        masks: The folder of predicted masks that its crops are cut by.
        copies: The folders of other copies of its images.
        init_from: The run that its weights were initialised from.
        pretrained: The file of pretrained weights.
    """

    data: Path | None = None
    masks: Path | None = None
    copies: tuple[Path, ...] = ()
    init_from: Path | None = None
    pretrained: Path | None = None


def reproduce(
    run: Run,
    out: Path,
    places: Places | None = None,
    *,
    folds: Sequence[int] | None = None,
    cache: Path | None = None,
    trust: bool = False,
    reporter: Reporter = SILENT,
) -> Reproduction:
    """Train a run's finished folds again from its recipe, folds and inputs, and compare.

    The result is also written to `RECORD` in ``out``. The same call resumes.

    Args:
        run: The run.
        out: The folder of the repeated run.
        places: Where its inputs are now.
        folds: The folds to repeat; None: all finished ones.
        cache: Folder for decoded images; None: ``cache`` beside ``out``.
        trust: Whether code outside naevus that the recipe names may run.
        reporter: Receives progress and messages.

    Raises:
        RunError: A fold is not finished, an input is nowhere to be found or not needed, or the
            recipe names code that is not trusted.
        FoldsError: The data set has other images.
        NaevusError: As `train`.
    """
    chosen = tuple(run.finished() if folds is None else dict.fromkeys(folds))
    _check(run, out, chosen, trust=trust)
    places = places or Places()
    inputs = _Inputs.of(run, places)
    before = [*_of_environment(run, environment())]
    for each in before:
        reporter.warning(str(each), each.kind)
    repeated = train(
        _recipe(run, places.pretrained),
        inputs.data,
        out=out,
        folds=run.folder / "folds.csv",
        fold=chosen,
        masks=inputs.masks,
        copies=inputs.copies,
        init_from=inputs.init_from,
        cache=cache,
        force=True,  # the run was trained with these masks
        reporter=reporter,
    )
    with reporter.status("comparing"):
        found = compare_repeated(run, repeated, chosen)
    write_json(out / RECORD, found.to_dict())
    return found


def _check(run: Run, out: Path, chosen: Sequence[int], *, trust: bool) -> None:
    unfinished = sorted(set(chosen) - set(run.finished()))
    if unfinished or not chosen:
        which = f"fold {unfinished[0]} is" if unfinished else "no fold is"
        raise RunError(f"{run.folder}: {which} finished", "train it first")
    if out.resolve() == run.folder.resolve():
        raise RunError(f"{out}: is the run itself", "choose another --out")
    if run.recipe.own_parts and not trust:
        raise RunError(
            f"{run.folder}: its recipe names code outside naevus, {run.recipe.own_parts[0]}, "
            "which training would run",
            "pass --trust if you trust that code",
        )


class _Inputs(NamedTuple):
    """The inputs of a run, where they are now."""

    data: Path
    masks: Path | None
    copies: tuple[Path, ...]
    init_from: Path | None

    @classmethod
    def of(cls, run: Run, places: Places) -> _Inputs:
        """Return the inputs of a run.

        Raises:
            RunError: One does not exist, or one is given that the run does not have.
        """
        noted = run.inputs
        copies = tuple(map(Path, noted.get("copies") or ()))
        if places.copies and len(places.copies) != len(copies):
            raise RunError(
                f"{run.folder}: was trained with {len(copies)} folders of copies, not "
                f"{len(places.copies)}",
                "name each of them with --copies, in the same order",
            )
        data = _place(run, noted["data"], places.data, "--data")
        assert data is not None
        return cls(
            data,
            _place(run, noted["masks"], places.masks, "--masks"),
            tuple(
                one
                for place in zip(copies, places.copies or copies, strict=True)
                if (one := _place(run, *place, "--copies"))
            ),
            _place(run, noted.get("init_from"), places.init_from, "--init-from"),
        )


def _place(run: Run, noted: str | Path | None, given: Path | None, option: str) -> Path | None:
    if noted is None:
        if given is not None:
            raise RunError(f"{option} has no effect: {run.folder} had none", f"leave out {option}")
        return None
    place = Path(noted) if given is None else given
    if not (place.exists() or is_bundle_name(place)):
        raise RunError(
            f"{place}: does not exist, but {run.folder} was trained with it",
            f"name where it is now with {option}",
        )
    return place


def _recipe(run: Run, pretrained: Path | None) -> Recipe:
    """Return the run's recipe, with a file of pretrained weights in place of its hash.

    Raises:
        RunError: The file is missing, of another content, or not needed.
    """
    recipe, option = run.recipe, "--pretrained"
    noted = recipe.network.pretrained
    if not noted.startswith(HASHED):
        if pretrained is not None:
            raise RunError(
                f"{option} has no effect: {run.folder} did not start from a file",
                f"leave out {option}",
            )
        return recipe
    if pretrained is None or not pretrained.is_file():
        raise RunError(
            f"{run.folder}: started from a file of weights with SHA-256 "
            f"{noted.removeprefix(HASHED)[:16]}...",
            f"name it with {option}",
        )
    if f"{HASHED}{sha256(pretrained)}" != noted:
        raise RunError(
            f"{pretrained}: is not the file that {run.folder} started from", "name that file"
        )
    network = recipe.network.model_copy(update={"pretrained": str(pretrained)})
    return recipe.model_copy(update={"network": network})


# Comparison.


def compare_repeated(run: Run, repeated: Run, folds: Sequence[int]) -> Reproduction:
    """Compare the folds of a run with those of its repetition."""
    there, here = (_scores(each, folds) for each in (run, repeated))
    names = sorted({name for fold in folds for name in _results(run, fold)})
    differences = [
        *_of_environment(run, _read(repeated, "environment.json")),
        *_of_data(run, repeated),
        *(
            Difference("score", name, value, here.get(name, "none"))
            for name, value in there.items()
            if here.get(name) != value
        ),
        *_of_bytes(run, repeated, names, folds),
    ]
    return Reproduction(
        run.folder,
        repeated.folder,
        tuple(folds),
        len(names),
        tuple(there.items()),
        tuple(differences),
    )


def _of_environment(run: Run, here: dict[str, Any]) -> Iterator[Difference]:
    """Yield the versions, and facts about the machine, that differ where both are known."""
    there = _read(run, "environment.json")
    for name in (name for name in here if name in there and there[name] != here[name]):
        kind: Kind = "machine" if name in MACHINE else "version"
        yield Difference(kind, name, str(there[name]), str(here[name]))


def _of_data(run: Run, repeated: Run) -> Iterator[Difference]:
    for name in ("layout", "images", "fingerprint"):
        there, here = run.inputs[name], repeated.inputs[name]
        if there != here:
            yield Difference("data", name, str(there), str(here))
    files = [_read(each, "contents.json").get("files", {}) for each in (run, repeated)]
    for name in sorted({*files[0], *files[1]}):
        ours, theirs = (each.get(name, {}) for each in files)
        ids = sorted(each for each in {*ours, *theirs} if ours.get(each) != theirs.get(each))
        if ids:
            first = ids[0]
            yield Difference(
                "data",
                f"{len(ids)} files ({name}), such as {first}",
                ours.get(first, "none"),
                theirs.get(first, "none"),
            )


def _scores(run: Run, folds: Sequence[int]) -> dict[str, str]:
    table = pd.concat([read_oof(run.fold_folder(k) / "oof.parquet").assign(fold=k) for k in folds])
    table = table.sort_values("image_id", ignore_index=True)
    evaluation = evaluate_results(results_of_tables(run.folder.name, [table]))
    return {
        each.label: f"{each.value} {each.note}".strip()
        for each in evaluation_document(evaluation).headlines
    }


def _results(run: Run, fold: int) -> list[str]:
    """Return the names of a fold's results, below the run's folder."""
    folder = run.fold_folder(fold)
    made = [folder / name for name in (WEIGHTS, "oof.parquet", "lesions.parquet")]
    made += sorted(run.bundle_folder(fold).glob("*"))
    made += [mask_file(run.folder / "masks", name) for name in run.folds.held_out(fold)]
    return [path.relative_to(run.folder).as_posix() for path in made if path.exists()]


def _of_bytes(
    run: Run, repeated: Run, names: Sequence[str], folds: Sequence[int]
) -> Iterator[Difference]:
    tables = {f"fold-{fold}/oof.parquet" for fold in folds}
    for name in names:
        ours, theirs = run.folder / name, repeated.folder / name
        hashes = [sha256(path)[:16] if path.is_file() else "none" for path in (ours, theirs)]
        if hashes[0] != hashes[1]:
            far = f" ({_distance(ours, theirs)})" if name in tables and theirs.is_file() else ""
            yield Difference("bytes", f"{name}{far}", *hashes)


def _distance(one: Path, other: Path) -> str:
    """Return how far the numbers of two out-of-fold tables are apart."""
    ours, theirs = (read_oof(path).set_index("image_id") for path in (one, other))
    if not ours.index.sort_values().equals(theirs.index.sort_values()):
        return "other images"
    columns = [
        name for name in ours.select_dtypes("number").columns if name in theirs and name != "fold"
    ]
    far = (ours[columns] - theirs.loc[ours.index, columns]).abs().max()
    return f"numbers differ by up to {float(far.max()):.2g}, in {far.idxmax()}"


def _read(run: Run, name: str) -> dict[str, Any]:
    path = run.folder / name
    return read_json(path, "name an intact run", error=RunError) if path.exists() else {}
