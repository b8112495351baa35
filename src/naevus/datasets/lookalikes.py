"""Groups of confirmed duplicates, for data that names no lesions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from naevus.datasets.audit.duplicates import Look, components, find_duplicates, look_at
from naevus.errors import PictureError
from naevus.images.read import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from naevus.datasets.records import Dataset

_SHORTEST = 64


def duplicate_groups(
    dataset: Dataset, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Return image id → group of the pictures that are confirmed duplicates of another.

    Args:
        dataset: The pictures. Those that cannot be read stand alone; ``naevus check`` names them.
        progress: Called with how many pictures were read, and how many there are.

    Returns:
        The group is the first of its pictures' ids. Pictures without a duplicate are left out.
    """
    records = [record for record in dataset.rows() if record.path is not None]
    ids: list[str] = []
    looks: list[Look] = []
    with ThreadPoolExecutor(2) as pool:
        seen = pool.map(_look, [record.path for record in records])
        for done, (record, look) in enumerate(zip(records, seen, strict=True), start=1):
            if look is not None:
                ids.append(record.image_id)
                looks.append(look)
            if progress is not None:
                progress(done, len(records))
    pairs = [(match.first, match.second) for match in find_duplicates(looks)]
    groups: dict[str, str] = {}
    for members in components(pairs):
        names = sorted(ids[position] for position in members if isinstance(position, int))
        groups.update(dict.fromkeys(names, names[0]))
    return groups


def _look(path: Path | None) -> Look | None:
    try:
        return None if path is None else look_at(read(path, shortest=_SHORTEST))
    except PictureError:
        return None
