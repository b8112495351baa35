"""Callbacks: what training calls with its progress; history, TensorBoard and MLflow among them."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import pandas as pd

from naevus.errors import ConfigError
from naevus.io.extras import require
from naevus.io.files import atomic, write_json, writing
from naevus.io.formats import read_json
from naevus.io.progress import SILENT, duration
from naevus.io.words import counted
from naevus.runs.recipe import MONITORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe

Metrics = dict[str, Any]
"""What an epoch logs: numbers by name, some of them in tables."""

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """One fold that is trained.

    Attributes:
        recipe: The recipe.
        run: The run's folder.
        fold: The held-out fold.
        steps: Number of steps per epoch.
        epoch: The first epoch, above 0 if training is resumed.
        training: Number of training images.
        validation: Number of validation images.
        held_out: Number of held-out images.
    """

    recipe: Recipe
    run: Path
    fold: int
    steps: int
    epoch: int
    training: int
    validation: int
    held_out: int

    @property
    def folder(self) -> Path:
        """The folder of the fold."""
        return self.run / f"fold-{self.fold}"


class Step(NamedTuple):
    """One step of the optimiser.

    Attributes:
        epoch: Its epoch, from 0.
        done: Number of steps so far, this one included, over all epochs.
        total: Number of steps of all epochs.
        batch_size: Number of images of a full batch.
        loss: Mean loss of its batch.
        learning_rate: Its learning rate.
    """

    epoch: int
    done: int
    total: int
    batch_size: int
    loss: float
    learning_rate: float


class Callback:
    """What training calls with its progress. A subclass overrides the methods it needs.

    For each fold, ``start`` comes first and ``end`` last, even after an error. With several
    processes, only the first one calls.
    """

    def start(self, job: Job) -> None:
        """Begin or resume a fold."""

    def step(self, step: Step) -> None:
        """Follow a step of the optimiser."""

    def epoch(self, history: Sequence[Metrics]) -> None:
        """Follow an epoch; ``history`` has a row for each epoch so far, the new one last.

        After an interruption, the last epoch may come a second time.
        """

    def end(self, error: BaseException | None = None) -> None:
        """Finish a fold, or leave it after an error."""

    @contextmanager
    def around(self, job: Job) -> Iterator[None]:
        """Call ``start`` before the block, and ``end`` after it."""
        self.start(job)
        try:
            yield
        except BaseException as error:
            self.end(error)
            raise
        self.end()


class Callbacks(Callback):
    """Several callbacks as one; they are called in their order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def start(self, job: Job) -> None:
        """See `Callback`."""
        for each in self._callbacks:
            each.start(job)

    def step(self, step: Step) -> None:
        """See `Callback`."""
        for each in self._callbacks:
            each.step(step)

    def epoch(self, history: Sequence[Metrics]) -> None:
        """See `Callback`."""
        for each in self._callbacks:
            each.epoch(history)

    def end(self, error: BaseException | None = None) -> None:
        """See `Callback`."""
        for each in self._callbacks:
            each.end(error)


class ProgressBar(Callback):
    """Move a progress bar by images seen.

    Args:
        move: Takes (images seen, images to see in all epochs).
    """

    def __init__(self, move: Callable[[int, int], None]) -> None:
        self._move = move

    def step(self, step: Step) -> None:
        """Move the bar."""
        self._move(step.done * step.batch_size, step.total * step.batch_size)


