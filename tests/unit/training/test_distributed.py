"""Devices, settings and exchange of processes that train together; several run in `integration`."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
import pytest
import torch
from lightning_utilities.core import rank_zero

from naevus.errors import ConfigError, RunError
from naevus.io.parallel import cpu_count
from naevus.io.torchrun import Launch
from naevus.runs.environment import environment
from naevus.runs.recipe import Recipe
from naevus.training import distributed
from naevus.training.distributed import Processes, make_fabric, open_processes

RECIPE = Recipe.model_validate({"task": "classification", "precision": "32"})


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = ("0", str(world), "0", str(world), "127.0.0.1", "29500")
    for name, value in zip(names, values, strict=True):
        monkeypatch.setenv(name, value)


def test_one_process_keeps_what_it_has() -> None:
    processes = Processes(make_fabric(RECIPE, "cpu"))
    logits, targets = torch.rand(3, 2), torch.tensor([0, 1, 1])
    assert processes.is_first
    assert processes.threads == cpu_count()
    assert [each is logits for each in processes.gather(logits)] == [True]
    whole = processes.whole_batch(logits, targets)
    assert whole[0] is logits
    assert whole[1] is targets
    assert processes.first(lambda: 7) == 7
    assert processes.of_first({"score": 0.1}) == {"score": 0.1}
    assert processes.join_batches([(logits, targets)], 3, 3) == [(logits, targets)]
    table = processes.table(["b"], lambda ids: pd.DataFrame({"image_id": ids}))
    assert table["image_id"].tolist() == ["b"]
    state = torch.get_rng_state()
    processes.seed(1, 2)  # the checkpoint keeps the state of random numbers
    assert torch.equal(state, torch.get_rng_state())


def test_lightning_does_not_name_the_precision_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(rank_zero.log, "handle", lambda record: lines.append(record.getMessage()))
    logging.getLogger("lightning_fabric").setLevel(logging.INFO)  # as when it is imported
    rank_zero.rank_zero_info("heard")
    make_fabric(RECIPE.model_copy(update={"precision": "bf16"}), "cpu")
    assert lines == ["heard"]


@pytest.mark.parametrize("device", ["gpu", "auto:0", "cpu:0", "cuda:", "cuda:x", "cuda:-1", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="no device is called"):
        make_fabric(RECIPE, device)


@pytest.mark.parametrize(("device", "needed"), [("cuda", 1), ("cuda:0", 1), ("cuda:3", 4)])
def test_a_missing_gpu_is_one_line(
    device: str, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"needs {needed} .* torch finds 0; use --device cpu"):
        make_fabric(RECIPE, device)
    assert make_fabric(RECIPE, "auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "processes", "words"),
    [("cuda", 3, "needs 3 of this machine's GPUs, but torch finds 2"), ("cuda:1", 2, "is one GPU")],
)
def test_processes_need_a_gpu_each(
    device: str, processes: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=words):
        make_fabric(RECIPE, device, Launch(0, processes, 0, processes))


@pytest.mark.parametrize(
    ("world", "settings", "words"),
    [
        (1, {"network": {"sync_batch_norm": True}}, "there is one process; leave"),
        (2, {"network": {"sync_batch_norm": True}}, "torch has it for GPUs only; leave"),
        (2, {"batch_size": 3}, "batch_size 3 is less than two images for each of 2 processes"),
        (9, {"batch_size": 17}, "for each of 9 processes"),
    ],
)
def test_settings_that_processes_cannot_have_are_refused(
    world: int, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world > 1:
        start(monkeypatch, world)
    recipe = Recipe.model_validate({"task": "classification", **settings})
    with pytest.raises(ConfigError, match=words), open_processes(recipe, device="cpu"):
        pass


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_are_set_if_they_are_given(threads: int | None) -> None:
    before = torch.get_num_threads()
    try:
        with open_processes(RECIPE, device="cpu", threads=threads):
            assert torch.get_num_threads() == (threads or before)
            assert environment()["threads"] == str(threads or 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:543] Connection closed by peer"), RunError),
        (torch.distributed.DistNetworkError("gone"), RunError),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ],
)
def test_the_loss_of_another_process_is_one_line(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(monkeypatch, 2)
    threads = torch.get_num_threads()

    class Still:
        device = torch.device("cpu")
        global_rank, world_size = 0, 2

        def launch(self) -> None:
            pass

    monkeypatch.setattr(distributed, "make_fabric", lambda *_: Still())
    monkeypatch.setattr(distributed, "_connect", lambda *_: None)
    try:
        with pytest.raises(kind) as raised, open_processes(RECIPE):
            raise error
    finally:
        torch.set_num_threads(threads)
    if kind is RunError:
        assert "process 0 has lost another process" in str(raised.value)
