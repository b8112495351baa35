"""What is particular to each task: learning lesion masks, and learning diagnoses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from naevus.errors import DataError
from naevus.evaluation.classification import ClassificationScores
from naevus.evaluation.mask_metrics import compare_masks
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.images.preprocess import Form
from naevus.training.data import Examples, plain_batches
from naevus.training.losses import (
    class_weights,
    classification_loss,
    effective_weights,
    logit_adjustment,
    segmentation_loss,
)
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.pretrained import weights_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from naevus.datasets.cache import PixelStore
    from naevus.runs.recipe import TrainConfig
    from naevus.taxonomy import Taxonomy
    from naevus.training.data import Material
    from naevus.training.loop import Metrics


class SegmentationLearning:
    """Learns masks; watched by the mean Jaccard at the network's size, before any cleaning.

    Args:
        config: The recipe.
        stores: Caches by form: the pictures and their masks.
        training: Ids that are trained on.
        inner: Ids that training is watched on.
    """

    def __init__(
        self,
        config: TrainConfig,
        stores: Mapping[str, PixelStore],
        training: Sequence[str],
        inner: Sequence[str],
    ) -> None:
        pictures, masks = (stores["pictures"],), stores["masks"]
        self.training = Examples(usable(training, *pictures, masks), pictures, masks)
        self.inner = Examples(usable(inner, *pictures, masks), pictures, masks)
        self.draw = None
        self._config = config
        self._criterion = segmentation_loss(config.loss.terms)

    @staticmethod
    def forms(config: TrainConfig) -> dict[str, Form]:
        """Return the forms of the caches that are needed, by name."""
        size = config.data.cache_size
        return {
            "pictures": Form("squash", size, colour_constancy=config.data.colour_constancy),
            "masks": Form("mask", size),
        }

    def network(self, pretrained: Path | None = None) -> Preprocessed:
        """Build the network of the recipe, from a file of weights where it names one."""
        settings = self._config.network
        weights = weights_of(settings.pretrained, pretrained)
        return Preprocessed(
            build_segmenter(settings.architecture, settings.encoder, weights, settings.decoder)
        )

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits N x S x S on masks uint8 N x S x S, 0..255."""
        shares = targets.float() / 255
        if not self._config.loss.soft_masks:
            shares = (shares > 0.5).float()
        value: Tensor = self._criterion(logits, shares)
        return value

    def inspect(self, network: nn.Module, size: int) -> Metrics:
        """Return mean and thresholded Jaccard, sensitivity, precision and pixel counts."""
        scores, counts = [], np.zeros(4, np.int64)
        for logits, targets in outputs(network, self.inner, self._config, size):
            predicted, truth = (logits > 0).numpy(), (targets > 127).numpy()
            scores += [compare_masks(*pair) for pair in zip(truth, predicted, strict=True)]
            counts += np.bincount((2 * truth + predicted).ravel(), minlength=4)
        negative, false_positive, false_negative, positive = counts.tolist()
        jaccards = np.array([score.jaccard for score in scores])
        jaccard = float(jaccards.mean()) if len(jaccards) else 0.0
        return {
            "score": jaccard,
            "jaccard": jaccard,
            "thresholded_jaccard": float(np.mean([score.thresholded for score in scores] or [0])),
            "sensitivity": positive / max(1, positive + false_negative),
            "precision": positive / max(1, positive + false_positive),
            "confusion": [[negative, false_positive], [false_negative, positive]],
        }


def usable(ids: Sequence[str], *stores: PixelStore) -> tuple[str, ...]:
    """Return those ids that all stores hold: what was quarantined is not learnt from."""
    return tuple(image_id for image_id in ids if all(image_id in store for store in stores))


