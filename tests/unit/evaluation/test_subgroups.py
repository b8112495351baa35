"""Subgroup scores, compared with the definitions and under the null hypothesis."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naevus.errors import DataError
from naevus.evaluation import subgroups
from naevus.evaluation.subgroups import age_bands, attributes_of, holm, subgroup_scores


def images(lesions: int = 240, seed: int = 0, worse: float = 0.0) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("truth", "answers", "groups", "sex")}
    for lesion in range(lesions):
        truth = rng.choice(["MEL", "NV", "BCC"], p=[0.3, 0.5, 0.2])
        sex = rng.choice(["female", "male"])
        for _ in range(rng.integers(1, 4)):
            right = rng.random() < 0.8 - worse * (sex == "male")
            rows["truth"].append(truth)
            rows["answers"].append(truth if right else "other")
            rows["groups"].append(f"lesion-{lesion}")
            rows["sex"].append(sex)
    return rows


def scored(rows: dict[str, list[Any]], draws: int = 200, **attributes: list[Any]) -> dict[str, Any]:
    found = subgroup_scores(
        rows["truth"],
        rows["answers"],
        rows["groups"],
        attributes or {"sex": rows["sex"]},
        draws=draws,
    )
    return {one.value: one for one in found}


def recall(rows: dict[str, list[Any]], code: str, sexes: set[str]) -> float:
    right = [
        answer == truth
        for truth, answer, sex in zip(rows["truth"], rows["answers"], rows["sex"], strict=True)
        if truth == code and sex in sexes
    ]
    return float(np.mean(right))


def test_accuracy_and_gap_equal_the_definition() -> None:
    rows = images(worse=0.2)
    found = scored(rows)
    codes = ("BCC", "MEL", "NV")
    for sex, other in (("female", "male"), ("male", "female")):
        assert found[sex].classes == found[sex].shared == codes
        mean = np.mean([recall(rows, code, {sex}) for code in codes])
        rest = np.mean([recall(rows, code, {other}) for code in codes])
        assert found[sex].balanced_accuracy.value == pytest.approx(mean)
        assert found[sex].gap == pytest.approx(mean - rest)
        members = {
            group for group, its in zip(rows["groups"], rows["sex"], strict=True) if its == sex
        }
        assert found[sex].groups == len(members)
        assert found[sex].images == rows["sex"].count(sex)
    assert found["male"].p < 0.05
    assert found["male"].p_holm == pytest.approx(min(1, 2 * found["male"].p))


def test_p_equals_the_exact_permutation_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subgroups, "LEAST_OF_CLASS", 1)
    truth = ["MEL"] * 5 + ["NV"] * 4
    right = np.array([1, 1, 0, 0, 1, 1, 0, 1, 1])
    predictions = [code if yes else "other" for code, yes in zip(truth, right, strict=True)]
    sex = np.array(["f", "f", "m", "m", "f", "f", "m", "f", "m"])
    names, groups = np.array(truth), [str(number) for number in range(9)]

    def gap(values: np.ndarray) -> float:
        means = [
            right[(names == code) & (values == "f")].mean()
            - right[(names == code) & (values == "m")].mean()
            for code in ("MEL", "NV")
        ]
        return float(np.mean(means))

    observed = gap(sex)
    wide = [
        abs(gap(np.concatenate([first, second]))) >= abs(observed) - 1e-12
        for first in permutations(sex[:5])
        for second in permutations(sex[5:])
    ]
    found = subgroup_scores(truth, predictions, groups, {"sex": sex.tolist()}, draws=1000)
    assert found[0].gap == pytest.approx(observed)
    assert found[0].p == pytest.approx(np.mean(wide), abs=0.05)


def test_another_case_mix_gives_no_gap() -> None:
    # Melanomas have a lower recall, and men have more of them; recalls are equal for both sexes.
    rng = np.random.default_rng(3)
    sex = rng.choice(["female", "male"], 2000)
    melanoma = rng.random(2000) < np.where(sex == "male", 0.6, 0.2)
    right = rng.random(2000) < np.where(melanoma, 0.5, 0.95)
    truth = np.where(melanoma, "MEL", "NV")
    predictions = np.where(right, truth, "other")
    plain = right[sex == "male"].mean() - right[sex == "female"].mean()
    rows = {"truth": truth.tolist(), "answers": predictions.tolist()}
    found = scored({**rows, "groups": list(range(2000)), "sex": sex.tolist()})
    assert plain < -0.1
    assert abs(found["male"].gap) < 0.05
    assert found["male"].p_holm > 0.05


def test_small_p_values_are_rare_without_an_effect() -> None:
    small = [scored(images(90, seed), 49)["male"].p <= 0.1 for seed in range(40)]
    assert 0.02 <= np.mean(small) <= 0.25  # 0.1 and three standard errors


def test_rare_classes_and_small_subgroups_are_left_out_or_marked() -> None:
    rows = images()
    site = ["scalp" if group in {"lesion-0", "lesion-1"} else "trunk" for group in rows["groups"]]
    found = scored(rows, site=site)
    assert found["scalp"].small
    assert found["scalp"].classes == ()
    assert found["scalp"].balanced_accuracy is None
    assert found["scalp"].gap is None
    assert found["scalp"].p_holm is None
    assert not found["trunk"].small
    assert found["trunk"].gap is None  # there is nothing to compare with
    assert found["trunk"].balanced_accuracy is not None


def test_an_image_counts_for_its_own_value() -> None:
    rows = images()
    rng = np.random.default_rng(5)
    site = rng.choice(["back", "arm", ""], len(rows["truth"])).tolist()  # unlike within a patient
    given: list[str | None] = [each or None for each in site]
    found = scored(rows, site=given)
    assert set(found) == {"back", "arm"}
    for value, one in found.items():
        own = [place for place, each in enumerate(site) if each == value]
        right = [rows["truth"][place] == rows["answers"][place] for place in own]
        assert one.images == len(own)
        assert one.correct.value == pytest.approx(np.mean(right))
        assert one.groups == len({rows["groups"][place] for place in own})
        assert one.correct.groups == one.groups
        assert one.classes
        recalls = [np.mean([right[place] for place, row in enumerate(own)
                            if rows["truth"][row] == code]) for code in one.classes]  # fmt: skip
        assert one.balanced_accuracy.value == pytest.approx(np.mean(recalls))
    assert scored(rows, site=[None] * len(site)) == {}


def test_the_order_of_the_images_changes_no_value() -> None:
    rows = images(60)
    site = np.random.default_rng(5).choice(["back", "arm"], len(rows["truth"])).tolist()
    turned = {name: values[::-1] for name, values in rows.items()}
    found, other = scored(rows, site=site), scored(turned, site=site[::-1])
    for value, one in found.items():
        for name in ("images", "groups", "classes", "shared"):
            assert getattr(one, name) == getattr(other[value], name), name
        assert one.gap == pytest.approx(other[value].gap)
        assert one.correct.value == other[value].correct.value


def test_patients_with_several_sites_are_no_evidence_of_a_gap() -> None:
    # Answers depend on the patient alone; every patient has lesions of both sites.
    small = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        fine = rng.random(60) < 0.7
        rows: dict[str, list[Any]] = {name: [] for name in ("truth", "answers", "groups", "site")}
        for patient, right in enumerate(fine):
            for place in range(int(rng.integers(2, 5))):
                truth = str(rng.choice(["MEL", "NV"]))
                rows["truth"].append(truth)
                rows["answers"].append(truth if right else "other")
                rows["groups"].append(f"patient-{patient}")
                rows["site"].append("arm" if place == 0 or rng.random() < 0.3 else "back")
        small.append(scored(rows, 49, site=rows["site"])["arm"].p <= 0.1)
    assert np.mean(small) <= 0.25  # 0.1 and three standard errors


def test_holm_is_the_step_down_rule() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(12) ** 3
    order = np.argsort(p)
    expected = np.empty(12)
    for rank, place in enumerate(order):
        expected[place] = min(1, max((12 - k) * p[order[k]] for k in range(rank + 1)))
    assert holm(p) == pytest.approx(expected)
    with_hole = holm([*p, np.nan])
    assert with_hole[:12] == pytest.approx(expected)
    assert np.isnan(with_hole[12])


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=12))
def test_holm_equals_a_step_down_by_hand(p: list[float]) -> None:
    tested = sorted((value, place) for place, value in enumerate(p) if value == value)
    refused = set()
    for rank, (value, place) in enumerate(tested):
        if value * (len(tested) - rank) > 0.05:
            break
        refused.add(place)
    corrected = holm(p)
    assert {place for place, value in enumerate(corrected) if value <= 0.05} == refused
    for value, raw in zip(corrected, p, strict=True):
        assert (np.isnan(value) and np.isnan(raw)) or raw <= value <= 1


def test_one_lesion_has_no_gap() -> None:
    (one,) = subgroup_scores(["MEL"] * 2, ["MEL", "NV"], ["a", "a"], {"sex": ["female", None]})
    assert (one.groups, one.images, one.small) == (1, 1, True)
    with pytest.raises(DataError, match="there are no images"):
        subgroup_scores([], [], [], {"sex": []})
    assert (one.balanced_accuracy, one.gap, one.p, one.p_holm) == (None, None, None, None)


def test_age_bands_start_at_their_limits() -> None:
    assert age_bands([29, 30, 59, 60, 74.5, 75, -1]) == [
        "0 to 29", "30 to 44", "45 to 59", "60 to 74", "60 to 74", "75 and over", None,
    ]  # fmt: skip


def test_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="differ in length"):
        subgroup_scores(["MEL"], ["MEL"], ["a"], {"sex": ["female", "male"]})


def test_the_fraction_of_correct_answers_is_there_for_a_single_image() -> None:
    rows = images()
    types = ["VI" if group == rows["groups"][0] else "II" for group in rows["groups"]]
    found = scored(rows, skin_type=types)
    for value in ("II", "VI"):
        own = [
            truth == answer
            for truth, answer, each in zip(rows["truth"], rows["answers"], types, strict=True)
            if each == value
        ]
        assert found[value].correct.value == pytest.approx(np.mean(own))
    assert found["VI"].correct.groups == 1
    assert found["VI"].balanced_accuracy is None
    assert found["VI"].to_dict()["correct"]["value"] == found["VI"].correct.value


def test_the_data_set_s_values_come_before_those_of_the_predictions() -> None:
    records = pd.DataFrame({"age": pd.array([50, pd.NA], "Float64"), "sex": ["male", None]})
    given = pd.DataFrame(
        {"age": [10.0, 80.0], "sex": ["female", None], "fitzpatrick_skin_type": ["I", None]}
    )
    found = attributes_of(records.set_index(pd.Index(["a", "b"])), given)
    assert found["age"] == ["45 to 59", "75 and over"]
    assert found["sex"][0] == "male"
    assert found["skin type"][0] == "I"
    assert pd.isna(found["sex"][1])
    assert set(found) == {"age", "sex", "skin type"}


def test_p_values_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(["MEL", "NV"], 120, p=[0.3, 0.7])
    answers = np.where(rng.random(120) < 0.8, truth, "BKL")
    sites = rng.choice(["arm", "back", "leg"], 120, p=[0.2, 0.3, 0.5])
    groups = [f"g{n}" for n in range(120)]

    def gap(values: np.ndarray, one: str) -> float:
        own, rest = (
            np.mean([(answers == code)[(truth == code) & side].mean() for code in ("MEL", "NV")])
            for side in (values == one, values != one)
        )
        return float(own - rest)

    found = subgroup_scores(
        truth.tolist(), answers.tolist(), groups, {"site": sites.tolist()}, draws=60, seed=3
    )
    rows = [np.flatnonzero(truth == code) for code in dict.fromkeys(truth.tolist())]
    shuffled, draws = np.tile(sites, (60, 1)), np.random.default_rng(3)
    for own in rows:
        shuffled[:, own] = draws.permuted(shuffled[:, own], axis=1)
    tested = [one for one in found if one.gap is not None and len(one.shared) == 2]
    assert tested
    for one in tested:
        assert one.gap == pytest.approx(gap(sites, one.value))
        wide = [abs(gap(each, one.value)) >= abs(one.gap or 0) - 1e-12 for each in shuffled]
        assert one.p == pytest.approx((1 + sum(wide)) / 61)


def test_many_values_need_little_memory() -> None:
    rng = np.random.default_rng(0)
    truth, answers = (rng.choice(["MEL", "NV"], 3000).tolist() for _ in range(2))
    values = {"site": [f"place {n % 300}" for n in range(3000)]}
    tracemalloc.start()
    try:
        subgroup_scores(truth, answers, [f"g{n}" for n in range(3000)], values, draws=100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6  # a number for each draw, value and group would need 700 MB
