"""Another case mix: natural probabilities re-weighed to how common diagnoses are in a clinic."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import ConfigError
from naevus.evaluation.decisions import rebalance

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from naevus.taxonomy import Taxonomy


def reweigh(
    natural: NDArray[np.floating[Any]], shares: ArrayLike, prevalence: ArrayLike
) -> NDArray[np.float64]:
    """Turn natural probabilities into those of a picture from another case mix.

    ``p_c * q_c / π_c``, normalised (Saerens, Latinne & Decaestecker, Adjusting the outputs of a
    classifier to new a priori probabilities, Neural Computation 2002, formula 2.4). It holds where
    the pictures of a diagnosis look alike in both places and only their numbers differ. Conformal
    thresholds are for the natural probabilities, not for these.

    Args:
        natural: Calibrated probabilities, N x C (or C).
        shares: The C shares ``π_c`` of the training pictures.
        prevalence: The C shares ``q_c`` of the clinic (`read_prevalence`).

    Returns:
        Probabilities of the same shape; 0 for classes with prevalence 0.

    Raises:
        ConfigError: The shares or the prevalence are impossible, or the prevalence is above 0 for
            a class that no training picture showed.
    """
    rows = np.asarray(natural, np.float64)
    trained, wanted = np.asarray(shares, np.float64), np.asarray(prevalence, np.float64)
    size = rows.shape[-1:]
    if trained.shape != size or wanted.shape != size or not (trained >= 0).all():
        raise ConfigError(
            f"shares {trained.tolist()} and prevalence {wanted.tolist()} are not of {size[0]} "
            "classes each"
        )
    if not np.isfinite(wanted).all() or wanted.min() < 0 or wanted.max() == 0:
        raise ConfigError(f"the prevalence {wanted.tolist()} is not that of anything")
    if ((wanted > 0) & (trained == 0)).any():
        raise ConfigError(
            "the prevalence is above 0 for a class that no training picture showed",
            "set it to 0: its probability is not known",
        )
    # A share of 0 gives probability 0: what the clinic never sees.
    relative = np.divide(trained, wanted, out=np.zeros_like(trained), where=wanted > 0)
    return rebalance(np.maximum(rows, np.finfo(np.float64).tiny), relative)


def read_prevalence(path: Path, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Read how common the diagnoses are: a TOML file with a line such as ``MEL = 0.05`` for each.

    Whole numbers throughout are counts of pictures; otherwise the numbers are shares.

    Args:
        path: The file.
        taxonomy: The C diagnoses; each must have its line.

    Returns:
        C shares in the taxonomy's order, which sum to 1.

    Raises:
        ConfigError: The file cannot be read, lacks a diagnosis or names an unknown one, a value is
            not a number from 0, or shares do not sum to 1 within 0.001.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name a prevalence file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}", "write lines like MEL = 0.05") from error
    _check_codes(path, values, taxonomy)
    for code, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise ConfigError(f"{path}: {code} is {value!r}", "give a number that is not below 0")
    numbers = [values[code] for code in taxonomy.codes]
    total = sum(numbers)
    if all(isinstance(number, int) for number in numbers):
        if total == 0:
            raise ConfigError(f"{path}: every count is 0", "give how many pictures there were")
    elif abs(total - 1) > 1e-3:
        raise ConfigError(
            f"{path}: the shares sum to {total:.4g}, not to 1",
            "correct them, or give counts of pictures as whole numbers",
        )
    shares: NDArray[np.float64] = np.array(numbers, np.float64) / total
    return shares


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
            f"{path}: {', '.join(absent)} is missing", "give every diagnosis, 0 where it never is"
        )
