"""Folders of results: what a command writes is not mixed with other files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.errors import NaevusError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def check_free(out: Path, marker: str, own: Collection[str] = ()) -> None:
    """Check that a folder holds nothing but results of one kind.

    Args:
        out: The folder; it need not exist.
        marker: The name of a file or folder in it that tells such results. Whatever else is there
            came later.
        own: Names that may be there before the marker, besides hidden ones.

    Raises:
        NaevusError: It is a file, or holds others.
    """
    if out.exists() and not out.is_dir():
        raise NaevusError(f"{out} is a file, not a folder", "choose another --out")
    if not out.exists() or (out / marker).exists():
        return
    others = [each.name for each in out.iterdir() if each.name not in own]
    others = [name for name in others if not name.startswith(".")]
    if others:
        raise NaevusError(f"{out} holds other files, such as {min(others)}", "choose another --out")
