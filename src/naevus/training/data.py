"""Training data: image caches, sampling, batches."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from naevus.images.geometry import resize
from naevus.images.preprocess import ImageFiles
from naevus.io.parallel import batches as split_batches
from naevus.runs.images import masks_used
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
    from naevus.runs.start import Start

    Batch = tuple[Tensor, Tensor]


class ImageCopies(NamedTuple):
    """A set of copies of images, each with its own masks.

    Attributes:
        images: The images.
        masks: The masks by output; images without ground truth for an output are missing there.
    """

    images: ImageCache
    masks: Mapping[str, ImageCache]


@dataclass(frozen=True)
class TrainingData:
    """The images a job learns from.

    Attributes:
        dataset: The images of the task, with their labels.
        cache: Folder of the image caches; shared by jobs.
        masks: Folder of predicted masks (``<id>_segmentation.png``) to crop by.
        copies: Folders with other copies of some of the images, under the same names.
        init_from: A run or bundles to initialise from, instead of the recipe's pretrained weights.
        force: Whether to use masks that look wrong as a whole.
        pretrained: The file of pretrained weights, if the recipe has one.
        further: Data sets with other copies of the images, each with its own masks.
        caches: The image caches by name, filled by `naevus.training.prepare.prepare`.
        outputs: The copies that a network with named outputs learns from, the data set's first.
    """

    dataset: Dataset
    cache: Path
    masks: Path | None = None
    copies: tuple[Path, ...] = ()
    init_from: Start | None = None
    force: bool = False
    pretrained: Path | None = None
    further: tuple[Dataset, ...] = ()
    caches: dict[str, ImageCache] = field(default_factory=dict)
    outputs: list[ImageCopies] = field(default_factory=list)

    def sources(self) -> list[ImageFiles]:
        """Return the images with their masks."""
        masks, sources = masks_used(self.dataset, self.masks), []
        for row in self.dataset.rows():
            assert row.path is not None
            sources.append(ImageFiles(row.image_id, row.path, masks[row.image_id]))
        return sources


class SampleKey(NamedTuple):
    """One sample: row of the image, epoch, size in pixels, and occurrence within the epoch."""

    row: int
    epoch: int
    size: int
    time: int = 0


@dataclass(frozen=True)
class Samples:
    """Images with their targets.

    Attributes:
        ids: The images, in a fixed order.
        copies: Caches of the images; the first has all of them, the others may have some.
        masks: A cache of masks, for segmentation.
        labels: Class index of each id, for classification.
        outputs: The outputs of ``masked``, in the order of the targets.
        masked: Copies with their own masks, instead of ``copies`` and ``masks``.
        context: Side of the cached images, as a multiple of the network's field of view.
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
    """Prepares samples by key, with or without augmentation."""

    def __init__(self, examples: Samples, recipe: Recipe, *, varied: bool) -> None:
        self._examples = examples
        self._seed = recipe.seed
        self._copies_fraction = recipe.data.copies_fraction
        self._augmentation = Augmentation(recipe.augment) if varied else None

    def batch(self, keys: Sequence[SampleKey]) -> Batch:
        """Return images uint8 N x S x S x 3, and their targets.

        Targets are masks uint8 N x S x S, classes int64 N, or masks of K outputs int16
        N x K x S x S.
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
        """Return a copy of an image and its masks K x S x S, `UNKNOWN` without ground truth."""
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
    """Return the centre of a square image that the network sees."""
    beyond = round(len(pixels) * (1 - 1 / context) / 2)
    return pixels[beyond : len(pixels) - beyond, beyond : len(pixels) - beyond]


def order(
    recipe: Recipe, epoch: int, count: int, draw: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Return the order of ``count`` images in an epoch, which depends only on (seed, epoch).

    Args:
        recipe: The recipe, with the seed.
        epoch: The epoch, from 0.
        count: Number of images.
        draw: Sampling probability of each image, or None for every image once. An image occurs
            as often as expected, randomly rounded up or down (systematic sampling).
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    mixed = rng.permutation(count)
    if draw is None:
        return mixed
    ends = np.cumsum(draw[mixed]) * count / draw.sum()
    points = np.arange(count) + rng.random()
    return rng.permutation(mixed[np.searchsorted(ends, points).clip(max=count - 1)])


def times(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each entry the number of equal entries before it."""
    by_value = np.argsort(indices, kind="stable")
    ordered = indices[by_value]
    first = np.searchsorted(ordered, ordered)
    counted = np.empty_like(by_value)
    counted[by_value] = np.arange(len(indices)) - first
    return counted


