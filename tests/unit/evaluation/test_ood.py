"""OOD scores, compared with other libraries, and the fraction of flagged images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from naevus.errors import ConfigError, DataError
from naevus.evaluation.ood import (
    LIMIT,
    FactorModel,
    OODStatistics,
)

Floats = NDArray[np.float64]


def cloud(count: int, seed: int, features: int = 40) -> Floats:
    """Return embeddings that vary in a few directions, and slightly in all."""
    rng = np.random.default_rng(seed)
    ways = np.random.default_rng(0).normal(0, 1, (5, features))
    return 3 + rng.normal(0, 1, (count, 5)) @ ways + rng.normal(0, 0.2, (count, features))


def strange(count: int, seed: int, features: int = 40) -> Floats:
    """Return embeddings that vary in other directions."""
    return 3 + np.random.default_rng(seed).normal(0, 1.2, (count, features))


def test_distances_equal_those_of_the_covariance() -> None:
    """The stored half precision changes distances by a few thousandths."""
    rows = cloud(400, 0)
    model = FactorModel.fit(rows, 5)
    by_sklearn = PCA(5, svd_solver="full").fit(rows)
    scale = (len(rows) - 1) / len(rows)  # scikit-learn divides by N - 1
    np.testing.assert_allclose(model.variances, by_sklearn.explained_variance_ * scale, rtol=1e-5)
    assert model.noise == pytest.approx(by_sklearn.noise_variance_ * scale)
    precision = by_sklearn.get_precision() / scale
    expected = cdist(strange(30, 1), rows.mean(axis=0)[None], "mahalanobis", VI=precision)[:, 0]
    np.testing.assert_allclose(model.distances(strange(30, 1)), expected, rtol=5e-3)


def test_distances_of_training_images_match_the_number_of_features() -> None:
    """The mean squared Mahalanobis distance of the fitted images is F.

    Again but for the half precision.
    """
    rows = cloud(2000, 0)
    inputs = FactorModel.fit(rows, 5).distances(rows) ** 2
    assert inputs.mean() == pytest.approx(40, rel=1e-2)


@pytest.mark.parametrize(
    ("rows", "factors", "error", "problem"),
    [
        (cloud(20, 0), 0, ConfigError, "0 directions"),
        (cloud(20, 0), 19, ConfigError, "19 directions from 20 images"),
        (cloud(100, 0), 40, ConfigError, "of 40 features"),
        (np.ones((20, 5)), 2, DataError, "vary in no more than 2"),
        (np.full((20, 5), np.nan), 2, DataError, "not a finite number"),
        (np.ones(20), 2, DataError, "not N x F"),
    ],
)
def test_features_without_factors_are_refused(
    rows: Floats, factors: int, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        FactorModel.fit(rows, factors)


def lesions(count: int) -> list[str]:
    """Return one image of most lesions, and ten of one."""
    return [f"lesion {max(number, 9)}" for number in range(count)]


def test_few_dermoscopic_images_and_all_others_are_flagged() -> None:
    class_priors = []
    for seed in range(20):
        reference = OODStatistics.fit(
            cloud(500, seed), cloud(400, 100 + seed), lesions(400), factors=5, flagged=0.05
        )
        class_priors.append((reference.ood_score(cloud(1000, 200 + seed)) > LIMIT).mean())
        assert (reference.ood_score(strange(200, seed)) > LIMIT).mean() > 0.95
    assert np.mean(class_priors) == pytest.approx(0.05, abs=0.015)


def test_an_ordinary_image_scores_about_zero() -> None:
    reference = OODStatistics.fit(cloud(500, 0), cloud(400, 1), lesions(400), factors=5)
    assert abs(np.median(reference.ood_score(cloud(1000, 2)))) < 0.1


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(2, 60), st.sampled_from([0.01, 0.02, 0.1, 0.3]))
def test_at_most_the_requested_fraction_is_flagged(seed: int, sorts: int, fraction: float) -> None:
    """This holds exactly on the images that the threshold was fitted on, for any grouping."""
    rng = np.random.default_rng(seed)
    groups = rng.zipf(1.5, 150) % sorts
    own = cloud(150, seed)
    reference = OODStatistics.fit(cloud(200, 1), own, groups.tolist(), factors=5, flagged=fraction)
    flagged = reference.ood_score(own) > LIMIT * (1 + 1e-12)
    sizes = np.bincount(groups)[groups]
    by_lesion = (flagged / sizes).sum() / (1 / sizes).sum()
    assert flagged.mean() <= fraction + 1e-9
    assert by_lesion <= fraction + 1e-9


@pytest.mark.parametrize(
    ("oof", "groups", "flagged", "error", "problem"),
    [
        (cloud(9, 1), lesions(9), 0.0, ConfigError, "fraction 0.0 is not between"),
        (cloud(9, 1), lesions(8), 0.02, DataError, "8 groups for 9"),
        (cloud(9, 1)[:, :30], lesions(9), 0.02, DataError, "not N x 40"),
        (cloud(0, 1), [], 0.02, DataError, "no held-out images"),
        (
            np.repeat(cloud(1, 1), 9, axis=0),
            lesions(9),
            0.02,
            DataError,
            "equal features",
        ),
    ],
)
def test_images_that_fit_no_threshold_are_refused(
    oof: Floats, groups: list[str], flagged: float, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        OODStatistics.fit(cloud(100, 0), oof, groups, factors=5, flagged=flagged)


def test_another_networks_embeddings_are_refused() -> None:
    reference = OODStatistics.fit(cloud(100, 0), cloud(90, 1), lesions(90), factors=5)
    with pytest.raises(DataError, match="not N x 40"):
        reference.ood_score(np.ones((3, 41)))
