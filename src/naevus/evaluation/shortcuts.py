"""What can be guessed of a diagnosis without its lesion: by metadata, by colour."""

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
from naevus.io.files import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.intervals import Proportion
    from naevus.taxonomy import Taxonomy


# What can be guessed without a network: the score a network has to beat.

_BINS = 8


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return an image's colours without their places: 8 bins for each of R, G and B.

    Args:
        pixels: H x W x 3 RGB.

    Returns:
        24 shares; each channel's sum to 1.
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
    """Guess diagnoses from colour histograms by balanced logistic regression.

    Args:
        training: Images, H x W x 3 each.
        diagnoses: Their codes.
        unseen: Images to guess.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (an extra)
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415 (an extra)
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError(
            "the baseline needs scikit-learn", "pip install 'naevus[evaluate]'"
        ) from None
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    model.fit(np.stack([colour_histogram(pixels) for pixels in training]), diagnoses)
    guesses = model.predict(np.stack([colour_histogram(pixels) for pixels in unseen]))
    return [str(code) for code in guesses]


PARTS: Final = 5
"""In how many parts of whole groups guesses by embeddings are cross-fitted."""
METADATA: Final = ("age", "sex", "site")
"""What is known of a patient and a lesion before anybody looks at it. How a diagnosis was confirmed
is not: it follows from the diagnosis."""
_STRENGTH = 0.01  # of the fit against the ridge: set beforehand, never tuned on what is reported


class Guess(NamedTuple):
    """How well diagnoses are guessed from one source; chance has 1 / C, and 0.5 in every AUC."""

    source: str
    groups: int
    """How many lesions it is judged on."""
    balanced_accuracy: Interval
    """Of the most probable class, where all are taken as equally common."""
    mean_auc: Interval
    """Mean over classes of the area under the ROC curve."""
    melanoma: Proportion | None
    """The AUC of melanoma against the rest, where there are melanomas."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary that JSON can hold."""
        return {
            name: value._asdict() if hasattr(value, "_asdict") else value
            for name, value in self._asdict().items()
        }


@dataclass(frozen=True)
class ShortcutScores:
    """Guesses from several sources, of the same images unless their name says otherwise."""

    images: int
    groups: int
    chance: float
    """The balanced accuracy of guessing blindly: one over the classes that are present."""
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
        """Score guesses.

        Args:
            balanced: By source N x C probabilities, as if every class were equally common.
            truth: N diagnoses, of more than one class.
            groups: N group ids.
            taxonomy: The C classes.
            within: By source, which of the N images it is judged on; else all. One that leaves
                fewer than two classes is left out.

        Raises:
            DataError: There is but one class, or a value is not a number.
        """
        names, ids = np.asarray(truth, object), np.asarray(groups, object)
        everything = np.ones(len(names), bool)
        if len(set(truth)) < 2:
            raise DataError("all images have one diagnosis", "there is nothing to guess")
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
        """Return the scores as a dictionary that JSON can hold."""
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
    """Guess diagnoses by ridge logistic regression on frozen embeddings, cross-fitted by group.

    Every class weighs the same. All embeddings must be of one network: those of two networks mean
    different things.

    Args:
        embeddings: N x F.
        truth: N diagnoses.
        groups: N group ids.
        codes: The C classes.
        parts: Number of parts for cross-fitting, by group.
        seed: Of the deal.

    Returns:
        N x C balanced probabilities, each row by a regression that never saw its group.

    Raises:
        DataError: A value is not a number, or there are fewer groups than parts.
        NaevusError: scikit-learn is not installed.
    """
    rows = finite(embeddings, len(truth))
    numbered = Groups.of(groups, truth)
    if len(numbered) < 2 * parts:
        raise DataError(
            f"{len(numbered)} lesions are too few to guess by", f"give {2 * parts} or more"
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
    """Guess diagnoses by gradient boosting on age, sex and site alone, cross-fitted.

    Args:
        records: `METADATA` of N images; unknown values may be missing.
        truth: N diagnoses.
        parts: N numbers of parts of whole groups, such as folds.
        codes: The C classes.

    Returns:
        N x C balanced probabilities, each row by a model that never saw its part.

    Raises:
        DataError: A column is absent or wholly unknown, or there is one part only.
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
    """Return N x C probabilities; a class that the other parts lack has probability 0."""
    names = np.asarray(truth, object).astype(str)
    guessed = np.zeros((len(names), len(codes)))
    for inside in each_part(parts, len(names)):
        fitted = model()
        with warnings.catch_warnings():
            # In a fold without one site or sex a column may be constant; that is no mistake.
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
        raise NaevusError("guessing needs scikit-learn", "pip install 'naevus[evaluate]'") from None
