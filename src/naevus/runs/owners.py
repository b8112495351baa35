"""The lesion and the patient of predicted images: the data set's, or else those of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from naevus.datasets.dataset import joined
from naevus.evaluation.tables import has_values
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

OWNERS: Final = {"lesion_id": "lesion", "patient_id": "patient"}
"""The columns that say which images belong together, with their names in messages."""


class Owned(NamedTuple):
    """Images with their lesions and patients.

    Attributes:
        table: The images; ``lesion_id``, ``patient_id`` and ``group_id`` are complete.
        used: The columns that have values of the predictions.
        notes: Sentences on what is from the predictions, and where the data set contradicts them.
    """

    table: pd.DataFrame
    used: tuple[str, ...]
    notes: tuple[str, ...]


def with_owners(table: pd.DataFrame, predictions: pd.DataFrame) -> Owned:
    """Fill the lesions and patients that the data set does not know from predictions.

    Images that share one are one group, as in a data set. What the data set knows holds: a lesion
    of the predictions with images of several of its lesions or patients is not used, and one that
    shares an image with a lesion of the data set is that lesion.

    Args:
        table: One row per image: ``image_id, group_id, lesion_id, patient_id`` of the data set.
        predictions: One row per image, with ``image_id``; maybe ``lesion_id`` and ``patient_id``.

    Examples:
        >>> import pandas as pd
        >>> table = pd.DataFrame(
        ...     {"image_id": ["a", "b", "c"], "group_id": ["a", "b", "c"]}, dtype="string"
        ... ).assign(lesion_id=None, patient_id=None)
        >>> predictions = table[["image_id"]].assign(lesion_id=["arm", "arm", None])
        >>> found = with_owners(table, predictions)
        >>> found.table["group_id"].tolist()
        ['arm', 'arm', 'c']
        >>> found.notes
        ('lesions of 2 images are from the predictions: the data set does not know them',)
    """
    given = predictions.set_index("image_id").reindex(table["image_id"]).reset_index(drop=True)
    own = table.reset_index(drop=True)
    own = own.assign(**{column: _texts(own[column]) for column in OWNERS})
    filled: dict[str, pd.Series[str]] = {}
    notes: list[str] = []
    for column, word in OWNERS.items():
        if not has_values(given, column):
            continue
        bounds = [own[name] for name in dict.fromkeys((column, "patient_id"))]
        names = _texts(given[column])
        values = _filled(own[column], names, bounds)
        new = int(values.notna().sum() - own[column].notna().sum())
        if new:
            filled[column] = values
            notes.append(
                f"{word}s of {counted(new, 'image')} are from the predictions: the data set does "
                "not know them"
            )
        differing = int(_differing(names, bounds).sum())
        if differing:
            notes.append(
                f"{word}s of {counted(differing, 'image')} differ between the predictions and the "
                "data set: those of the data set hold"
            )
    if filled:
        own = own.assign(**filled)
        own = own.assign(group_id=_groups(own))
    return Owned(own, tuple(filled), tuple(notes))


def _texts(column: pd.Series[str]) -> pd.Series[str]:
    texts = column.astype("string").str.strip()
    return texts.mask(texts == "")


def _several(values: pd.Series[str], by: pd.Series[str]) -> pd.Series[bool]:
    """Return which rows have a value of ``by`` whose rows have several of ``values``."""
    counts = values.groupby(by).nunique()
    return by.isin(counts.index[counts > 1])


def _filled(
    own: pd.Series[str], given: pd.Series[str], bounds: Sequence[pd.Series[str]]
) -> pd.Series[str]:
    """Return the data set's values, and where there is none those of the predictions."""
    taken = set(own[given.notna()].dropna())
    for bound in bounds:
        given = given.mask(_several(bound, given))
    same = own.groupby(given).first().dropna()
    names = dict(same)
    for name in given.dropna().unique():
        # The predictions name that lesion of the data set otherwise: this one is another.
        names.setdefault(name, f"{name} of the predictions" if name in taken else name)
    return own.fillna(given.map(names).astype("string"))


def _differing(given: pd.Series[str], bounds: Sequence[pd.Series[str]]) -> pd.Series[bool]:
    """Return which images the predictions put together otherwise than the data set."""
    own, *others = bounds
    both = own.notna() & given.notna()
    found = both & (_several(own, given.where(both)) | _several(given, own.where(both)))
    for other in others:
        found |= other.notna() & _several(other, given)
    return found


def _groups(table: pd.DataFrame) -> list[str]:
    """Return the group of each row; rows that share a lesion, a patient or a group are one.

    Groups are named as in a data set, unless another group has that name.
    """
    alone = table["group_id"] == table["image_id"]
    names = table["group_id"].mask(alone)
    for column in OWNERS:
        names = names.fillna(table[column].mask(table[column].isin(table["group_id"])))
    ties = [table[column] for column in ("group_id", *OWNERS)]
    return joined(names.fillna(table["image_id"]), ties)
