"""Layouts: each reader on a tiny folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from naevus.datasets.dataset import COLUMNS, SPLITS
from naevus.datasets.layouts import NOT_READ, load
from naevus.errors import DataError
from naevus.taxonomy import ATTRIBUTES
from tests.helpers.attribute_images import INPUT, TRUTH, write_task2
from tests.helpers.layouts import files, kinds, row, text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    files(tmp_path / "ISIC2018_Task1-2_Training_Input", "ISIC_1.jpg", "ISIC_2.jpg", "LICENSE.txt")
    files(tmp_path / "ISIC2018_Task1_Training_GroundTruth", "ISIC_1_segmentation.png")
    files(tmp_path / "ISIC2018_Task1-2_Test_Input", "ISIC_3.jpg")
    files(tmp_path / "ISIC2018_Task3_Training_Input", "ISIC_5.jpg", "ISIC_6.jpg", "ISIC_7.jpg")
    files(tmp_path / "ISIC2018_Task3_Training_Input_sharp", "ISIC_5.jpg", "ISIC_99.jpg")
    files(tmp_path / "ISIC2018_Task3_Validation_Input", "ISIC_8.jpg")
    truth = tmp_path / "ISIC2018_Task3_Training_GroundTruth"
    text(
        truth / "ISIC2018_Task3_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
        "ISIC_6,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_5,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
        "ISIC_4,1.0,0.0,0.0,0.0,0.0,0.0,0.0",
    )
    text(
        tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_5,HAM_1,histopathology",
        "ISIC_6,HAM_1,serial imaging showing no change",
    )
    return tmp_path


def test_isic2018_joins_by_id(challenge: Path) -> None:
    dataset = load(challenge)
    assert dataset.layout == "isic2018"
    assert dataset.parts == ("task1", "task3")
    assert dataset.part("task3").ids == ["ISIC_4", "ISIC_5", "ISIC_6", "ISIC_7", "ISIC_8"]
    five = row(dataset, "ISIC_5")
    assert five["diagnosis"] == "VASC"
    assert five["lesion_id"] == five["group_id"] == "HAM_1"
    assert five["path"] == str(challenge / "ISIC2018_Task3_Training_Input" / "ISIC_5.jpg")
    assert row(dataset, "ISIC_6")["confirmation"] == "follow-up"
    assert row(dataset, "ISIC_7")["group_id"] == "ISIC_7"
    assert pd.isna(row(dataset, "ISIC_7")["diagnosis"])


def test_isic2018_splits_and_masks(challenge: Path) -> None:
    dataset = load(challenge)
    assert dataset.split("validation").ids == ["ISIC_8"]
    assert dataset.split("test").ids == ["ISIC_3"]
    assert dataset.with_masks().ids == ["ISIC_1"]


def test_isic2018_lists_its_problems(challenge: Path) -> None:
    assert kinds(load(challenge)) == {
        "image without mask": ["ISIC_2"],
        "row without image": ["ISIC_4"],
        "image without row": ["ISIC_7"],
    }


def test_isic2018_takes_lesions_from_ham10000_metadata(challenge: Path) -> None:
    files(challenge / "HAM10000_segmentations_lesion_tschandl", "ISIC_7_segmentation.png")
    files(challenge / "HAM10000_segmentations_lesion_tschandl", "ISIC_77_segmentation.png")
    text(
        challenge / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        "HAM_9,ISIC_7,bkl,histo,80.0,unknown,scalp",
        "HAM_9,ISIC_5,mel,histo,,male,Back",
    )
    dataset = load(challenge)
    seven, five = row(dataset, "ISIC_7"), row(dataset, "ISIC_5")
    assert (seven["diagnosis"], seven["age"], seven["site"]) == ("BKL", 80.0, "scalp")
    assert pd.isna(seven["sex"])
    assert seven["mask_path"].endswith("ISIC_7_segmentation.png")
    assert (five["diagnosis"], five["lesion_id"]) == ("VASC", "HAM_1")  # the challenge's own
    assert kinds(dataset)["mask without image"] == ["ISIC_77"]


def test_isic2018_labels_without_images_are_one_problem(tmp_path: Path) -> None:
    files(tmp_path / "ISIC2018_Task1_Training_GroundTruth", *(f"I{k}.png" for k in range(9)))
    dataset = load(tmp_path)
    assert len(dataset) == 9
    assert len(dataset.images()) == 0
    assert kinds(dataset) == {"folder without images": ["task1 train"]}


def test_isic2018_id_in_both_tasks(challenge: Path) -> None:
    files(challenge / "ISIC2018_Task1-2_Training_Input", "ISIC_5.jpg")
    dataset = load(challenge)
    assert kinds(dataset)["id in both tasks"] == ["ISIC_5"]
    assert dataset.part("task1").ids.count("ISIC_5") == 1


def test_isic2018_unpacked_into_its_own_folder(tmp_path: Path) -> None:
    name = "ISIC2018_Task3_Test_Input"
    files(tmp_path / name / name, "ISIC_1.JPG", "._ISIC_1.jpg", "ISIC_1_superpixels.png")
    assert load(tmp_path).ids == ["ISIC_1"]


def test_two_files_of_one_id(tmp_path: Path) -> None:
    files(tmp_path / "ISIC2018_Task3_Test_Input", "ISIC_1.jpg", "ISIC_1.png")
    dataset = load(tmp_path)
    assert row(dataset, "ISIC_1")["path"].endswith(".jpg")
    assert kinds(dataset) == {"two files of one id": ["ISIC_1"]}


def test_labels_without_exactly_one_diagnosis(challenge: Path) -> None:
    path = challenge / "ISIC2018_Task3_Training_GroundTruth"
    with (path / "ISIC2018_Task3_Training_GroundTruth.csv").open("a") as stream:
        stream.write("ISIC_7,1.0,1.0,0,0,0,0,0\nISIC_6,1.0,0,0,0,0,0,0\n")
    dataset = load(challenge)
    assert pd.isna(row(dataset, "ISIC_7")["diagnosis"])
    assert row(dataset, "ISIC_6")["diagnosis"] == "NV"
    assert kinds(dataset)["row without one diagnosis"] == ["ISIC_7"]
    assert kinds(dataset)["two rows of one id"] == ["ISIC_6"]


def test_groups_are_joined_with_lesions(challenge: Path) -> None:
    text(
        challenge / "Anything_Groups.csv",
        "image,group_id,diagnosis",
        "ISIC_1,G,MEL",
        "ISIC_2,G,",
        "ISIC_5,H,NV",
        "ISIC_404,G,NV",
    )
    dataset = load(challenge)
    assert row(dataset, "ISIC_1")["group_id"] == row(dataset, "ISIC_2")["group_id"] == "G"
    assert row(dataset, "ISIC_1")["diagnosis"] == "MEL"
    assert pd.isna(row(dataset, "ISIC_2")["diagnosis"])
    assert row(dataset, "ISIC_5")["group_id"] == "H"
    assert row(dataset, "ISIC_5")["diagnosis"] == "VASC"
    assert row(dataset, "ISIC_6")["group_id"] == "H"  # of one lesion with ISIC_5
    assert "Anything_Groups.csv" in kinds(dataset)["row without image"]


def test_groups_that_contradict_themselves(challenge: Path) -> None:
    text(challenge / "My_Groups.csv", "image,group_id", "ISIC_1,G", "ISIC_1,H")
    with pytest.raises(DataError, match=r"My_Groups.csv: ISIC_1 has two groups"):
        load(challenge)


def test_ham10000_is_read_with_lesions_and_masks(tmp_path: Path) -> None:
    files(tmp_path / "HAM10000_images_part_1", "ISIC_1.jpg")
    files(tmp_path / "HAM10000_images_part_2", "ISIC_2.jpg", "ISIC_9.jpg")
    files(tmp_path / "HAM10000_segmentations_lesion_tschandl", "ISIC_2_segmentation.png")
    text(
        tmp_path / "HAM10000_metadata.tab",
        "lesion_id\timage_id\tdx\tdx_type\tage\tsex\tlocalization",
        "HAM_1\tISIC_1\tnv\tfollow_up\t45.0\tfemale\tback",
        "HAM_1\tISIC_2\tnv\tfollow_up\t45.0\tfemale\tback",
        "HAM_3\tISIC_3\takiec\thisto\t\tmale\tface",
    )
    dataset = load(tmp_path)
    assert dataset.layout == "ham10000"
    assert dataset.ids == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_9"]
    assert dataset.with_masks().ids == ["ISIC_2"]
    assert row(dataset, "ISIC_2")["group_id"] == "HAM_1"
    assert row(dataset, "ISIC_1")["confirmation"] == "follow-up"
    assert kinds(dataset) == {"row without image": ["ISIC_3"], "image without row": ["ISIC_9"]}


def test_archive_levels_give_diagnoses(tmp_path: Path) -> None:
    files(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg", "ISIC_4.jpg")
    text(
        tmp_path / "metadata.csv",
        "isic_id,age_approx,sex,lesion_id,patient_id,diagnosis_1,diagnosis_2,diagnosis_3",
        'ISIC_1,50,female,IL_1,IP_1,Malignant,,"Melanoma, NOS"',
        "ISIC_2,,male,,IP_2,Benign,,Nevus",
        "ISIC_3,30,male,,IP_2,Benign,,Verruca",
        "ISIC_5,30,male,,,Indeterminate,,Solar or actinic keratosis",
    )
    dataset = load(tmp_path)
    assert dataset.layout == "archive"
    assert dataset.taxonomy.name == "isic2018"
    assert row(dataset, "ISIC_1")["diagnosis"] == "MEL"
    assert row(dataset, "ISIC_1")["group_id"] == "IL_1"
    assert row(dataset, "ISIC_2")["group_id"] == row(dataset, "ISIC_3")["group_id"] == "IP_2"
    assert row(dataset, "ISIC_5")["diagnosis"] == "AKIEC"
    assert kinds(dataset) == {
        "unknown diagnosis": ["Verruca"],
        "image without row": ["ISIC_4"],
        "row without image": ["ISIC_5"],
    }


def test_archive_without_levels_is_benign_or_malignant(tmp_path: Path) -> None:
    files(tmp_path / "images", "ISIC_1.jpg", "ISIC_2.jpg")
    text(
        tmp_path / "metadata.csv",
        "isic_id,benign_malignant",
        "ISIC_1,malignant",
        "ISIC_2,benign",
    )
    dataset = load(tmp_path)
    assert dataset.taxonomy.name == "binary"
    assert dataset.table["diagnosis"].tolist() == ["MALIGNANT", "BENIGN"]


@pytest.mark.parametrize("names", [("NV", "MEL"), ("nevus", "melanoma")])
def test_class_folders_give_diagnoses(tmp_path: Path, names: tuple[str, str]) -> None:
    files(tmp_path / "train" / names[0], "a.jpg", "same.jpg")
    files(tmp_path / "train" / names[1], "b.jpg", "same.jpg")
    files(tmp_path / "val" / names[1], "c.png")
    dataset = load(tmp_path)
    assert dataset.layout == "classfolders"
    assert row(dataset, "a")["diagnosis"] == "NV"
    assert row(dataset, "c")["split"] == "validation"
    assert row(dataset, f"train__{names[1]}__same")["diagnosis"] == "MEL"
    assert kinds(dataset) == {"one name in several folders": ["same"]}


def test_class_folders_of_isic2019_use_its_taxonomy(tmp_path: Path) -> None:
    files(tmp_path / "SCC", "a.jpg")
    files(tmp_path / "AK", "b.jpg")
    files(tmp_path / "NV", "c.jpg")
    dataset = load(tmp_path)
    assert dataset.taxonomy.name == "isic2019"
    assert dataset.table["diagnosis"].tolist() == ["SCC", "AK", "NV"]


def test_a_manifest_is_read_with_its_columns(tmp_path: Path) -> None:
    files(tmp_path / "images", "a.jpg", "b.jpg", "b_mask.png")
    path = tmp_path / "list.csv"
    text(
        path,
        "path,mask,diagnosis,lesion_id,split,age,sex",
        "images/a.jpg,,nv,L1,train,61,male",
        f"{tmp_path / 'images' / 'b.jpg'},images/b_mask.png,mel,L1,test,,",
        "images/c.jpg,,mel,,train,,",
    )
    dataset = load(path)
    assert dataset.layout == "manifest"
    assert dataset.ids == ["a", "b", "c"]
    assert dataset.with_masks().ids == ["b"]
    assert dataset.images().ids == ["a", "b"]
    assert dataset.split("test").ids == ["b"]
    assert row(dataset, "a")["age"] == 61.0
    assert kinds(dataset) == {"row without image": ["c"]}


def test_a_manifest_comes_before_other_layouts(challenge: Path) -> None:
    text(challenge / "manifest.csv", "image_id,path", "x,ISIC2018_Task3_Training_Input/ISIC_5.jpg")
    assert load(challenge).ids == ["x"]
    assert load(challenge, "isic2018").layout == "isic2018"


@pytest.mark.parametrize(
    ("line", "message"),
    [("a,a.jpg,dusk", "unknown split 'dusk'"), (",,train", "1 rows have no image id")],
)
def test_a_manifest_with_wrong_values_is_refused(tmp_path: Path, line: str, message: str) -> None:
    text(tmp_path / "manifest.csv", "image_id,path,split", line)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_manifest_reads_values_as_other_tables_do(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "b.jpg")
    text(
        tmp_path / "manifest.csv",
        "Pfad;MEL;NV;Alter;Geschlecht;partition;age_group;hauttyp",
        "a.jpg;1,0;0,0;45,5;w;val;old;3",
        "b.jpg;0;1;;;;young;",
    )
    dataset = load(tmp_path)
    first = row(dataset, "a")
    assert first["diagnosis"] == "MEL"
    assert (first["age"], first["sex"], first["fitzpatrick_skin_type"]) == (45.5, "female", "III")
    assert dataset.split("validation").ids == ["a"]
    assert dataset.table["diagnosis"].tolist() == ["MEL", "NV"]
    assert kinds(dataset) == {"ignored columns": ["manifest.csv"]}
    assert dataset.problems[0].detail == "age_group"


def test_a_manifest_with_an_id_twice_is_refused(tmp_path: Path) -> None:
    text(tmp_path / "manifest.csv", "path,image_id", "x/a.jpg,a", "y/a.jpg,a")
    with pytest.raises(DataError, match="image id a occurs in 2 rows"):
        load(tmp_path)
    text(tmp_path / "manifest.csv", "path", "x/a.jpg", "y\\a.jpg")
    assert load(tmp_path).ids == ["x__a", "y__a"]


def test_a_folder_that_fits_no_layout_is_refused(tmp_path: Path) -> None:
    text(tmp_path / "labels.csv", "holiday,place", "1.jpg,Rome")
    with pytest.raises(DataError, match=r"isic2018.*ham10000.*archive.*classfolders"):
        load(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "absent")
    with pytest.raises(DataError, match="unknown layout 'png'"):
        load(tmp_path, "png")


def test_a_file_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe\x00path\x81")
    with pytest.raises(DataError, match=r"x\.csv"):
        load(path)


def test_every_column_has_its_type(challenge: Path) -> None:
    table = load(challenge).table
    assert tuple(table.columns) == COLUMNS
    assert {str(kind) for name, kind in table.dtypes.items() if name != "age"} == {"string"}
    assert str(table["age"].dtype) == "Float64"
    assert set(table["split"]) <= set(SPLITS)


def test_the_real_isic2018_has_its_known_counts(shared_data: Path) -> None:
    dataset = load(shared_data / "isic2018")
    assert dataset.problems == ()
    assert len(dataset.part("task1").with_masks()) == 2194
    task3 = dataset.part("task3")
    assert (len(task3.images()), len(task3.with_masks())) == (10_014, 10_010)
    assert task3.table["diagnosis"].value_counts().to_dict() == {
        "NV": 6704, "MEL": 1113, "BKL": 1099, "BCC": 514, "AKIEC": 327, "VASC": 142, "DF": 115,
    }  # fmt: skip
    assert task3.table["group_id"].nunique() == 7469
    assert "ISIC_0024777" not in dataset.ids


@pytest.mark.parametrize(
    ("image_id", "problem"),
    [
        ("../../../x", "a path separator"),
        ("a/b", "a path separator"),
        ("..\\x", "a path separator"),
        (".hidden", "starts with a dot"),
        ('"two\nlines"', "line break"),
        ("bell\x07", "control character"),
        ("x" * 201, "has 201 bytes"),
        ("ä" * 101, "has 202 bytes"),
    ],
)
def test_an_id_that_cannot_name_files_is_refused(
    tmp_path: Path, image_id: str, problem: str
) -> None:
    files(tmp_path, "1.jpg")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"image_id,path\n{image_id},1.jpg\n")
    with pytest.raises(DataError, match=problem):
        load(manifest)


def test_files_that_are_not_images_are_counted_by_kind(tmp_path: Path) -> None:
    files(tmp_path / "nevus", "a.jpg")
    files(tmp_path / "melanoma", "b.jpg")
    assert load(tmp_path).problems == ()
    files(tmp_path / "nevus", "c.dcm", "d.DCM", "notes.txt")
    files(tmp_path / "melanoma", "e.cr2", "list.csv")
    (problem,) = load(tmp_path).problems
    assert problem.kind == NOT_READ
    assert problem.detail.startswith("1 .cr2, 2 .dcm: ")


def test_attribute_masks_are_joined_by_id_and_the_last_version_is_used(tmp_path: Path) -> None:
    write_task2(tmp_path, 4)
    older = tmp_path / "ISIC2018_Task2_Training_GroundTruth"
    shutil.copytree(tmp_path / TRUTH, older)
    (tmp_path / TRUTH / "ISIC_0000001_attribute_streaks.png").unlink()
    (tmp_path / TRUTH / "ISIC_0000002_attribute_rosettes.png").touch()
    (tmp_path / TRUTH / "ISIC_0000009_attribute_streaks.png").touch()
    dataset = load(tmp_path)
    assert dataset.layout == "isic2018"
    assert dataset.parts == ("task1",)
    rows = {row.image_id: row for row in dataset.rows()}
    assert len(rows["ISIC_0000000"].attributes) == 5
    assert rows["ISIC_0000000"].attributes["streaks"].parent.name == TRUTH
    assert sorted(rows["ISIC_0000001"].attributes) == sorted(set(ATTRIBUTES) - {"streaks"})
    assert {(problem.kind, problem.subject) for problem in dataset.problems} == {
        ("older masks", older.name),
        ("image without attribute", "ISIC_0000001"),
        ("unknown attribute", "ISIC_0000002"),
        ("mask without image", "ISIC_0000009"),
    }
    assert len(dataset.with_attributes()) == 4
    assert not len(dataset.with_masks())


def test_a_manifest_may_have_attribute_masks(tmp_path: Path) -> None:
    write_task2(tmp_path / "data", 2)
    name = "ISIC_0000000"
    lines = [
        "path,attribute_streaks,attribute_globules",
        f"data/{INPUT}/{name}.png,data/{TRUTH}/{name}_attribute_streaks.png,data/absent.png",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    dataset = load(tmp_path)
    (row,) = dataset.rows()
    assert list(row.attributes) == ["streaks"]
    assert [problem.kind for problem in dataset.problems] == ["row without mask"]
