"""Compiled graphs kept on disk, so that the next start is quicker.

OpenVINO's own cache (``CACHE_DIR``) is not used: it trusts its files, and one with damaged weights
is loaded and gives wrong answers without a word. Here every file carries a SHA-256 and is written
atomically; one that does not agree is made again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from naevus.errors import NaevusError
from naevus.io.files import cache_folder, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

SWITCH: Final = "NAEVUS_CACHE"
"""The environment variable that turns the cache off when it is ``off``."""

LIMIT: Final = 2**30
"""Bytes that the cache may hold; the files used longest ago go first."""

_DIGEST = 32


@dataclass(frozen=True)
class CompiledCache:
    """A folder of compiled graphs. Nothing that goes wrong in it stops anybody.

    Args:
        folder: Where the files are; it is made when the first one is written.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> CompiledCache | None:
        """Return the cache in the user's cache folder; None if off, or without such a folder."""
        if os.environ.get(SWITCH) == "off":
            return None
        folder = cache_folder("compiled")
        return None if folder is None else cls(folder)

    @staticmethod
    def digest(content: bytes) -> bytes:
        """Return the SHA-256 of a content."""
        return hashlib.sha256(content).digest()

    def load(self, key: str) -> bytes | None:
        """Return what was stored under a key, or None if it is absent or damaged."""
        path = self._file(key)
        try:
            whole = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content = whole[_DIGEST:]
        return content if self.digest(content) == whole[:_DIGEST] else None

    def store(self, key: str, content: bytes) -> None:
        """Keep a content under a key, and let go of the oldest files beyond `LIMIT`."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(self._file(key), self.digest(content) + content)
            self._prune()
        except (NaevusError, OSError):  # a full disk, a folder of somebody else
            return

    def _prune(self) -> None:
        found = [(path.stat(), path) for path in self.folder.glob("*.blob")]
        held = 0
        for status, path in sorted(found, key=lambda each: -each[0].st_mtime_ns):
            held += status.st_size
            if held > LIMIT:
                path.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.blob"
