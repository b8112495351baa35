"""What a job learns from: caches, the order of images, and batches."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from naevus.images.geometry import resize
from naevus.images.preprocess import ImageFiles
from naevus.runs.run import masks_used
from naevus.training.augment import Augmentation, rng_for

UNKNOWN = -1
"""The value of a target where there is no ground truth."""

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from naevus.datasets.cache import ImageCache
    from naevus.datasets.dataset import Dataset
    from naevus.runs.recipe import Recipe
    from naevus.runs.run import Run

    Batch = tuple[Tensor, Tensor]


class ImageCopies(NamedTuple):
    """One copy of each of some images, and the masks of this copy.

    Attributes:
        images: The images.
        masks: The masks by output; an image without ground truth for it is absent there.
    """

    images: ImageCache
    masks: Mapping[str, ImageCache]


@dataclass(frozen=True)
class TrainingData:
    """The images a job learns from.

    Attributes:
        dataset: The images of the task, with their labels.
        cache: Folder of the image caches; shared by jobs.
        masks: Folder of predicted masks (``<id>_segmentation.png``) that crops are cut by.
        copies: Folders with other copies of some of the images, named alike.
        init_from: A run to start from in place of the recipe's weights.
        force: Whether masks are used that cannot be right as a whole.
        pretrained: The file of weights to start from, where the recipe has one.
        further: Data sets with other copies of the images, each with its own masks.
        outputs: What a network of named outputs learns from, the data set's own copy first.
    """

    dataset: Dataset
    cache: Path
    masks: Path | None = None
    copies: tuple[Path, ...] = ()
    init_from: Run | None = None
    force: bool = False
    pretrained: Path | None = None
    further: tuple[Dataset, ...] = ()
    caches: dict[str, ImageCache] = field(default_factory=dict)
    outputs: list[ImageCopies] = field(default_factory=list)

    def sources(self) -> list[ImageFiles]:
        """Return the images and the masks that go with them."""
        masks, sources = masks_used(self.dataset, self.masks), []
        for row in self.dataset.rows():
            assert row.path is not None
            sources.append(ImageFiles(row.image_id, row.path, masks[row.image_id]))
        return sources


class SampleKey(NamedTuple):
    """One image as it is wanted: which, in which epoch, how large, for the how-manieth time."""

    row: int
    epoch: int
    size: int
    time: int = 0


@dataclass(frozen=True)
class Samples:
    """Images with what is to be learnt of them.

    Attributes:
        ids: The images, in a fixed order.
        copies: Stores that hold the images; the first holds all, the others may hold some.
        masks: A store of masks, for segmentation.
        labels: Class index of each id, for classification.
        outputs: The outputs that ``masked`` has masks of, in the order of the targets.
        masked: Copies with their own masks, in place of ``copies`` and ``masks``.
        context: How much wider than what the network sees the stores' squares are.
    """

    ids: tuple[str, ...]
    copies: tuple[ImageCache, ...]
    masks: ImageCache | None = None
    labels: Mapping[str, int] | None = None
    outputs: tuple[str, ...] = ()
    masked: tuple[ImageCopies, ...] = ()
    context: float = 1.0

    def target(self, image_id: str) -> int:
        """Return the class index of an image."""
        assert self.labels is not None
        return self.labels[image_id]


class _Images:
    """Prepares images by key: as training varies them, or plain."""

    def __init__(self, examples: Samples, recipe: Recipe, *, varied: bool) -> None:
        self._examples = examples
        self._seed = recipe.seed
        self._copies_fraction = recipe.data.copies_fraction
        self._augmentation = Augmentation(recipe.augment) if varied else None

    def batch(self, keys: Sequence[SampleKey]) -> Batch:
        """Return images uint8 N x S x S x 3, and what is to be learnt of them.

        Masks uint8 N x S x S, classes int64 N, or masks of K outputs int16 N x K x S x S.
        """
        one = self._with_outputs if self._examples.outputs else self._one
        images, targets = zip(*(one(key) for key in keys), strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))

    def _one(self, key: SampleKey) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        examples = self._examples
        image_id = examples.ids[key.row]
        mask = None if examples.masks is None else examples.masks[image_id]
        if self._augmentation is None:
            pixels = _middle(examples.copies[0][image_id], examples.context)
            pixels = resize(pixels, key.size, key.size)
            mask = None if mask is None else resize(mask, key.size, key.size)
        else:
            rng = rng_for(self._seed, key.epoch, image_id, key.time)
            caches = [cache for cache in examples.copies if image_id in cache.index]
            cache = caches[int(rng.integers(len(caches)))]
            pixels, mask = self._augmentation(
                cache[image_id], mask, key.size, rng, examples.context
            )
        target = np.int64(examples.target(image_id)) if mask is None else mask
        return pixels, np.asarray(target)

    def _with_outputs(self, key: SampleKey) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Return a copy of an image, and its own masks: K x S x S, `UNKNOWN` without truth."""
        examples, size = self._examples, key.size
        image_id = examples.ids[key.row]
        first, *others = (each for each in examples.masked if image_id in each.images.index)
        rng = rng_for(self._seed, key.epoch, image_id, key.time)
        varied = self._augmentation is not None
        if varied and others and rng.random() < self._copies_fraction:
            first = others[int(rng.integers(len(others)))]
        names = examples.outputs
        known = [k for k, name in enumerate(names) if _has(first.masks.get(name), image_id)]
        masks = [first.masks[names[k]][image_id] for k in known]
        pixels = first.images[image_id]
        if self._augmentation is None:
            pixels = resize(pixels, size, size)
            masks = [resize(mask, size, size) for mask in masks]
        else:
            stack = np.stack(masks, axis=-1) if masks else None
            pixels, stack = self._augmentation(pixels, stack, size, rng)
            masks = [] if stack is None else list(stack.reshape(size, size, -1).transpose(2, 0, 1))
        target = np.full((len(names), size, size), UNKNOWN, np.int16)
        for k, mask in zip(known, masks, strict=True):
            target[k] = mask
        return pixels, target


