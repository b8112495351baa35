"""A folder that predicts: ``bundle.json``, ONNX graphs and a model card, every file hashed."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from naevus.bundles.card import CARD, card_of
from naevus.bundles.spec import BundleSpec
from naevus.errors import BundleError, NaevusError
from naevus.files import sha256, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from naevus.bundles.spec import ClassifierSpec, Member, SegmenterSpec

MANIFEST = "bundle.json"
"""The file that names all others of a bundle."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked; ``sha256`` is that of its ``bundle.json``."""

    folder: Path
    spec: BundleSpec
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read a bundle and check its schema and the hash of every file.

        Raises:
            BundleError: It is absent, of another schema, incomplete, or a file was changed.
        """
        folder = Path(folder)
        manifest = folder / MANIFEST
        spec = _parse(manifest)
        for member in spec.members:
            if member.file not in spec.files:
                raise BundleError(f"{manifest}: member {member.file} has no hash", _EXPORT_AGAIN)
        for name, expected in spec.files.items():
            _check(folder / name, expected)
        return cls(folder, spec, sha256(manifest))

    @property
    def segmenter(self) -> SegmenterSpec:
        """What outlines lesions.

        Raises:
            BundleError: Nothing here does.
        """
        if self.spec.segmenter is None:
            raise BundleError(f"{self.folder}: outlines no lesions", "name a segmentation bundle")
        return self.spec.segmenter

    @property
    def classifier(self) -> ClassifierSpec:
        """What diagnoses.

        Raises:
            BundleError: Nothing here does.
        """
        if self.spec.classifier is None:
            raise BundleError(f"{self.folder}: gives no diagnoses", "name a classification bundle")
        return self.spec.classifier

    def member_path(self, member: Member) -> Path:
        """Return the path of a member's ONNX graph."""
        return self.folder / member.file


def write_bundle(folder: Path, spec: BundleSpec, files: Mapping[str, Path]) -> Bundle:
    """Write a bundle in one piece, replacing what is at ``folder``.

    It is built beside ``folder`` and renamed there, so that no half bundle is ever seen. A model
    card is added, and the hash of every file is put into the specification.

    Args:
        folder: Where the bundle goes.
        spec: What it is; its ``files`` are ignored and computed anew.
        files: File name in the bundle → the file to copy there.

    Returns:
        The bundle as read back.

    Raises:
        BundleError: A member's file is not among ``files``, a name is not a plain file name, or
            ``folder`` holds something else than a bundle.
        NaevusError: The disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    _check_names(spec, files)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not empty and is no bundle", "choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"
        ) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            _fill(new, spec, files)
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            new.rename(folder)
    except OSError as error:
        raise NaevusError(
            f"{folder}: the bundle cannot be written ({error.strerror or error})",
            "free some space or choose a folder you may write to",
        ) from error
    return Bundle.read(folder)


def find_bundles(folders: Iterable[Path]) -> list[Bundle]:
    """Read bundles; a run folder stands for the bundles of all its folds.

    Raises:
        BundleError: A folder is neither a bundle nor a run with exported folds.
    """
    found: list[Bundle] = []
    for folder in map(Path, folders):
        if (folder / MANIFEST).exists():
            found.append(Bundle.read(folder))
            continue
        inside = sorted(folder.glob(f"fold-*/bundle/{MANIFEST}"), key=_fold_number)
        if not inside:
            raise BundleError(
                f"{folder}: neither a bundle (no {MANIFEST}) nor a run with exported folds",
                "name a bundle's folder, or a run's folder after `naevus train` has ended a fold",
            )
        found += [Bundle.read(manifest.parent) for manifest in inside]
    return found


_EXPORT_AGAIN = "export the bundle again or take an undamaged copy"


def _fold_number(manifest: Path) -> tuple[int, str]:
    name = manifest.parents[1].name.removeprefix("fold-")
    return (int(name) if name.isdecimal() else 1 << 30, name)


def _parse(manifest: Path) -> BundleSpec:
    try:
        content = manifest.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{manifest}: cannot be read ({error.strerror})", "name the folder of a bundle"
        ) from error
    try:
        return BundleSpec.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise BundleError(
            f"{manifest}: {f'{where}: ' if where else ''}{problem}", _EXPORT_AGAIN
        ) from error


def _check(path: Path, expected: str) -> None:
    try:
        actual = sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", _EXPORT_AGAIN) from error
    if actual != expected:
        raise BundleError(f"{path}: changed since the bundle was written", _EXPORT_AGAIN)


def _check_names(spec: BundleSpec, files: Mapping[str, Path]) -> None:
    missing = [member.file for member in spec.members if member.file not in files]
    if missing:
        raise BundleError(f"bundle members without a file: {', '.join(missing)}")
    try:
        BundleSpec.model_validate(spec.model_dump() | {"files": dict.fromkeys(files, "0" * 64)})
    except ValidationError as error:
        raise BundleError(f"not plain file names: {', '.join(sorted(files))}") from error
    reserved = {MANIFEST, CARD} & files.keys()
    if reserved:
        raise BundleError(f"{min(reserved)} is written by the bundle itself")


def _fill(folder: Path, spec: BundleSpec, files: Mapping[str, Path]) -> None:
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
    write_text(folder / CARD, card_of(spec))
    names = sorted([*files, CARD])
    full = spec.model_copy(update={"files": {name: sha256(folder / name) for name in names}})
    write_text(folder / MANIFEST, full.model_dump_json(indent=2) + "\n")
