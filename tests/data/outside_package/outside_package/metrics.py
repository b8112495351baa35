"""Own metrics."""

from __future__ import annotations

import numpy as np


def area_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean error of the area of masks, bool N x S x S, as a fraction of the image."""
    return float(np.abs(predicted.mean((1, 2)) - truth.mean((1, 2))).mean())


def top_2(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return how often the true class, of indices N, is among the two likeliest of N x C."""
    likeliest = np.argsort(probabilities, axis=1)[:, -2:]
    return float((likeliest == truth[:, None]).any(axis=1).mean())
