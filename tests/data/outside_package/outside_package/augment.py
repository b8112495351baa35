"""Own augmentations."""

from __future__ import annotations

import numpy as np


class Vignette:
    """Darken the corners of half of the images, as the tube of a dermatoscope does."""

    def __call__(
        self, pixels: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return image uint8 H x W x 3 and mask in the shapes and types they came in."""
        if rng.random() < 0.5:
            return pixels, mask
        side = np.linspace(-1, 1, len(pixels))
        light = (side[:, None] ** 2 + side**2 < rng.uniform(0.9, 1.6))[..., None]
        return (pixels * light).astype(np.uint8), mask
