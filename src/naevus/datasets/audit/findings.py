"""What an audit finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """Something wrong with the data.

    ``error``: it cannot be used, or results made from it would be wrong; ``warning``: worth a look.
    """

    kind: str
    severity: Severity
    subject: str
    detail: str
