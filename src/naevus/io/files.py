"""Atomic writes, file locks, hashes and cache folders."""

from __future__ import annotations

import csv
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naevus.errors import NaevusError

try:
    import fcntl

    _LOCKS = True
except ImportError:  # Windows
    _LOCKS = False

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence


LONGEST_PATH = 260 if os.name == "nt" else None
"""Paths of this many characters or more fail on Windows; None: no limit."""

# Read once, before any thread starts: reading it means setting it.
_UMASK = os.umask(0o022)
os.umask(_UMASK)

_LEFT = re.compile(r"\.(.+\.)?[a-z0-9_]{8}\.tmp(\.[^.]+)?")
"""Names of the temporary files and folders of `atomic` and its siblings."""

_USUAL: Final = "_writing"
"""In the name of a temporary file, unless another process is writing the same file."""


def nested(path: Path, name: str) -> Path:
    """Return a file's path in one of 256 subfolders, chosen by the SHA-256 of a name.

    Folders of millions of files are slow to list and to copy.

    Examples:
        >>> nested(Path("masks/a_segmentation.png"), "a").as_posix()
        'masks/ca/a_segmentation.png'
    """
    return path.parent / hashlib.sha256(name.encode()).hexdigest()[:2] / path.name


def stored(path: Path, name: str) -> Path:
    """Return where a file is: in its folder, or in the subfolder that `nested` gives."""
    below = nested(path, name)
    return below if not path.exists() and below.exists() else path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` when the block succeeds.

    The temporary file keeps the suffix of ``path``, since some writers depend on it. If the block
    raises, the temporary file is removed and ``path`` stays unchanged. The next process that writes
    ``path`` uses the temporary file of one that was killed, so that none is left over.

    Raises:
        NaevusError: The disk is full or the folder is not writable.
    """
    path = Path(path)
    handle = temporary = None
    renamed = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary_file(path)
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        renamed = True
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        # Once renamed, a file of this name is another process's.
        if temporary is not None and not renamed:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _temporary_file(path: Path) -> tuple[int | None, Path]:
    """Create a temporary file for `atomic`; its lock, if there are locks, shows that it is used."""
    if not _LOCKS:
        handle, name = tempfile.mkstemp(**_naming(path))
        os.close(handle)
        return None, Path(name)
    usual = path.with_name(f".{path.stem}.{_USUAL}.tmp{path.suffix}")
    taken = _taken(usual)
    if taken is not None:
        return taken, usual
    handle, name = tempfile.mkstemp(**_naming(path))
    _try_lock(handle)
    return handle, Path(name)


def _naming(path: Path) -> dict[str, Any]:
    return {"dir": path.parent, "prefix": f".{path.stem}.", "suffix": f".tmp{path.suffix}"}


def _taken(path: Path) -> int | None:
    """Open a temporary file, new or of a killed process; None if another one is writing it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        locked = _try_lock(handle)
        if locked is None:
            path.unlink()
        elif locked:
            ours, named = os.fstat(handle), path.stat()
            same = (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
            if same and stat.S_ISREG(ours.st_mode) and ours.st_nlink == 1:
                os.ftruncate(handle, 0)
                return handle
    except OSError:  # renamed or removed by the process that had it
        pass
    os.close(handle)
    return None


def _try_lock(handle: int) -> bool | None:
    """Lock an open file or folder; return whether it is now locked.

    Returns:
        False if another process has locked it, None if the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    return True


def _is_used(path: Path) -> bool:
    """Return whether a process is writing a temporary file or folder, as far as locks show it."""
    if not _LOCKS:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _try_lock(handle) is False
    finally:
        os.close(handle)


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``, which is removed afterwards.

    Those of killed processes for the same ``path`` are removed, too.

    Raises:
        NaevusError: The disk is full or the folder is not writable.
    """
    path, handle = Path(path), None
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if _LOCKS:
            sweep(path.parent, f"{path.name}.")
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        if _LOCKS:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            _try_lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def put_folder(new: Path, path: Path, old: Path) -> None:
    """Rename the folder ``new`` to ``path``; a folder that is already there is renamed to ``old``.

    Where the system can exchange two folders (Linux), ``path`` always exists.

    Raises:
        OSError: That fails; the folder at ``path`` is still there.
    """
    if not path.exists():
        new.rename(path)
        return
    if _exchanged(new, path):
        new.rename(old)
        return
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk (fsync).

    Raises:
        NaevusError: The disk reports an error.
    """
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not path.is_dir():  # some systems cannot flush folders
            raise _unwritable(path, error) from error


def flush_together(paths: Collection[Path]) -> None:
    """Flush many files of one folder tree, and their folders, to disk.

    Linux flushes the whole file system at once: on a busy disk that takes a tenth of the time.

    Raises:
        NaevusError: The disk reports an error.
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
    """Remove temporary files and folders of killed processes.

    Windows does not show which of them are used: no process may be writing there.

    Args:
        folder: The folder to clean; it need not exist.
        name: Name of the final file or folder; all names by default.
    """
    if not folder.is_dir():
        return
    for left in list(folder.iterdir()):
        if not left.name.startswith(f".{name}") or _LEFT.fullmatch(left.name) is None:
            continue
        if _is_used(left):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with writing(left):
                left.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` from writing ``path`` into a one-line error.

    Raises:
        NaevusError: The disk is full, or ``path`` is not writable.
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


TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".xlsx")
"""Suffixes of table files."""

FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How texts begin that spreadsheets take for formulas; the last four are full-width signs."""


def write_csv(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    spreadsheet: bool = False,
) -> None:
    """Write rows to ``path`` atomically, as CSV with a header, in constant memory.

    Args:
        path: The file.
        header: The column names.
        rows: The rows.
        spreadsheet: Whether people open it in a spreadsheet: it then begins with a byte-order mark,
            by which Excel knows UTF-8, and texts are `neutral`.
    """
    encoding = "utf-8-sig" if spreadsheet else "utf-8"
    with atomic(path) as temporary, temporary.open("w", encoding=encoding, newline="") as file:
        usual = csv.writer(file, lineterminator="\n")
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        usual.writerow(header)
        for row in map(_neutral_row, rows) if spreadsheet else rows:
            # Python quotes a carriage return only if it ends the lines; readers always end there.
            broken = any(isinstance(value, str) and "\r" in value for value in row)
            (quoting if broken else usual).writerow(row)


def neutral(text: str) -> str:
    """Return a text that a spreadsheet shows, and does not run as a formula.

    Examples:
        >>> neutral("=1+1"), neutral("mole")
        ("'=1+1", 'mole')
    """
    return f"'{text}" if text.startswith(FORMULAS) else text


def original(text: str) -> str:
    """Return what `neutral` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULAS) else text


def _neutral_row(row: Sequence[object]) -> list[object]:
    return [neutral(value) if isinstance(value, str) else value for value in row]


def write_list(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows as `write_csv` does, texts `neutral`; without rows, remove the old file."""
    if rows:
        write_csv(path, header, map(_neutral_row, rows))
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON with a final newline.

    NaN becomes null (`plain`).
    """
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """Return nested lists and dictionaries with None in place of NaN, which JSON does not have.

    Examples:
        >>> plain({"low": float("nan"), "values": [0.5, float("nan")]})
        {'low': None, 'values': [0.5, None]}
    """
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(*parts: str) -> str:
    """Return the SHA-256 of several strings, each prefixed with its length."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def cache_folder(name: str) -> Path | None:
    """Return ``naevus/<name>`` in the user's cache folder; it need not exist.

    On Linux the cache folder is ``$XDG_CACHE_HOME`` if that is an absolute path, otherwise
    ``~/.cache`` (XDG Base Directory Specification).

    Returns:
        None if the user has no cache folder.
    """
    import platformdirs  # noqa: PLC0415 (most commands need no cache)

    base = platformdirs.user_cache_path("naevus", appauthor=False)
    named = Path(os.environ.get("XDG_CACHE_HOME", "")).is_absolute()
    try:
        home = base if named else Path.home()
    except RuntimeError:
        return None
    if not base.is_absolute():  # the specification ignores relative paths
        base = home / ".cache" / "naevus"
    return base / name


@contextmanager
def lock(
    path: Path, what: Path | None = None, *, waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if absent) while the block runs.

    Args:
        path: The lock file.
        what: What it protects, for the error message; its folder by default.
        waiting: Called once if another process holds the lock, before waiting for it.

    Raises:
        NaevusError: Another process holds the lock and ``waiting`` is None, or the folder is not
            writable.
    """
    with warnings.catch_warnings():
        # On systems without locks filelock falls back to the file's existence, and warns.
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
            f"{what or path.parent} is in use by another naevus process",
            "wait until it has ended",
        ) from None
    except (OSError, NotImplementedError) as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def staged(out: Path, key: str) -> Iterator[Path]:
    """Yield a folder beside ``out``, and rename it to ``out`` when the block succeeds.

    The folder of a block that failed or was killed stays: the next one with the same key goes on
    with it. Temporary files of killed processes are removed from it.

    Args:
        out: The final folder; it must not exist or be empty.
        key: A hash of what is made.

    Raises:
        NaevusError: ``out`` has files, another process is making it, or it cannot be written.
    """
    making = out.parent / f".{out.name}.{key[:8]}.tmp"
    if out.exists() and any(out.iterdir()):
        raise NaevusError(
            f"{out} holds other files, such as {min(out.iterdir()).name}",
            "choose another --out, or delete this folder",
        )
    with lock(making / ".lock", out):
        for folder in (making, *(each for each in making.rglob("*") if each.is_dir())):
            sweep(folder)
        yield making
        with writing(out):
            if out.exists():
                out.rmdir()
            making.rename(out)


def link(path: Path, target: Path) -> None:
    """Make ``target`` the same file as ``path``, or a copy where the file system has no links.

    Nothing is done if ``target`` exists with the same size.

    Raises:
        NaevusError: ``path`` cannot be read or ``target`` cannot be written.
    """
    try:
        if target.exists() and target.stat().st_size == path.stat().st_size:
            return
    except OSError as error:
        raise _unwritable(target, error) from error
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:  # on another file system, or one without links
        with atomic(target) as temporary:
            shutil.copyfile(path, temporary)


def _unwritable(path: Path, error: Exception) -> NaevusError:
    return NaevusError(
        f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})",
        too_long(path) or "free some space or choose a folder you may write to",
    )


def too_long(path: Path) -> str | None:
    """Return the remedy for a path that is too long for this system; None if it is not.

    Windows reports such a file as missing, unless long paths are enabled.
    """
    length = len(os.path.abspath(path))  # noqa: PTH100 (never touches the disk)
    if LONGEST_PATH is None or length < LONGEST_PATH:
        return None
    return (
        f"its path has {length} characters, and Windows allows {LONGEST_PATH - 1}: choose a "
        "shorter path, or enable long paths in Windows"
    )
