"""The accuracy lost by each storage and precision on held-out images, and a recommendation."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

import pandas as pd

from naevus.bundles.bundle import write_bundle
from naevus.bundles.figures import Figure, Recommendation, StorageCost, StorageRefusal
from naevus.bundles.spec import BundleSpec
from naevus.errors import DataError
from naevus.evaluation.comparison import compare
from naevus.evaluation.out_of_fold import combined, taxonomy_of
from naevus.evaluation.tables import left_out, refuse_left_out
from naevus.export.members import stored_entry
from naevus.inference.engines.automatic import PATIENCE_S, rejected
from naevus.inference.engines.openvino import precisions
from naevus.inference.engines.trial import EngineSetup, TrialNetwork, tried
from naevus.inference.out_of_fold import oof_attributes, oof_logits, oof_scores
from naevus.runs.evidence import figure_of
from naevus.runs.manifest import task_entry
from naevus.taxonomy import ATTRIBUTES
from naevus.types import Precision, Storage, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.datasets.dataset import Dataset, Record
    from naevus.datasets.sources import Images
    from naevus.export.graphs import StoredGraphs


# Out-of-fold predictions of a member in any storage and precision.


class Variant(NamedTuple):
    """A number format of the stored weights, and a precision of the computation."""

    storage: Storage
    precision: Precision


REFERENCE: Final = Variant("fp32", "fp32")
_MASKS: Final[frozenset[Task]] = frozenset({"segmentation", "attributes"})


class Measuring(NamedTuple):
    """A member to be measured.

    Attributes:
        graphs: The member's files.
        images: The images of its run.
        dataset: The data set of its run, with the ground truth of masks.
    """

    graphs: StoredGraphs
    images: Images
    dataset: Dataset | None


def oof_predictions(each: Measuring, variant: Variant = REFERENCE) -> pd.DataFrame:
    """Return a member's out-of-fold predictions.

    Args:
        each: The member.
        variant: Its storage and precision.

    Returns:
        A table like the out-of-fold table of its task.

    Raises:
        DataError: The data set is needed to score masks and is missing; or images that the run
            predicted cannot be predicted now, and the run does not allow that.
    """
    member = each.graphs.member
    known = member.run.predictions()
    known = known[known["fold"].isin(member.folds)]
    bundle = _bundle(each, variant)
    if member.recipe.task in _MASKS:
        groups = known[["image_id", "group_id", "fold"]]
        table = _mask_predictions(each, bundle, known, variant.precision)
        gone = set(known["image_id"]).difference(table["image_id"])
        refuse_left_out(
            left_out(("images of the run cannot be scored now", gone)),
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


def _mask_predictions(
    each: Measuring, bundle: Bundle, known: pd.DataFrame, precision: Precision
) -> pd.DataFrame:
    """Score the masks of the images in ``known``, of lesions or of attributes."""
    rows = _rows(each, known)
    if each.graphs.member.recipe.task == "attributes":
        attributes = [
            (row.image_id, row.path, row.attributes)
            for row in rows
            if row.path and len(row.attributes) == len(ATTRIBUTES)
        ]
        return oof_attributes(bundle, attributes, precision=precision)
    sources = [
        (row.image_id, row.path, row.mask_path) for row in rows if row.path and row.mask_path
    ]
    return oof_scores(bundle, sources, precision=precision)


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


def _rows(each: Measuring, known: pd.DataFrame) -> list[Record]:
    if each.dataset is None:
        raise DataError(
            f"{each.graphs.member.run.folder}: the data set, needed to score masks, is missing",
            "name it with --data",
        )
    wanted = set(known["image_id"])
    return [row for row in each.dataset.rows() if row.image_id in wanted]


LOSS, BOUND = 0.005, 0.01
"""Largest acceptable loss of a score, and the bound that its 95 % interval must not reach."""
SPEED: Final = ("int8", "bf16", "fp32")
"""From the fastest, on processors with instructions for each."""
_SIZE: Final[tuple[Storage, ...]] = ("int8", "fp16", "fp32")
_SCORED: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("Jaccard", "thresholded Jaccard"),
    "classification": ("balanced accuracy, balanced decision", "accuracy, natural decision"),
    "attributes": ("pooled Jaccard",),
}
_DECIDES: Final[dict[Task, str]] = {task: scores[0] for task, scores in _SCORED.items()}


def variants() -> tuple[Variant, ...]:
    """Return the variants that this machine can measure, the reference first."""
    able = precisions()
    pairs = itertools.product(
        get_args(Storage), [each for each in get_args(Precision) if each in able]
    )
    return (REFERENCE, *(Variant(*pair) for pair in pairs if pair != REFERENCE))


class Measured(NamedTuple):
    """The costs of variants, and the variants that cannot run on this machine."""

    costs: tuple[StorageCost, ...]
    refusals: tuple[StorageRefusal, ...]


def measured(runs: Sequence[Sequence[Measuring]], step: Callable[[], None]) -> Measured:
    """Measure every variant of one task's networks on all their held-out images.

    Each image is predicted out of fold, by an ensemble over the runs. Differences between
    variants are paired by image and resampled by group. Each variant is first tried in a child
    process, and left out if a network cannot run in it on this machine.

    Args:
        runs: For each run of the ensemble, networks that held out different folds; a single run
            for masks.
        step: Called after each variant of each member.

    Raises:
        DataError: The data set is needed to score masks and is missing.
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
                found.append(oof_predictions(each, variant))
                step()
            for _ in range(len(problems) - len(joined)):
                step()
        for variant, found in tables.items():
            joined[variant].append(pd.concat(found, ignore_index=True))
    task = runs[0][0].graphs.member.recipe.task
    whole = {
        variant: found[0] if task in _MASKS else combined(found, taxonomy_of(found[0]))
        for variant, found in joined.items()
    }
    reference = whole.pop(REFERENCE)
    networks = _networks([[each.graphs.member.origin for each in members] for members in runs])
    costs = tuple(
        cost
        for variant, table in whole.items()
        for cost in costs_of(task, variant, networks, reference, table)
    )
    refusals = tuple(
        StorageRefusal(task=task, **variant._asdict(), problem=problem)
        for variant, problem in problems.items()
        if problem is not None
    )
    return Measured(costs, refusals)


