"""What age, sex and site of the patient bring beside the image, and what wrong ones do.

    python benchmarks/patient_data.py DATA TABLE...

DATA is the data set with the patients' data, and TABLE... are the out-of-fold tables of an
ensemble's networks. Calibration and both candidates (smoothed frequencies; a logistic model, which
`naevus export` fits) are fitted on the other folds. Intervals are 95 % intervals by lesion.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from naevus.datasets.layouts import load
from naevus.evaluation.bootstrap import Groups, bootstrap
from naevus.evaluation.calibration import CalibrationScores, gaps_by_bin
from naevus.evaluation.conformal import SetScores
from naevus.evaluation.intervals import Interval, mean_interval, percentile_interval
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.out_of_fold import combined, taxonomy_of
from naevus.evaluation.patient import (
    AGES,
    SEXES,
    SITES,
    PatientModel,
    cross_fitted_patients,
    joined_site,
    patients_of,
    with_log_odds,
)
from naevus.evaluation.subgroups import age_bands
from naevus.io.formats import read_parquet
from naevus.types import Patient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.evaluation.patient import PatientPredictions

SMOOTHING = 10  # images that each diagnosis borrows from the frequencies of all
SHIFTS = (-40, -20, -10, 10, 20, 40)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("tables", type=Path, nargs="+")
    options = parser.parse_args()
    tables = [read_parquet(path, "name a table of out-of-fold logits") for path in options.tables]
    labelled = oof_classified(combined(tables, taxonomy_of(tables[0])))
    records = load(options.data).table.groupby("image_id").first()
    patients = patients_of(records.reindex(labelled.table["image_id"]))
    found = cross_fitted_patients(labelled, patients)
    _describe(patients)
    _gains(labelled, patients, found)
    _parts_known(patients, found)
    _wrong(patients, found)


def _describe(patients: Sequence[Patient]) -> None:
    for name in Patient._fields:
        known = sum(getattr(one, name) is not None for one in patients)
        print(f"{name}: known of {known:,} of {len(patients):,} images")


def _gains(
    labelled: LabelledPredictions, patients: Sequence[Patient], found: PatientPredictions
) -> None:
    frequencies = _by_frequencies(found, patients)
    print("\ncandidate         balanced accuracy  accuracy  loss  class-balanced loss  ECE")
    for name, each in (
        ("image alone", found.without),
        ("frequencies", frequencies),
        ("logistic model", found.given),
    ):
        values = _statistic([each])(np.ones((1, len(labelled.table))))[0]
        error = CalibrationScores.from_probabilities(each.natural, _classes(each), each.groups).ece
        print(
            f"{name:16}  {values[0]:.4f}  {values[1]:.4f}  {values[2]:.4f}  {values[3]:.4f}  "
            f"{error.value:.4f} ({error.low:.4f} to {error.high:.4f}, chance {error.chance:.4f})"
        )
    for name, each in (("frequencies", frequencies), ("logistic model", found.given)):
        print(f"\n{name}, against the image alone")
        for what, (value, low, high) in _differences(found.without, each).items():
            print(f"  {what:20} {value:+z.4f} ({low:+z.4f} to {high:+z.4f})")
    print("\nrecall of      image alone  logistic model, difference")
    for place, code in enumerate(labelled.taxonomy.codes):
        own = np.array(labelled.truth, object) == code
        before, after = (
            float((each.balanced.argmax(axis=1)[own] == place).mean())
            for each in (found.without, found.given)
        )
        print(f"{code:14} {before:.3f}  {after:.3f}  {after - before:+z.3f}")
    _young(patients, found)
    print("\nby fold       loss: image alone, frequencies, logistic model")
    for part in np.unique(found.parts):
        own = found.parts == part
        losses = [_losses(each)[own].mean() for each in (found.without, frequencies, found.given)]
        print(f"{part:<13} {losses[0]:.4f}  {losses[1]:.4f}  {losses[2]:.4f}")
    codes = labelled.taxonomy.codes
    print("\nprediction sets with the patient's data")
    sets = SetScores.from_sets(found.sets, _classes(labelled), labelled.groups, codes)
    print(f"  {sets.overall}")
    for code, one in sets.classes.items():
        print(f"  {code}: {one.lesions}")


def _young(patients: Sequence[Patient], found: PatientPredictions) -> None:
    """Print the recall of melanoma, of the balanced decision, by the patient's age."""
    code = found.given.taxonomy.index("MEL")
    melanoma = np.array(found.given.truth, object) == "MEL"
    groups = np.array(found.given.groups, object)
    bands = np.array(
        age_bands([np.nan if one.age is None else one.age for one in patients]), object
    )
    print("\nmelanomas of age  lesions  images  recall: image alone, logistic model, difference")
    for band in sorted({each for each in bands if each is not None}):
        own = melanoma & (bands == band)
        if not own.any():
            continue
        before, after = (
            (each.balanced.argmax(axis=1)[own] == code).astype(float)
            for each in (found.without, found.given)
        )
        gain = mean_interval(after - before, groups[own].tolist())
        print(
            f"{band:17} {len(set(groups[own])):>4}  {own.sum():>4}  {before.mean():.3f}  "
            f"{after.mean():.3f}  {gain.value:+z.3f} ({gain.low:+z.3f} to {gain.high:+z.3f})"
        )


