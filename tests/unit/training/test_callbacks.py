"""Callbacks: their order, the history on disk, the predicted time, and trackers."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from naevus.errors import ConfigError, NaevusError
from naevus.io.progress import SilentReporter
from naevus.runs.recipe import Recipe
from naevus.training.callbacks import (
    Callback,
    Callbacks,
    CostEstimate,
    History,
    Job,
    MLflow,
    ProgressBar,
    Step,
    TensorBoard,
    numbers_of,
    run_seconds,
    tracker,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROW = {"epoch": 0, "train_loss": 0.5, "val_loss": 0.75, "val_score": 0.25, "images_per_second": 9.0}


def job_in(folder: Path, steps: int = 5, **settings: Any) -> Job:
    settings = {"task": "segmentation", "batch_size": 8, "sizes": ((0, 32),), **settings}
    recipe = Recipe.model_validate(settings)
    (folder / "fold-1").mkdir(parents=True, exist_ok=True)
    return Job(recipe, folder, 1, steps, 0, 40, 8, 12)


def step(done: int, job: Job) -> Step:
    epoch = (done - 1) // job.steps
    return Step(epoch, done, job.steps * job.recipe.epochs, 8, 1 / done, 0.1)


class Noted(Callback):
    """Notes its calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name, self._calls = name, calls

    def start(self, job: Job) -> None:
        self._calls.append(f"{self._name} start {job.fold}")

    def step(self, step: Step) -> None:
        self._calls.append(f"{self._name} step {step.done}")

    def epoch(self, history: Sequence[dict[str, Any]]) -> None:
        self._calls.append(f"{self._name} epoch {len(history)}")

    def end(self, error: BaseException | None = None) -> None:
        self._calls.append(f"{self._name} end {error!r}")


def test_several_callbacks_are_called_in_their_order(tmp_path: Path) -> None:
    calls: list[str] = []
    job = job_in(tmp_path)
    both = Callbacks([Noted("a", calls), Noted("b", calls)])
    with both.around(job):
        both.step(step(1, job))
        both.epoch([ROW])
    wanted = ["start 1", "step 1", "epoch 1", "end None"]
    assert calls == [f"{name} {each}" for each in wanted for name in "ab"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_the_end_is_called_after_an_error_too(error: BaseException, tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(type(error)), Noted("a", calls).around(job_in(tmp_path)):
        raise error
    assert calls == ["a start 1", f"a end {error!r}"]


def test_the_history_is_a_table_and_lines_of_json(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("naevus"), "propagate", True)
    job, history = job_in(tmp_path), History(every_s=0)
    row = ROW | {"val_recall": {"MEL": float("nan"), "NV": 1.0}}
    with caplog.at_level(logging.INFO, "naevus"), history.around(job):
        history.step(step(1, job))
        history.epoch([row])
    table = pd.read_csv(job.folder / "history.csv")
    assert table["val_recall.NV"].tolist() == [1.0]
    lines = [json.loads(each) for each in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "step", "epoch", "end"]
    assert (lines[0]["training"], lines[0]["held_out"]) == (40, 12)
    assert (lines[1]["step"], lines[1]["loss"]) == (1, 1.0)
    assert lines[2]["val_recall"] == {"MEL": None, "NV": 1.0}
    assert lines[3]["error"] is None
    assert (
        "fold 1 epoch 0: loss 0.5000, validation loss 0.7500, validation jaccard 0.2500, 9"
        in caplog.text
    )
    with pytest.raises(ValueError, match="no"), history.around(job):
        raise ValueError("no")
    assert '"error": "ValueError: no"' in (job.folder / "metrics.jsonl").read_text()


def test_an_epoch_without_validation_images_has_no_score(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("naevus"), "propagate", True)
    with caplog.at_level(logging.INFO, "naevus"), (history := History()).around(job_in(tmp_path)):
        history.epoch([{name: ROW[name] for name in ROW if not name.startswith("val_")}])
    assert (
        "fold 1 epoch 0: loss 0.5000, validation loss -, validation jaccard -, 9.0 images/s"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, "validation loss 0.7500, validation jaccard 0.2500, 9"),
        ({"monitor": "jaccard"}, "validation loss 0.7500, validation jaccard 0.2500, 9"),
        ({"monitor": "loss"}, "validation loss 0.7500, validation jaccard 0.2500, 9"),
        ({"monitor": "precision"}, "jaccard 0.2500, validation precision 0.6250, 9"),
        ({"monitor": "mine", "metrics": ["package:mine"]}, "jaccard 0.2500, validation mine -, 9"),
    ],
)
def test_the_monitored_metric_is_shown_with_its_name(
    settings: dict[str, Any],
    shown: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("naevus"), "propagate", True)
    job = job_in(tmp_path, select="best", **settings)
    with caplog.at_level(logging.INFO, "naevus"), (history := History()).around(job):
        history.epoch([ROW | {"val_precision": 0.625, "val_jaccard": 0.25}])
    assert shown in caplog.text


def test_steps_are_written_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 9.0, 11.0, 12.0])
    monkeypatch.setattr("naevus.training.callbacks.time.monotonic", lambda: next(clock))
    job, history = job_in(tmp_path), History(every_s=10)
    history.start(job)
    for done in range(1, 6):
        history.step(step(done, job))
    lines = [json.loads(each) for each in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines[1:]] == [1, 4]


