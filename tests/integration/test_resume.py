"""Training that is killed with SIGKILL and resumed ends with identical weights."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.helpers.faults import Commands, Fault, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.slow

COMMON = ["--pretrained", "none", "--fold", "0"]
SETTINGS: dict[str, dict[str, object]] = {
    "classification": {
        "data.parts": ["task3"],
        "data.cache_size": 40,
        "sizes": [[0, 32]],
        "epochs": 2,
        "batch_size": 8,
        "workers": 1,
        "network.backbone": "test_efficientnet",
        "network.dropout": 0.3,
        "network.drop_path": 0.2,
        "optimiser.ema": 0.9,
        "checkpoint_seconds": 0,
    },
    "segmentation": {
        "data.parts": ["task1"],
        "data.cache_size": 32,
        "sizes": [[0, 16], [1, 32]],
        "epochs": 4,
        "batch_size": 8,
        "network.architecture": "plain-unet",
        "optimiser.name": "sgd",
        "optimiser.learning_rate": 0.05,
        "optimiser.schedule": "plateau",
        "optimiser.patience": 0,
        "optimiser.ema": 0,
        "select": "best",
        "checkpoint_seconds": 0,
    },
}
DECODER = "network.decoder={channels=[4, 8]}"
TRAINER, JOB = "naevus.training.loop:Trainer", "naevus.training.train"
STEPS = 6  # batches per epoch of the classification


def kill(function: str, number: int = 1, *, after: bool = False) -> Fault:
    """Return the kill at the ``number``-th call of a function."""
    return Fault(call=function, event=number, after=after)


EXPORT = kill(f"{JOB}:export_fold")  # takes longer than the training; its result follows from it


class Training:
    """Run ``naevus train``, each time in a process that may be killed."""

    def __init__(self, data: Path, folder: Path, commands: Commands) -> None:
        self.data, self.folder, self.commands = data, folder, commands

    def train(self, task: str, out: Path, fault: Fault | None, **changes: object) -> Outcome:
        settings = [
            f"{name}={json.dumps(value)}" for name, value in (SETTINGS[task] | changes).items()
        ]
        settings += [DECODER] if task == "segmentation" else []
        arguments = ["train", task, str(self.data), "--out", str(out), *COMMON]
        arguments += ["--cache", str(self.folder / "cache")]
        for setting in settings:
            arguments += ["--set", setting]
        return self.commands.run(arguments, out.with_name(f"{out.name}-work"), fault)


@pytest.fixture(scope="module")
def commands(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """The commands; the runs ``<task>`` in their folder were never interrupted."""
    with Commands("naevus.training.train") as forks:
        made = Training(synthetic, tmp_path_factory.mktemp("runs"), forks)
        assert made.train("classification", made.folder / "classification", None).code == 0
        ended = made.train("segmentation", made.folder / "segmentation", EXPORT)
        assert ended.code == -signal.SIGKILL
        yield made


def interrupted(
    commands: Training, task: str, out: Path, kills: Sequence[Fault], **changes: object
) -> None:
    """Train with several kills, up to the export."""
    for each in [*kills, EXPORT]:
        ended = commands.train(task, out, each, **changes)
        assert ended.code == -signal.SIGKILL, ended.error


def assert_same(one: Path, other: Path) -> None:
    """Check that two runs have identical weights and history."""
    tensors, others = (load_file(run / "fold-0" / "weights.safetensors") for run in (one, other))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype
        assert tensor.numpy().tobytes() == others[name].numpy().tobytes(), name
    one_history, other_history = (
        pd.read_csv(run / "fold-0" / "history.csv", dtype=str).drop(
            columns=["seconds", "images_per_second"]
        )
        for run in (one, other)
    )
    pd.testing.assert_frame_equal(one_history, other_history)


KILLS = {
    "mid epoch 0": [kill(f"{TRAINER}._step", 3)],
    "half-written checkpoint": [kill("naevus.training.loop:save_file", 4, after=True)],
    "last step of epoch 0": [kill(f"{TRAINER}._close_epoch")],
    "epoch 0 logged, not saved": [kill(f"{TRAINER}._save", STEPS + 1)],
    "epoch 0 saved": [kill(f"{TRAINER}._save", STEPS + 1, after=True)],
    "mid epoch 1": [kill(f"{TRAINER}._step", STEPS + 3)],
    "last epoch saved": [kill(f"{TRAINER}._save", 2 * (STEPS + 1), after=True)],
    "twice": [kill(f"{TRAINER}._step", 2), kill(f"{TRAINER}._step", STEPS + 1)],
}


@pytest.mark.parametrize("kills", KILLS.values(), ids=KILLS)
def test_killed_classification_ends_with_the_same_weights(
    kills: list[Fault], commands: Training, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    interrupted(commands, "classification", run, kills)
    assert_same(commands.folder / "classification", run)


def test_steps_since_the_last_checkpoint_are_repeated(commands: Training, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kills = [kill(f"{TRAINER}._step", STEPS + 4)]
    interrupted(commands, "classification", run, kills, checkpoint_seconds=1e9)
    assert_same(commands.folder / "classification", run)


@pytest.mark.parametrize(
    "one",
    [
        kill(f"{TRAINER}._close_epoch", 2),
        kill(f"{TRAINER}._save_best", 1, after=True),
        kill(f"{TRAINER}._step", 12),
    ],
    ids=["plateau not logged", "best saved", "mid epoch 1"],
)
def test_killed_segmentation_with_plateau_and_best_weights_ends_the_same(
    one: Fault, commands: Training, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    interrupted(commands, "segmentation", run, [one])
    assert_same(commands.folder / "segmentation", run)


@pytest.mark.parametrize("made", ["write_bundle", "oof_logits"])
def test_a_kill_after_training_loses_no_work(made: str, commands: Training, tmp_path: Path) -> None:
    whole, run = commands.folder / "classification", tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "oof.parquet").unlink()
    (run / "fold-0" / "oof.parquet").unlink()
    (run / "fold-0" / "weights.safetensors").unlink()
    killed = commands.train("classification", run, kill(f"{JOB}:{made}", after=True))
    assert killed.code == -signal.SIGKILL
    assert not (run / "fold-0" / "oof.parquet").exists()
    assert commands.train("classification", run, None).code == 0
    assert_same(whole, run)
    for name in ("oof.parquet", "fold-0/oof.parquet"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(whole / name), pd.read_parquet(run / name), check_exact=True
        )
    graph = Path("fold-0", "bundle", "network.onnx")
    assert (whole / graph).read_bytes() == (run / graph).read_bytes()
