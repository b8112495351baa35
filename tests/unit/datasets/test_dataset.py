"""The typed table and its selections."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from naevus.datasets.dataset import COLUMNS, Dataset, Record, make_table
from naevus.errors import DataError


@pytest.fixture
def dataset() -> Dataset:
    frame = pd.DataFrame(
        {
            "image_id": ["c", "a", "b", "a2"],
            "path": ["/x/c.jpg", "/x/a.jpg", None, "/x/a2.jpg"],
            "mask_path": ["/m/c.png", None, "/m/b.png", None],
            "diagnosis": ["MEL", " NV ", "", None],
            "lesion_id": ["L", None, "L", None],
            "group_id": [None, "G", None, None],
            "age": ["61", "unknown", None, "4.5"],
            "part": ["task3", "task1", "task3", "task1"],
            "split": [None, None, "test", None],
        }
    )
    return Dataset(make_table(frame), Path("/x"), "manifest")


def test_sorted_by_part_and_id(dataset: Dataset) -> None:
    assert dataset.ids == ["a", "a2", "b", "c"]
    assert list(dataset.table.index) == [0, 1, 2, 3]
    assert tuple(dataset.table.columns) == COLUMNS


def test_missing_columns_have_defaults(dataset: Dataset) -> None:
    assert dataset.table["group_id"].tolist() == ["G", "a2", "L", "L"]
    assert dataset.table["split"].tolist() == ["train", "train", "test", "train"]
    assert dataset.table["age"].isna().tolist() == [True, False, True, False]


def test_subsets_select_rows_in_order(dataset: Dataset) -> None:
    assert dataset.with_diagnosis().ids == ["a", "c"]
    assert dataset.with_masks().ids == ["c"]
    assert dataset.images().ids == ["a", "a2", "c"]
    assert dataset.part("task3").split("test").ids == ["b"]
    assert dataset.part("task1", "task3").ids == dataset.ids
    assert dataset.select(["c", "a"]).ids == ["a", "c"]
    assert dataset.select([]).ids == []
    assert list(dataset.select(["c"]).table.index) == [0]


def test_rows_are_typed_records(dataset: Dataset) -> None:
    first, *_, last = dataset.rows()
    assert last == Record(
        "c", Path("/x/c.jpg"), Path("/m/c.png"), "MEL", "L", "L", 61.0, None, None, None,
        "train", "task3",
    )  # fmt: skip
    assert (first.mask_path, first.age, first.diagnosis) == (None, None, "NV")


def test_missing_parts_and_ids_are_errors(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"no part 'task2'.*task1, task3"):
        dataset.part("task2")
    with pytest.raises(DataError, match="unknown split 'dev'"):
        dataset.split("dev")
    with pytest.raises(DataError, match="2 images are not in the data set, the first is x"):
        dataset.select(["a", "y", "x"])


def test_groups_are_known(dataset: Dataset) -> None:
    assert dataset.has_groups
    ids = {"image_id": ["a", "b"]}
    alone = Dataset(make_table(pd.DataFrame(ids)), Path("/x"), "manifest")
    assert not alone.has_groups


@pytest.mark.parametrize("column", ["group_id", "lesion_id", "patient_id"])
def test_named_groups_of_one_image_each_are_known(column: str) -> None:
    table = make_table(pd.DataFrame({"image_id": ["a", "b"], column: ["x", "y"]}))
    assert Dataset(table, Path("/x"), "manifest").has_groups


def test_an_image_in_two_parts_makes_no_group_known() -> None:
    table = make_table(pd.DataFrame({"image_id": ["a", "a"], "part": ["task1", "task3"]}))
    assert not Dataset(table, Path("/x"), "manifest").has_groups


def test_fingerprint_follows_ids_groups_and_diagnoses_alone(dataset: Dataset) -> None:
    before = dataset.fingerprint()
    changed = {}
    for column in ("path", "diagnosis", "group_id", "image_id"):
        table = dataset.table.copy()
        table.loc[0, column] = "other"
        changed[column] = Dataset(table, Path("/y"), "isic2018").fingerprint()
    assert changed["path"] == before
    assert len({before, *changed.values()}) == 4


def test_an_id_twice_in_a_part() -> None:
    frame = pd.DataFrame({"image_id": ["a", "a"], "part": ["task1", "task3"]})
    assert make_table(frame)["image_id"].tolist() == ["a", "a"]
    with pytest.raises(DataError, match="image id a occurs in 2 rows"):
        make_table(frame.assign(part="task1"))


def test_rows_without_an_image_are_not_counted_unless_their_part_has_none() -> None:
    rows = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "path": ["a.jpg", pd.NA, pd.NA, pd.NA],
            "diagnosis": ["NV", "MEL", "NV", "DF"],
            "lesion_id": ["1", "2", "3", "3"],
            "patient_id": ["x", "y", "z", "z"],
            "part": ["task1", "task1", "task3", "task3"],
        }
    )
    dataset = Dataset(make_table(rows), Path("data"), "isic2018")
    assert dataset.at_hand().ids == ["a", "c", "d"]
    assert len(dataset) == 4  # all rows stay, as ground truth
    first, *counted = str(dataset).split("\n")
    assert first == "data (isic2018): 3 images of 2 lesions of 2 patients"
    assert [line.split()[0] for line in counted[1:]] == ["NV", "DF"]
    assert (dataset.to_dict()["images"], dataset.to_dict()["groups"]) == (3, 2)
    assert dataset.part("task1").counts().to_dict() == {"train": {"NV": 1}}
    empty = dataset.part("task1")._where(pd.Series([False, False]))
    assert len(empty.at_hand()) == 0
