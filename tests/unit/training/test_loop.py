"""The loop: learning rates, stopping, selected weights, and the history."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from naevus.errors import RunError
from naevus.runs.recipe import Recipe
from naevus.runs.recipe_tables import OptimiserSettings
from naevus.training.callbacks import Callback
from naevus.training.loop import Trainer
from naevus.training.optim import make_optimiser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from naevus.training.callbacks import Metrics, Step
    from naevus.training.data import BatchLoader

STEPS = 5
STILL = Callback()


class Calls(Callback):
    """Calls functions with the steps and the rows of the history."""

    def __init__(
        self,
        step: Callable[[Step], object] = lambda _: None,
        epoch: Callable[[Sequence[Metrics]], object] = lambda _: None,
    ) -> None:
        self.step, self.epoch = step, epoch  # type: ignore[assignment, method-assign]


class Network(nn.Module):
    """A linear network with dropout, which needs the random state to be restored."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.layer = nn.Linear(4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        value: Tensor = self.layer(self.drop(pixels.float()))[:, 0]
        return value


class Batches:
    """Five batches per epoch, which depend only on (epoch, number); the last may be smaller."""

    steps = STEPS

    def __init__(self, last: int = 8) -> None:
        self._last = last
        self.images = 8 * (STEPS - 1) + last

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(first, self.steps):
            rng = torch.Generator().manual_seed(100 * epoch + number)
            images = self._last if number == self.steps - 1 else 8
            pixels = torch.rand(images, 4, generator=rng)
            yield pixels, pixels.sum(1)


class TrainingTask:
    """Return given scores, one per epoch; record the weights."""

    def __init__(
        self, scores: Sequence[float], weight: float = 1.0, loss: Sequence[float] = ()
    ) -> None:
        self._scores, self._weight, self._loss = list(scores), weight, list(loss)
        self.shown: list[dict[str, Tensor]] = []
        self.losses: list[float] = []
        self.sizes: list[int] = []

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        value = self._weight * (logits - targets).square().mean()
        self.losses.append(value.item())
        return value

    def inspect(self, network: nn.Module, size: int, processes: object = None) -> Metrics:
        self.shown.append(weights_of(network))
        self.sizes.append(size)
        if not self._scores:
            return {}
        place = len(self.shown) - 1
        more = {"loss": self._loss[place]} if self._loss else {}
        return {"score": self._scores[place], "recall": {"MEL": None}, **more}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def recipe(epochs: int = 3, optimiser: dict[str, Any] | None = None, **top: Any) -> Recipe:
    settings = {"ema": 0, **(optimiser or {})}
    return Recipe.model_validate(
        {"task": "classification", "epochs": epochs, "batch_size": 8, "optimiser": settings, **top}
    )


def trainer(
    job_recipe: Recipe, folder: Path, training_task: TrainingTask | None = None, last: int = 8
) -> tuple[Trainer, Network, TrainingTask]:
    torch.manual_seed(3)
    network, chosen = Network(), training_task or TrainingTask([0.5] * job_recipe.epochs)
    fabric = Fabric(accelerator="cpu", devices=1)
    batches = cast("BatchLoader", Batches(last))
    return Trainer(network, chosen, batches, job_recipe, fabric, folder), network, chosen


def rates(
    job_recipe: Recipe, folder: Path, training_task: TrainingTask | None = None
) -> list[float]:
    """Train; return the learning rate of every step."""
    found: list[float] = []
    job, _, _ = trainer(job_recipe, folder, training_task)
    groups = job._optimiser.param_groups
    job.fit(Calls(lambda _: found.append(groups[0]["lr"])))
    return found


def test_warm_up_then_cosine_to_almost_zero(tmp_path: Path) -> None:
    job_recipe = recipe(20, {"learning_rate": 0.5, "warm_up": 0.1})
    found = rates(job_recipe, tmp_path)
    assert len(found) == 100
    assert found[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert found[10] == pytest.approx(0.5)
    assert found[55] == pytest.approx(0.25)
    assert all(later < earlier for earlier, later in pairwise(found[10:]))
    assert 0 < found[-1] < 0.5 * 1e-3


def test_a_constant_learning_rate_stays(tmp_path: Path) -> None:
    job_recipe = recipe(2, {"learning_rate": 0.5, "warm_up": 0, "schedule": "constant"})
    assert rates(job_recipe, tmp_path) == [0.5] * 10


def test_plateau_reduces_the_rate_without_improvement(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.5, "schedule": "plateau", "patience": 1, "warm_up": 0}
    scores = [0.1, 0.2, 0.2, 0.1, 0.3, 0.3]
    found = rates(recipe(6, settings), tmp_path, TrainingTask(scores))
    assert found[::STEPS] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.05, 0.05])


