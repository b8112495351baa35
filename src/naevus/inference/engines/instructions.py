"""Which of the processor's instructions OpenVINO may use, and what is known of the processor.

OpenVINO's layers come from oneDNN, which reads an environment variable when it is first used. It
holds for the whole process.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Final

SWITCH: Final = "ONEDNN_MAX_CPU_ISA"
"""The environment variable: the most that may be used, such as ``AVX2``."""
_READERS: Final = frozenset({"openvino", "torch"})
"""What has read the variable, once it is imported."""
_CPUINFO: Final = Path("/proc/cpuinfo")


_held: list[str] = []


def limit() -> str | None:
    """Return what this process is held to, by its user or by `hold`; None: everything is used."""
    return os.environ.get(SWITCH) or None


def users_limit() -> str | None:
    """Return what the user holds this process to; None: nothing said."""
    return None if held() else limit()


def held() -> str | None:
    """Return what `hold` has held this process to."""
    return _held[-1] if _held and limit() == _held[-1] else None


def settable() -> bool:
    """Tell whether this process may still be held to less: nobody has chosen, or has read it."""
    return limit() is None and not _READERS.intersection(sys.modules)


def hold(to: str | None) -> None:
    """Hold this process to some instructions, where that is still possible."""
    if to is not None and settable():
        os.environ[SWITCH] = to
        _held.append(to)


def environment(to: str | None) -> dict[str, str]:
    """Return the environment of a process that is held so; None: as the user wants it."""
    variables = dict(os.environ)
    if held():
        del variables[SWITCH]
    return variables if to is None else variables | {SWITCH: to}


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name, and what it can do; nothing where the system tells neither."""
    name, able = f"{platform.system()} {platform.machine()} {platform.processor()}", ""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return name, frozenset()
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = f"{name} {value}"
        elif key.lower() in {"flags", "features"}:
            able = value
            break
    return name, frozenset(able.split())


def limits() -> tuple[str | None, ...]:
    """Return what is worth trying here, no limit first.

    Where there are matrix instructions (AMX), OpenVINO uses them for what they slow down, or
    refuses the graph. Nowhere else was a limit seen to pay.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return (None,)
    _, able = processor()
    return (None, "AVX512_CORE_FP16") if not able or "amx_tile" in able else (None,)


def has_bf16() -> bool:
    """Tell whether bf16 is worth trying: the processor has it, or the system does not tell."""
    _, able = processor()
    return not able or bool(able & {"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"})
