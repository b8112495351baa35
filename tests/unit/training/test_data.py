"""Batches: every picture once, in an order that (seed, epoch) decides, resumable anywhere."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from naevus.datasets.cache import PixelStore
from naevus.images.preprocess import Form, Source
from naevus.images.read import write_png
from naevus.runs.recipe import TrainConfig
from naevus.training.data import BatchMaker, Examples, order, plain_batches, times, workers_of

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = TrainConfig(task="classification", batch_size=4, sizes=((0, 16), (2, 24)), workers=0)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[PixelStore, PixelStore]:
    """Ten pictures of one grey each, and brighter copies of three of them."""
    built = []
    for name, ids, lift in (("first", range(10), 0), ("copies", range(3), 100)):
        sources = []
        for number in ids:
            path = tmp_path / name / f"p{number}.png"
            write_png(path, np.full((24, 24, 3), 10 * number + lift, np.uint8))
            sources.append(Source(f"p{number}", path))
        built.append(PixelStore.build(sources, Form("full", 24), tmp_path / f"{name}.store"))
    return built[0], built[1]


def examples(*stores: PixelStore) -> Examples:
    ids = tuple(stores[0].ids)
    return Examples(ids, stores, labels={image_id: int(image_id[1:]) for image_id in ids})


def labels_of(maker: BatchMaker, epoch: int, first: int = 0) -> list[int]:
    return [int(label) for _, labels in maker.epoch(epoch, first) for label in labels]


def test_every_picture_comes_once_an_epoch(stores: tuple[PixelStore, PixelStore]) -> None:
    maker = BatchMaker(examples(stores[0]), CONFIG)
    assert maker.steps == 3
    assert sorted(labels_of(maker, 0)) == list(range(10))
    assert labels_of(maker, 0) != labels_of(maker, 1)
    assert labels_of(maker, 0) == labels_of(maker, 0)


def test_an_epoch_goes_on_where_it_stopped(stores: tuple[PixelStore, PixelStore]) -> None:
    maker = BatchMaker(examples(stores[0]), CONFIG)
    whole = [pixels for pixels, _ in maker.epoch(1)]
    rest = [pixels for pixels, _ in maker.epoch(1, first=1)]
    assert len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one, other)


def test_picture_size_grows_with_the_epochs(stores: tuple[PixelStore, PixelStore]) -> None:
    maker = BatchMaker(examples(stores[0]), CONFIG)
    assert next(iter(maker.epoch(1)))[0].shape == (4, 16, 16, 3)
    assert next(iter(maker.epoch(2)))[0].shape == (4, 24, 24, 3)


def test_copies_take_turns(stores: tuple[PixelStore, PixelStore]) -> None:
    still = CONFIG.model_copy(
        update={"augment": CONFIG.augment.model_copy(update={"brightness": 0, "contrast": 0})}
    )
    maker = BatchMaker(examples(*stores), still)
    seen: dict[int, list[float]] = {}
    for epoch in range(12):
        for pixels, labels in maker.epoch(epoch):
            for grey, label in zip(pixels.float().mean((1, 2, 3)), labels, strict=True):
                seen.setdefault(int(label), []).append(float(grey))
    assert max(seen[1]) > 80
    assert min(seen[1]) < 40
    assert max(seen[3]) < 60  # it has no brighter copy


def test_processes_share_a_batch(stores: tuple[PixelStore, PixelStore]) -> None:
    config = CONFIG.model_copy(update={"batch_size": 5})
    shares = [
        labels_of(BatchMaker(examples(stores[0]), config, rank=rank, world=2), 0)
        for rank in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == list(range(10))


def test_balanced_sampling_draws_by_the_odds() -> None:
    odds = np.array([0.7, 0.1, 0.1, 0.1])
    drawn = Counter(int(index) for epoch in range(300) for index in order(CONFIG, epoch, 4, odds))
    assert drawn[0] / 1200 == pytest.approx(0.7, abs=0.05)


def test_every_epoch_deals_what_the_odds_say_but_for_a_fraction_of_a_draw() -> None:
    odds = np.array([1.0] * 90 + [9.5] * 10) / 185
    drawn = np.bincount(order(CONFIG, 0, 100, odds), minlength=100)
    assert set(drawn[:90]) == {0, 1}  # 0.54 of a draw each
    assert set(drawn[90:]) <= {5, 6}  # 5.1 draws each


def test_a_picture_drawn_again_is_varied_anew(stores: tuple[PixelStore, PixelStore]) -> None:
    only_one = np.array([1.0] + [0.0] * 9)
    config = CONFIG.model_copy(update={"sampling": "balanced", "batch_size": 10})
    ((pixels, labels),) = BatchMaker(examples(stores[0]), config, only_one).epoch(0)
    assert len(set(labels.tolist())) == 1
    assert len({picture.numpy().tobytes() for picture in pixels}) > 1


def test_a_place_in_line_is_counted() -> None:
    assert times(np.array([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


def test_a_lonely_last_picture_is_left_out(stores: tuple[PixelStore, PixelStore]) -> None:
    config = CONFIG.model_copy(update={"batch_size": 3})
    maker = BatchMaker(examples(stores[0]), config)
    assert [len(labels) for _, labels in maker.epoch(0)] == [3, 3, 3]


def test_workers_change_nothing(stores: tuple[PixelStore, PixelStore]) -> None:
    alone = BatchMaker(examples(stores[0]), CONFIG)
    helped = BatchMaker(examples(stores[0]), CONFIG.model_copy(update={"workers": 1}))
    for (one, _), (other, _) in zip(alone.epoch(0), helped.epoch(0), strict=True):
        assert torch.equal(one, other)


def test_threads_prepare_batches_only_where_they_take_nothing_from_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = TrainConfig(task="classification")
    for gpu, expected in ((False, 0), (True, 2)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert workers_of(free) == expected
        assert workers_of(free.model_copy(update={"workers": 1})) == 1


def test_plain_batches_are_unvaried_and_in_order(stores: tuple[PixelStore, PixelStore]) -> None:
    batches = list(plain_batches(examples(*stores), CONFIG, 24))
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    assert np.unique(batches[0][0][3].numpy()).tolist() == [30]
