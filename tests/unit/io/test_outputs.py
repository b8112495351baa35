"""Folders of results hold nothing of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from naevus.errors import NaevusError
from naevus.io.outputs import check_free


@pytest.mark.parametrize(
    ("names", "other"),
    [
        ([], None),
        ([".lock", ".DS_Store"], None),
        (["cache"], None),
        (["cache", "b.jpg", "a.jpg"], "a.jpg"),
        (["run.toml.jpg"], "run.toml.jpg"),
        (["run.toml", "a.jpg"], None),
    ],
)
def test_a_folder_with_other_files_is_refused(
    names: list[str], other: str | None, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    if other is None:
        check_free(tmp_path, "run.toml", ("cache",))
        return
    with pytest.raises(NaevusError) as refused:
        check_free(tmp_path, "run.toml", ("cache",))
    assert str(refused.value) == (
        f"{tmp_path} holds other files, such as {other}; choose another --out"
    )


def test_a_file_is_refused_and_an_absent_folder_is_not(tmp_path: Path) -> None:
    check_free(tmp_path / "absent", "run.toml")
    (tmp_path / "file").touch()
    with pytest.raises(NaevusError, match="is a file, not a folder; choose another --out"):
        check_free(tmp_path / "file", "run.toml")
