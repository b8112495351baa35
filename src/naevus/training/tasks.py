"""The tasks: segmentation of lesions, segmentation of attributes, classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from naevus.errors import ConfigError, DataError
from naevus.evaluation.attributes import PooledCounts, jaccard, threshold_counts
from naevus.evaluation.classification import ClassificationScores
from naevus.evaluation.mask_metrics import compare_masks
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.images.preprocess import InputSpec
from naevus.runs.recipe import LESION
from naevus.taxonomy import ATTRIBUTES
from naevus.training.data import UNKNOWN, Samples, plain_batch_size, plain_batches
from naevus.training.losses import (
    OutputsLoss,
    class_weights,
    classification_loss,
    effective_weights,
    logit_adjustment,
    segmentation_loss,
)
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.parts import import_part
from naevus.training.pretrained import weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from naevus.datasets.cache import ImageCache
    from naevus.evaluation.attributes import ThresholdCounts
    from naevus.runs.recipe import Recipe
    from naevus.taxonomy import Taxonomy
    from naevus.training.callbacks import Metrics
    from naevus.training.data import ImageCopies, TrainingData
    from naevus.training.distributed import Processes
    from naevus.training.pretrained import Weights


class SegmentationTask:
    """Segmentation of lesions; monitors the mean Jaccard index without postprocessing.

    Args:
        recipe: The recipe.
        caches: Caches by name: ``images`` and ``masks``.
        training: Ids of the training images.
        validation: Ids of the validation images.
    """

    def __init__(
        self,
        recipe: Recipe,
        caches: Mapping[str, ImageCache],
        training: Sequence[str],
        validation: Sequence[str],
    ) -> None:
        images, masks = (caches["images"],), caches["masks"]
        self.training = Samples(usable(training, *images, masks), images, masks)
        self.validation = Samples(usable(validation, *images, masks), images, masks)
        self.draw = None
        self._recipe = recipe
        self._criterion = segmentation_loss(recipe.loss.terms)

    @staticmethod
    def input_specs(recipe: Recipe) -> dict[str, InputSpec]:
        """Return the input specs of the required caches by name."""
        size = recipe.data.cache_size
        return {
            "images": InputSpec("squash", size, colour_constancy=recipe.data.colour_constancy),
            "masks": InputSpec("mask", size),
        }

    def network(self, weights: Weights | None = None) -> Preprocessed:
        """Build the recipe's network, by default with the recipe's initial weights."""
        return build_network(
            self._recipe, 1, weights or weights_of(self._recipe.network.pretrained)
        )

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits N x S x S on masks uint8 N x S x S, 0..255."""
        masks = targets.float() / 255
        if not self._recipe.loss.soft_masks:
            masks = (masks > 0.5).float()
        value: Tensor = self._criterion(logits, masks)
        return value

    def inspect(self, network: nn.Module, size: int, processes: Processes | None = None) -> Metrics:
        """Return mean and thresholded Jaccard, sensitivity, precision and pixel counts."""
        scores, counts, losses = [], np.zeros(4, np.int64), []
        kept: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]] = []  # for own metrics alone
        for logits, targets in outputs(network, self.validation, self._recipe, size, processes):
            predicted, truth = (logits > 0).numpy(), (targets > 127).numpy()
            scores += [compare_masks(*pair) for pair in zip(truth, predicted, strict=True)]
            counts += np.bincount((2 * truth + predicted).ravel(), minlength=4)
            losses.append(BatchLoss.of(self.loss, logits, targets))
            kept += [(predicted, truth)] if self._recipe.metrics else []
        if not scores:
            return {}
        masks = map(np.concatenate, zip(*kept, strict=True))
        own = own_metrics(self._recipe, *masks) if kept else {}
        negative, false_positive, false_negative, positive = counts.tolist()
        jaccards = np.array([score.jaccard for score in scores])
        jaccard = float(jaccards.mean())
        return {
            "score": jaccard,
            "jaccard": jaccard,
            "thresholded_jaccard": float(np.mean([score.thresholded_jaccard for score in scores])),
            "sensitivity": positive / max(1, positive + false_negative),
            "precision": positive / max(1, positive + false_positive),
            "confusion": [[negative, false_positive], [false_negative, positive]],
            **mean_loss(losses),
            **own,
        }


