"""Names that archives and other systems make trouble with are told in a line."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from naevus.bundles.bundle import Bundle
from naevus.datasets.download import unpack
from naevus.datasets.listing import problem_of_id
from naevus.errors import BundleError, DataError, PictureError
from naevus.images.read import read
from naevus.io import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("fault", ["name", "password"])
def test_archives_with_odd_entries_are_a_line(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.naevus"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundlé.json", b"{}")
        archive.writestr("bundle.json", b"{}")
    whole = path.read_bytes()
    if fault == "name":
        whole = whole.replace("é".encode(), b"\xff\xfe")
    else:  # the flag of encryption, in both places where it stands
        at = whole.rindex(b"PK\x01\x02"), whole.index(b"PK\x03\x04", 4)
        changed = bytearray(whole)
        changed[at[0] + 8] |= 1
        changed[at[1] + 6] |= 1
        whole = bytes(changed)
    path.write_bytes(whole)
    with pytest.raises(BundleError, match=r"odd\.naevus: ") as caught:
        Bundle.read(path)
    assert "\n" not in str(caught.value)
    moved = path.rename(tmp_path / "odd.zip")
    with pytest.raises(DataError, match=r"odd\.zip: damaged"):
        unpack(moved, tmp_path)


def test_names_that_windows_reserves_are_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = ("CON", "nul", "Aux.2", "com1", "LPT9", "lesion.", "lesion ", "a?b")
    fine = ("console", "com10", "nullo", "a.con", "lesion")
    assert not any(problem_of_id(name) for name in (*bad, *fine) if os.name != "nt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        told = [problem_of_id(name) for name in bad]
        untold = [problem_of_id(name) for name in fine]
    assert all(told)
    assert not any(untold)


def test_paths_too_long_for_windows_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a-long-name.png"
    monkeypatch.setattr(files, "LONGEST_PATH", 20)
    with pytest.raises(PictureError, match="characters, and Windows takes 19: choose a shorter"):
        read(path)
    monkeypatch.setattr(files, "LONGEST_PATH", len(str(path)) + 1)
    with pytest.raises(PictureError, match="check the name and the folder"):
        read(path)
