"""Members of a bundle from finished folds: loading, compatibility, averaged weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from naevus.datasets.cache import ImageCache
from naevus.datasets.sources import DecodedImages, stack_images
from naevus.errors import DataError, RunError
from naevus.runs.evidence import Composition
from naevus.runs.images import USUAL_PART, dataset_of
from naevus.runs.manifest import member_entry
from naevus.runs.run import WEIGHTS, read_oof
from naevus.training.data import TrainingData
from naevus.training.loop import load_network
from naevus.training.optim import estimate_statistics
from naevus.training.tasks import build_network, training_task_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch import Tensor

    from naevus.datasets.sources import Images
    from naevus.runs.recipe import Recipe
    from naevus.runs.run import Run
    from naevus.training.networks import Preprocessed
    from naevus.types import Storage, Task


@dataclass(frozen=True)
class TrainedMember:
    """A network on the CPU, in evaluation mode, that becomes a member of a bundle.

    Attributes:
        run: The run it comes from; for an average, that of the first member.
        network: The network, which takes uint8 images.
        folds: The folds it was not trained on.
        origin: Its name in tables and messages.
        classes: Codes in the order of a classifier's logits.
        class_weights: w_c, the effective weight of each class in training.
        class_priors: pi_c, the class priors in the training set.
    """

    run: Run
    network: Preprocessed
    folds: tuple[int, ...]
    origin: str
    classes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    class_priors: tuple[float, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.run.recipe

    def held_out(self) -> list[str]:
        """Return the ids of its held-out images, without the test images."""
        return [image_id for fold in self.folds for image_id in self.run.folds.held_out(fold)]

    def learnt(self) -> list[str]:
        """Return the ids of the images it was trained on."""
        never = {*self.run.folds.test(), *self.held_out()}
        return [image_id for image_id in self.run.folds.table["image_id"] if image_id not in never]

    def draw(
        self, ids: Iterable[str], count: int, *, without: Collection[str] = (), seed: int = 2018
    ) -> list[str]:
        """Draw random images, at most one per group.

        Args:
            ids: Images to draw from.
            count: Maximal number of images.
            without: Images whose groups are excluded.
            seed: Random seed.
        """
        group: dict[str, str] = dict(
            self.run.folds.table[["image_id", "group_id"]].itertuples(index=False)
        )
        banned = {group[image_id] for image_id in without}
        pool = sorted(set(ids))
        drawn: dict[str, str] = {}
        for position in np.random.default_rng(seed).permutation(len(pool)).tolist():
            image_id = pool[position]
            if len(drawn) < count and group[image_id] not in banned:
                drawn.setdefault(group[image_id], image_id)
        return sorted(drawn.values())


def open_member(run: Run, fold: int) -> TrainedMember:
    """Load the network of a finished fold.

    Raises:
        RunError: The fold is not finished, or its files are damaged.
    """
    folder = run.fold_folder(fold)
    if fold not in run.finished() or not (folder / WEIGHTS).exists():
        raise RunError(f"{run.folder}: fold {fold} is not finished", "train it first")
    classifies = run.recipe.task == "classification"
    member = _classification(run, fold) if classifies else _segmentation(run, fold)
    load_network(folder / WEIGHTS, member.network)
    member.network.eval()
    return member


def _segmentation(run: Run, fold: int) -> TrainedMember:
    network = build_network(run.recipe, 1, "none")
    return TrainedMember(run, network, (fold,), f"{run.folder.name} fold {fold}")


def _classification(run: Run, fold: int) -> TrainedMember:
    """Return a classifier with the class weights and priors of its out-of-fold table."""
    path = run.fold_folder(fold) / "oof.parquet"
    row = read_oof(path).iloc[0]
    classes = tuple(name.removeprefix("logit_") for name in row.index if name.startswith("logit_"))
    weights, class_priors = (
        tuple(float(row[f"{kind}_{code}"]) for code in classes)
        for kind in ("class_weight", "class_prior")
    )
    network = build_network(run.recipe, len(classes), "none")
    origin = f"{run.folder.name} fold {fold}"
    return TrainedMember(run, network, (fold,), origin, classes, weights, class_priors)


def stored_entry(
    member: TrainedMember,
    file: str,
    storage: Storage,
    leader: TrainedMember | None = None,
    **measured: Any,
) -> dict[str, Any]:
    """Return the manifest entry of a trained member.

    Args:
        member: The network.
        file: Its graph in the bundle.
        storage: Number format of the graph's weights.
        leader: The network whose input is that of the classifier (`leading`); None: this one.
        measured: Measurements on its fp32 graph.
    """
    trained: dict[str, Any] = {}
    if member.classes:
        trained = {"class_weights": member.class_weights, "class_priors": member.class_priors}
        own = member.recipe.data.crop_mode
        if leader is not None and own != leader.recipe.data.crop_mode:
            trained["crop_mode"] = own
    return member_entry(member.recipe, file, member.folds, storage=storage, **trained, **measured)


# Averaging the weights (not the predictions) of several networks.

_ONLY_CHANCE = {"seed", "workers", "checkpoint_seconds"}
"""Settings in which recipes may differ: they affect order and augmentation, not the start."""
_BATCH = 32


def average(members: Sequence[TrainedMember]) -> TrainedMember:
    """Average the weights of networks that share recipe and initialisation.

    Such networks end in one basin of the loss. Their average is about as good as their ensemble,
    at the cost of one network (Wortsman et al., Model soups, ICML 2022). The averaged statistics
    of batch normalisation are not those of the averaged network: see ``estimate_statistics``.

    Args:
        members: Two or more networks.

    Returns:
        The average. Its folds are those that no member was trained on. Its class weights are
        geometric means, because they enter the logits as logarithms.

    Raises:
        RunError: The networks do not fit together.
    """
    _check_alike(members)
    network = copy.deepcopy(members[0].network)
    states = [member.network.state_dict() for member in members]
    network.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})
    weights = np.exp(np.mean([np.log(member.class_weights) for member in members], axis=0))
    class_priors = np.mean([member.class_priors for member in members], axis=0)
    never = set.intersection(*(set(member.folds) for member in members))
    return replace(
        members[0],
        network=network,
        folds=tuple(sorted(never)),
        origin=" + ".join(member.origin for member in members),
        class_weights=tuple(weights.tolist()),
        class_priors=tuple(class_priors.tolist()),
    )


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(first.dtype)


def _check_alike(members: Sequence[TrainedMember]) -> None:
    if len(members) < 2:
        raise RunError("averaging needs two or more networks", "name more runs or more folds")
    first = members[0]
    for other in members[1:]:
        pair = f"{first.origin} and {other.origin}"
        for what, same in (
            ("recipes", _start(first) == _start(other)),
            ("classes", first.classes == other.classes),
            ("folds", first.run.folds.sha256 == other.run.folds.sha256),
            ("data", first.run.inputs["fingerprint"] == other.run.inputs["fingerprint"]),
            ("starts", _init_from(first) == _init_from(other)),
        ):
            if not same:
                raise RunError(
                    f"{pair} have different {what}",
                    "average networks that differ only in seed or fold",
                )


def _start(member: TrainedMember) -> object:
    return member.recipe.model_dump(exclude=_ONLY_CHANCE)


def _init_from(member: TrainedMember) -> object:
    """Return the run and folds that initialised it, if any."""
    source = member.run.inputs.get("init_from")
    return source and (source, member.folds)


# Images of a run, preprocessed as in training.


def images_of(run: Run, data: Path | None = None) -> DecodedImages | ImageCache:
    """Return a run's training images from its data set, or from the cache beside the run.

    Args:
        run: The run.
        data: The data set's folder, if it has moved since training.

    Raises:
        DataError: ``data`` is another data set, or the images are missing.
    """
    recipe = run.recipe
    dataset = dataset_of(run, data)
    if dataset is not None:
        input_spec = training_task_of(recipe).input_specs(recipe)["images"]
        masks = run.inputs["masks"]
        training_data = TrainingData(dataset, run.folder, masks=Path(masks) if masks else None)
        return DecodedImages(training_data.sources(), input_spec)
    key = run.cache_key("images")
    for settings in sorted((run.folder.parent / "cache").glob("*/cache.json")):
        cache = ImageCache.open(settings.parent)
        if cache.key == key:
            return cache
    raise DataError(
        f"{run.folder}: its images are neither in their original folder nor in the cache",
        "name the data set with --data",
    )


# The networks of one task in a bundle: finished folds, or their average.

ESTIMATED = 512
"""Number of images for the batch normalisation statistics of an average."""
_ALIKE: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("colour_constancy",),
    "classification": ("crop_margin", "colour_constancy"),
    "attributes": ("colour_constancy", "lesion"),
}


class TaskMembers(NamedTuple):
    """The networks of one task in a bundle.

    Attributes:
        task: The task.
        runs: Their runs.
        trained: The trained networks.
        members: The exported networks: the trained ones, or their average.
        composition: How the members were made.
        sources: Each run's images, by its folder.
    """

    task: Task
    runs: Sequence[Run]
    trained: Sequence[TrainedMember]
    members: Sequence[TrainedMember]
    composition: Composition
    sources: Mapping[Path, Images]


def combine(
    task: Task,
    runs: Sequence[Run],
    *,
    folds: Sequence[int] | None = None,
    averaged: bool = False,
    data: Path | None = None,
) -> TaskMembers:
    """Combine the networks of one task's runs.

    Args:
        task: The task.
        runs: One or more runs of the task.
        folds: Folds of each run; None: all finished ones.
        averaged: Whether to average their weights into one network.
        data: The data set, if it has moved since training.

    Raises:
        RunError: No fold is finished, or the runs do not fit together.
        DataError: Their images are missing.
    """
    _check_together(runs)
    sources = {run.folder: images_of(run, data) for run in runs}
    trained = _trained(runs, folds)
    composition = Composition(
        tuple(member.origin for member in trained),
        tuple(tuple(folds or run.finished()) for run in runs),
        averaged,
    )
    members = [_averaged(trained, sources)] if averaged else trained
    return TaskMembers(task, runs, trained, members, composition, sources)


def _trained(runs: Iterable[Run], wanted: Sequence[int] | None) -> list[TrainedMember]:
    members = []
    for run in runs:
        folds = wanted or run.finished()
        if not folds:
            raise run.unfinished()
        members += [open_member(run, fold) for fold in folds]
    if len({member.classes for member in members}) > 1:
        raise RunError(
            "the runs have different sets of diagnoses", "export runs with the same diagnoses"
        )
    return members


def _averaged(trained: Sequence[TrainedMember], sources: Mapping[Path, Images]) -> TrainedMember:
    whole = average(trained)
    ids = whole.draw(whole.learnt(), ESTIMATED)
    images = sources[whole.run.folder]
    pixels = stack_images(images, ids, whole.recipe.input_size)
    batches = np.array_split(pixels, -(-len(pixels) // _BATCH))
    estimate_statistics(whole.network, map(torch.from_numpy, batches))
    return whole


def cost_members(task_members: TaskMembers) -> list[list[TrainedMember]]:
    """Return the networks on which costs are measured, each on its held-out images.

    Returns one list per run of the ensemble, with a network for each fold that all runs have
    finished, exported or not: the images of one fold are too few to detect half a point. For
    masks, only the first run is measured. An average that held out images is measured itself;
    any other average is represented by the networks it was made of.
    """
    if task_members.composition.averaged:
        average = [member for member in task_members.members if member.folds]
        return [average or _of_each_fold(task_members.trained)]
    runs = task_members.runs if task_members.task == "classification" else task_members.runs[:1]
    folds = sorted(set.intersection(*(set(run.finished()) for run in runs)))
    if not folds:
        raise RunError(
            "the runs have no finished fold in common", "train one, or leave out --measure-costs"
        )
    there = {(member.run.folder, member.folds): member for member in task_members.members}
    return [
        [there.get((run.folder, (fold,))) or open_member(run, fold) for fold in folds]
        for run in runs
    ]


def _of_each_fold(members: Iterable[TrainedMember]) -> list[TrainedMember]:
    """Return the first network that held out each fold."""
    chosen: dict[tuple[int, ...], TrainedMember] = {}
    for member in members:
        chosen.setdefault(member.folds, member)
    return list(chosen.values())


def leading(members: Sequence[TrainedMember]) -> TrainedMember:
    """Return the member whose recipe describes the task's input: the first one that crops, if any.

    Classifiers may differ in their crop mode; `stored_entry` names the others' own.
    """
    return next((each for each in members if each.recipe.data.crop_mode != "full"), members[0])


def _check_together(runs: Sequence[Run]) -> None:
    for name in _ALIKE[runs[0].recipe.task]:
        # Only crops have a margin.
        concerned = [
            run for run in runs if name != "crop_margin" or run.recipe.data.crop_mode != "full"
        ]
        for run in concerned[1:]:
            first = concerned[0]
            if getattr(first.recipe.data, name) != getattr(run.recipe.data, name):
                raise RunError(
                    f"{first.folder} and {run.folder} differ in data.{name}",
                    "export runs with the same preprocessing",
                )
    for run in runs[1:]:
        first = runs[0]
        # A run may have trained on further parts of the data, which no fold holds out.
        same_parts = (
            len(
                {each.recipe.data.parts or (USUAL_PART[each.recipe.task],) for each in (first, run)}
            )
            == 1
        )
        same_data = first.inputs["fingerprint"] == run.inputs["fingerprint"]
        for what, same in (
            ("data", same_data or not same_parts),
            ("folds", first.folds.hold_out_as(run.folds)),
        ):
            if not same:
                raise RunError(
                    f"{first.folder} and {run.folder} have different {what}",
                    "export runs with the same data and folds",
                )
