"""Limit the instruction set that OpenVINO may use.

OpenVINO's layers come from oneDNN, which reads an environment variable on first use. The limit
holds for the whole process.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Final

from naevus.runs.environment import processor

SWITCH: Final = "ONEDNN_MAX_CPU_ISA"
"""The environment variable with the highest allowed instruction set, such as ``AVX2``."""
_READERS: Final = frozenset({"openvino", "torch"})
"""Packages that read the variable when they are imported."""


_held: list[str] = []


def limit() -> str | None:
    """Return this process's limit, set by the user or by `hold`; None: no limit."""
    return os.environ.get(SWITCH) or None


def users_limit() -> str | None:
    """Return the limit set by the user; None: no limit."""
    return None if held() else limit()


def held() -> str | None:
    """Return the limit set by `hold`, if it is still in force."""
    return _held[-1] if _held and limit() == _held[-1] else None


def settable() -> bool:
    """Return whether the limit can still be set: it is neither set nor read yet."""
    return limit() is None and not _READERS.intersection(sys.modules)


def hold(to: str | None) -> None:
    """Limit this process to an instruction set, if that is still possible."""
    if to is not None and settable():
        os.environ[SWITCH] = to
        _held.append(to)


def environment(to: str | None) -> dict[str, str]:
    """Return the environment of a process with a limit; None: the user's own limit."""
    variables = dict(os.environ)
    if held():
        del variables[SWITCH]
    return variables if to is None else variables | {SWITCH: to}


def limits() -> tuple[str | None, ...]:
    """Return the limits that are worth trying here, no limit first.

    With matrix instructions (AMX), OpenVINO may be slower or reject the graph. On other processors
    no limit was found to help.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return (None,)
    _, able = processor()
    return (None, "AVX512_CORE_FP16") if not able or "amx_tile" in able else (None,)


def has_bf16() -> bool:
    """Return whether to try bf16: the processor supports it, or its features are unknown."""
    _, able = processor()
    return not able or bool(able & {"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"})
