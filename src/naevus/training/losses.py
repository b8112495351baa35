"""Losses, class weights, and the effective weights that a network is trained with.

A classifier trained with loss weights or sampling ``w_c`` on class priors ``π_c`` learns
probabilities ∝ π_c·w_c·p(x|c). ``naevus.evaluation.priors`` corrects them with the ``w_c`` that
``effective_weights`` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from segmentation_models_pytorch import losses as smp_losses
from torch import Tensor, nn
from torch.nn import functional

from naevus.errors import ConfigError
from naevus.runs.recipe import LESION
from naevus.runs.recipe_tables import KINDS, is_own
from naevus.training.parts import make_part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ClassWeighting = Literal["ones", "balanced", "balanced-sqrt"]

_EXPONENTS: dict[str, float] = {"ones": 0.0, "balanced": 1.0, "balanced-sqrt": 0.5}


class _PerImage(nn.Module):
    """Dice or Jaccard loss of each image, averaged as in the challenge.

    The images take the place of classes in segmentation-models-pytorch. Over a whole batch, large
    lesions would dominate small ones. An image with an empty target adds nothing.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss(logits.unsqueeze(0), targets.unsqueeze(0))
        return value


class _Lovasz(nn.Module):
    """Lovász hinge of each image (Berman et al. 2018, https://arxiv.org/abs/1705.08790).

    It is defined for hard masks only: soft targets are thresholded at 0.5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = smp_losses.LovaszLoss("binary", per_image=True)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss(logits, (targets > 0.5).to(logits.dtype))
        return value


_TERMS: dict[str, Callable[[], nn.Module]] = {
    "bce": nn.BCEWithLogitsLoss,
    "dice": lambda: _PerImage(smp_losses.DiceLoss("multilabel")),
    "jaccard": lambda: _PerImage(smp_losses.JaccardLoss("multilabel")),
    "lovasz": _Lovasz,
}


_POOLED: dict[str, Callable[[], nn.Module]] = {
    "bce": nn.BCEWithLogitsLoss,
    "dice": lambda: _PerBatch(smp_losses.DiceLoss("multilabel")),
    "jaccard": lambda: _PerBatch(smp_losses.JaccardLoss("multilabel")),
    "lovasz": _Lovasz,
}


class SegmentationLoss(nn.Module):
    """The sum of loss terms over logits N×H×W and soft or hard targets N×H×W in [0, 1].

    With soft targets, the Dice and Jaccard terms have the form whose minimum is at the target
    (Wang et al. 2023, https://arxiv.org/abs/2302.05666).

    Args:
        terms: Names among ``bce``, ``dice``, ``jaccard`` and ``lovasz``.
        pooled: Whether Dice and Jaccard pool all images of the batch.

    Raises:
        ConfigError: There is no term, a repeated term or an unknown term.
    """

    def __init__(self, terms: Sequence[str], *, pooled: bool = False) -> None:
        super().__init__()
        known = [term for term in terms if term in _TERMS or is_own(term)]
        if not terms or len(set(terms)) < len(terms) or len(known) < len(terms):
            raise ConfigError(
                f"the segmentation loss cannot be the sum of {list(terms)}",
                f"name one or more of {', '.join(_TERMS)} or MODULE:NAME, each once",
            )
        made = _POOLED if pooled else _TERMS
        self.terms = nn.ModuleList(
            made[term]() if term in made else OwnLoss(term) for term in terms
        )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a float32 scalar for logits of any precision."""
        logits, targets = logits.float(), targets.float()
        values = [term(logits, targets) for term in self.terms]
        return torch.stack(values).sum()


class OwnLoss(nn.Module):
    """A loss outside naevus, which must return a scalar.

    Args:
        name: ``package.module:attribute`` of a class or function that makes it.
        arguments: Passed when it is made.

    Raises:
        ConfigError: It cannot be made.
    """

    def __init__(self, name: str, **arguments: object) -> None:
        super().__init__()
        self._name = name
        self.loss = make_part(name, **arguments)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch.

        Raises:
            ConfigError: It is not a scalar tensor.
        """
        value = self.loss(logits, targets)
        if not isinstance(value, Tensor) or value.ndim:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{self._name} returned {got}", "return a tensor without dimensions")
        return value.float()


class _PerBatch(nn.Module):
    """Dice or Jaccard loss pooled over a batch, as in Task 2 of the challenge.

    Most images do not show an attribute and would dominate a loss by image. A batch without the
    attribute adds nothing.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss(logits.unsqueeze(1), targets.unsqueeze(1))
        return value


class OutputsLoss(nn.Module):
    """The mean loss of several outputs, each over the images that have ground truth for it.

    The lesion has the loss of a segmenter (`SegmentationLoss`); the Dice and Jaccard terms of
    attributes are pooled over the batch.

    Args:
        terms: See `SegmentationLoss`.
        outputs: The outputs, in the order of the logits.

    Raises:
        ConfigError: See `SegmentationLoss`.
    """

    def __init__(self, terms: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self._criteria = nn.ModuleList(
            SegmentationLoss(terms, pooled=output != LESION) for output in outputs
        )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar in float32.

        Args:
            logits: N x K x H x W.
            targets: Masks in [0, 1], N x K x H x W; negative if an image has no ground truth for
                an output, which is then ignored.
        """
        known = targets[:, :, 0, 0] >= 0
        losses = [
            criterion(logits[known[:, k], k], targets[known[:, k], k])
            for k, criterion in enumerate(self._criteria)
            if known[:, k].any()
        ]
        # Divide by all outputs: a batch without ground truth for one must not weight the others
        # more.
        return torch.stack(losses).sum() / len(self._criteria) if losses else 0 * logits.sum()


class ClassificationLoss(nn.Module):
    """Cross-entropy or focal loss over logits N×C and classes int64 N.

    The loss of an image of class y is ``w_y · (1 − p_y)^γ · CE(z + a, y)``. Here p is the softmax
    of ``z + a``, γ is 0 for cross-entropy, and CE has label smoothing. The loss of a batch is the
    mean over images. Unlike in torch, it is not divided by the sum of the weights in the batch,
    so its gradient is unbiased.

    Focal loss: Lin et al. 2017 (https://arxiv.org/abs/1708.02002), softmax form. Logit adjustment:
    Menon et al. 2021 (https://arxiv.org/abs/2007.07314), equation 10. Focal loss is not a proper
    scoring rule: its probabilities are underconfident and need a temperature.

    Args:
        kind: ``cross_entropy`` or ``focal``.
        class_weights: ``w_c``, shape C; None for ones.
        label_smoothing: Fraction of the target distributed evenly over all classes, in [0, 1).
        gamma: γ of the focal loss, 0 or more.
        logit_adjustment: ``a_c``, shape C, added to the logits in training only; None for zeros.

    Raises:
        ConfigError: The kind is unknown, or a value is out of range.
    """

    class_weights: Tensor | None
    logit_adjustment: Tensor | None

    def __init__(
        self,
        kind: str = "cross_entropy",
        *,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        gamma: float = 2.0,
        logit_adjustment: Tensor | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"no loss is called {kind!r}", "choose cross_entropy or focal")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label smoothing cannot be {label_smoothing}", "choose 0 to below 1")
        if gamma < 0:
            raise ConfigError(f"gamma cannot be {gamma}", "choose 0 or more")
        self.gamma = gamma if kind == "focal" else 0.0
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("logit_adjustment", logit_adjustment, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a float32 scalar for logits of any precision."""
        logits = logits.float()
        if self.logit_adjustment is not None:
            logits = logits + self.logit_adjustment
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.gamma:
            log_p = functional.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
            miss = (-torch.expm1(log_p)).clamp_min(1e-12)  # no finite gradient at 0 for γ < 1
            losses = miss**self.gamma * losses
        if self.class_weights is not None:
            losses = self.class_weights[targets] * losses
        return losses.mean()


def segmentation_loss(terms: Sequence[str]) -> SegmentationLoss:
    """Return the sum of ``terms``; see ``SegmentationLoss``."""
    return SegmentationLoss(terms)


def classification_loss(
    kind: str = "cross_entropy",
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    gamma: float = 2.0,
    logit_adjustment: Tensor | None = None,
) -> nn.Module:
    """Return a classification loss; see ``ClassificationLoss``.

    An own loss is made with ``class_weights`` alone.
    """
    if is_own(kind):
        return OwnLoss(kind, class_weights=class_weights)
    return ClassificationLoss(
        kind,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        gamma=gamma,
        logit_adjustment=logit_adjustment,
    )


def class_weights(counts: Sequence[int], kind: ClassWeighting) -> Tensor:
    """Return loss weights ``w_c`` with mean 1 over the images: ``sum(π_c·w_c) = 1``.

    Args:
        counts: Number of training images of each class, shape C.
        kind: ``ones``, ``balanced`` (∝ 1/π) or ``balanced-sqrt`` (∝ π^−½).

    Returns:
        float32, shape C. A class without images has the unused weight 1.

    Raises:
        ConfigError: The kind is unknown, or there are no images.
    """
    if kind not in _EXPONENTS:
        raise ConfigError(
            f"no class weights are called {kind!r}", f"choose one of {', '.join(_EXPONENTS)}"
        )
    class_priors = _class_priors(counts)
    present = class_priors > 0
    raw = torch.where(present, torch.where(present, class_priors, 1.0) ** -_EXPONENTS[kind], 0.0)
    weights = raw / (class_priors * raw).sum()
    return torch.where(present, weights, 1.0).float()


def logit_adjustment(counts: Sequence[int], strength: float = 1.0) -> Tensor:
    """Return ``strength · log π_c``, to add to the logits in training (Menon et al. 2021).

    With strength 1 the unadjusted logits are balanced, as for equal class priors.

    Args:
        counts: Number of training images of each class, shape C; a missing class counts as one.
        strength: τ in the paper.

    Returns:
        float32, shape C.

    Raises:
        ConfigError: There are no images.
    """
    _class_priors(counts)
    return (strength * torch.log(_class_priors([max(count, 1) for count in counts]))).float()


def effective_weights(
    counts: Sequence[int], *factors: Tensor, logit_adjustment: Tensor | None = None
) -> Tensor:
    """Return the effective ``w_c`` of a network's training, for ``evaluation.priors``.

    Args:
        counts: Number of training images of each class, shape C.
        factors: Loss weights, and the relative sampling frequency of each class.
        logit_adjustment: ``a_c`` added to the logits in training, which acts on the unadjusted
            logits like weights ``exp(−a_c)``.

    Returns:
        float32, shape C, scaled to ``sum(π_c·w_c) = 1``.

    Raises:
        ConfigError: There are no images.
    """
    class_priors = _class_priors(counts)
    product = torch.ones_like(class_priors)
    for factor in factors:
        product = product * factor.double()
    if logit_adjustment is not None:
        product = product * torch.exp(-logit_adjustment.double())
    return (product / (class_priors * product).sum()).float()


def _class_priors(counts: Sequence[int]) -> Tensor:
    total = sum(counts)
    if total < 1 or min(counts) < 0:
        raise ConfigError(
            f"class counts {list(counts)} contain no images",
            "use a training set with diagnoses",
        )
    return torch.tensor(counts, dtype=torch.float64) / total
