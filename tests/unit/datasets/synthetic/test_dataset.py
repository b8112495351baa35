"""Synthetic images: deterministic, within limits, classes differ in structure, not colour."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from naevus.datasets import layouts
from naevus.datasets.synthetic import draw_lesion, write_isic2018
from naevus.datasets.synthetic.dataset import plan
from naevus.datasets.synthetic.lesion import Shape, area, draw_contour
from naevus.errors import ConfigError, DataError
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Synthetic = list[tuple[NDArray[np.uint8], NDArray[np.bool_], str]]

SIZE = 128


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_isic2018(folder, images=60, seed=7, size=64, splits=("train", "validation", "test"))
    return folder


@pytest.fixture(scope="module")
def training() -> Synthetic:
    return _draw(range(12))


@pytest.fixture(scope="module")
def held_out() -> Synthetic:
    return _draw(range(100, 112))


def _draw(seeds: range) -> Synthetic:
    return [(*draw_lesion(code, seed, SIZE), code) for code in ISIC2018.codes for seed in seeds]


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("code", ISIC2018.codes)
def test_the_same_seed_draws_the_same_lesion(code: str) -> None:
    pixels, mask = draw_lesion(code, 3, SIZE)
    again, mask_again = draw_lesion(code, 3, SIZE)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (SIZE, SIZE, 3)
    assert mask.dtype == np.bool_
    assert mask.shape == (SIZE, SIZE)
    assert np.array_equal(pixels, again)
    assert np.array_equal(mask, mask_again)
    assert not np.array_equal(pixels, draw_lesion(code, 4, SIZE)[0])


def test_photographs_of_one_lesion_differ_in_image_and_mask() -> None:
    first, first_mask = draw_lesion("NV", 5, SIZE, photograph=0)
    second, second_mask = draw_lesion("NV", 5, SIZE, photograph=1)
    assert np.abs(first.astype(int) - second).mean() > 3
    assert not np.array_equal(first_mask, second_mask)


@given(
    code=st.sampled_from(ISIC2018.codes),
    seed=st.integers(0, 2**40),
    photograph=st.integers(0, 9),
    size=st.sampled_from([48, 96]),
)
@settings(max_examples=60, deadline=None)
def test_masks_keep_within_their_limits(code: str, seed: int, photograph: int, size: int) -> None:
    pixels, mask = draw_lesion(code, seed, size, photograph)
    assert 0.03 <= mask.mean() <= 0.70
    assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2
    assert pixels.std() > 5


def test_the_mask_is_where_the_lesion_is(training: Synthetic) -> None:
    sharper = 0
    for pixels, mask, _ in training:
        grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 2)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((17, 17), np.uint8)).astype(bool) & ~mask
        sharper += int(grey[mask].mean() < grey[near].mean())
    assert sharper >= 0.85 * len(training)


@given(seed=st.integers(0, 2**32), lobes=st.floats(0, 0.15), stretch=st.floats(1, 2))
@settings(max_examples=40, deadline=None)
def test_contours_enclose_the_unit_circles_area(seed: int, lobes: float, stretch: float) -> None:
    points = draw_contour(np.random.default_rng(seed), Shape(lobes, 0.05, stretch))
    assert area(points) == pytest.approx(np.pi)
    assert np.abs(points.mean(axis=0)).max() < 1e-9


def _score(
    features: Callable[[NDArray[np.uint8], NDArray[np.bool_]], Any],
    model: Any,
    training: Synthetic,
    held_out: Synthetic,
) -> float:
    """Return the balanced accuracy on lesions that the model was not fitted on."""
    model.fit([features(p, m) for p, m, _ in training], [code for _, _, code in training])
    found = model.predict([features(p, m) for p, m, _ in held_out])
    return float(balanced_accuracy_score([code for _, _, code in held_out], found))


def _bands(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> list[float]:
    """Return the lesion's contrast at each scale, and its orientation."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    found = []
    for sigma in (0.6, 1.0, 1.6, 2.5, 4.0, 6.0):
        fine = cv2.GaussianBlur(grey, (0, 0), sigma)
        band = (fine - cv2.GaussianBlur(grey, (0, 0), 1.6 * sigma))[mask]
        found.append(float(band.std() / grey[mask].std()))
        found.append(float((band**3).mean() / (band.std() ** 3 + 1e-6)))
    return found


def _histogram(pixels: NDArray[np.uint8], _: NDArray[np.bool_]) -> Any:
    counts = cv2.calcHist([pixels], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3).ravel()
    return np.sqrt(counts / counts.sum())


def test_structure_reveals_the_diagnosis_and_colour_does_not(
    training: Synthetic, held_out: Synthetic
) -> None:
    def logistic() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))

    lda = LinearDiscriminantAnalysis()
    mean_colour = _score(lambda p, _: p.mean(axis=(0, 1)), lda, training, held_out)
    lesion_colour = _score(lambda p, m: p[m].mean(axis=0), lda, training, held_out)
    histogram = _score(_histogram, logistic(), training, held_out)
    structure = _score(_bands, logistic(), training, held_out)
    assert mean_colour < 0.35
    assert lesion_colour < 0.40
    assert histogram < 0.40
    assert structure > 0.60
    assert structure > max(mean_colour, lesion_colour, histogram) + 0.2


