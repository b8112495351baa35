"""Precision: bf16 where it is fast, without changing results in fp32."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from naevus.training.performance import prepare_network, resolve, speed_up_depthwise

if TYPE_CHECKING:
    from collections.abc import Callable


def network() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=7)
    return made.train().to(memory_format=torch.channels_last)


def slopes(layers: nn.Module) -> tuple[Tensor, list[Tensor]]:
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 64, 64, generator=rng)
    predictions = layers(images)
    predictions.float().square().sum().backward()
    return predictions, [weight.grad for weight in layers.parameters() if weight.grad is not None]


def test_in_fp32_a_prepared_network_is_the_same_to_the_last_bit() -> None:
    plain, prepared = network(), network()
    prepare_network(prepared, "bf16-mixed")
    assert list(plain.state_dict()) == list(prepared.state_dict())
    (predictions, gradients), (others, other_gradients) = slopes(plain), slopes(prepared)
    assert torch.equal(predictions, others)
    assert len(gradients) == len(other_gradients) == len(list(plain.parameters()))
    assert all(map(torch.equal, gradients, other_gradients))


def test_activations_no_longer_copy_their_inputs() -> None:
    prepared = network()
    assert any(module.inplace for module in prepared.modules() if isinstance(module, nn.ReLU6))
    prepare_network(prepared, "32-true")
    assert not any(module.inplace for module in prepared.modules() if isinstance(module, nn.ReLU6))


def test_a_gpu_does_not_need_it() -> None:
    prepared = network()
    prepare_network(prepared, "bf16-mixed", "cuda")
    assert not any("forward" in vars(module) for module in prepared.modules())
    assert any(module.inplace for module in prepared.modules() if isinstance(module, nn.ReLU6))


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx2": True}, "32-true"),
        ({"avx2": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": False}, "32-true"),
    ],
)
def test_auto_is_the_precision_that_the_processor_supports(
    able: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve("auto") == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_on_a_gpu_depends_on_the_gpu(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert resolve("auto", "cuda") == expected


def test_a_requested_precision_is_used() -> None:
    assert resolve("32") == "32-true"
    assert resolve("bf16") == "bf16-mixed"


CHANNELS = 8
LAYERS: dict[str, Callable[..., nn.Conv2d]] = {
    f"{kernel} x {kernel}, stride {stride}, dilation {dilation}, {name}": partial(
        kind, CHANNELS, CHANNELS, kernel, stride=stride, dilation=dilation, groups=CHANNELS
    )
    for kernel in (3, 5)
    for stride, dilation in ((1, 1), (2, 1), (1, 2), (2, 2))
    for name, kind in (
        ("padded", partial(nn.Conv2d, padding=kernel // 2)),
        ("unpadded", nn.Conv2d),
        ("as in TensorFlow", Conv2dSame),
    )
}


LAYERS |= {
    "a kernel of two sides": partial(
        nn.Conv2d, CHANNELS, CHANNELS, (3, 7), padding=(1, 3), stride=(2, 1), groups=CHANNELS
    ),
    "without bias": partial(
        nn.Conv2d, CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS, bias=False
    ),
}


LEFT_ALONE: dict[str, nn.Conv2d] = {
    "grouped": nn.Conv2d(8, 8, 3, groups=2),
    "two filters a channel": nn.Conv2d(8, 16, 3, groups=8),
    "one channel": nn.Conv2d(1, 1, 3),
    "mirrored at the border": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", groups=8),
    "padded by a word": nn.Conv2d(8, 8, 3, padding="same", groups=8),
}


def layer(make: Callable[..., nn.Conv2d]) -> nn.Conv2d:
    torch.manual_seed(0)
    made = make()
    with torch.no_grad():  # the same in every precision
        for weight in made.parameters():
            weight.copy_(weight.bfloat16())
    return made


def images() -> Tensor:
    values = torch.rand(4, CHANNELS, 18, 22, generator=torch.Generator().manual_seed(1)) - 0.5
    return values.bfloat16().float().contiguous(memory_format=torch.channels_last)


def outcome(filters: nn.Conv2d, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a layer's output, and the gradients of a loss with random output gradients."""
    seen = images().to(dtype).requires_grad_()
    predictions = filters(seen)
    slope = torch.rand(predictions.shape, generator=torch.Generator().manual_seed(2)) - 0.5
    (predictions.float() * slope.bfloat16().float()).sum().backward()
    found = {"answers": predictions, "input": seen.grad, "weight": filters.weight.grad}
    if filters.bias is not None:
        found["bias"] = filters.bias.grad
    assert all(value is not None for value in found.values())
    return {name: value.detach() for name, value in found.items() if value is not None}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_predictions_and_gradients_are_those_of_fp32(make: Callable[..., nn.Conv2d]) -> None:
    expected = outcome(layer(make), torch.float32)
    fast = layer(make)
    speed_up_depthwise(fast)
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(fast, torch.bfloat16)
    assert found["answers"].dtype == found["input"].dtype == torch.bfloat16
    assert found["weight"].dtype == torch.float32
    for name, value in expected.items():
        # bf16 has 8 bits: each value is rounded once, sums over images are exact enough.
        margin = 2**-7 * value.abs().max().item()
        torch.testing.assert_close(found[name].float(), value, atol=margin, rtol=0)


