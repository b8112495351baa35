"""How often classes are drawn, and that a network so trained leads back to both posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.runs.recipe import TrainConfig
from naevus.taxonomy import ISIC2018
from naevus.training.data import order
from naevus.training.tasks import ClassificationLearning

if TYPE_CHECKING:
    from naevus.datasets.cache import PixelStore

Sampling = Literal["natural", "balanced", "balanced-sqrt"]
SAMPLINGS: tuple[Sampling, ...] = ("natural", "balanced", "balanced-sqrt")
POWER = {"natural": 0.0, "balanced": 1.0, "balanced-sqrt": 0.5}
COUNTS = np.array([1100, 6700, 510, 330, 1090, 120, 150])
SHARES = COUNTS / COUNTS.sum()
ANGLES = 2 * np.pi * np.arange(7) / 7
CENTRES = 1.5 * np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])


def learning(
    sampling: Sampling, **loss: Any
) -> tuple[ClassificationLearning, NDArray[np.int64], TrainConfig]:
    """Return the task over pictures that are only ids, and the class of each."""
    config = TrainConfig.model_validate(
        {
            "task": "classification",
            "sampling": sampling,
            "loss": {"class_weights": "ones", **loss},
        }
    )
    labels = np.repeat(np.arange(7), COUNTS)
    ids = [f"p{number}" for number in range(len(labels))]
    diagnoses = {name: ISIC2018.codes[c] for name, c in zip(ids, labels, strict=True)}
    store = cast("PixelStore", set(ids))
    return (
        ClassificationLearning(config, {"pictures": store}, ids, [], diagnoses, ISIC2018),
        labels,
        config,
    )


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_are_drawn_by_their_odds(sampling: Sampling) -> None:
    """Drawn by ``π^(1 - a)``: a class's odds are its share, its root, or the same for all."""
    job, labels, config = learning(sampling)
    drawn = np.concatenate([order(config, epoch, len(labels), job.draw) for epoch in range(20)])
    found = np.bincount(labels[drawn], minlength=7) / len(drawn)
    expected = SHARES ** (1 - POWER[sampling])
    expected = expected / expected.sum()
    error = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (np.abs(found - expected) < 5 * error + 1e-12).all()
    np.testing.assert_allclose(job.weights * SHARES, expected, rtol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_pictures_of_one_class_have_the_same_odds(sampling: Sampling) -> None:
    job, labels, _ = learning(sampling)
    if sampling == "natural":
        assert job.draw is None
        return
    assert job.draw is not None
    assert job.draw.sum() == pytest.approx(1)
    for c in range(7):
        assert np.ptp(job.draw[labels == c]) == 0


def test_weights_and_sampling_multiply() -> None:
    """Half by drawing and half by weighing is as much as either whole."""
    both, _, _ = learning("balanced-sqrt", class_weights="balanced-sqrt")
    whole, _, _ = learning("balanced")
    np.testing.assert_allclose(both.weights, whole.weights, rtol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_both_posteriors_of_a_gaussian_toy_come_back(sampling: Sampling) -> None:
    """A linear network on seven Gaussians can learn the posterior that it is shown."""
    job, labels, config = learning(sampling)
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    network = nn.Linear(2, 7)
    optimiser = torch.optim.LBFGS(network.parameters(), max_iter=60, line_search_fn="strong_wolfe")
    drawn = np.concatenate([order(config, epoch, len(labels), job.draw) for epoch in range(8)])
    shown = labels[drawn]
    points = torch.from_numpy(CENTRES[shown] + chance.normal(size=(len(shown), 2))).float()
    targets = torch.from_numpy(shown)

    def closure() -> float:
        optimiser.zero_grad()
        loss = job.loss(network(points), targets)
        loss.backward()
        return loss.item()

    optimiser.step(closure)
    unseen = chance.choice(7, 2000, p=SHARES)
    x = CENTRES[unseen] + chance.normal(size=(2000, 2))
    with torch.inference_mode():
        logits = network(torch.from_numpy(x).float()).numpy()
    density = np.exp(-0.5 * ((x[:, None] - CENTRES) ** 2).sum(2))
    for found, prior in (
        (natural_log_probabilities(logits, job.weights), SHARES),
        (balanced_log_probabilities(logits, job.weights, job.shares), np.full(7, 1 / 7)),
    ):
        expected = prior * density / (prior * density).sum(1, keepdims=True)
        assert np.abs(np.exp(found) - expected).mean() < 0.01
    if sampling != "natural":  # what comes as it is, is neither
        raw = torch.softmax(torch.from_numpy(logits), 1).numpy()
        natural = SHARES * density / (SHARES * density).sum(1, keepdims=True)
        assert np.abs(raw - natural).mean() > 0.03
