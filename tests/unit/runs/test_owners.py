"""Lesions and patients of predictions, where the data set knows none."""

from __future__ import annotations

import pandas as pd
import pytest

from naevus.datasets.dataset import make_table
from naevus.runs.owners import with_owners

NOT_KNOWN = "{} of {} are from the predictions: the data set does not know them"
OTHERS = "{} of {} differ between the predictions and the data set: those of the data set hold"


def table_of(**columns: str) -> pd.DataFrame:
    """Images a, b, c ...; of each column a letter an image, ``.`` for none."""
    count = len(next(iter(columns.values())))
    values = {name: [None if one == "." else one for one in text] for name, text in columns.items()}
    return pd.DataFrame({"image_id": list("abcdefgh"[:count]), **values})


def of_data(**columns: str) -> pd.DataFrame:
    return make_table(table_of(**columns).assign(path="x.png"))


@pytest.mark.parametrize("lesions", ["LLMMN", "LL.M.", "L.L.L", "....."])
def test_lesions_of_predictions_are_as_those_of_a_data_set(lesions: str) -> None:
    known, bare = of_data(lesion_id=lesions), of_data(lesion_id=".....")
    found = with_owners(bare, table_of(lesion_id=lesions))
    for column in ("lesion_id", "group_id"):
        assert found.table[column].fillna("").tolist() == known[column].fillna("").tolist()
    count = len(lesions.replace(".", ""))
    assert found.notes == ((NOT_KNOWN.format("lesions", f"{count} images"),) if count else ())
    assert found.used == (("lesion_id",) if count else ())


@pytest.mark.parametrize(
    ("data", "predicted", "lesions", "groups", "notes"),
    [
        # Other names of the same lesions are no contradiction.
        ("LLMM", "xxyy", "LLMM", "LLMM", ()),
        # A lesion of the predictions that shares an image with one of the data set is that one.
        ("L..M", "xxyy", "LLMM", "LLMM", (NOT_KNOWN.format("lesions", "2 images"),)),
        ("L...", ".x.x", "Lx.x", "Lxcx", (NOT_KNOWN.format("lesions", "2 images"),)),
        # What the data set contradicts is not used.
        ("LM..", "xxxy", "LM.y", "LMcy",
         (NOT_KNOWN.format("lesions", "1 image"), OTHERS.format("lesions", "2 images"))),
        ("LL..", "xy..", "LL..", "LLcd", (OTHERS.format("lesions", "2 images"),)),
        ("LLMM", "xyyz", "LLMM", "LLMM", (OTHERS.format("lesions", "4 images"),)),
        # The same name: the same lesion, unless the predictions call that one otherwise.
        ("LL..", "..LL", "LLLL", "LLLL", (NOT_KNOWN.format("lesions", "2 images"),)),
    ],
)  # fmt: skip
def test_what_the_data_set_knows_holds(
    data: str, predicted: str, lesions: str, groups: str, notes: tuple[str, ...]
) -> None:
    found = with_owners(of_data(lesion_id=data), table_of(lesion_id=predicted))
    assert "".join(found.table["lesion_id"].fillna(".")) == lesions
    assert "".join(found.table["group_id"]) == groups
    assert found.notes == notes


def test_lesions_that_have_one_name_by_chance_stay_two() -> None:
    found = with_owners(of_data(lesion_id="11.."), table_of(lesion_id="2211"))
    assert found.table["lesion_id"].tolist() == ["1", "1", *["1 of the predictions"] * 2]
    assert found.table["group_id"].nunique() == 2
    # A group or another image that is called like a lesion is not joined with it, either.
    grouped = with_owners(of_data(group_id="gg..."), table_of(lesion_id="..ggc"))
    assert grouped.table["group_id"].nunique() == 3
    assert grouped.table["lesion_id"].fillna("").tolist() == ["", "", "g", "g", "c"]


def test_groups_of_the_data_set_stay_whole() -> None:
    found = with_owners(of_data(group_id="gg.."), table_of(lesion_id=".LL."))
    assert found.table["group_id"].tolist() == ["L", "L", "L", "d"]


def test_patients_are_taken_in_the_same_way() -> None:
    bare = of_data(lesion_id="LL..")
    found = with_owners(bare, table_of(patient_id="P.PQ"))
    assert found.table["patient_id"].fillna("").tolist() == ["P", "", "P", "Q"]
    assert found.table["group_id"].tolist() == ["L", "L", "L", "Q"]
    assert found.used == ("patient_id",)
    assert found.notes == (NOT_KNOWN.format("patients", "3 images"),)
    # A lesion is of one patient.
    patients = of_data(patient_id="PPQQ")
    across = with_owners(patients, table_of(lesion_id="xyyz"))
    assert across.table["lesion_id"].fillna("").tolist() == ["x", "", "", "z"]
    assert across.table["group_id"].tolist() == list("PPQQ")
    assert OTHERS.format("lesions", "2 images") in across.notes


def test_predictions_of_other_images_change_nothing() -> None:
    predicted = table_of(lesion_id="LLLL").assign(image_id=["a", "x", "y", "z"])
    found = with_owners(of_data(lesion_id=".."), predicted)
    assert found.table["lesion_id"].fillna("").tolist() == ["L", ""]
    assert found.table["group_id"].nunique() == 2
    plain = with_owners(of_data(lesion_id="LL"), table_of(diagnosis="xy"))
    assert (plain.used, plain.notes) == ((), ())
    blank = with_owners(of_data(lesion_id=".."), table_of(lesion_id="  "))
    assert blank.used == ()
