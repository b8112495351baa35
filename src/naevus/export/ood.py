"""Statistics of what classifiers saw in training, so that unlike pictures can be told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.bundles.ood import REFERENCE_FILE, write_references
from naevus.errors import BundleError, ConfigError, DataError, PictureError
from naevus.evaluation.ood import Reference
from naevus.images.geometry import resize
from naevus.inference.classifier import told_features
from naevus.inference.engines import open_engine
from naevus.inference.ensemble import faults_of, refuse_faults
from naevus.io.parallel import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.datasets.sources import Pictures, PicturesById
    from naevus.export.graphs import StoredGraphs
    from naevus.types import Precision

    Progress = Callable[[int, int], None]


# Reference statistics of a classifier's graph, from pictures by id.


def fit_reference(
    graph: Path,
    pictures: PicturesById,
    learnt: Sequence[str],
    heldout: Sequence[str],
    group_of: Mapping[str, str],
    *,
    size: int,
    progress: Progress | None = None,
) -> Reference:
    """Describe what a classifier's graph sees in dermoscopy, in OpenVINO and 32 bits.

    Args:
        graph: The ONNX graph as it will be used.
        pictures: Squares by id, in the bundle's crop mode, of any size.
        learnt: Pictures that the network was trained on. More say more: 8,000 flag a few more
            other pictures than 4,000 do.
        heldout: Pictures it never saw, which the threshold is set on.
        group_of: The group of each of the latter.
        size: Side of the network's input, pixels.
        progress: Called with (done, total) pictures.

    Raises:
        BundleError: The graph cannot be used or gives no embedding.
        DataError: Pictures that the network never saw, or others, are wanting.
    """
    total = len(learnt) + len(heldout)
    known, _ = features_of(graph, pictures, learnt, size=size, progress=progress, total=total)
    new, read = features_of(
        graph, pictures, heldout, size=size, progress=progress, done=len(learnt), total=total
    )
    return Reference.fit(known, new, [group_of[image_id] for image_id in read])


def features_of(
    graph: Path,
    pictures: PicturesById,
    ids: Sequence[str],
    *,
    size: int,
    progress: Progress | None = None,
    done: int = 0,
    total: int | None = None,
) -> tuple[NDArray[np.float32], list[str]]:
    """Return a graph's features of pictures, N x F, and the ids of those that can be read.

    Args:
        graph: The ONNX graph of a classifier.
        pictures: Squares by id, of any size.
        ids: Which pictures.
        size: Side of the network's input, pixels.
        progress: Called with (done, total) pictures.
        done: How many were done before.
        total: How many there are in all; None: these.

    Raises:
        BundleError: The graph cannot be used, or gives no embedding or no usable number.
        DataError: No picture can be read.
    """
    engine = open_engine(graph)
    if "embedding" not in engine.outputs:
        raise BundleError(f"{graph}: gives no embedding", "export the bundle again from its run")
    found, read = [], []
    for piece in batches(ids):
        squares = []
        for image_id in piece:
            try:
                squares.append(resize(pictures[image_id], size, size))
            except PictureError:
                continue
            read.append(image_id)
        if squares:
            outputs = engine.run(np.stack(squares))
            refuse_faults(faults_of(graph.name, outputs), read[-len(squares) :])
            found.append(told_features(outputs))
        done += len(piece)
        if progress is not None:
            progress(done, total or len(ids))
    if not found:
        raise DataError("no picture can be read", "name the data set with --data")
    return np.concatenate(found), read


_log = logging.getLogger(__name__)


def reference_entry(
    graphs: Sequence[StoredGraphs],
    sources: Mapping[Path, Pictures],
    precision: Precision,
    path: Path,
) -> dict[str, Any]:
    """Write the statistics of classifiers' training pictures, and return their entry.

    The threshold of each is set on pictures it never saw. There is no entry where a network has
    none, as an average over all folds, or where they are too few.

    Args:
        graphs: The classifiers' files, in the bundle's order.
        sources: Each run's pictures, by its folder.
        precision: How the bundle stores numbers.
        path: Where to write to.
    """
    members = [each.member for each in graphs]
    if not all(member.held_out() for member in members):
        return {}
    found = []
    for each, member in zip(graphs, members, strict=True):
        pictures = sources[member.run.folder]
        table = member.run.folds.table
        group_of = dict(zip(table["image_id"], table["group_id"], strict=True))
        try:
            found.append(
                fit_reference(
                    each.path(precision),
                    pictures,
                    [name for name in member.learnt() if name in pictures],
                    [name for name in member.held_out() if name in pictures],
                    group_of,
                    size=member.config.input_size,
                )
            )
        except (ConfigError, DataError) as error:
            _log.info("other pictures are not told apart: %s", error)
            return {}
    write_references(path, found)
    return {"classifier": {"reference": REFERENCE_FILE}}
