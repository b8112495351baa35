"""Statistics of the training images' features, to detect out-of-distribution images."""

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


# OOD statistics of a classifier's graph.


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
    """Fit the OOD statistics of a classifier's graph, in OpenVINO and fp32.

    Args:
        graph: The ONNX graph as it will be used.
        images: Square images by id, in the bundle's crop mode, of any size.
        learnt: Images that the network was trained on; more images detect slightly more.
        oof: Held-out images, from which the threshold is chosen.
        group_of: The group of each held-out image.
        size: Side of the network's input, in pixels.
        progress: Called with (done, total) images.

    Raises:
        BundleError: The graph cannot be used or has no embedding.
        DataError: There are too few training or held-out images.
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
    """Return a graph's features of the readable images, N x F, and their ids.

    Args:
        graph: The ONNX graph of a classifier.
        images: Square images by id, of any size.
        ids: Ids of the images.
        size: Side of the network's input, in pixels.
        progress: Called with (done, total) images.
        done: Number of images done before.
        total: Total number of images; None: these.

    Raises:
        BundleError: The graph cannot be used, has no embedding or gives values that are not
            finite.
        DataError: No image is readable.
    """
    engine = open_engine(graph)
    if "embedding" not in engine.outputs:
        raise BundleError(f"{graph}: has no embedding", "export the bundle again from its run")
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
        raise DataError("no image is readable", "name the data set with --data")
    return np.concatenate(found), read


_log = logging.getLogger(__name__)


def ood_entry(
    graphs: Sequence[StoredGraphs],
    sources: Mapping[Path, Images],
    storage: Storage,
    path: Path,
) -> dict[str, Any]:
    """Write the OOD statistics of classifiers, and return their manifest entry.

    Each threshold is chosen on held-out images. There is no entry if a network has none (such as
    an average over all folds) or too few.

    Args:
        graphs: The classifiers' files, in the bundle's order.
        sources: Each run's images, by its folder.
        storage: Number format of the bundle's weights.
        path: Output file.
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
            _log.info("no OOD statistics: %s", error)
            return {}
    write_ood_statistics(path, found)
    return {"classifier": {"ood": OOD_FILE}}