def _problem(runs: Sequence[Sequence[Measuring]], variant: Variant) -> str | None:
    """Return why networks cannot run in a variant; None if they can, or for fp32."""
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
    return rejected(found).get(way)


def choose(
    costs: Iterable[StorageCost],
    task: Task,
    order: Sequence[str] = SPEED,
    *,
    storage: Storage | None = None,
) -> Recommendation:
    """Return the fastest variant with a negligible loss of accuracy.

    Its loss must be at most `LOSS`, and below `BOUND` by the paired 95 % interval. Of equally
    fast variants the smallest file is chosen. If no variant qualifies, fp32 is recommended.

    Args:
        costs: The costs of all measured variants.
        task: The task of the networks.
        order: ``int8``, ``bf16`` and ``fp32`` from the fastest.
        storage: A fixed number format of the weights; None: the best one.
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
        f"the fastest that loses at most {100 * LOSS:g} points of {_DECIDES[task]}, and less "
        f"than {100 * BOUND:g} by the paired 95 % interval"
    )
    for variant in sorted(by_variant, key=slowness):
        found = by_variant[variant]
        if found.low is not None and found.value >= -LOSS and found.low > -BOUND:
            came = _change(100 * found.value, 100 * found.low)
            return Recommendation(task=task, **variant._asdict(), reason=f"{rule}: {came}")
    last = Variant(storage or "fp32", "fp32")
    return Recommendation(task=task, **last._asdict(), reason=f"{rule}: no faster one does")


def _change(value: float, low: float) -> str:
    """Return a change in points and its lower limit in words."""
    if value < 0:
        return f"it loses {-value:.2f} (at most {-low:.2f})"
    least = f"or loses at most {-low:.2f}" if low < 0 else f"at least {low:.2f}"
    return f"it gains {value:.2f} ({least})"


def _networks(origins: Sequence[Sequence[str]]) -> str:
    if len(origins) > 1:
        return f"ensemble of {len(origins)} networks on each of {len(origins[0])} folds"
    (own,) = origins
    return f"{len(own)} networks, each on its own fold" if len(own) > 1 else own[0]


def costs_of(
    task: Task,
    variant: Variant,
    networks: str,
    reference: pd.DataFrame,
    table: pd.DataFrame,
) -> list[StorageCost]:
    """Return what a variant changes, by its predictions and those of fp32 for the same images."""
    found = compare(reference, table, corrected=False)
    by_name = {one.score: one for one in found.differences}
    return [
        StorageCost(
            task=task,
            **variant._asdict(),
            score=name,
            networks=networks,
            reference=by_name[name].a,
            # Predictions that are all the same differ by exactly 0, of which no interval tells.
            difference=figure_of(by_name[name].difference)
            if found.changed or by_name[name].difference.value
            else Figure(value=0.0, low=0.0, high=0.0),
            changed=len(found.changed) / found.images,
            images=found.images,
            groups=found.groups,
        )
        for name in _SCORED[task]
    ]
