"""The patient's age, sex and body site, and how they change the odds of each diagnosis.

A model multiplies the odds that the image alone gives: ``log p_c + f_c(age) + f_c(sex) +
f_c(site)``, normalised. The terms stand for ``log P(values | c, image)``, which does not contain
the class priors, so that natural and balanced probabilities are multiplied alike. A missing value
adds nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from naevus.errors import ConfigError, DataError, NaevusError
from naevus.evaluation.conformal import Conformal
from naevus.evaluation.scaling import each_part, fit_scaling, parts_of, scaled
from naevus.io.extras import how_to_install
from naevus.io.words import counted, first_of
from naevus.types import Patient

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.labelled import LabelledPredictions

AGES: Final = (20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0)
"""Ages with a term of their own; terms are interpolated between them and constant beyond."""
SEXES: Final = ("female", "male")
SITES: Final[dict[str, tuple[str, ...]]] = {
    "head/neck": (
        "head_neck", "head_neck_face", "head", "face", "scalp", "ear", "neck", "nose", "lip",
        "forehead", "cheek", "eyelid", "kopf", "gesicht", "hals", "ohr", "nase", "kopfhaut",
    ),
    "torso": (
        "torso", "trunk", "anterior_torso", "posterior_torso", "lateral_torso", "back", "chest",
        "abdomen", "buttocks", "upper_back", "lower_back", "flank",
        "rumpf", "stamm", "rucken", "ruecken", "brust", "bauch",
    ),
    "upper extremity": (
        "upper_extremity", "upper_limb", "upper_limbs", "arm", "upper_arm", "lower_arm", "forearm",
        "shoulder", "wrist", "hand",
        "obere_extremitat", "unterarm",
    ),
    "lower extremity": (
        "lower_extremity", "lower_limb", "lower_limbs", "leg", "upper_leg", "lower_leg", "thigh",
        "knee", "calf", "shin", "ankle", "foot",
        "untere_extremitat", "bein", "fuss",
    ),
    "palms/soles": (
        "palms_soles", "palms_or_soles", "palm", "sole", "acral", "acral_palms_or_soles",
    ),
    "oral/genital": ("oral_genital", "oral_or_genital", "genital", "genital_areas", "mucosa"),
}  # fmt: skip
"""Sites that are merged, in the spellings of the ISIC Archive, HAM10000 and other data sets.

