"""OOD scores of the benchmarks equal those of other libraries."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import shrunk_covariance
from sklearn.neighbors import NearestNeighbors

from naevus.errors import ConfigError
from naevus.images.geometry import Box
from naevus.inference.cam import Activation, cam_over
from tests.unit.evaluation.test_ood import cloud, strange

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

from heatmap_occlusion import input_of, interleaved
from ood_scores import (
    class_means,
    directions,
    energy,
    mahalanobis,
    neighbour_distance,
    shrunk_precision,
)


def test_energy_is_minus_the_log_of_summed_exponentials() -> None:
    logits = np.random.default_rng(0).normal(0, 300, (50, 7))
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1))


def test_mahalanobis_equals_scipy_s_to_the_nearest_class() -> None:
    rows, classes = cloud(300, 0), np.random.default_rng(1).integers(0, 3, 300)
    means = class_means(rows, classes)
    precision = shrunk_precision(rows, classes, 0.1)
    expected = cdist(strange(40, 2), means, "mahalanobis", VI=precision).min(axis=1)
    np.testing.assert_allclose(mahalanobis(strange(40, 2), means, precision), expected)


def test_the_covariance_is_shrunk_as_scikit_learn_does() -> None:
    rows, classes = cloud(300, 0), np.repeat(["a", "b", "c"], 100)
    rest = np.concatenate([part - part.mean(axis=0) for part in np.split(rows, 3)])
    expected = np.linalg.inv(shrunk_covariance(rest.T @ rest / 300, 0.3))
    np.testing.assert_allclose(shrunk_precision(rows, classes, 0.3), expected)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_neighbours_equal_scikit_learn(neighbours: int) -> None:
    bank, rows = cloud(200, 0), strange(600, 1)
    found = NearestNeighbors(n_neighbors=neighbours).fit(directions(bank))
    expected = np.asarray(found.kneighbors(directions(rows))[0])[:, -1]
    np.testing.assert_allclose(neighbour_distance(rows, bank, neighbours), expected, atol=1e-7)


def test_an_embedding_of_zeros_is_accepted() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(directions(rows), np.array([[0.6, 0.8], [0, 0]]))
    distances = neighbour_distance(rows, [[1.0, 0.0]], 1)
    np.testing.assert_allclose(distances, np.array([np.sqrt(0.8), 1]))


@pytest.mark.parametrize(("shrinkage", "neighbours"), [(0.0, 1), (1.1, 1), (0.5, 0), (0.5, 11)])
def test_impossible_settings_are_refused(shrinkage: float, neighbours: int) -> None:
    with pytest.raises(ConfigError):  # noqa: PT012
        shrunk_precision(cloud(10, 0), np.zeros(10), shrinkage)
        neighbour_distance(cloud(3, 1), cloud(10, 0), neighbours)


def test_interleaved_cells_are_where_each_input_saw_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((8, 8), np.float32)  # of 10 pixels a cell; inputs have cells of 20
    moved = [
        Activation(
            truth[row::2, column::2],
            Box(10 * column - 5, 10 * row - 5, 10 * column + 75, 10 * row + 75),
            (80, 80),
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    joined = interleaved(moved)
    np.testing.assert_array_equal(joined.map, truth)
    assert joined.box == Box(0, 0, 80, 80)
    whole = cam_over([Activation(truth, Box(0, 0, 80, 80), (80, 80))], 80, 80)
    np.testing.assert_allclose(cam_over([joined], 80, 80), whole)


def test_inputs_are_reflected_outside_the_image() -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6, 1).repeat(3, axis=2)
    found = input_of(pixels, Box(-2, 1, 2, 5), 4)
    np.testing.assert_array_equal(found[..., 0], pixels[1:5, [2, 1, 0, 1], 0])
