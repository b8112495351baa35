"""Natural and balanced probabilities from logits, and for another prevalence.

A network trained with loss weights or sampling ``w_c`` on class priors ``π_c`` learns a posterior
proportional to ``π_c · w_c · p(x|c)``. Division by ``w_c`` gives the natural posterior, for an
image from the distribution of the training images. Division by ``π_c · w_c`` gives the balanced
posterior, for equally common classes; its most probable class maximises the balanced accuracy
(Menon et al., Long-tail learning via logit adjustment, ICLR 2021).

All computations use float64, so that the rows of a submission sum to one to the last digit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import ConfigError
from naevus.io.settings import read_toml

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from naevus.taxonomy import Taxonomy


def natural_log_probabilities(
    logits: NDArray[np.floating[Any]], weights: ArrayLike, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return the logarithm of the natural posterior, ``log_softmax((z - log w) / T)``.

    Args:
        logits: N x C (or C), the output of the network.
        weights: The C loss or sampling weights ``w_c`` used in training, all positive.
        temperature: The divisor of the natural logits (Guo et al., On calibration, ICML 2017).

    Returns:
        An array of the shape of ``logits``.

    Raises:
        ConfigError: Weights or temperature are not positive, or there are not C weights.

    Examples:
        If the second class had twice the weight in training, an uninformative image gets twice its
        probability; the natural posterior corrects this.

        >>> logits = np.log([[1.0, 2.0]])
        >>> np.exp(natural_log_probabilities(logits, weights=[1.0, 2.0]))
        array([[0.5, 0.5]])
    """
    z = np.asarray(logits, dtype=np.float64)
    w = _per_class(weights, z.shape[-1], "weights")
    if not np.all(w > 0):
        raise ConfigError(f"the class weights {w.tolist()} are not all positive")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"the temperature {temperature} is not above 0")
    return _log_softmax((z - np.log(w)) / temperature)


def balanced_log_probabilities(
    logits: NDArray[np.floating[Any]],
    weights: ArrayLike,
    class_priors: ArrayLike,
    temperature: float = 1.0,
) -> NDArray[np.float64]:
    """Return the logarithm of the balanced posterior, ``log_softmax(z - log(π · w))`` for T = 1.

    The temperature belongs to the natural posterior: the natural logits are divided by it first,
    and the class priors are divided out afterwards. The result equals the natural probabilities,
    rebalanced.

    Args:
        logits: N x C (or C), the output of the network.
        weights: The C loss or sampling weights ``w_c`` used in training, all positive.
        class_priors: The C class priors ``π_c`` of the training images. A class with prior 0
            has no training images; its balanced probability is 0.
        temperature: As in :func:`natural_log_probabilities`.

    Returns:
        An array of the shape of ``logits``; ``-inf`` for classes with prior 0.

    Raises:
        ConfigError: Weights, class priors or temperature are invalid.
    """
    natural = natural_log_probabilities(logits, weights, temperature)
    return _log_softmax(natural - _log_class_priors(class_priors, natural.shape[-1]))


def rebalance(natural: NDArray[np.floating[Any]], class_priors: ArrayLike) -> NDArray[np.float64]:
    """Turn natural probabilities into balanced ones: ``p_c / π_c``, normalised.

    Args:
        natural: Probabilities, N x C (or C).
        class_priors: The C class priors ``π_c``; a class with prior 0 gets probability 0.

    Returns:
        Balanced probabilities of the same shape.

    Raises:
        ConfigError: The class priors are invalid.

    Examples:
        With class priors of 98 % and 2 %, a natural probability of 10 % for the second class
        becomes a balanced probability of 84 %.

        >>> rebalance(np.array([0.9, 0.1]), class_priors=[0.98, 0.02]).round(2)
        array([0.16, 0.84])
    """
    p = np.asarray(natural, dtype=np.float64)
    with np.errstate(divide="ignore"):
        logarithm = np.log(p)
    return np.exp(_log_softmax(logarithm - _log_class_priors(class_priors, p.shape[-1])))


def geometric_means(
    probabilities: NDArray[np.floating[Any]], members: NDArray[np.intp], count: int
) -> NDArray[np.float64]:
    """Average log-probabilities over the images of each lesion, and normalise.

    This is the mean of logits: the members of an ensemble are averaged alike. It treats the images
    as repeated observations of the same evidence. If they were independent, their evidence would
    add up, and the mean would be underconfident.

    Args:
        probabilities: N x C, natural or balanced.
        members: N positions of lesions; each lesion has at least one image.
        count: The number of lesions L.

    Returns:
        L x C. A lesion of one image has exactly the probabilities of that image. A class is
        impossible only if it is so in all images.

    Examples:
        >>> rows = np.array([[0.9, 0.1], [0.1, 0.9], [0.3, 0.7]])
        >>> geometric_means(rows, np.array([0, 0, 1]), 2)
        array([[0.5, 0.5],
               [0.3, 0.7]])
    """
    rows = np.asarray(probabilities, np.float64)
    if not count:
        return rows[:0]
    sizes = np.bincount(members, minlength=count)
    possible = np.zeros((count, rows.shape[1]), bool)
    np.logical_or.at(possible, members, rows > 0)
    means = np.zeros(possible.shape)
    np.add.at(means, members, np.log(np.maximum(rows, np.finfo(np.float64).tiny)))
    means = np.where(possible, means / sizes[:, None], -np.inf)
    found = np.exp(_log_softmax(means))
    single = sizes[members] == 1
    found[members[single]] = rows[single]
    return found


