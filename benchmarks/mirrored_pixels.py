"""Fraction of mirrored pixels in training images, and of those for which the frame has real skin.

    python benchmarks/mirrored_pixels.py DATA RECIPE [--masks FOLDER] [--images 500]

Nothing is trained: the warps of epoch 0 are drawn as in training, and each pixel is traced back to
the frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from naevus.images.geometry import box_of, centre_box, square_with_margin, widened
from naevus.images.maskfile import read_mask
from naevus.images.masks import plausible
from naevus.runs.images import load_for, select_images
from naevus.runs.recipe import load_recipe
from naevus.training.augment import Augmentation, rng_for
from naevus.training.data import TrainingData

SIDE = 64
"""Pixels a side that are followed back; where they come from does not hang on how many they are."""


def main() -> None:
    """Print the fractions for each context."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--context", type=float, nargs="+", default=[1.0, 1.15, 1.3, 1.5])
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    dataset = select_images(load_for(options.data, recipe), recipe)
    sources = [s for s in TrainingData(dataset, Path(), options.masks).sources() if s.mask_path]
    chosen = sources[:: max(1, len(sources) // options.images)][: options.images]
    vary = Augmentation(recipe.augment)
    rows, columns = np.mgrid[:SIDE, :SIDE].reshape(2, -1)
    grid = np.stack([columns, rows, np.ones_like(rows)])
    found: dict[float, list[tuple[float, float]]] = {context: [] for context in options.context}
    for source in chosen:
        assert source.mask_path is not None
        mask = read_mask(source.mask_path)
        height, width = mask.shape
        box = box_of(mask) if plausible(mask) else None
        crop = centre_box(height, width)
        if box is not None:
            crop = square_with_margin(box, recipe.data.crop_margin, height, width)
        for context, class_priors in found.items():
            wide = widened(crop, context)
            warp = vary.warp(SIDE, SIDE, SIDE, rng_for(recipe.seed, 0, source.image_id), context)
            stored = (warp @ grid + 0.5) / SIDE  # in sides of the stored square
            x, y = wide.left + stored[0] * wide.width, wide.top + stored[1] * wide.height
            beyond = (stored < 0).any(0) | (stored > 1).any(0)  # of the stored square
            outside = (x < 0) | (y < 0) | (x > width) | (y > height)  # of the frame
            class_priors.append(
                (float((beyond | outside).mean()), float((beyond & ~outside).mean()))
            )
    print(f"{len(chosen)} frames, {options.recipe.name}")
    for context, class_priors in found.items():
        mirrored, needlessly = np.mean(class_priors, axis=0)
        print(
            f"context {context:g}: {mirrored:.1%} of the pixels mirrored, "
            f"{needlessly:.1%} although the frame had skin there"
        )


if __name__ == "__main__":
    main()
