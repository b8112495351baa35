"""Number formats: bf16 where the processor computes in it, fp32 elsewhere."""

from __future__ import annotations

from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn

from naevus.training.depthwise import speed_up_depthwise

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


def fabric_for(network: nn.Module, precision: FabricPrecision) -> Fabric:
    """Return what trains a network in a precision, after preparing the network for it."""
    prepare_network(network, precision)
    return Fabric(precision=precision, devices="auto" if torch.cuda.is_available() else 1)


def prepare_network(network: nn.Module, precision: FabricPrecision) -> None:
    """Make training steps faster on the CPU; what the network computes without autocast stays.

    Under autocast to bf16 depthwise convolutions go their own ways
    (`naevus.training.depthwise`). Activations whose gradient needs their input keep it instead of
    changing it in place: torch would copy it first. On a GPU nothing is done.
    """
    if torch.cuda.is_available():
        return
    for module in network.modules():
        if isinstance(module, (nn.Hardtanh, nn.Hardswish, nn.SiLU)):
            module.inplace = False
    if precision == "bf16-mixed":
        speed_up_depthwise(network)
