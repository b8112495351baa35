"""From a network's logits to natural and balanced probabilities.

A network trained with loss weights or sampling ``w_c`` on class shares ``π_c`` learns a posterior
proportional to ``π_c · w_c · p(x|c)``. Dividing by ``w_c`` gives the natural posterior, that of a
picture drawn as the training pictures were; dividing by ``π_c · w_c`` gives the balanced one, as if
every class were equally common, whose most probable class maximises the balanced accuracy
(Menon et al., Long-tail learning via logit adjustment, ICLR 2021).

Everything is computed in float64: a submission's rows then sum to one to the last written digit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def natural_log_probabilities(
    logits: NDArray[np.floating[Any]], weights: ArrayLike, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return the natural posterior's logarithm, ``log_softmax((z - log w) / T)``.

    Args:
        logits: N x C (or C), as the network gives them.
        weights: The C loss or sampling weights ``w_c`` it was trained with, all above zero.
        temperature: Divides the natural logits (Guo et al., On calibration, ICML 2017).

    Returns:
        An array of the shape of ``logits``.

    Raises:
        ConfigError: The weights or the temperature are not positive, or not C weights.

    Examples:
        Trained with the second class counting twice, a network that sees no difference leans to it;
        the natural posterior does not.

        >>> logits = np.log([[1.0, 2.0]])
        >>> np.exp(natural_log_probabilities(logits, weights=[1.0, 2.0]))
        array([[0.5, 0.5]])
    """
    z = np.asarray(logits, dtype=np.float64)
    w = _per_class(weights, z.shape[-1], "weights")
    if not np.all(w > 0):
        raise ConfigError(f"the class weights {w.tolist()} are not all above 0")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"the temperature {temperature} is not above 0")
    return _log_softmax((z - np.log(w)) / temperature)


def balanced_log_probabilities(
    logits: NDArray[np.floating[Any]],
    weights: ArrayLike,
    shares: ArrayLike,
    temperature: float = 1.0,
) -> NDArray[np.float64]:
    """Return the balanced posterior's logarithm, ``log_softmax(z - log(π · w))`` at temperature 1.

    The temperature belongs to the natural posterior: the natural logits are divided by it first,
    and the shares are taken off after, so that these are the table's natural probabilities
    rebalanced.

    Args:
        logits: N x C (or C), as the network gives them.
        weights: The C loss or sampling weights ``w_c`` it was trained with, all above zero.
        shares: The C shares ``π_c`` of the training pictures. A class with share 0 was never
            seen; its balanced probability is 0.
        temperature: As in :func:`natural_log_probabilities`.

    Returns:
        An array of the shape of ``logits``; ``-inf`` for classes with share 0.

    Raises:
        ConfigError: Weights, shares or temperature are impossible.
    """
    natural = natural_log_probabilities(logits, weights, temperature)
    return _log_softmax(natural - _log_shares(shares, natural.shape[-1]))


def rebalance(natural: NDArray[np.floating[Any]], shares: ArrayLike) -> NDArray[np.float64]:
    """Turn natural probabilities into balanced ones: ``p_c / π_c``, normalised.

    Args:
        natural: Probabilities, N x C (or C).
        shares: The C class shares ``π_c``; a class with share 0 gets probability 0.

    Returns:
        Balanced probabilities of the same shape.

    Raises:
        ConfigError: The shares are impossible.

    Examples:
        Two of a hundred pictures show the second class; one that gives it 10 % is probably of it,
        were both classes equally common.

        >>> rebalance(np.array([0.9, 0.1]), shares=[0.98, 0.02]).round(2)
        array([0.16, 0.84])
    """
    p = np.asarray(natural, dtype=np.float64)
    with np.errstate(divide="ignore"):
        logarithm = np.log(p)
    return np.exp(_log_softmax(logarithm - _log_shares(shares, p.shape[-1])))


def _per_class(values: ArrayLike, classes: int, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (classes,) or not np.all(np.isfinite(array)):
        raise ConfigError(
            f"the class {what} {array.tolist()} are not {classes} finite numbers",
            "give one for each class, in the taxonomy's order",
        )
    return array


def _log_shares(shares: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Return log π, with ``+inf`` (so that subtracting it leaves ``-inf``) where π is 0."""
    array = _per_class(shares, classes, "shares")
    if np.any(array < 0) or not np.any(array > 0):
        raise ConfigError(f"the class shares {array.tolist()} are not shares of anything")
    return np.log(array, out=np.full(classes, np.inf), where=array > 0)


def _log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = z - z.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
