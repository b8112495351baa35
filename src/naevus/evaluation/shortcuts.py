"""Shortcut baselines: diagnoses predicted from metadata or colour, without the lesion."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError, NaevusError
from naevus.evaluation.bootstrap import SEED, Groups, finite, repeatable
from naevus.evaluation.classification import auc_intervals
from naevus.evaluation.intervals import Interval, balanced_accuracy_interval
from naevus.evaluation.scaling import assign_parts, each_part
from naevus.io.extras import how_to_install
from naevus.io.files import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.intervals import Proportion
    from naevus.taxonomy import Taxonomy


# A baseline without a network, from colours alone.

_BINS = 8


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return an image's colour histogram: 8 bins each for R, G and B.

    Args:
        pixels: H x W x 3 RGB.

    Returns:
        24 fractions; those of each channel sum to 1.
    """
    counts = [
        np.histogram(pixels[..., channel], bins=_BINS, range=(0, 256))[0] for channel in range(3)
    ]
    fractions: NDArray[np.float64] = np.concatenate(counts) / (pixels.shape[0] * pixels.shape[1])
    return fractions


def guess_by_colour(
    training: Sequence[NDArray[np.uint8]],
    diagnoses: Sequence[str],
    unseen: Sequence[NDArray[np.uint8]],
) -> list[str]:
    """Predict diagnoses from colour histograms by balanced logistic regression.

    Args:
        training: Training images, H x W x 3 each.
        diagnoses: Their codes.
        unseen: Images to predict.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (an extra)
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415 (an extra)
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError("the baseline needs scikit-learn", how_to_install("evaluate")) from None
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    model.fit(np.stack([colour_histogram(pixels) for pixels in training]), diagnoses)
    guesses = model.predict(np.stack([colour_histogram(pixels) for pixels in unseen]))
    return [str(code) for code in guesses]


PARTS: Final = 5
"""The number of parts of whole groups for cross-fitting predictions from embeddings."""
METADATA: Final = ("age", "sex", "site")
"""Attributes of patient and lesion that are known before an examination. The method of
confirmation is excluded, because it depends on the diagnosis."""
_STRENGTH = 0.01  # C of the ridge penalty: fixed in advance, not tuned on reported figures


class Guess(NamedTuple):
    """Performance of predictions from one source; chance is 1 / C, and 0.5 for each AUC."""

    source: str
    groups: int
    """The number of evaluated lesions."""
    balanced_accuracy: Interval
    """Of the class with the largest balanced probability."""
    mean_auc: Interval
    """Mean over classes of the area under the ROC curve."""
    melanoma: Proportion | None
    """The AUC of melanoma against the rest, if there are melanomas."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON."""
        return {
            name: value._asdict() if hasattr(value, "_asdict") else value
            for name, value in self._asdict().items()
        }


