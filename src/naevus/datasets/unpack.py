"""Unpacking ZIP files whose names are not trusted."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from naevus.errors import DataError
from naevus.io.files import atomic

if TYPE_CHECKING:
    from pathlib import Path


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a ZIP file into ``folder/<its name without .zip>``; what is there already stays.

    Files that the archive keeps in a folder of its own name land in the same place.

    Returns:
        The unpacked files.

    Raises:
        DataError: The archive is damaged, or a name in it leads out of the folder.
    """
    base = folder / archive.stem
    try:
        with zipfile.ZipFile(archive) as source:
            members = [member for member in source.infolist() if not member.is_dir()]
            paths = [base / _relative(member, archive) for member in members]
            for member, path in zip(members, paths, strict=True):
                if path.exists() and path.stat().st_size == member.file_size:
                    continue
                with (
                    source.open(member) as stream,
                    atomic(path) as temporary,
                    temporary.open("wb") as target,
                ):
                    shutil.copyfileobj(stream, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        raise DataError(
            f"{archive}: damaged ({error})", "remove it and download it again"
        ) from error
    return paths


def _relative(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Return the member's place below the folder called as the archive."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or link:
        raise DataError(
            f"{archive}: the name {member.filename!r} leads out of the folder",
            "do not use this file",
        )
    return PurePosixPath(*path.parts[1:]) if path.parts[0] == archive.stem else path
