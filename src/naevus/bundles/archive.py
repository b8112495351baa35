"""A bundle as one file: ``name.naevus``, a ZIP archive of the folder's files.

It is packed without compression (weights hardly shrink), in a fixed order and with fixed times, so
that the same bundle gives the same bytes. Engines want graphs as files, so it is unpacked, once,
into the user's cache, in a folder named by the archive's own hash.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from naevus.bundles.spec import EXPORT_AGAIN, MANIFEST, is_file_name, parse_manifest
from naevus.errors import BundleError, NaevusError
from naevus.io.files import atomic, cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from naevus.bundles.spec import BundleSpec

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
        strangers = {entry.filename for entry in entries} - {MANIFEST, *spec.files}
        if strangers:
            raise BundleError(
                f"{path}: holds {min(strangers)!r}, of which {MANIFEST} knows nothing",
                "do not use this file",
            )
        try:
            _fill(archive, entries, folder)
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


def _fill(archive: zipfile.ZipFile, entries: Iterable[zipfile.ZipInfo], folder: Path) -> None:
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
