"""What training starts from, other than pretrained weights: another run, or bundles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from naevus.bundles.bundle import BUILT_IN, SUFFIX, Bundle, builtin, is_built_in
from naevus.bundles.spec import MANIFEST, ClassifierMember
from naevus.errors import BundleError, RunError
from naevus.runs.run import WEIGHTS, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from naevus.bundles.spec import Member, TrainingData
    from naevus.datasets.folds import Folds
    from naevus.runs.recipe import Recipe

FOLD: Final = "{fold}"
"""Stands for the number of a fold in the path of its bundle."""


class BundleNetwork(NamedTuple):
    """A network of a bundle.

    Attributes:
        bundle: The bundle; reading it checks the hashes of all its files.
        member: The network.
    """

    bundle: Bundle
    member: Member

    @property
    def graph(self) -> Path:
        """Its ONNX file."""
        return self.bundle.folder / self.member.file

    def other_input(self, recipe: Recipe) -> str | None:
        """Return in what its input differs from the recipe's, if in anything."""
        member, data = self.member, recipe.data
        part: Any = self.bundle.spec.part_of(recipe.task)
        found = []
        if member.input_size != recipe.input_size:
            found.append(f"size {member.input_size}, not {recipe.input_size}")
        if isinstance(member, ClassifierMember):
            mode = self.bundle.classifier.mode_of(member)
            if mode != data.crop_mode:
                found.append(f"data.crop_mode {mode}, not {data.crop_mode}")
            elif mode != "full" and part.crop_margin != data.crop_margin:
                found.append(f"data.crop_margin {part.crop_margin:g}, not {data.crop_margin:g}")
        if part.colour_constancy != data.colour_constancy:
            without = "out" * (not part.colour_constancy)
            found.append(f"with{without} data.colour_constancy")
        return ", and ".join(found) or None

    def has_classes(self, codes: Sequence[str]) -> bool:
        """Return whether the bundle's classifier, if it has one, has these classes."""
        classifier = self.bundle.spec.classifier
        return classifier is None or classifier.classes == tuple(codes)


@dataclass(frozen=True)
class BundleStart:
    """One bundle for all folds, or one per fold.

    Attributes:
        name: `BUILT_IN`, or the bundle's path, which may contain `FOLD`.
    """

    name: str

    def bundle(self, fold: int) -> Bundle:
        """Return the bundle of a fold.

        Raises:
            BundleError: It is missing or damaged.
        """
        if self.name == BUILT_IN:
            return Bundle.read(builtin())
        return Bundle.read(self.name.replace(FOLD, str(fold)))

    def network(self, recipe: Recipe, fold: int) -> BundleNetwork:
        """Return the first network of the recipe's task and architecture in a fold's bundle.

        Of classifiers, one with the recipe's crop mode is preferred.

        Raises:
            BundleError: The bundle is missing or damaged.
            RunError: It contains no such network.
        """
        bundle = self.bundle(fold)
        there = bundle.spec.members_of(recipe.task)
        alike = [each for each in there if each.architecture == recipe.architecture]
        same = [
            each
            for each in alike
            if isinstance(each, ClassifierMember)
            and bundle.classifier.mode_of(each) == recipe.data.crop_mode
        ]
        if alike:
            return BundleNetwork(bundle, (same or alike)[0])
        names = ", ".join(dict.fromkeys(each.architecture for each in there))
        raise RunError(
            f"{self.name}: has no network {recipe.architecture} for {recipe.task}",
            f"set the recipe's network to one that it has: {names}"
            if names
            else "name a bundle for this task",
        )


Start = Run | BundleStart
"""Either of them."""


def open_start(name: str | Path) -> Start:
    """Open what training starts from.

    Args:
        name: A run's folder; or `BUILT_IN`, a bundle's folder or a ``.naevus`` file, whose path
            may contain `FOLD`.

    Raises:
        BundleError: `BUILT_IN` is a folder here, too.
        RunError: It is neither.
    """
    path = Path(name)
    if is_built_in(path):
        return BundleStart(BUILT_IN)
    if (path / "run.toml").exists():
        return Run.open(path)
    if is_bundle_name(path) or (path / MANIFEST).exists():
        return BundleStart(str(path))
    neither = "is neither a run nor a bundle" if path.exists() else "does not exist"
    raise RunError(f"{path}: {neither}", f"name a run, a bundle, or {BUILT_IN}")


def is_bundle_name(path: Path) -> bool:
    """Return whether a path names bundles by its form alone."""
    return str(path) == BUILT_IN or FOLD in str(path) or path.suffix.lower() == SUFFIX


