"""Selection of images for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from naevus.reports.gallery import (
    disagreement,
    in_turn,
    of_masks,
    one_a_group,
)

if TYPE_CHECKING:
    pass


def test_best_images_alternate_between_classes() -> None:
    classes = np.array([0, 0, 0, 1, 1, 2])
    right = np.array([True, True, True, True, False, True])
    order = np.array([2, 0, 1, 4, 3, 5])
    assert in_turn(order, classes, right).tolist() == [2, 3, 5, 0, 1]


def test_disagreement_is_between_networks_or_within_a_lesion() -> None:
    natural = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    table = pd.DataFrame({"group_id": ["a", "a", "b"]})
    apart, _ = disagreement(table, natural)
    assert apart == pytest.approx([0.4, 0.4, 0])
    members: list[Any] = [[[1, 0], [0, 1]], [[0.3, 0.7], [0.3, 0.7]], [[1, 0], [1, 0]]]
    table["member_probs"] = members
    apart, _ = disagreement(table, natural)
    assert apart == pytest.approx([np.log(2), 0, 0])


def test_masks_are_chosen_best_median_and_worst_one_per_lesion() -> None:
    jaccard = np.linspace(0.4, 0.9, 41)
    table = pd.DataFrame(
        {
            "image_id": [f"i{number:02}" for number in range(41)],
            "group_id": [f"g{number // 2}" for number in range(41)],
            "jaccard": jaccard,
        }
    )
    best, usual, worst = of_masks(table.sample(frac=1, random_state=0))
    assert [chosen.image_id for chosen in best.images][:3] == ["i40", "i39", "i37"]
    assert [chosen.image_id for chosen in worst.images][:3] == ["i00", "i02", "i04"]
    assert usual.images[0].image_id == "i20"
    assert one_a_group(np.array([3, 2, 0, 1]), table).tolist() == [3, 0]
