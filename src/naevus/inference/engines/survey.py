"""Which engines there are on this machine, and which one runs graphs unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from naevus.errors import ConfigError
from naevus.inference.engines.onnxruntime import CPU, CUDA, import_onnxruntime
from naevus.inference.engines.openvino import core, import_openvino, precisions

if TYPE_CHECKING:
    from naevus.types import EngineName

DEFAULT: Final[EngineName] = "openvino"
"""What runs graphs unless another engine is named, on every machine alike."""


class Found(NamedTuple):
    """An engine as it is on this machine.

    Attributes:
        name: As ``--engine`` takes it.
        version: None where it is not installed.
        devices: What it can run on, the one it takes first.
        precisions: What it computes in, the default first.
        chosen: Whether it runs graphs unless another is named.
        why: Why it is chosen or not, in a sentence.
    """

    name: EngineName
    version: str | None
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    chosen: bool
    why: str


def survey() -> tuple[Found, ...]:
    """Look at every engine that naevus knows."""
    return _openvino(), _onnxruntime()


def _openvino() -> Found:
    computes = precisions()
    bf16 = (
        "f32, or bf16 where a bundle was measured to bear it and that is tried to be faster"
        if "bf16" in computes
        else "f32: this processor has no instructions for bf16"
    )
    return Found(
        "openvino",
        import_openvino().get_version().partition("-")[0],
        (f"CPU ({core().get_property('CPU', 'FULL_DEVICE_NAME')})",),
        computes,
        chosen=True,
        why="Part of the base install, and the fastest on a CPU. Computes in "
        f"{bf16}. Graphs stored in 8 bits are computed in them.",
    )


def _onnxruntime() -> Found:
    try:
        onnxruntime = import_onnxruntime()
    except ConfigError as error:
        return Found("onnxruntime", None, (), (), chosen=False, why=f"{error}.")
    available = onnxruntime.get_available_providers()
    devices = tuple(
        name for provider, name in ((CUDA, "CUDA"), (CPU, "CPU")) if provider in available
    )
    why = (
        "Runs on the GPU: name it with --engine onnxruntime."
        if CUDA in available
        else "No CUDA here, and on a CPU slower than OpenVINO: taken where that fails, or by name."
    )
    return Found("onnxruntime", onnxruntime.__version__, devices, ("f32",), chosen=False, why=why)
