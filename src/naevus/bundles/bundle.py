"""A bundle: ``bundle.json``, ONNX graphs and a model card in a folder or one file, all hashed."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from naevus.bundles.card import CARD, card_of
from naevus.bundles.spec import EXPORT_AGAIN, MANIFEST, BundleSpec, is_file_name, parse_manifest
from naevus.errors import BundleError, NaevusError
from naevus.io.files import (
    atomic,
    cache_folder,
    lock,
    put_folder,
    sha256,
    workspace,
    write_text,
)
from naevus.io.limits import RATIO, TooLargeError, check_ratio, read_limited

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from naevus.bundles.spec import AttributesSpec, ClassifierSpec, Member, SegmenterSpec


# A bundle as one file: ``name.naevus``, a ZIP archive of the folder's files.
#
# It is packed without compression (weights hardly shrink), in a fixed order and with fixed times,
# so that the same bundle gives the same bytes. Engines need graphs as files, so the archive is
# unpacked once into the user's cache, into a folder named after the archive's hash.

SUFFIX = ".naevus"
"""The file name extension of a bundle in one file."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP archive can store
_ENCRYPTED = 0x1
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


class Limits(NamedTuple):
    """Limits on archives that are unpacked.

    Attributes:
        files: The maximum number of files.
        size: The maximum total unpacked size in bytes.
        manifest: The maximum size of ``bundle.json`` in bytes.
        ratio: The maximum ratio of unpacked to packed size.
    """

    files: int = 500
    size: int = 4 << 30
    manifest: int = 4 << 20
    ratio: int = RATIO


