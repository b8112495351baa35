"""What a bundle's classifiers saw in training, so that unlike pictures can be told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from naevus.bundles.ood import REFERENCE_FILE, write_references
from naevus.errors import ConfigError, DataError
from naevus.inference.reference import fit_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from naevus.datasets.sources import Pictures
    from naevus.training.export.stored import StoredGraphs
    from naevus.types import Precision

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