@torch.inference_mode()
def outputs(
    network: nn.Module, examples: Examples, config: TrainConfig, size: int
) -> list[tuple[Tensor, Tensor]]:
    """Return the logits and targets of unvaried examples, batch by batch, on the CPU."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    pairs = [
        (network(pixels.to(device)).float().cpu(), targets)
        for pixels, targets in plain_batches(examples, config, size)
    ]
    network.train(was_training)
    return pairs


# What is particular to learning diagnoses.


class ClassificationLearning:
    """Learns diagnoses; watched by the balanced accuracy of the balanced decision.

    Args:
        config: The recipe.
        stores: Caches by name: ``pictures``, and ``copies...`` with other copies of some of them.
        training: Ids that are trained on.
        inner: Ids that training is watched on.
        diagnoses: Code of each id.
        taxonomy: The codes, in order.

    Attributes:
        shares: pi_c, share of each class in the training part, shape C.
        weights: w_c, how much more than its share each class counts in training, shape C.

    Raises:
        DataError: A class has no training picture.
    """

    def __init__(
        self,
        config: TrainConfig,
        stores: Mapping[str, PixelStore],
        training: Sequence[str],
        inner: Sequence[str],
        diagnoses: Mapping[str, str],
        taxonomy: Taxonomy,
    ) -> None:
        labels = {image_id: taxonomy.index(code) for image_id, code in diagnoses.items()}
        pictures = stores["pictures"]
        copies = [store for name, store in stores.items() if name.startswith("copies")]
        self.training = Examples(usable(training, pictures), (pictures, *copies), labels=labels)
        self.inner = Examples(usable(inner, pictures), (pictures,), labels=labels)
        self._config, self.taxonomy = config, taxonomy
        classes = np.array([labels[image_id] for image_id in self.training.ids], np.int64)
        counts = np.bincount(classes, minlength=len(taxonomy)).tolist()
        if 0 in counts:
            raise DataError(
                f"no training picture of {taxonomy.codes[counts.index(0)]}",
                "use a data set that has pictures of every class, or fewer folds",
            )
        self._counts = counts
        self.shares = np.array(counts) / sum(counts)
        self.draw = None
        sampled = torch.ones(len(counts))
        if config.sampling != "natural":
            sampled = class_weights(counts, config.sampling)
            odds = sampled.numpy().astype(np.float64)[classes]
            self.draw = odds / odds.sum()
        in_loss = class_weights(counts, config.loss.class_weights)
        adjustment = (
            logit_adjustment(counts, config.loss.logit_adjustment)
            if config.loss.logit_adjustment
            else None
        )
        self.weights = effective_weights(
            counts, in_loss, sampled, logit_adjustment=adjustment
        ).numpy()
        self._criterion = classification_loss(
            config.loss.kind,
            class_weights=in_loss,
            label_smoothing=config.loss.label_smoothing,
            gamma=config.loss.gamma,
            logit_adjustment=adjustment,
        )

    @staticmethod
    def forms(config: TrainConfig) -> dict[str, Form]:
        """Return the form of the cache that is needed, by name."""
        data = config.data
        return {
            "pictures": Form(
                data.crop_mode,
                data.cache_size,
                margin=data.crop_margin,
                colour_constancy=data.colour_constancy,
            )
        }

    def network(self, pretrained: Path | None = None) -> Preprocessed:
        """Build the network of the recipe, from a file of weights where it names one."""
        settings = self._config.network
        return Preprocessed(
            build_classifier(
                settings.backbone,
                len(self.taxonomy),
                weights_of(settings.pretrained, pretrained),
                pooling=settings.pooling,
                hidden=settings.hidden,
                dropout=settings.dropout,
                drop_path=settings.drop_path,
            )
        )

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits N x C on class indices int64 N."""
        self._criterion.to(logits.device)
        value: Tensor = self._criterion(logits, targets)
        return value

    def inspect(self, network: nn.Module, size: int) -> Metrics:
        """Return balanced accuracy, accuracy, and by class precision, recall, confusion."""
        pairs = outputs(network, self.inner, self._config, size)
        if not pairs:
            return {"score": 0.0}
        logits = torch.cat([logits for logits, _ in pairs]).numpy()
        codes = [self.taxonomy.codes[index] for index in torch.cat([t for _, t in pairs])]
        scores = ClassificationScores.from_probabilities(
            list(self.inner.ids),
            codes,
            np.exp(natural_log_probabilities(logits, self.weights)),
            np.exp(balanced_log_probabilities(logits, self.weights, self.shares)),
            self.taxonomy,
        )
        balanced = scores.balanced
        return {
            "score": balanced.balanced_accuracy,
            "balanced_accuracy": balanced.balanced_accuracy,
            "accuracy": scores.probable.accuracy,
            "recall": {entry.code: entry.recall for entry in balanced.classes},
            "precision": {entry.code: entry.precision for entry in balanced.classes},
            "confusion": balanced.confusion.tolist(),
        }


def learning_of(
    config: TrainConfig,
) -> type[SegmentationLearning | ClassificationLearning]:
    """Return what learns a recipe's task."""
    return SegmentationLearning if config.task == "segmentation" else ClassificationLearning


def _make_learning(
    config: TrainConfig, material: Material, training: list[str], inner: list[str]
) -> SegmentationLearning | ClassificationLearning:
    if config.task == "segmentation":
        return SegmentationLearning(config, material.stores, training, inner)
    table = material.dataset.table
    diagnoses = dict(zip(table["image_id"], table["diagnosis"], strict=True))
    return ClassificationLearning(
        config, material.stores, training, inner, diagnoses, material.dataset.taxonomy
    )