def test_a_warm_up_that_ends_within_an_epoch_does_not_lower_the_plateau(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.5, "schedule": "plateau", "patience": 9, "warm_up": 0.375}
    found = rates(recipe(4, settings), tmp_path, TrainingTask([0.1, 0.2, 0.3, 0.4]))
    assert found[4] == pytest.approx(0.5 * 5 / 8)
    assert found[8:] == [0.5] * 12


def test_early_stopping_waits_for_an_improvement(tmp_path: Path) -> None:
    training_task = TrainingTask([0.1, 0.5, 0.4, 0.5, 0.9])
    job, _, _ = trainer(recipe(5, early_stopping=2), tmp_path, training_task)
    job.fit(STILL)
    assert [row["val_score"] for row in job.state.history] == [0.1, 0.5, 0.4, 0.5]
    assert job.stopped_early
    assert job.ending() == (
        "stopped early after 4 of 5 epochs: the validation balanced_accuracy has not risen since "
        "epoch 1; weights of epoch 1, the best: validation balanced_accuracy 0.5000 "
        '(select = "best")'
    )
    for select, shown in (("best", 1), ("last", -1)):
        again, network, _ = trainer(recipe(5, early_stopping=2, select=select), tmp_path)
        again.fit(STILL)
        assert len(again.state.history) == 4
        assert equal(weights_of(network), training_task.shown[shown])


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_best_epoch_s_weights_are_used(ema: float, tmp_path: Path) -> None:
    training_task = TrainingTask([0.1, 0.6, 0.6, 0.2])
    job, _, _ = trainer(recipe(4, {"ema": ema}, select="best"), tmp_path, training_task)
    job.fit(STILL)
    assert equal(weights_of(job.used), training_task.shown[1])
    assert job.state.best_epoch == 1


def test_the_monitored_metric_decides_instead_of_the_score(tmp_path: Path) -> None:
    scores, losses = [0.1, 0.2, 0.3, 0.4, 0.5], [0.9, 0.3, 0.5, 0.3, 0.4]
    training_task = TrainingTask(scores, loss=losses)
    settings: dict[str, Any] = {"early_stopping": 2, "monitor": "loss"}
    job, _, _ = trainer(recipe(5, **settings), tmp_path, training_task)
    job.fit(STILL)
    assert [row["val_loss"] for row in job.state.history] == losses[:4]
    assert (job.state.best, job.state.best_epoch) == (0.3, 1)
    assert "the validation loss has not fallen since epoch 1" in job.ending()
    assert "weights of epoch 1, the best: validation loss 0.3000" in job.ending()
    assert equal(weights_of(job.used), training_task.shown[1])


def test_the_plateau_follows_a_metric_that_should_fall(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.5, "schedule": "plateau", "patience": 1, "warm_up": 0}
    task = TrainingTask([0.1] * 6, loss=[0.9, 0.8, 0.8, 0.9, 0.7, 0.7])
    found = rates(recipe(6, settings, monitor="loss"), tmp_path, task)
    assert found[::STEPS] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.05, 0.05])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_monitored_metric_must_be_a_number(value: float, tmp_path: Path) -> None:
    task = TrainingTask([0.1] * 3, loss=[0.5, value, 0.4])
    job, _, _ = trainer(recipe(3, select="best", monitor="loss"), tmp_path / "a", task)
    with pytest.raises(RunError, match=r'validation loss is (nan|inf) in epoch 1, but select = "'):
        job.fit(STILL)
    free, _, _ = trainer(recipe(3), tmp_path / "b", TrainingTask([value] * 3))
    free.fit(STILL)
    assert free.state.best_epoch == -1


def test_without_validation_images_there_is_no_score(tmp_path: Path) -> None:
    job, _, _ = trainer(recipe(2), tmp_path, TrainingTask([]))
    job.fit(STILL)
    assert not [name for row in job.state.history for name in row if name.startswith("val_")]
    assert job.ending() == 'trained 2 epochs; weights of epoch 1, the last (select = "last")'


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_last_epoch_s_weights_are_used(ema: float, tmp_path: Path) -> None:
    training_task = TrainingTask([0.1, 0.6, 0.6, 0.2])
    job, _, _ = trainer(recipe(4, {"ema": ema}), tmp_path, training_task)
    job.fit(STILL)
    assert equal(weights_of(job.used), training_task.shown[3])
    assert not equal(training_task.shown[1], training_task.shown[3])


