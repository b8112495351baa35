"""What can go wrong, in words a user can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class NaevusError(Exception):
    """Base of every failure a user can cause or mend.

    The command prints it as one line: what was wrong, where, and what to do.

    Args:
        message: What was wrong, naming the file or value.
        remedy: What to do about it, as an imperative sentence without a full stop.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class ImageError(NaevusError):
    """An image or mask file that cannot be used; ``path`` names it."""

    def __init__(self, path: Path, problem: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {problem}", remedy)
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it travel to another process: what it was made of is not what it says."""
        return type(self), (self.path, self.problem, self.remedy)


class DataError(NaevusError):
    """A folder or table of images that contradicts itself or is not understood."""


class FoldsError(DataError):
    """Folds that do not belong to the data they are used with."""


class ConfigError(NaevusError):
    """A setting that does not exist, or a value it cannot take."""


class WeightsError(NaevusError):
    """Pretrained weights that cannot be had or do not fit."""


class RunError(NaevusError):
    """A run folder that is incomplete or was made with other settings."""


class BundleError(NaevusError):
    """A bundle that is damaged, incomplete or of another schema."""


class SubmissionError(NaevusError):
    """A submission or truth that the challenge's scorer refuses."""