def _parts_known(patients: Sequence[Patient], found: PatientPredictions) -> None:
    print("\nknown values      balanced accuracy  loss")
    for kept in ((), ("age",), ("sex",), ("site",), ("age", "sex"), ("age", "site")):
        reduced = [Patient(**{name: getattr(one, name) for name in kept}) for one in patients]
        each = _given(found, reduced)
        values = _statistic([each])(np.ones((1, len(patients))))[0]
        print(f"{' and '.join(kept) or 'none':17} {values[0]:.4f}  {values[2]:.4f}")


def _wrong(patients: Sequence[Patient], found: PatientPredictions) -> None:
    """Print how far wrong values move predictions, from those with the right ones."""
    print("\nwrong value       answers changed  balanced accuracy  against right  against none")
    cases: dict[str, list[Patient]] = {
        f"age {shift:+d} years": [_older(one, shift) for one in patients] for shift in SHIFTS
    }
    other = dict(zip(SEXES, reversed(SEXES), strict=True))
    cases["other sex"] = [
        one._replace(sex=None if one.sex is None else other.get(one.sex)) for one in patients
    ]
    rng = np.random.default_rng(2018)
    cases["another site"] = [
        one
        if joined_site(one.site) is None
        else one._replace(
            site=str(rng.choice([name for name in SITES if name != joined_site(one.site)]))
        )
        for one in patients
    ]
    for name, changed in cases.items():
        _print_wrong(name, found, changed)
    order = rng.permutation(len(patients))
    _print_wrong("another patient's", found, [patients[place] for place in order])


def _print_wrong(name: str, found: PatientPredictions, changed: Sequence[Patient]) -> None:
    wrong = _given(found, changed)
    moved = (wrong.balanced.argmax(axis=1) != found.given.balanced.argmax(axis=1)).mean()
    value = _statistic([wrong])(np.ones((1, len(changed))))[0, 0]
    right, none = (
        _differences(each, wrong)["balanced accuracy"] for each in (found.given, found.without)
    )
    code = found.given.taxonomy.index("MEL")
    melanoma = np.abs(wrong.natural[:, code] - found.given.natural[:, code])
    print(
        f"{name:17} {moved:.1%}  {value:.4f}  {right.value:+z.4f} ({right.low:+z.4f} to "
        f"{right.high:+z.4f})  {none.value:+z.4f} ({none.low:+z.4f} to {none.high:+z.4f})  "
        f"probability of melanoma moved by {melanoma.mean():.3f} on average, "
        f"{np.quantile(melanoma, 0.99):.2f} "
        "in the worst hundredth"
    )


def _older(patient: Patient, years: float) -> Patient:
    if patient.age is None:
        return patient
    return patient._replace(age=float(np.clip(patient.age + years, 0, 100)))


def _given(found: PatientPredictions, patients: Sequence[Patient]) -> LabelledPredictions:
    """Return the predictions with other data of the patients, by the same cross-fitted models."""
    natural = np.empty_like(found.without.natural)
    for part, model in zip(np.unique(found.parts), found.models, strict=True):
        own = found.parts == part
        some = [one for one, use in zip(patients, own, strict=True) if use]
        natural[own] = with_log_odds(found.without.natural[own], model.log_odds(some))
    return found.without.with_natural(natural)


