"""OOD statistics on disk: round trips and damaged files."""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from naevus.bundles.ood import LARGEST, read_ood_statistics, write_ood_statistics
from naevus.errors import BundleError
from naevus.evaluation.ood import OODStatistics

if TYPE_CHECKING:
    from pathlib import Path


def reference(seed: int, features: int = 24) -> OODStatistics:
    rng = np.random.default_rng(seed)
    learnt, oof = rng.normal(1, 1, (2, 90, features))
    return OODStatistics.fit(learnt, oof, [str(n) for n in range(90)], factors=4)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "ood.npz"
    write_ood_statistics(path, [reference(0), reference(1, 30)])
    return path


def test_statistics_are_read_as_written(written: Path) -> None:
    for number, (found, width) in enumerate(
        zip(read_ood_statistics(written, 2), (24, 30), strict=True)
    ):
        rows = np.random.default_rng(5).normal(1, 1, (10, width))
        expected = reference(number, width).ood_score(rows)
        np.testing.assert_array_equal(found.ood_score(rows), expected)


def test_the_same_statistics_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.npz"
    write_ood_statistics(again, [reference(0), reference(1, 30)])
    assert again.read_bytes() == written.read_bytes()
    with zipfile.ZipFile(written) as stored:
        assert {entry.date_time for entry in stored.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_statistics_of_a_typical_network_are_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    learnt, oof = rng.normal(0, 1, (2, 200, 1280))
    path = tmp_path / "ood.npz"
    write_ood_statistics(path, [OODStatistics.fit(learnt, oof, [str(n) for n in range(200)])])
    assert path.stat().st_size < 2**20


@pytest.mark.parametrize(("members", "problem"), [(1, "more than 1 net"), (3, "2.scales")])
def test_statistics_of_other_networks_are_refused(
    written: Path, members: int, problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        read_ood_statistics(written, members)


def _changed(path: Path, name: str, value: Any) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("0.scales", None, "0.scales is missing"),
        ("0.scales", np.ones(4), "4 scales"),
        ("0.scales", np.array([np.nan, 1]), "not a finite number"),
        ("0.scales", np.array([1.0, 0]), "not above 0"),
        ("0.deviations", np.zeros(24, np.float32), "a deviation is not above 0"),
        ("0.mean", np.zeros(24), "0.mean is float64"),
        ("0.mean", np.zeros(23, np.float32), "do not match"),
        ("0.mean", np.full(24, np.inf, np.float32), "not a finite number"),
        ("0.noise", np.array(0.0), "a variance is not above 0"),
        ("0.basis", np.zeros((24, 24), np.float16), "do not match"),
        ("0.basis", np.array([{"a": 1}], dtype=object), "allow_pickle=False"),
    ],
)
def test_other_arrays_are_refused_in_one_line(
    written: Path, name: str, value: Any, problem: str
) -> None:
    _changed(written, name, value)
    with pytest.raises(BundleError, match=re.escape(problem)) as caught:
        read_ood_statistics(written, 2)
    assert "\n" not in str(caught.value)
    assert str(written) in str(caught.value)


def test_models_and_deviations_of_different_widths_are_refused(written: Path) -> None:
    with np.load(written) as stored:
        arrays = dict(stored)
    for part in ("mean", "basis", "variances", "noise"):
        arrays[f"0.{part}"] = arrays[f"1.{part}"]
    np.savez(written, **arrays)
    with pytest.raises(BundleError, match="differ in width"):
        read_ood_statistics(written, 2)


def test_a_small_file_that_becomes_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, zeros=np.zeros(LARGEST, np.uint8))
    assert path.stat().st_size < LARGEST / 100
    with pytest.raises(BundleError, match="more than 8 MB"):
        read_ood_statistics(path, 1)


def test_a_header_with_too_large_a_shape_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(header, shape)
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as stored:
        stored.writestr("0.lengths.mean.npy", header.getvalue())
    with pytest.raises(BundleError, match="no usable statistics"):
        read_ood_statistics(path, 1)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        read_ood_statistics(tmp_path / "absent.npz", 1)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_gives_a_clear_error_or_none(written: Path, data: st.DataObject) -> None:
    """Truncated or altered files raise no other exception."""
    content = bytearray(written.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = written.parent / "damaged.npz"
    damaged.write_bytes(content)
    try:
        read_ood_statistics(damaged, 2)
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017
