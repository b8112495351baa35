"""Data sets defined by folders: one class per folder, or images next to masks."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load, report_unread
from naevus.errors import DataError
from tests.helpers.layouts import Warned, files, kinds, text


def test_masks_beside_images_are_found_within_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        files(tmp_path / split / "images", f"{split}1.jpg", f"{split}2.jpg")
        files(tmp_path / split / "masks", f"{split}1_mask.png", "stray.png")
    dataset = load(tmp_path)
    assert dataset.layout == "images_masks"
    assert dataset.with_masks().ids == ["train1", "val1"]
    assert dataset.split("validation").ids == ["val1", "val2"]
    assert kinds(dataset)["image without mask"] == ["train2", "val2"]
    assert "stray" in kinds(dataset)["mask without image"]


def test_masks_beside_their_images_are_found(tmp_path: Path) -> None:
    files(tmp_path / "a", "1.jpg", "1_Segmentation.png", "2.jpg", "2_mask.PNG", "2_superpixels.png")
    dataset = load(tmp_path)
    assert dataset.layout == "images_masks"
    assert dataset.with_masks().ids == ["1", "2"]


@pytest.mark.parametrize("names", [("MEL", "NV"), ("Malignant", "Benign"), ("Melanome", "Nävi")])
def test_folders_in_the_folder_of_an_archive(tmp_path: Path, names: tuple[str, str]) -> None:
    base = tmp_path / "Skin cancer, unpacked"
    files(base / "Train" / names[0] / "of 2023", "1.jpg")
    files(base / "Train" / names[1], "2.jpg")
    files(base / "Test" / names[1], "3.jpg")
    dataset = load(tmp_path)
    assert dataset.layout == "classfolders"
    assert dataset.table["diagnosis"].nunique() == 2
    assert dataset.split("test").ids == ["3"]


def test_folders_that_are_not_diagnoses(tmp_path: Path) -> None:
    files(tmp_path / "wart", "1.jpg")
    files(tmp_path / "scar", "2.jpg")
    with pytest.raises(DataError, match=r"none is understood: 'scar', 'wart'; .*--taxonomy own"):
        load(tmp_path)
    assert load(tmp_path, taxonomy="own").table["diagnosis"].tolist() == ["wart", "scar"]
    files(tmp_path / "nevi", "3.jpg")
    with pytest.raises(DataError, match="most diagnoses are not understood: 'scar'"):
        load(tmp_path)


def test_numbers_are_not_diagnoses(tmp_path: Path) -> None:
    files(tmp_path / "images", "a.jpg", "b.jpg")
    text(tmp_path / "labels.csv", "image,label", "a,0", "b,1")
    with pytest.raises(DataError, match=r"not understood: '0' \(1\), '1' \(1\)"):
        load(tmp_path)
    text(tmp_path / "labels.csv", "image,malignant", "a,0", "b,1.0")
    assert load(tmp_path).table["diagnosis"].tolist() == ["BENIGN", "MALIGNANT"]
    text(tmp_path / "labels.csv", "image,target", "a,nevus", "b,melanoma")
    assert load(tmp_path).table["diagnosis"].tolist() == ["NV", "MEL"]


def test_a_folder_of_test_images_is_not_training_data(tmp_path: Path) -> None:
    files(tmp_path / "HAM10000_images_part_1", "ISIC_1.jpg", "ISIC_2.jpg")
    files(tmp_path / "ISIC2018_Task3_Test_Images", "ISIC_3.jpg")
    text(
        tmp_path / "HAM10000_metadata.csv", "lesion_id,image_id,dx", "H1,ISIC_1,nv", "H2,ISIC_2,mel"
    )
    dataset = load(tmp_path)
    assert dataset.split("test").ids == ["ISIC_3"]
    assert make_folds(dataset, k=2).table["image_id"].tolist() == ["ISIC_1", "ISIC_2"]


def test_tables_named_after_splits_are_splits(tmp_path: Path) -> None:
    files(tmp_path / "images", *(f"{k}.jpg" for k in range(6)))
    for place, name in enumerate(("train", "val labels", "my_test")):
        rows = (f"{2 * place}.jpg,nevus", f"{2 * place + 1}.jpg,seb. keratosis")
        text(tmp_path / f"{name}.csv", "filename,label", *rows)
    dataset = load(tmp_path)
    assert dataset.split("validation").ids == ["2", "3"]
    assert dataset.split("test").ids == ["4", "5"]
    assert dataset.table["diagnosis"].tolist() == ["NV", "BKL"] * 3


@pytest.mark.parametrize(
    "places",
    [
        (".",),
        ("photos",),
        (".", "more"),
        ("P001", "P002"),
        ("2024-01-31", "2024-02-01"),
        ("clinic/case 12", "clinic/case 13"),
    ],
    ids=str,
)
def test_images_alone_are_a_data_set_without_labels(
    tmp_path: Path, places: tuple[str, ...]
) -> None:
    for number, place in enumerate(places):
        files(tmp_path / place, f"{number}.jpg", f"{number}b.PNG")
    text(tmp_path / "readme.txt", "Taken in January.")
    dataset = load(tmp_path)
    assert dataset.layout == "unlabelled"
    assert len(dataset.images()) == len(dataset) == 2 * len(places)
    assert dataset.table["diagnosis"].isna().all()
    assert not dataset.has_groups
    assert dataset.problems == ()


@pytest.mark.parametrize("names", [("scar", "wart"), ("0", "1"), ("P001", "scar")])
def test_folders_that_may_be_diagnoses_are_not_taken_for_unlabelled_images(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for name in names:
        files(tmp_path / name, f"{name}.jpg")
    with pytest.raises(DataError, match=f"none is understood: '{names[0]}', '{names[1]}'"):
        load(tmp_path)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_folders_of_unlabelled_images_may_be_splits(tmp_path: Path, split: str) -> None:
    files(tmp_path / split, "a.jpg")
    dataset = load(tmp_path)
    assert dataset.layout == "unlabelled"
    assert dataset.split(split).ids == ["a"]


@pytest.mark.parametrize("column", ["age", "sex", "site", "mask", "patient", "Hauttyp"])
def test_a_table_without_diagnoses_is_read(tmp_path: Path, column: str) -> None:
    files(tmp_path, "a.jpg", "b.jpg")
    text(tmp_path / "info.csv", f"image,{column}", "a,55", "b,")
    dataset = load(tmp_path)
    assert dataset.layout == "labels_table"
    assert len(dataset.images()) == 2
    assert "ignored columns" not in kinds(dataset)


def test_a_folder_that_fits_no_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no known layout of images fits; no image lies below"):
        load(tmp_path)
    files(tmp_path, "a.jpg")
    text(tmp_path / "odd.csv", "image,remark", "a,b")
    with pytest.raises(
        DataError, match=r"images below it: 1, and odd.csv with the columns image, remark; .*csv"
    ):
        load(tmp_path)


def results(folder: Path) -> None:
    """Make what a job leaves: predictions of the images a and b."""
    files(folder, "predict.json")
    files(folder / "crops", "a.png", "b.png")
    files(folder / "masks", "a_segmentation.png", "b_segmentation.png")


@pytest.mark.parametrize("layout", ["unlabelled", "labels_table", "classfolders", "images_masks"])
def test_results_of_earlier_jobs_are_neither_images_nor_ground_truth(
    tmp_path: Path, layout: str
) -> None:
    for name in ("MEL", "NV") if layout == "classfolders" else (".",):
        files(tmp_path / name, f"{name}a.jpg".lstrip("."), f"{name}b.jpg".lstrip("."))
    if layout == "labels_table":
        text(tmp_path / "labels.csv", "image,dx", "a,nv", "b,mel")
    if layout == "images_masks":
        files(tmp_path, "b_mask.png")
    before = load(tmp_path)
    results(tmp_path / "first")
    results(tmp_path / "more" / "second")
    after = load(tmp_path)
    assert after.layout == layout
    assert after.table.equals(before.table)
    warned = Warned()
    report_unread(after, warned)
    named = f"first, more{os.sep}second"
    assert warned.lines == [f"left out: 2 folders of naevus's own results: {named}"]


def test_results_that_are_named_themselves_are_images_with_masks(tmp_path: Path) -> None:
    results(tmp_path / "first")
    with pytest.raises(
        DataError, match=r"lies below it, except in 1 folder of naevus's own .*first"
    ):
        load(tmp_path)
    assert load(tmp_path / "first").with_masks().ids == ["a", "b"]


@pytest.mark.parametrize("name", ["lesion.jpg", "mole.PNG", "scan.tiff"])
def test_an_image_is_no_data_set(tmp_path: Path, name: str) -> None:
    files(tmp_path, name)
    problem = f"{name} is an image, not a data set; name its folder, {tmp_path}"
    with pytest.raises(DataError, match=re.escape(problem)):
        load(tmp_path / name)
