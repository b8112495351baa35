"""Download the ISIC 2018 files of Tasks 1, 2 and 3 from their official addresses.

https://challenge.isic-archive.com/data/#2018
"""

from __future__ import annotations

import http.client
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from naevus.errors import DataError
from naevus.io.files import atomic, lock
from naevus.io.limits import TooLargeError, check_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


# Unpacking ZIP files whose member names and sizes are not trusted.

_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a ZIP file into ``folder/<its name without .zip>``; existing files stay.

    Members in a folder named like the archive are unpacked without that folder.

    Returns:
        The unpacked files.

    Raises:
        DataError: The archive is damaged, a name in it points outside the folder, it would become
            more than `RATIO` times as large, or the disk has too little space.
    """
    base = folder / archive.stem
    try:
        with zipfile.ZipFile(archive) as source:
            members = [member for member in source.infolist() if member.filename[-1:] != "/"]
            paths = [base / _relative(member, archive) for member in members]
            check_ratio(sum(member.file_size for member in members), archive.stat().st_size)
            absent = {
                path: member
                for member, path in zip(members, paths, strict=True)
                if not (path.exists() and path.stat().st_size == member.file_size)
            }
            folder.mkdir(parents=True, exist_ok=True)
            _check_space(folder, archive.name, sum(each.file_size for each in absent.values()))
            for path, member in absent.items():
                with (
                    source.open(member) as stream,
                    atomic(path) as temporary,
                    temporary.open("wb") as target,
                ):
                    shutil.copyfileobj(stream, target)
    except TooLargeError as error:
        raise DataError(f"{archive}: {error}", "do not use this file") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError) as error:
        raise DataError(
            f"{archive}: damaged ({error})", "remove it and download it again"
        ) from error
    return paths


def _relative(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Return the path of a member below the folder named like the archive.

    Raises:
        BadZipFile: It needs a decoder whose errors are not known here.
        DataError: Its name points outside the folder.
    """
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if member.compress_type not in _METHODS:
        raise zipfile.BadZipFile("unsupported compression")
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or ":" in parts[0] or link:
        raise DataError(
            f"{archive}: the name {member.filename!r} points outside the folder",
            "do not use this file",
        )
    return PurePosixPath(*parts[1:]) if len(parts) > 1 and parts[0] == archive.stem else path


def _check_space(folder: Path, name: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder}: {free / 1e9:.1f} GB are free, but {name} needs {needed / 1e9:.1f} GB",
            "free some space or choose another folder",
        )


BASE_URL = "https://isic-archive.s3.amazonaws.com/challenges/2018/"
"""The address of the files."""

PAGE = "https://challenge.isic-archive.com/data/#2018"
"""The web page of the files."""

_CHUNK = 1 << 20
_TIMEOUT = 60.0
_ATTEMPTS = 5
_PARTIAL = 206
_PAST_THE_END = 416
_BROKEN = (URLError, http.client.HTTPException, TimeoutError, ConnectionError)


class RemoteFile(NamedTuple):
    """A file of the challenge: its name, its tasks, and its exact size in bytes if known."""

    name: str
    tasks: tuple[int, ...]
    size: int | None = None


FILES = {
    file.name: file
    for file in (
        RemoteFile("ISIC2018_Task1-2_Training_Input.zip", (1, 2), 11_165_358_566),
        RemoteFile("ISIC2018_Task1_Training_GroundTruth.zip", (1,), 27_402_895),
        RemoteFile("ISIC2018_Task1-2_Validation_Input.zip", (1, 2), 239_231_159),
        RemoteFile("ISIC2018_Task1_Validation_GroundTruth.zip", (1,), 759_706),
        RemoteFile("ISIC2018_Task1-2_Test_Input.zip", (1, 2), 2_370_457_338),
        RemoteFile("ISIC2018_Task1_Test_GroundTruth.zip", (1,), 9_680_101),
        RemoteFile("ISIC2018_Task2_Training_GroundTruth_v3.zip", (2,)),
        RemoteFile("ISIC2018_Task2_Validation_GroundTruth.zip", (2,)),
        RemoteFile("ISIC2018_Task2_Test_GroundTruth.zip", (2,)),
        RemoteFile("ISIC2018_Task3_Training_Input.zip", (3,), 2_771_732_744),
        RemoteFile("ISIC2018_Task3_Training_GroundTruth.zip", (3,)),
        RemoteFile("ISIC2018_Task3_Training_LesionGroupings.csv", (3,)),
        RemoteFile("ISIC2018_Task3_Validation_Input.zip", (3,)),
        RemoteFile("ISIC2018_Task3_Validation_GroundTruth.zip", (3,)),
        RemoteFile("ISIC2018_Task3_Test_Input.zip", (3,)),
        RemoteFile("ISIC2018_Task3_Test_GroundTruth.zip", (3,)),
    )
}
"""The files by name. Without a size, the size that the server reports is used."""


