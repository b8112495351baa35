"""Figures that are the same bits whatever number of threads linear algebra has."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    P = ParamSpec("P")
    R = TypeVar("R")


def repeatable(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function have one thread for linear algebra, as the order of its sums hangs on threads.

    Sums of a bootstrap differed by some 1e-16 between one thread and two.
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 (looks at what is loaded)

        with threadpool_limits(1):
            return function(*args, **kwargs)

    return alone
