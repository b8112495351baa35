"""The losses: values against references, and the effect of each setting on the gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from naevus.errors import ConfigError
from naevus.runs.recipe_tables import TERMS
from naevus.training import losses
from naevus.training.losses import (
    ClassWeighting,
    class_weights,
    classification_loss,
    effective_weights,
    logit_adjustment,
    segmentation_loss,
)

CHOICES: dict[str, ClassWeighting] = {
    "ones": "ones",
    "balanced": "balanced",
    "balanced-sqrt": "balanced-sqrt",
}
COUNTS = [1100, 6700, 510, 330, 1090, 115, 140]


def gradient(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    loss(logits, targets).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.fixture
def masks() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 16, 16, generator=generator)
    targets = torch.zeros(3, 16, 16)
    targets[0, 2:5, 2:5] = 1
    targets[1, :12, :15] = 1
    targets[2, 8:, 8:] = 1
    return logits, targets


@pytest.fixture
def classes() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(8, 7, generator=generator) * 2, torch.tensor([0, 1, 2, 3, 4, 5, 6, 1])


def test_bce_is_the_mean_over_pixels(masks: tuple[Tensor, Tensor]) -> None:
    logits, targets = masks
    p = torch.sigmoid(logits)
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(segmentation_loss(("bce",))(logits, targets), expected)


@pytest.mark.parametrize("term", ["dice", "jaccard"])
def test_overlap_terms_are_means_over_images(term: str, masks: tuple[Tensor, Tensor]) -> None:
    logits, targets = masks
    p = torch.sigmoid(logits)
    both = (p * targets).sum((1, 2))
    sizes = (p + targets).sum((1, 2))
    score = 2 * both / sizes if term == "dice" else both / (sizes - both)
    loss = segmentation_loss((term,))(logits, targets)
    torch.testing.assert_close(loss, 1 - score.mean())


def test_small_and_large_lesions_have_the_same_weight() -> None:
    loss = segmentation_loss(("jaccard",))
    targets = torch.zeros(2, 32, 32)
    targets[0, :2, :2] = 1
    targets[1, :30, :30] = 1
    logits = torch.where(targets > 0, 20.0, -20.0)
    missed_small, missed_large = logits.clone(), logits.clone()
    missed_small[0], missed_large[1] = -20.0, -20.0
    assert loss(missed_small, targets).item() == pytest.approx(0.5, abs=1e-4)
    assert loss(missed_large, targets).item() == pytest.approx(0.5, abs=1e-4)


def test_lovasz_is_the_jaccard_loss_at_hard_corners() -> None:
    targets = torch.zeros(1, 4, 4)
    targets[0, :2] = 1
    predicted = torch.zeros(1, 4, 4)
    predicted[0, 1:3] = 1
    # The hinge at margin 1 costs 2 where wrong: twice one minus 4/12.
    logits = 2 * predicted - 1
    loss = segmentation_loss(("lovasz",))(logits, targets)
    assert loss.item() == pytest.approx(2 * (1 - 4 / 12), abs=1e-5)


@pytest.mark.parametrize("term", ["bce", "dice", "jaccard"])
@settings(deadline=None, max_examples=20)
@given(fraction=st.floats(0.05, 0.95), away=st.floats(-0.9, 0.9))
def test_the_minimum_is_at_soft_targets(term: str, fraction: float, away: float) -> None:
    loss = segmentation_loss((term,))
    targets = torch.full((1, 4, 4), fraction)
    there = torch.logit(targets)
    assert loss(there, targets) <= loss(there + away, targets) + 1e-6


def test_lovasz_thresholds_soft_targets_at_one_half(masks: tuple[Tensor, Tensor]) -> None:
    logits, targets = masks
    loss = segmentation_loss(("lovasz",))
    torch.testing.assert_close(loss(logits, targets * 0.6 + 0.1), loss(logits, targets))


def test_terms_add_up_and_each_changes_the_gradient(masks: tuple[Tensor, Tensor]) -> None:
    terms = tuple(losses._TERMS)
    gradients = [gradient(segmentation_loss((term,)), *masks) for term in terms]
    torch.testing.assert_close(gradient(segmentation_loss(terms), *masks), sum(gradients))
    for i, one in enumerate(gradients):
        for other in gradients[i + 1 :]:
            assert not torch.allclose(one / one.norm(), other / other.norm(), atol=1e-3)


@pytest.mark.parametrize("term", losses._TERMS)
def test_each_term_pulls_towards_the_mask(term: str, masks: tuple[Tensor, Tensor]) -> None:
    logits, targets = masks
    slope = gradient(segmentation_loss((term,)), torch.zeros_like(logits), targets)
    assert slope[targets == 1].sum() < 0
    assert slope[targets == 0].sum() > 0


def test_an_empty_mask_and_half_precision_give_finite_gradients() -> None:
    loss = segmentation_loss(tuple(losses._TERMS))
    logits = torch.randn(2, 8, 8).bfloat16()
    slope = gradient(loss, logits, torch.zeros(2, 8, 8))
    assert torch.isfinite(slope).all()
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("terms", [(), ("bce", "bce"), ("iou",)])
def test_wrong_terms_are_refused(terms: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="name one or more of bce, dice, jaccard, lovasz"):
        segmentation_loss(terms)


def test_recipes_know_every_term() -> None:
    assert tuple(losses._TERMS) == tuple(losses._POOLED) == TERMS
    assert losses._POOLED.keys() == losses._TERMS.keys()


def test_cross_entropy_is_torchs(classes: tuple[Tensor, Tensor]) -> None:
    loss = classification_loss(label_smoothing=0.1)
    torch.testing.assert_close(loss(*classes), nn.CrossEntropyLoss(label_smoothing=0.1)(*classes))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_softmax_focal_loss(gamma: float, classes: tuple[Tensor, Tensor]) -> None:
    ours = gradient(classification_loss("focal", gamma=gamma), *classes)

    def reference(logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = softmax_focal_loss_with_logits(logits, targets, gamma=gamma)
        return value

    logits = classes[0].clone().requires_grad_()
    reference(logits, classes[1]).backward()
    torch.testing.assert_close(
        classification_loss("focal", gamma=gamma)(*classes), reference(*classes)
    )
    torch.testing.assert_close(ours, logits.grad)


def test_focal_of_two_classes_is_the_sigmoid_focal_loss() -> None:
    scores = torch.linspace(-6, 6, 13)
    truth = torch.arange(13) % 2
    ours = classification_loss("focal", gamma=2.0)(
        torch.stack([torch.zeros_like(scores), scores], dim=1), truth
    )
    theirs = sigmoid_focal_loss(scores, truth.float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_focal_ignores_certain_images() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    truth = torch.tensor([0, 0])
    plain = gradient(classification_loss(), logits, truth).norm(dim=1)
    focal = gradient(classification_loss("focal"), logits, truth).norm(dim=1)
    assert focal[0] / focal[1] < 0.05 * plain[0] / plain[1]


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_finite_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]])
    slope = gradient(classification_loss("focal", gamma=gamma), logits, torch.tensor([0, 0]))
    assert torch.isfinite(slope).all()


def test_class_weights_scale_each_image(classes: tuple[Tensor, Tensor]) -> None:
    weights = class_weights(COUNTS, "balanced")
    plain = gradient(classification_loss(), *classes)
    weighted = gradient(classification_loss(class_weights=weights), *classes)
    torch.testing.assert_close(weighted, plain * weights[classes[1]][:, None])


def test_label_smoothing_penalises_confident_predictions() -> None:
    logits, truth = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([0])
    assert gradient(classification_loss(), logits, truth)[0, 0] < 0
    assert gradient(classification_loss(label_smoothing=0.1), logits, truth)[0, 0] > 0


def test_logit_adjustment_requires_larger_margins_of_rare_classes() -> None:
    adjusted = classification_loss(logit_adjustment=logit_adjustment(COUNTS))
    logits = torch.zeros(2, 7)
    truth = torch.tensor([1, 5])  # the most frequent and the rarest
    slope = gradient(adjusted, logits, truth)
    class_priors = torch.tensor(COUNTS) / sum(COUNTS)
    torch.testing.assert_close(slope[0, 1] * 2, class_priors[1] - 1)
    torch.testing.assert_close(slope[1, 5] * 2, class_priors[5] - 1)


@pytest.mark.parametrize(
    ("kind", "power"), [("ones", 0.0), ("balanced", 1.0), ("balanced-sqrt", 0.5)]
)
def test_class_weights_have_mean_one(kind: str, power: float) -> None:
    weights = class_weights(COUNTS, CHOICES[kind])
    class_priors = torch.tensor(COUNTS) / sum(COUNTS)
    assert (class_priors * weights).sum().item() == pytest.approx(1, abs=1e-6)
    products = weights * class_priors**power
    torch.testing.assert_close(products, products[:1].expand(7))


def test_an_absent_class_has_a_harmless_weight() -> None:
    weights = class_weights([90, 0, 10], "balanced")
    assert weights[1] == 1
    assert (torch.tensor([0.9, 0, 0.1]) * weights).sum().item() == pytest.approx(1)
    assert torch.isfinite(logit_adjustment([90, 0, 10])).all()


@pytest.mark.parametrize("choice", ["ones", "balanced", "balanced-sqrt", "adjusted", "sampled"])
def test_effective_weights_lead_back_to_the_natural_probabilities(choice: str) -> None:
    """Identical images with labels in proportions ``q``, for which the best logits are known."""
    counts, q = [70, 20, 10], torch.tensor([0.5, 0.3, 0.2])
    weights = class_weights(counts, CHOICES[choice]) if choice in CHOICES else None
    adjustment = logit_adjustment(counts, 0.7) if choice == "adjusted" else None
    synthetic = torch.tensor([0.5, 1.5, 3.5]) if choice == "sampled" else torch.ones(3)
    loss = classification_loss(class_weights=weights, logit_adjustment=adjustment)
    logits = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-9)
    mixed = q * synthetic

    def closure() -> float:
        optimiser.zero_grad()
        terms = [
            fraction * loss(logits[None], torch.tensor([c])) for c, fraction in enumerate(mixed)
        ]
        total = torch.stack(terms).sum()
        total.backward()
        return total.item()

    optimiser.step(closure)
    factors = [synthetic] if weights is None else [synthetic, weights]
    effective = effective_weights(counts, *factors, logit_adjustment=adjustment)
    natural = torch.softmax(logits.detach() - effective.log(), dim=0)
    torch.testing.assert_close(natural, q, atol=1e-3, rtol=0)
    class_priors = torch.tensor(counts) / sum(counts)
    assert (class_priors * effective).sum().item() == pytest.approx(1, abs=1e-6)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="cross_entropy or focal"):
        classification_loss("hinge")
    with pytest.raises(ConfigError, match="label smoothing"):
        classification_loss(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="gamma"):
        classification_loss("focal", gamma=-1.0)
    with pytest.raises(ConfigError, match="balanced-sqrt"):
        class_weights(COUNTS, "inverse")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no images"):
        class_weights([0, 0], "ones")


def test_losses_are_float32_under_autocast(classes: tuple[Tensor, Tensor]) -> None:
    logits, truth = classes
    value = classification_loss()(logits.bfloat16(), truth)
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
