"""The patient's data: terms are right, missing values count for nothing, nothing fits itself."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from naevus.errors import ConfigError, DataError
from naevus.evaluation.labelled import LabelledPredictions
from naevus.evaluation.patient import (
    AGES,
    SITES,
    PatientCounts,
    PatientModel,
    common_model,
    cross_fitted_patients,
    effects,
    joined_site,
    patients_of,
    with_log_odds,
)
from naevus.evaluation.priors import rebalance
from naevus.taxonomy import taxonomy_with
from naevus.types import Patient

CODES = ("MEL", "NV", "BKL")
NOBODY = Patient()
MODEL = PatientModel(
    CODES,
    (20.0, 60.0),
    ((-1.0, 1.0, 0.0), (1.0, -1.0, 0.0)),
    {"male": (0.1, 0.0, -0.1)},
    {"torso": (0.5, 0.0, 0.0)},
)


def _draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[Patient]]:
    """Return exact image posteriors, truths, and a sex that depends on the class alone."""
    posterior = rng.dirichlet((1.0, 1.0, 1.0), count)
    truth = (rng.random(count)[:, None] > posterior.cumsum(axis=1)).sum(axis=1)
    male = rng.random(count) < np.array([0.8, 0.5, 0.2])[truth]
    return posterior, truth, [Patient(sex="male" if each else "female") for each in male]


def test_terms_are_the_logarithms_of_how_common_values_are() -> None:
    posterior, truth, patients = _draw(np.random.default_rng(0), 4000)
    model = PatientModel.fit(posterior, truth, patients, CODES)
    male = np.array(model.sex["male"])
    expected = np.log([0.8, 0.5, 0.2])
    np.testing.assert_allclose(male - male.mean(), expected - expected.mean(), atol=0.15)
    assert model.site == {}
    assert not np.any(model.age)


def test_what_image_and_patient_both_tell_counts_once() -> None:
    # The image shows the sex: the posterior already contains what it tells.
    rng = np.random.default_rng(1)
    posterior, truth, _ = _draw(rng, 4000)
    shown = [Patient(sex="male" if each else "female") for each in posterior[:, 0] > 0.5]
    model = PatientModel.fit(posterior, truth, shown, CODES)
    assert np.abs(model.log_odds(shown)).max() < 0.15


def test_a_missing_value_changes_no_bit() -> None:
    rows = np.random.default_rng(2).dirichlet((1.0, 1.0, 1.0), 5)
    nothing = [NOBODY, Patient(sex="other"), Patient(site="elsewhere"), NOBODY, NOBODY]
    np.testing.assert_array_equal(with_log_odds(rows, MODEL.log_odds(nothing)), rows)


def test_each_value_adds_its_own_term() -> None:
    found = MODEL.log_odds([Patient(40, "male", "abdomen"), Patient(10), Patient(99), NOBODY])
    expected = [(0.6, 0.0, -0.1), (-1.0, 1.0, 0.0), (1.0, -1.0, 0.0), (0.0, 0.0, 0.0)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_natural_and_balanced_odds_are_multiplied_alike() -> None:
    # Bayes, by hand: P(c | image, v) = P(c | image) P(v | c) / sum, under either prior.
    priors, likelihood = np.array([0.1, 0.7, 0.2]), np.array([0.8, 0.5, 0.2])
    natural = np.array([[0.2, 0.7, 0.1]])
    changed = with_log_odds(natural, np.log(likelihood)[None])
    by_hand = natural * likelihood / (natural * likelihood).sum()
    np.testing.assert_allclose(changed, by_hand, atol=1e-12)
    np.testing.assert_allclose(
        rebalance(changed, priors),
        with_log_odds(rebalance(natural, priors), np.log(likelihood)[None]),
        atol=1e-12,
    )


def test_an_impossible_class_stays_impossible() -> None:
    found = with_log_odds(np.array([[0.0, 0.4, 0.6]]), np.array([[900.0, -900.0, 0.0]]))
    np.testing.assert_allclose(found, [[0, 0, 1]], atol=1e-12)


@pytest.mark.parametrize(
    "site",
    [
        *("abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "neck"),
        *("lower extremity", "scalp", "trunk", "upper extremity"),  # HAM10000
        *("anterior torso", "head/neck", "lateral torso", "oral/genital", "palms/soles"),
        *("posterior torso", "torso"),  # the ISIC Archive
        *("head_neck_face", "upper_extremity", "FOREARM", "lower limbs", "Rücken"),  # others
    ],
)
def test_sites_of_known_data_sets_have_a_place(site: str) -> None:
    assert joined_site(site) in SITES


@pytest.mark.parametrize(
    ("values", "counted", "unknown"),
    [
        ({"age": 0.0, "sex": "female", "site": "Abdomen"}, ("age", "sex", "site"), ()),
        ({"age": None, "sex": "other", "site": "elbow"}, (), ("sex", "site")),
        ({"age": 50.0, "sex": "other", "anatom_site": "elbow"}, ("age",), ("sex",)),
        ({"sex": None, "site": None}, (), ()),
        ({"site": "face"}, (), ("site",)),  # a site with a name, but no term here
    ],
)
def test_values_count_or_are_unknown(
    values: dict[str, Any], counted: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    known = {"sex": ["female"], "site": ["torso"]}
    assert effects(values, known) == (counted, unknown)


def test_no_site_stands_for_two() -> None:
    spellings = [each for known in SITES.values() for each in known]
    assert len(set(spellings)) == len(spellings)


def test_the_same_data_in_both_spellings_gives_the_same_odds() -> None:
    ours, theirs = ([Patient(site=site)] for site in ("abdomen", "anterior torso"))
    np.testing.assert_array_equal(MODEL.log_odds(ours), MODEL.log_odds(theirs))


def _labelled(truth: np.ndarray, posterior: np.ndarray) -> LabelledPredictions:
    count = len(truth)
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "group_id": [f"g{n // 2}" for n in range(count)],
            "diagnosis": [CODES[each] for each in truth],
            "fold": [n // 2 % 2 for n in range(count)],
        }
    )
    priors = np.bincount(truth, minlength=3) / count
    return LabelledPredictions(table, posterior, rebalance(posterior, priors), taxonomy_with(CODES))


def test_nothing_is_fitted_on_what_it_predicts() -> None:
    posterior, truth, patients = _draw(np.random.default_rng(3), 400)
    found = cross_fitted_patients(_labelled(truth, posterior), patients)
    own = found.parts == 0
    other = np.where(own, (truth + 1) % 3, truth)
    # Only the truth of part 0 differs: its own probabilities stay, the others' change.
    again = cross_fitted_patients(
        _labelled(truth, posterior)._replace(table=_labelled(other, posterior).table), patients
    )
    np.testing.assert_array_equal(found.given.natural[own], again.given.natural[own])
    np.testing.assert_array_equal(found.sets[own], again.sets[own])
    assert not np.allclose(found.given.natural[~own], again.given.natural[~own])


def test_informative_values_lower_the_loss() -> None:
    posterior, truth, patients = _draw(np.random.default_rng(4), 1000)
    found = cross_fitted_patients(_labelled(truth, posterior), patients)
    rows = np.arange(len(truth))
    before, after = (
        -np.log(each.natural[rows, truth]).mean() for each in (found.without, found.given)
    )
    assert after < before - 0.03
    np.testing.assert_allclose(found.given.balanced.sum(axis=1), 1, atol=1e-12)


def test_a_fit_without_any_value_is_refused() -> None:
    posterior, truth, _ = _draw(np.random.default_rng(5), 20)
    with pytest.raises(DataError, match="no image has a known age"):
        PatientModel.fit(posterior, truth, [NOBODY] * 20, CODES)
    with pytest.raises(DataError, match="do not match"):
        PatientModel.fit(posterior, truth, [NOBODY], CODES)


def test_a_model_survives_its_dictionary() -> None:
    assert PatientModel.from_dict(MODEL.to_dict()) == MODEL
    assert PatientModel.from_dict({**MODEL.to_dict(), "fitted_on": "these"}) == MODEL


def test_bundles_average_their_terms() -> None:
    other = PatientModel(CODES, MODEL.ages, MODEL.age, {"male": (0.3, 0.0, 0.1)}, {})
    found = common_model([MODEL, other])
    np.testing.assert_allclose(found.sex["male"], (0.2, 0, 0), atol=1e-12)
    assert found.site == {}
    with pytest.raises(ConfigError, match="differ"):
        common_model([MODEL, PatientModel(CODES, AGES, MODEL.age, {}, {})])


def test_patients_of_a_table_keep_unknown_values_unknown() -> None:
    records = pd.DataFrame(
        {"age": pd.array([55, pd.NA], "Float64"), "sex": ["male", None], "path": ["a", "b"]}
    )
    assert patients_of(records) == [Patient(55.0, "male", None), NOBODY]


def test_values_that_do_not_count_are_counted() -> None:
    patients = [Patient(50), Patient(None, "other", "elsewhere"), Patient(site="elsewhere"), NOBODY]
    assert dict(MODEL.unknown(patients)) == {("sex", "other"): 1, ("site", "elsewhere"): 2}
    assert [MODEL.is_known(one) for one in patients] == [True, False, False, False]
    counts = PatientCounts(4, 1, ["d"], list("efgh"), MODEL.unknown(patients), ("dx",))
    lines = "\n".join(counts.lines())
    for part in (
        "1 of 4",
        "without a row: 1 image: d",
        "4 rows of images not predicted here: e, f, g and 1 other",
        "site elsewhere (2)",
        "ignored: dx",
    ):
        assert part in lines
    assert len(PatientCounts(4, 4, (), (), {}, ()).lines()) == 1
