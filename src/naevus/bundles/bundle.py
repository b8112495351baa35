"""A bundle: a folder or one file of ``bundle.json``, graphs and a card, all of them hashed."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from naevus.bundles.card import CARD, card_of
from naevus.bundles.spec import EXPORT_AGAIN, MANIFEST, BundleSpec, is_file_name, parse_manifest
from naevus.errors import BundleError, NaevusError
from naevus.io.files import atomic, cache_folder, lock, sha256, sweep, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from naevus.bundles.spec import AttributesSpec, ClassifierSpec, Member, SegmenterSpec


# A bundle as one file: ``name.naevus``, a ZIP archive of the folder's files.
#
# It is packed without compression (weights hardly shrink), in a fixed order and with fixed times,
# so that the same bundle gives the same bytes. Engines want graphs as files, so it is unpacked,
# once, into the user's cache, in a folder named by the archive's own hash.

SUFFIX = ".naevus"
"""How the name of a bundle in one file ends."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first moment a ZIP archive can name
_ENCRYPTED = 0x1
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


class Limits(NamedTuple):
    """The largest archive that is unpacked.

    Attributes:
        files: How many files it may hold.
        size: Bytes of all of them, unpacked.
        manifest: Bytes of ``bundle.json``.
        ratio: Bytes unpacked for a byte packed.
    """

    files: int = 500
    size: int = 4 << 30
    manifest: int = 4 << 20
    ratio: int = 100


def pack(folder: Path, spec: BundleSpec, path: Path) -> Path:
    """Write a bundle's folder as one file, atomically.

    Args:
        folder: The bundle, checked.
        spec: What its ``bundle.json`` says; only the files it names are packed.
        path: The file; its name ends in ``.naevus``.

    Returns:
        ``path``.

    Raises:
        BundleError: The name does not end so.
        NaevusError: The file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise BundleError(f"{path}: is no name for a bundle", f"let it end in {SUFFIX}")
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in (MANIFEST, *sorted(spec.files)):
            source = folder / name
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system = 3  # UNIX, on every machine
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = source.stat().st_size
            with source.open("rb") as stream, archive.open(entry, "w") as target:
                shutil.copyfileobj(stream, target)
    return path


def unpacked(path: Path, limits: Limits = Limits(), *, afresh: bool = False) -> Path:  # noqa: B008
    """Return the folder with an archive's files, unpacking them into the cache if need be.

    Nothing is written before the whole table of contents has been checked: plain names only, each
    once and each with a hash in ``bundle.json``, no links, no encryption, and not too large.

    Args:
        path: The archive.
        limits: The largest that is unpacked.
        afresh: Replace what is in the cache.

    Raises:
        BundleError: It is no such archive, is damaged, or breaks a rule.
        NaevusError: The cache cannot be written.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            folder = archives_folder() / digest
            stream.seek(0)
            _unpack(stream, path, folder, limits, afresh=afresh)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        raise BundleError(f"{path}: is no bundle, or damaged ({error})", EXPORT_AGAIN) from error
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error})", "name a bundle"
        ) from error
    return folder


def archives_folder() -> Path:
    """Return where archives are unpacked: ``naevus/bundles`` in the user's cache.

    Raises:
        NaevusError: The user has no cache.
    """
    folder = cache_folder("bundles")
    if folder is None:
        raise NaevusError(
            "there is no home folder to unpack a bundle in",
            "set XDG_CACHE_HOME to a folder you may write to",
        )
    return folder


def _unpack(stream: IO[bytes], path: Path, folder: Path, limits: Limits, *, afresh: bool) -> None:
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        _check_entries(entries, path, limits)
        if MANIFEST not in archive.namelist():
            raise BundleError(f"{path}: holds no {MANIFEST}", EXPORT_AGAIN)
        content = _manifest(archive)
        if not afresh and _holds(folder, content):
            return
        spec = parse_manifest(content, f"{path}: {MANIFEST}")
        unknown_ids = {entry.filename for entry in entries} - {MANIFEST, *spec.files}
        if unknown_ids:
            raise BundleError(
                f"{path}: holds {min(unknown_ids)!r}, of which {MANIFEST} knows nothing",
                "do not use this file",
            )
        try:
            _fill_archive(archive, entries, folder)
        except OSError as error:
            raise NaevusError(
                f"{folder}: cannot be written ({error.strerror or error})",
                "free some space, or set XDG_CACHE_HOME to a folder you may write to",
            ) from error


