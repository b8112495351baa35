"""The training loop of all tasks, and its checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from naevus.errors import RunError
from naevus.io.files import atomic
from naevus.io.words import counted
from naevus.training.callbacks import Callback, Step, validation_scores
from naevus.training.distributed import Processes
from naevus.training.optim import (
    _average,
    estimate_statistics,
    learning_rate,
    make_optimiser,
    uphill,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor
    from torch.optim import Optimizer

    from naevus.runs.recipe import Recipe
    from naevus.training.callbacks import Metrics
    from naevus.training.data import BatchLoader


CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


class TrainingTask(Protocol):
    """The parts of training that depend on the task."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch."""

    def inspect(self, network: nn.Module, size: int, processes: Processes | None = None) -> Metrics:
        """Return metrics on the validation split, ``score`` among them; nothing without images.

        Processes that train together divide the images, and each gets the metrics of all.
        """


@dataclass
class State:
    """Progress and history of a job, all of which is saved in checkpoints."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = -1
    plateau: dict[str, Any] = field(default_factory=dict)
    history: list[Metrics] = field(default_factory=list)


class Trainer:
    """Train a network, or resume its training, until the last epoch or an early stop.

    Args:
        network: Maps uint8 N x S x S x 3 to logits.
        training_task: The task.
        batches: The source of batches.
        recipe: The recipe.
        fabric: Device, precision and processes.
        folder: Folder of the checkpoint and the best weights.

    Attributes:
        used: The network to use: with averaged weights if the recipe asks for them.
        state: The state of training.
    """

    def __init__(
        self,
        network: nn.Module,
        training_task: TrainingTask,
        batches: BatchLoader,
        recipe: Recipe,
        fabric: Fabric,
        folder: Path,
    ) -> None:
        torch.manual_seed(recipe.seed)  # for dropout, independent of the initialisation
        # Cached images are channels-last already; convolutions in that layout are faster.
        network = network.to(memory_format=torch.channels_last)
        self._network, self._training_task, self._batches = network, training_task, batches
        self._recipe, self._fabric, self._processes = recipe, fabric, Processes(fabric)
        self._checkpoint, self._best = folder / CHECKPOINT, folder / BEST
        self._wrapped, self._optimiser = fabric.setup(
            network, make_optimiser(network, recipe.optimiser)
        )
        self._average = _average(network, recipe.optimiser.ema)
        self.used = self._average.module if self._average else network
        self._plateau = ReduceLROnPlateau(
            self._optimiser,
            mode="min" if recipe.monitor_lowest else "max",
            patience=recipe.optimiser.patience,
        )
        self._total = recipe.epochs * batches.steps
        self._networks: dict[str, nn.Module] = {"network": network}
        if self._average:
            self._networks["average"] = self.used
        self.state = State()
        if self._checkpoint.exists():
            self.state = State(**load_checkpoint(self._checkpoint, self._networks, self._optimiser))
            if self.state.plateau:
                self._plateau.load_state_dict(self.state.plateau)
        self._processes.agree({f"the position in {CHECKPOINT}": self._position})

    def fit(self, callback: Callback) -> None:
        """Train; afterwards ``used`` has the weights that the recipe selects.

        Args:
            callback: Its ``step`` and ``epoch`` are called.
        """
        state = self.state
        while state.epoch < self._recipe.epochs and not self.stopped_early:
            self._train_epoch(callback)
            self._processes.share_buffers(*self._networks.values())
            size = self._recipe.size_at(state.epoch)
            metrics = self._training_task.inspect(self.used, size, self._processes)
            metrics = self._processes.of_first(metrics)
            self._close_epoch(metrics)
            if self._recipe.select == "best" and state.best_epoch == state.epoch - 1:
                self._save_best()
            # Before the checkpoint: after a kill in between, the epoch is reported again.
            callback.epoch(state.history)
            self._save()
        if self._recipe.select == "best":
            self._processes.wait()
            load_network(self._best, self.used)
        self._estimate_statistics()

    def _estimate_statistics(self) -> None:
        """Estimate the statistics of batch normalisation again, if the recipe says so.

        Whole batches, by the process whose network is exported. Synchronised layers see whole
        batches anyway, and need every process.
        """
        count = self._recipe.optimiser.bn_images
        together = self._recipe.network.sync_batch_norm
        if count and (together or self._processes.is_first):
            alone = self._processes.world == 1 or together
            batches = (self._batches if alone else self._batches.whole()).last(count)
            estimate_statistics(self.used, map(self._fabric.to_device, batches))
        self._processes.wait()

    @property
    def _full_batches(self) -> float:
        """Batches per epoch, of which the last counts by its images: losses are means of images."""
        return self._batches.images / self._recipe.batch_size

    @property
    def _position(self) -> str:
        return f"epoch {self.state.epoch}, step {self.state.step}"

    @property
    def stopped_early(self) -> bool:
        """Whether the metric has not improved for as many epochs as ``early_stopping`` allows."""
        waited = self.state.epoch - 1 - self.state.best_epoch
        return bool(self._recipe.early_stopping) and waited >= self._recipe.early_stopping

    def ending(self) -> str:
        """Return why training ended, and which epoch's weights are used."""
        state, recipe = self.state, self._recipe
        why = f"trained {counted(state.epoch, 'epoch')}"
        if state.epoch < recipe.epochs:
            moved = "fallen" if recipe.monitor_lowest else "risen"
            why = (
                f"stopped early after {state.epoch} of {recipe.epochs} epochs: the validation "
                f"{recipe.monitored} has not {moved} since epoch {state.best_epoch}"
            )
        best = recipe.select == "best"
        used = f"{state.best_epoch}, the best" if best else f"{state.epoch - 1}, the last"
        row = state.history[state.best_epoch if best else -1] if state.history else {}
        value = validation_scores(recipe, row)[recipe.monitored]
        scored = "" if value is None else f": validation {recipe.monitored} {value:.4f}"
        return f'{why}; weights of epoch {used}{scored} (select = "{recipe.select}")'

    def _train_epoch(self, callback: Callback) -> None:
        """Train on the remaining batches of an epoch."""
        state = self.state
        self._network.train()
        saved = began = time.monotonic()
        for pixels, targets in self._batches.epoch(state.epoch, first=state.step):
            loss = self._step(pixels, targets)
            state.loss_sum += loss * min(1.0, self._full_batches - state.step)
            state.step += 1
            done = state.epoch * self._batches.steps + state.step
            rate = self._rate_at(done - 1)
            callback.step(Step(state.epoch, done, self._total, self._recipe.batch_size, loss, rate))
            now = time.monotonic()
            if now - saved > self._recipe.checkpoint_seconds:
                state.seconds += now - began
                self._save()
                saved = began = time.monotonic()
        state.seconds += time.monotonic() - began

    def _step(self, pixels: Tensor, targets: Tensor) -> float:
        """Make one optimiser step; return the loss of the batch."""
        recipe, fabric = self._recipe.optimiser, self._fabric
        step = self.state.epoch * self._batches.steps + self.state.step
        self._set_rate(self._rate_at(step))
        self._processes.seed(self._recipe.seed, step)
        pixels, targets = fabric.to_device(pixels), fabric.to_device(targets)
        with contextlib.ExitStack() as stack:
            if recipe.sam:
                some = slice(self._processes.first_images(recipe.sam_batch, len(pixels)))
                self._backward(self._loss(pixels[some], targets[some]))
                stack.enter_context(uphill(self._network, recipe.sam))
            loss = self._loss(pixels, targets)
            value = loss.item()
            if not math.isfinite(value):
                raise self._diverged(value)
            self._backward(loss)
        if recipe.clip:
            fabric.clip_gradients(
                self._wrapped, self._optimiser, max_norm=recipe.clip, error_if_nonfinite=False
            )
        self._optimiser.step()
        self._optimiser.zero_grad()
        if self._average:
            # At the first averaged step, the average is the network itself.
            restart = recipe.ema_restart * self._batches.steps
            self._average.update(self._network, step=step + 1 - (restart if step >= restart else 0))
        return value

    def _loss(self, pixels: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = self._wrapped(pixels)
        return self._training_task.loss(*self._processes.whole_batch(logits.float(), targets))

    def _backward(self, loss: Tensor) -> None:
        # Each process has the gradient of its own logits; torch takes the mean of processes.
        self._fabric.backward(loss * self._processes.world)

    def _diverged(self, loss: float) -> RunError:
        return RunError(
            f"{self._checkpoint.parent}: the loss became {loss} in epoch {self.state.epoch}",
            "lower optimiser.learning_rate, or set optimiser.clip, and train into another folder",
        )

    def _close_epoch(self, metrics: Metrics) -> None:
        """Add the epoch to the history and move on to the next."""
        state, recipe, steps = self.state, self._recipe, self._batches.steps
        # Not the optimiser's rate: after resuming at the end of an epoch it has made no step yet.
        rate = self._rate_at((state.epoch + 1) * steps - 1)
        state.history.append(
            {
                "epoch": state.epoch,
                "image_size": recipe.size_at(state.epoch),
                "learning_rate": rate,
                "train_loss": state.loss_sum / self._full_batches,
                "seconds": round(state.seconds, 1),
                "images_per_second": round(self._batches.images / state.seconds, 1),
                **{f"val_{name}": value for name, value in metrics.items()},
            }
        )
        followed = self._followed(metrics)
        if followed is not None and self._is_better(followed):
            state.best, state.best_epoch = followed, state.epoch
        state.epoch, state.step, state.loss_sum, state.seconds = state.epoch + 1, 0, 0.0, 0.0
        if recipe.optimiser.schedule == "plateau":
            # The plateau scales the optimiser's rate, which may still be that of the warm-up.
            self._set_rate(float(self._plateau.get_last_lr()[0]))
            assert followed is not None
            self._plateau.step(followed)
            state.plateau = self._plateau.state_dict()

    def _followed(self, metrics: Metrics) -> float | None:
        """Return the value of the monitored metric; None if nothing follows it.

        Raises:
            RunError: Something does, and the value is absent or not a number.
        """
        name = self._recipe.monitor or "score"
        value = metrics.get(name)
        if value is not None and math.isfinite(value):
            return float(value)
        if not self._recipe.monitors:
            return None
        raise RunError(
            f"{self._checkpoint.parent}: the validation {name} is {value} in epoch "
            f"{self.state.epoch}, but {self._recipe.monitors} needs it",
            "correct the metric, or monitor another one",
        )

    def _is_better(self, value: float) -> bool:
        if self.state.best is None:
            return True
        lowest = self._recipe.monitor_lowest
        return value < self.state.best if lowest else value > self.state.best

    def _rate_at(self, step: int) -> float:
        return learning_rate(self._recipe.optimiser, step, self._total, self._plateau)

    def _set_rate(self, rate: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _save(self) -> None:
        if self._processes.is_first:
            save_checkpoint(self._checkpoint, self._networks, self._optimiser, vars(self.state))

    def _save_best(self) -> None:
        if self._processes.is_first:
            save_tensors(self._best, self.used.state_dict(), {"epoch": self.state.best_epoch})


# Checkpoints: the whole state of a training job in one file, written atomically.
#
# Tensors (network, averaged weights, optimiser, random state) are stored as safetensors; numbers
# (position, schedule, history) as JSON in the file's header.


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write named tensors and a JSON header atomically."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(whole, temporary, metadata={"json": json.dumps(header)})
        except SafetensorError as error:  # a full disk is not an OSError here
            raise OSError(f"{error}") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by :func:`save_tensors`.

    Raises:
        RunError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads(stored.metadata()["json"])
            return {name: stored.get_tensor(name) for name in stored.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: unreadable checkpoint ({error})", "delete it to start this fold again"
        ) from error


def save_checkpoint(
    path: Path,
    networks: dict[str, nn.Module],
    optimiser: Optimizer,
    header: dict[str, Any],
) -> None:
    """Write the state of a job.

    Args:
        path: The file.
        networks: Networks by name, such as ``network`` and ``average``.
        optimiser: Its tensors are stored with those of the networks, its numbers in the header.
        header: Everything else that is needed to resume, as JSON.
    """
    tensors = {
        f"{name}/{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    numbers: dict[str, dict[str, float]] = {}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimiser/{index}/{key}"] = value
            elif value is not None:
                numbers.setdefault(str(index), {})[key] = value
    tensors["random"] = torch.get_rng_state()
    save_tensors(path, tensors, {**header, "optimiser": numbers})


def load_checkpoint(
    path: Path, networks: dict[str, nn.Module], optimiser: Optimizer
) -> dict[str, Any]:
    """Restore the state of a job; return the header.

    Raises:
        RunError: The file is damaged or belongs to another network.
    """
    tensors, header = load_tensors(path)
    try:
        for name, network in networks.items():
            prefix = f"{name}/"
            network.load_state_dict(
                {
                    key.removeprefix(prefix): value
                    for key, value in tensors.items()
                    if key.startswith(prefix)
                }
            )
    except RuntimeError as error:
        raise RunError(
            f"{path}: checkpoint of another network", "choose another --out, or delete the run"
        ) from error
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    for index_text, numbers in header.pop("optimiser").items():
        state.setdefault(int(index_text), {}).update(numbers)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    # Stored tensors are contiguous, but a fused step needs the memory layout of the weights.
    for weight, moments in optimiser.state.items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(value)
    torch.set_rng_state(tensors["random"])
    return header


def load_network(
    path: Path, network: nn.Module, outputs: tuple[Sequence[str], Sequence[str]] | None = None
) -> None:
    """Load stored weights into a network.

    Args:
        path: The weights.
        network: The network.
        outputs: Names of the outputs of the stored network and of this one, if they differ;
            outputs that only this network has keep their weights.

    Raises:
        RunError: The file is damaged or belongs to another network.
    """
    tensors, _ = load_tensors(path)
    if outputs is not None:
        tensors |= _of_outputs(tensors, network.state_dict(), *outputs)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{path}: does not fit this network ({str(error).splitlines()[0]})",
            "use the recipe that it was trained with",
        ) from error


def _of_outputs(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    theirs: Sequence[str],
    ours: Sequence[str],
) -> dict[str, Tensor]:
    """Return the tensors with one row per output, rearranged for a network with other outputs."""
    pairs = [(ours.index(name), theirs.index(name)) for name in ours if name in theirs]
    found = {}
    for name, stored in tensors.items():
        wanted = own.get(name)
        if wanted is None or stored.shape == wanted.shape:
            continue
        if stored.shape[:1] == (len(theirs),) and wanted.shape == (len(ours), *stored.shape[1:]):
            found[name] = wanted.clone()
            for row, source in pairs:
                found[name][row] = stored[source]
    return found
