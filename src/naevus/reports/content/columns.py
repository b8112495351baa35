"""Values with their intervals as columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.evaluation.intervals import Interval


def interval_table(first: str, intervals: Mapping[str, Interval]) -> pd.DataFrame:
    """Return a row for each figure; ``first`` heads the column of their names."""
    rows = [
        {first: name.replace("_", " "), **spread("value", interval)}
        for name, interval in intervals.items()
    ]
    return pd.DataFrame(rows)


def spread(name: str, value: Any) -> dict[str, float | None]:
    """Return the columns of a value with its interval (or None, for not known)."""
    low, high = (None, None) if value is None else (value.low, value.high)
    return {name: None if value is None else value.value, f"{name}_low": low, f"{name}_high": high}


def percent(value: float) -> str:
    """Return a share in per cent.

    Examples:
        >>> percent(0.8472)
        '84.7 %'
    """
    return f"{100 * value:.1f} %"


def percent_range(interval: Any) -> str:
    """Return the interval of a share in per cent.

    Examples:
        >>> from naevus.evaluation.intervals import Interval
        >>> percent_range(Interval(0.84, 0.826, 0.853))
        '82.6 to 85.3'
    """
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
