"""Errors that users can act on: each message names the problem and its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class NaevusError(Exception):
    """Base class of every error that a user can cause or fix.

    The command line prints it as one line: the problem, its place and the remedy.

    Args:
        message: The problem, with the name of the file or value.
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
        """Pickle the constructor's arguments: they differ from the message in ``args``."""
        return type(self), (self.path, self.problem, self.remedy)


class DataError(NaevusError):
    """A data folder or table that is inconsistent or has an unknown format."""


class FoldsError(DataError):
    """Folds that do not belong to the data they are used with."""


class ConfigError(NaevusError):
    """An unknown setting, or an invalid value of one."""


class WeightsError(NaevusError):
    """Pretrained weights that are unavailable or do not fit the network."""


class RunError(NaevusError):
    """A run folder that is incomplete or was created with other settings."""


class BundleError(NaevusError):
    """A bundle that is damaged, incomplete or has another schema."""


class SubmissionError(NaevusError):
    """A submission or ground truth that the challenge's scorer rejects."""
