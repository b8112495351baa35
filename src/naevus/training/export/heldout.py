"""What a member of a bundle says of the pictures that it never saw, in any precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from naevus.bundles.bundle import write_bundle
from naevus.bundles.spec import BundleSpec
from naevus.errors import DataError
from naevus.evaluation.tables import left_out, refuse_left_out
from naevus.inference.out_of_fold import heldout_logits, heldout_scores
from naevus.runs.manifest import stored_entry, task_entry

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from naevus.bundles.bundle import Bundle
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.sources import Pictures
    from naevus.training.export.stored import StoredGraphs
    from naevus.types import Computed, Precision


class Variant(NamedTuple):
    """How numbers are stored, and what they are computed in."""

    stored: Precision
    computed: Computed


REFERENCE: Final = Variant("fp32", "f32")


class Measuring(NamedTuple):
    """Who is measured: a member, its files, its pictures, and how far all of it is.

    Attributes:
        graphs: The member's files.
        pictures: Its run's pictures.
        dataset: Its run's data set; masks are judged by it.
    """

    graphs: StoredGraphs
    pictures: Pictures
    dataset: Dataset | None


def heldout_answers(each: Measuring, variant: Variant = REFERENCE) -> pd.DataFrame:
    """Return what a member says of the pictures that it never saw.

    Args:
        each: The member.
        variant: How its numbers are stored and computed.

    Returns:
        A table like the out-of-fold table of its task.

    Raises:
        DataError: Masks are to be judged, and the data set is not there; or pictures that the run
            answered cannot be answered now, and the run does not allow that.
    """
    member = each.graphs.member
    known = member.run.answers()
    known = known[known["fold"].isin(member.folds)]
    bundle = _bundle(each, variant)
    if member.config.task == "segmentation":
        groups = known[["image_id", "group_id"]]
        table = heldout_scores(bundle, _sources(each, known), precision=variant.computed)
        gone = set(known["image_id"]).difference(table["image_id"])
        refuse_left_out(
            left_out(("images of the run cannot be judged now", gone)),
            str(member.run.folder),
            allow_missing=member.run.allow_missing,
        )
        return table.merge(groups, on="image_id", validate="one_to_one")
    ids = known["image_id"].tolist()
    table = heldout_logits(bundle, each.pictures, ids, precision=variant.computed)
    given = zip(("weight", "share"), (member.weights, member.shares), strict=True)
    trained = {
        f"{kind}_{code}": value
        for kind, values in given
        for code, value in zip(member.classes, values, strict=True)
    }
    told = known[["image_id", "group_id", "truth", "fold"]]
    return table.merge(told, on="image_id", validate="one_to_one").assign(**trained)


def _bundle(each: Measuring, variant: Variant) -> Bundle:
    member = each.graphs.member
    entry = stored_entry(member, "network.onnx", variant.stored)
    says = task_entry(member.config, [entry], member.classes)
    place = each.graphs.folder / variant.stored
    return write_bundle(
        place, BundleSpec.model_validate(says), {"network.onnx": each.graphs.path(variant.stored)}
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
