"""A bundle as one file: reproducible bytes, equal content, and safety against hostile files."""

from __future__ import annotations

import stat
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from naevus.bundles.bundle import (
    Bundle,
    Limits,
    archives_folder,
    builtin,
    find_bundles,
    pack,
    unpacked,
    write_bundle,
)
from naevus.bundles.spec import MANIFEST
from naevus.errors import BundleError, NaevusError
from naevus.io.files import cache_folder, put_folder, sha256
from tests.helpers.onnx_graphs import classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return archives_folder()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return classification_bundle(tmp_path / "bundle")


@pytest.fixture
def packed(bundle: Bundle, tmp_path: Path) -> Path:
    return pack(bundle.folder, bundle.spec, tmp_path / "one.naevus")


def test_a_packed_bundle_equals_its_folder(bundle: Bundle, packed: Path, cache: Path) -> None:
    read = Bundle.read(packed)
    assert (read.spec, read.sha256) == (bundle.spec, bundle.sha256)
    assert read.folder == cache / sha256(packed)
    assert find_bundles([packed]) == [read]


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, packed: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for source in sorted(bundle.folder.iterdir(), reverse=True):
        (copied / source.name).write_bytes(source.read_bytes())  # other times, other order
    (copied / "stray.txt").write_text("not of the bundle")
    again = pack(copied, bundle.spec, tmp_path / "again.naevus")
    assert again.read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_archive_is_unpacked_once(packed: Path, cache: Path) -> None:
    unpacked(packed)
    marker = cache / sha256(packed) / "marker"
    marker.touch()
    assert marker.parent == unpacked(packed)
    assert marker.exists()
    assert [path.name for path in cache.iterdir()] == [marker.parent.name]


def test_damaged_files_in_the_cache_are_unpacked_again(packed: Path) -> None:
    bundle = Bundle.read(packed)
    with (bundle.folder / "member-0.onnx").open("ab") as stream:
        stream.write(b"\0")
    assert Bundle.read(packed) == bundle


