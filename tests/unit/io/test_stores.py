"""Remote stores, tried on a local file system that is addressed like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from naevus.errors import NaevusError
from naevus.io.stores import RemoteFile, Store, url_of


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/photos/a b.jpg", "s3://bucket/photos/a b.jpg"),
        (Path("s3://bucket/photos"), "s3://bucket/photos"),
        (Path("gs://bucket"), "gs://bucket"),
        ("photos", None),
        (Path("/photos/x:y.jpg"), None),
        ("c:/photos", None),
        ("file:///photos", None),
        ("a:b", None),
    ],
)
def test_only_paths_with_a_scheme_are_addresses(path: str | Path, url: str | None) -> None:
    assert url_of(path) == url


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.of(f"file://{tmp_path}/store")


def test_files_survive_a_round_trip(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content\0\0")
    assert not store.exists()
    store.upload(tmp_path / "a", "below/a.jpg")
    assert store.exists()
    (file,) = store.listing()
    assert (file.url, file.size) == (f"{store.url}/below/a.jpg", 9)
    assert store.read(file.url, 100) == b"content\0\0"
    assert store.read(file.url, 3) == b"con"
    assert store.download("below/a.jpg", tmp_path / "b" / "c")
    assert (tmp_path / "b" / "c").read_bytes() == b"content\0\0"
    assert not store.download("absent", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_one_file_is_a_store_of_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    (file,) = Store.of(f"file://{tmp_path}/a.jpg").listing()
    assert file.url == f"file://{tmp_path}/a.jpg"


def test_what_is_absent_or_unknown_is_one_line(store: Store) -> None:
    with pytest.raises(NaevusError, match="does not exist; check the address"):
        list(store.listing())
    with pytest.raises(NaevusError, match=r"nowhere://x: this kind of address is not supported"):
        Store.of("nowhere://x")
    with pytest.raises(FileNotFoundError):
        store.read(f"{store.url}/absent", 1)


def test_a_remote_file_is_named_like_a_path() -> None:
    file = RemoteFile("s3://bucket/a/b.c.jpg", 5, 7)
    path = Path("a/b.c.jpg")
    assert (file.name, file.stem, file.suffix) == (path.name, path.stem, path.suffix)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (5, 7)
    assert str(file) == "s3://bucket/a/b.c.jpg"