@pytest.mark.parametrize(("clip", "length"), [(0.25, 0.25), (0, None)])
def test_gradients_are_clipped(clip: float, length: float | None, tmp_path: Path) -> None:
    plain = {"name": "sgd", "learning_rate": 1, "momentum": 0, "weight_decay": 0, "warm_up": 0}
    job_recipe = recipe(1, {**plain, "schedule": "constant", "clip": clip})
    job, network, _ = trainer(job_recipe, tmp_path, TrainingTask([0], weight=100.0))
    places = [nn.utils.parameters_to_vector(network.parameters()).detach().clone()]

    def note(*_: object) -> None:
        places.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())

    job.fit(Calls(note))
    moved = (places[1] - places[0]).norm().item()
    if length is None:
        assert moved > 10
    else:
        assert moved == pytest.approx(length, rel=1e-4)


@pytest.mark.parametrize("clip", [0, 1.0])
def test_a_loss_that_is_not_finite_ends_training_in_one_line(clip: float, tmp_path: Path) -> None:
    settings = {"name": "sgd", "learning_rate": 1e30, "warm_up": 0, "clip": clip}
    job, _, _ = trainer(recipe(3, settings), tmp_path, TrainingTask([0] * 3, weight=1e30))
    with pytest.raises(RunError, match=r"the loss became (nan|inf) in epoch 0; lower"):
        job.fit(STILL)


def test_without_averaging_the_network_itself_is_used(tmp_path: Path) -> None:
    job, network, _ = trainer(recipe(), tmp_path)
    assert job.used is network


def test_averaged_weights_follow_the_network(tmp_path: Path) -> None:
    job, network, _ = trainer(recipe(1, {"ema": 0.5}), tmp_path)
    lives, averages = [], [job.used.state_dict()["layer.weight"].clone()]

    def note(*_: object) -> None:
        lives.append(network.layer.weight.detach().clone())
        averages.append(job.used.state_dict()["layer.weight"].clone())

    job.fit(Calls(note))
    assert job.used is not network
    for step, live in enumerate(lives, start=1):
        decay = min(0.5, 1 - step**-0.75)  # the first step's weights are taken as they are
        expected = decay * averages[step - 1] + (1 - decay) * live
        torch.testing.assert_close(averages[step], expected)
    assert not torch.equal(averages[-1], lives[-1])


def test_history_has_one_row_per_epoch(tmp_path: Path) -> None:
    training_task = TrainingTask([0.25, 0.75])
    job_recipe = recipe(2, sizes=[[0, 16], [1, 32]])
    job, _, _ = trainer(job_recipe, tmp_path, training_task)
    reported: list[int] = []
    steps: list[Step] = []
    job.fit(Calls(steps.append, lambda rows: reported.append(len(rows))))
    rows = job.state.history
    assert reported == [1, 2]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert [row["image_size"] for row in rows] == training_task.sizes == [16, 32]
    assert [row["val_score"] for row in rows] == [0.25, 0.75]
    assert rows[0]["val_recall"] == {"MEL": None}
    for epoch, row in enumerate(rows):
        mean = sum(training_task.losses[epoch * STEPS :][:STEPS]) / STEPS
        assert row["train_loss"] == pytest.approx(mean)
        assert row["images_per_second"] > 0
    assert [step.done for step in steps] == list(range(1, 11))
    assert {(step.total, step.batch_size) for step in steps} == {(10, 8)}
    assert [step.epoch for step in steps] == [0] * STEPS + [1] * STEPS
    assert [step.loss for step in steps] == training_task.losses
    assert [step.learning_rate for step in steps] == rates(job_recipe, tmp_path / "again")


