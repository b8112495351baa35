"""Files appear whole or not at all, and names that other systems cannot use are refused."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from naevus.datasets.listing import problem_of_id
from naevus.errors import ImageError
from naevus.images.read import read
from naevus.io import files

if TYPE_CHECKING:
    from pathlib import Path


def test_names_that_windows_reserves_are_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = ("CON", "nul", "Aux.2", "com1", "LPT9", "lesion.", "lesion ", "a?b")
    fine = ("console", "com10", "nullo", "a.con", "lesion")
    assert not any(problem_of_id(name) for name in (*bad, *fine) if os.name != "nt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        reported = [problem_of_id(name) for name in bad]
        untold = [problem_of_id(name) for name in fine]
    assert all(reported)
    assert not any(untold)


def test_paths_too_long_for_windows_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a-long-name.png"
    monkeypatch.setattr(files, "LONGEST_PATH", 20)
    with pytest.raises(ImageError, match="characters, and Windows allows 19: choose a shorter"):
        read(path)
    monkeypatch.setattr(files, "LONGEST_PATH", len(str(path)) + 1)
    with pytest.raises(ImageError, match="check the name and the folder"):
        read(path)


needs_locks = pytest.mark.skipif(os.name == "nt", reason="no locks on temporary files")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(TypeError), files.atomic(path) as temporary:
        temporary.write_text(3)  # type: ignore[arg-type]
    assert (path.read_text(), names(tmp_path)) == ("old", ["table.csv"])


@needs_locks
def test_the_temporary_file_of_a_killed_process_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with files.atomic(path) as temporary:
        left = temporary
    left.write_text("a much longer half-written table")
    with files.atomic(path) as temporary:
        assert temporary == left
        assert temporary.read_text() == ""
        temporary.write_text("whole")
    assert (path.read_text(), names(tmp_path)) == ("whole", ["table.csv"])


@needs_locks
def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with files.atomic(path) as one:
        with files.atomic(path) as other:
            assert one != other
            one.write_text("first")
            other.write_text("second")
        assert path.read_text() == "second"
    assert (path.read_text(), names(tmp_path)) == ("first", ["table.csv"])


@needs_locks
def test_without_locks_every_writer_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    path = tmp_path / "table.csv"
    with files.atomic(path) as one, files.atomic(path) as other:
        assert names(tmp_path) == sorted([one.name, other.name])
        one.write_text("first")
        other.write_text("second")
    assert (path.read_text(), names(tmp_path)) == ("first", ["table.csv"])
    (tmp_path / ".table.abcd1234.tmp.csv").write_text("half")
    files.sweep(tmp_path)
    assert names(tmp_path) == ["table.csv"]


@needs_locks
def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "table.csv", tmp_path / "victim"
    victim.write_text("years of work")
    with files.atomic(path) as temporary:
        usual = temporary
    usual.symlink_to(victim)
    files.write_text(path, "whole")
    assert (path.read_text(), victim.read_text()) == ("whole", "years of work")
    usual.unlink()
    usual.hardlink_to(victim)
    files.write_text(path, "again")
    assert (path.read_text(), victim.read_text()) == ("again", "years of work")


@needs_locks
def test_sweeping_leaves_what_is_being_written(tmp_path: Path) -> None:
    with files.atomic(tmp_path / "a.csv") as used, files.workspace(tmp_path / "b") as folder:
        left = tmp_path / ".b.abcd1234.tmp"
        left.mkdir()
        (tmp_path / ".a.abcd1234.tmp.csv").write_text("half")
        files.sweep(tmp_path)
        assert names(tmp_path) == sorted([used.name, folder.name])
        used.write_text("whole")
    assert names(tmp_path) == ["a.csv"]


@needs_locks
def test_a_workspace_removes_that_of_a_killed_process(tmp_path: Path) -> None:
    (tmp_path / ".b.abcd1234.tmp").mkdir()
    (tmp_path / ".other.abcd1234.tmp").mkdir()
    with files.workspace(tmp_path / "b") as folder:
        (folder / "graph").write_text("large")
        assert names(tmp_path) == sorted([folder.name, ".other.abcd1234.tmp"])
    assert names(tmp_path) == [".other.abcd1234.tmp"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    new, path, old = (tmp_path / name for name in ("new", "path", "old"))
    for folder in (new, path):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    files.put_folder(new, path, old)
    assert ((path / "name").read_text(), (old / "name").read_text()) == ("new", "path")
    assert names(tmp_path) == ["old", "path"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders")
def test_folders_are_exchanged_at_once(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert files._exchanged(tmp_path / "one", tmp_path / "other")
    assert names(tmp_path / "one") == ["other"]
    assert not files._exchanged(tmp_path / "one", tmp_path / "absent")
