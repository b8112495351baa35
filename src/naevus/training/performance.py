"""Training speed: precision, depthwise convolutions in bf16, reuse of memory."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


# Faster gradients of depthwise convolutions in bf16 on the CPU.
#
# In bf16 on the CPU, torch computes two gradients of a depthwise convolution slowly: that of the
# input at strides above 1 (ten times the fp32 time), and that of the weight for kernels above
# 3 x 3 (four to six times). Here the first is computed in fp32, the second as another convolution.

_LARGEST_USUAL = 3
"""Side of the largest kernel whose weight gradient torch computes fast in bf16."""


class _Steps(NamedTuple):
    """Stride, padding and dilation of a convolution, by axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def speed_up_depthwise(network: nn.Module) -> None:
    """Use this module's gradients in depthwise convolutions under autocast to bf16.

    Applies to torch's own convolutions and to timm's with TensorFlow padding; all others, and
    computation without autocast, are unchanged.
    """
    for module in network.modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and _is_depthwise(module):
            # Bound to the module, so that a copy of the network uses its own weights.
            module.forward = MethodType(_forward, module)


def _is_depthwise(module: Any) -> bool:
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _forward(module: nn.Conv2d, images: Tensor) -> Tensor:
    device = images.device.type
    if not torch.is_autocast_enabled(device):
        return type(module).forward(module, images)
    images = images.to(torch.get_autocast_dtype(device))
    if isinstance(module, Conv2dSame):
        images = pad_same(
            images, list(module.kernel_size), list(module.stride), list(module.dilation)
        )
    assert not isinstance(module.padding, str)
    steps = _Steps(module.stride, module.padding, module.dilation)
    filtered: Tensor = _Depthwise.apply(images, module.weight, steps)
    return filtered if module.bias is None else filtered + module.bias[:, None, None].to(filtered)


class _Depthwise(torch.autograd.Function):
    """Filter each channel of N x C x H x W images with its own fp32 kernel, C x 1 x k x l."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, steps: _Steps) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.steps = steps
        return functional.conv2d(images, weight.to(images.dtype), None, *steps, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        to_images = to_weight = None
        if ctx.needs_input_grad[0]:
            to_images = _input_gradient(slope, images, weight, ctx.steps)
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(slope, images, weight, ctx.steps)
        return to_images, to_weight, None


def _input_gradient(slope: Tensor, images: Tensor, weight: Tensor, steps: _Steps) -> Tensor:
    dtype = images.dtype if max(steps.stride) == 1 else torch.float32
    # The gradient depends on the shape of the images, not on their values.
    found: Tensor = _gradients(slope.to(dtype), images.to(dtype), weight.to(dtype), steps, 0)
    return found.to(images.dtype)


def _weight_gradient(slope: Tensor, images: Tensor, weight: Tensor, steps: _Steps) -> Tensor:
    if max(weight.shape[2:]) <= _LARGEST_USUAL:
        return _gradients(slope, images, weight.to(slope.dtype), steps, 1).float()
    # The gradient is itself a depthwise convolution: every channel of every image is filtered with
    # its output gradient, with stride and dilation exchanged, and then summed over the images.
    count, channels = slope.shape[:2]
    flat, kernels = (_images_as_channels(tensor) for tensor in (images, slope))
    of_each = functional.conv2d(
        flat[None], kernels[:, None], None, steps.dilation, steps.padding, steps.stride, len(flat)
    )
    rows, columns = weight.shape[2:]
    of_each = of_each[0, :, :rows, :columns].reshape(count, channels, 1, rows, columns)
    return of_each.sum(0, dtype=torch.float32)


def _images_as_channels(images: Tensor) -> Tensor:
    """Reshape N x C x H x W to (N C) x H x W, channels last in memory."""
    return images.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1)


def _gradients(slope: Tensor, images: Tensor, weight: Tensor, steps: _Steps, wanted: int) -> Tensor:
    """Return torch's gradient of the input (0) or the weight (1)."""
    mask = [wanted == 0, wanted == 1, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        slope, images, weight, None, *steps, False, [0, 0], len(weight), mask
    )[wanted]
    return found


# Reuse of memory between steps.

# From glibc's <malloc.h>, with its default values.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TRIM_DEFAULT, _MMAP_DEFAULT = 128 * 1024, 65536


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for reuse within the block, and release it afterwards.

    Activations are blocks of tens of megabytes. By default glibc maps and unmaps each of them,
    and the kernel clears its pages every time, which takes a third of a training step on a CPU
    (``benchmarks/bench_training.py``). Has no effect with other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _MMAP_DEFAULT)
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_DEFAULT)
        libc.malloc_trim(0)


FabricPrecision = Literal["bf16-mixed", "32-true"]


def resolve(precision: Literal["auto", "32", "bf16"], device: str = "cpu") -> FabricPrecision:
    """Return Fabric's name for a precision on a kind of device, ``cpu`` or ``cuda``.

    ``auto`` is bf16 on GPUs and CPUs with native instructions for it. Elsewhere torch emulates
    bf16: on a processor with only AVX2, a U-Net trained 7 times slower than in fp32.
    """
    if precision == "auto":
        if device == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = torch.cpu.get_capabilities()
            native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
        precision = "bf16" if native else "32"
    return "bf16-mixed" if precision == "bf16" else "32-true"


def prepare_network(network: nn.Module, precision: FabricPrecision, device: str = "cpu") -> None:
    """Make training steps faster on the CPU, without changing results without autocast.

    Speeds up depthwise convolutions under autocast to bf16. Activations whose gradient needs
    their input do not work in place, because torch would copy the input first. Has no effect on
    a GPU.
    """
    if device == "cuda":
        return
    for module in network.modules():
        if isinstance(module, (nn.Hardtanh, nn.Hardswish, nn.SiLU)):
            module.inplace = False
    if precision == "bf16-mixed":
        speed_up_depthwise(network)
