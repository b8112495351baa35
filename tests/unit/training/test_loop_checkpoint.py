"""Checkpoints: everything is restored, damage and other networks are errors, nothing is pickled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from naevus.errors import NaevusError, RunError
from naevus.runs.recipe_tables import OptimiserSettings
from naevus.training import loop
from naevus.training.loop import (
    load_checkpoint,
    load_network,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from naevus.training.optim import make_optimiser

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer

OPTIMISERS = {
    "adamw": OptimiserSettings(),
    "adam": OptimiserSettings(name="adam"),
    "sgd": OptimiserSettings(name="sgd", momentum=0.9),
    "sgd without momentum": OptimiserSettings(name="sgd", momentum=0),
}


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 2)
    )


def learn(net: nn.Module, optimiser: Optimizer, steps: int = 3) -> None:
    """Train on images from torch's global random state, which dropout uses too."""
    for _ in range(steps):
        net(torch.rand(5, 3)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("recipe", OPTIMISERS.values(), ids=OPTIMISERS)
def test_a_job_resumes_exactly_where_it_stopped(recipe: OptimiserSettings, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net, average = network(), network()
    optimiser = make_optimiser(net, recipe)
    learn(net, optimiser)
    path = tmp_path / "checkpoint.safetensors"
    header = {"epoch": 3, "best": 0.1 + 0.2, "plateau": {"worst": float("-inf")}, "history": [{}]}
    save_checkpoint(path, {"network": net, "average": average}, optimiser, header)
    learn(net, optimiser)

    torch.manual_seed(2)
    net_2, average_2 = network(), network()
    optimiser_2 = make_optimiser(net_2, recipe)
    found = load_checkpoint(path, {"network": net_2, "average": average_2}, optimiser_2)
    assert found == header
    assert same(average.state_dict(), average_2.state_dict())
    assert not same(net.state_dict(), net_2.state_dict())
    learn(net_2, optimiser_2)
    assert same(net.state_dict(), net_2.state_dict())


@pytest.mark.parametrize("kind", ["absent", "empty", "short", "garbage", "without header"])
def test_a_damaged_checkpoint_is_an_error(
    kind: Literal["absent", "empty", "short", "garbage", "without header"], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    net = network()
    save_checkpoint(path, {"network": net}, make_optimiser(net, OptimiserSettings()), {})
    content = path.read_bytes()
    path.unlink()
    if kind == "without header":
        save_file({"weight": torch.ones(1)}, path)
    elif kind != "absent":
        damaged = {"empty": b"", "short": content[:-7], "garbage": bytes(range(256)) * 4}
        path.write_bytes(damaged[kind])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: unreadable checkpoint"):
        load_checkpoint(path, {"network": net}, make_optimiser(net, OptimiserSettings()))
    with pytest.raises(RunError, match="unreadable checkpoint"):
        load_network(path, net)


@pytest.mark.parametrize("other", [network(5), nn.Linear(3, 2)], ids=["wider", "another"])
def test_weights_of_another_network_are_refused(other: nn.Module, tmp_path: Path) -> None:
    net = network()
    path, weights = tmp_path / "checkpoint.safetensors", tmp_path / "weights.safetensors"
    save_checkpoint(path, {"network": net}, make_optimiser(net, OptimiserSettings()), {})
    save_tensors(weights, net.state_dict(), {})
    with pytest.raises(RunError, match="checkpoint of another network"):
        load_checkpoint(path, {"network": other}, make_optimiser(other, OptimiserSettings()))
    with pytest.raises(RunError, match="does not fit this network"):
        load_network(weights, other)


def test_weights_alone_can_be_loaded(tmp_path: Path) -> None:
    net, other = network(), network()
    save_tensors(tmp_path / "w.safetensors", net.state_dict(), {"fold": 2})
    assert not same(net.state_dict(), other.state_dict())
    load_network(tmp_path / "w.safetensors", other)
    assert same(net.state_dict(), other.state_dict())
    assert load_tensors(tmp_path / "w.safetensors")[1] == {"fold": 2}


def test_nothing_is_pickled(tmp_path: Path) -> None:
    net = network()
    optimiser = make_optimiser(net, OptimiserSettings())
    learn(net, optimiser)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"network": net}, optimiser, {"epoch": 1})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header.pop("__metadata__")["json"])["epoch"] == 1
    ends = [entry["data_offsets"][1] for entry in header.values()]
    assert max(ends) == len(content) - 8 - length  # numbers of known format, and nothing else
    assert {entry["dtype"] for entry in header.values()} <= {"F32", "I64", "U8"}
    assert "random" in header


def test_a_failed_write_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, network().state_dict(), {"fold": 0})
    before = path.read_bytes()

    def full(_tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "save_file", full)
    with pytest.raises(NaevusError, match="No space left"):
        save_tensors(path, network().state_dict(), {"fold": 1})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