def test_a_bundle_is_written_as_one_file_by_its_name(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "new" / "lesions.naevus"
    files = {"member-0.onnx": bundle.folder / "member-0.onnx"}
    written = write_bundle(path, bundle.spec, files)
    assert written.sha256 == bundle.sha256
    newer = segmentation_bundle(tmp_path / "newer")
    files = {"member-0.onnx": newer.folder / "member-0.onnx"}
    assert write_bundle(path, newer.spec, files).sha256 == newer.sha256
    assert [entry.name for entry in path.parent.iterdir()] == ["lesions.naevus"]


def test_files_other_than_bundles_are_not_replaced(bundle: Bundle, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.naevus"
    thesis.write_text("years of work")
    files = {"member-0.onnx": bundle.folder / "member-0.onnx"}
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(thesis, bundle.spec, files)
    assert thesis.read_text() == "years of work"
    with pytest.raises(BundleError, match=r"choose a name ending in \.naevus"):
        pack(bundle.folder, bundle.spec, tmp_path / "one.zip")


_INFLATED = 1 << 26  # actual bytes of a manifest that states fewer


def rewritten(path: Path, change: Callable[[zipfile.ZipFile], None], *leave_out: str) -> Path:
    """Copy the archive without some files and with a change."""
    other = path.with_name("other.naevus")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            if entry.filename not in leave_out:
                new.writestr(entry, old.read(entry))
        change(new)
    return other


def linking(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("MODEL_CARD.md")
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/hostname")


def named(name: str, method: int = zipfile.ZIP_STORED) -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(zipfile.ZipInfo(name), b"x", method)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (linking, "link"),
        (named("../outside"), "not a plain file name"),
        (named("/tmp/outside"), "not a plain file name"),
        (named("folder/"), "not a plain file name"),
        (named("a\\b"), "not a plain file name"),
        (named("C:outside"), "not a plain file name"),
        (named(".hidden"), "not a plain file name"),
        (named("member-0.ONNX"), "is listed twice"),
        (named("stray.txt"), "does not list"),
        (named("MODEL_CARD.md", zipfile.ZIP_LZMA), "unsupported compression"),
    ],
)
def test_a_hostile_archive_is_refused_before_anything_is_written(
    packed: Path, cache: Path, change: Callable[[zipfile.ZipFile], None], problem: str
) -> None:
    other = rewritten(packed, change, "MODEL_CARD.md")
    with pytest.raises(BundleError, match=problem):
        Bundle.read(other)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (Limits(files=2), "contains 3 files"),
        (Limits(size=1000), "at most 1000"),
        (Limits(manifest=10), "too large"),
    ],
)
def test_too_large_an_archive_is_refused_before_anything_is_written(
    packed: Path, cache: Path, limits: Limits, problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        unpacked(packed, limits)
    assert not cache.exists()


def test_a_zip_bomb_is_refused_before_anything_is_written(packed: Path, cache: Path) -> None:
    def bomb(archive: zipfile.ZipFile) -> None:
        archive.writestr("MODEL_CARD.md", bytes(1 << 24), zipfile.ZIP_DEFLATED)

    with pytest.raises(BundleError, match="would unpack to"):
        Bundle.read(rewritten(packed, bomb, "MODEL_CARD.md"))
    assert not cache.exists()


def test_inflating_a_manifest_stops_at_its_stated_size(packed: Path, tmp_path: Path) -> None:
    def bomb(archive: zipfile.ZipFile) -> None:
        archive.writestr(MANIFEST, b"{" + bytes(_INFLATED - 1), zipfile.ZIP_DEFLATED)

    bombed = rewritten(packed, bomb, MANIFEST)
    claim = tmp_path / "claim.naevus"
    true, false = (size.to_bytes(4, "little") for size in (_INFLATED, 1 << 20))
    assert bombed.read_bytes().count(true) == 2  # in the local header and in the central directory
    claim.write_bytes(bombed.read_bytes().replace(true, false))
    tracemalloc.start()
    with pytest.raises(BundleError):
        unpacked(claim)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < _INFLATED / 4


def test_a_changed_manifest_in_the_cache_is_unpacked_again(packed: Path) -> None:
    bundle = Bundle.read(packed)
    manifest = bundle.folder / MANIFEST
    manifest.write_text(manifest.read_text().replace('"temperature": 1.0', '"temperature": 50.0'))
    assert Bundle.read(bundle.folder).classifier.temperature == 50
    assert Bundle.read(packed) == bundle


def test_a_folder_with_other_files_is_not_replaced(bundle: Bundle, tmp_path: Path) -> None:
    files = {"member-0.onnx": bundle.folder / "member-0.onnx"}
    place = write_bundle(tmp_path / "place", bundle.spec, files).folder
    (place / "notes.txt").write_text("years of work")
    with pytest.raises(
        BundleError, match=r"contains 'notes\.txt', which is not part of the bundle"
    ):
        write_bundle(place, bundle.spec, files)
    assert (place / "notes.txt").read_text() == "years of work"
    (place / "notes.txt").unlink()
    whole = (place / MANIFEST).read_bytes()
    (place / MANIFEST).write_bytes(whole[: len(whole) // 2])  # a damaged bundle is still one
    assert write_bundle(place, bundle.spec, files).sha256 == bundle.sha256


def test_a_failed_replacement_keeps_the_old_bundle(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        put_folder(tmp_path / "absent", bundle.folder, tmp_path / "old")
    assert Bundle.read(bundle.folder) == bundle


def test_the_built_in_bundle_has_a_name(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = bundle.folder.resolve()
    found = find_bundles([own, Path("built-in")])
    assert [each.folder for each in found] == [own, builtin()]
    with pytest.raises(BundleError, match="built-in: given twice"):
        find_bundles([builtin(), Path("built-in")])
    (tmp_path / "built-in").mkdir()
    with pytest.raises(BundleError, match="a folder here has that name"):
        find_bundles([Path("built-in")])


def test_a_bundle_given_twice_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="given twice"):
        find_bundles([bundle.folder, bundle.folder / "." / ".." / bundle.folder.name])


def test_a_file_that_was_changed_is_refused(packed: Path) -> None:
    other = rewritten(packed, named("MODEL_CARD.md"), "MODEL_CARD.md")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md: changed since"):
        Bundle.read(other)


@pytest.mark.parametrize("left_out", ["bundle.json", "member-0.onnx"])
def test_an_archive_with_a_missing_file_is_refused(packed: Path, left_out: str) -> None:
    other = rewritten(packed, lambda _: None, left_out)
    with pytest.raises(BundleError, match=left_out):
        Bundle.read(other)


def test_truncated_altered_or_foreign_files_are_refused(packed: Path, cache: Path) -> None:
    whole = packed.read_bytes()
    altered = bytearray(whole)
    altered[500] ^= 1
    for content in (whole[:-30], whole[: len(whole) // 2], bytes(altered), b"no archive", b""):
        packed.write_bytes(content)
        with pytest.raises(BundleError, match=r"one\.naevus"):
            Bundle.read(packed)
    assert not list(cache.glob("*"))


def test_an_unwritable_cache_is_an_error(packed: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in the way")
    with pytest.raises(NaevusError, match="set XDG_CACHE_HOME"):
        Bundle.read(packed)


def test_a_relative_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert archives_folder() == tmp_path / ".cache" / "naevus" / "bundles"


def test_no_cache_without_a_home_folder(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert cache_folder("bundles") is None
    with pytest.raises(NaevusError, match=r"no home folder .* set XDG_CACHE_HOME"):
        Bundle.read(packed)


def test_a_moved_archive_uses_the_same_cache_folder(packed: Path, tmp_path: Path) -> None:
    first = Bundle.read(packed)
    moved = packed.rename(tmp_path / "elsewhere.naevus")
    assert Bundle.read(moved) == first


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 JFIF", b"a,b\n1,2\n"])
def test_another_kind_of_file_is_no_damaged_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(BundleError, match=r"photo.jpg: not a bundle; name a bundle"):
        Bundle.read(tmp_path / "photo.jpg")