class BatchLoader:
    """Makes the batches of every epoch.

    Args:
        examples: The training images.
        recipe: The recipe, with batch size, image sizes, augmentation and seed.
        draw: See :func:`order`.
        rank: Index of this process; each process takes its part of every batch.
        world: Number of processes that train together.
        pin: Whether batches go to a GPU: threads then pin their memory.
    """

    def __init__(
        self,
        examples: Samples,
        recipe: Recipe,
        draw: NDArray[np.float64] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
    ) -> None:
        self._examples, self._recipe, self._draw = examples, recipe, draw
        self._rank, self._world, self._pin = rank, world, pin
        self._images = _Images(examples, recipe, varied=True)

    @property
    def steps(self) -> int:
        """Batches per epoch; a last batch with a single image per process is left out.

        Batch normalisation needs two images.
        """
        full, rest = divmod(len(self._examples.ids), self._recipe.batch_size)
        return max(1, full + (rest // self._world > 1))

    @property
    def images(self) -> int:
        """Images per epoch, of all processes."""
        return min(len(self._examples.ids), self.steps * self._recipe.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting with number ``first``.

        Yields:
            Images uint8 N x S x S x 3, and targets as `_Images.batch` returns them.
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
        return _prepared(self._images, batches, workers_of(recipe), pin=self._pin)

    def last(self, count: int) -> Iterator[Tensor]:
        """Yield the last epoch's batches until there were ``count`` images: uint8 N x S x S x 3."""
        for pixels, _ in self.epoch(self._recipe.epochs - 1):
            if count <= 0:
                return
            yield pixels
            count -= len(pixels) * self._world

    def whole(self) -> BatchLoader:
        """Return the same batches, undivided."""
        return BatchLoader(self._examples, self._recipe, self._draw, pin=self._pin)


def plain_batches(
    examples: Samples,
    recipe: Recipe,
    size: int,
    rank: int = 0,
    world: int = 1,
    *,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield all images once, in order and without augmentation, at ``size`` pixels.

    Each of ``world`` processes takes every n-th batch of `plain_batch_size` images. With
    ``pin`` threads pin their memory, for a GPU.
    """
    keys = [SampleKey(row, 0, size) for row in range(len(examples.ids))]
    batches = split_batches(keys, plain_batch_size(recipe))[rank::world]
    return _prepared(_Images(examples, recipe, varied=False), batches, workers_of(recipe), pin=pin)


def plain_batch_size(recipe: Recipe) -> int:
    """Return the number of images that are evaluated together; there are no gradients to keep."""
    return 2 * recipe.batch_size


def workers_of(recipe: Recipe) -> int:
    """Return the number of threads that prepare batches in the background."""
    if recipe.workers >= 0:
        return recipe.workers
    return 2 if torch.cuda.is_available() else 0


def _prepared(
    images: _Images, batches: Sequence[Sequence[SampleKey]], workers: int, *, pin: bool
) -> Iterator[Batch]:
    """Yield batches in order, and prepare the next ones in threads.

    Threads rather than processes: preparing an image releases the GIL, and a forked process
    inherits dead thread pools. They also pin the memory, so that copies to a GPU do not block.
    """

    def prepare(keys: Sequence[SampleKey]) -> Batch:
        pixels, targets = images.batch(keys)
        return (pixels.pin_memory(), targets.pin_memory()) if pin else (pixels, targets)

    if not workers:
        yield from map(images.batch, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for keys in batches:
                waiting.append(pool.submit(prepare, keys))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