def _has(cache: ImageCache | None, image_id: str) -> bool:
    return cache is not None and image_id in cache.index


def _middle(pixels: NDArray[np.uint8], context: float) -> NDArray[np.uint8]:
    """Return what the network sees of a square with more around it."""
    beyond = round(len(pixels) * (1 - 1 / context) / 2)
    return pixels[beyond : len(pixels) - beyond, beyond : len(pixels) - beyond]


def order(
    recipe: Recipe, epoch: int, count: int, draw: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Return the order of ``count`` images in an epoch; it depends on (seed, epoch) alone.

    Args:
        recipe: Gives the seed.
        epoch: The epoch, from 0.
        count: How many images there are.
        draw: Fraction of each image in the draws under balanced sampling, or None for every image
            once. An image comes as often as its fraction says, rounded up or down by chance
            (systematic sampling).
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    mixed = rng.permutation(count)
    if draw is None:
        return mixed
    ends = np.cumsum(draw[mixed]) * count / draw.sum()
    points = np.arange(count) + rng.random()
    return rng.permutation(mixed[np.searchsorted(ends, points).clip(max=count - 1)])


def times(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each entry how many equal ones came before it."""
    by_value = np.argsort(indices, kind="stable")
    ordered = indices[by_value]
    first = np.searchsorted(ordered, ordered)
    counted = np.empty_like(by_value)
    counted[by_value] = np.arange(len(indices)) - first
    return counted


class BatchLoader:
    """Makes the batches of every epoch, and of checks on unvaried images.

    Args:
        examples: The training images.
        recipe: Batch size, image sizes, augmentation, seed.
        draw: See :func:`order`.
        rank: Which of ``world`` processes this is; each takes its fraction of every batch.
        world: How many processes train together.
    """

    def __init__(
        self,
        examples: Samples,
        recipe: Recipe,
        draw: NDArray[np.float64] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._examples, self._recipe, self._draw = examples, recipe, draw
        self._rank, self._world = rank, world
        self._images = _Images(examples, recipe, varied=True)

    @property
    def steps(self) -> int:
        """Batches an epoch; a last one with a single image a process is left out.

        BatchNorm needs two.
        """
        full, rest = divmod(len(self._examples.ids), self._recipe.batch_size)
        return max(1, full + (rest // self._world > 1))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``first`` on.

        Yields:
            Images uint8 N x S x S x 3, and targets, as `_Images.batch` gives them.
        """
        recipe = self._recipe
        indices = order(recipe, epoch, len(self._examples.ids), self._draw)
        size = recipe.size_at(epoch)
        keys = [
            SampleKey(int(index), epoch, size, int(time))
            for index, time in zip(indices, times(indices), strict=True)
        ]
        batches = [
            keys[step * recipe.batch_size :][: recipe.batch_size][self._rank :: self._world]
            for step in range(first, self.steps)
        ]
        return _prepared(self._images, batches, workers_of(recipe))

    def last(self, count: int) -> Iterator[Tensor]:
        """Yield the last epoch's batches until there were ``count`` images: uint8 N x S x S x 3."""
        for pixels, _ in self.epoch(self._recipe.epochs - 1):
            if count <= 0:
                return
            yield pixels
            count -= len(pixels)


def plain_batches(examples: Samples, recipe: Recipe, size: int) -> Iterator[Batch]:
    """Yield all images once, in order, unvaried, at ``size`` pixels."""
    keys = [SampleKey(row, 0, size) for row in range(len(examples.ids))]
    step = 2 * recipe.batch_size
    batches = [keys[start : start + step] for start in range(0, len(keys), step)]
    return _prepared(_Images(examples, recipe, varied=False), batches, workers_of(recipe))


def workers_of(recipe: Recipe) -> int:
    """Return how many threads prepare batches while the network works."""
    if recipe.workers >= 0:
        return recipe.workers
    return 2 if torch.cuda.is_available() else 0


def _prepared(images: _Images, batches: Sequence[list[SampleKey]], workers: int) -> Iterator[Batch]:
    """Yield batches in order, the next ones being prepared in threads meanwhile.

    Threads, not processes: what prepares an image releases the interpreter's lock, and a forked
    process inherits thread pools that no longer run.
    """
    if not workers:
        yield from map(images.batch, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for keys in batches:
                waiting.append(pool.submit(images.batch, keys))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
