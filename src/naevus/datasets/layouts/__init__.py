"""Layouts: one small reader each, recognised by the files in a folder."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naevus.datasets.dataset import DERMOSCOPIC, Dataset, Problem, make_table
from naevus.datasets.layouts import (
    class_folders,
    derm7pt,
    ham10000,
    images_masks,
    isic2016,
    isic2017,
    isic2018,
    isic2019,
    isic2020,
    isic_archive,
    labels_table,
    manifest,
    milk10k,
    pad_ufes,
    ph2,
    unlabelled,
)
from naevus.datasets.layouts.labels import OWN
from naevus.datasets.layouts.parsing import apply_groups, subfolders
from naevus.datasets.layouts.tabular import IGNORED
from naevus.datasets.layouts.values import ages_left_out, not_ages, to_ages
from naevus.datasets.listing import images_below, is_text, outputs_left_out, printable
from naevus.errors import DataError
from naevus.images.read import IMAGE_SUFFIXES
from naevus.io.formats import read_table, tables_in
from naevus.taxonomy import TAXONOMIES, Taxonomy, own_taxonomy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import pandas as pd

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.datasets.listing import Listing
    from naevus.io.progress import Reporter

LAYOUTS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        manifest,
        isic2018,
        isic2016,
        isic2017,
        isic2019,
        isic2020,
        ham10000,
        milk10k,
        derm7pt,
        pad_ufes,
        ph2,
        isic_archive,
        labels_table,
        class_folders,
        images_masks,
        unlabelled,
    )
}
"""The known layouts by name, in the order in which they are tried."""

GENERIC: Final = (labels_table.NAME, class_folders.NAME, images_masks.NAME)
"""The layouts that fit many folders; they are tried last, after those of other packages."""

ENTRY_POINTS: Final = "naevus.layouts"
"""The entry points under which other packages offer layouts."""


def other_layouts() -> dict[str, Any]:
    """Return the layouts of installed packages by name.

    An entry point of the group ``naevus.layouts`` is a module, or another object, with ``NAME``,
    ``DESCRIPTION``, ``matches`` and ``read``, as the modules here.

    Raises:
        DataError: One cannot be imported, or lacks one of these.
    """
    found = {}
    for point in entry_points(group=ENTRY_POINTS):
        where = f"the layout {point.name} of {point.dist.name if point.dist else point.value}"
        try:
            layout = point.load()
        except Exception as error:
            raise DataError(
                f"{where} cannot be imported ({type(error).__name__}: {error})",
                "correct or uninstall that package",
            ) from error
        needed = ("NAME", "DESCRIPTION", "matches", "read")
        if lacking := [name for name in needed if not hasattr(layout, name)]:
            raise DataError(f"{where} has no {', '.join(lacking)}", "correct that package")
        found[layout.NAME] = layout
    return found


def _in_order() -> Iterator[Any]:
    """Yield the layouts in the order in which they are tried; packages are imported late."""
    later = (*GENERIC, unlabelled.NAME)
    yield from (module for name, module in LAYOUTS.items() if name not in later)
    yield from other_layouts().values()
    yield from (LAYOUTS[name] for name in GENERIC)


_NO_IMAGES = frozenset({
    ".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xlsm", ".xls", ".ods", ".json", ".jsonl", ".toml",
    ".yaml", ".yml", ".parquet", ".md", ".rst", ".pdf", ".html", ".log", ".py", ".ipynb", ".sh",
    ".zip", ".tar", ".gz", ".tgz", ".npy", ".npz", ".db", ".ini",
})  # fmt: skip
"""Suffixes of files next to images that are not images."""

NOT_AN_AGE = "age not understood"
"""The problem of an image whose age counts as unknown."""

NOT_READ = "files not read"
"""The problem that counts skipped files by suffix."""

OUTPUTS = "folders left out"
"""The problem that counts skipped folders of predictions and runs."""

_REMEDY = (
    "use a folder per diagnosis, a folder masks beside one of images, a labels.csv with columns "
    "image and diagnosis, or a manifest.csv with a column path; the known layouts are "
    f"{', '.join(LAYOUTS)}"
)


def load(root: str | Path, layout: str | None = None, taxonomy: str | None = None) -> Dataset:
    """Read a folder of images (or a table of images) as a data set.

    No image is opened. ``*_Groups.csv`` files next to the layout are joined by image id.

    Args:
        root: The folder, or a table such as ``labels.csv``.
        layout: A name of `LAYOUTS`, or of a layout of another package; by default the first that
            matches.
        taxonomy: The taxonomy of the labels: a name of `naevus.taxonomy.TAXONOMIES`, or ``own``
            for the labels as they are; by default the best match.

    Raises:
        DataError: No layout matches, the files contradict each other, or most labels are not
            understood.

    Examples:
        >>> dataset = load("ISIC2018")
        >>> print(dataset.part("task3"))
        ISIC2018 (isic2018): 24 images of 24 lesions
               train
        MEL        4
        NV         6
        BCC        3
        AKIEC      3
        BKL        4
        DF         2
        VASC       2
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root} does not exist", "give the folder with the images")
    if root.is_file() and root.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{root} is an image, not a data set", f"name its folder, {root.parent}")
    chosen = _taxonomy(taxonomy)
    place, module = (root, _named(layout)) if layout is not None else _recognised(root, chosen)
    parsed: ParsedLayout = module.read(place, chosen)
    apply_groups(parsed, place)
    problems = (*parsed.problems, *_read_ages(parsed.frame), *_passed_over(place))
    table = make_table(parsed.frame, parsed.ties)
    return Dataset(table, root, module.NAME, parsed.taxonomy, problems)


