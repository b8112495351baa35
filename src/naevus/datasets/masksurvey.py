"""Check the masks of a data set as a whole: mostly empty, full, or inverted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.errors import DataError, ImageError
from naevus.images.maskfile import read_mask
from naevus.images.masks import PLAUSIBLE_FRACTIONS, area_fraction
from naevus.images.read import Limits
from naevus.io.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.io.progress import Reporter

SAMPLE: Final = 64
"""Number of masks to check, evenly spaced."""
_BORDER = 0.9
"""Fraction of the image border that an inverted mask covers; lesions seldom cover it."""
_LIMITS = Limits()
_FORCE = "pass --force if they are right"


class MaskSurvey(NamedTuple):
    """Counts of the masks that were checked.

    Attributes:
        masks: Number of checked masks.
        empty: Number with no or hardly any lesion pixels.
        full: Number with lesion pixels everywhere or nearly.
        turned: Number of others that cover nearly all of the border, so that lesions may be dark.
        unusable: The problem of each mask that cannot be read.
    """

    masks: int
    empty: int
    full: int
    turned: int
    unusable: tuple[str, ...]

    def problem(self) -> tuple[str, str] | None:
        """Return the problem of the masks as a whole and the remedy; None if there is none."""
        if not self.masks:
            return None
        if 2 * len(self.unusable) > self.masks:
            what = f"{len(self.unusable)} of {self.masks} masks cannot be used: {self.unusable[0]}"
            return what, "correct the masks; `naevus data check` lists the problem of each"
        return implausible_problem(self.masks, self.empty, self.full) or self._turned_round()

    def _turned_round(self) -> tuple[str, str] | None:
        others = self.masks - self.empty - self.full - len(self.unusable)
        if 2 * self.turned < max(1, others):
            return None
        what = (
            f"{self.turned} of {others} masks are light along the image border, as if lesions "
            "were dark"
        )
        return (
            what,
            f"write lesions as 255 and skin as 0 (255 - value), or {_FORCE}",
        )


def implausible_problem(masks: int, empty: int, full: int) -> tuple[str, str] | None:
    """Return the problem and the remedy if most masks are empty or full."""
    if 2 * (empty + full) <= masks:
        return None
    what = (
        f"{empty + full} of {masks} masks are empty or full ({empty} empty, {full} full): a "
        "network that finds nothing, or everything, would score well"
    )
    return what, (
        "correct them (`naevus data check` lists those of a data set), train the network that "
        f"predicted them for longer, or {_FORCE}"
    )


def survey(paths: Sequence[Path], limits: Limits = _LIMITS) -> MaskSurvey:
    """Read up to `SAMPLE` evenly spaced masks; unreadable ones are counted."""
    chosen = paths[:: -(-len(paths) // SAMPLE) or 1]
    empty = full = turned = 0
    unusable = []
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda path: _surveyed(path, limits), chosen):
            if isinstance(found, str):
                unusable.append(found)
                continue
            fraction, border = found
            empty += fraction < PLAUSIBLE_FRACTIONS[0]
            full += fraction > PLAUSIBLE_FRACTIONS[1]
            within = PLAUSIBLE_FRACTIONS[0] <= fraction <= PLAUSIBLE_FRACTIONS[1]
            turned += within and border >= _BORDER
    return MaskSurvey(len(chosen), empty, full, turned, tuple(unusable))


def check_masks(paths: Iterable[Path], where: Path, *, force: bool = False) -> str | None:
    """Refuse masks that are implausible as a whole.

    Args:
        paths: The masks.
        where: The data set, for the message.
        force: Whether to accept them.

    Returns:
        With ``force``, the accepted problem.

    Raises:
        DataError: Most masks are empty or full, seem inverted, or cannot be read.
    """
    return refuse(survey(list(paths)).problem(), where, force=force)


def check_areas(
    table: pd.DataFrame, where: Path, *, force: bool, reporter: Reporter = SILENT
) -> None:
    """Refuse mask scores if most ground-truth masks are empty or full.

    Args:
        table: Mask scores with ``lesion_area``, the ground truth's fraction of the image.
        where: Path of the ground truth, for the message.
        force: Whether to accept them with a warning.
        reporter: Receives that warning.

    Raises:
        DataError: Most masks are empty or full.
    """
    if "lesion_area" not in table.columns:
        return
    empty = int((table["lesion_area"] < PLAUSIBLE_FRACTIONS[0]).sum())
    full = int((table["lesion_area"] > PLAUSIBLE_FRACTIONS[1]).sum())
    note = refuse(implausible_problem(len(table), empty, full), where, force=force)
    if note is not None:
        reporter.warning(note)


def refuse(problem: tuple[str, str] | None, where: Path, *, force: bool) -> str | None:
    """Raise a problem, or return it if ``force`` is true.

    Raises:
        DataError: There is a problem and ``force`` is false.
    """
    if problem is None:
        return None
    what, remedy = problem
    if force:
        return f"{where}: {what}; accepted (--force)"
    raise DataError(f"{where}: {what}", remedy)


def _surveyed(path: Path, limits: Limits) -> tuple[float, float] | str:
    try:
        mask = read_mask(path, limits)
    except ImageError as error:
        return str(error)
    return area_fraction(mask), _border_fraction(mask)


def _border_fraction(mask: NDArray[np.bool_]) -> float:
    ring = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return float(np.concatenate(ring).mean())
