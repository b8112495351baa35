"""What pictures show of themselves: the tone of the skin, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd

from naevus.errors import PictureError
from naevus.images import quality
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.io.parallel import Workers, batches, cpu_count

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from naevus.reports.results import Results

TONES: Final = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
)
"""Names of typology angles above a bound, in degrees (`naevus.images.quality.typology_angle`)."""
DARKEST: Final = "dark"
GOOD: Final = "nothing wrong"


class Appearance(NamedTuple):
    """What a picture shows of itself.

    Attributes:
        tone: The band of the skin's typology angle; None without a mask, or with too little skin.
        quality: The first of the picture's flags, or that there is none.
    """

    tone: str | None
    quality: str


def appearances(
    results: Results, progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame | None:
    """Return the `Appearance` of every diagnosed picture that can be read, by image id.

    Args:
        results: The answers; None is returned without their data set.
        progress: Called with (done, total) pictures.
    """
    if results.records is None or results.diagnosed is None or results.records["path"].isna().all():
        return None
    answered = results.diagnosed.table["image_id"]
    ids = [image_id for image_id in answered if image_id in results.records.index]
    found: dict[str, Appearance] = {}

    def look(image_id: str) -> Appearance | None:
        return _look(results, image_id)

    done = 0
    with Workers(cpu_count()) as workers:
        for piece in batches(ids):
            looked = zip(piece, workers.each(look, piece), strict=True)
            found |= {name: each for name, each in looked if isinstance(each, Appearance)}
            done += len(piece)
            if progress is not None:
                progress(done, len(ids))
    return pd.DataFrame.from_dict(found, orient="index", columns=Appearance._fields)


def tone_of(angle: float | None) -> str | None:
    """Return the name of a typology angle's band.

    Examples:
        >>> tone_of(48.0), tone_of(-40.0), tone_of(None)
        ('light', 'dark', None)
    """
    if angle is None:
        return None
    return next((name for name, least in TONES if angle > least), DARKEST)


def _look(results: Results, image_id: str) -> Appearance | None:
    assert results.records is not None
    row: dict[Any, Any] = results.records.loc[image_id].to_dict()
    if pd.isna(row["path"]):
        return None
    pixels = read(Path(str(row["path"])), shortest=quality.SIDE)
    mask = _mask(results, image_id, row["mask_path"])
    if mask is not None and not mask.any():
        mask = None
    told = quality.flags_of(pixels, mask)
    angle = None if mask is None else quality.typology_angle(pixels, mask)
    return Appearance(tone_of(angle), told[0].replace("_", " ") if told else GOOD)


def _mask(results: Results, image_id: str, true_mask: Any) -> NDArray[np.bool_] | None:
    """Return the mask that was predicted, else the true one, else None."""
    file = results.predicted_mask(image_id) or true_mask
    try:
        return read_mask(Path(file)) if pd.notna(file) else None
    except PictureError:
        return None
