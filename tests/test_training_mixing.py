"""Mixed batches: each picture holds just its share, and its loss counts by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from naevus.errors import ConfigError
from naevus.training.config import AugmentConfig, load_config
from naevus.training.mixing import Blend, blend

SIZE, COUNT = 24, 16
GREYS = (torch.arange(COUNT) * 16)[:, None, None, None].expand(COUNT, SIZE, SIZE, 3).byte()
"""Picture n is grey 16 n all over, so that what a mixed one is made of can be read from it."""


def mixed(seed: int = 0, **shares: Any) -> Blend:
    return blend(GREYS, AugmentConfig(**shares), np.random.default_rng(seed))


def test_mixup_overlays() -> None:
    for seed in range(20):
        pixels, partner, share = mixed(seed, mixup=1)
        assert 0.5 <= share <= 1
        wanted = share * GREYS.float() + (1 - share) * GREYS[partner].float()
        assert (pixels.float() - wanted).abs().max() <= 0.51


def test_cutmix_patches() -> None:
    shares = []
    for seed in range(60):
        pixels, partner, share = mixed(seed, cutmix=1)
        own = (pixels == GREYS).float().mean((1, 2, 3))
        others = (pixels == GREYS[partner]).all(-1) | (pixels == GREYS).all(-1)
        assert others.all()
        strangers = partner != torch.arange(COUNT)
        assert own[strangers].tolist() == pytest.approx([share] * int(strangers.sum()))
        shares.append(share)
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_as_many_batches_are_mixed_as_asked_for() -> None:
    counts = {"same": 0, "mixup": 0, "cutmix": 0}
    for seed in range(400):
        pixels, partner, share = mixed(seed, mixup=0.2, cutmix=0.3)
        if share == 1:
            counts["same"] += 1
            assert torch.equal(pixels, GREYS)
        else:
            patched = ((pixels == GREYS) | (pixels == GREYS[partner])).all()
            counts["cutmix" if patched else "mixup"] += 1
    assert counts["same"] == pytest.approx(200, abs=40)
    assert counts["cutmix"] == pytest.approx(120, abs=40)


def test_without_mixing_nothing_changes() -> None:
    pixels, _, share = mixed()
    assert pixels is GREYS
    assert share == 1


def test_chance_alone_decides() -> None:
    one, same, other = mixed(5, cutmix=1), mixed(5, cutmix=1), mixed(6, cutmix=1)
    assert torch.equal(one.pixels, same.pixels)
    assert not torch.equal(one.pixels, other.pixels)


def test_the_loss_is_that_of_mixed_targets() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(COUNT, 7), torch.arange(COUNT) % 7
    partner = torch.randperm(COUNT)
    soft = 0.7 * functional.one_hot(targets, 7) + 0.3 * functional.one_hot(targets[partner], 7)
    loss = Blend(GREYS, partner, 0.7).loss(
        lambda wanted: functional.cross_entropy(logits, wanted), targets
    )
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, soft).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "settings", "problem"),
    [
        ("segmentation", {"augment.mixup": 0.1}, "for classification"),
        ("classification", {"augment.mixup": 0.6, "augment.cutmix": 0.6}, "more than all"),
    ],
)
def test_impossible_settings_are_told(task: Any, settings: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(None, task, settings)