def noted(start: Start | None) -> str | None:
    """Return what a run's inputs keep of its start."""
    if isinstance(start, BundleStart):
        return start.name if start.name == BUILT_IN else str(Path(start.name).resolve())
    return str(start.folder.resolve()) if start else None


def check_start(
    start: Start, recipe: Recipe, folds: Folds, fold: int, inputs: Mapping[str, Any]
) -> str | None:
    """Check that a fold can start from another run's fold, or from a bundle.

    Args:
        start: Where the weights come from.
        recipe: The recipe of the fold.
        folds: The folds.
        fold: The fold.
        inputs: The inputs of the run.

    Returns:
        For a bundle, or a run that began with one, what the bundle has learnt from, if it is not
        known to have held out this fold.

    Raises:
        BundleError: The bundle is missing or damaged.
        RunError: The start, or what it started from, was trained on images that this fold holds
            out; or the start has not finished the fold, or has no network like the recipe's.
    """
    if isinstance(start, Run):
        return _check_run(start, folds, fold, inputs)
    return _check_bundle(start.name, start.network(recipe, fold), recipe, folds, fold, inputs)


def _check_bundle(
    name: str,
    network: BundleNetwork,
    recipe: Recipe,
    folds: Folds,
    fold: int,
    inputs: Mapping[str, Any],
) -> str | None:
    bundle, member = network
    provenance = bundle.spec.provenance
    data, splits = (
        f"{provenance.get(what)}, {provenance.get(f'{recipe.task} {what}')}".split(", ")
        for what in ("data", "folds")
    )
    if inputs["fingerprint"] not in data:
        names = [re.sub(r" \([^)]*\)", "", each.name) for each in learnt_by(bundle, recipe.task)]
        learnt = " and ".join(dict.fromkeys(" and ".join(names).split(" and ")))
        return f"{name} has learnt from {learnt or 'unknown images'}"
    if folds.sha256 in splits and fold in member.folds:
        return None
    raise RunError(
        f"{name}: was trained on this data, and not with fold {fold} of these folds held out",
        "start fold by fold from bundles of the same folds, or train on other images",
    )


def learnt_by(bundle: Bundle, task: str) -> list[TrainingData]:
    """Return the data that a bundle's networks for a task were trained on."""
    return [each for each in bundle.spec.training_data if each.task == task]


def runs_behind(run: Run) -> Iterator[Run]:
    """Yield a run, the run that it started from, and so on; the last may have begun elsewhere."""
    seen: set[Path] = set()
    while run.folder.resolve() not in seen:  # a folder may have got another run since
        yield run
        seen.add(run.folder.resolve())
        name = run.inputs.get("init_from")
        if name and (Path(name) / "run.toml").exists():
            run = Run.open(name, allow_missing=True)


def bundle_behind(run: Run) -> tuple[Run, str] | None:
    """Return the first of `runs_behind` and the name of the bundle that it began with, if any."""
    *_, first = runs_behind(run)
    name = first.inputs.get("init_from")
    return (first, name) if name and not (Path(name) / "run.toml").exists() else None


def _check_run(source: Run, folds: Folds, fold: int, inputs: Mapping[str, Any]) -> str | None:
    """Check a run, and what it started from: weights keep what they learnt before, too."""
    for each in runs_behind(source):
        _refuse_seen(each, folds, fold)
    if not (source.fold_folder(fold) / WEIGHTS).exists():
        raise RunError(f"{source.folder}: fold {fold} is not finished", "train it first")
    behind = bundle_behind(source)
    if behind is None:
        return None
    first, name = behind
    try:
        network = BundleStart(name).network(first.recipe, fold)
    except (BundleError, RunError):  # moved since
        began = f"{first.folder} started from {name}"
        return f"{began}, which is gone and has learnt from unknown images"
    return _check_bundle(name, network, first.recipe, folds, fold, inputs)


def _refuse_seen(source: Run, folds: Folds, fold: int) -> None:
    """Refuse a run whose fold was trained on what this fold holds out."""
    theirs, ours = source.folds.table, folds.table
    unseen = {*source.folds.held_out(fold), *source.folds.test()}
    seen = theirs[~theirs["image_id"].isin(unseen)]
    kept = ours[ours["image_id"].isin([*folds.held_out(fold), *folds.test()])]
    leaked = kept["image_id"].isin(seen["image_id"]) | kept["group_id"].isin(seen["group_id"])
    if leaked.any():
        first = kept.loc[leaked, "image_id"].min()
        raise RunError(
            f"{source.folder}: its fold {fold} was trained on the {source.unit} of {first}, "
            "which is held out here",
            "start from a run with the same folds",
        )
