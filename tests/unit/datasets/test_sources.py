"""Images by id: lists of paths, ids that depend on paths alone, and the lesions of images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from naevus.datasets.sources import find_images, lesions_by_folder, lesions_in, paths_in_list
from naevus.errors import DataError
from naevus.images.preprocess import ImageFiles


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"image")


def listing(root: Path, content: bytes | str) -> Path:
    path = root / "list.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a/x.jpg\nb/y.jpg\n",
        "a/x.jpg\r\nb/y.jpg\r\n",
        "\ufeffa/x.jpg\nb/y.jpg",
        "# the first\n\na/x.jpg\n   \n  # the second\n  b/y.jpg  \n",
    ],
)
def test_a_list_is_read_line_by_line(tmp_path: Path, content: str) -> None:
    assert [each.as_posix() for each in paths_in_list(listing(tmp_path, content))] == [
        "a/x.jpg",
        "b/y.jpg",
    ]


def test_names_keep_signs_that_mean_something_elsewhere(tmp_path: Path) -> None:
    names = ["a #1.jpg", "50 %.jpg", "caf\xe9, left.jpg", '"quoted".jpg', "C:/x.jpg"]
    found = paths_in_list(listing(tmp_path, "\n".join(names)))
    assert [each.as_posix() for each in found] == names


@pytest.mark.parametrize(
    "address", ["file:///data/my%20images/x.jpg", "FILE:///data/my images/x.jpg"]
)
def test_addresses_of_files_are_paths(tmp_path: Path, address: str) -> None:
    (path,) = paths_in_list(listing(tmp_path, address))
    assert path.as_posix() == "/data/my images/x.jpg"


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    (path,) = paths_in_list(listing(tmp_path, b"caf\xe9.jpg\n"))
    assert os.fsencode(path) == b"caf\xe9.jpg"


@pytest.mark.parametrize("address", ["s3://bucket/x.jpg", "https://a.b/x.jpg", "GS://b/x.jpg"])
def test_other_schemes_are_refused_in_one_line(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match=r"list\.txt, line 3: .*mount or copy") as caught:
        paths_in_list(listing(tmp_path, f"# images\na.jpg\n{address}\n"))
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "lists no path"),
        (b"# nothing\n\n", "lists no path"),
        ("a.jpg\n".encode("utf-16"), "not text in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_list_without_paths_is_an_error(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "absent.txt" if content is None else listing(tmp_path, content)
    with pytest.raises(DataError, match=problem):
        paths_in_list(path)


def test_listed_paths_that_do_not_exist_count_as_failed(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    listed = [tmp_path / "a/x.jpg", tmp_path / "gone.jpg", tmp_path / "b"]
    found = find_images([], listed=listed)
    assert [each.image_id for each in found.sources] == ["x", "y"]
    assert found.failed == [("gone", str(tmp_path / "gone.jpg"), "does not exist")]
    with pytest.raises(DataError, match=r"gone\.jpg does not exist"):
        find_images([tmp_path / "gone.jpg"], listed=listed[:1])


def test_by_default_only_names_that_repeat_get_their_folder(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/x.jpg", "b/y.jpg")
    found = find_images([], listed=[tmp_path / "a", tmp_path / "b"])
    assert [each.image_id for each in found.sources] == ["a__x", "b__x", "y"]


def test_ids_by_path_are_the_same_in_any_part_of_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "/".join(["d" * 90] * 3)
    names = ["a/x.jpg", "b/x.jpg", "b/x.png", ".hidden/x.jpg", f"{long}/x.jpg", f"{long}/y.jpg"]
    make(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    together = find_images([], listed=map(type(tmp_path), names), ids="path").sources
    apart = [find_images([], listed=[tmp_path / name], ids="path").sources[0] for name in names]
    of = {each.path.resolve(): each.image_id for each in together}
    assert len(set(of.values())) == len(names)
    assert {each.path.resolve(): each.image_id for each in apart} == of
    assert of[(tmp_path / "b/x.png").resolve()] == "b__x.png"
    assert of[(tmp_path / f"{long}/x.jpg").resolve()].startswith("x__")


def test_ids_by_path_of_files_elsewhere_begin_at_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/x.jpg", "here/z")
    monkeypatch.chdir(tmp_path / "here")
    (found,) = find_images([tmp_path / "a"], ids="path").sources
    assert found.image_id == "__".join((*(tmp_path / "a/x.jpg").parts[1:],))


def test_paths_that_would_share_an_id_get_different_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a__b/x.jpg", "a/b__x.jpg")
    monkeypatch.chdir(tmp_path)
    ids = [each.image_id for each in find_images([tmp_path], ids="path").sources]
    assert len(set(ids)) == 2


def files(*names: str) -> list[ImageFiles]:
    return [ImageFiles(Path(name).stem, Path("photos") / name) for name in names]


@pytest.mark.parametrize(
    ("names", "lesions"),
    [
        (("a/1.jpg", "a/2.jpg", "b/3.jpg"), ["a", "a", "b"]),
        (("x/left/1.jpg", "y/left/2.jpg"), ["x/left", "y/left"]),
        (("1.jpg", "2.jpg"), ["photos", "photos"]),
        (("1.jpg", "a/2.jpg"), ["photos", "photos/a"]),
    ],
)
def test_a_folder_is_a_lesion(names: tuple[str, ...], lesions: list[str]) -> None:
    assert list(lesions_by_folder(files(*names)).values()) == lesions


@pytest.mark.parametrize(
    "text",
    [
        "image_id,lesion_id\na,L1\nb,L1\nc,\nother,L2\n",
        "isic_id;Läsion-ID\na.jpg;L1\nb.JPG;L1\nc;\n",
        "path,lesion_id\na.jpg,L1\nb.jpg,L1\nc.jpg,\nother.jpg,L2\n",
        "image_id,lesion_id\na,L1\na,L1\nb,L1\n",
    ],
)
def test_tables_name_images_by_id_file_or_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lesions.csv"
    path.write_text(text, encoding="utf-8")
    sources = [ImageFiles(name, tmp_path / f"{name}.jpg") for name in "abc"]
    assert lesions_in(path, sources) == {"a": "L1", "b": "L1"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image_id,dx\na,nv\n", "has no column lesion_id"),
        ("lesion_id,dx\na,nv\n", "has no column image_id"),
        ("image_id,lesion_id\na,L1\nb,L1\na,L2\n", "the image a is in two lesions, L1 and L2"),
        ("image_id,lesion_id\nx,L1\n", "has none of the 3 images, such as a"),
        ("image_id,lesion_id\na,\n", "has none of the 3 images, such as a"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "lesions.csv"
    path.write_text(text)
    sources = [ImageFiles(name, tmp_path / f"{name}.jpg") for name in "abc"]
    with pytest.raises(DataError, match=problem) as caught:
        lesions_in(path, sources)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
