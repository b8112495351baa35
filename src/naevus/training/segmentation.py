"""What is particular to learning lesion masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.preprocess import Form
from naevus.training.batches import Examples, plain_batches
from naevus.training.losses import segmentation_loss
from naevus.training.networks import Preprocessed, build_segmenter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from naevus.datasets.cache import PixelStore
    from naevus.runs.recipe import TrainConfig
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

    def network(self) -> Preprocessed:
        """Build the network of the recipe."""
        settings = self._config.network
        return Preprocessed(
            build_segmenter(
                settings.architecture, settings.encoder, settings.weights, settings.decoder
            )
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