def test_a_progress_bar_moves_by_images(tmp_path: Path) -> None:
    moved: list[tuple[int, int]] = []
    job = job_in(tmp_path, epochs=2)
    ProgressBar(lambda *at: moved.append(at)).step(step(3, job))
    assert moved == [(24, 80)]


class Kept(SilentReporter):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str, label: str = "") -> None:
        self.messages.append(f"{label}: {text}")


def test_the_time_of_all_folds_is_predicted_after_a_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: two epochs of 100 steps of 2 s, the second at twice the side, 3 folds."""
    now = [0.0]
    monkeypatch.setattr("naevus.training.callbacks.time.monotonic", lambda: now[0])
    kept = Kept()
    job = job_in(tmp_path, steps=100, epochs=2, sizes=((0, 32), (1, 64)))._replace(validation=24)
    estimate = CostEstimate(3, kept)
    estimate.start(job)
    for done in range(1, 40):
        now[0] += 2 if done > 2 else 30  # the first steps are slow
        estimate.step(step(done, job))
    fold = (100 + 24 / 8 / 3) * 20 / 10 * (1 + 4)
    left_s = 3 * fold - 12 * 2
    assert run_seconds(job, step(12, job), 2.0, 3) == pytest.approx(left_s)
    assert left_s == pytest.approx(3006)
    assert kept.messages == [
        "time: about 50 min 6 s for 3 folds (2.00 s a step at 32 px), without export"
    ]


def test_short_trainings_are_not_predicted(tmp_path: Path) -> None:
    kept = Kept()
    job = job_in(tmp_path, epochs=2)
    estimate = CostEstimate(1, kept)
    estimate.start(job)
    for done in range(1, 11):
        estimate.step(step(done, job))
    assert kept.messages == []


def test_numbers_of_an_epoch_are_named_by_dots() -> None:
    row = {"a": 1, "b": {"c": 0.5, "d": None}, "e": [1, 2], "f": float("inf"), "g": "text"}
    assert numbers_of(row) == {"a": 1.0, "b.c": 0.5}


@pytest.mark.parametrize(("name", "extra"), [("tensorboard", "tracking"), ("mlflow", "mlflow")])
def test_an_absent_tracker_names_its_extra(
    name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NaevusError, match=rf" needs {name}.*pip install .*\[{extra}\]"):
        tracker(name, tmp_path)
    with pytest.raises(ConfigError, match="no tracker is called 'wandb'"):
        tracker("wandb", tmp_path)


class Writer:
    """Stands in for TensorBoard's."""

    def __init__(self, folder: str) -> None:
        self.folder, self.closed = folder, False
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, at: int) -> None:
        self.scalars.append((name, value, at))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_tensorboard_has_scalars_of_steps_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", _module(__spec__="installed"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", _module(SummaryWriter=Writer))
    job = job_in(tmp_path)
    board = tracker("tensorboard", tmp_path)
    assert isinstance(board, TensorBoard)
    with board.around(job):
        for done in range(1, 13):
            board.step(step(done, job))
        board.epoch([ROW])
    writer = board._writer
    assert writer.folder == str(tmp_path / "tensorboard" / "fold-1")
    assert writer.scalars[:2] == [("step/loss", 0.1, 10), ("step/learning_rate", 0.1, 10)]
    assert ("val_loss", 0.75, 5) in writer.scalars
    assert writer.closed


def _module(**members: Any) -> Any:
    return type("module", (), members)


class Server:
    """Stands in for mlflow."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **words: Any) -> Any:
            self.calls.append((name, *args, words))
            return _module(info=_module(run_id="r1"))

        return call


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_mlflow_has_a_run_per_fold_which_is_resumed(
    error: BaseException | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    monkeypatch.setitem(sys.modules, "mlflow", server)
    monkeypatch.setattr("naevus.training.callbacks.require", lambda *_: None)
    job = job_in(tmp_path / "seg")
    flow = tracker("mlflow", tmp_path / "seg")
    assert isinstance(flow, MLflow)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    flow.start(job)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    flow.epoch([ROW])
    flow.end(error)
    calls = {name: rest for name, *rest in server.calls}
    assert calls["set_experiment"][0] == "seg"
    assert calls["start_run"] == [{"run_id": None, "run_name": "seg fold 1"}]
    assert calls["log_params"][0]["optimiser.clip"] == 1.0
    metrics, words = calls["log_metrics"]
    assert (metrics["val_loss"], words) == (0.75, {"step": 0})
    assert "epoch" not in metrics
    assert calls["end_run"][0] == status
    server.calls.clear()
    flow.start(job)
    assert ("start_run", {"run_id": "r1", "run_name": None}) in server.calls
    assert "log_params" not in [name for name, *_ in server.calls]


def test_tensorboard_itself_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tracking is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job, board = job_in(tmp_path), tracker("tensorboard", tmp_path)
    with board.around(job):
        board.epoch([ROW])
    found = EventAccumulator(str(tmp_path / "tensorboard" / "fold-1")).Reload()
    assert [event.value for event in found.Scalars("val_score")] == [0.25]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_itself_reads_what_is_logged(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("alembic", reason="the extra mlflow is not installed")
    job, flow = job_in(tmp_path / "seg"), MLflow(f"sqlite:///{tmp_path}/mlflow.db")
    with flow.around(job):
        flow.epoch([ROW])
    (run,) = mlflow.search_runs(experiment_names=["seg"], output_format="list")
    assert run.data.metrics["val_score"] == 0.25
