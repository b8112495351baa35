"""Downloads from a local server that can break connections."""

from __future__ import annotations

import zipfile
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from naevus.datasets.download import FILES, RemoteFile, download, unpack
from naevus.errors import DataError, NaevusError
from naevus.io.files import lock
from tests.helpers.download_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.download_server import Server

NAME = "ISIC2018_Task3_Training_LesionGroupings.csv"
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files[NAME] = CONTENT
        yield running


def test_a_whole_file_is_downloaded(server: Server, tmp_path: Path) -> None:
    moves: list[tuple[str, int, int]] = []
    paths = download(
        [NAME], tmp_path / "new", base_url=server.url, progress=lambda *move: moves.append(move)
    )
    assert paths == [tmp_path / "new" / NAME]
    assert paths[0].read_bytes() == CONTENT
    assert moves[-1] == (NAME, len(CONTENT), len(CONTENT))
    assert not list(tmp_path.glob("new/*.part"))


def test_an_existing_file_is_not_requested(server: Server, tmp_path: Path) -> None:
    download([NAME], tmp_path, base_url=server.url)
    download([NAME], tmp_path, base_url=server.url)
    assert server.asked == [None]


def test_a_download_resumes_after_an_interruption(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    download([NAME], tmp_path, base_url=server.url)
    assert server.asked == ["bytes=1000-"]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_download_resumes_after_broken_connections(server: Server, tmp_path: Path) -> None:
    server.cut = 4000
    download([NAME], tmp_path, base_url=server.url)
    assert server.asked == [None, "bytes=4000-", "bytes=8000-"]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_giving_up_keeps_the_part(server: Server, tmp_path: Path) -> None:
    server.cut = 100
    with pytest.raises(DataError, match=r"repeatedly at 500 bytes.*run the same command"):
        download([NAME], tmp_path, base_url=server.url)
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:500]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(b"stale" * 5000)
    download([NAME], tmp_path, base_url=server.url)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_complete_part_is_renamed(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    download([NAME], tmp_path, base_url=server.url)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    download([NAME], tmp_path, base_url=server.url)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_changed_file_on_the_server_is_downloaded_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, NAME, RemoteFile(NAME, (3,), 77))
    with pytest.raises(DataError, match="10240 bytes instead of 77"):
        download([NAME], tmp_path, base_url=server.url)
    assert not (tmp_path / NAME).exists()


def test_a_file_of_the_wrong_size_is_not_accepted_as_complete(
    server: Server, tmp_path: Path
) -> None:
    name = "ISIC2018_Task1_Training_GroundTruth.zip"
    (tmp_path / name).write_bytes(b"short")
    with pytest.raises(DataError, match=r"5 bytes instead of 27402895.*download it again"):
        download([name], tmp_path, base_url=server.url)


def test_a_file_missing_on_the_server_is_an_error(server: Server, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(DataError, match=r"404.*challenge\.isic-archive\.com"):
        download([NAME], tmp_path, base_url=server.url)


def test_being_offline_is_an_error(tmp_path: Path) -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(DataError, match=r"cannot be reached .*refused.*in a browser"):
        download([NAME], tmp_path, base_url=url)


def test_a_disk_that_is_too_small_is_an_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(DataError, match="free some space"):
        download([NAME], tmp_path, base_url=server.url)


@pytest.mark.parametrize(
    ("names", "url", "message"),
    [
        (["x.zip"], "http://127.0.0.1", "unknown file 'x.zip'"),
        ([NAME], "file:///etc", "not a web address"),
    ],
)
def test_a_refused_request_is_an_error(
    names: list[str], url: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        download(names, tmp_path, base_url=url)


def test_two_downloads_of_one_file_exclude_each_other(server: Server, tmp_path: Path) -> None:
    with lock(tmp_path / ".download.lock"), pytest.raises(NaevusError, match="in use"):
        download([NAME], tmp_path, base_url=server.url)


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in names:
            target.writestr(name, b"0" * 1000)
    return path


@pytest.mark.parametrize("inside", ["ISIC2018_Task3_Test_Input/", ""])
def test_archives_are_unzipped(server: Server, tmp_path: Path, inside: str) -> None:
    name = "ISIC2018_Task3_Test_Input.zip"
    made = archive(tmp_path / name, f"{inside}ISIC_1.jpg", f"{inside}LICENSE.txt")
    server.files[name] = made.read_bytes()
    out = tmp_path / "out"
    download([name], out, base_url=server.url, unzip=True)
    assert sorted(path.name for path in (out / "ISIC2018_Task3_Test_Input").iterdir()) == [
        "ISIC_1.jpg",
        "LICENSE.txt",
    ]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", ".", "./."]
)
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    made = archive(tmp_path / "a.zip", "fine.txt", name)
    with pytest.raises(DataError, match="points outside the folder"):
        unpack(made, tmp_path / "out")
    assert not list(tmp_path.rglob("*.txt"))


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.zip", "X")
    content = made.read_bytes().replace(b"X", b"\0")  # names end at a null byte
    made.write_bytes(content)
    with pytest.raises(DataError, match="the name '' points outside"):
        unpack(made, tmp_path / "out")


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.zip", "one.txt")
    content = bytearray(made.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    made.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: damaged .*download it again"):
        unpack(made, tmp_path)
    assert not (tmp_path / "a" / "one.txt").exists()
    made.write_bytes(content[:50])
    with pytest.raises(DataError, match="damaged"):
        unpack(made, tmp_path)


def test_unpacking_again_changes_nothing(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.zip", "one.txt")
    first = unpack(made, tmp_path)[0].stat().st_mtime_ns
    assert unpack(made, tmp_path)[0].stat().st_mtime_ns == first


def test_a_file_named_like_its_archive_is_unpacked_into_its_folder(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.zip", "a", "a/b.txt")
    assert unpack(made, tmp_path / "out") == [tmp_path / "out/a/a", tmp_path / "out/a/b.txt"]


@pytest.mark.parametrize("files", [1, 40])
def test_an_archive_that_would_become_far_larger_is_refused(tmp_path: Path, files: int) -> None:
    made = tmp_path / "bomb.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as content:
        for number in range(files):
            content.writestr(f"{number}.csv", bytes((4 << 20) // files))
    with pytest.raises(DataError, match=rf"bomb\.zip: {made.stat().st_size} bytes would unpack to"):
        unpack(made, tmp_path / "out")
    assert not list(tmp_path.rglob("*.csv"))


def test_a_table_of_repetitions_is_unpacked(tmp_path: Path) -> None:
    made = tmp_path / "table.zip"
    rows = "".join(f"ISIC_{number:07d},0.0,1.0,0.0,0.0,0.0,0.0,0.0\n" for number in range(10_000))
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("table.csv", rows)
    assert unpack(made, tmp_path)[0].read_text() == rows


def test_too_little_space_is_said_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive(tmp_path / "a.zip", "one.txt", "two.txt")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(DataError, match=r"GB are free, but a\.zip needs .*; free some space"):
        unpack(made, tmp_path / "out")
    assert not list(tmp_path.rglob("*.txt"))


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    made = tmp_path / "a.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_LZMA) as content:
        content.writestr("one.txt", b"text" * 100)
    with pytest.raises(DataError, match="unsupported compression"):
        unpack(made, tmp_path)
