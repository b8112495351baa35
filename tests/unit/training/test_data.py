"""Batches: every image once, in an order set by (seed, epoch), resumable at any step."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from naevus.datasets.cache import ImageCache
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import read, write_png
from naevus.runs.recipe import Recipe
from naevus.runs.recipe_tables import AugmentSettings
from naevus.taxonomy import ISIC2018
from naevus.training.augment import Augmentation, rng_for
from naevus.training.data import BatchLoader, Samples, order, plain_batches, times, workers_of
from naevus.training.tasks import ClassificationTask

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.cache import ImageCache


RECIPE = Recipe(task="classification", batch_size=4, sizes=((0, 16), (2, 24)), workers=0)


@pytest.fixture
def caches(tmp_path: Path) -> tuple[ImageCache, ImageCache]:
    """Ten uniformly grey images, and brighter copies of three of them."""
    built = []
    for name, ids, lift in (("first", range(10), 0), ("copies", range(3), 100)):
        sources = []
        for number in ids:
            path = tmp_path / name / f"p{number}.png"
            write_png(path, np.full((24, 24, 3), 10 * number + lift, np.uint8))
            sources.append(ImageFiles(f"p{number}", path))
        built.append(ImageCache.build(sources, InputSpec("full", 24), tmp_path / f"{name}.store"))
    return built[0], built[1]


def examples(*caches: ImageCache) -> Samples:
    ids = tuple(caches[0].ids)
    return Samples(ids, caches, labels={image_id: int(image_id[1:]) for image_id in ids})


def labels_of(loader: BatchLoader, epoch: int, first: int = 0) -> list[int]:
    return [int(label) for _, labels in loader.epoch(epoch, first) for label in labels]


def test_every_image_occurs_once_per_epoch(caches: tuple[ImageCache, ImageCache]) -> None:
    loader = BatchLoader(examples(caches[0]), RECIPE)
    assert loader.steps == 3
    assert sorted(labels_of(loader, 0)) == list(range(10))
    assert labels_of(loader, 0) != labels_of(loader, 1)
    assert labels_of(loader, 0) == labels_of(loader, 0)


def test_an_epoch_resumes_where_it_stopped(caches: tuple[ImageCache, ImageCache]) -> None:
    loader = BatchLoader(examples(caches[0]), RECIPE)
    whole = [pixels for pixels, _ in loader.epoch(1)]
    rest = [pixels for pixels, _ in loader.epoch(1, first=1)]
    assert len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one, other)


def test_image_size_grows_with_the_epochs(caches: tuple[ImageCache, ImageCache]) -> None:
    loader = BatchLoader(examples(caches[0]), RECIPE)
    assert next(iter(loader.epoch(1)))[0].shape == (4, 16, 16, 3)
    assert next(iter(loader.epoch(2)))[0].shape == (4, 24, 24, 3)


def test_copies_take_turns(caches: tuple[ImageCache, ImageCache]) -> None:
    still = RECIPE.model_copy(
        update={"augment": RECIPE.augment.model_copy(update={"brightness": 0, "contrast": 0})}
    )
    loader = BatchLoader(examples(*caches), still)
    seen: dict[int, list[float]] = {}
    for epoch in range(12):
        for pixels, labels in loader.epoch(epoch):
            for grey, label in zip(pixels.float().mean((1, 2, 3)), labels, strict=True):
                seen.setdefault(int(label), []).append(float(grey))
    assert max(seen[1]) > 80
    assert min(seen[1]) < 40
    assert max(seen[3]) < 60  # it has no brighter copy


def test_processes_share_a_batch(caches: tuple[ImageCache, ImageCache]) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 5})
    class_priors = [
        labels_of(BatchLoader(examples(caches[0]), recipe, rank=rank, world=2), 0)
        for rank in range(2)
    ]
    assert sorted(class_priors[0] + class_priors[1]) == list(range(10))


def test_balanced_sampling_draws_with_the_given_probabilities() -> None:
    odds = np.array([0.7, 0.1, 0.1, 0.1])
    synthetic = Counter(
        int(index) for epoch in range(300) for index in order(RECIPE, epoch, 4, odds)
    )
    assert synthetic[0] / 1200 == pytest.approx(0.7, abs=0.05)


def test_every_epoch_draws_each_image_about_as_often_as_expected() -> None:
    odds = np.array([1.0] * 90 + [9.5] * 10) / 185
    synthetic = np.bincount(order(RECIPE, 0, 100, odds), minlength=100)
    assert set(synthetic[:90]) == {0, 1}  # 0.54 of a draw each
    assert set(synthetic[90:]) <= {5, 6}  # 5.1 draws each


def test_repeated_samples_are_augmented_differently(caches: tuple[ImageCache, ImageCache]) -> None:
    only_one = np.array([1.0] + [0.0] * 9)
    recipe = RECIPE.model_copy(update={"sampling": "balanced", "batch_size": 10})
    ((pixels, labels),) = BatchLoader(examples(caches[0]), recipe, only_one).epoch(0)
    assert len(set(labels.tolist())) == 1
    assert len({image.numpy().tobytes() for image in pixels}) > 1


def test_occurrences_are_counted() -> None:
    assert times(np.array([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


def test_a_last_batch_of_one_image_is_left_out(caches: tuple[ImageCache, ImageCache]) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 3})
    loader = BatchLoader(examples(caches[0]), recipe)
    assert [len(labels) for _, labels in loader.epoch(0)] == [3, 3, 3]
    assert loader.images == 9


@pytest.mark.parametrize("batch_size", [4, 9, 10, 32])
@pytest.mark.parametrize("world", [1, 2])
def test_the_images_of_an_epoch_are_those_of_its_batches(
    batch_size: int, world: int, caches: tuple[ImageCache, ImageCache]
) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": batch_size})
    loaders = [
        BatchLoader(examples(caches[0]), recipe, rank=rank, world=world) for rank in range(world)
    ]
    counted = sum(len(labels_of(loader, 0)) for loader in loaders)
    assert [loader.images for loader in loaders] == [counted] * world


def test_the_number_of_workers_changes_nothing(caches: tuple[ImageCache, ImageCache]) -> None:
    alone = BatchLoader(examples(caches[0]), RECIPE)
    helped = BatchLoader(examples(caches[0]), RECIPE.model_copy(update={"workers": 1}))
    for (one, _), (other, _) in zip(alone.epoch(0), helped.epoch(0), strict=True):
        assert torch.equal(one, other)


def test_threads_pin_memory_for_a_gpu(
    caches: tuple[ImageCache, ImageCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[str] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(threading.current_thread().name)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    for workers, wanted in ((1, False), (0, True), (1, True)):
        recipe = RECIPE.model_copy(update={"workers": workers})
        loader = BatchLoader(examples(caches[0]), recipe, pin=wanted)
        batches = [*loader.epoch(0), *loader.whole().epoch(0)]
        batches += plain_batches(examples(caches[0]), recipe, 24, pin=wanted)
        assert len(pinned) == 2 * len(batches) * bool(workers and wanted)
    assert threading.main_thread().name not in pinned


def test_threads_prepare_batches_only_with_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = Recipe(task="classification")
    for gpu, expected in ((False, 0), (True, 2)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert workers_of(free) == expected
        assert workers_of(free.model_copy(update={"workers": 1})) == 1


def test_plain_batches_are_in_order_without_augmentation(
    caches: tuple[ImageCache, ImageCache],
) -> None:
    batches = list(plain_batches(examples(*caches), RECIPE, 24))
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    assert np.unique(batches[0][0][3].numpy()).tolist() == [30]


Sampling = Literal["natural", "balanced", "balanced-sqrt"]
SAMPLINGS: tuple[Sampling, ...] = ("natural", "balanced", "balanced-sqrt")
POWER = {"natural": 0.0, "balanced": 1.0, "balanced-sqrt": 0.5}
COUNTS = np.array([1100, 6700, 510, 330, 1090, 120, 150])
CLASS_PRIORS = COUNTS / COUNTS.sum()
ANGLES = 2 * np.pi * np.arange(7) / 7
CENTRES = 1.5 * np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])


def training_task(
    sampling: Sampling, **loss: Any
) -> tuple[ClassificationTask, NDArray[np.int64], Recipe]:
    """Return the task for images that exist only as ids, and the class of each."""
    recipe = Recipe.model_validate(
        {
            "task": "classification",
            "sampling": sampling,
            "loss": {"class_weights": "ones", **loss},
        }
    )
    labels = np.repeat(np.arange(7), COUNTS)
    ids = [f"p{number}" for number in range(len(labels))]
    diagnoses = {name: ISIC2018.codes[c] for name, c in zip(ids, labels, strict=True)}
    cache = cast("ImageCache", set(ids))
    return (
        ClassificationTask(recipe, {"images": cache}, ids, [], diagnoses, ISIC2018),
        labels,
        recipe,
    )


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_are_drawn_with_their_probabilities(sampling: Sampling) -> None:
    """Probabilities ∝ ``π^(1 - a)``: the class's fraction, its square root, or equal for all."""
    job, labels, recipe = training_task(sampling)
    synthetic = np.concatenate([order(recipe, epoch, len(labels), job.draw) for epoch in range(20)])
    found = np.bincount(labels[synthetic], minlength=7) / len(synthetic)
    expected = CLASS_PRIORS ** (1 - POWER[sampling])
    expected = expected / expected.sum()
    error = np.sqrt(expected * (1 - expected) / len(synthetic))
    assert (np.abs(found - expected) < 5 * error + 1e-12).all()
    np.testing.assert_allclose(job.class_weights * CLASS_PRIORS, expected, rtol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_images_of_one_class_have_the_same_probability(sampling: Sampling) -> None:
    job, labels, _ = training_task(sampling)
    if sampling == "natural":
        assert job.draw is None
        return
    assert job.draw is not None
    assert job.draw.sum() == pytest.approx(1)
    for c in range(7):
        assert np.ptp(job.draw[labels == c]) == 0


def test_weights_and_sampling_multiply() -> None:
    """Half by sampling and half by weighting equals either of them alone."""
    both, _, _ = training_task("balanced-sqrt", class_weights="balanced-sqrt")
    whole, _, _ = training_task("balanced")
    np.testing.assert_allclose(both.class_weights, whole.class_weights, rtol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_both_posteriors_of_a_gaussian_toy_are_recovered(sampling: Sampling) -> None:
    """A linear network on seven Gaussians can learn the posterior of its training data."""
    job, labels, recipe = training_task(sampling)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = nn.Linear(2, 7)
    optimiser = torch.optim.LBFGS(network.parameters(), max_iter=60, line_search_fn="strong_wolfe")
    synthetic = np.concatenate([order(recipe, epoch, len(labels), job.draw) for epoch in range(8)])
    shown = labels[synthetic]
    points = torch.from_numpy(CENTRES[shown] + rng.normal(size=(len(shown), 2))).float()
    targets = torch.from_numpy(shown)

    def closure() -> float:
        optimiser.zero_grad()
        loss = job.loss(network(points), targets)
        loss.backward()
        return loss.item()

    optimiser.step(closure)
    unseen = rng.choice(7, 2000, p=CLASS_PRIORS)
    x = CENTRES[unseen] + rng.normal(size=(2000, 2))
    with torch.inference_mode():
        logits = network(torch.from_numpy(x).float()).numpy()
    density = np.exp(-0.5 * ((x[:, None] - CENTRES) ** 2).sum(2))
    for found, prior in (
        (natural_log_probabilities(logits, job.class_weights), CLASS_PRIORS),
        (
            balanced_log_probabilities(logits, job.class_weights, job.class_priors),
            np.full(7, 1 / 7),
        ),
    ):
        expected = prior * density / (prior * density).sum(1, keepdims=True)
        assert np.abs(np.exp(found) - expected).mean() < 0.01
    if sampling != "natural":  # natural sampling leaves priors as they are
        raw = torch.softmax(torch.from_numpy(logits), 1).numpy()
        natural = CLASS_PRIORS * density / (CLASS_PRIORS * density).sum(1, keepdims=True)
        assert np.abs(raw - natural).mean() > 0.03


@pytest.mark.parametrize(("count", "batches"), [(1, 1), (4, 1), (5, 2), (99, 3)])
def test_the_last_images_are_those_of_the_last_epoch(
    count: int, batches: int, caches: tuple[ImageCache, ImageCache]
) -> None:
    loader = BatchLoader(examples(*caches), RECIPE)
    last = list(loader.last(count))
    assert len(last) == batches
    for pixels, (expected, _) in zip(last, loader.epoch(RECIPE.epochs - 1), strict=False):
        assert pixels.shape[1:] == (24, 24, 3)
        assert torch.equal(pixels, expected)


@pytest.fixture
def ringed(tmp_path: Path) -> tuple[ImageCache, ImageCache]:
    """A lesion in the middle of grey skin, as a crop and as a wider crop."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    mask = np.zeros((200, 200), np.uint8)
    mask[80:120, 80:120] = 255
    write_png(tmp_path / "a.png", pixels)
    write_png(tmp_path / "a_segmentation.png", mask)
    sources = [ImageFiles("a", tmp_path / "a.png", tmp_path / "a_segmentation.png")]
    crop = InputSpec("crop", 52)
    return (
        ImageCache.build(sources, crop, tmp_path / "crop"),
        ImageCache.build(sources, crop.wider(1.5), tmp_path / "wide"),
    )


def test_wider_inputs_contain_the_crop_in_their_centre(
    ringed: tuple[ImageCache, ImageCache],
) -> None:
    crop, wide = ringed
    assert crop["a"].shape == (52, 52, 3)
    assert wide["a"].shape == (78, 78, 3)
    np.testing.assert_array_equal(wide["a"][13:65, 13:65], crop["a"])
    labelled = Samples(("a",), (wide,), labels={"a": 0}, context=1.5)
    ((plain, _),) = plain_batches(labelled, RECIPE, 52)
    np.testing.assert_array_equal(plain[0].numpy(), crop["a"])


def test_shifted_crops_show_real_skin(
    ringed: tuple[ImageCache, ImageCache], tmp_path: Path
) -> None:
    """A crop shifted by a fifth of its side contains real pixels, not mirrored ones."""
    crop, wide = ringed
    frame = read(tmp_path / "a.png")
    still = dict.fromkeys(("rotation", "scale", "brightness", "contrast", "saturation", "hue"), 0.0)
    still |= dict.fromkeys(("blur", "sharpen", "jpeg", "hair"), 0.0)
    vary = Augmentation(AugmentSettings.model_validate({"d4": False, "shift": 0.2, **still}))
    for epoch in range(20):
        moved = vary(wide["a"], None, 52, rng_for(0, epoch, "a"), 1.5)[0]
        warp = vary.warp(78, 78, 52, rng_for(0, epoch, "a"), 1.5)
        left, top = 74 - 13 + warp[0, 2], 74 - 13 + warp[1, 2]
        shown = cv2.warpAffine(
            frame,
            np.array([[1, 0, left], [0, 1, top]]),
            (52, 52),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        ).astype(int)
        assert np.abs(moved - shown).max() <= 1
        mirrored = vary(crop["a"], None, 52, rng_for(0, epoch, "a"))[0]
        inside = slice(11, 41)  # inside after any shift of a fifth
        assert np.abs(mirrored - shown)[inside, inside].max() <= 1
        if max(abs(warp[:, 2] - 13)) > 2:
            assert np.abs(mirrored - shown).max() > 50
