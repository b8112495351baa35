"""Errors that users can act on: each message names the problem and its remedy."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails


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

    @classmethod
    def of_line(cls, path: Path, line: str) -> Self:
        """Return the error of a failed image, whose problem and remedy are one line.

        Examples:
            >>> from pathlib import Path
            >>> ImageError.of_line(Path("a.jpg"), "is empty; fetch it again").remedy
            'fetch it again'
        """
        problem, _, remedy = line.rpartition("; ")
        return cls(path, problem, remedy) if problem else cls(path, line)

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


_KINDS: Final = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("model_type", "dict_type"), "a table"),
    "tuple_type": 'a list, such as ["a", "b"] or [1, 2]',
    "string_type": "text in quotes",
}
"""What a value must be, by Pydantic's type of problem."""


def reason(problem: ErrorDetails, names: Mapping[str, str]) -> str:
    """Return what is wrong with a setting, in words for the author of a TOML file.

    Args:
        problem: The problem that Pydantic found.
        names: The settings to suggest for an unknown one: full names by name.
    """
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), names, 1)
        return "there is no such setting" + (f" (did you mean {names[near[0]]}?)" if near else "")
    if problem["type"] == "missing":
        return "is missing"
    expected = problem["msg"].removeprefix("Input should be ")
    if expected == problem["msg"]:
        return expected.removeprefix("Value error, ")
    given = json.dumps(problem["input"], ensure_ascii=False, default=str)
    return f"must be {_KINDS.get(problem['type'], expected)}, not {given}"