@dataclass(frozen=True)
class ShortcutScores:
    """Predictions from several sources, for the same images unless the name states otherwise."""

    images: int
    groups: int
    chance: float
    """The balanced accuracy of random guessing: 1 / (number of classes present)."""
    guesses: tuple[Guess, ...]

    @classmethod
    @repeatable
    def of(
        cls,
        balanced: dict[str, NDArray[np.float64]],
        truth: Sequence[str],
        groups: Sequence[str],
        taxonomy: Taxonomy,
        within: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> ShortcutScores:
        """Score predictions from several sources.

        Args:
            balanced: By source, N x C balanced probabilities.
            truth: N diagnoses, of more than one class.
            groups: N group ids.
            taxonomy: The C classes.
            within: By source, a mask of the N images to evaluate; default: all. Sources with fewer
                than two classes left are left out.

        Raises:
            DataError: There is only one class, or a value is not a finite number.
        """
        names, ids = np.asarray(truth, object), np.asarray(groups, object)
        everything = np.ones(len(names), bool)
        if len(set(truth)) < 2:
            raise DataError("all images have the same diagnosis", "give two or more")
        return cls(
            images=len(truth),
            groups=len(set(groups)),
            chance=1 / len(set(truth)),
            guesses=tuple(
                _guess(source, values[own], names[own].tolist(), ids[own].tolist(), taxonomy)
                for source, values in balanced.items()
                if len(set(names[own := (within or {}).get(source, everything)])) > 1
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        return {
            "images": self.images,
            "groups": self.groups,
            "chance": self.chance,
            "guesses": [plain(guess.to_dict()) for guess in self.guesses],
        }


@repeatable
def by_embeddings(
    embeddings: ArrayLike,
    truth: Sequence[str],
    groups: Sequence[str],
    codes: Sequence[str],
    *,
    parts: int = PARTS,
    seed: int = SEED,
) -> NDArray[np.float64]:
    """Predict diagnoses by ridge logistic regression on frozen embeddings, cross-fitted by group.

    All classes have equal weight. All embeddings must come from the same network; those of
    different networks are not comparable.

    Args:
        embeddings: N x F.
        truth: N diagnoses.
        groups: N group ids.
        codes: The C classes.
        parts: The number of parts for cross-fitting, by group.
        seed: The random seed.

    Returns:
        N x C balanced probabilities, each from a regression fitted without the image's group.

    Raises:
        DataError: A value is not a finite number, or there are fewer groups than parts.
        NaevusError: scikit-learn is not installed.
    """
    rows = finite(embeddings, len(truth))
    numbered = Groups.of(groups, truth)
    if len(numbered) < 2 * parts:
        raise DataError(
            f"{len(numbered)} lesions are too few for cross-fitting", f"give {2 * parts} or more"
        )
    linear, scaling, pipeline = (
        _training_task(name) for name in ("linear_model", "preprocessing", "pipeline")
    )

    def model() -> Any:
        return pipeline.make_pipeline(
            scaling.StandardScaler(),
            linear.LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000),
        )

    return _cross_fitted(model, rows, truth, assign_parts(numbered, parts, seed), codes)


@repeatable
def by_metadata(
    records: pd.DataFrame, truth: Sequence[str], parts: NDArray[np.intp], codes: Sequence[str]
) -> NDArray[np.float64]:
    """Predict diagnoses by gradient boosting on age, sex and site alone, cross-fitted.

    Args:
        records: `METADATA` of N images; unknown values may be missing.
        truth: N diagnoses.
        parts: N part numbers of whole groups, such as folds.
        codes: The C classes.

    Returns:
        N x C balanced probabilities, each from a model fitted without the image's part.

    Raises:
        DataError: A column is missing or has no known value, or there is only one part.
        NaevusError: scikit-learn is not installed.
    """
    absent = [name for name in METADATA if name not in records.columns]
    if absent or records[list(METADATA)].isna().all(axis=None):
        raise DataError("no age, sex or site is known", "give a data set with metadata")
    ensemble = _training_task("ensemble")
    ages = pd.to_numeric(records["age"]).to_numpy(np.float64, na_value=np.nan)
    named = [pd.factorize(records[name])[0].astype(np.float64) for name in ("sex", "site")]
    columns = np.stack([ages, *(np.where(codes_ < 0, np.nan, codes_) for codes_ in named)], axis=1)

    def model() -> Any:
        return ensemble.HistGradientBoostingClassifier(
            categorical_features=[1, 2],
            class_weight="balanced",
            early_stopping=False,
            random_state=SEED,
        )

    return _cross_fitted(model, columns, truth, parts, codes)


def _cross_fitted(
    model: Any,
    columns: NDArray[np.float64],
    truth: Sequence[str],
    parts: NDArray[np.intp],
    codes: Sequence[str],
) -> NDArray[np.float64]:
    """Return N x C probabilities; a class missing in the other parts has probability 0."""
    names = np.asarray(truth, object).astype(str)
    guessed = np.zeros((len(names), len(codes)))
    for inside in each_part(parts, len(names)):
        fitted = model()
        with warnings.catch_warnings():
            # A column may be constant, such as the site in one fold; that is acceptable.
            warnings.simplefilter("ignore", category=UserWarning)
            fitted.fit(columns[~inside], names[~inside])
        places = np.array([list(codes).index(code) for code in fitted.classes_], np.intp)
        guessed[np.ix_(np.flatnonzero(inside), places)] = fitted.predict_proba(columns[inside])
    return guessed


def _guess(
    source: str,
    balanced: NDArray[np.float64],
    truth: Sequence[str],
    groups: Sequence[str],
    taxonomy: Taxonomy,
) -> Guess:
    rows = finite(balanced, len(truth))
    predicted = np.array(taxonomy.codes, object)[rows.argmax(axis=1)].tolist()
    mean, aucs = auc_intervals(rows, truth, groups, taxonomy)
    assert mean is not None
    return Guess(
        source=source,
        groups=len(set(groups)),
        balanced_accuracy=balanced_accuracy_interval(truth, predicted, groups),
        mean_auc=mean,
        melanoma=aucs.get("MEL"),
    )


def _training_task(name: str) -> Any:
    """Import a module of scikit-learn."""
    from importlib import import_module  # noqa: PLC0415

    try:
        return import_module(f"sklearn.{name}")
    except ImportError:
        raise NaevusError("baselines need scikit-learn", how_to_install("evaluate")) from None
