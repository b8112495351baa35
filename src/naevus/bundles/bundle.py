"""What predicts: ``bundle.json``, ONNX graphs and a model card, every file hashed."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from naevus.bundles.archive import SUFFIX, pack, unpacked
from naevus.bundles.card import CARD, card_of
from naevus.bundles.spec import EXPORT_AGAIN, MANIFEST, BundleSpec, parse_manifest
from naevus.errors import BundleError, NaevusError
from naevus.io.files import lock, sha256, sweep, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from naevus.bundles.spec import ClassifierSpec, Member, SegmenterSpec


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked; ``sha256`` is that of its ``bundle.json``."""

    folder: Path
    spec: BundleSpec
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read a bundle and check its schema and the hash of every file.

        Args:
            path: Its folder, or a ``.naevus`` file, which is unpacked into the user's cache.

        Raises:
            BundleError: It is absent, of another schema, incomplete, or a file was changed.
            NaevusError: It is one file, and the cache cannot be written.
        """
        path = Path(path)
        if not path.is_file():
            return cls._of_folder(path)
        folder = unpacked(path)
        try:
            return cls._of_folder(folder)
        except BundleError:
            # What lies in the cache may have been damaged there.
            return cls._of_folder(unpacked(path, afresh=True))

    @classmethod
    def _of_folder(cls, folder: Path) -> Bundle:
        manifest = folder / MANIFEST
        try:
            content = manifest.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{manifest}: cannot be read ({error.strerror})", "name the folder of a bundle"
            ) from error
        spec = parse_manifest(content, str(manifest))
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


def write_bundle(path: Path, spec: BundleSpec, files: Mapping[str, Path]) -> Bundle:
    """Write a bundle in one piece, replacing the one that is there.

    It is built beside its place and renamed there, so that no half bundle is ever seen. A model
    card is added, and the hash of every file is put into the specification.

    Args:
        path: The bundle's folder; or, where the name ends in ``.naevus``, its one file.
        spec: What it is; its ``files`` are ignored and computed anew.
        files: File name in the bundle → the file to copy there.

    Returns:
        The bundle as read back.

    Raises:
        BundleError: A member's file is not among ``files``, a name is not a plain file name, or
            something else than a bundle is at ``path``.
        NaevusError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    _check_names(spec, files)
    check_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.with_name(f".{path.name}.lock")
        with lock(held, path):
            sweep(path.parent, f"{path.name}.")
            _write(path, spec, files)
            with suppress(OSError):  # Windows keeps what is open
                held.unlink()
    except OSError as error:
        raise NaevusError(
            f"{path}: the bundle cannot be written ({error.strerror or error})",
            "free some space or choose a folder you may write to",
        ) from error
    return Bundle.read(path)


def _write(path: Path, spec: BundleSpec, files: Mapping[str, Path]) -> None:
    """Build a bundle beside its place and rename it there."""
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
    ) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        full = _fill(new, spec, files)
        if path.suffix == SUFFIX:
            pack(new, full, path)
        else:
            _replace(path, new, Path(temporary) / "old")


def check_place(path: Path) -> None:
    """Refuse a place for a new bundle that holds something else, or other files beside a bundle.

    Raises:
        BundleError: It does.
    """
    if not path.exists():
        return
    if path.suffix == SUFFIX:
        replaceable = zipfile.is_zipfile(path)
    else:
        replaceable = (path / MANIFEST).is_file() or (path.is_dir() and not any(path.iterdir()))
    if not replaceable:
        raise BundleError(f"{path} is there and is no bundle", "choose another place")
    if path.is_dir():
        others = {entry.name for entry in path.iterdir()} - _own_files(path)
        if others:
            raise BundleError(
                f"{path} holds {min(others)!r} beside a bundle", "choose another place, or move it"
            )


def _own_files(folder: Path) -> set[str]:
    """Return the names of a bundle's own files; of a damaged one all that may be of one."""
    try:
        return {MANIFEST, *parse_manifest((folder / MANIFEST).read_bytes(), "").files}
    except (OSError, BundleError):
        return {path.name for path in folder.iterdir() if path.is_file()}


def _replace(path: Path, new: Path, old: Path) -> None:
    """Put a new folder in the place of one that may be there; what was there stays if it fails."""
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise


BUILTIN = Path(__file__).with_name("builtin")
"""The folder of the bundle that comes with naevus."""


def builtin() -> Path:
    """Return the folder of the bundle that comes with naevus.

    Raises:
        BundleError: None does.
    """
    if not (BUILTIN / MANIFEST).is_file():
        raise BundleError(
            "no bundle is built into this naevus",
            'name one: --bundle DIR, or naevus.load("DIR") in Python',
        )
    return BUILTIN


def find_bundles(paths: Iterable[Path]) -> list[Bundle]:
    """Read bundles; a run's folder stands for the bundles of all its folds.

    Args:
        paths: Folders of bundles, ``.naevus`` files, or runs.

    Raises:
        BundleError: One is neither a bundle nor a run with exported folds, or is named twice.
        NaevusError: One is one file, and the cache cannot be written.
    """
    found: list[Bundle] = []
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.resolve() in seen:
            raise BundleError(f"{path}: is named twice", "name each bundle once")
        seen.add(path.resolve())
        if path.is_file() or (path / MANIFEST).exists():
            found.append(Bundle.read(path))
            continue
        inside = sorted(path.glob(f"fold-*/bundle/{MANIFEST}"), key=_fold_number)
        if not inside:
            raise BundleError(
                f"{path}: neither a bundle (no {MANIFEST}) nor a run with exported folds",
                f"name a bundle's folder or {SUFFIX} file, or a run's folder after "
                "`naevus train` has ended a fold",
            )
        found += [Bundle.read(manifest.parent) for manifest in inside]
    return found


def _fold_number(manifest: Path) -> tuple[int, str]:
    name = manifest.parents[1].name.removeprefix("fold-")
    return (int(name) if name.isdecimal() else 1 << 30, name)


def _check(path: Path, expected: str) -> None:
    try:
        actual = sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", EXPORT_AGAIN) from error
    if actual != expected:
        raise BundleError(f"{path}: changed since the bundle was written", EXPORT_AGAIN)


def _check_names(spec: BundleSpec, files: Mapping[str, Path]) -> None:
    missing = [member.file for member in spec.members if member.file not in files]
    if missing:
        raise BundleError(f"bundle members without a file: {', '.join(missing)}")
    reference = spec.classifier and spec.classifier.reference
    if reference and reference not in files:
        raise BundleError(f"reference statistics without a file: {reference}")
    if spec.sample is not None and spec.sample.file not in files:
        raise BundleError(f"a sample without a file: {spec.sample.file}")
    try:
        BundleSpec.model_validate(spec.model_dump() | {"files": dict.fromkeys(files, "0" * 64)})
    except ValidationError as error:
        raise BundleError(f"not plain file names: {', '.join(sorted(files))}") from error
    reserved = {MANIFEST, CARD} & files.keys()
    if reserved:
        raise BundleError(f"{min(reserved)} is written by the bundle itself")


def _fill(folder: Path, spec: BundleSpec, files: Mapping[str, Path]) -> BundleSpec:
    """Fill a new folder; return the specification with its hashes."""
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
    write_text(folder / CARD, card_of(spec))
    names = sorted([*files, CARD])
    full = spec.model_copy(update={"files": {name: sha256(folder / name) for name in names}})
    write_text(folder / MANIFEST, full.model_dump_json(indent=2) + "\n")
    return full
