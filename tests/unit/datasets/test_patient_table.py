"""Metadata of images that are predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from naevus.datasets.dataset import make_table
from naevus.datasets.layouts import load, report_unread
from naevus.datasets.patient_table import PatientTable
from naevus.datasets.sources import find_images
from naevus.errors import ConfigError, DataError
from naevus.evaluation.patient import PatientModel
from naevus.images.preprocess import ImageFiles
from naevus.images.read import write_png
from naevus.inference.inputs import counts_of
from naevus.types import Patient
from tests.helpers.layouts import Warned, text
from tests.helpers.onnx_graphs import PATIENT

ARCHIVE = "isic_id,age_approx,sex,anatom_site_general,fitzpatrick_skin_type,image_type,dx"
HAM = "image_id,age,sex,localization,dx_type"


def metadata(tmp_path: Path, *lines: str) -> PatientTable:
    text(tmp_path / "metadata.csv", *lines)
    return PatientTable.read(tmp_path / "metadata.csv")


def test_metadata_are_read_under_the_archive_s_and_ham10000_s_names(tmp_path: Path) -> None:
    archive = metadata(tmp_path, ARCHIVE, "a,50,Male,head/neck,iii,dermoscopic,nv", "b,,,,,,")
    assert archive.patient("a") == Patient(50.0, "male", "head/neck")
    assert archive.patient("b") == archive.patient("absent") == Patient()
    assert archive.columns == ("age", "sex", "site", "fitzpatrick_skin_type", "image_type")
    assert archive.values("a")["fitzpatrick_skin_type"] == "III"
    assert archive.ignored == ("dx",)
    ham = metadata(tmp_path, HAM, "photos/a.JPG,55.0,f,Abdomen,histo", "b,unknown,unknown,unknown,")
    assert ham.patient("a") == Patient(55.0, "female", "abdomen")
    assert ham.patient("b") == Patient()
    assert ham.ignored == ("dx_type",)


def test_rows_of_one_image_are_joined_unless_they_differ(tmp_path: Path) -> None:
    same = metadata(tmp_path, "image,age,sex", "a,50,", "a.jpg,50.0,male")
    assert same.patient("a") == Patient(50.0, "male")
    with pytest.raises(
        DataError, match=r"metadata.csv: a stands twice, with the age 50.0 and 60.0"
    ):
        metadata(tmp_path, "image,age", "a,50", "a,60")


def test_ids_may_have_the_suffix_of_their_file(tmp_path: Path) -> None:
    table = metadata(tmp_path, "image_id,age", "a.jpg,1", "b__1.jpg,2", "b__1.png,3", "c,4")
    for image_id, age in (("a", 1), ("a.jpg", 1), ("b__1.jpg", 2), ("b__1.png", 3), ("c", 4)):
        assert table.patient(image_id).age == age
    # Which of the two, or whether the row is of this file, is not known.
    assert table.key_of("b__1") is None
    assert table.key_of("c.jpg") is None


NAMED: dict[str, tuple[str, str, list[str]]] = {
    "beside the table": (".", "photos", ["anna/1.png", "./bert/1.png", "bert/2.png"]),
    "below the table": ("..", "photos", ["photos/anna/1.png", "photos/bert//1.png", "2"]),
    "above the table": ("deep", "photos", ["../anna/1.png", "../bert/./1.png", "../bert/2.png"]),
    "absolute": ("..", "photos", ["{}/anna/1.png", "{}/bert/1.png", "2.png"]),
    "one folder of several": ("..", "photos/bert", [
        "photos/anna/1.png", "photos/bert/1.png", "photos/bert/2.png"]),
    "elsewhere": ("../..", "photos", [r"C:\old\anna\1.png", r"C:\old\bert\1.png", "2"]),
    "one with its folder": (".", "photos", ["0", "bert/1.png", "bert/2.png"]),
}  # fmt: skip


@pytest.mark.parametrize("column", ["path", "image_id", "file"])
@pytest.mark.parametrize("named", NAMED)
def test_files_of_one_name_in_several_folders_are_several_images(
    tmp_path: Path, column: str, named: str
) -> None:
    place, predicted, names = NAMED[named]
    for file in ("anna/1.png", "bert/1.png", "bert/2.png"):
        write_png(tmp_path / "a" / "photos" / file, np.zeros((2, 2, 3), np.uint8))
    photos = tmp_path / "a" / "photos"
    rows = [
        name.format(photos) + age for name, age in zip(names, (",81", ",20", ",5"), strict=True)
    ]
    (photos / place).mkdir(exist_ok=True)
    table = metadata(photos / place, f"{column},age", *rows)
    sources = find_images([tmp_path / "a" / predicted]).sources
    found = {each.path.parent.name + each.path.stem: each.image_id for each in sources}
    own = table.for_files(sources)
    ages = {file: own.patient(image_id).age for file, image_id in found.items()}
    expected = {"anna1": 81, "bert1": 20, "bert2": 5}
    if named == "one with its folder":
        del expected["anna1"]
    assert ages == {file: expected.get(file) for file in found}
    assert own.other_files(sources) == {}


@pytest.mark.parametrize(
    ("files", "names", "ages"),
    [
        (("Anna.jpg", "anna.jpg"), ("Anna.jpg", "anna.jpg"), (1, 2)),
        (("Anna.jpg", "anna.jpg"), ("anna", "Anna"), (2, 1)),
        (("a/p.jpg", "a/p.png", "b.jpg"), ("p.png", "p.jpg", "b"), (2, 1, 3)),
        (("a/p.jpg", "a/p.png", "b.jpg"), ("p",), (None, None, None)),  # of either file
        (("a/p.jpg", "b/p.jpg"), ("p.jpg",), (None, None)),
        (("a/p.jpg", "b/P.png"), ("p.jpg", "c"), (1, None)),
    ],
)
def test_rows_are_of_the_file_of_their_very_name(
    tmp_path: Path, files: tuple[str, ...], names: tuple[str, ...], ages: tuple[int | None, ...]
) -> None:
    for file in files:
        (tmp_path / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / file).touch()
    sources = find_images([tmp_path / "photos"]).sources
    assert len(sources) == len(files)
    rows = [f"{name},{number}" for number, name in enumerate(names, 1)]
    own = metadata(tmp_path, "image,age", *rows).for_files(sources)
    ids = {each.path.relative_to(tmp_path / "photos").as_posix(): each.image_id for each in sources}
    assert tuple(own.patient(ids[file]).age for file in files) == ages


def test_an_id_comes_before_the_file_name_of_another_image(tmp_path: Path) -> None:
    own = metadata(tmp_path, "image,age", "p,5").for_files(
        [ImageFiles("p", tmp_path / "q.jpg"), ImageFiles("q", tmp_path / "p.jpg")]
    )
    assert (own.patient("p").age, own.patient("q").age) == (5, None)


def test_rows_that_name_another_file_are_known(tmp_path: Path) -> None:
    for place in ("anna/1.jpg", "zoe/1.jpg", "zoe/2.jpg"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "linked").symlink_to("anna")
    table = metadata(tmp_path, "path,age", "anna/1.jpg,81", "gone/2.jpg,30", "3.jpg,5")
    for image_id, place, other in (
        ("1", "zoe/1.jpg", True),
        ("1", "anna/1.jpg", False),
        ("1", "linked/1.jpg", False),
        ("2", "zoe/2.jpg", False),  # what the row names is not there
    ):
        found = table.other_files([ImageFiles(image_id, tmp_path / place)])
        assert found == ({"1": str(tmp_path / "anna/1.jpg")} if other else {})
    assert table.other_files([ImageFiles("1", Path("s3://bucket/1.jpg"))])


@pytest.mark.parametrize("age", ["55", "55.0", "55,0", " 55 "])
def test_ages_are_years(tmp_path: Path, age: str) -> None:
    assert metadata(tmp_path, "image;age", f"a;{age}").patient("a").age == 55


@pytest.mark.parametrize("age", ["400", "-1", "120.5", "old", "50-55", "inf", "about 60"])
def test_other_ages_are_unknown_and_reported_as_in_a_data_set(tmp_path: Path, age: str) -> None:
    table = metadata(tmp_path, "image,age,sex", f"a,{age},f", "b,unknown,m", "c,,m", "d,60,m")
    assert table.patient("a") == Patient(None, "female", None)
    assert [table.patient(name).age for name in "bcd"] == [None, None, 60]
    assert table.not_ages == (("a", age),)
    (tmp_path / "metadata.csv").rename(tmp_path / "labels.csv")
    for name in "abcd":
        write_png(tmp_path / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    dataset = load(tmp_path)
    ages = dataset.table.set_index("image_id")["age"]
    assert ages.fillna(-1).to_dict() == {"a": -1, "b": -1, "c": -1, "d": 60}
    assert [(each.subject, each.detail) for each in dataset.problems] == [("a", age)]
    counts = counts_of(table, PatientModel.from_dict(PATIENT), list("abcd"))
    sentence = f"ages that are not years from 0 to 120 count as unknown: {age} (a)"
    assert f"metadata: {sentence}" in counts.lines()
    reporter = Warned()
    report_unread(dataset, reporter)
    assert reporter.lines == [f"note: {sentence}"]


def test_ids_of_lesions_and_patients_are_kept(tmp_path: Path) -> None:
    table = metadata(tmp_path, "image,age,lesion_id,patient_id", "a,50,L1,P 7", "b,50,unknown,")
    assert table.columns == ("age", "lesion_id", "patient_id")
    assert table.values("a") == {"age": 50, "lesion_id": "L1", "patient_id": "P 7"}
    assert table.values("b") == {"age": 50, "lesion_id": None, "patient_id": None}
    assert table.lesions_of(["a", "b"]) == {"a": "L1"}
    assert table.ignored == ()


def test_what_a_data_set_knows_is_kept_without_effect() -> None:
    rows = pd.DataFrame(
        {"image_id": ["a", "a", "b"], "age": [None, 50.0, None], "lesion_id": ["L1", None, "L2"]}
    )
    table = PatientTable.kept(make_table(rows.assign(part=["task1", "task3", "task3"])))
    assert table is not None
    assert table.columns == ("age", "lesion_id")
    assert table.values("a") == {"age": 50.0, "lesion_id": "L1"}
    assert table.values("b") == {"age": None, "lesion_id": "L2"}
    assert not table.has_patients
    assert table.sha256() != PatientTable(table.columns, table.rows).sha256()
    assert PatientTable.kept(make_table(pd.DataFrame({"image_id": ["a"]}))) is None


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("number,age", "no column names the images"),
        ("image,diagnosis", "has no age, sex or site"),
        ("image,fitzpatrick_skin_type", "has no age, sex or site"),
    ],
)
def test_tables_without_ids_or_values_are_refused(
    tmp_path: Path, header: str, problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        metadata(tmp_path, header, "a,50")


def test_a_mapping_is_one_patient_or_one_of_each_image() -> None:
    one = PatientTable.from_mapping({"age": 55, "sex": "Male", "site": None})
    assert one.patient("a") == one.patient("b") == Patient(55.0, "male", None)
    several = PatientTable.from_mapping({"a": {"age": 30}, "b": {"site": "back"}})
    assert several.patient("a") == Patient(30.0)
    assert several.patient("b") == Patient(site="back")
    assert several.patient("c") == Patient()
    frame = pd.DataFrame({"image_id": ["a", "b"], "age": [30.0, None], "site": [None, "back"]})
    assert PatientTable.of(frame).patient("b") == several.patient("b")


@pytest.mark.parametrize("given", [{}, {"ages": 5}, {"a": {"height": 180}}, {"a": {}}])
def test_unknown_names_of_a_mapping_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(DataError, match="use age, sex, site"):
        PatientTable.from_mapping(given)


def test_the_hash_is_of_the_values_not_of_their_order() -> None:
    rows = {"a": (50.0,), "b": (60.0,)}
    first = PatientTable(("age",), rows).sha256()
    assert PatientTable(("age",), dict(reversed(rows.items())), ignored=("dx",)).sha256() == first
    assert PatientTable(("age",), {**rows, "b": (61.0,)}).sha256() != first
    assert PatientTable(("sex",), rows).sha256() != first


@pytest.mark.parametrize("name", ["mm_per_pixel", "MM per pixel"])
def test_a_scale_alone_makes_a_table(tmp_path: Path, name: str) -> None:
    table = metadata(tmp_path, f"image,{name}", "a,0.012", 'b,"0,02"', "c,")
    assert [table.mm_per_pixel(each) for each in "abcd"] == [0.012, 0.02, None, None]
    assert (table.has_scale, table.has_patients, table.ignored) == (True, False, ())
    assert table.values("a") == {}
    assert table.patient("a") == Patient()


def test_scales_stand_beside_the_patient_s_data(tmp_path: Path) -> None:
    table = metadata(tmp_path, "image,age,mm_per_pixel", "a,50,0.01", "b,60,")
    assert table.has_patients
    assert table.values("a") == {"age": 50.0}
    assert (table.mm_per_pixel("a"), table.mm_per_pixel("b")) == (0.01, None)
    assert not metadata(tmp_path, "image,age", "a,50").has_scale


@pytest.mark.parametrize("scale", ["0", "-0.01", "1.5", "12 um", "inf"])
def test_impossible_scales_are_refused_in_one_line(tmp_path: Path, scale: str) -> None:
    with pytest.raises(DataError, match=r"metadata.csv: a: .*scale.*; give millimetres") as caught:
        metadata(tmp_path, "image,mm_per_pixel", f"a,{scale}")
    assert "\n" not in str(caught.value)


def test_two_scales_of_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a stands twice, with the scales 0\.01 and 0\.02"):
        metadata(tmp_path, "image,mm_per_pixel", "a,0.01", "a,0.02")
    assert metadata(tmp_path, "image,mm_per_pixel", "a,0.01", "a,").mm_per_pixel("a") == 0.01


def test_one_scale_for_all_images() -> None:
    table = PatientTable(()).with_scale(0.02)
    assert (table.mm_per_pixel("any"), table.has_patients) == (0.02, False)
    given = PatientTable.from_mapping({"mm_per_pixel": 0.02, "age": 50})
    assert (given.mm_per_pixel("any"), given.patient("any").age) == (0.02, 50.0)
    several = PatientTable.from_mapping({"a": {"mm_per_pixel": 0.02}, "b": {"mm_per_pixel": 0.03}})
    assert [several.mm_per_pixel(each) for each in "abc"] == [0.02, 0.03, None]
    with pytest.raises(ConfigError, match="the scale is given twice"):
        given.with_scale(0.01)
    with pytest.raises(DataError, match="impossible"):
        PatientTable(()).with_scale(2)


def test_the_hash_is_of_the_scales_too() -> None:
    hashes = {
        PatientTable(()).sha256(),
        PatientTable((), scale=0.01).sha256(),
        PatientTable((), scale=0.02).sha256(),
        PatientTable((), {"a": ()}, scales={"a": 0.01}).sha256(),
        PatientTable((), {"a": ()}, scales={"a": 0.02}).sha256(),
    }
    assert len(hashes) == 5