def pack(folder: Path, spec: BundleSpec, path: Path) -> Path:
    """Pack a bundle's folder into one file, atomically.

    Args:
        folder: The folder of a valid bundle.
        spec: Its specification; only the files listed there are packed.
        path: The file to write; its name ends in ``.naevus``.

    Returns:
        ``path``.

    Raises:
        BundleError: The name does not end in ``.naevus``.
        NaevusError: The file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise BundleError(f"{path}: not a bundle's file name", f"choose a name ending in {SUFFIX}")
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
    """Return the folder with an archive's files, unpacking them into the cache if necessary.

    Nothing is written before the whole table of contents has been checked: plain unique names,
    each with a hash in ``bundle.json``, no links, no encryption, and sizes within the limits.

    Args:
        path: The archive.
        limits: Limits on the archive.
        afresh: Replace the folder in the cache.

    Raises:
        BundleError: The file is not a bundle, is damaged, or violates a rule.
        NaevusError: The cache cannot be written.
    """
    if path.suffix.lower() != ".naevus" and not zipfile.is_zipfile(path):
        raise BundleError(f"{path}: not a bundle", "name a bundle: a folder, or a .naevus file")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            folder = archives_folder() / digest
            stream.seek(0)
            _unpack(stream, path, folder, limits, afresh=afresh)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        raise BundleError(f"{path}: not a bundle, or damaged ({error})", EXPORT_AGAIN) from error
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error})", "name a bundle"
        ) from error
    return folder


def archives_folder() -> Path:
    """Return the folder for unpacked archives: ``naevus/bundles`` in the user's cache.

    Raises:
        NaevusError: The user has no cache folder.
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
            raise BundleError(f"{path}: contains no {MANIFEST}", EXPORT_AGAIN)
        content = _manifest(archive)
        if not afresh and _holds(folder, content):
            return
        spec = parse_manifest(content, f"{path}: {MANIFEST}")
        unknown = {entry.filename for entry in entries} - {MANIFEST, *spec.files}
        if unknown:
            raise BundleError(
                f"{path}: contains {min(unknown)!r}, which {MANIFEST} does not list",
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
    """Return the manifest's content, inflating no more than the size that its entry states.

    ``ZipFile.read`` would inflate everything before it compares the size.
    """
    with archive.open(MANIFEST) as stream:
        return stream.read(archive.getinfo(MANIFEST).file_size)


def _holds(folder: Path, manifest: bytes) -> bool:
    """Report whether the folder contains the unpacked archive with this manifest.

    The manifest contains the hashes of all other files, but its own is stored nowhere.
    """
    try:
        return (folder / MANIFEST).read_bytes() == manifest
    except OSError:
        return False


def _fill_archive(
    archive: zipfile.ZipFile, entries: Iterable[zipfile.ZipInfo], folder: Path
) -> None:
    """Unpack beside ``folder`` and rename, so that other processes never see half a folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with workspace(folder) as temporary:
        new = temporary / "new"
        new.mkdir()
        for entry in entries:
            with archive.open(entry) as stream, (new / entry.filename).open("xb") as target:
                shutil.copyfileobj(stream, target)
        if folder.exists():
            folder.rename(temporary / "old")
        try:
            new.rename(folder)
        except OSError:
            # Another process was faster; the name is a hash, so the content is the same.
            if not folder.is_dir():
                raise


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, limits: Limits) -> None:
    if len(entries) > limits.files:
        raise BundleError(
            f"{path}: contains {len(entries)} files", f"at most {limits.files} are allowed"
        )
    seen: set[str] = set()
    for entry in entries:
        problem = _problem(entry, seen, limits)
        if problem:
            raise BundleError(f"{path}: {entry.filename!r} {problem}", "do not use this file")
        seen.add(entry.filename.casefold())
    size = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if size > limits.size:
        raise BundleError(f"{path}: {size} bytes unpacked", f"at most {limits.size} are allowed")
    try:
        check_ratio(size, packed, limits.ratio)
    except TooLargeError as error:
        remedy = f"a ratio of at most {limits.ratio} is allowed"
        raise BundleError(f"{path}: {error}", remedy) from error


def _problem(entry: zipfile.ZipInfo, seen: set[str], limits: Limits) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    rules = {
        "is not a plain file name": is_file_name(entry.orig_filename),
        "is listed twice": entry.filename.casefold() not in seen,
        "is a link or a device": kind in {0, stat.S_IFREG},
        "is encrypted": not entry.flag_bits & _ENCRYPTED,
        "has an unsupported compression": entry.compress_type in _METHODS,
        "is too large": entry.filename != MANIFEST or entry.file_size <= limits.manifest,
    }
    return next((broken for broken, kept in rules.items() if not kept), "")


@dataclass(frozen=True)
class Bundle:
    """A bundle with verified files; ``sha256`` is the hash of its ``bundle.json``."""

    folder: Path
    spec: BundleSpec
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> Bundle:
        """Read a bundle and check its schema and the hash of every file.

        Args:
            path: A bundle's folder, or a ``.naevus`` file, which is unpacked into the user's cache.

        Raises:
            BundleError: The bundle is missing or incomplete, has another schema, or a file was
                changed.
            NaevusError: A ``.naevus`` file cannot be unpacked into the cache.

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
            # The folder in the cache may have been damaged.
            return cls._of_folder(unpacked(path, afresh=True))

    @classmethod
    def _of_folder(cls, folder: Path) -> Bundle:
        manifest = folder / MANIFEST
        if not folder.exists():
            raise BundleError(f"{folder} does not exist", "name a bundle")
        try:
            content = read_limited(manifest, Limits().manifest)
        except TooLargeError as error:
            raise BundleError(f"{manifest}: {error}", "do not use this bundle") from error
        except OSError as error:
            raise BundleError(
                f"{manifest}: cannot be read ({error.strerror})", "name the folder of a bundle"
            ) from error
        spec = parse_manifest(content, str(manifest))
        if len(spec.files) > Limits().files:
            raise BundleError(
                f"{manifest}: lists {len(spec.files)} files",
                f"at most {Limits().files} are allowed",
            )
        for name, expected in spec.files.items():
            _check(folder / name, expected)
        return cls(folder, spec, sha256(manifest))

    def __str__(self) -> str:
        """List the networks by task."""
        networks = (
            f"{task} ({', '.join(member.architecture for member in self.spec.members_of(task))})"
            for task in self.spec.tasks
        )
        return f"{self.folder}: {', '.join(networks)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``bundle.json`` as a dictionary for JSON."""
        return self.spec.model_dump(mode="json")

    @property
    def segmenter(self) -> SegmenterSpec:
        """The segmenter's specification.

        Raises:
            BundleError: The bundle has no segmenter.
        """
        if self.spec.segmenter is None:
            raise BundleError(f"{self.folder}: has no segmenter", "name a segmentation bundle")
        return self.spec.segmenter

    @property
    def classifier(self) -> ClassifierSpec:
        """The classifier's specification.

        Raises:
            BundleError: The bundle has no classifier.
        """
        if self.spec.classifier is None:
            raise BundleError(f"{self.folder}: has no classifier", "name a classification bundle")
        return self.spec.classifier

    @property
    def attributes(self) -> AttributesSpec:
        """The specification of the attribute networks.

        Raises:
            BundleError: The bundle has no networks for attributes.
        """
        if self.spec.attributes is None:
            raise BundleError(
                f"{self.folder}: has no networks for attributes", "name an attributes bundle"
            )
        return self.spec.attributes

    def member_path(self, member: Member) -> Path:
        """Return the path of a member's ONNX graph."""
        return self.folder / member.file


def write_bundle(path: Path, spec: BundleSpec, files: Mapping[str, Path]) -> Bundle:
    """Write a bundle atomically, replacing an existing one.

    The bundle is built in a temporary folder and renamed, so that it is never half written. A
    model card is added, and the specification receives the hash of every file.

    Args:
        path: The bundle's folder, or its file if the name ends in ``.naevus``.
        spec: The specification; its ``files`` are ignored and computed again.
        files: The source path of each file, by its name in the bundle.

    Returns:
        The written bundle.

    Raises:
        BundleError: A member's file is not among ``files``, a name is not a plain file name, or
            ``path`` is something other than a bundle.
        NaevusError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    _check_names(spec, files)
    check_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.with_name(f".{path.name}.lock")
        with lock(held, path):
            _write(path, spec, files)
            with suppress(OSError):  # Windows does not delete open files
                held.unlink()
    except OSError as error:
        raise NaevusError(
            f"{path}: the bundle cannot be written ({error.strerror or error})",
            "free some space or choose a folder you may write to",
        ) from error
    return Bundle.read(path)


def _write(path: Path, spec: BundleSpec, files: Mapping[str, Path]) -> None:
    """Build a bundle in a temporary folder and rename it."""
    with workspace(path) as temporary:
        new = temporary / "new"
        new.mkdir()
        full = _fill(new, spec, files)
        if path.suffix == SUFFIX:
            pack(new, full, path)
        else:
            put_folder(new, path, temporary / "old")


def check_place(path: Path) -> None:
    """Check that a new bundle can be written to a path without deleting anything else.

    Raises:
        BundleError: The path is something other than a bundle, or has files of others.
    """
    if not path.exists():
        return
    if path.suffix == SUFFIX:
        replaceable = zipfile.is_zipfile(path)
    else:
        replaceable = (path / MANIFEST).is_file() or (path.is_dir() and not any(path.iterdir()))
    if not replaceable:
        raise BundleError(f"{path} exists and is not a bundle", "choose another path")
    if path.is_dir():
        others = {entry.name for entry in path.iterdir()} - _own_files(path)
        if others:
            raise BundleError(
                f"{path} contains {min(others)!r}, which is not part of the bundle",
                "choose another path, or move that file",
            )


def _own_files(folder: Path) -> set[str]:
    """Return the names of a bundle's own files.

    Of a damaged or older bundle these are known by their names alone; if ``bundle.json`` is that of
    another program, there are none.
    """
    try:
        content = read_limited(folder / MANIFEST, Limits().manifest)
        return {MANIFEST, *parse_manifest(content, "").files}
    except (OSError, TooLargeError):
        return set()
    except BundleError:
        if b'"segmenter"' not in content:  # every bundle.json has this entry, near its beginning
            return set()
    names = {path.name for path in folder.iterdir() if path.is_file()}
    return {name for name in names if name in {MANIFEST, CARD} or name.endswith((".onnx", ".npz"))}


BUILTIN = Path(__file__).with_name("builtin")
"""The folder of the built-in bundle."""

BUILT_IN: Final = "built-in"
"""Stands for the built-in bundle where bundles are named."""


def builtin() -> Path:
    """Return the folder of the built-in bundle.

    Raises:
        BundleError: This installation has none.
    """
    if not (BUILTIN / MANIFEST).is_file():
        raise BundleError(
            "this installation of naevus has no built-in bundle",
            'name one: --bundle DIR, or naevus.load("DIR") in Python',
        )
    return BUILTIN


def is_built_in(path: Path) -> bool:
    """Return whether a path is the name of the built-in bundle.

    Raises:
        BundleError: A file or folder here has that name, too.
    """
    if str(path) != BUILT_IN:
        return False
    if path.exists():
        raise BundleError(
            f"{BUILT_IN} means the built-in bundle, and a folder here has that name",
            "name the folder by its whole path, or rename it",
        )
    return True


def place_of(path: Path) -> Path:
    """Return the path of a bundle: the built-in one's, if its name is given.

    Raises:
        BundleError: This installation has none, or a file or folder here has its name, too.
    """
    return builtin() if is_built_in(path) else path


def find_bundles(paths: Iterable[Path]) -> list[Bundle]:
    """Read bundles; a run folder gives the bundles of all its finished folds.

    Args:
        paths: Bundle folders, ``.naevus`` files, run folders, or `BUILT_IN`.

    Raises:
        BundleError: A path is neither a bundle nor a run with finished folds, is given twice, or
            is both the built-in bundle's name and a folder's.
        NaevusError: A ``.naevus`` file cannot be unpacked into the cache.
    """
    found: list[Bundle] = []
    seen: set[Path] = set()
    for name in map(Path, paths):
        path = place_of(name)
        if path.resolve() in seen:
            raise BundleError(f"{name}: given twice", "name each bundle once")
        seen.add(path.resolve())
        if path.is_file() or (path / MANIFEST).exists():
            found.append(Bundle.read(path))
            continue
        inside = sorted(path.glob(f"fold-*/bundle/{MANIFEST}"), key=_fold_number)
        if not inside:
            neither = f": neither a bundle (no {MANIFEST}) nor a run with finished folds"
            remedy = (
                f"name a bundle folder, a {SUFFIX} file, {BUILT_IN}, or a run folder in which "
                "`naevus train` has finished a fold"
            )
            for before in runs_before(path)[-1:]:
                remedy = f"name {before}, the run before it was extended"
            raise BundleError(f"{path}{neither if path.exists() else ' does not exist'}", remedy)
        found += [Bundle.read(manifest.parent) for manifest in inside]
    return found


def runs_before(run: Path) -> list[Path]:
    """Return the runs ``epochs-N`` in a run's folder that it was before it was extended, in order.

    Each has the folds that were finished then.
    """
    found = [each.parent for each in run.glob("epochs-*/run.toml")]
    numbers = {each: each.name.split("-")[1:] for each in found}
    return sorted(
        (each for each in found if all(map(str.isdecimal, numbers[each]))),
        key=lambda each: list(map(int, numbers[each])),
    )


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
    ood = spec.classifier and spec.classifier.ood
    if ood and ood not in files:
        raise BundleError(f"OOD statistics without a file: {ood}")
    if spec.sample is not None and spec.sample.file not in files:
        raise BundleError(f"sample without a file: {spec.sample.file}")
    try:
        BundleSpec.model_validate(spec.model_dump() | {"files": dict.fromkeys(files, "0" * 64)})
    except ValidationError as error:
        raise BundleError(f"not plain file names: {', '.join(sorted(files))}") from error
    reserved = {MANIFEST, CARD} & files.keys()
    if reserved:
        raise BundleError(f"{min(reserved)} is a reserved name: write_bundle writes this file")


def _fill(folder: Path, spec: BundleSpec, files: Mapping[str, Path]) -> BundleSpec:
    """Fill a new folder and return the specification with its hashes."""
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
    write_text(folder / CARD, card_of(spec))
    names = sorted([*files, CARD])
    full = spec.model_copy(update={"files": {name: sha256(folder / name) for name in names}})
    write_text(folder / MANIFEST, full.model_dump_json(indent=2) + "\n")
    return full
