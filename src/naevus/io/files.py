"""Files that are whole or not there: atomic writes, locks, hashes."""

from __future__ import annotations

import csv
import ctypes
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naevus.errors import NaevusError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence


LONGEST_PATH = 260 if os.name == "nt" else None
"""Characters from which on Windows takes no path; None where there is no such limit."""

# Asked for once, before there are threads: it can only be read by setting it.
_UMASK = os.umask(0o022)
os.umask(_UMASK)

_LEFT = re.compile(r"\.(.+\.)?[a-z0-9_]{8}\.tmp(\.[^.]+)?")
"""What `atomic` and temporary folders beside their place are called."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there when the block ends well.

    The temporary file keeps the suffix of ``path``, for writers that look at it. When the block
    raises, the temporary file is removed and ``path`` is as it was.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}"
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk keep a file's content, or a folder's names, before anything is written next.

    Raises:
        NaevusError: The disk does not take it.
    """
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not path.is_dir():  # some systems flush no folders
            raise _unwritable(path, error) from error


def flush_together(paths: Collection[Path]) -> None:
    """Have the disk keep many files of one folder tree, and the folders' names of them.

    On Linux in one go, which takes a tenth of the time (.2 in place of 3 to 6 ms a file on a busy
    disk).

    Raises:
        NaevusError: The disk does not take them.
    """
    if paths and not _flushed_at_once(next(iter(paths)).parent):
        for path in (*paths, *{path.parent for path in paths}):
            flush(path)


def _flushed_at_once(folder: Path) -> bool:
    if sys.platform != "linux":
        return False
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            return bool(ctypes.CDLL(None).syncfs(handle) == 0)
        finally:
            os.close(handle)
    except (OSError, AttributeError):
        return False


def sweep(folder: Path, name: str = "") -> None:
    """Remove temporary files and folders of killed processes; nobody may be writing there.

    Args:
        folder: Where they are; it need not exist.
        name: Of the file or folder they were to become; all of them by default.
    """
    if not folder.is_dir():
        return
    for left in list(folder.iterdir()):
        if not left.name.startswith(f".{name}") or _LEFT.fullmatch(left.name) is None:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with writing(left):
                left.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing ``path`` into one line.

    Raises:
        NaevusError: The disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, content.encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows to ``path`` atomically, as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_list(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows as `write_csv` does; where there are none, take an old list away."""
    if rows:
        write_csv(path, header, rows)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON with a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(*parts: str) -> str:
    """Return the SHA-256 of some strings, unambiguous about where one ends."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def cache_folder(name: str) -> Path | None:
    """Return ``naevus/<name>`` in the user's cache, where the system has it; it need not exist.

    On Linux that is ``$XDG_CACHE_HOME`` where that is an absolute path, else ``~/.cache`` (XDG Base
    Directory Specification).

    Returns:
        None where there is none.
    """
    import platformdirs  # noqa: PLC0415 (most commands never ask)

    base = platformdirs.user_cache_path("naevus", appauthor=False)
    named = Path(os.environ.get("XDG_CACHE_HOME", "")).is_absolute()
    try:
        home = base if named else Path.home()
    except RuntimeError:
        return None
    if not base.is_absolute():  # a variable to be ignored, as the specification says
        base = home / ".cache" / "naevus"
    return base / name


@contextmanager
def lock(
    path: Path, what: Path | None = None, *, waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if absent) while the block runs.

    Args:
        path: The lock.
        what: What it guards; its folder by default.
        waiting: Called where another process holds it, which is then waited for.

    Raises:
        NaevusError: Another process holds it and it is not waited for, or the folder cannot be
            written.
    """
    with warnings.catch_warnings():
        # Where the system has no locks the file itself is one, of which filelock warns.
        warnings.simplefilter("ignore")
        import filelock  # noqa: PLC0415 (help and quick commands lock nothing)

    held = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                held.acquire(timeout=0)
            except filelock.Timeout:
                if waiting is None:
                    raise
                waiting()
                held.acquire()
    except filelock.Timeout:
        raise NaevusError(
            f"{what or path.parent} is in use by another process: another naevus is working on it",
            "wait until it has ended",
        ) from None
    except (OSError, NotImplementedError) as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        held.release()


def _unwritable(path: Path, error: Exception) -> NaevusError:
    return NaevusError(
        f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})",
        too_long(path) or "free some space or choose a folder you may write to",
    )


def too_long(path: Path) -> str | None:
    """Return what to do about a path that is too long for this system; None where it is not.

    Windows calls such a file absent, unless long paths were allowed.
    """
    length = len(os.path.abspath(path))  # noqa: PTH100 (never touches the disk)
    if LONGEST_PATH is None or length < LONGEST_PATH:
        return None
    return (
        f"its path has {length} characters, and Windows takes {LONGEST_PATH - 1}: choose a shorter "
        "place, or allow long paths in Windows"
    )
