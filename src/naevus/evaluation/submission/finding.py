"""What a linter says of a submission."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Consequence = Literal["refused", "loses points", "tidy"]
"""What follows if it is left: nothing is scored; something scores less than it would, silently;
the scorer does not mind, but the challenge's rules or a reader do."""


@dataclass(frozen=True)
class Finding:
    """One thing to mend in a submission."""

    kind: str
    consequence: Consequence
    subject: str
    """The file, column or image it is about."""
    detail: str
    remedy: str
