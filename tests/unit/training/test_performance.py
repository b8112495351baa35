"""Number formats: bf16 where it is fast; networks prepared for it compute what they computed."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from naevus.training.performance import prepare_network, resolve


def network() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=7)
    return made.train().to(memory_format=torch.channels_last)


def slopes(layers: nn.Module) -> tuple[Tensor, list[Tensor]]:
    chance = torch.Generator().manual_seed(1)
    pictures = torch.rand(4, 3, 64, 64, generator=chance)
    answers = layers(pictures)
    answers.float().square().sum().backward()
    return answers, [weight.grad for weight in layers.parameters() if weight.grad is not None]


def test_in_fp32_a_prepared_network_is_the_same_to_the_last_bit() -> None:
    plain, prepared = network(), network()
    prepare_network(prepared, "bf16-mixed")
    assert list(plain.state_dict()) == list(prepared.state_dict())
    (answers, gradients), (others, other_gradients) = slopes(plain), slopes(prepared)
    assert torch.equal(answers, others)
    assert len(gradients) == len(other_gradients) == len(list(plain.parameters()))
    assert all(map(torch.equal, gradients, other_gradients))


def test_activations_no_longer_copy_what_they_are_given() -> None:
    prepared = network()
    assert any(module.inplace for module in prepared.modules() if isinstance(module, nn.ReLU6))
    prepare_network(prepared, "32-true")
    assert not any(module.inplace for module in prepared.modules() if isinstance(module, nn.ReLU6))


def test_a_gpu_has_no_need_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    prepared = network()
    prepare_network(prepared, "bf16-mixed")
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
