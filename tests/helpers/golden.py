"""Results of the official scorer and ours in one shape."""

from __future__ import annotations

from typing import Any


def flat(scores: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Keys joined by slashes; what the official tool does not have, the notes, is left out."""
    result: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}/")
        elif key != "notes":
            result[prefix + key] = value
    return result
