"""What can be guessed without a network: the score a network has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import NaevusError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BINS = 8


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return a picture's colours without their places: 8 bins for each of R, G and B.

    Args:
        pixels: H x W x 3 RGB.

    Returns:
        24 shares; each channel's sum to 1.
    """
    counts = [
        np.histogram(pixels[..., channel], bins=_BINS, range=(0, 256))[0] for channel in range(3)
    ]
    shares: NDArray[np.float64] = np.concatenate(counts) / (pixels.shape[0] * pixels.shape[1])
    return shares


def guess_by_colour(
    training: Sequence[NDArray[np.uint8]],
    diagnoses: Sequence[str],
    unseen: Sequence[NDArray[np.uint8]],
) -> list[str]:
    """Guess diagnoses from colour histograms by balanced logistic regression.

    Args:
        training: Pictures, H x W x 3 each.
        diagnoses: Their codes.
        unseen: Pictures to guess.

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
