"""What each precision costs, on the images that networks held out, and which one to take."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

import pandas as pd

from naevus.bundles.bundle import write_bundle
from naevus.bundles.spec import BundleSpec, Figure, Recommendation, StorageCost, StorageRefusal
from naevus.errors import DataError
from naevus.evaluation.comparison import compare
from naevus.evaluation.tables import combined, left_out, refuse_left_out, taxonomy_of
from naevus.export.members import stored_entry
from naevus.inference.engines.automatic import PATIENCE_S, passed_over
from naevus.inference.engines.openvino import precisions
from naevus.inference.engines.trial import EngineSetup, TrialNetwork, tried
from naevus.inference.out_of_fold import oof_logits, oof_scores
from naevus.runs.manifest import task_entry
from naevus.types import Precision, Storage, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from naevus.bundles.bundle import Bundle
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.sources import Images
    from naevus.export.graphs import StoredGraphs


# What a member of a bundle says of the images that it never saw, in any precision.


class Variant(NamedTuple):
    """How numbers are stored, and what they are computed in."""

    storage: Storage
    precision: Precision


REFERENCE: Final = Variant("fp32", "fp32")


class Measuring(NamedTuple):
    """Who is measured: a member, its files, its images, and how far all of it is.

    Attributes:
        graphs: The member's files.
        images: Its run's images.
        dataset: Its run's data set; masks are judged by it.
    """

    graphs: StoredGraphs
    images: Images
    dataset: Dataset | None


def oof_answers(each: Measuring, variant: Variant = REFERENCE) -> pd.DataFrame:
    """Return what a member says of the images that it never saw.

    Args:
        each: The member.
        variant: How its numbers are stored and computed.

    Returns:
        A table like the out-of-fold table of its task.

    Raises:
        DataError: Masks are to be judged, and the data set is not there; or images that the run
            answered cannot be answered now, and the run does not allow that.
    """
    member = each.graphs.member
    known = member.run.predictions()
    known = known[known["fold"].isin(member.folds)]
    bundle = _bundle(each, variant)
    if member.recipe.task == "segmentation":
        groups = known[["image_id", "group_id"]]
        table = oof_scores(bundle, _sources(each, known), precision=variant.precision)
        gone = set(known["image_id"]).difference(table["image_id"])
        refuse_left_out(
            left_out(("images of the run cannot be judged now", gone)),
            str(member.run.folder),
            allow_missing=member.run.allow_missing,
        )
        return table.merge(groups, on="image_id", validate="one_to_one")
    ids = known["image_id"].tolist()
    table = oof_logits(bundle, each.images, ids, precision=variant.precision)
    given = zip(
        ("class_weight", "class_prior"), (member.class_weights, member.class_priors), strict=True
    )
    trained = {
        f"{kind}_{code}": value
        for kind, values in given
        for code, value in zip(member.classes, values, strict=True)
    }
    known_rows = known[["image_id", "group_id", "diagnosis", "fold"]]
    return table.merge(known_rows, on="image_id", validate="one_to_one").assign(**trained)


def _bundle(each: Measuring, variant: Variant) -> Bundle:
    member = each.graphs.member
    entry = stored_entry(member, "network.onnx", variant.storage)
    manifest = task_entry(member.recipe, [entry], member.classes)
    place = each.graphs.folder / variant.storage
    return write_bundle(
        place,
        BundleSpec.model_validate(manifest),
        {"network.onnx": each.graphs.path(variant.storage)},
    )


def _sources(each: Measuring, known: pd.DataFrame) -> list[tuple[str, Path, Path]]:
    if each.dataset is None:
        raise DataError(
            f"{each.graphs.member.run.folder}: masks are measured on the data set, which is gone",
            "name it with --data",
        )
    wanted = set(known["image_id"])
    return [
        (row.image_id, row.path, row.mask_path)
        for row in each.dataset.rows()
        if row.image_id in wanted and row.path and row.mask_path
    ]


LOSS, BOUND = 0.005, 0.01
"""What may be lost of a score, and what its loss must be told from by the 95 % interval."""
SPEED: Final = ("int8", "bf16", "fp32")
"""What computes fastest first, where the processor has instructions for each."""
_SIZE: Final[tuple[Storage, ...]] = ("int8", "fp16", "fp32")
_JUDGED: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("Jaccard", "thresholded Jaccard"),
    "classification": ("balanced accuracy, balanced decision", "accuracy, natural decision"),
}
_DECIDES: Final[dict[Task, str]] = {task: scores[0] for task, scores in _JUDGED.items()}


def variants() -> tuple[Variant, ...]:
    """Return what this machine can measure, the reference first."""
    able = precisions()
    pairs = itertools.product(
        get_args(Storage), [each for each in get_args(Precision) if each in able]
    )
    return (REFERENCE, *(Variant(*pair) for pair in pairs if pair != REFERENCE))


class Measured(NamedTuple):
    """What precisions cost, and which did not run."""

    costs: tuple[StorageCost, ...]
    refusals: tuple[StorageRefusal, ...]


def measured(runs: Sequence[Sequence[Measuring]], step: Callable[[], None]) -> Measured:
    """Measure every precision of networks of one task on all that each of them held out.

    Images are answered by the one network of each run that never saw them, those of several runs
    as one; the differences between two precisions are paired by image and drawn by group. A
    precision that a network does not run in here is tried in a process of its own, and left out.

    Args:
        runs: For each run that answers, networks with held-out images, each of other folds; one
            run where masks are judged.
        step: Called after each precision of each member.

    Raises:
        DataError: Masks are to be judged, and the data set is not there.
        ConfigError: NNCF is not installed.
    """
    problems = {variant: _problem(runs, variant) for variant in variants()}
    joined: dict[Variant, list[pd.DataFrame]] = {
        variant: [] for variant, problem in problems.items() if problem is None
    }
    for members in runs:
        tables: dict[Variant, list[pd.DataFrame]] = {variant: [] for variant in joined}
        for each in members:
            for variant, found in tables.items():
                found.append(oof_answers(each, variant))
                step()
            for _ in range(len(problems) - len(joined)):
                step()
        for variant, found in tables.items():
            joined[variant].append(pd.concat(found, ignore_index=True))
    task = runs[0][0].graphs.member.recipe.task
    whole = {
        variant: found[0] if task == "segmentation" else combined(found, taxonomy_of(found[0]))
        for variant, found in joined.items()
    }
    reference = whole.pop(REFERENCE)
    networks = _networks([[each.graphs.member.origin for each in members] for members in runs])
    costs = tuple(
        cost
        for variant, table in whole.items()
        for cost in _costs(task, variant, networks, reference, table)
    )
    refusals = tuple(
        StorageRefusal(task=task, **variant._asdict(), problem=problem)
        for variant, problem in problems.items()
        if problem is not None
    )
    return Measured(costs, refusals)


def _problem(runs: Sequence[Sequence[Measuring]], variant: Variant) -> str | None:
    """Return why networks do not run so here; None where they do, or run in fp32."""
    if variant.precision == "fp32":
        return None
    graphs = [each.graphs for members in runs for each in members]
    networks = [
        TrialNetwork(
            each.member.recipe.task,
            str(each.path(variant.storage)),
            each.member.recipe.input_size,
            None,
            {},
        )
        for each in graphs
    ]
    way = EngineSetup("openvino", variant.precision)
    patience = PATIENCE_S * len(networks)
    found = tried([way], networks, limit_s=patience, patience_s=patience, rounds=0)
    return passed_over(found).get(way)


def choose(
    costs: Iterable[StorageCost],
    task: Task,
    order: Sequence[str] = SPEED,
    *,
    storage: Storage | None = None,
) -> Recommendation:
    """Return the fastest precision that loses next to nothing.

    That is the fastest whose loss is no more than `LOSS`, and by the paired 95 % interval below
    `BOUND`; the smallest file of equally fast ones; numbers as in fp32, in fp32, where none is.

    Args:
        costs: Of all precisions that were measured.
        task: Of which networks.
        order: ``int8``, ``bf16``, ``fp32``: what is computed fastest first.
        storage: How numbers are stored in any case; None: as is best.
    """
    by_variant = {
        Variant(cost.storage, cost.precision): cost.difference
        for cost in costs
        if cost.task == task and cost.score == _DECIDES[task] and storage in {None, cost.storage}
    }

    def slowness(variant: Variant) -> tuple[int, int, int]:
        kind = "int8" if variant.storage == "int8" else variant.precision
        return order.index(kind), order.index(variant.precision), _SIZE.index(variant.storage)

    rule = (
        f"the fastest that loses no more than {100 * LOSS:g} points of {_DECIDES[task]}, and less "
        f"than {100 * BOUND:g} by the paired 95 % interval"
    )
    for variant in sorted(by_variant, key=slowness):
        found = by_variant[variant]
        if found.low is not None and found.value >= -LOSS and found.low > -BOUND:
            came = f"it loses {-100 * found.value:.2f} (at most {-100 * found.low:.2f})"
            return Recommendation(task=task, **variant._asdict(), reason=f"{rule}: {came}")
    last = Variant(storage or "fp32", "fp32")
    return Recommendation(task=task, **last._asdict(), reason=f"{rule}: no other does")


def _networks(origins: Sequence[Sequence[str]]) -> str:
    if len(origins) > 1:
        return f"{len(origins)} networks as one, on each of {len(origins[0])} folds"
    (own,) = origins
    return f"{len(own)} networks, each on its own fold" if len(own) > 1 else own[0]


def _costs(
    task: Task,
    variant: Variant,
    networks: str,
    reference: pd.DataFrame,
    table: pd.DataFrame,
) -> list[StorageCost]:
    found = compare(reference, table)
    by_name = {one.score: one for one in found.differences}
    return [
        StorageCost(
            task=task,
            **variant._asdict(),
            score=name,
            networks=networks,
            reference=by_name[name].a,
            difference=Figure(**by_name[name].difference._asdict()),
            changed=len(found.changed) / found.images,
            images=found.images,
            groups=found.groups,
        )
        for name in _JUDGED[task]
    ]