def _per_class(values: ArrayLike, classes: int, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (classes,) or not np.all(np.isfinite(array)):
        raise ConfigError(
            f"the class {what} {array.tolist()} are not {classes} finite numbers",
            "give one for each class, in the taxonomy's order",
        )
    return array


def _log_class_priors(class_priors: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Return log π, with ``+inf`` (so that subtracting it leaves ``-inf``) where π is 0."""
    array = _per_class(class_priors, classes, "class_priors")
    if np.any(array < 0) or not np.any(array > 0):
        raise ConfigError(f"the class priors {array.tolist()} must be from 0 up and not all 0")
    return np.log(array, out=np.full(classes, np.inf), where=array > 0)


def _log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = z - z.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


# Another case mix: natural probabilities adjusted to the prevalence in a clinic.


def reweigh(
    natural: NDArray[np.floating[Any]], class_priors: ArrayLike, prevalence: ArrayLike
) -> NDArray[np.float64]:
    """Adjust natural probabilities to another case mix.

    ``p_c * q_c / π_c``, normalised (Saerens, Latinne & Decaestecker, Adjusting the outputs of a
    classifier to new a priori probabilities, Neural Computation 2002, formula 2.4). This assumes
    that images of a diagnosis have the same distribution in both places and only their
    frequencies differ. Conformal thresholds apply to natural probabilities, not to adjusted ones.

    Args:
        natural: Calibrated probabilities, N x C (or C).
        class_priors: The C class priors ``π_c`` of the training images.
        prevalence: The C fractions ``q_c`` in the clinic (`read_prevalence`).

    Returns:
        Probabilities of the same shape; 0 for classes with prevalence 0.

    Raises:
        ConfigError: The class priors or the prevalence are invalid, or the prevalence is
            positive for a class without training images.
    """
    rows = np.asarray(natural, np.float64)
    trained, wanted = np.asarray(class_priors, np.float64), np.asarray(prevalence, np.float64)
    size = rows.shape[-1:]
    if not trained.shape == wanted.shape == size:
        raise ConfigError(
            f"{trained.size} class priors and a prevalence of {wanted.size} classes do not fit "
            f"{size[0]} classes"
        )
    if not (trained >= 0).all():
        raise ConfigError(f"the class priors {trained.tolist()} must be 0 or more")
    if not np.isfinite(wanted).all() or wanted.min() < 0 or wanted.max() == 0:
        raise ConfigError(
            f"the prevalence {wanted.tolist()} must be finite, from 0 up and not all 0"
        )
    if ((wanted > 0) & (trained == 0)).any():
        raise ConfigError(
            "the prevalence is positive for a class without training images",
            "set it to 0: its probability is unknown",
        )
    # Prevalence 0 gives probability 0.
    relative = np.divide(trained, wanted, out=np.zeros_like(trained), where=wanted > 0)
    return rebalance(np.maximum(rows, np.finfo(np.float64).tiny), relative)


def read_prevalence(path: Path, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Read the prevalence of each diagnosis from a TOML file with lines such as ``MEL = 0.05``.

    If all numbers are integers, they are counts of images; otherwise they are fractions.

    Args:
        path: The file.
        taxonomy: The C diagnoses; each needs a line.

    Returns:
        C fractions in the taxonomy's order, which sum to 1.

    Raises:
        ConfigError: The file cannot be read, lacks a diagnosis or has an unknown one, a value is
            not a non-negative number, or the fractions do not sum to 1 within 0.001.
    """
    try:
        values = read_toml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name a prevalence file") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not TOML: {error}", "write lines like MEL = 0.05") from error
    _check_codes(path, values, taxonomy)
    for code, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise ConfigError(f"{path}: {code} is {value!r}", "give a number from 0 up")
    numbers = [values[code] for code in taxonomy.codes]
    total = sum(numbers)
    if all(isinstance(number, int) for number in numbers):
        if total == 0:
            raise ConfigError(f"{path}: every count is 0", "give the numbers of images")
    elif abs(total - 1) > 1e-3:
        raise ConfigError(
            f"{path}: the fractions sum to {total:.4g} instead of 1",
            "correct them, or give counts of images as integers",
        )
    class_priors: NDArray[np.float64] = np.array(numbers, np.float64) / total
    return class_priors


def _check_codes(path: Path, values: dict[str, Any], taxonomy: Taxonomy) -> None:
    for code in values:
        if code not in taxonomy.codes:
            raise ConfigError(
                f"{path}: {code} is not a diagnosis of {taxonomy.name}",
                f"use {', '.join(taxonomy.codes)}",
            )
    absent = [code for code in taxonomy.codes if code not in values]
    if absent:
        raise ConfigError(
            f"{path}: {', '.join(absent)} is missing", "give every diagnosis, 0 if it never occurs"
        )
