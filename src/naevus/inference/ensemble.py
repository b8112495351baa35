"""Several networks that answer as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from naevus.errors import ConfigError
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import ClassifierMember
    from naevus.types import Task

    Scalar = TypeVar("Scalar", bound=np.floating[Any])


_ALIKE: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("cleaning",),
    "classification": ("classes", "taxonomy"),
}


class Posterior(NamedTuple):
    """What an ensemble says of N pictures and C classes.

    Attributes:
        logits: N x C, the plain mean of the members' logits.
        natural: N x C probabilities of a picture drawn as the training pictures were.
        balanced: N x C probabilities as if every class were equally common.
        members: N x M x C, each member's own natural probabilities.
    """

    logits: NDArray[np.float32]
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    members: NDArray[np.float64]


def mean(arrays: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Return the mean of equally shaped arrays, holding one sum and no stack."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    total /= len(arrays)
    return total


class Trained(NamedTuple):
    """A member, its weights corrected by its bundle's offsets, and the bundle's temperature."""

    member: ClassifierMember
    temperature: float


def posterior(logits: Sequence[NDArray[np.float32]], trained: Sequence[Trained]) -> Posterior:
    """Average members that may have been trained with other weights on other shares.

    Each member's logits are first freed of its own weights (and, for the balanced probabilities,
    of its shares); the mean is taken of those, in logarithms. With one set of weights this is the
    mean logit.

    Args:
        logits: One N x C array a member.
        trained: How each member was trained, in the same order.
    """
    natural = [
        natural_log_probabilities(z, member.weights, temperature)
        for z, (member, temperature) in zip(logits, trained, strict=True)
    ]
    balanced = [
        balanced_log_probabilities(z, member.weights, member.shares, temperature)
        for z, (member, temperature) in zip(logits, trained, strict=True)
    ]
    return Posterior(
        logits=mean(logits),
        natural=_normalised(mean(natural)),
        balanced=_normalised(mean(balanced)),
        members=np.exp(np.stack(natural, axis=1)),
    )


def shares_of(trained: Sequence[Trained]) -> NDArray[np.float64]:
    """Return the class shares that go with the natural probabilities of `posterior`.

    Members' logarithms are averaged there, and their shares with them: the geometric mean,
    normalised. A class that one member never saw has share 0.
    """
    rows = np.array([member.shares for member, _ in trained], np.float64)
    logarithms = np.log(rows, where=rows > 0, out=np.full_like(rows, -np.inf))
    shares = np.exp(logarithms.mean(axis=0))
    return np.asarray(shares / max(shares.sum(), np.finfo(np.float64).tiny))


def check_together(bundles: Sequence[Bundle], task: Task) -> None:
    """Refuse bundles that cannot answer as one.

    Raises:
        BundleError: One does not do the task.
        ConfigError: There is none, or one has other classes or makes masks in another way.
    """
    if not bundles:
        raise ConfigError(f"no {task} bundle is given", "name one or more bundles")
    first = bundles[0]
    for bundle in bundles:
        for name in _ALIKE[task]:
            part = "segmenter" if task == "segmentation" else "classifier"
            one, other = (getattr(getattr(each, part), name) for each in (first, bundle))
            if one != other:
                raise ConfigError(
                    f"{first.folder} and {bundle.folder} differ in {name}",
                    "only bundles alike in it can be averaged",
                )


def _normalised(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = np.exp(logarithms - logarithms.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return probabilities