def _manifest(archive: zipfile.ZipFile) -> bytes:
    """Return the manifest's content; no more is inflated than its entry claims, which was checked.

    ``ZipFile.read`` would inflate all there is before it looks at the claim.
    """
    with archive.open(MANIFEST) as stream:
        return stream.read(archive.getinfo(MANIFEST).file_size)


def _holds(folder: Path, manifest: bytes) -> bool:
    """Tell whether an archive with this manifest lies unpacked there.

    The manifest has the hashes of all other files, but its own stands nowhere.
    """
    try:
        return (folder / MANIFEST).read_bytes() == manifest
    except OSError:
        return False


def _fill_archive(
    archive: zipfile.ZipFile, entries: Iterable[zipfile.ZipInfo], folder: Path
) -> None:
    """Unpack beside ``folder`` and rename: it is whole or not there, whoever else unpacks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", suffix=".tmp") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        for entry in entries:
            with archive.open(entry) as stream, (new / entry.filename).open("xb") as target:
                shutil.copyfileobj(stream, target)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        try:
            new.rename(folder)
        except OSError:
            # Another process was quicker; the name is a hash, so what it put there is the same.
            if not folder.is_dir():
                raise


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, limits: Limits) -> None:
    if len(entries) > limits.files:
        raise BundleError(f"{path}: holds {len(entries)} files", f"{limits.files} at most are read")
    seen: set[str] = set()
    for entry in entries:
        problem = _problem(entry, seen, limits)
        if problem:
            raise BundleError(f"{path}: {entry.filename!r} {problem}", "do not use this file")
        seen.add(entry.filename.casefold())
    size = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if size > limits.size:
        raise BundleError(f"{path}: {size} bytes unpacked", f"{limits.size} at most are read")
    if size > limits.ratio * max(packed, 1):
        raise BundleError(
            f"{path}: {packed} bytes would become {size}",
            f"{limits.ratio} for one at most are read",
        )


def _problem(entry: zipfile.ZipInfo, seen: set[str], limits: Limits) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    rules = {
        "is no plain file name": is_file_name(entry.orig_filename),
        "stands twice": entry.filename.casefold() not in seen,
        "is a link or a device": kind in {0, stat.S_IFREG},
        "is encrypted": not entry.flag_bits & _ENCRYPTED,
        "is compressed in an uncommon way": entry.compress_type in _METHODS,
        "is too large": entry.filename != MANIFEST or entry.file_size <= limits.manifest,
    }
    return next((broken for broken, kept in rules.items() if not kept), "")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked; ``sha256`` is that of its ``bundle.json``."""

    folder: Path
    spec: BundleSpec
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> Bundle:
        """Read a bundle and check its schema and the hash of every file.

        Args:
            path: Its folder, or a ``.naevus`` file, which is unpacked into the user's cache.

        Raises:
            BundleError: It is absent, of another schema, incomplete, or a file was changed.
            NaevusError: It is one file, and the cache cannot be written.

        Examples:
            >>> print(Bundle.read("bundle"))  # doctest: +ELLIPSIS
            bundle: segmentation (...), classification (...)
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

    def __str__(self) -> str:
        """Return which networks it has, task by task."""
        parts = {
            "segmentation": self.spec.segmenter,
            "classification": self.spec.classifier,
            "attributes": self.spec.attributes,
        }
        networks = (
            f"{task} ({', '.join(member.architecture for member in part.members)})"
            for task, part in parts.items()
            if part is not None
        )
        return f"{self.folder}: {', '.join(networks)}"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``bundle.json`` holds as a dictionary that JSON can hold."""
        return self.spec.model_dump(mode="json")

    @property
    def segmenter(self) -> SegmenterSpec:
        """What segments lesions.

        Raises:
            BundleError: Nothing here does.
        """
        if self.spec.segmenter is None:
            raise BundleError(f"{self.folder}: contours no lesions", "name a segmentation bundle")
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

    @property
    def attributes(self) -> AttributesSpec:
        """What finds attributes.

        Raises:
            BundleError: Nothing here does.
        """
        if self.spec.attributes is None:
            raise BundleError(f"{self.folder}: finds no attributes", "name an attributes bundle")
        return self.spec.attributes

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
    reference = spec.classifier and spec.classifier.ood
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
