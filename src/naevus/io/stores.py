"""Files in object stores and other remote file systems, such as ``s3://``, through pyarrow."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode, urlsplit

from naevus.errors import NaevusError
from naevus.io.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

_URL: Final = re.compile(r"(?!file:)([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")
_REMEDY: Final = "check the address, its permissions and the network"


def url_of(path: str | Path) -> str | None:
    """Return the URL of a path that has a scheme, which `Path` shortens; None if it has none.

    Examples:
        >>> url_of(Path("s3://bucket/photos")), url_of("photos")
        ('s3://bucket/photos', None)
    """
    text = str(path)
    found = _URL.match(text)
    return None if found is None else f"{found[1]}://{text[found.end() :]}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a `Store`, with the attributes of `Path` that naming and listing files need.

    Attributes:
        url: Its address.
        size: In bytes.
        mtime_ns: When it was last changed, in nanoseconds since 1970.
    """

    url: str
    size: int = 0
    mtime_ns: int = 0

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(self.url).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.url).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name."""
        return PurePosixPath(self.url).suffix

    def stat(self) -> SimpleNamespace:
        """Return size and time, like `Path.stat`."""
        return SimpleNamespace(st_size=self.size, st_mtime_ns=self.mtime_ns)

    def resolve(self) -> Self:
        """Return the file itself: stores have no links."""
        return self

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Store:
    """A folder of a remote file system.

    Attributes:
        url: Its address.
        files: The file system of pyarrow.
        base: The folder's path in it.
    """

    url: str
    files: Any
    base: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Connect to the folder of a URL: ``s3://``, ``gs://``, ``abfs://``, ``hdfs://``...

        Schemes unknown to pyarrow are opened by fsspec, if it is installed. For ``s3://`` the
        variable ``AWS_ENDPOINT_URL`` names another server than Amazon's.

        Raises:
            NaevusError: The scheme is unknown, or the store cannot be reached.
        """
        from pyarrow import fs  # noqa: PLC0415 (slow to import)

        url = url.rstrip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        try:
            if url.startswith("s3://") and endpoint:
                parts = urlsplit(endpoint)
                query = urlencode({"scheme": parts.scheme, "endpoint_override": parts.netloc})
                files, base = fs.FileSystem.from_uri(f"{url}?{query}")
            else:
                files, base = fs.FileSystem.from_uri(url)
        except ValueError:
            files, base = _by_fsspec(url)
        except OSError as error:
            raise _unreachable(url, error) from error
        return cls(url, files, base.rstrip("/"))

    def read(self, url: str, most: int) -> bytes:
        """Return at most this many bytes of a file at a URL of the same store.

        Raises:
            OSError: It cannot be read.
        """
        with self.files.open_input_stream(self._path(url)) as stream:
            return bytes(stream.read(most))

    def exists(self) -> bool:
        """Return whether the folder has files, or is one.

        Raises:
            NaevusError: The store cannot be reached.
        """
        from pyarrow import fs  # noqa: PLC0415 (slow to import)

        try:
            return bool(self.files.get_file_info(self.base).type != fs.FileType.NotFound)
        except OSError as error:
            raise _unreachable(self.url, error) from error

    def listing(self) -> Iterator[RemoteFile]:
        """Yield all files below the folder; the file itself if it is one.

        Raises:
            NaevusError: There is nothing, or it cannot be listed.
        """
        from pyarrow import fs  # noqa: PLC0415 (slow to import)

        try:
            one = self.files.get_file_info(self.base)
            if one.type == fs.FileType.NotFound:
                raise NaevusError(f"{self.url} does not exist", "check the address")
            if one.type == fs.FileType.File:
                yield RemoteFile(self.url, one.size, one.mtime_ns or 0)
                return
            for each in self.files.get_file_info(fs.FileSelector(self.base, recursive=True)):
                if each.type == fs.FileType.File:
                    below = each.path[len(self.base) + 1 :]
                    yield RemoteFile(f"{self.url}/{below}", each.size, each.mtime_ns or 0)
        except OSError as error:
            raise _unreachable(self.url, error) from error

    def download(self, name: str, target: Path) -> bool:
        """Copy a file below the folder to a local path; return whether it was there.

        Raises:
            NaevusError: It cannot be read or written.
        """
        try:
            with self.files.open_input_stream(f"{self.base}/{name}") as stream:
                content = stream.read()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreachable(f"{self.url}/{name}", error) from error
        with atomic(target) as temporary:
            temporary.write_bytes(content)
        return True

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to a name below the folder; stores show it when it is whole.

        Raises:
            NaevusError: It cannot be written.
        """
        target = f"{self.base}/{name}"
        try:
            if self.files.type_name in _FOLDERS:
                self.files.create_dir(target.rpartition("/")[0], recursive=True)
                self._replace(path, target)
                return
            with self.files.open_output_stream(target) as stream, path.open("rb") as source:
                while block := source.read(1 << 20):
                    stream.write(block)
        except OSError as error:
            raise _unreachable(f"{self.url}/{name}", error) from error

    def _replace(self, path: Path, target: str) -> None:
        """Write under a temporary name and rename, where a half-written file would be seen."""
        half = f"{target}.{os.getpid()}.tmp"
        with self.files.open_output_stream(half) as stream:
            stream.write(path.read_bytes())
        self.files.move(half, target)

    def _path(self, url: str) -> str:
        return f"{self.base}{url.removeprefix(self.url)}"


_FOLDERS: Final = ("local", "hdfs", "py::fsspec+file")
"""File systems with real folders, which show a file while it is being written."""


def _by_fsspec(url: str) -> tuple[Any, str]:
    from pyarrow import fs  # noqa: PLC0415 (slow to import)

    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 (optional)

        found, base = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise NaevusError(
            f"{url}: this kind of address is not supported ({error})",
            "use s3://, gs://, abfs:// or hdfs://, or mount the store",
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(found)), base


def _unreachable(url: str, error: Exception) -> NaevusError:
    line = " ".join(str(error).split())[:300]
    return NaevusError(f"{url}: cannot be reached ({line})", _REMEDY)
