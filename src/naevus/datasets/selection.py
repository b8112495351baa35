"""Which images a job predicts, as a user names them, and which of them show the same lesion."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args
from urllib.parse import unquote, urlsplit

from naevus.datasets.listing import printable
from naevus.datasets.sources import (
    Found,
    IdKind,
    find_images,
    full_path,
    images_of_split,
    kept_ids,
    remote_images,
)
from naevus.errors import ConfigError, DataError, NaevusError
from naevus.io.files import TABLE_SUFFIXES
from naevus.io.limits import SMALLER, TEXT, TooLargeError, check_rows, check_text, read_limited
from naevus.io.progress import SILENT
from naevus.io.settings import check_choice
from naevus.io.stores import Store, url_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.patient_table import PatientTable
    from naevus.images.preprocess import ImageFiles
    from naevus.io.progress import Reporter


class Selected(NamedTuple):
    """The images of a job.

    Attributes:
        found: All images there are.
        sources: The images to predict: all, or if there is a limit, some that are spread evenly.
        lesions: The lesion of each image, by image id, as far as it is known: from a table, by
            folder, or as the data sets know it.
        layouts: The layouts of the data sets of the split.
        metadata: What these data sets know of the images, without effect on the predictions.
    """

    found: Found
    sources: list[ImageFiles]
    lesions: dict[str, str]
    layouts: list[str]
    metadata: PatientTable | None = None


@dataclass(frozen=True)
class Selection:
    """The images of a job, as they are named.

    Args:
        images: Images and folders, or data sets if there is a split; or remote addresses.
        input_list: A text file with a path a line.
        ids: What images are called by.
        split: Only this split of the data sets.
        part: Only this part of the split.
        image_type: Only images of this type, see `Dataset.of_type`.
        limit: The largest number of images, spread evenly, in whole lesions where they are known.
        lesions: A table with the lesion of each image.
        group_by: ``folder``: the images of one folder show one lesion.

    Raises:
        ConfigError: No images are named, or an option is unknown or has no effect.
    """

    images: Sequence[Path] = ()
    input_list: Path | None = None
    ids: IdKind = "name"
    split: str | None = None
    part: str | None = None
    image_type: str = "auto"
    limit: int | None = None
    lesions: Path | None = None
    group_by: Literal["folder"] | None = None

    def __post_init__(self) -> None:
        """Check that images are named, and that options have an effect."""
        if not self.images and self.input_list is None:
            raise ConfigError("no images are named", "name IMAGES, or a list with --input-list")
        check_choice("ids", self.ids, get_args(IdKind))
        if self.group_by is not None:
            check_choice("group_by", self.group_by, ("folder",))
        if self.split is not None and (self.input_list is not None or self.ids != "name"):
            raise ConfigError(
                f"{'--ids' if self.input_list is None else '--input-list'} does not apply to the "
                "split of a data set, which has its own ids",
                "leave out one of them",
            )
        if self.part is not None and self.split is None:
            raise ConfigError("--part selects part of a split", "name the split with --split")
        if self.image_type != "auto" and self.split is None:
            raise ConfigError(
                "--image-type applies to the split of a data set", "name the split with --split"
            )
        if self.lesions is not None and self.group_by is not None:
            raise ConfigError("--lesions and --group-by both name lesions", "leave out one of them")

    def find(self, out: Path, without: Path | None = None, reporter: Reporter = SILENT) -> Selected:
        """Find the images.

        Args:
            out: The output folder; images keep the ids that an earlier job into it gave them.
            without: A folder that is left out, such as the output folder.
            reporter: Receives what is read of data sets, and whether images are left out.

        Raises:
            DataError: A path does not exist, there is no image, a table is invalid, or no lesion
                is as small as the limit.
            NaevusError: A store cannot be listed.
        """
        of_datasets: list[dict[str, str]] = []
        layouts: list[str] = []
        tables: list[pd.DataFrame] = []

        def on_dataset(dataset: Dataset) -> None:
            from naevus.datasets.layouts import report_types  # noqa: PLC0415 (brings pandas)

            report_types(dataset, self.image_type, reporter)
            of_datasets.append(dataset.lesions())
            layouts.append(dataset.layout)
            tables.append(dataset.table)

        stores = [Store.of(url) for url in map(url_of, self.images) if url is not None]
        if stores:
            found = remote_images(stores, kept_ids(out))
        elif self.split is not None:
            kind = self.image_type
            found = Found(
                images_of_split(
                    self.images, self.split, self.part, image_type=kind, on_dataset=on_dataset
                )
            )
        else:
            listed = [] if self.input_list is None else paths_in_list(self.input_list)
            found = find_images(
                self.images, listed=listed, without=without, kept=kept_ids(out), ids=self.ids
            )
        if self.lesions is not None:
            known = lesions_in(self.lesions, found.sources)
        elif self.group_by is not None:
            known = lesions_by_folder(found.sources)
        elif self.split is None and not stores:
            known = _lesions_of_folders(self.images, found, reporter)
        else:
            known = _lesions_of_datasets(of_datasets, found.sources)
        sources = found.sources
        if self.limit is not None and self.limit < len(sources):
            sources = spread_out(sources, self.limit, known)
            whole = ", whole lesions" if known else ""
            reporter.warning(
                f"{len(sources):,} of {len(found.sources):,} images are predicted, spread evenly "
                f"over all{whole}",
                "limited",
            )
            known = {
                each.image_id: known[each.image_id] for each in sources if each.image_id in known
            }
        return Selected(found, sources, known, layouts, _kept(tables, sources))


def _lesions_of_folders(places: Sequence[Path], found: Found, reporter: Reporter) -> dict[str, str]:
    """Return the lesions of images that are given as whole data sets, by their files.

    Any folder of images may be given: one that is no data set knows no lesions.
    """
    if not set(TABLE_SUFFIXES) & found.left_out.keys():  # lesions are in tables
        return {}
    from naevus.datasets.layouts import load  # noqa: PLC0415 (brings pandas)

    each = []
    for place in places:
        try:
            rows = load(place).images().rows() if place.is_dir() else iter(())
        except NaevusError as error:
            if _names_lesions(place):
                reporter.warning(f"{error}: until then its lesions are not known")
            continue
        files = {full_path(row.path): row.lesion_id for row in rows if row.path and row.lesion_id}
        given = ((source.image_id, files.get(full_path(source.path))) for source in found.sources)
        each.append({image_id: lesion for image_id, lesion in given if lesion is not None})
    try:
        return _lesions_of_datasets(each, found.sources)
    except DataError as error:
        reporter.warning(f"{error}: until then no lesion is known")
        return {}


def _names_lesions(folder: Path) -> bool:
    """Return whether a table in a folder has a column of lesions."""
    from naevus.io.formats import known_columns, read_table, tables_in  # noqa: PLC0415 (slow)

    for path in tables_in(folder):
        with suppress(NaevusError):
            if "lesion_id" in known_columns(read_table(path)):
                return True
    return False


def _lesions_of_datasets(
    each: Sequence[Mapping[str, str]], sources: Sequence[ImageFiles]
) -> dict[str, str]:
    """Return the lesions of images of several data sets, which may have numbered them alike."""
    ids = {source.image_id for source in sources}
    found: dict[str, str] = {}
    for lesions in each:
        new = ids - found.keys()  # a data set may be named twice
        own = {image_id: lesion for image_id, lesion in lesions.items() if image_id in new}
        shared = set(own.values()) & set(found.values())
        if shared:
            raise DataError(
                f"two of the data sets have a lesion {min(shared)!r}, which may not be the same",
                "predict one after the other, or name the lesions of all images with --lesions",
            )
        found |= own
    return found


def _kept(tables: Sequence[pd.DataFrame], sources: Sequence[ImageFiles]) -> PatientTable | None:
    """Return what data sets know of images."""
    if not tables:
        return None
    import pandas as pd  # noqa: PLC0415 (slow)

    from naevus.datasets.patient_table import PatientTable  # noqa: PLC0415 (brings pandas)

    rows = pd.concat(tables)
    return PatientTable.kept(rows[rows["image_id"].isin([each.image_id for each in sources])])


def spread_out(
    sources: Sequence[ImageFiles], limit: int, lesions: Mapping[str, str]
) -> list[ImageFiles]:
    """Return at most ``limit`` images in whole lesions, spread evenly over all.

    Lesions are taken in the order of van der Corput (1935): the first, one from the middle, one
    from each half and so on. A larger limit therefore adds to the images of a smaller one, unless a
    lesion did not fit.

    Args:
        sources: The images, in order.
        limit: The largest number of images.
        lesions: The lesion of each image, by id; any other image counts as a lesion of its own.

    Raises:
        DataError: No lesion is as small as the limit.

    Examples:
        >>> from naevus.images.preprocess import ImageFiles
        >>> files = [ImageFiles(str(n), Path(f"{n}.jpg")) for n in range(8)]
        >>> [each.image_id for each in spread_out(files, 4, {})]
        ['0', '2', '4', '6']
        >>> [each.image_id for each in spread_out(files, 4, {"4": "L", "5": "L", "6": "L"})]
        ['0', '4', '5', '6']
    """
    found: dict[tuple[bool, str], list[int]] = {}
    for place, source in enumerate(sources):
        lesion = lesions.get(source.image_id)
        found.setdefault((lesion is None, lesion or source.image_id), []).append(place)
    members = list(found.values())
    digits = len(members).bit_length()
    order = sorted(range(len(members)), key=lambda number: f"{number:0{digits}b}"[::-1])
    chosen: list[int] = []
    for number in order:
        if len(chosen) + len(members[number]) <= limit:
            chosen += members[number]
    if not chosen:
        raise DataError(
            f"the smallest lesion has {min(map(len, members))} images, more than the limit of "
            f"{limit}",
            "raise --limit",
        )
    return [sources[place] for place in sorted(chosen)]


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")


def paths_in_list(path: Path) -> list[Path]:
    """Return the paths in a text file, one a line.

    Blank lines and lines that begin with ``#`` are skipped. Relative paths are relative to the
    working directory, so that parts of a list mean the same wherever they are. ``file://`` is
    accepted.

    Raises:
        DataError: The file is too large, cannot be read or names no path, or a line has another
            scheme.
    """
    try:
        check_text(path)
        content = read_limited(path, TEXT)
        check_rows(content.count(b"\n"))
    except TooLargeError as error:
        raise DataError(f"{path}: {error}", SMALLER) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", "name a text file") from error
    if b"\0" in content:
        raise DataError(f"{path}: is not text in UTF-8", "write one path a line, in UTF-8")
    found = []
    text = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))
    for number, line in enumerate(text.split("\n"), 1):
        given = line.strip()
        if not given or given.startswith("#"):
            continue
        scheme = _SCHEME.match(given)
        if scheme is not None and scheme[0].lower() != "file":
            raise DataError(
                f"{path}, line {number}: {printable(given)} is no file, and {scheme[0]}:// is not "
                "supported",
                "mount or copy the images and list their paths",
            )
        found.append(Path(given if scheme is None else unquote(urlsplit(given).path)))
    if not found:
        raise DataError(f"{path}: lists no path", "write one path a line")
    return found


def lesions_by_folder(sources: Sequence[ImageFiles]) -> dict[str, str]:
    """Return the lesion of each image, by id: the images of one folder show one lesion.

    A lesion is named like its folder below the folder that contains all of them.

    Examples:
        >>> from naevus.images.preprocess import ImageFiles
        >>> files = ("in/arm/1.jpg", "in/arm/2.jpg", "in/leg/3.jpg")
        >>> lesions_by_folder([ImageFiles(Path(name).stem, Path(name)) for name in files])
        {'1': 'arm', '2': 'arm', '3': 'leg'}
    """
    folders = {source.image_id: PurePath(full_path(source.path)).parent for source in sources}
    try:
        base = os.path.commonpath({folder.parent for folder in folders.values()})
    except ValueError:  # on several drives
        return {image_id: folder.as_posix() for image_id, folder in folders.items()}
    return {image_id: folder.relative_to(base).as_posix() for image_id, folder in folders.items()}


def lesions_in(path: Path, sources: Sequence[ImageFiles]) -> dict[str, str]:
    """Return the lesion of each image that a table knows, by id (see `RowNames`).

    Args:
        path: A table with a column of lesions and one of image ids (or file names), or of paths as
            in a manifest.
        sources: The images; rows of other images are ignored.

    Raises:
        DataError: A column is missing, an image is in two lesions, or the table has none of the
            images.
    """
    from naevus.datasets.row_names import RowNames  # noqa: PLC0415 (brings pandas)
    from naevus.io.formats import known_columns, read_table  # noqa: PLC0415 (as well)

    table = read_table(path)
    columns = known_columns(table)
    if "lesion_id" not in columns:
        raise DataError(f"{path}: has no column lesion_id", "name the column of the lesions so")
    if not {"image_id", "path"} & columns.keys():
        raise DataError(f"{path}: has no column image_id", "name the column of the images so")
    by_id = "image_id" in columns
    rows = table[[columns["image_id" if by_id else "path"], columns["lesion_id"]]].dropna()
    names = RowNames.of(rows.iloc[:, 0], path.parent, paths_only=not by_id)
    lesions: defaultdict[str, list[str]] = defaultdict(list)
    for key, lesion in zip(names.keys, rows.iloc[:, 1], strict=True):
        lesions[key].append(lesion)
    keys = names.keys_of(sources)
    if not by_id:
        keys = {each.image_id: names.files.get(full_path(each.path), "") for each in sources}
    elsewhere = names.other_files(
        {keys[each.image_id]: each.path for each in sources if each.image_id in keys}
    )
    found: dict[str, str] = {}
    for image_id, key in keys.items():
        if key not in lesions or key in elsewhere:
            continue
        found[image_id], *others = dict.fromkeys(lesions[key])
        if others:
            raise DataError(
                f"{path}: the image {image_id} is in two lesions, {found[image_id]} and "
                f"{others[0]}",
                "keep one of the two rows",
            )
    if not found:
        raise DataError(
            f"{path}: has none of the {len(sources):,} images, such as "
            f"{min(each.image_id for each in sources)}",
            "use image ids: file names without suffix",
        )
    return found
