"""Another case mix: the same pictures of each diagnosis, in other numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naevus.errors import ConfigError
from naevus.evaluation.priors import read_prevalence, rebalance, reweigh
from naevus.taxonomy import BINARY, ISIC2018

MIX = [0.7, 0.2, 0.1]
shares = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda values: np.array(values) / sum(values)
)


def test_on_gaussians_it_gives_the_posterior_of_the_other_mix() -> None:
    x = np.linspace(-4, 4, 41)[:, None]
    likelihood = np.exp(-((x - np.array([-1, 0, 2])) ** 2) / 2)
    trained, clinic = likelihood * MIX, likelihood * [0.1, 0.3, 0.6]
    natural = trained / trained.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        reweigh(natural, MIX, [0.1, 0.3, 0.6]), clinic / clinic.sum(axis=1, keepdims=True)
    )


@given(shares, shares, shares)
def test_there_and_back_changes_nothing(
    natural: np.ndarray, trained: np.ndarray, clinic: np.ndarray
) -> None:
    there = reweigh(natural, trained, clinic)
    assert there.sum() == pytest.approx(1)
    np.testing.assert_allclose(reweigh(there, clinic, trained), natural)
    np.testing.assert_allclose(reweigh(natural, trained, trained), natural)
    np.testing.assert_allclose(reweigh(natural, trained, np.ones(3)), rebalance(natural, trained))


def test_what_the_clinic_never_sees_gets_nought() -> None:
    np.testing.assert_allclose(
        reweigh(np.array([[0.5, 0.3, 0.2], [0, 1, 0]]), MIX, [0.7, 0, 0.3]),
        [[0.5 / (0.5 + 0.6), 0, 0.6 / (0.5 + 0.6)], [1 / 4, 0, 3 / 4]],
    )


def test_impossible_mixes_are_refused() -> None:
    row = np.array([0.5, 0.3, 0.2])
    with pytest.raises(ConfigError, match="no training picture"):
        reweigh(row, [0.5, 0.5, 0], MIX)
    for prevalence in ([0, 0, 0], [-0.1, 0.6, 0.5], [np.nan, 0.5, 0.5]):
        with pytest.raises(ConfigError, match="not that of anything"):
            reweigh(row, MIX, prevalence)
    for trained, prevalence in (([0.5, 0.5], MIX), (MIX, [0.5, 0.5]), ([-1, 1, 1], MIX)):
        with pytest.raises(ConfigError, match="not of 3 classes"):
            reweigh(row, trained, prevalence)


def written(folder: Path, text: str) -> Path:
    path = folder / "clinic.toml"
    path.write_text(text)
    return path


def test_a_file_of_shares_or_of_counts_is_read_in_the_taxonomys_order(tmp_path: Path) -> None:
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
        ("BENIGN = 0.5\nMALIGNANT = 0.4", "sum to 0.9, not to 1"),
        ("BENIGN = 0\nMALIGNANT = 0", "every count is 0"),
        ("BENIGN = 1\nMALIGNANT = -1", "MALIGNANT is -1"),
        ("BENIGN = 1\nMALIGNANT = 'rare'", "MALIGNANT is 'rare'"),
        ("BENIGN = true\nMALIGNANT = false", "BENIGN is True"),
        ("BENIGN = 1.0\nMALIGNANT = inf", "MALIGNANT is inf"),
        ("[BENIGN]\nMALIGNANT = 1", "MALIGNANT is missing"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as refused:
        read_prevalence(path, BINARY)
    assert str(path) in str(refused.value)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_prevalence(tmp_path / "absent.toml", ISIC2018)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"BENIGN = 1 # \xe4")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_prevalence(path, BINARY)