Front and back of the trunk are merged, because HAM10000's ``trunk`` covers both, and separate terms
gained nothing. HAM10000's ``hand`` and ``foot`` include more than palms and soles.
"""

SPREAD: Final = 0.5
"""Standard deviation of the normal prior on the terms, as for the offsets of `scaling`."""


def joined_site(site: str | None) -> str | None:
    """Return the name in `SITES` of a site; None if there is none.

    Examples:
        >>> joined_site("anterior torso"), joined_site("Abdomen"), joined_site("elsewhere")
        ('torso', 'torso', None)
    """
    return None if site is None else _sites_by_key().get(_key(site))


@lru_cache
def _sites_by_key() -> dict[str, str]:
    return {each: name for name, spellings in SITES.items() for each in spellings}


@lru_cache(4096)
def _key(text: str) -> str:
    from naevus.io.formats import key_of  # noqa: PLC0415 (imports pandas)

    return key_of(text.replace("/", " "))


def any_known(patient: Patient) -> bool:
    """Return whether a value is there that a model of patients can be fitted to."""
    return patient.age is not None or patient.sex in SEXES or joined_site(patient.site) is not None


# The model of the odds.


@dataclass(frozen=True)
class PatientModel:
    """The effect of a patient's data on the log odds of C diagnoses.

    Attributes:
        classes: The codes of the C classes.
        ages: K ages in years, ascending.
        age: K x C terms; those of other ages are interpolated.
        sex: C terms of each known sex.
        site: C terms of each known site, by its name in `SITES`.
    """

    classes: tuple[str, ...]
    ages: tuple[float, ...]
    age: tuple[tuple[float, ...], ...]
    sex: Mapping[str, tuple[float, ...]]
    site: Mapping[str, tuple[float, ...]]

    @classmethod
    def fit(
        cls,
        natural: ArrayLike,
        truth: ArrayLike,
        patients: Sequence[Patient],
        codes: Sequence[str],
    ) -> Self:
        """Fit the terms to images that the networks were not trained on.

        A multinomial logistic model that minimises the mean negative log-likelihood of
        ``softmax(log p + f)``, with a normal prior on the terms. The log-probabilities from the
        image are unchanged, so information in both image and patient data (such as aged skin)
        counts once, unlike in a product of frequencies. Each image is used with every combination
        of its known values, so that the terms also apply if some are missing.

        Args:
            natural: N x C calibrated natural probabilities from the image alone.
            truth: N positions of the true classes.
            patients: Known data of the N images.
            codes: The C classes.

        Raises:
            DataError: No value is known, or the arrays do not match.
            NaevusError: SciPy is not installed.
        """
        logarithms = _logarithms(np.asarray(natural, np.float64))
        classes = np.asarray(truth, np.intp)
        if not len(logarithms) == len(classes) == len(patients):
            raise DataError(
                f"{len(logarithms)} probabilities, {len(classes)} diagnoses and {len(patients)} "
                "patients do not match"
            )
        sexes = tuple(sex for sex in SEXES if any(one.sex == sex for one in patients))
        named = {joined_site(one.site) for one in patients}
        sites = tuple(site for site in SITES if site in named)
        columns = _columns(patients, AGES, sexes, sites)
        if not any(block.any() for block in columns):
            raise DataError("no image has a known age, sex or site", "give at least one")
        terms = _fit_terms(columns, logarithms, classes)
        age, sex, site = np.split(terms, np.cumsum([block.shape[1] for block in columns])[:-1])
        return cls(
            tuple(codes),
            AGES,
            tuple(map(tuple, age.tolist())),
            dict(zip(sexes, map(tuple, sex.tolist()), strict=True)),
            dict(zip(sites, map(tuple, site.tolist()), strict=True)),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create a model from the result of `to_dict`; other entries are ignored."""
        return cls(
            tuple(values["classes"]),
            tuple(values["ages"]),
            tuple(map(tuple, values["age"])),
            {name: tuple(terms) for name, terms in values["sex"].items()},
            {name: tuple(terms) for name, terms in values["site"].items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the terms as a dictionary for JSON."""
        return {
            "classes": list(self.classes),
            "ages": list(self.ages),
            "age": [list(terms) for terms in self.age],
            "sex": {name: list(terms) for name, terms in self.sex.items()},
            "site": {name: list(terms) for name, terms in self.site.items()},
        }

    def log_odds(self, patients: Sequence[Patient]) -> NDArray[np.float64]:
        """Return the terms to add to the log-probabilities, N x C; 0 if no value is known."""
        columns = np.concatenate(
            _columns(patients, self.ages, tuple(self.sex), tuple(self.site)), axis=1
        )
        terms = np.array([*self.age, *self.sex.values(), *self.site.values()])
        return np.asarray(columns @ terms)

    @property
    def known(self) -> dict[str, list[str]]:
        """The sexes and the sites that have terms; every age has."""
        return {"sex": list(self.sex), "site": list(self.site)}

    def is_known(self, patient: Patient) -> bool:
        """Return whether the model uses at least one value."""
        return bool(effects(patient._asdict(), self.known).counted)

    def unknown(self, patients: Iterable[Patient]) -> Counter[tuple[str, str]]:
        """Count the values that the model does not know, by column."""
        known = self.known
        return Counter(
            (name, getattr(one, name))
            for one in patients
            for name in effects(one._asdict(), known).unknown
        )


class Effects(NamedTuple):
    """The names of a patient's values by their effect on the odds.

    Attributes:
        counted: Those that change the odds.
        unknown: Those that the model does not know, so that they change nothing.
    """

    counted: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def effects(values: Mapping[str, Any], known: Mapping[str, Collection[str]]) -> Effects:
    """Return which values change the odds.

    Args:
        values: By the names of `Patient`; None where not known; others are ignored.
        known: The sexes and sites that a model knows (`PatientModel.known`).

    Examples:
        >>> effects({"age": 50.0, "sex": None, "site": "elbow"}, {"sex": [], "site": ["torso"]})
        Effects(counted=('age',), unknown=('site',))
    """
    given = [name for name in Patient._fields if values.get(name) is not None]
    effective = {
        "age": True,
        "sex": values.get("sex") in known.get("sex", ()),
        "site": joined_site(values.get("site")) in known.get("site", ()),
    }
    counted = tuple(name for name in given if effective[name])
    return Effects(counted, tuple(name for name in given if name not in counted))


def with_log_odds(
    probabilities: NDArray[np.float64], log_odds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return probabilities, natural or balanced, whose log odds are changed, normalised.

    Args:
        probabilities: N x C. A class with probability 0 keeps it.
        log_odds: N x C, added to the logarithms. Rows of 0 change nothing, not even a bit.
    """
    changed = log_odds.any(axis=1)
    found = probabilities.copy()
    with np.errstate(divide="ignore"):
        scores = np.log(probabilities[changed]) + log_odds[changed]
    rows = np.exp(scores - scores.max(axis=1, keepdims=True))
    found[changed] = rows / rows.sum(axis=1, keepdims=True)
    return found


def _columns(
    patients: Sequence[Patient],
    ages: Sequence[float],
    sexes: Sequence[str],
    sites: Sequence[str],
) -> list[NDArray[np.float64]]:
    """Return the blocks of age, sex and site: N x K weights each, rows of 0 if unknown."""
    years = np.array([np.nan if one.age is None else one.age for one in patients], np.float64)
    known = ~np.isnan(years)
    age = np.zeros((len(patients), len(ages)))
    for place, row in enumerate(np.eye(len(ages))):
        age[known, place] = np.interp(years[known], ages, row)
    return [
        age,
        _one_hot([one.sex for one in patients], sexes),
        _one_hot([joined_site(one.site) for one in patients], sites),
    ]


def _one_hot(values: Sequence[str | None], names: Sequence[str]) -> NDArray[np.float64]:
    found = np.zeros((len(values), len(names)))
    for place, name in enumerate(names):
        found[:, place] = [value == name for value in values]
    return found


def _fit_terms(
    columns: Sequence[NDArray[np.float64]],
    logarithms: NDArray[np.float64],
    truth: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the K x C terms, over all non-empty combinations of the blocks of columns."""
    try:
        from scipy.optimize import minimize  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError(
            "fitting a model of patients needs SciPy", how_to_install("evaluate")
        ) from None
    chosen = [each for each in product((1.0, 0.0), repeat=len(columns)) if any(each)]
    rows = np.concatenate(
        [
            np.concatenate([w * b for w, b in zip(each, columns, strict=True)], axis=1)
            for each in chosen
        ]
    )
    base = np.tile(logarithms, (len(chosen), 1))
    one_hot = np.eye(base.shape[1])[np.tile(truth, len(chosen))]
    strength = 1 / (SPREAD**2 * len(logarithms))
    shape = rows.shape[1], base.shape[1]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        terms = flat.reshape(shape)
        scores = base + rows @ terms
        scores -= scores.max(axis=1, keepdims=True)
        found = np.exp(scores)
        sums = found.sum(axis=1, keepdims=True)
        value = (np.log(sums[:, 0]) - (scores * one_hot).sum(axis=1)).mean()
        slopes = rows.T @ (found / sums - one_hot) / len(rows) + strength * terms
        return float(value + strength * (terms**2).sum() / 2), slopes.ravel()

    found = minimize(
        loss,
        np.zeros(shape[0] * shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-12, "gtol": 1e-7, "maxiter": 1000},
    )
    terms: NDArray[np.float64] = found.x.reshape(shape)
    return terms


def _logarithms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(rows, np.finfo(np.float64).tiny))


# Cross-fitted evaluation.


class PatientPredictions(NamedTuple):
    """Cross-fitted predictions without and with the patient's data.

    Attributes:
        without: Calibrated probabilities from the image alone.
        given: The same with the patient's data.
        sets: N x C, the prediction sets with the patient's data.
        models: The model of each part.
        parts: N numbers of parts.
    """

    without: LabelledPredictions
    given: LabelledPredictions
    sets: NDArray[np.bool_]
    models: tuple[PatientModel, ...]
    parts: NDArray[np.intp]


def known_in_others(labelled: LabelledPredictions, patients: Sequence[Patient]) -> bool:
    """Return whether each part (`parts_of`) has a patient outside it whose data are known.

    Otherwise a part has no model for `cross_fitted_patients`.
    """
    parts = parts_of(labelled.table)
    known = parts[[any_known(one) for one in patients]]
    return all((known != part).any() for part in np.unique(parts))


def cross_fitted_patients(
    labelled: LabelledPredictions, patients: Sequence[Patient]
) -> PatientPredictions:
    """Predict each part of the images with calibration, terms and sets fitted on the others.

    Args:
        labelled: N images with out-of-fold probabilities, before calibration.
        patients: Known data of the images.

    Raises:
        DataError: A part has no known data outside it (`known_in_others`), or there are too few
            groups.
        NaevusError: SciPy is not installed.
    """
    natural, taxonomy = labelled.natural, labelled.taxonomy
    truth = labelled.classes
    groups = np.asarray(labelled.groups, object)
    parts = parts_of(labelled.table)
    known = np.array([any_known(one) for one in patients])
    without, given = np.empty_like(natural), np.empty_like(natural)
    sets, models = np.zeros(natural.shape, bool), []
    for inside in each_part(parts, len(natural)):
        rest = ~inside
        calibrated = scaled(natural, fit_scaling(natural[rest], truth[rest]))
        others = [one for one, use in zip(patients, rest, strict=True) if use]
        model = PatientModel.fit(calibrated[rest], truth[rest], others, taxonomy.codes)
        changed = with_log_odds(calibrated, model.log_odds(patients))
        without[inside], given[inside] = calibrated[inside], changed[inside]
        # Without data the thresholds are those of the image alone, as in a bundle.
        for some, rows, own in ((~known, calibrated, rest), (known, changed, rest & known)):
            if (inside & some).any():
                fitted = Conformal.fit(rows[own], truth[own], groups[own].tolist(), taxonomy.codes)
                sets[inside & some] = fitted.sets(rows[inside & some])
        models.append(model)
    return PatientPredictions(
        labelled.with_natural(without), labelled.with_natural(given), sets, tuple(models), parts
    )


def patients_of(records: pd.DataFrame) -> list[Patient]:
    """Return the patients of a table with the columns ``age``, ``sex`` and ``site``, if any."""
    import pandas as pd  # noqa: PLC0415 (slow to import)

    none = pd.Series([None] * len(records), records.index, dtype=object)
    columns = [
        records[name].astype(object) if name in records else none for name in Patient._fields
    ]
    known = [column.where(column.notna(), None).tolist() for column in columns]
    return [
        Patient(None if age is None else float(age), sex, site)
        for age, sex, site in zip(*known, strict=True)
    ]


# Metadata with and without effect on predictions.


class PatientCounts(NamedTuple):
    """The number of images of a job with useful metadata, and metadata without effect.

    Attributes:
        images: All images.
        known: Images with at least one value that counts.
        without_row: Images that the table lacks.
        not_predicted: Images of the table that are not predicted.
        unknown: Values that the bundle does not know, by column, and how many images have them.
        ignored: Columns that are not used.
        not_ages: What is said of ages that are none; empty if all are.
    """

    images: int
    known: int
    without_row: Sequence[str]
    not_predicted: Sequence[str]
    unknown: Mapping[tuple[str, str], int]
    ignored: tuple[str, ...]
    not_ages: str = ""

    def lines(self) -> list[str]:
        """Return the counts in sentences."""
        found = [f"metadata: {self.known:,} of {self.images:,} images have a value that counts"]
        if self.without_row:
            images = counted(len(self.without_row), "image")
            found.append(f"metadata: without a row: {images}: {first_of(self.without_row)}")
        if self.not_predicted:
            rows = counted(len(self.not_predicted), "row")
            found.append(
                f"metadata: {rows} of images not predicted here: {first_of(self.not_predicted)}"
            )
        if self.unknown:
            listed = ", ".join(
                f"{column} {value} ({count:,})" for (column, value), count in self.unknown.items()
            )
            of_sites = any(column == "site" for column, _ in self.unknown)
            sites = f"; sites are {', '.join(SITES)}" if of_sites else ""
            found.append(f"metadata: unknown to the bundle, without effect: {listed}{sites}")
        if self.not_ages:
            found.append(f"metadata: {self.not_ages}")
        if self.ignored:
            found.append(f"metadata: ignored: {', '.join(self.ignored)}")
        return found


def common_model(models: Sequence[PatientModel]) -> PatientModel:
    """Return the mean of several bundles' models: terms that all of them know.

    Raises:
        ConfigError: They differ in classes or ages.
    """
    first = models[0]
    if any((each.classes, each.ages) != (first.classes, first.ages) for each in models):
        raise ConfigError("the bundles' models of the patient differ", "use one bundle")

    def mean(terms: Sequence[Sequence[float]]) -> tuple[float, ...]:
        return tuple(np.mean(terms, axis=0).tolist())

    return PatientModel(
        first.classes,
        first.ages,
        tuple(mean([each.age[place] for each in models]) for place in range(len(first.ages))),
        *(
            {
                name: mean([getattr(each, kind)[name] for each in models])
                for name in getattr(first, kind)
                if all(name in getattr(each, kind) for each in models)
            }
            for kind in ("sex", "site")
        ),
    )
