"""Losses, and what each choice of them makes the network learn.

A classifier trained with loss weights or sampling ``w_c`` on class priors ``π_c`` learns
probabilities ∝ π_c·w_c·p(x|c); ``naevus.evaluation.priors`` takes them back with the ``w_c``
that ``effective_weights`` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from segmentation_models_pytorch import losses as smp_losses
from torch import Tensor, nn
from torch.nn import functional

from naevus.errors import ConfigError
from naevus.runs.recipe import LESION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ClassWeighting = Literal["ones", "balanced", "balanced-sqrt"]
ClassificationKind = Literal["cross_entropy", "focal"]

_EXPONENTS: dict[str, float] = {"ones": 0.0, "balanced": 1.0, "balanced-sqrt": 0.5}


class _PerImage(nn.Module):
    """Dice or Jaccard of each image, averaged as the challenge averages them.

    The images stand where segmentation-models-pytorch expects classes; over a batch as a whole,
    large lesions would drown the small ones. An image with an empty target adds nothing.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss(logits.unsqueeze(0), targets.unsqueeze(0))
        return value


class _Lovasz(nn.Module):
    """Lovász hinge of each image (Berman et al. 2018, https://arxiv.org/abs/1705.08790).

    It is defined on hard masks only: soft targets are cut at 0.5.
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
    """The sum of some terms over logits N×H×W and soft or hard targets N×H×W in [0, 1].

    The Dice and Jaccard terms take soft targets in the form that is least where both agree
    (Wang et al. 2023, https://arxiv.org/abs/2302.05666).

    Args:
        terms: Names among ``bce``, ``dice``, ``jaccard`` and ``lovasz``.
        pooled: Whether Dice and Jaccard are those of all images of the batch as one.

    Raises:
        ConfigError: No term, a repeated or an unknown one.
    """

    def __init__(self, terms: Sequence[str], *, pooled: bool = False) -> None:
        super().__init__()
        if not terms or len(set(terms)) < len(terms) or not set(terms) <= _TERMS.keys():
            raise ConfigError(
                f"the segmentation loss cannot be the sum of {list(terms)}",
                f"name one or more of {', '.join(_TERMS)}, each once",
            )
        made = _POOLED if pooled else _TERMS
        self.terms = nn.ModuleDict({term: made[term]() for term in terms})

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar in float32 whatever the logits are."""
        logits, targets = logits.float(), targets.float()
        values = [term(logits, targets) for term in self.terms.values()]
        return torch.stack(values).sum()


class _PerBatch(nn.Module):
    """Dice or Jaccard of all images of a batch as one, as Task 2 of the challenge pools them.

    Most images show none of an attribute: by image, the rest would drown in them. A batch without
    the attribute adds nothing.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss(logits.unsqueeze(1), targets.unsqueeze(1))
        return value


class OutputsLoss(nn.Module):
    """The mean loss of several outputs, each on the images that have a ground truth for it.

    The lesion's loss is that of a segmenter (`SegmentationLoss`); Dice and Jaccard terms of the
    attributes are taken over the batch as a whole.

    Args:
        terms: As `SegmentationLoss` takes them.
        outputs: The outputs, in the order of the logits.

    Raises:
        ConfigError: As `SegmentationLoss`.
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
            targets: Fractions of the masks, likewise; below 0 where an image has no ground truth
                for an output, which then does not count for it.
        """
        known = targets[:, :, 0, 0] >= 0
        losses = [
            criterion(logits[known[:, k], k], targets[known[:, k], k])
            for k, criterion in enumerate(self._criteria)
            if known[:, k].any()
        ]
        # An output that no image of the batch has a truth for is no reason to learn the others
        # faster, hence not the mean over those that count.
        return torch.stack(losses).sum() / len(self._criteria) if losses else 0 * logits.sum()


class ClassificationLoss(nn.Module):
    """Cross-entropy or focal loss over logits N×C and classes int64 N.

    The loss of image i of class y is ``w_y · (1 − p_y)^γ · CE(z + a, y)``, p being the softmax of
    ``z + a``, with γ = 0 for cross-entropy and CE smoothed towards the uniform distribution. The
    batch's value is the mean over images (not divided by the weights that happen to be in the
    batch, as torch does, so that a batch's gradient is an unbiased estimate).

    Focal: Lin et al. 2017 (https://arxiv.org/abs/1708.02002), its softmax form. Logit adjustment:
    Menon et al. 2021 (https://arxiv.org/abs/2007.07314), equation 10. A focal loss is not a proper
    score: its probabilities are less sure than they should be, and need a temperature.

    Args:
        kind: Which of the two.
        class_weights: ``w_c``, shape C; None for ones.
        label_smoothing: Fraction of the target spread evenly over all classes, in [0, 1).
        gamma: γ of the focal loss, 0 or more.
        logit_adjustment: ``a_c``, shape C, added to the logits in training only; None for zeros.

    Raises:
        ConfigError: A kind that does not exist, or a value outside its range.
    """

    class_weights: Tensor | None
    logit_adjustment: Tensor | None

    def __init__(
        self,
        kind: ClassificationKind = "cross_entropy",
        *,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        gamma: float = 2.0,
        logit_adjustment: Tensor | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("cross_entropy", "focal"):
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
        """Return the loss of a batch, a scalar in float32 whatever the logits are."""
        logits = logits.float()
        if self.logit_adjustment is not None:
            logits = logits + self.logit_adjustment
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.gamma:
            log_p = functional.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
            miss = (-torch.expm1(log_p)).clamp_min(1e-12)  # its power has no slope at 0 for γ < 1
            losses = miss**self.gamma * losses
        if self.class_weights is not None:
            losses = self.class_weights[targets] * losses
        return losses.mean()


def segmentation_loss(terms: Sequence[str]) -> SegmentationLoss:
    """Return the sum of ``terms``; see ``SegmentationLoss``."""
    return SegmentationLoss(terms)


def classification_loss(
    kind: ClassificationKind = "cross_entropy",
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    gamma: float = 2.0,
    logit_adjustment: Tensor | None = None,
) -> ClassificationLoss:
    """Return a classification loss; see ``ClassificationLoss``."""
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
        counts: Images of each class in the training part, shape C.
        kind: ``ones``, ``balanced`` (∝ 1/π) or ``balanced-sqrt`` (∝ π^−½).

    Returns:
        float32, shape C. A class without images has the weight 1, which nothing uses.

    Raises:
        ConfigError: A kind that does not exist, or no image at all.
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
    """Return ``strength · log π_c`` to be added to the logits in training (Menon et al. 2021).

    With strength 1 the bare logits are balanced ones: as if every class had the same share.

    Args:
        counts: Images of each class in the training part, shape C; an absent class counts as one.
        strength: τ in the paper.

    Returns:
        float32, shape C.

    Raises:
        ConfigError: No image at all.
    """
    _class_priors(counts)
    return (strength * torch.log(_class_priors([max(count, 1) for count in counts]))).float()


def effective_weights(
    counts: Sequence[int], *factors: Tensor, logit_adjustment: Tensor | None = None
) -> Tensor:
    """Return the ``w_c`` a network was really trained with, for ``evaluation.decisions``.

    Args:
        counts: Images of each class in the training part, shape C.
        factors: Loss weights, and how much more often than its fraction sampling draws each class.
        logit_adjustment: What was added to the logits in training: it takes the place of weights
            ``exp(−a_c)`` in the bare logits.

    Returns:
        float32, shape C, scaled to ``sum(π_c·w_c) = 1``.

    Raises:
        ConfigError: No image at all.
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
            f"class counts {list(counts)} hold no images", "give a training part with diagnoses"
        )
    return torch.tensor(counts, dtype=torch.float64) / total