def validation_scores(recipe: Recipe, row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return loss, score and monitored metric of an epoch by name; None if one is not known.

    Args:
        recipe: The recipe, whose task names the score.
        row: The epoch's row of the history.
    """
    columns = {"loss": "val_loss", MONITORED[recipe.task][0]: "val_score"}
    columns.setdefault(recipe.monitored, f"val_{recipe.monitored}")
    found = ((name, row.get(column)) for name, column in columns.items())
    return {name: None if value is None else float(value) for name, value in found}


HISTORY: Final = "history.csv"
METRICS: Final = "metrics.jsonl"


class History(Callback):
    """Write ``history.csv`` (a row per epoch) and ``metrics.jsonl`` (a line per event), and log.

    Args:
        every_s: Seconds between lines of steps.
    """

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._job: Job | None = None
        self._written = -math.inf

    def start(self, job: Job) -> None:
        """Write the size of the job."""
        self._job = job
        sizes = {name: getattr(job, name) for name in ("training", "validation", "held_out")}
        self._line("start", fold=job.fold, epoch=job.epoch, steps=job.steps, **sizes)

    def step(self, step: Step) -> None:
        """Write a step, every few seconds."""
        now = time.monotonic()
        if now - self._written >= self._every_s:
            self._written = now
            numbers = {"loss": step.loss, "learning_rate": step.learning_rate}
            self._line("step", epoch=step.epoch, step=step.done, steps=step.total, **numbers)

    def epoch(self, history: Sequence[Metrics]) -> None:
        """Write and log an epoch."""
        assert self._job is not None
        with atomic(self._job.folder / HISTORY) as temporary:
            pd.json_normalize(list(history)).to_csv(temporary, index=False)
        row = history[-1]
        self._line("epoch", **row)
        scores = validation_scores(self._job.recipe, row).items()
        _log.info(
            "fold %d epoch %d: loss %.4f, %s, %.1f images/s",
            self._job.fold,
            row["epoch"],
            row["train_loss"],
            ", ".join(
                f"validation {name} {'-' if value is None else format(value, '.4f')}"
                for name, value in scores
            ),
            row["images_per_second"],
        )

    def end(self, error: BaseException | None = None) -> None:
        """Write whether the fold is finished."""
        self._line("end", error=None if error is None else f"{type(error).__name__}: {error}")

    def _line(self, event: str, **values: Any) -> None:
        assert self._job is not None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"event": event, "time": now, **_finite(values)}, allow_nan=False)
        path = self._job.folder / METRICS
        with writing(path), path.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")


def _finite(value: Any) -> Any:
    """Return a value with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_SKIPPED, _MEASURED = 2, 10
"""Steps before the time of a step is measured, and steps over which it is."""
_WORTH_SAYING_S: Final = 60.0
_FORWARD: Final = 1 / 3
"""Cost of a forward pass, as a fraction of a step."""


@dataclass
class CostEstimate(Callback):
    """Predict the time of the whole run after a few steps, and report it once.

    The cost of a step is taken as proportional to the area of the images. Export and predictions
    of held-out images are left out.

    Attributes:
        folds: Number of folds that are trained, this one included.
        reporter: Receives the message.
    """

    folds: int
    reporter: Reporter = SILENT
    _job: Job | None = field(default=None, init=False)
    _seen: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _reported: bool = field(default=False, init=False)

    def start(self, job: Job) -> None:
        """Note the size of the job."""
        self._job, self._seen = job, 0

    def step(self, step: Step) -> None:
        """Measure the first steps, and report once."""
        if self._reported or self._job is None:
            return
        self._seen += 1
        measured = self._seen - _SKIPPED
        if measured == 0:
            self._began = time.monotonic()
        elif measured >= min(_MEASURED, self._job.steps - _SKIPPED) > 0:
            self._reported = True
            step_s = (time.monotonic() - self._began) / measured
            seconds = run_seconds(self._job, step, step_s, self.folds)
            if seconds >= _WORTH_SAYING_S:
                at_most = "at most " if self._job.recipe.early_stopping else ""
                size = self._job.recipe.size_at(step.epoch)
                folds = counted(self.folds, "fold")
                self.reporter.message(
                    f"about {at_most}{duration(seconds)} for {folds} "
                    f"({step_s:.2f} s a step at {size} px), without export",
                    "time",
                )


def run_seconds(job: Job, step: Step, step_s: float, folds: int) -> float:
    """Return the remaining time of a run in seconds, from the time of one of its steps.

    Args:
        job: The fold that is trained now.
        step: The step.
        step_s: Its time in seconds.
        folds: Number of folds to train, this one included.
    """
    recipe = job.recipe
    area = recipe.size_at(step.epoch) ** 2
    inspected = _FORWARD * job.validation / recipe.batch_size
    epochs = [
        (job.steps + inspected) * recipe.size_at(epoch) ** 2 / area * step_s
        for epoch in range(recipe.epochs)
    ]
    done = sum(epochs[: step.epoch]) + (step.done - step.epoch * job.steps) * step_s
    return folds * sum(epochs) - done


# Trackers of experiments, in the extras `tracking` and `mlflow`.

Tracker = Literal["tensorboard", "mlflow"]


def numbers_of(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of an epoch by name; names in tables are joined by dots."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= numbers_of(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            found[f"{prefix}{name}"] = float(value)
    return found


class TensorBoard(Callback):
    """Write scalars for TensorBoard: each epoch's numbers, and the loss of steps.

    Args:
        folder: The log folder, with one folder per fold.
        every: Steps between two values of the loss.

    Raises:
        NaevusError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        require("tracking", "TensorBoard")
        self._folder, self._every = folder, every
        self._writer: Any = None
        self._steps = 1

    def start(self, job: Job) -> None:
        """Open the fold's log."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra)

        self._steps = job.steps
        self._writer = SummaryWriter(str(self._folder / f"fold-{job.fold}"))

    def step(self, step: Step) -> None:
        """Write loss and learning rate of every few steps."""
        if step.done % self._every == 0:
            self._writer.add_scalar("step/loss", step.loss, step.done)
            self._writer.add_scalar("step/learning_rate", step.learning_rate, step.done)

    def epoch(self, history: Sequence[Metrics]) -> None:
        """Write an epoch's numbers at its last step, and flush."""
        row = history[-1]
        for name, value in numbers_of(row).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, (row["epoch"] + 1) * self._steps)
        self._writer.flush()

    def end(self, error: BaseException | None = None) -> None:  # noqa: ARG002 (the protocol)
        """Close the log."""
        self._writer.close()


MLFLOW_RUN: Final = "mlflow.json"
"""The file in a fold's folder that names its MLflow run, for resuming."""


class MLflow(Callback):
    """Log each fold as an MLflow run: settings as parameters, each epoch's numbers as metrics.

    MLflow reports its use to its makers unless MLFLOW_DISABLE_TELEMETRY is set, as is done here.

    Args:
        uri: The tracking server or store; None: what MLflow itself takes, as from the environment
            variable MLFLOW_TRACKING_URI.
        experiment: Its name; None: the name of the run's folder.

    Raises:
        NaevusError: mlflow is not installed.
    """

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        require("mlflow", "MLflow")
        self._mlflow: Any = None
        self._uri, self._experiment = uri, experiment

    def start(self, job: Job) -> None:
        """Start the fold's MLflow run, or resume it."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: PLC0415 (an extra)

        self._mlflow = mlflow
        if self._uri is not None:
            self._mlflow.set_tracking_uri(self._uri)
        self._mlflow.set_experiment(self._experiment or job.run.resolve().name)
        noted = job.folder / MLFLOW_RUN
        known = read_json(noted, "delete it")["run_id"] if noted.exists() else None
        name = f"{job.run.resolve().name} fold {job.fold}"
        run = self._mlflow.start_run(run_id=known, run_name=None if known else name)
        if known is None:
            write_json(noted, {"run_id": run.info.run_id})
            settings = pd.json_normalize(job.recipe.to_dict()).iloc[0].to_dict()
            self._mlflow.log_params({"fold": job.fold, **settings})

    def epoch(self, history: Sequence[Metrics]) -> None:
        """Log an epoch's numbers."""
        numbers = numbers_of(history[-1])
        self._mlflow.log_metrics(numbers, step=int(numbers.pop("epoch")))

    def end(self, error: BaseException | None = None) -> None:
        """End the run as finished, failed or killed."""
        killed = error is not None and not isinstance(error, Exception)
        status = "FINISHED" if error is None else "KILLED" if killed else "FAILED"
        self._mlflow.end_run(status)


def tracker(name: str, run: Path) -> Callback:
    """Return a tracker by its name.

    TensorBoard writes to ``tensorboard`` in the run's folder.

    Args:
        name: ``tensorboard`` or ``mlflow``.
        run: The run's folder.

    Raises:
        ConfigError: There is no such tracker.
        NaevusError: It is not installed.
    """
    if name not in get_args(Tracker):
        raise ConfigError(f"no tracker is called {name!r}", "use tensorboard or mlflow")
    return TensorBoard(run / "tensorboard") if name == "tensorboard" else MLflow()
