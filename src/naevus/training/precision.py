"""Number formats: bf16 where the processor computes in it, fp32 elsewhere."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

FabricPrecision = Literal["bf16-mixed", "32-true"]


def resolve(precision: Literal["auto", "32", "bf16"]) -> FabricPrecision:
    """Return Fabric's name for a precision.

    ``auto`` is bf16 on GPUs and CPUs that have instructions for it. Without them torch imitates
    bf16: on a processor with AVX2 alone a U-Net trained 7 times slower in it than in fp32.
    """
    if precision == "auto":
        if torch.cuda.is_available():
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = torch.cpu.get_capabilities()
            native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
        precision = "bf16" if native else "32"
    return "bf16-mixed" if precision == "bf16" else "32-true"


def keep_depthwise_fp32(network: nn.Module) -> None:
    """Make depthwise convolutions compute in fp32 under autocast.

    On the CPU torch's bf16 backward of depthwise convolutions is several times slower than fp32.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            # Bound to the module: a copy of the network must compute with its own weights.
            module.forward = MethodType(_in_fp32, module)  # type: ignore[method-assign]


def _in_fp32(module: nn.Conv2d, pictures: Tensor) -> Tensor:
    with torch.autocast(pictures.device.type, enabled=False):
        return type(module).forward(module, pictures.float())
