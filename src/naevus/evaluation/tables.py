"""Joining what was predicted with what is true: by image id, never by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def join_by_id(
    truth: pd.DataFrame, predictions: pd.DataFrame, *, on: str = "image_id", extra: bool = False
) -> pd.DataFrame:
    """Join two tables on image ids, in the truth's order.

    Args:
        truth: One row a picture.
        predictions: One row a picture; columns that are also in ``truth`` are left out.
        on: The column of image ids.
        extra: Whether predictions of pictures that are not in the truth are let by.

    Returns:
        The truth's columns, then those of the predictions, with a fresh index.

    Raises:
        DataError: A table lacks the column or holds an id twice or none; a picture of the truth
            was not predicted; or one was predicted that is not in the truth.

    Examples:
        >>> import pandas as pd
        >>> truth = pd.DataFrame({"image_id": ["a", "b"], "diagnosis": ["NV", "MEL"]})
        >>> predictions = pd.DataFrame({"image_id": ["b", "a"], "p_MEL": [0.8, 0.1]})
        >>> join_by_id(truth, predictions)["p_MEL"].tolist()
        [0.1, 0.8]
    """
    for table, name in ((truth, "truth"), (predictions, "predictions")):
        _check_ids(table, name, on)
    missing = truth.loc[~truth[on].isin(predictions[on]), on].tolist()
    if missing:
        raise DataError(
            f"{len(missing)} pictures were not predicted, such as {missing[0]}",
            "predict all of them, or score only those that were",
        )
    strange = predictions.loc[~predictions[on].isin(truth[on]), on].tolist()
    if strange and not extra:
        raise DataError(
            f"{len(strange)} predictions are of pictures that are not in the truth, "
            f"such as {strange[0]}",
            "give the truth of these pictures, or take them out",
        )
    fresh = [name for name in predictions.columns if name == on or name not in truth.columns]
    return truth.merge(predictions[fresh], on=on, how="left", validate="one_to_one")


def _check_ids(table: pd.DataFrame, name: str, on: str) -> None:
    if on not in table.columns:
        raise DataError(f"the table of {name} has no column {on!r}")
    if table[on].isna().any():
        raise DataError(f"the table of {name} has a row without {on}")
    twice = table.loc[table[on].duplicated(), on]
    if not twice.empty:
        raise DataError(
            f"{twice.iloc[0]} is in the table of {name} more than once", "keep one row a picture"
        )
