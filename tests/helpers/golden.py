"""Results of the official scorer and of naevus in the same format."""

from __future__ import annotations

from typing import Any


def flat(scores: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Join keys by slashes; leave out notes, which the official tool does not have."""
    result: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}/")
        elif key != "notes":
            result[prefix + key] = value
    return result