@pytest.mark.parametrize(
    ("code", "seed", "size", "photograph", "error"),
    [
        ("SCC", 0, 64, 0, DataError),
        ("NV", -1, 64, 0, ConfigError),
        ("NV", 0, 8, 0, ConfigError),
        ("NV", 0, 64, -1, ConfigError),
    ],
)
def test_impossible_lesions_are_refused(
    code: str, seed: int, size: int, photograph: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        draw_lesion(code, seed, size, photograph)


def test_the_data_set_has_the_official_layout(root: Path) -> None:
    dataset = layouts.load(root)
    assert dataset.layout == "isic2018"
    assert dataset.problems == ()
    table = dataset.table
    assert table["path"].notna().all()
    assert set(table["split"]) == {"train", "validation", "test"}
    train = table[table["split"] == "train"]
    assert len(train) == 60
    assert train["mask_path"].notna().all()
    task1, task3 = train[train["part"] == "task1"], train[train["part"] == "task3"]
    assert (len(task1), len(task3)) == (24, 36)
    assert task3["lesion_id"].notna().all()
    assert task3["age"].notna().all()
    assert set(task3["diagnosis"]) == set(ISIC2018.codes)
    later = table[table["split"] != "train"]
    assert later.loc[later["part"] == "task3", "diagnosis"].notna().all()
    assert later.loc[later["part"] == "task1", "mask_path"].notna().all()
    assert not set(later["group_id"]) & set(train["group_id"])


def test_files_contain_the_drawn_image_and_its_mask(root: Path) -> None:
    for image in plan(60, 7, ("train",))[::13]:
        lesion = image.lesion
        pixels, mask = draw_lesion(lesion.diagnosis, lesion.seed, 64, image.photograph)
        row = next(layouts.load(root).select([image.image_id]).rows())
        assert row.path is not None
        assert row.mask_path is not None
        assert np.abs(read(row.path).astype(int) - pixels).mean() < 8
        assert np.array_equal(read_mask(row.mask_path), mask)


def test_tables_have_the_official_columns(root: Path) -> None:
    truth = root / "ISIC2018_Task3_Training_GroundTruth"
    one_hot = pd.read_csv(truth / "ISIC2018_Task3_Training_GroundTruth.csv")
    assert list(one_hot.columns) == ["image", *ISIC2018.codes]
    assert (one_hot[list(ISIC2018.codes)].sum(axis=1) == 1).all()
    assert "1.0" in (truth / "ISIC2018_Task3_Training_GroundTruth.csv").read_text()
    lesions = pd.read_csv(truth / "ISIC2018_Task3_Training_LesionGroupings.csv")
    assert list(lesions.columns) == ["image", "lesion_id", "diagnosis_confirm_type"]
    patients = pd.read_csv(root / "HAM10000_metadata.csv")
    assert list(patients.columns) == [
        "lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization",
    ]  # fmt: skip
    groups = pd.read_csv(root / "ISIC2018_Task1_Training_Groups.csv")
    assert list(groups.columns) == ["image", "group_id", "diagnosis"]


def test_an_interrupted_data_set_is_finished_to_the_same_bytes(tmp_path: Path, root: Path) -> None:
    class StoppedError(Exception): ...

    def stop(done: int, _: int) -> None:
        if done == 20:
            raise StoppedError

    splits = ("train", "validation", "test")
    with pytest.raises(StoppedError):
        write_isic2018(tmp_path, images=60, seed=7, size=64, splits=splits, progress=stop)
    calls: list[tuple[int, int]] = []
    write_isic2018(
        tmp_path, images=60, seed=7, size=64, splits=splits,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls[-1] == (100, 100)
    assert _digests(tmp_path) == _digests(root)


def test_a_folder_with_other_content_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="empty folder"):
        write_isic2018(tmp_path, images=60, size=64)
    with pytest.raises(DataError, match="empty folder"):
        write_isic2018(root, images=60, seed=8, size=64)


def test_the_demos_plan_has_enough_lesions_for_folds() -> None:
    planned = plan(160, 2018, ("train", "test"))
    assert len({image.image_id for image in planned}) == len(planned) == 192
    task3 = [p for p in planned if p.split == "train" and p.task == "task3"]
    for code in ISIC2018.codes:
        assert len({p.lesion.lesion_id for p in task3 if p.lesion.diagnosis == code}) >= 8
    owners = {(p.lesion.lesion_id, p.split, p.task) for p in planned}
    assert len(owners) == len({lesion for lesion, _, _ in owners})
    assert len(owners) < len(planned)


@pytest.mark.parametrize(
    ("images", "seed", "splits"), [(10, 0, ("train",)), (60, -1, ("train",)), (60, 0, ("dev",))]
)
def test_settings_out_of_range_are_refused(images: int, seed: int, splits: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        plan(images, seed, splits)
