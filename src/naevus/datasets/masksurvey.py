"""What no single mask tells and all of a data set's together do: empty, full, or turned round."""

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
"""Number of masks to check, spread over all."""
_BORDER = 0.9
"""Fraction of the image's border under a mask that looks turned round; lesions seldom fill it."""
_LIMITS = Limits()
_FORCE = "pass --force if they are right"


class MaskSurvey(NamedTuple):
    """Counts of the masks that were checked.

    Attributes:
        masks: How many were checked.
        empty: Without, or nearly without, a lesion.
        full: Lesion everywhere, or nearly.
        turned: The others whose lesion covers nearly all of the border: lesions may be dark.
        unusable: What is wrong with those that cannot be read.
    """

    masks: int
    empty: int
    full: int
    turned: int
    unusable: tuple[str, ...]

    def problem(self) -> tuple[str, str] | None:
        """Return what is wrong with the masks as a whole, and the remedy; None if nothing is."""
        if not self.masks:
            return None
        if 2 * len(self.unusable) > self.masks:
            what = f"{len(self.unusable)} of {self.masks} masks cannot be used: {self.unusable[0]}"
            return what, "mend the masks; `naevus data check` lists what is wrong with each"
        return implausible_problem(self.masks, self.empty, self.full) or self._turned_round()

    def _turned_round(self) -> tuple[str, str] | None:
        others = self.masks - self.empty - self.full - len(self.unusable)
        if 2 * self.turned < max(1, others):
            return None
        what = (
            f"{self.turned} of {others} masks are light along the image's border, as if lesions "
            "were dark in them"
        )
        return (
            what,
            f"write lesions as 255 and skin as 0 (255 - value), or {_FORCE}",
        )


def implausible_problem(masks: int, empty: int, full: int) -> tuple[str, str] | None:
    """Return what is wrong where most masks are empty or full, and the remedy."""
    if 2 * (empty + full) <= masks:
        return None
    what = (
        f"{empty + full} of {masks} masks are empty or full ({empty} empty, {full} full): a "
        "network would learn to find nothing, or everything, and be scored right for it"
    )
    return what, f"look at the masks with `naevus data check`, or {_FORCE}"


def survey(paths: Sequence[Path], limits: Limits = _LIMITS) -> MaskSurvey:
    """Look at up to `SAMPLE` masks, spread evenly; what cannot be read is counted."""
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
    """Refuse masks that cannot be right as a whole.

    Args:
        paths: The masks.
        where: The data set, for the message.
        force: Take them nevertheless.

    Returns:
        With ``force``, what would have been refused.

    Raises:
        DataError: Most are empty or full, seem turned round, or cannot be read.
    """
    return refuse(survey(list(paths)).problem(), where, force=force)


def refuse(problem: tuple[str, str] | None, where: Path, *, force: bool) -> str | None:
    """Raise a problem, or return it where it is forced.

    Raises:
        DataError: There is one, and it is not forced.
    """
    if problem is None:
        return None
    what, remedy = problem
    if force:
        return f"{where}: {what}; taken nevertheless (--force)"
    raise DataError(f"{where}: {what}", remedy)


def check_areas(
    table: pd.DataFrame, where: Path, *, force: bool, reporter: Reporter = SILENT
) -> None:
    """Refuse scores of masks most of whose ground truth is empty or full.

    Args:
        table: Scores of masks, with the true ``lesion_area`` of each, a fraction.
        where: Where the ground truth is, for the message.
        force: Say it, and take them nevertheless.
        reporter: Receives notes on what --force accepts.

    Raises:
        DataError: They are.
    """
    if "lesion_area" not in table.columns:
        return
    empty = int((table["lesion_area"] < PLAUSIBLE_FRACTIONS[0]).sum())
    full = int((table["lesion_area"] > PLAUSIBLE_FRACTIONS[1]).sum())
    note = refuse(implausible_problem(len(table), empty, full), where, force=force)
    if note is not None:
        reporter.warning(note)


def _surveyed(path: Path, limits: Limits) -> tuple[float, float] | str:
    try:
        mask = read_mask(path, limits)
    except ImageError as error:
        return str(error)
    return area_fraction(mask), _border_fraction(mask)


def _border_fraction(mask: NDArray[np.bool_]) -> float:
    ring = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return float(np.concatenate(ring).mean())
