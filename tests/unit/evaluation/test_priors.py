"""Natural and balanced probabilities, on a toy problem with known posteriors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from naevus.errors import ConfigError
from naevus.evaluation.priors import (
    balanced_log_probabilities,
    geometric_means,
    natural_log_probabilities,
    read_prevalence,
    rebalance,
    reweigh,
)
from naevus.taxonomy import BINARY, ISIC2018

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Toy = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]


CLASS_PRIORS = np.array([0.70, 0.25, 0.05])
WEIGHTS = CLASS_PRIORS**-0.5
MEANS = np.array([[0.0, 0.0], [2.0, 0.5], [0.5, 2.0]])


def log_likelihood(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log p(x|c) of unit Gaussians in the plane, up to a constant: N x C."""
    distance: NDArray[np.float64] = ((x[:, None, :] - MEANS) ** 2).sum(axis=2)
    return -distance / 2


def posterior(x: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    joint = prior * np.exp(log_likelihood(x))
    normalised: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
    return normalised


@pytest.fixture(scope="module")
def toy() -> Toy:
    """Draw points with the class priors; return them, their classes, and ideal weighted logits."""
    rng = np.random.default_rng(2018)
    classes = rng.choice(3, size=40_000, p=CLASS_PRIORS)
    x = MEANS[classes] + rng.normal(size=(len(classes), 2))
    # A network's logits are arbitrary up to a constant per row.
    logits = log_likelihood(x) + np.log(CLASS_PRIORS * WEIGHTS) + rng.normal(size=(len(x), 1))
    return x, classes, logits


def balanced_accuracy(classes: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    return float(np.mean([(predictions[classes == c] == c).mean() for c in range(3)]))


def test_the_natural_posterior_is_recovered(toy: Toy) -> None:
    x, _, logits = toy
    natural = np.exp(natural_log_probabilities(logits, WEIGHTS))
    np.testing.assert_allclose(natural, posterior(x, CLASS_PRIORS), atol=1e-12)


def test_the_balanced_posterior_is_recovered(toy: Toy) -> None:
    x, _, logits = toy
    balanced = np.exp(balanced_log_probabilities(logits, WEIGHTS, CLASS_PRIORS))
    np.testing.assert_allclose(balanced, posterior(x, np.full(3, 1 / 3)), atol=1e-12)


def test_each_decision_is_best_at_its_own_score(toy: Toy) -> None:
    _, classes, logits = toy
    natural = natural_log_probabilities(logits, WEIGHTS).argmax(axis=1)
    balanced = balanced_log_probabilities(logits, WEIGHTS, CLASS_PRIORS).argmax(axis=1)
    too_far = (logits - np.log(CLASS_PRIORS)).argmax(axis=1)  # without correction for the weights
    raw = logits.argmax(axis=1)
    accuracies = [
        (predictions == classes).mean() for predictions in (natural, balanced, too_far, raw)
    ]
    assert accuracies[0] == max(accuracies)
    assert balanced_accuracy(classes, balanced) > max(
        balanced_accuracy(classes, predictions) + 0.005 for predictions in (natural, too_far, raw)
    )


def test_natural_probabilities_are_calibrated(toy: Toy) -> None:
    _, classes, logits = toy
    natural = np.exp(natural_log_probabilities(logits, WEIGHTS))
    for c in range(3):
        assert natural[:, c].mean() == pytest.approx((classes == c).mean(), abs=0.01)


def test_temperature_belongs_to_the_natural_probabilities(toy: Toy) -> None:
    _, _, logits = toy
    natural = np.exp(natural_log_probabilities(logits, WEIGHTS, 1.7))
    balanced = np.exp(balanced_log_probabilities(logits, WEIGHTS, CLASS_PRIORS, 1.7))
    np.testing.assert_allclose(balanced, rebalance(natural, CLASS_PRIORS), atol=1e-12)
    assert (
        natural.max(axis=1).mean()
        < np.exp(natural_log_probabilities(logits, WEIGHTS)).max(axis=1).mean()
    )


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float32, (4, 3), elements=st.floats(-80, 80, width=32)),
    arrays(np.float64, 3, elements=st.floats(0.01, 100)),
    arrays(np.float64, 3, elements=st.floats(0.001, 1)),
)
def test_both_kinds_are_probabilities(
    logits: NDArray[np.float32], weights: ArrayLike, class_priors: ArrayLike
) -> None:
    natural = np.exp(natural_log_probabilities(logits, weights))
    balanced = np.exp(balanced_log_probabilities(logits, weights, class_priors))
    np.testing.assert_allclose(natural.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(balanced.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(rebalance(natural, class_priors), balanced, atol=1e-9)


def test_equal_priors_change_nothing() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(rebalance(probabilities, np.full(3, 1 / 3)), probabilities)


def test_one_image_may_come_without_its_row_axis() -> None:
    logits = np.array([0.1, -2.0, 3.0])
    np.testing.assert_array_equal(
        natural_log_probabilities(logits, WEIGHTS),
        natural_log_probabilities(logits[None], WEIGHTS)[0],
    )


def test_a_class_without_training_images_has_balanced_probability_zero() -> None:
    balanced = np.exp(balanced_log_probabilities(np.zeros((1, 3)), [1, 1, 1], [0.5, 0.5, 0.0]))
    np.testing.assert_allclose(balanced, [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("weights", "class_priors", "temperature"),
    [
        ([1, 1, 0], CLASS_PRIORS, 1.0),
        ([1, 1], CLASS_PRIORS, 1.0),
        ([1, 1, np.nan], CLASS_PRIORS, 1.0),
        (WEIGHTS, [0.5, 0.6, -0.1], 1.0),
        (WEIGHTS, [0.0, 0.0, 0.0], 1.0),
        (WEIGHTS, [0.5, 0.5], 1.0),
        (WEIGHTS, CLASS_PRIORS, 0.0),
        (WEIGHTS, CLASS_PRIORS, np.nan),
    ],
)
def test_impossible_settings_are_refused(
    weights: ArrayLike, class_priors: ArrayLike, temperature: float
) -> None:
    with pytest.raises(ConfigError):
        balanced_log_probabilities(np.zeros((1, 3)), weights, class_priors, temperature)


MIX = [0.7, 0.2, 0.1]
class_priors = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda values: np.array(values) / sum(values)
)


def test_reweighing_gives_the_posterior_of_another_mix() -> None:
    x = np.linspace(-4, 4, 41)[:, None]
    likelihood = np.exp(-((x - np.array([-1, 0, 2])) ** 2) / 2)
    trained, operating_points = likelihood * MIX, likelihood * [0.1, 0.3, 0.6]
    natural = trained / trained.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        reweigh(natural, MIX, [0.1, 0.3, 0.6]),
        operating_points / operating_points.sum(axis=1, keepdims=True),
    )


@given(class_priors, class_priors, class_priors)
def test_changing_the_prevalence_back_restores_the_probabilities(
    natural: np.ndarray, trained: np.ndarray, operating_points: np.ndarray
) -> None:
    there = reweigh(natural, trained, operating_points)
    assert there.sum() == pytest.approx(1)
    np.testing.assert_allclose(reweigh(there, operating_points, trained), natural)
    np.testing.assert_allclose(reweigh(natural, trained, trained), natural)
    np.testing.assert_allclose(reweigh(natural, trained, np.ones(3)), rebalance(natural, trained))


def test_classes_without_prevalence_get_probability_zero() -> None:
    np.testing.assert_allclose(
        reweigh(np.array([[0.5, 0.3, 0.2], [0, 1, 0]]), MIX, [0.7, 0, 0.3]),
        [[0.5 / (0.5 + 0.6), 0, 0.6 / (0.5 + 0.6)], [1 / 4, 0, 3 / 4]],
    )


def test_impossible_mixes_are_refused() -> None:
    row = np.array([0.5, 0.3, 0.2])
    with pytest.raises(ConfigError, match="without training images"):
        reweigh(row, [0.5, 0.5, 0], MIX)
    for prevalence in ([0, 0, 0], [-0.1, 0.6, 0.5], [np.nan, 0.5, 0.5]):
        with pytest.raises(ConfigError, match="must be finite"):
            reweigh(row, MIX, prevalence)
    for trained, prevalence in (([0.5, 0.5], MIX), (MIX, [0.5, 0.5])):
        with pytest.raises(ConfigError, match="do not fit 3 classes"):
            reweigh(row, trained, prevalence)
    with pytest.raises(ConfigError, match="must be 0 or more"):
        reweigh(row, [-1, 1, 1], MIX)


def written(folder: Path, text: str) -> Path:
    path = folder / "clinic.toml"
    path.write_text(text)
    return path


def test_a_file_of_priors_or_of_counts_is_read_in_the_taxonomys_order(tmp_path: Path) -> None:
    path = written(tmp_path, "MALIGNANT = 0.05  # referrals\nBENIGN = 0.9502\n")
    np.testing.assert_allclose(
        read_prevalence(path, BINARY), np.array([0.9502, 0.05]) / 1.0002, rtol=1e-12
    )
    path = written(tmp_path, "BENIGN = 30\nMALIGNANT = 10")
    np.testing.assert_allclose(read_prevalence(path, BINARY), [0.75, 0.25])
    path = written(tmp_path, "BENIGN = 1\nMALIGNANT = 0.0")
    np.testing.assert_allclose(read_prevalence(path, BINARY), [1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BENIGN = ", "is not TOML"),
        ("BENIGN = 1\nMEL = 2", "MEL is not a diagnosis of binary; use BENIGN, MALIGNANT"),
        ("BENIGN = 1", "MALIGNANT is missing"),
        ("BENIGN = 0.5\nMALIGNANT = 0.4", "sum to 0.9 instead of 1"),
        ("BENIGN = 0\nMALIGNANT = 0", "every count is 0"),
        ("BENIGN = 1\nMALIGNANT = -1", "MALIGNANT is -1"),
        ("BENIGN = 1\nMALIGNANT = 'rare'", "MALIGNANT is 'rare'"),
        ("BENIGN = true\nMALIGNANT = false", "BENIGN is True"),
        ("BENIGN = 1.0\nMALIGNANT = inf", "MALIGNANT is inf"),
        ("[BENIGN]\nMALIGNANT = 1", "MALIGNANT is missing"),
    ],
)
def test_invalid_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as refused:
        read_prevalence(path, BINARY)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_prevalence(tmp_path / "absent.toml", ISIC2018)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"BENIGN = 1 # \xe4")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_prevalence(path, BINARY)


def test_the_images_of_a_lesion_are_averaged_as_logits() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(40, 5))
    members = np.random.default_rng(1).permutation(np.arange(40) % 7)
    means = np.stack([logits[members == lesion].mean(axis=0) for lesion in range(7)])
    found = geometric_means(softmax(logits, axis=1), members, 7)
    np.testing.assert_allclose(found, softmax(means, axis=1))


def test_a_lesion_of_one_image_keeps_its_probabilities_and_impossible_classes_stay_so() -> None:
    rows = np.array(
        [[0.1, 0.2, 0.7, 0], [0.3, 0.3, 0.4, 0], [1 / 3, 1 / 3, 1 / 3, 0], [1, 0, 0, 0]]
    )
    found = geometric_means(rows, np.array([0, 1, 1, 1]), 2)
    assert found[0].tolist() == rows[0].tolist()
    assert found[1, 3] == 0
    assert (found[1, 1:3] > 0).all()  # impossible in one image only
    np.testing.assert_allclose(found.sum(axis=1), 1)