def _by_frequencies(found: PatientPredictions, patients: Sequence[Patient]) -> LabelledPredictions:
    """Return predictions whose odds are multiplied by smoothed P(value | c) / P(value)."""
    truth, natural = _classes(found.without), np.empty_like(found.without.natural)
    for part in np.unique(found.parts):
        own = found.parts == part
        rest = [one for one, use in zip(patients, ~own, strict=True) if use]
        model = _frequencies(rest, truth[~own], found.without.taxonomy.codes)
        some = [one for one, use in zip(patients, own, strict=True) if use]
        natural[own] = with_log_odds(found.without.natural[own], model.log_odds(some))
    return found.without.with_natural(natural)


def _frequencies(
    patients: Sequence[Patient], truth: NDArray[np.intp], codes: Sequence[str]
) -> PatientModel:
    def terms(values: Sequence[str | None], names: Sequence[str]) -> NDArray[np.float64]:
        counts = np.zeros((len(names), len(codes)))
        for value, place in zip(values, truth, strict=True):
            if value is not None and value in names:
                counts[list(names).index(value), int(place)] += 1
        overall = (counts.sum(axis=1) + 1) / (counts.sum() + len(names))
        own = (counts + SMOOTHING * overall[:, None]) / (counts.sum(axis=0) + SMOOTHING)
        return np.asarray(np.log(own) - np.log(overall)[:, None])

    bands = [None if one.age is None else str(_nearest(one.age)) for one in patients]
    age = terms(bands, [str(each) for each in AGES])
    sex = terms([one.sex for one in patients], SEXES)
    site = terms([joined_site(one.site) for one in patients], list(SITES))
    return PatientModel(
        tuple(codes),
        AGES,
        tuple(map(tuple, age.tolist())),
        dict(zip(SEXES, map(tuple, sex.tolist()), strict=True)),
        dict(zip(SITES, map(tuple, site.tolist()), strict=True)),
    )


def _nearest(age: float) -> float:
    return min(AGES, key=lambda each: abs(each - age))


def _classes(labelled: LabelledPredictions) -> NDArray[np.intp]:
    return np.array([labelled.taxonomy.index(code) for code in labelled.truth], np.intp)


def _losses(labelled: LabelledPredictions) -> NDArray[np.float64]:
    classes = _classes(labelled)
    return np.asarray(-np.log(labelled.natural[np.arange(len(classes)), classes]))


def _statistic(
    several: Sequence[LabelledPredictions],
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the statistic of five figures of the last predictions, less those of the first."""
    truth = _classes(several[0])
    member = np.eye(len(several[0].taxonomy))[truth]
    figures = []
    for each in several:
        right = (each.balanced.argmax(axis=1) == truth)[:, None] * member
        stated, answers = each.natural.max(axis=1), each.natural.argmax(axis=1) == truth
        balanced = -np.log(each.balanced[np.arange(len(truth)), truth])[:, None] * member
        gaps = gaps_by_bin(stated, answers, "width")
        figures.append((right, answers.astype(float), _losses(each), balanced, gaps))

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total, by_class = weights.sum(axis=1), weights @ member
        found = [
            np.stack(
                [
                    ((weights @ right) / by_class).mean(axis=1),
                    weights @ answers / total,
                    weights @ losses / total,
                    ((weights @ balanced) / by_class).mean(axis=1),
                    np.abs(weights @ gaps / total[:, None]).sum(axis=1),
                ],
                axis=1,
            )
            for right, answers, losses, balanced, gaps in figures
        ]
        return found[-1] - found[0] if len(found) > 1 else found[0]

    return statistic


def _differences(before: LabelledPredictions, after: LabelledPredictions) -> dict[str, Interval]:
    names = ("balanced accuracy", "accuracy", "loss", "class-balanced loss", "ECE")
    statistic = _statistic([before, after])
    groups = Groups.of(before.groups, before.truth)
    value = statistic(np.ones((1, len(before.table))))[0]
    draws = bootstrap(statistic, groups)
    return {
        name: percentile_interval(float(value[place]), draws[:, place])
        for place, name in enumerate(names)
    }


if __name__ == "__main__":
    main()
