"""Number formats: bf16 where it is fast, fp32 for depthwise convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from naevus.training.precision import keep_depthwise_fp32, resolve


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),  # depthwise
        nn.Conv2d(8, 8, 3, groups=2),  # grouped, not depthwise
        Conv2dSame(8, 16, 3, stride=2, groups=8),  # depthwise with two filters a channel
        nn.Conv2d(16, 1, 1),
        nn.Conv2d(1, 1, 1),  # one channel is no depthwise convolution
    )


def formats(layers: nn.Sequential) -> list[torch.dtype]:
    found: list[torch.dtype] = []

    def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output.dtype)

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.autocast("cpu", torch.bfloat16):
        layers(torch.rand(2, 3, 16, 16))
    for hook in hooks:
        hook.remove()
    return found


def test_depthwise_stays_fp32_and_the_rest_becomes_bf16() -> None:
    layers = network()
    half, full = torch.bfloat16, torch.float32
    assert formats(layers) == [half] * 6
    keep_depthwise_fp32(layers)
    assert formats(layers) == [half, full, half, full, half, half]


def test_fp32_outside_autocast_is_unchanged() -> None:
    plain, kept = network(), network()
    keep_depthwise_fp32(kept)
    pictures = torch.rand(2, 3, 16, 16)
    assert torch.equal(plain(pictures), kept(pictures))
    assert list(plain.state_dict()) == list(kept.state_dict())


def test_gradients_reach_depthwise_weights_in_fp32() -> None:
    layers = network()
    keep_depthwise_fp32(layers)
    with torch.autocast("cpu", torch.bfloat16):
        layers(torch.rand(2, 3, 16, 16)).float().sum().backward()
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32
        assert layer.weight.grad.abs().sum() > 0


def test_a_copy_computes_with_its_own_weights() -> None:
    layers = network()
    keep_depthwise_fp32(layers)
    average = copy.deepcopy(layers)
    pictures = torch.rand(2, 3, 16, 16)
    before = average(pictures)
    with torch.no_grad():
        for weight in layers.parameters():
            weight.zero_()
    assert torch.equal(average(pictures), before)
    assert not torch.equal(layers(pictures), before)


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx2": True}, "32-true"),
        ({"avx2": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": False}, "32-true"),
    ],
)
def test_auto_is_what_the_processor_can_do(
    able: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve("auto") == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_on_a_gpu_asks_the_gpu(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert resolve("auto") == expected


def test_what_is_asked_for_is_done() -> None:
    assert resolve("32") == "32-true"
    assert resolve("bf16") == "bf16-mixed"
