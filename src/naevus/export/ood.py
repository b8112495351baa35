"""Statistics of what classifiers saw in training, so that unlike images can be told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.bundles.ood import OOD_FILE, write_ood_statistics
from naevus.errors import BundleError, ConfigError, DataError, ImageError
from naevus.evaluation.ood import OODStatistics
from naevus.images.geometry import resize
from naevus.inference.classifier import observed_features
from naevus.inference.engines import open_engine
from naevus.inference.ensemble import faults_of, refuse_faults
from naevus.io.parallel import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.datasets.sources import Images, ImagesById
    from naevus.export.graphs import StoredGraphs
    from naevus.types import Storage

    Progress = Callable[[int, int], None]


# Reference statistics of a classifier's graph, from images by id.


def fit_ood_statistics(
    graph: Path,
    images: ImagesById,
    learnt: Sequence[str],
    oof: Sequence[str],
    group_of: Mapping[str, str],
    *,
    size: int,
    progress: Progress | None = None,
) -> OODStatistics:
    """Describe what a classifier's graph sees in dermoscopy, in OpenVINO and 32 bits.

    Args:
        graph: The ONNX graph as it will be used.
        images: Squares by id, in the bundle's crop mode, of any size.
        learnt: Images that the network was trained on. More say more: 8,000 flag a few more
            other images than 4,000 do.
        oof: Images it never saw, which the threshold is set on.
        group_of: The group of each of the latter.
        size: Side of the network's input, pixels.
        progress: Called with (done, total) images.

    Raises:
        BundleError: The graph cannot be used or gives no embedding.
        DataError: Images that the network never saw, or others, are wanting.
    """
    total = len(learnt) + len(oof)
    known, _ = features_of(graph, images, learnt, size=size, progress=progress, total=total)
    new, read = features_of(
        graph, images, oof, size=size, progress=progress, done=len(learnt), total=total
    )
    return OODStatistics.fit(known, new, [group_of[image_id] for image_id in read])


def features_of(
    graph: Path,
    images: ImagesById,
    ids: Sequence[str],
    *,
    size: int,
    progress: Progress | None = None,
    done: int = 0,
    total: int | None = None,
) -> tuple[NDArray[np.float32], list[str]]:
    """Return a graph's features of images, N x F, and the ids of those that can be read.

    Args:
        graph: The ONNX graph of a classifier.
        images: Squares by id, of any size.
        ids: Which images.
        size: Side of the network's input, pixels.
        progress: Called with (done, total) images.
        done: How many were done before.
        total: How many there are in all; None: these.

    Raises:
        BundleError: The graph cannot be used, or gives no embedding or no usable number.
        DataError: No image can be read.
    """
    engine = open_engine(graph)
    if "embedding" not in engine.outputs:
        raise BundleError(f"{graph}: gives no embedding", "export the bundle again from its run")
    found, read = [], []
    for piece in batches(ids):
        inputs = []
        for image_id in piece:
            try:
                inputs.append(resize(images[image_id], size, size))
            except ImageError:
                continue
            read.append(image_id)
        if inputs:
            outputs = engine.run(np.stack(inputs))
            refuse_faults(faults_of(graph.name, outputs), read[-len(inputs) :])
            found.append(observed_features(outputs))
        done += len(piece)
        if progress is not None:
            progress(done, total or len(ids))
    if not found:
        raise DataError("no image can be read", "name the data set with --data")
    return np.concatenate(found), read


_log = logging.getLogger(__name__)


def ood_entry(
    graphs: Sequence[StoredGraphs],
    sources: Mapping[Path, Images],
    storage: Storage,
    path: Path,
) -> dict[str, Any]:
    """Write the statistics of classifiers' training images, and return their entry.

    The threshold of each is set on images it never saw. There is no entry where a network has
    none, as an average over all folds, or where they are too few.

    Args:
        graphs: The classifiers' files, in the bundle's order.
        sources: Each run's images, by its folder.
        storage: How the bundle stores numbers.
        path: Where to write to.
    """
    members = [each.member for each in graphs]
    if not all(member.held_out() for member in members):
        return {}
    found = []
    for each, member in zip(graphs, members, strict=True):
        images = sources[member.run.folder]
        table = member.run.folds.table
        group_of = dict(zip(table["image_id"], table["group_id"], strict=True))
        try:
            found.append(
                fit_ood_statistics(
                    each.path(storage),
                    images,
                    [name for name in member.learnt() if name in images],
                    [name for name in member.held_out() if name in images],
                    group_of,
                    size=member.recipe.input_size,
                )
            )
        except (ConfigError, DataError) as error:
            _log.info("other images are not told apart: %s", error)
            return {}
    write_ood_statistics(path, found)
    return {"classifier": {"ood": OOD_FILE}}
