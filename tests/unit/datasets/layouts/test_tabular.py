"""Tables as spreadsheets write them, and their diagnoses."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import pandas as pd
import pytest

from naevus.datasets.dataset import make_table
from naevus.datasets.layouts import load
from naevus.datasets.sources import find_images
from naevus.errors import DataError
from naevus.io.formats import COLUMN_NAMES, known_columns, read_table
from tests.helpers.layouts import files, kinds, row, text

ROWS = ("Bild;Diagnose;Läsion;Patient ID", "bilder\\a.JPG; Melanom ;0;P0", "b.jpg;Nävus;1;P0")
ENCODINGS = {
    "utf-8": lambda content: content.encode(),
    "utf-8 with mark": lambda content: codecs.BOM_UTF8 + content.encode(),
    "utf-16": lambda content: content.encode("utf-16"),
    "utf-16 without mark": lambda content: content.encode("utf-16-le"),
    "utf-16 big end": lambda content: codecs.BOM_UTF16_BE + content.encode("utf-16-be"),
    "latin-1": lambda content: content.encode("latin-1"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_of_every_encoding_are_read_identically(tmp_path: Path, encoding: str) -> None:
    for end in ("\n", "\r\n", "\r"):
        for separator in (";", ",", "\t", "|"):
            content = end.join(ROWS).replace(";", separator) + end
            (tmp_path / "t.csv").write_bytes(ENCODINGS[encoding](content))
            table = read_table(tmp_path / "t.csv", required=("image_id", "diagnosis"))
            assert known_columns(table) == {
                "image_id": "image_id",
                "diagnosis": "diagnosis",
                "lesion_id": "Läsion",
                "patient_id": "Patient ID",
            }
            assert table["diagnosis"].tolist() == ["Melanom", "Nävus"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "heading",
    ["id,age,age", "id; age;age ", "\n\nid\tage\tage", '"id","age","age"', "sep=|\nid|age|age"],
)
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, heading: str, end: str) -> None:
    path = tmp_path / "t.csv"
    separator = max(",;\t|", key=heading.count)
    text = f"{heading}\n{separator.join(('a', '55', '20'))}\n"
    path.write_bytes(text.replace("\n", end).encode())
    with pytest.raises(DataError, match="two columns are called 'age'"):
        read_table(path)


@pytest.mark.parametrize("text", ["3,3,5\n1,1,2\n", "x,x\n1,2\n", ";;;\n;;;\n", ",,\n1,1,2\n"])
def test_what_is_no_heading_may_repeat_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert read_table(path).columns.is_unique


def test_columns_without_a_name_or_with_a_number_stay(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,age,age.1, ,\na,55,20,1,2\n")
    table = read_table(path)
    assert (table["age"].tolist(), table["age.1"].tolist()) == (["55"], ["20"])


def test_damaged_tables_are_errors_that_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('sep=;\nIMAGE ;"dx"\n a ; nv \n;\n\nb;""\n')
    table = read_table(path, required=("image_id", "diagnosis"))
    assert table["image_id"].tolist() == ["a", "b"]
    assert table["diagnosis"].isna().tolist() == [False, True]
    path.write_text("Image,image\na,b\n")
    assert read_table(path)["Image"].tolist() == ["a"]
    path.write_text("image,image \na,b\n")
    with pytest.raises(DataError, match="two columns are called 'image'"):
        read_table(path)
    path.write_bytes(b"image\0,x\n1,2\n" * 40)
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as CSV"):
        read_table(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as CSV"):
        read_table(path)
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    with pytest.raises(DataError, match=r"t\.xlsx: cannot be read as a workbook"):
        read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("more", ["", " "])
def test_separators_at_the_end_of_each_row_are_harmless(
    tmp_path: Path, separator: str, more: str
) -> None:
    rows = ["image_id,diagnosis", f"a,MEL,{more}", f"b,NV,{more}"]
    text(tmp_path / "t.csv", *(line.replace(",", separator) for line in rows))
    assert read_table(tmp_path / "t.csv")["diagnosis"].tolist() == ["MEL", "NV"]


@pytest.mark.parametrize(
    "rows", [("a,x,MEL", "b,y,NV"), ("a,MEL,x", "b,NV,"), ("a,MEL,,x", "b,NV,,")]
)
def test_values_without_a_column_are_refused(tmp_path: Path, rows: tuple[str, ...]) -> None:
    text(tmp_path / "t.csv", "image_id,diagnosis", *rows)
    with pytest.raises(DataError, match="values for 2 columns"):
        read_table(tmp_path / "t.csv")


def test_workbooks_need_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"needs openpyxl; run pip install .*\[excel\]"):
        read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize("column", COLUMN_NAMES)
def test_every_column_is_found_under_every_name(column: str) -> None:
    for name in COLUMN_NAMES[column]:
        for spelled in (name, name.upper(), name.replace("_", " "), f" {name.title()} "):
            table = pd.DataFrame(columns=[spelled, "something"])
            assert column in known_columns(table), spelled


def test_a_workbook_of_labels(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    files(tmp_path / "Fotos", "1.jpg", "2.jpg", "3.JPEG")
    book = openpyxl.Workbook()
    book.active.append(["notes"])
    sheet = book.create_sheet("Tabelle2")
    for cells in ([], ["Sammlung 2023"], ["Datei", "Befund", "Alter"], [1, "Basaliom", 70.0],
                  [2, "Basalzellkarzinome", None], [3.0, "Aktinische Keratose", 61]):  # fmt: skip
        sheet.append(cells)
    book.save(tmp_path / "Befunde.xlsx")
    dataset = load(tmp_path)
    assert dataset.layout == "labels_table"
    assert dataset.table["diagnosis"].tolist() == ["BCC", "BCC", "AKIEC"]
    assert row(dataset, "3")["path"].endswith("3.JPEG")
    assert row(dataset, "1")["age"] == 70


def test_mostly_unknown_diagnoses_are_an_error(tmp_path: Path) -> None:
    files(tmp_path / "images", *(f"{k}.jpg" for k in range(6)))
    text(tmp_path / "labels.csv", "image_id,label", "0,mel", "1,foo", "2,foo", "3,bar", "4,", "5,?")
    with pytest.raises(
        DataError,
        match=r"labels.csv: most diagnoses are not understood: 'foo' \(2\), 'bar' \(1\); .*own",
    ):
        load(tmp_path)
    dataset = load(tmp_path, taxonomy="own")
    assert dataset.taxonomy.codes == ("bar", "foo", "mel")
    text(tmp_path / "labels.csv", "image_id,label", "0,mel", "1,nv", "2,foo", "3,nv", "4,", "5,")
    dataset = load(tmp_path)
    assert kinds(dataset)["unknown diagnosis"] == ["foo"]
    with pytest.raises(DataError, match="unknown taxonomy 'x'; use isic2018, isic2019, milk10k"):
        load(tmp_path, taxonomy="x")


@pytest.mark.parametrize("names", [("mel", "nv"), ("Melanoma", "nevi")])
@pytest.mark.parametrize("point", [".", ","])
def test_one_column_per_class_gives_diagnoses(
    tmp_path: Path, names: tuple[str, str], point: str
) -> None:
    files(tmp_path / "photos", "a.png", "b.png", "c.png")
    files(tmp_path / "Masken", "a_mask.png", "b.png")
    lines = (f"id;{names[0]};{names[1]};age", "a.png;1.0;0.0;4,5", "b.png;0;1;", "C.PNG;0;0;7")
    text(tmp_path / "any name.csv", *(line.replace(".0", f"{point}0") for line in lines))
    dataset = load(tmp_path)
    assert dataset.table["diagnosis"].fillna("none").tolist() == ["MEL", "NV", "none"]
    assert dataset.with_masks().ids == ["a", "b"]
    assert row(dataset, "a")["age"] == 4.5
    assert row(dataset, "c")["path"].endswith("c.png")
    assert kinds(dataset)["row without one diagnosis"] == ["C.PNG"]


def test_a_table_without_a_header(tmp_path: Path) -> None:
    files(tmp_path / "images", "a.jpg", "b.jpg")
    text(tmp_path / "labels.csv", "a.jpg,melanoma", "b.jpg,nevus")
    assert load(tmp_path).table["diagnosis"].tolist() == ["MEL", "NV"]


def test_a_table_that_names_other_images(tmp_path: Path) -> None:
    files(tmp_path / "images", "a.jpg")
    text(tmp_path / "labels.csv", "image,dx", "x,nv", "y,nv")
    dataset = load(tmp_path)
    assert kinds(dataset) == {"row without image": ["x", "y"], "image without row": ["a"]}
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"none of the images it names lies below .* first is x"):
        load(tmp_path)


def test_equal_names_in_two_folders_are_two_images(tmp_path: Path) -> None:
    for folder in ("clinic A", "clinic B"):
        files(tmp_path / folder, "1.jpg", f"{folder[-1]}2.jpg")
        files(tmp_path / "Masks", f"{folder[-1]}2.png")
    text(
        tmp_path / "labels.csv",
        "file;label;mask",
        "clinic A\\1.jpg;nevus;",
        "clinic B\\1.jpg;melanoma;",
        "clinic A\\A2.jpg;nevus;Masks\\A2.png",
        "clinic B\\B2.jpg;melanoma;Masks\\absent.png",
    )
    dataset = load(tmp_path)
    assert dict(zip(dataset.ids, dataset.table["diagnosis"], strict=True)) == {
        "A2": "NV",
        "B2": "MEL",
        "clinic A__1": "NV",
        "clinic B__1": "MEL",
    }
    assert row(dataset, "clinic B__1")["path"].endswith("clinic B/1.jpg")
    assert row(dataset, "A2")["mask_path"].endswith("Masks/A2.png")
    assert kinds(dataset)["row without mask"] == ["B2"]


@pytest.mark.parametrize(
    ("names", "rows", "diagnoses"),
    [
        (("p.jpg", "p.png"), ("p.png,nv", "p.jpg,mel"), {"p.jpg": "MEL", "p.png": "NV"}),
        (("p.jpg", "p.png", "q.jpg"), ("p.png,nv", "q,bcc"), {
            "p.jpg": None, "p.png": "NV", "q": "BCC"}),
        (("Anna.jpg", "anna.jpg"), ("anna.jpg,nv", "Anna.jpg,mel"), {
            "Anna__1": "MEL", "anna__2": "NV"}),
        (("Anna.jpg", "anna.jpg"), ("anna,nv",), {"Anna__1": None, "anna__2": "NV"}),
        (("a/p.jpg", "b/p.png"), ("p.png,nv", "p.jpg,mel"), {"a__p": "MEL", "b__p": "NV"}),
    ],
)  # fmt: skip
def test_exact_file_names_find_their_files(
    tmp_path: Path, names: tuple[str, ...], rows: tuple[str, ...], diagnoses: dict[str, str | None]
) -> None:
    for name in names:
        files((tmp_path / name).parent, Path(name).name)
    text(tmp_path / "labels.csv", "image,dx", *rows)
    dataset = load(tmp_path)
    found = {each.image_id: (each.diagnosis, each.path) for each in dataset.rows()}
    assert {image_id: diagnosis for image_id, (diagnosis, _) in found.items()} == diagnoses
    predicted = {each.image_id: each.path for each in find_images([tmp_path]).sources}
    assert {image_id: path for image_id, (_, path) in found.items()} == predicted
    assert set(kinds(dataset)) <= {"image without row"}


def test_files_that_differ_in_case_keep_their_masks(tmp_path: Path) -> None:
    files(tmp_path / "images", "Anna.jpg", "anna.jpg", "p.jpg", "p.png")
    files(tmp_path / "masks", "Anna.png", "anna.png", "p.png")
    text(tmp_path / "labels.csv", "image,dx", "anna.jpg,nv", "Anna.jpg,mel", "p.jpg,nv")
    dataset = load(tmp_path)
    masks = {each.image_id: each.mask_path for each in dataset.with_masks().rows()}
    folder = tmp_path / "masks"
    assert masks == {"Anna__1": folder / "Anna.png", "anna__2": folder / "anna.png"}
    assert kinds(dataset)["mask without image"] == ["p"]  # of either file


def test_groups_are_joined() -> None:
    frame = pd.DataFrame(
        {
            "image_id": list("abcdefg"),
            "lesion_id": ["L1", "L1", "L2", None, None, "L3", None],
            "patient_id": [None, "P1", "P1", "P2", "P2", None, None],
            "group_id": [None, None, None, "G", None, "G", None],
        }
    )
    more = pd.Series(["other", "other"], index=["a", "g"], dtype="string")
    groups = make_table(frame, [more]).set_index("image_id")["group_id"].to_dict()
    assert groups["a"] == groups["b"] == groups["c"] == groups["g"] == "L1"
    assert groups["d"] == groups["e"] == groups["f"]
    assert groups["a"] != groups["d"]


def test_two_tables_that_name_two_lesions(tmp_path: Path) -> None:
    """As ISIC_0025226: HAM_0000140 in one table of HAM10000 and HAM_0004919 in the other."""
    names = ("ISIC_0025226", "ISIC_0000001", "ISIC_0000002")
    files(tmp_path / "ISIC2018_Task3_Training_Input", *(f"{name}.jpg" for name in names))
    text(
        tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_0025226,HAM_0000140,histopathology",
        "ISIC_0000001,HAM_0000140,histopathology",
        "ISIC_0000002,HAM_0004919,histopathology",
    )
    text(
        tmp_path / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        "HAM_0004919,ISIC_0025226,nv,histo,,,",
        "HAM_0000140,ISIC_0000001,nv,histo,,,",
        "HAM_0004919,ISIC_0000002,nv,histo,,,",
    )
    dataset = load(tmp_path)
    assert len(set(dataset.table["group_id"])) == 1
    assert row(dataset, "ISIC_0025226")["lesion_id"] == "HAM_0000140"


COLUMNS_OF_A_USER = [
    ("image,dx,age_group,notes", "a,nv,old,large", "age_group, notes"),
    ("image,dx", "a,nv", ""),
    ("image,dx,diagnosis,label", "a,nv,nv,nv", "dx, label"),
    ("image,MEL,NV,dx", "a,0,1,nv", "dx"),
    ("image,melanoma,age", "a,0,5", "melanoma"),
    ("image,dx,target,Größe", "a,nv,0,7", "Größe"),
]


@pytest.mark.parametrize(("heading", "line", "ignored"), COLUMNS_OF_A_USER)
def test_columns_that_are_not_used_are_named(
    tmp_path: Path, heading: str, line: str, ignored: str
) -> None:
    files(tmp_path, "a.jpg")
    text(tmp_path / "labels.csv", heading, line)
    found = [problem for problem in load(tmp_path).problems if problem.kind == "ignored columns"]
    assert [(problem.subject, problem.detail) for problem in found] == [
        ("labels.csv", ignored)
    ] * bool(ignored)


def test_unknown_patients_are_not_one_patient(tmp_path: Path) -> None:
    files(tmp_path, *(f"{k}.jpg" for k in range(6)))
    text(
        tmp_path / "labels.csv",
        "image,lesion_id,patient_id",
        *("0,L1,P1", "1,L2,P1", "2,L2,unknown", "3,n/a,Unknown", "4,-,unbekannt", "5,None,"),
    )
    table = load(tmp_path).table
    assert table["group_id"].tolist() == ["L1", "L1", "L1", "3", "4", "5"]
    assert table["lesion_id"].notna().tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("column", ["image", "path"])
@pytest.mark.parametrize("entry", ["holdout", "fold 1", "A"])
def test_splits_that_are_not_understood_are_refused(
    tmp_path: Path, entry: str, column: str
) -> None:
    files(tmp_path, "a.jpg", "b.jpg")
    table = tmp_path / "manifest.csv"
    text(table, f"{column},dx,split", "a.jpg,nv,Training", f"b.jpg,nv,{entry}")
    problem = f"{table}: the row of b.jpg has the unknown split '{entry}'; use one of train, valid"
    with pytest.raises(DataError, match=re.escape(problem)):
        load(tmp_path)


@pytest.mark.parametrize(
    "column", [name for name in COLUMN_NAMES if name not in {"image_id", "path", "lesion_id"}]
)
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_column_may_be_empty(tmp_path: Path, column: str, order: str) -> None:
    files(tmp_path, "a1.jpg", "b1.jpg", "c1.jpg")
    value = {"diagnosis": "melanoma", "benign_malignant": "malignant", "age": "55"}.get(
        column, "x" if column != "split" else "train"
    )
    text(tmp_path / f"{order[0]}.csv", f"image_id,{column},lesion", "a1,,l1")
    text(tmp_path / f"{order[1]}.csv", f"image_id,{column},lesion", f"b1,{value},l2", "a1,,l1")
    dataset = load(tmp_path)
    assert sorted(dataset.table["image_id"]) == ["a1", "b1", "c1"]


def test_malignancy_may_be_unknown_throughout(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "b.jpg")
    text(tmp_path / "t.csv", "image_id,benign_malignant", "a,indeterminate", "b,")
    assert load(tmp_path).table["diagnosis"].isna().all()
