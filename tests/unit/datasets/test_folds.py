"""Folds: whole groups, stratified by diagnosis, written once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naevus.datasets.dataset import Dataset, make_table
from naevus.datasets.folds import (
    Folds,
    join_folds,
    join_groups,
    limit_images,
    make_folds,
    sample_groups,
    validation_split,
)
from naevus.datasets.layouts import load
from naevus.errors import DataError, FoldsError
from tests.helpers import ROOT

_RESULTS = ROOT / "results" / "folds"


def dataset(images: int = 300, seed: int = 0, **columns: object) -> Dataset:
    """Images of lesions with one to four images, in classes of 70, 20 and 10 %."""
    rng = np.random.default_rng(seed)
    lesions = np.repeat(np.arange(images), rng.integers(1, 5, images))[:images]
    codes = np.array(["NV", "MEL", "DF"])[rng.choice(3, images, p=[0.7, 0.2, 0.1])]
    frame = pd.DataFrame(
        {
            "image_id": [f"I{number:05d}" for number in rng.permutation(images)],
            "path": "x.jpg",
            "lesion_id": [f"L{lesion}" for lesion in lesions],
            "diagnosis": codes[lesions],
        }
    ).assign(**columns)  # type: ignore[arg-type]
    return Dataset(make_table(frame), Path("data"), "manifest")


def class_priors(data: Dataset, ids: list[str]) -> dict[str, float]:
    codes = data.select(ids).table["diagnosis"]
    return {code: float((codes == code).mean()) for code in ("NV", "MEL", "DF")}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), k=st.integers(1, 6), test=st.sampled_from([0.0, 0.15]))
def test_every_image_is_held_out_once_and_groups_stay_whole(seed: int, k: int, test: float) -> None:
    data = dataset(120, seed=seed)
    folds = make_folds(data, k=k, seed=seed, test_fraction=test)
    assert folds.k == k
    groups = data.table.set_index("image_id")["group_id"]
    tested = folds.test()
    seen = Counter(tested)
    for fold in range(k):
        held_out, training = folds.held_out(fold), folds.training(fold)
        seen.update(held_out)
        assert held_out
        assert sorted([*held_out, *training, *tested]) == data.ids
        kept_apart = {*held_out, *tested}
        assert not set(groups[training]) & set(groups[list(kept_apart)])
    assert max(seen.values()) == 1
    if k > 1:
        assert sorted(seen) == data.ids


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), k=st.integers(1, 4))
def test_patients_and_lesions_stay_whole_together(seed: int, k: int) -> None:
    """Of images that share a lesion or a patient, directly or through others, none are split."""
    rng = np.random.default_rng(seed)
    numbers = np.where(rng.random(120) < 0.05, rng.integers(0, 30, 120), np.arange(120) // 4)
    patients = [f"P{number}" if rng.random() < 0.8 else None for number in numbers]
    data = dataset(120, seed=seed, patient_id=patients)
    folds = make_folds(data, k=k, seed=seed)
    fold = folds.table.set_index("image_id")["fold"]
    validation = {
        name: part for part, ids in enumerate(validation_split(folds, 0, data, 0.3)) for name in ids
    }
    limited = set(limit_images(data, 60).ids)
    for column in ("lesion_id", "patient_id"):
        for _, rows in data.table.groupby(column):
            names = rows["image_id"]
            assert len(set(fold[names])) == 1
            assert len({validation.get(name) for name in names}) == 1
            assert len({name in limited for name in names}) == 1


def test_folds_are_stratified_by_class() -> None:
    data = dataset(2000)
    whole = class_priors(data, data.ids)
    folds = make_folds(data)
    for fold in range(5):
        assert len(folds.held_out(fold)) == pytest.approx(400, abs=8)
        assert class_priors(data, folds.held_out(fold)) == pytest.approx(whole, abs=0.01)


def test_one_fold_holds_out_a_fifth() -> None:
    data = dataset(2000)
    folds = make_folds(data, k=1, test_fraction=0.1)
    assert len(folds.test()) == pytest.approx(200, abs=10)
    assert len(folds.held_out(0)) == pytest.approx(360, abs=10)
    assert len(folds.training(0)) == pytest.approx(1440, abs=20)
    assert class_priors(data, folds.held_out(0)) == pytest.approx(
        class_priors(data, data.ids), abs=0.02
    )


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    data = dataset()
    shuffled = Dataset(data.table.sample(frac=1.0, random_state=1), data.root, data.layout)
    assert make_folds(data).sha256 == make_folds(shuffled).sha256
    assert make_folds(data).sha256 != make_folds(data, seed=1).sha256


def test_data_without_diagnoses_are_split_too() -> None:
    data = dataset(diagnosis=pd.NA)
    sizes = [len(make_folds(data).held_out(fold)) for fold in range(5)]
    assert max(sizes) - min(sizes) <= 4


def test_a_class_rarer_than_folds_is_spread() -> None:
    data = dataset()
    data.table.loc[3, ["diagnosis", "group_id"]] = ["VASC", "alone"]
    assert make_folds(data).k == 5


def test_only_existing_training_images_are_in_folds() -> None:
    data = dataset()
    data.table.loc[0, "split"] = "test"
    data.table.loc[1, "path"] = pd.NA
    folds = make_folds(data)
    assert sorted(folds.table["image_id"]) == data.ids[2:]
    folds.check(data)


def test_duplicates_join_groups() -> None:
    data = dataset(lesion_id=pd.NA)
    one, two, three = data.ids[:3]
    folds = make_folds(data, groups={one: "a", two: "a", three: "b"})
    groups = folds.table.set_index("image_id")["group_id"]
    assert groups[one] == groups[two] == one
    assert groups[three] == three


def test_joining_groups_is_transitive() -> None:
    table = pd.DataFrame({"image_id": list("abcde"), "group_id": ["1", "1", "2", "3", "4"]})
    assert join_groups(table, {"b": "x", "c": "x", "d": "y", "e": "4"}) == ["1", "1", "1", "3", "4"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"k": 0}, "0 folds"), ({"test_fraction": 1.0}, "fraction of 1.0"), ({"k": 400}, "too few")],
)
def test_impossible_numbers_of_folds_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(FoldsError, match=message):
        make_folds(dataset(), **settings)  # type: ignore[arg-type]


def few(lesions: int, images: int = 1) -> Dataset:
    """Return images of as many naevi as melanomas, some images of each."""
    names = [f"{code}{lesion}" for code in ("MEL", "NV") for lesion in range(lesions)]
    rows = [(f"{name}-{k}", name, name[:-1]) for name in names for k in range(images)]
    table = pd.DataFrame(rows, columns=["image_id", "lesion_id", "diagnosis"]).assign(path="x.jpg")
    return Dataset(make_table(table), Path("few"), "manifest")


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("settings", [{"k": 1}, {"k": 2, "test_fraction": 0.1}])
def test_too_few_groups_of_each_diagnosis_to_hold_one_out_are_refused(
    settings: dict[str, float], images: int
) -> None:
    with pytest.raises(FoldsError, match="few: no diagnosis has enough groups"):
        make_folds(few(2, images), **settings)  # type: ignore[arg-type]


def test_one_fold_of_just_enough_groups() -> None:
    folds = make_folds(few(3), k=1)
    assert (len(folds.held_out(0)), len(folds.training(0))) == (2, 4)


def test_an_id_in_two_parts_is_refused() -> None:
    both = pd.concat([dataset(part="task1").table, dataset(part="task3").table])
    with pytest.raises(FoldsError, match="I00000 is in two parts"):
        make_folds(Dataset(make_table(both), Path("data"), "isic2018"))


def test_a_part_that_every_fold_trains_on() -> None:
    assign_parts = dataset(120)
    more = dataset(60, seed=1).table.assign(part="more")
    more["image_id"] = "M" + more["image_id"]
    more["lesion_id"] = more["group_id"] = "M" + more["lesion_id"]
    shared = more["image_id"] == more["image_id"].min()
    more.loc[shared, ["lesion_id", "group_id"]] = assign_parts.table["group_id"].iloc[0]
    both = replace(assign_parts, table=pd.concat([assign_parts.table, more], ignore_index=True))
    folds = make_folds(both, k=3, train_parts=["more"])
    fold_of = folds.table.set_index("image_id")["fold"]
    alone = make_folds(assign_parts, k=3).table.set_index("image_id")["fold"]
    # Without such lesions, the folds are the same as without the part.
    apart = pd.concat([assign_parts.table, more[~shared]], ignore_index=True)
    assert make_folds(replace(assign_parts, table=apart), k=3, train_parts=["more"]).hold_out_as(
        make_folds(assign_parts, k=3)
    )
    # A lesion in both parts is held out with all its images.
    assert fold_of[more["image_id"][shared]].tolist() != ["train"]
    assert set(fold_of[more["image_id"][~shared]]) == {"train"}
    assert set(fold_of[alone.index]) == {"0", "1", "2"}
    for fold in range(3):
        assert {*more["image_id"][~shared]} <= {*folds.training(fold)}
    assert folds.hold_out_as(Folds(folds.table[folds.table["fold"] != "train"]))
    assert not folds.hold_out_as(make_folds(both, k=3, seed=1, train_parts=["more"]))
    without = both.table[both.table["image_id"] != more["image_id"].max()]
    fewer = replace(both, table=without.reset_index(drop=True))
    folds.check(fewer, among=both)  # one lacks the required label
    with pytest.raises(FoldsError, match="0 new, 1 absent"):
        folds.check(fewer)
    with pytest.raises(FoldsError, match="no part 'task1' to train on"):
        make_folds(both, k=3, train_parts=["task1"])


def test_folds_are_written_once(tmp_path: Path) -> None:
    data, path = dataset(), tmp_path / "folds.csv"
    folds = make_folds(data)
    folds.write(path)
    before = path.read_bytes()
    folds.write(path)
    with pytest.raises(FoldsError, match=r"folds\.csv holds other folds"):
        make_folds(data, seed=1).write(path)
    assert path.read_bytes() == before
    assert before.startswith(b"image_id,group_id,fold\nI00000,")
    assert b"\r" not in before


def test_folds_are_read_as_written(tmp_path: Path) -> None:
    folds = make_folds(dataset(), test_fraction=0.1)
    folds.write(tmp_path / "folds.csv")
    again = Folds.read(tmp_path / "folds.csv")
    pd.testing.assert_frame_equal(again.table, folds.table)
    assert again.sha256 == folds.sha256


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,g,0", "b,g,1"], "group g is split between 2 folds"),
        (["a,g,0", "a,g,0"], "a occurs twice"),
        (["a,g,0", "b,h,2"], "the folds are named 0, 2"),
        (["a,g,test"], "the folds are named nothing"),
        (["a,,0"], "a row is not complete"),
        (["a,g,0", "../b,h,1"], "the id '../b' has a path separator"),
    ],
)
def test_broken_fold_files_are_errors(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text("\n".join(["image_id,group_id,fold", *lines]) + "\n")
    with pytest.raises(FoldsError, match=rf"folds\.csv: {message}"):
        Folds.read(path)


def test_check_refuses_other_ids() -> None:
    data = dataset()
    folds = make_folds(data)
    folds.check(data)
    fewer = data.select(data.ids[1:])
    with pytest.raises(FoldsError, match="0 new, 1 absent, the first is I00000"):
        folds.check(fewer)
    with pytest.raises(FoldsError, match="1 new, 0 absent"):
        make_folds(fewer).check(data)


def test_check_refuses_groups_that_the_folds_split() -> None:
    data = dataset()
    folds = make_folds(data)
    data.table.loc[
        data.table["image_id"].isin([folds.held_out(k)[0] for k in (0, 1)]), "group_id"
    ] = "G"
    with pytest.raises(FoldsError, match="group G is split between 2 folds"):
        folds.check(data)


def test_folds_of_parts_are_joined_as_they_are() -> None:
    one, other = dataset(), dataset()
    for name in ("image_id", "lesion_id", "group_id"):
        other.table[name] = "other " + other.table[name]
    other.table["part"] = "more"
    first, second = make_folds(one), make_folds(other, seed=1, test_fraction=0.1)
    joined = join_folds([second, first])
    both = replace(one, table=pd.concat([one.table, other.table], ignore_index=True))
    joined.check(both)
    for fold in range(5):
        assert {*joined.held_out(fold)} == {*first.held_out(fold), *second.held_out(fold)}
    assert joined.test() == second.test()
    assert joined.sha256 == join_folds([first, second]).sha256
    near = {first.held_out(0)[0]: "near", second.held_out(0)[0]: "near"}
    join_folds([first, second], near)
    with pytest.raises(FoldsError, match="split between 2 folds"):
        join_folds([first, second], {**near, second.held_out(1)[0]: "near"})
    with pytest.raises(FoldsError, match="occurs twice"):
        join_folds([first, first])
    with pytest.raises(FoldsError, match="5, 3 folds cannot be joined"):
        join_folds([first, make_folds(other, k=3)])


def test_an_unknown_fold_is_an_error() -> None:
    folds = make_folds(dataset())
    for fold in (-1, 5):
        with pytest.raises(FoldsError, match="choose one of 0 to 4"):
            folds.held_out(fold)


def test_the_validation_split_keeps_groups_whole() -> None:
    data = dataset(2000)
    folds = make_folds(data, test_fraction=0.1)
    training, validation = validation_split(folds, 2, data, fraction=0.1)
    assert sorted([*training, *validation]) == folds.training(2)
    assert len(validation) == pytest.approx(0.1 * len(folds.training(2)), abs=10)
    groups = data.table.set_index("image_id")["group_id"]
    assert not set(groups[training]) & set(groups[validation])
    assert class_priors(data, validation) == pytest.approx(class_priors(data, training), abs=0.03)
    assert validation_split(folds, 2, data)[1] == validation
    assert validation_split(folds, 3, data)[1] != validation


def test_a_fraction_of_one_group_is_none() -> None:
    table = pd.DataFrame({"group_id": ["a"] * 4, "stratum": ["s"] * 4})
    assert not sample_groups(table, 0.2, np.random.default_rng(0)).any()


@pytest.mark.parametrize("part", ["task1", "task3"])
def test_the_committed_folds_fit_the_real_data(shared_data: Path, part: str) -> None:
    data = load(shared_data / "isic2018").part(part)
    folds = Folds.read(_RESULTS / f"isic2018-{part}.csv")
    folds.check(data)
    assert folds.k == 5
    rows = folds.table.merge(data.table[["image_id", "diagnosis"]], on="image_id")
    counts = rows.groupby(["diagnosis", "fold"]).size().unstack()  # noqa: PD010 - counts, nothing to pivot
    assert (counts.max(axis="columns") - counts.min(axis="columns")).max() <= 2


PARTED = "image_id,other_id,reason"


def parted(tmp_path: Path, *exceptions: str) -> tuple[Folds, Dataset]:
    """Four images in two folds, which separate the images of both groups of the data."""
    path = tmp_path / "folds.csv"
    path.write_text("image_id,group_id,fold\na,A,0\nb,A,0\nc,C,1\nd,D,1\n")
    if exceptions:
        (tmp_path / "exceptions.csv").write_text("\n".join((PARTED, *exceptions)) + "\n")
    frame = pd.DataFrame(
        {"image_id": list("abcd"), "path": list("abcd"), "group_id": ["A", "A", "A", "D"]}
    )
    return Folds.read(path), Dataset(make_table(frame), tmp_path, "manifest")


def test_only_named_pairs_may_be_separated(tmp_path: Path) -> None:
    folds, dataset = parted(tmp_path)
    with pytest.raises(FoldsError, match="group A is split between 2 folds"):
        folds.check(dataset)
    folds, dataset = parted(tmp_path, "b,c,the same photograph", "x,y,of other data")
    folds.check(dataset)
    assert [pair.image_id for pair in folds.exceptions] == ["b"]
    folds, dataset = parted(tmp_path, "a,d,another pair")
    with pytest.raises(FoldsError, match="group A is split between 2 folds"):
        folds.check(dataset)
    folds, _ = parted(tmp_path, "c,d,not parted at all")
    assert folds.exceptions == ()


@pytest.mark.parametrize("part", ["task1", "task3", "task3-and-task1"])
def test_committed_folds_are_five_of_whole_groups(part: str) -> None:
    table = Folds.read(_RESULTS / f"isic2018-{part}.csv").table
    assert {*table["fold"].astype(str)} - {"train"} == {*"01234"}
    assert not table[["group_id", "fold"]].drop_duplicates()["group_id"].duplicated().any()
    assert table["image_id"].is_unique
    sizes = table["fold"].astype(str).value_counts().drop("train", errors="ignore")
    assert sizes.max() - sizes.min() <= 0.01 * sizes.max()


def test_the_committed_folds_name_their_exceptions() -> None:
    folder = ROOT / "results" / "folds"
    named = {
        path.name: {frozenset(pair[:2]) for pair in Folds.read(path).exceptions}
        for path in sorted(folder.glob("isic*.csv"))
    }
    both = {
        frozenset(("ISIC_0027027", "ISIC_0029036")),
        frozenset(("ISIC_0027636", "ISIC_0027994")),
    }
    assert named == {
        "isic2018-task1.csv": set(),
        "isic2018-task3-and-task1.csv": both,
        "isic2018-task3.csv": both,
    }


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(4, 150))
def test_a_limit_keeps_lesions_whole_and_every_diagnosis(seed: int, count: int) -> None:
    data = dataset(120, seed=seed)
    limited = limit_images(data, count)
    assert len(limited) <= count
    assert limited.table.equals(limit_images(data, count).table)
    rest = data.table[~data.table["image_id"].isin(limited.ids)]
    assert not set(limited.table["group_id"]) & set(rest["group_id"])
    assert limited.table["image_id"].is_monotonic_increasing
    if count >= 120:
        assert limited is data
    elif count >= 12:  # a lesion has four images at most
        assert set(limited.table["diagnosis"]) == set(data.table["diagnosis"])
        assert len(limited) > count - 4
    if count >= 40:  # three lesions of each diagnosis, where it has them
        kept, all_ = (
            each.table.groupby("diagnosis")["group_id"].nunique() for each in (limited, data)
        )
        assert (kept >= np.minimum(all_, 3)).all()


def test_a_limit_draws_in_proportion() -> None:
    data = dataset(4000)
    limited = limit_images(data, 1000)
    found, expected = (class_priors(data, each.ids) for each in (limited, data))
    assert found == pytest.approx(expected, abs=0.01)


def test_a_limit_below_the_smallest_lesion_is_an_error() -> None:
    data = dataset(40)
    table = data.table.assign(group_id="one")
    with pytest.raises(
        DataError, match="the smallest lesion has 40 images, more than the limit of 3"
    ):
        limit_images(replace(data, table=table), 3)
    assert limit_images(data, 0) is data
