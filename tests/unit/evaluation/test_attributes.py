"""Scores of attributes: cross-fitted thresholds, presence, and given masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from naevus.errors import DataError
from naevus.evaluation.attributes import (
    THRESHOLDS,
    AttributesEvaluation,
    PooledCounts,
    attribute_row,
    compare_attributes,
    fit_presence,
    jaccard,
    presence_of,
    threshold_counts,
)
from naevus.evaluation.evaluate import evaluate
from naevus.images.read import write_png
from naevus.taxonomy import ATTRIBUTES
from tests.helpers.attribute_images import TRUTH, draw, write_task2

if TYPE_CHECKING:
    from pathlib import Path


def row(image_id: str, fold: int, skin: float, seed: int = 0) -> dict[str, Any]:
    """Return a row whose best threshold is the next above the probability of skin."""
    _, masks = draw(seed)
    truths = {name: masks[name] for name in ATTRIBUTES}
    maps = [np.where(truths[name], 0.97, skin).astype(np.float32) for name in ATTRIBUTES]
    peaks = [0.9 if truths[name].any() else 0.1 for name in ATTRIBUTES]
    counts = attribute_row(maps, truths, peaks)
    return {"image_id": image_id, "group_id": image_id, "fold": fold, **counts}


def table() -> pd.DataFrame:
    rows = [row(f"a{n}", 0, 0.22, n) for n in range(6)]
    return pd.DataFrame([*rows, *(row(f"b{n}", 1, 0.62, n + 6) for n in range(6))])


def test_counts_equal_those_of_thresholded_masks() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((40, 30)).astype(np.float32)
    probability.ravel()[: len(THRESHOLDS)] = THRESHOLDS  # at a threshold, not above it
    truth = rng.random((40, 30)) < 0.3
    counts = threshold_counts(probability, truth)
    cuts = [probability > np.float32(threshold) for threshold in THRESHOLDS]
    assert counts.predicted.tolist() == [int(cut.sum()) for cut in cuts]
    assert counts.hit.tolist() == [int((cut & truth).sum()) for cut in cuts]
    assert counts.true == truth.sum()


def test_thresholds_of_a_fold_come_from_the_other_folds() -> None:
    found = AttributesEvaluation.of(table())
    for one in found.by_attribute.values():
        # Fold 0 uses the best threshold on fold 1, where skin has .62, and vice versa.
        assert one.thresholds == (0.65, 0.25)
    assert found.thresholds == (0.65,) * 5  # on all of them
    first, second = found.by_fold
    assert first.jaccard == 1.0
    assert second.jaccard < 0.2
    assert found.jaccard.low <= found.jaccard.value <= found.jaccard.high
    assert (found.images, found.groups) == (12, 12)
    assert found.worst[0].image_id.startswith("b")
    assert found.worst[0].missed == 0


def test_thresholds_maximise_the_index_pooled_over_attributes() -> None:
    """Compare with an exhaustive search over two attributes; the others are absent."""
    rng = np.random.default_rng(11)
    for _ in range(5):
        rows = []
        for number in range(4):
            truths = {name: np.zeros((12, 12), bool) for name in ATTRIBUTES}
            maps = [np.zeros((12, 12), np.float32) for _ in ATTRIBUTES]
            for k, (name, fraction) in enumerate((("globules", 0.5), ("milia_like_cyst", 0.04))):
                truths[name] = rng.random((12, 12)) < fraction
                maps[k] = (0.4 * truths[name] + 0.6 * rng.random((12, 12))).astype(np.float32)
            rows.append({**attribute_row(maps, truths, [0.0] * 5), "image_id": str(number)})
        counts = PooledCounts.of(pd.DataFrame(rows))

        def index(first: int, second: int, counts: PooledCounts = counts) -> float:
            return float(jaccard(*counts.at_places([first, second, 18, 18, 18]).sum((0, 1))))

        places = range(len(THRESHOLDS))
        best = max(index(first, second) for first in places for second in places)
        found = counts.best_places()
        assert index(found[0], found[1]) == pytest.approx(best, abs=1e-12)
        alone = counts.best_places(alone=True)
        assert index(alone[0], alone[1]) <= best


def test_a_single_fold_is_cross_fitted_over_halves() -> None:
    one = table().query("fold == 0")
    found = AttributesEvaluation.of(one)
    assert found.by_fold == ()
    assert found.jaccard.value == 1.0
    assert all(len(each.thresholds) == 2 for each in found.by_attribute.values())


def test_presence_is_ranked_and_fitted() -> None:
    found = AttributesEvaluation.of(table())
    for name, one in found.by_attribute.items():
        assert one.shown == int((table()[f"true_{name}"] > 0).sum())
        assert one.auc is not None
        assert one.auc.value == 1.0
    rng = np.random.default_rng(3)
    logit = rng.normal(0, 2, 20_000)
    shown = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * logit - 0.7)))
    slope, intercept = fit_presence(1 / (1 + np.exp(-logit)), shown)
    assert slope == pytest.approx(1.5, abs=0.1)
    assert intercept == pytest.approx(-0.7, abs=0.1)
    assert fit_presence(np.full(4, 0.2), np.zeros(4, bool)) == (1.0, 0.0)
    assert fit_presence(np.array([0.9, 0.8, 0.1, 0.2]), np.array([0, 0, 1, 1]) > 0) == (1.0, 0.0)
    assert presence_of(1.0, 3.0) > 0.99


@pytest.mark.parametrize("slope", [0.15, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("rate", [0.04, 0.25, 0.6])
def test_the_fit_of_presence_is_that_of_scikit_learn(slope: float, rate: float) -> None:
    """Many peaks are near 0 or 1, as those of real networks."""
    rng = np.random.default_rng(5)
    logits = np.clip(rng.normal(-3, 4, 4000), -13, 13)
    order = slope * logits + rng.logistic(size=len(logits))
    shown = order > np.quantile(order, 1 - rate)
    found = fit_presence(1 / (1 + np.exp(-logits)), shown)
    # Platt's targets: each image counts as shown and as not shown, with these weights.
    count = int(shown.sum())
    weight = np.where(shown, (count + 1) / (count + 2), 1 / (len(shown) - count + 2))
    model = LogisticRegression(C=1e9, tol=1e-8).fit(
        np.tile(logits, 2)[:, None], [1] * 4000 + [0] * 4000, np.append(weight, 1 - weight)
    )
    assert found == pytest.approx((model.coef_.item(), model.intercept_.item()), rel=1e-3, abs=1e-3)
    probabilities = 1 / (1 + np.exp(-(found[0] * logits + found[1])))
    assert probabilities.mean() == pytest.approx(rate, abs=0.001)


def test_an_absent_attribute_has_no_auc() -> None:
    rows = table()
    rows["true_streaks"] = 0
    rows["hit_streaks"] = [[0] * len(THRESHOLDS)] * len(rows)
    one = AttributesEvaluation.of(rows).by_attribute["streaks"]
    assert one.shown == one.groups == 0
    assert one.auc is None
    assert one.jaccard.value == 0  # all predicted pixels are wrong


@pytest.mark.parametrize(("shown", "known"), [(2, False), (9, False), (10, True), (40, True)])
def test_few_lesions_of_an_attribute_give_no_interval(shown: int, known: bool) -> None:
    rng, rows = np.random.default_rng(0), []
    for number in range(60):
        truths = {name: np.zeros((10, 10), bool) for name in ATTRIBUTES}
        maps = [np.zeros((10, 10), np.float32) for _ in ATTRIBUTES]
        if number < shown:
            truths["streaks"][:5] = True
            maps[list(ATTRIBUTES).index("streaks")][: 3 + number % 5] = 0.9
        ids = {"image_id": f"i{number}", "group_id": f"g{number}", "fold": number % 2}
        rows.append(ids | attribute_row(maps, truths, rng.random(len(ATTRIBUTES)).tolist()))
    found = AttributesEvaluation.of(pd.DataFrame(rows))
    streaks, absent = found.by_attribute["streaks"], found.by_attribute["globules"]
    assert streaks.groups == shown
    assert streaks.alone is not None
    assert (streaks.jaccard.known, streaks.alone.known) == (known, known)
    assert found.jaccard == streaks.jaccard  # the others have no pixel
    assert not streaks.jaccard.high >= 1  # a resample without streaks says nothing of them
    assert (absent.jaccard.value, absent.jaccard.known) == (1.0, False)


def test_given_masks_are_scored_without_thresholds(tmp_path: Path) -> None:
    write_task2(tmp_path, 5)
    masks = tmp_path / TRUTH
    truths = {
        f"attribute_{name}": [str(masks / f"ISIC_{n:07d}_attribute_{name}.png") for n in range(5)]
        for name in ATTRIBUTES
    }
    ids = [f"ISIC_{number:07d}" for number in range(5)]
    rows = pd.DataFrame({"image_id": ids, "group_id": ids, **truths})
    rows["presence_streaks"] = 0.5
    counts = compare_attributes(rows, masks)
    assert counts is not None
    found = evaluate("all right", attribute_counts=counts)
    assert found.attributes is not None
    assert found.attributes.jaccard.value == 1.0
    assert found.attributes.thresholds == ()
    assert found.subject.images == 5
    assert found.to_dict()["attributes"]["by_attribute"]["streaks"]["jaccard"]["value"] == 1.0
    assert compare_attributes(rows, tmp_path / "absent") is None
    assert compare_attributes(rows.drop(columns="attribute_streaks"), masks) is None
    odd = tmp_path / "odd"
    odd.mkdir()
    with pytest.raises(DataError, match="the mask is missing"):
        compare_attributes(rows, odd)
    for number in range(5):
        for name in ATTRIBUTES:
            write_png(odd / f"ISIC_{number:07d}_attribute_{name}.png", np.zeros((8, 8), bool))
    with pytest.raises(DataError, match="differs in size"):
        compare_attributes(rows, odd)