def _read_ages(frame: pd.DataFrame) -> list[Problem]:
    """Replace the entries of the column of ages by years, in place; others are problems."""
    if "age" not in frame.columns:
        return []
    entries = frame["age"].astype("string")
    left_out = not_ages(entries)
    frame["age"] = to_ages(entries)
    ids = frame["image_id"][left_out.index]
    return [Problem(NOT_AN_AGE, image_id, age) for image_id, age in zip(ids, left_out, strict=True)]


def report_unread(dataset: Dataset, reporter: Reporter) -> None:
    """Report unread files and folders, and the columns and ages of tables that are not used."""
    ages = [(each.subject, each.detail) for each in dataset.problems if each.kind == NOT_AN_AGE]
    if ages:
        reporter.warning(ages_left_out(ages))
    for problem in dataset.problems:
        if problem.kind == NOT_READ:
            reporter.warning(problem.detail, "not read")
        elif problem.kind == OUTPUTS:
            reporter.warning(problem.detail, "left out")
        elif problem.kind == IGNORED:
            reporter.warning(f"{problem.detail} (columns of {problem.subject})", "ignored")


def report_types(dataset: Dataset, image_type: str, reporter: Reporter) -> None:
    """Report what is not read, and the numbers of images of other types that are left out or used.

    See `report_unread`.
    """
    report_unread(dataset, reporter)
    counts = dataset.image_types()
    others = {name: count for name, count in counts.items() if name != DERMOSCOPIC}
    if not others:
        return
    named = ", ".join(f"{count} {name}" for name, count in others.items())
    if image_type == "all" or (image_type == "auto" and DERMOSCOPIC not in counts):
        reporter.warning(f"{named} images, but used", "not dermoscopic")
        return
    kept = DERMOSCOPIC if image_type == "auto" else image_type
    named = ", ".join(f"{count} {name}" for name, count in counts.items() if name != kept)
    if named:
        reporter.warning(f"{named} images (use them with --image-type all)", "left out")


def _passed_over(place: Path) -> Iterator[Problem]:
    """Yield a problem for each image whose name is not UTF-8, and one for all unread files.

    Readers skip both, and naevus's own results. Unread files are counted by suffix; tables and
    texts are not counted.
    """
    if not place.is_dir():
        return
    listing = images_below(place)
    for file in listing.files:
        if not is_text(file):
            name = printable(file.relative_to(place))
            yield Problem("name is not UTF-8", name, "was left out: rename it")
    if listing.outputs:
        yield Problem(OUTPUTS, str(place), _outputs(listing, place))
    kinds = {
        kind: count
        for kind, count in sorted(listing.left_out.items())
        if kind.startswith(".") and kind not in _NO_IMAGES
    }
    if kinds:
        counts = ", ".join(f"{count} {printable(kind)}" for kind, count in kinds.items())
        yield Problem(NOT_READ, str(place), f"{counts}: format is not supported")


def _outputs(listing: Listing, place: Path) -> str:
    return outputs_left_out([str(folder.relative_to(place)) for folder in listing.outputs])


def _taxonomy(name: str | None) -> Taxonomy | None:
    if name is None:
        return None
    if name == "own":
        return own_taxonomy(())
    if name not in TAXONOMIES:
        raise DataError(f"unknown taxonomy {name!r}", f"use {', '.join(TAXONOMIES)} or own")
    return TAXONOMIES[name]


def _only_folder(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    inside = subfolders(root)
    return inside if len(inside) == 1 else []


def _named(layout: str) -> Any:
    known = LAYOUTS if layout in LAYOUTS else {**LAYOUTS, **other_layouts()}
    if layout not in known:
        raise DataError(f"unknown layout {layout!r}", f"use one of {', '.join(known)}")
    return known[layout]


def _recognised(root: Path, taxonomy: Taxonomy | None) -> tuple[Path, Any]:
    """Return the layout of a folder, or of its only subfolder, as in unpacked archives."""
    for place in (root, *_only_folder(root)):
        for module in _in_order():
            if module.matches(place):
                return place, module
    for place in (root, *_only_folder(root)):
        labels = class_folders.labels_of(place) if place.is_dir() else []
        if len(labels) > 1 and taxonomy is not None and taxonomy.name == OWN:
            return place, class_folders
        if unlabelled.matches(place):
            return place, unlabelled
        if len(labels) > 1:
            raise DataError(
                f"{place}: no known layout of images fits; if its folders are diagnoses, none is "
                f"understood: {', '.join(map(repr, labels[:12]))}",
                "name them as diagnoses (the page on own images lists spellings), take them as "
                "they are with --taxonomy own, or put a labels.csv there",
            )
    raise DataError(f"{root}: no known layout of images fits{_seen(root)}", _REMEDY)


def _seen(root: Path) -> str:
    """Describe the content of a folder without a known layout."""
    listing = images_below(root) if root.is_dir() else None
    images = len(listing.files) if listing else 0
    seen = f"; images below it: {images:,}" if images else "; no image lies below it"
    if listing and listing.outputs:
        seen += f", except in {_outputs(listing, root)}"
    for path in tables_in(root):
        columns = ", ".join(read_table(path).columns)
        return f"{seen}, and {path.name} with the columns {columns}"
    return seen
