"""Options and messages that commands about data sets share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from naevus.cli.console import errors, remark

if TYPE_CHECKING:
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds

ImageType = Literal["auto", "dermoscopic", "clinical", "tile", "all"]
TaxonomyName = Literal["auto", "isic2018", "isic2019", "milk10k", "binary", "own"]
IMAGE_TYPE_HELP: Final = "Type of the images to use; auto: dermoscopic ones, or all where none is."
TAXONOMY_HELP: Final = (
    "What diagnoses are read as; auto: what fits best; own: the labels as they are."
)


def tell_types(dataset: Dataset, image_type: str) -> None:
    """Say which files are not read, and how many images of other types are left out or used."""
    from naevus.datasets.dataset import DERMOSCOPIC
    from naevus.datasets.layouts import NOT_READ

    for problem in dataset.problems:
        if problem.kind == NOT_READ:
            remark("not read", f": {problem.detail}", to=errors)
    counts = dataset.image_types()
    others = {name: count for name, count in counts.items() if name != DERMOSCOPIC}
    if not others:
        return
    named = ", ".join(f"{count} {name}" for name, count in others.items())
    if image_type == "all" or (image_type == "auto" and DERMOSCOPIC not in counts):
        remark("not dermoscopic", f", used all the same: {named} images", to=errors)
        return
    kept = DERMOSCOPIC if image_type == "auto" else image_type
    named = ", ".join(f"{count} {name}" for name, count in counts.items() if name != kept)
    if named:
        remark("left out", f": {named} images (--image-type all takes them)", to=errors)


def tell_exceptions(folds: Folds) -> None:
    """Say which pictures of one group the folds are known to part."""
    for pair in folds.exceptions:
        remark(
            "known exception",
            f": the folds part {pair.image_id} and {pair.other_id} ({pair.reason})",
        )