def download(
    names: Sequence[str],
    out: Path,
    *,
    base_url: str = BASE_URL,
    unzip: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Download files into ``out``; interrupted downloads resume.

    Args:
        names: Names in `FILES`.
        out: The folder, created if absent. Unfinished files end in ``.part``.
        base_url: A mirror of the files.
        unzip: Whether to unpack ZIP files next to themselves; unpacked files stay.
        progress: Called with the name, the bytes so far, and all bytes.

    Returns:
        The files' paths, in the order of ``names``.

    Raises:
        DataError: A name is unknown, the server cannot be reached or refuses, or a file has a wrong
            size.
    """
    unknown = [name for name in names if name not in FILES]
    if unknown:
        raise DataError(f"unknown file {unknown[0]!r}", f"use one of {', '.join(FILES)}")
    if urlsplit(base_url).scheme not in {"http", "https"}:
        raise DataError(f"{base_url} is not a web address", "start it with https://")
    paths = []
    with lock(out / ".download.lock"):
        for name in names:
            fetching = _Fetch(FILES[name], out / name, base_url.rstrip("/") + "/", progress)
            fetching.run()
            if unzip and name.endswith(".zip"):
                unpack(out / name, out)
            paths.append(out / name)
    return paths


@dataclass
class _Fetch:
    """The download of one file: ``target`` when complete, ``target.part`` until then."""

    file: RemoteFile
    target: Path
    base_url: str
    progress: Callable[[str, int, int], None] | None

    @property
    def url(self) -> str:
        return self.base_url + self.file.name

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    def run(self) -> None:
        """Download the file unless it exists, and retry if the connection breaks."""
        if self.target.exists():
            self._check_size(self.target.stat().st_size, str(self.target))
            return
        for attempt in range(1, _ATTEMPTS + 1):
            before = self._have()
            try:
                if self._attempt():
                    self.part.replace(self.target)
                    return
            except HTTPError as error:
                raise DataError(
                    f"{self.url}: the server replies {error.code} {error.reason}",
                    f"see {PAGE} for the current location of the files",
                ) from error
            except _BROKEN as error:
                if attempt == _ATTEMPTS or self._have() == before == 0:
                    raise self._unreachable(error) from error
        raise DataError(
            f"{self.url}: the connection broke repeatedly at {self._have()} bytes",
            "run the same command again to resume",
        )

    def _attempt(self) -> bool:
        """Download the rest of the file; return whether it is complete."""
        have = self._have()
        request = Request(self.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - http(s) only, see above
        try:
            with urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
                start = have if response.status == _PARTIAL else 0
                total = start + int(response.headers.get("Content-Length", 0))
                self._check_size(total, self.url)
                _check_space(self.target.parent, self.file.name, total - start)
                with self.part.open("r+b" if start else "wb") as stream:
                    stream.seek(start)
                    stream.truncate()
                    while chunk := response.read(_CHUNK):
                        stream.write(chunk)
                        self._move(stream.tell(), total)
        except HTTPError as error:
            if error.code != _PAST_THE_END:
                raise
            return self._whole_already(error.headers.get("Content-Range", ""))
        return self._have() == total

    def _whole_already(self, content_range: str) -> bool:
        """Return whether a part is the complete file; a part of another size is deleted."""
        total = content_range.rpartition("/")[2]
        if total.isdecimal() and int(total) == self._have():
            self._check_size(self._have(), self.url)
            return True
        self.part.unlink()
        return False

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _move(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(self.file.name, done, total)

    def _check_size(self, size: int, where: str) -> None:
        if self.file.size is not None and size != self.file.size:
            raise DataError(
                f"{where}: {size} bytes instead of {self.file.size}",
                "remove it and download it again; if this repeats, the server has another file",
            )

    def _unreachable(self, error: BaseException) -> DataError:
        reason = getattr(error, "reason", None) or error
        return DataError(
            f"{self.url} cannot be reached ({reason})",
            "check the connection and run the same command again, or download the files in a "
            f"browser from {PAGE} and unpack them into {self.target.parent}",
        )
