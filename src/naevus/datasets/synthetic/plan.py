"""Which pictures a drawn data set holds: ids, diagnoses, lesions and their patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.errors import ConfigError
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLITS = ("train", "validation", "test")
_TASKS = ("task1", "task3")
_TASK1_SHARE = 0.4
# Naevi lead, as in practice, yet no class is so rare that a small set could not show it.
_CLASS_SHARES = dict(zip(ISIC2018.codes, (0.16, 0.26, 0.12, 0.11, 0.16, 0.09, 0.10), strict=True))
_LESIONS_A_PICTURE = 0.65
_FEWEST_LESIONS = 8
_MOST_PHOTOGRAPHS = 3
_FEWEST_PICTURES = 40
_HELD_OUT_SHARE, _FEWEST_HELD_OUT = 0.2, 20
# Ids far from those the ISIC Archive gave to real pictures.
_FIRST_ID = 9_000_000
_IDS_A_PART = 100_000
_LESIONS_A_SEED = 1_000_000
_CONFIRMATIONS = ("histo", "consensus", "confocal", "follow_up")
_SITES = ("back", "trunk", "abdomen", "lower extremity", "upper extremity", "face", "chest", "neck")


class Lesion(NamedTuple):
    """A lesion and its patient; ``seed`` is what :func:`draw_lesion` draws it from."""

    lesion_id: str
    diagnosis: str
    seed: int
    age: int
    sex: str
    site: str
    confirmation: str


class Picture(NamedTuple):
    """One photograph of a lesion."""

    image_id: str
    split: str
    task: str
    lesion: Lesion
    photograph: int


def plan(pictures: int, seed: int, splits: Sequence[str]) -> list[Picture]:
    """Return every picture of the data set, sorted by id.

    Two fifths of a split belong to Task 1, the others to Task 3. In Task 3's training part every
    class has at least eight lesions where the number of pictures allows.

    Args:
        pictures: How many the training split has, at least 40; the others have a fifth of it each,
            at least 20.
        seed: Where the randomness comes from.
        splits: Some of ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: Too few pictures, a negative seed, or an unknown split.
    """
    unknown = set(splits) - set(SPLITS)
    if pictures < _FEWEST_PICTURES or seed < 0 or unknown or not splits:
        raise ConfigError(
            f"cannot draw {pictures} pictures from seed {seed} for splits {', '.join(splits)}",
            f"ask for at least {_FEWEST_PICTURES} pictures, a seed from 0, and splits of "
            f"{', '.join(SPLITS)}",
        )
    planned: list[Picture] = []
    for split in (name for name in SPLITS if name in splits):
        held_out = max(_FEWEST_HELD_OUT, round(_HELD_OUT_SHARE * pictures))
        count = pictures if split == "train" else held_out
        first = round(_TASK1_SHARE * count)
        for task, share in zip(_TASKS, (first, count - first), strict=True):
            planned += _part(split, task, share, seed)
    return planned


def _part(split: str, task: str, count: int, seed: int) -> list[Picture]:
    """Return the pictures of one split of one task, classes mixed."""
    number = SPLITS.index(split) * len(_TASKS) + _TASKS.index(task)
    rng = np.random.default_rng([seed, number])
    taken: list[tuple[Lesion, int]] = []
    next_lesion = number * _IDS_A_PART
    for diagnosis, wanted in _counts(count).items():
        for photographs in _photographs(rng, wanted):
            lesion = _lesion(rng, diagnosis, next_lesion, seed)
            taken += [(lesion, photograph) for photograph in range(photographs)]
            next_lesion += 1
    first = _FIRST_ID + number * _IDS_A_PART
    return [
        Picture(f"ISIC_{first + place}", split, task, *taken[index])
        for place, index in enumerate(rng.permutation(len(taken)))
    ]


def _counts(count: int) -> dict[str, int]:
    """Return the pictures of each class: by share, none empty if it can be helped."""
    exact = {code: count * share for code, share in _CLASS_SHARES.items()}
    counts = {code: int(value) for code, value in exact.items()}
    by_remainder = sorted(exact, key=lambda code: counts[code] - exact[code])
    for code in by_remainder[: count - sum(counts.values())]:
        counts[code] += 1
    empty = [code for code, number in counts.items() if number == 0]
    for code in empty if count >= len(counts) else ():
        counts[max(counts, key=lambda other: counts[other])] -= 1
        counts[code] = 1
    return counts


def _photographs(rng: np.random.Generator, pictures: int) -> list[int]:
    """Return how many photographs each lesion of a class has."""
    lesions = min(pictures, max(_FEWEST_LESIONS, round(_LESIONS_A_PICTURE * pictures)))
    photographs = [1] * lesions
    for _ in range(pictures - lesions):
        open_ones = [k for k, number in enumerate(photographs) if number < _MOST_PHOTOGRAPHS]
        photographs[int(rng.choice(open_ones))] += 1
    return photographs


def _lesion(rng: np.random.Generator, diagnosis: str, number: int, seed: int) -> Lesion:
    return Lesion(
        lesion_id=f"SYN_{number:07d}",
        diagnosis=diagnosis,
        seed=seed * _LESIONS_A_SEED + number,
        age=5 * int(rng.integers(4, 17)),
        sex=str(rng.choice(("female", "male"))),
        site=str(rng.choice(_SITES)),
        confirmation=str(rng.choice(_CONFIRMATIONS, p=(0.55, 0.2, 0.05, 0.2))),
    )