@pytest.mark.parametrize("last", [2, 5, 8])
def test_a_small_last_batch_counts_by_its_images(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("naevus.training.loop.time.monotonic", lambda: float(next(clock)))
    job, _, training_task = trainer(recipe(2), tmp_path, last=last)
    job.fit(STILL)
    counts = [8] * (STEPS - 1) + [last]
    for epoch, row in enumerate(job.state.history):
        losses = training_task.losses[epoch * STEPS :][:STEPS]
        weighted = sum(n * loss for n, loss in zip(counts, losses, strict=True))
        assert row["train_loss"] == pytest.approx(weighted / sum(counts))
        assert row["images_per_second"] == round(sum(counts) / row["seconds"], 1)


@pytest.mark.parametrize("stop", range(1, 3 * STEPS + 1))
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_an_interrupted_job_ends_the_same(schedule: str, stop: int, tmp_path: Path) -> None:
    scores = [0.3, 0.2, 0.1]
    settings = {"schedule": schedule, "patience": 0, "ema": 0.9, "warm_up": 0.2}
    job_recipe = recipe(3, settings, checkpoint_seconds=0)
    whole, _, _ = trainer(job_recipe, tmp_path / "whole", TrainingTask(scores))
    whole.fit(STILL)

    def interrupt(step: Step) -> None:
        if step.done == stop:
            raise InterruptedError

    begun, _, _ = trainer(job_recipe, tmp_path / "run", TrainingTask(scores))
    with pytest.raises(InterruptedError):
        begun.fit(Calls(interrupt))
    gone_on, _, _ = trainer(
        job_recipe, tmp_path / "run", TrainingTask(scores[(stop - 1) // STEPS :])
    )
    assert gone_on.state.epoch * STEPS + gone_on.state.step == stop - 1
    gone_on.fit(STILL)
    assert equal(weights_of(whole.used), weights_of(gone_on.used))
    kept = [
        [(row["learning_rate"], row["train_loss"], row["val_score"]) for row in job.state.history]
        for job in (whole, gone_on)
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_only_matrices_are_decayed(name: Any) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    groups = make_optimiser(network, OptimiserSettings(name=name, weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0]
    assert [len(group["params"]) for group in groups] == [1, 3]


def test_restarted_averaging_ignores_earlier_weights(tmp_path: Path) -> None:
    """Compare with the hand-computed average of the weights from epoch 2 on."""
    job_recipe = recipe(3, {"ema": 0.9, "ema_restart": 2})
    job, network, _ = trainer(job_recipe, tmp_path / "restart")
    seen: list[Tensor] = []
    job.fit(Calls(lambda _: seen.append(network.layer.weight.detach().clone())))
    expected = seen[2 * STEPS]
    for step, weight in enumerate(seen[2 * STEPS + 1 :], 1):
        decay = min(0.9, 1 - (1 + step) ** -0.75)
        expected = decay * expected + (1 - decay) * weight
    averaged = job.used.layer.weight  # type: ignore[union-attr]
    assert isinstance(averaged, Tensor)
    torch.testing.assert_close(averaged, expected)
    plain, _, _ = trainer(recipe(3, {"ema": 0.9}), tmp_path / "plain")
    plain.fit(STILL)
    assert not equal(weights_of(job.used), weights_of(plain.used))


def test_averaging_must_restart_within_the_epochs() -> None:
    with pytest.raises(ValueError, match="ema_restart is 3, but the last of 3 epochs is 2"):
        recipe(3, {"ema": 0.9, "ema_restart": 3})


class Normed(Network):
    """A network with batch normalisation, whose final statistics are checked."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, pixels: Tensor) -> Tensor:
        value: Tensor = self.layer(self.drop(self.norm(pixels.float())))[:, 0]
        return value


LAST = [torch.rand(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in (8, 9)]


class LastBatches(Batches):
    """Batches with additional images for the estimation of statistics."""

    def last(self, count: int) -> Iterator[Tensor]:
        assert count == 16
        yield from LAST


@pytest.mark.parametrize("ema", [0, 0.9])
@pytest.mark.parametrize("select", ["last", "best"])
def test_statistics_are_estimated_again_after_training(
    ema: float, select: str, tmp_path: Path
) -> None:
    for _ in range(2):  # resumed after the end, it does the same again
        torch.manual_seed(3)
        network = Normed()
        job_recipe = recipe(2, {"ema": ema, "bn_images": 16}, select=select)
        job = Trainer(
            network,
            TrainingTask([0.5, 0.4]),
            cast("BatchLoader", LastBatches()),
            job_recipe,
            Fabric(accelerator="cpu", devices=1),
            tmp_path,
        )
        job.fit(STILL)
        norm = job.used.norm
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        torch.testing.assert_close(norm.running_mean, torch.stack(LAST).mean((0, 1)))
        assert not job.used.training
