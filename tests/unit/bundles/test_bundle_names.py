"""Archives with invalid entries are refused in one line."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from naevus.bundles.bundle import Bundle
from naevus.datasets.download import unpack
from naevus.errors import BundleError, DataError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("fault", ["name", "password"])
def test_archives_with_invalid_entries_give_one_line(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.naevus"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundlé.json", b"{}")
        archive.writestr("bundle.json", b"{}")
    whole = path.read_bytes()
    if fault == "name":
        whole = whole.replace("é".encode(), b"\xff\xfe")
    else:  # the encryption flag, in both headers
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
