"""Dermoscopic images to lesion masks, crops, diagnoses and scores. Research use only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naevus.errors import NaevusError

if TYPE_CHECKING:
    from naevus.inference.predictor import load

__all__ = ["NaevusError", "__version__", "load"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Fetch `load` when it is first asked for: importing naevus stays instant."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from naevus.inference.predictor import load  # noqa: PLC0415 (slow to import)

    return load


def __dir__() -> list[str]:
    return sorted([*globals(), "load"])