def test_a_wrong_gradient_would_be_detected() -> None:
    """A flipped or shifted kernel changes results by far more than the tolerance above."""
    weight = outcome(layer(LAYERS["5 x 5, stride 1, dilation 1, padded"]), torch.float32)["weight"]
    margin = 2**-7 * weight.abs().max()
    assert (weight - weight.flip(-1)).abs().max() > 10 * margin
    assert (weight - weight.roll(1, -1)).abs().max() > 10 * margin


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_without_autocast_nothing_changes(make: Callable[..., nn.Conv2d]) -> None:
    plain, fast = layer(make), layer(make)
    speed_up_depthwise(fast)
    expected, found = outcome(plain, torch.float32), outcome(fast, torch.float32)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("other", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_other_convolutions_are_unchanged(other: nn.Conv2d) -> None:
    speed_up_depthwise(other)
    assert "forward" not in vars(other)


@pytest.mark.parametrize("frozen", ["weight", "input"])
def test_only_required_gradients_are_computed(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filters = layer(LAYERS["5 x 5, stride 1, dilation 1, padded"])
    speed_up_depthwise(filters)
    seen = images().requires_grad_(frozen == "weight")
    filters.weight.requires_grad_(frozen == "input")
    name = "_weight_gradient" if frozen == "weight" else "_input_gradient"

    def unwanted(*_: object) -> None:
        pytest.fail("computed for nothing")

    monkeypatch.setattr(f"naevus.training.performance.{name}", unwanted)
    with torch.autocast("cpu", torch.bfloat16):
        filters(seen).float().sum().backward()
    assert (seen.grad is None) == (frozen == "input")
    assert (filters.weight.grad is None) == (frozen == "weight")


def test_a_copy_computes_with_its_own_weights() -> None:
    filters = layer(LAYERS["3 x 3, stride 1, dilation 1, padded"])
    speed_up_depthwise(filters)
    average = copy.deepcopy(filters)
    with torch.autocast("cpu", torch.bfloat16):
        before = average(images())
        with torch.no_grad():
            for weight in filters.parameters():
                weight.zero_()
        assert torch.equal(average(images()), before)
        assert not torch.equal(filters(images()), before)


def test_the_same_batch_gives_the_same_bits() -> None:
    """An interrupted and resumed job ends with the same weights."""
    for make in LAYERS.values():
        first, again = layer(make), layer(make)
        for filters in (first, again):
            speed_up_depthwise(filters)
        with torch.autocast("cpu", torch.bfloat16):
            found, others = (outcome(filters, torch.bfloat16) for filters in (first, again))
        assert all(torch.equal(value, others[name]) for name, value in found.items())
