"""A small data set of Task 2: images with spots of a colour for each attribute, and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from naevus.images.read import write_png
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COLOURS = {
    "globules": (40, 60, 200),
    "milia_like_cyst": (250, 250, 90),
    "negative_network": (230, 120, 230),
    "pigment_network": (60, 30, 20),
    "streaks": (20, 160, 60),
}
SKIN, LESION = (220, 180, 160), (150, 90, 70)
INPUT, TRUTH = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task2_Training_GroundTruth_v3"
LESIONS = "ISIC2018_Task1_Training_GroundTruth"


def draw(number: int, side: int = 64) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]]]:
    """Draw an image and its masks, including ``lesion``; half of the attributes are present."""
    rng = np.random.default_rng(number)
    pixels = np.full((side, side, 3), SKIN, np.uint8)
    lesion = np.zeros((side, side), np.uint8)
    cv2.circle(lesion, (side // 2, side // 2), side // 3, 1, cv2.FILLED)
    pixels[lesion > 0] = LESION
    masks = {"lesion": lesion > 0}
    for k, (name, colour) in enumerate(COLOURS.items()):
        spot = np.zeros((side, side), np.uint8)
        if rng.random() < 0.5 or number % len(COLOURS) == k:
            x, y = rng.integers(side // 3, 2 * side // 3, 2).tolist()
            cv2.circle(spot, (x, y), side // 9, 1, cv2.FILLED)
            spot &= lesion
        for other in masks:
            if other != "lesion":
                masks[other] &= spot == 0
        masks[name] = spot > 0
        pixels[spot > 0] = colour
    return pixels, masks


def write_task2(root: Path, count: int = 20, side: int = 64) -> None:
    """Write images and the masks of their attributes, as the challenge's archives unpack."""
    for number in range(count):
        pixels, masks = draw(number, side)
        name = f"ISIC_{number:07d}"
        write_png(root / INPUT / f"{name}.png", pixels)
        for attribute in ATTRIBUTES:
            write_png(root / TRUTH / f"{name}_attribute_{attribute}.png", masks[attribute])


def write_shifted(root: Path, count: int = 20, side: int = 64, by: int = 9) -> None:
    """Write copies of the same images, shifted to the right, with their lesion masks."""
    for number in range(count):
        pixels, masks = draw(number, side)
        name = f"ISIC_{number:07d}"
        write_png(root / INPUT / f"{name}.png", np.roll(pixels, by, axis=1))
        write_png(root / LESIONS / f"{name}_segmentation.png", np.roll(masks["lesion"], by, axis=1))