def own_metrics(recipe: Recipe, predicted: NDArray[Any], truth: NDArray[Any]) -> Metrics:
    """Return the own metrics of a recipe by name.

    Args:
        recipe: The recipe.
        predicted: Masks, bool N x S x S; or natural probabilities N x C.
        truth: Masks, bool N x S x S; or class indices N.

    Raises:
        ConfigError: One raises an error, or returns no number.
    """
    found: Metrics = {}
    for name in recipe.metrics:
        try:
            found[name.partition(":")[2]] = float(import_part(name)(predicted, truth))
        except Exception as error:
            raise ConfigError(
                f"{name} raised {type(error).__name__}: {error}", "correct its code"
            ) from error
    return found


def usable(ids: Sequence[str], *caches: ImageCache) -> tuple[str, ...]:
    """Return the ids that are in all caches; failed images are in none."""
    return tuple(image_id for image_id in ids if all(image_id in cache for cache in caches))


@torch.inference_mode()
def outputs(
    network: nn.Module,
    examples: Samples,
    recipe: Recipe,
    size: int,
    processes: Processes | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and targets without augmentation, batch by batch, on the CPU.

    Several processes divide the batches; each of them gets all outputs, at the end.
    """
    device = next(network.parameters()).device
    rank, world = (processes.rank, processes.world) if processes else (0, 1)
    was_training = network.training
    network.eval()
    pairs = (
        (network(pixels.to(device, non_blocking=True)).float().cpu(), targets)
        for pixels, targets in plain_batches(
            examples, recipe, size, rank, world, pin=device.type == "cuda"
        )
    )
    if processes is None or world == 1:
        yield from pairs
    else:
        mine = list(pairs)
        yield from processes.join_batches(mine, len(examples.ids), plain_batch_size(recipe))
    network.train(was_training)


class BatchLoss(NamedTuple):
    """The mean loss of a batch, and its number of images."""

    value: float
    images: int

    @classmethod
    def of(
        cls, loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor
    ) -> BatchLoss:
        """Return the loss of a batch."""
        return cls(loss(logits, targets).item(), len(targets))


def mean_loss(losses: Sequence[BatchLoss]) -> Metrics:
    """Return the mean loss of batches over their images; nothing without images."""
    images = sum(batch.images for batch in losses)
    return {"loss": sum(each.value * each.images for each in losses) / images} if images else {}


# Attributes.

_COUNT: Final = len(ATTRIBUTES)
"""Number of attributes, which are the last of a network's outputs."""


class AttributesTask:
    """Segmentation of attributes, and optionally of the lesion, as outputs of one network.

    Monitors the pooled Jaccard index over all attributes, at the thresholds that are best on the
    same images.

    Args:
        recipe: The recipe.
        copies: The images and their masks, the data set's own copy first; every other copy needs
            its own masks.
        training: Ids of the training images.
        validation: Ids of the validation images.

    Raises:
        DataError: No training image has ground truth for an output.
    """

    def __init__(
        self,
        recipe: Recipe,
        copies: Sequence[ImageCopies],
        training: Sequence[str],
        validation: Sequence[str],
    ) -> None:
        outputs = recipe.outputs
        ids, monitored = (usable(some, copies[0].images) for some in (training, validation))
        self.training = Samples(ids, (), outputs=outputs, masked=tuple(copies))
        self.validation = Samples(monitored, (), outputs=outputs, masked=(copies[0],))
        self._validation_copies = [
            Samples(usable(validation, each.images), (), outputs=outputs, masked=(each,))
            for each in copies[1:]
        ]
        self.draw = None
        self._recipe = recipe
        self._criterion = OutputsLoss(recipe.loss.terms, outputs)
        for output in outputs:
            caches = [each.masks[output] for each in copies if output in each.masks]
            if all(cache.index.keys().isdisjoint(ids) for cache in caches):
                raise DataError(f"no training image has a mask of {output}", _REMEDIES[output])

    @staticmethod
    def input_specs(recipe: Recipe) -> dict[str, InputSpec]:
        """Return the input specs of the required caches by name."""
        return SegmentationTask.input_specs(recipe)

    def network(self, weights: Weights | None = None) -> Preprocessed:
        """Build the recipe's network, by default with the recipe's initial weights."""
        return build_network(
            self._recipe, 1, weights or weights_of(self._recipe.network.pretrained)
        )

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits N x K x S x S on masks int16, 0..255, or `UNKNOWN`."""
        masks = targets.float() / 255
        if not self._recipe.loss.soft_masks:
            masks = torch.where(targets == UNKNOWN, masks, (masks > 0.5).float())
        value: Tensor = self._criterion(logits, masks)
        return value

    def inspect(self, network: nn.Module, size: int, processes: Processes | None = None) -> Metrics:
        """Return the pooled Jaccard index, overall and by attribute, and the lesion's mean."""
        losses, rows = [], []
        for logits, targets in outputs(network, self.validation, self._recipe, size, processes):
            losses.append(BatchLoss.of(self.loss, logits, targets))
            rows += _counted(logits, targets)
        counts = PooledCounts.pooled(rows, size * size) if rows else None
        metrics: Metrics = {} if counts is None else _pooled_metrics(counts)
        metrics |= mean_loss(losses)
        lesions = self._lesions(network, size, processes) if LESION in self._recipe.outputs else []
        if lesions:
            metrics[f"jaccard_{LESION}"] = float(np.mean(lesions))
        return metrics

    def counts(self, network: nn.Module, size: int) -> PooledCounts | None:
        """Return the counts of the validation images with all attributes, if there are any."""
        pairs = outputs(network, self.validation, self._recipe, size)
        rows = [row for pair in pairs for row in _counted(*pair)]
        return PooledCounts.pooled(rows, size * size) if rows else None

    def _lesions(self, network: nn.Module, size: int, processes: Processes | None) -> list[float]:
        """Return the Jaccard index of each lesion mask of each copy of the validation split."""
        return [
            compare_masks((target[0] > 127).numpy(), (logit[0] > 0).numpy()).jaccard
            for examples in (self.validation, *self._validation_copies)
            for logits, targets in outputs(network, examples, self._recipe, size, processes)
            for logit, target in zip(logits, targets, strict=True)
            if target[0, 0, 0] != UNKNOWN
        ]


_REMEDIES = {
    LESION: "name a data set with lesion masks with --copies, or set data.lesion=false",
    **dict.fromkeys(ATTRIBUTES, "use a data set with the masks of all attributes"),
}


def _counted(logits: Tensor, targets: Tensor) -> list[list[ThresholdCounts]]:
    """Return the counts of each image of a batch that has all attributes, by attribute."""
    return [
        [
            threshold_counts(probability, truth > 127)
            for probability, truth in zip(logit.sigmoid().numpy(), target.numpy(), strict=True)
        ]
        for logit, target in zip(logits[:, -_COUNT:], targets[:, -_COUNT:], strict=True)
        if (target[:, 0, 0] != UNKNOWN).all()
    ]


def _pooled_metrics(counts: PooledCounts) -> Metrics:
    """Return the index of all attributes, and of each attribute at its own best threshold."""
    thresholds = counts.best_thresholds()
    cut = counts.at(thresholds).sum(axis=0)
    overall = float(jaccard(*cut.sum(axis=0)))
    alone = counts.at_places(counts.best_places(alone=True)).sum(axis=0)
    by_attribute = dict(zip(ATTRIBUTES, jaccard(*alone.T).tolist(), strict=True))
    return {
        "score": overall,
        "jaccard": overall,
        **{f"jaccard_{name}": value for name, value in by_attribute.items()},
        "thresholds": dict(zip(ATTRIBUTES, thresholds, strict=True)),
    }


# Classification.


class ClassificationTask:
    """Classification of diagnoses; monitors the balanced accuracy of the balanced decision.

    Args:
        recipe: The recipe.
        caches: Caches by name: ``images``, and ``copies...`` with other copies of some of them.
        training: Ids of the training images.
        validation: Ids of the validation images.
        diagnoses: Code of each id.
        taxonomy: The codes, in order.

    Attributes:
        class_priors: pi_c, fraction of each class in the training set, shape C.
        class_weights: w_c, effective weight of each class in training, shape C.

    Raises:
        DataError: A class has no training image.
    """

    def __init__(
        self,
        recipe: Recipe,
        caches: Mapping[str, ImageCache],
        training: Sequence[str],
        validation: Sequence[str],
        diagnoses: Mapping[str, str],
        taxonomy: Taxonomy,
    ) -> None:
        labels = {image_id: taxonomy.index(code) for image_id, code in diagnoses.items()}
        images = caches["images"]
        # Augmented images may include more skin than the network's field of view.
        wide = caches.get("wide", images)
        copies = [cache for name, cache in caches.items() if name.startswith("copies")]
        self.training = Samples(
            usable(training, images, wide),
            (wide, *copies),
            labels=labels,
            context=recipe.data.context,
        )
        self.validation = Samples(usable(validation, images), (images,), labels=labels)
        self._recipe, self.taxonomy = recipe, taxonomy
        classes = np.array([labels[image_id] for image_id in self.training.ids], np.int64)
        counts = np.bincount(classes, minlength=len(taxonomy)).tolist()
        if 0 in counts:
            raise DataError(
                f"no training image of {taxonomy.codes[counts.index(0)]}",
                "use a data set with images of every class, or fewer folds",
            )
        self._counts = counts
        self.class_priors = np.array(counts) / sum(counts)
        self.draw = None
        sampled = torch.ones(len(counts))
        if recipe.sampling != "natural":
            sampled = class_weights(counts, recipe.sampling)
            odds = sampled.numpy().astype(np.float64)[classes]
            self.draw = odds / odds.sum()
        in_loss = class_weights(counts, recipe.loss.class_weights)
        adjustment = (
            logit_adjustment(counts, recipe.loss.logit_adjustment)
            if recipe.loss.logit_adjustment
            else None
        )
        self.class_weights = effective_weights(
            counts, in_loss, sampled, logit_adjustment=adjustment
        ).numpy()
        self._criterion = classification_loss(
            recipe.loss.kind,
            class_weights=in_loss,
            label_smoothing=recipe.loss.label_smoothing,
            gamma=recipe.loss.gamma,
            logit_adjustment=adjustment,
        )

    @staticmethod
    def input_specs(recipe: Recipe) -> dict[str, InputSpec]:
        """Return the input specs of the required caches by name."""
        data = recipe.data
        shown = InputSpec(
            data.crop_mode,
            data.cache_size,
            margin=data.crop_margin,
            colour_constancy=data.colour_constancy,
        )
        return {"images": shown} | ({"wide": shown.wider(data.context)} if data.context > 1 else {})

    def network(self, weights: Weights | None = None) -> Preprocessed:
        """Build the recipe's network, by default with the recipe's initial weights."""
        weights = weights or weights_of(self._recipe.network.pretrained)
        return build_network(self._recipe, len(self.taxonomy), weights)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits N x C on class indices int64 N."""
        self._criterion.to(logits.device)
        value: Tensor = self._criterion(logits, targets)
        return value

    def inspect(self, network: nn.Module, size: int, processes: Processes | None = None) -> Metrics:
        """Return balanced accuracy, accuracy, and precision, recall and confusion by class."""
        pairs = list(outputs(network, self.validation, self._recipe, size, processes))
        if not pairs:
            return {}
        logits = torch.cat([logits for logits, _ in pairs]).numpy()
        classes = torch.cat([targets for _, targets in pairs])
        codes = [self.taxonomy.codes[index] for index in classes]
        natural = np.exp(natural_log_probabilities(logits, self.class_weights))
        scores = ClassificationScores.from_probabilities(
            list(self.validation.ids),
            codes,
            natural,
            np.exp(balanced_log_probabilities(logits, self.class_weights, self.class_priors)),
            self.taxonomy,
        )
        balanced = scores.balanced
        return {
            "score": balanced.balanced_accuracy,
            "balanced_accuracy": balanced.balanced_accuracy,
            "accuracy": scores.natural.accuracy,
            "recall": {entry.code: entry.recall for entry in balanced.classes},
            "precision": {entry.code: entry.precision for entry in balanced.classes},
            "confusion": balanced.confusion.tolist(),
            **mean_loss([BatchLoss.of(self.loss, *pair) for pair in pairs]),
            **own_metrics(self._recipe, natural, classes.numpy()),
        }


TrainingTask = SegmentationTask | AttributesTask | ClassificationTask
"""Any of the tasks."""

_TASKS: dict[str, type[TrainingTask]] = {
    "segmentation": SegmentationTask,
    "attributes": AttributesTask,
    "classification": ClassificationTask,
}


def build_network(recipe: Recipe, classes: int, weights: Weights) -> Preprocessed:
    """Build the network of a recipe.

    Args:
        recipe: The recipe.
        classes: Number of logits of a classifier; masks have the recipe's outputs.
        weights: Initial weights of the encoder or backbone.

    Raises:
        ConfigError: The network cannot be built.
        WeightsError: The weights are not available, or do not fit.
    """
    settings = recipe.network
    if recipe.task != "classification":
        return Preprocessed(
            build_segmenter(
                settings.architecture, settings.encoder, weights, settings.decoder, recipe.outputs
            )
        )
    return Preprocessed(
        build_classifier(
            settings.backbone,
            classes,
            weights,
            pooling=settings.pooling,
            hidden=settings.hidden,
            dropout=settings.dropout,
            drop_path=settings.drop_path,
        )
    )


def check_network(network: Preprocessed, recipe: Recipe, classes: int) -> None:
    """Run a network once if its code is outside naevus.

    Raises:
        ConfigError: It fails, or its output has another shape than training needs.
    """
    if recipe.own_network is None:
        return
    side, outputs = recipe.input_size, len(recipe.outputs)
    masks = (2, side, side) if outputs == 1 else (2, outputs, side, side)
    wanted = (2, classes) if recipe.task == "classification" else masks
    network.eval()
    try:
        with torch.inference_mode():
            found = tuple(network(torch.zeros((2, side, side, 3), dtype=torch.uint8)).shape)
    except Exception as error:
        raise ConfigError(
            f"{recipe.own_network} raised {type(error).__name__}: {error}", "correct its code"
        ) from error
    if found != wanted:
        raise ConfigError(
            f"{recipe.own_network}: two images of {side} px give {found}, not {wanted}",
            "correct its output",
        )


def training_task_of(recipe: Recipe) -> type[TrainingTask]:
    """Return the class of a recipe's task."""
    return _TASKS[recipe.task]


def _make_training_task(
    recipe: Recipe, training_data: TrainingData, training: list[str], validation: list[str]
) -> TrainingTask:
    if recipe.task == "segmentation":
        return SegmentationTask(recipe, training_data.caches, training, validation)
    if recipe.task == "attributes":
        return AttributesTask(recipe, training_data.outputs, training, validation)
    table = training_data.dataset.table
    diagnoses = dict(zip(table["image_id"], table["diagnosis"], strict=True))
    return ClassificationTask(
        recipe,
        training_data.caches,
        training,
        validation,
        diagnoses,
        training_data.dataset.taxonomy,
    )
