"""Which images a job predicts: options that fit together, lists of paths, and lesions."""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naevus.datasets.selection import (
    Selection,
    lesions_by_folder,
    lesions_in,
    paths_in_list,
    spread_out,
)
from naevus.errors import ConfigError, DataError
from naevus.images.preprocess import ImageFiles
from naevus.images.read import write_png
from tests.helpers.layouts import Warned

# Options that fit together.

HERE = [Path("photos")]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "no images are named"),
        ({"images": HERE, "part": "task3"}, "--part selects part of a split"),
        ({"images": HERE, "image_type": "all"}, "--image-type applies to the split"),
        ({"images": HERE, "split": "test", "ids": "path"}, "--ids does not apply to the split"),
        (
            {"images": HERE, "split": "test", "input_list": Path("l.txt")},
            "--input-list does not apply to the split",
        ),
        (
            {"images": HERE, "lesions": Path("l.csv"), "group_by": "folder"},
            "--lesions and --group-by both name lesions",
        ),
        ({"images": HERE, "ids": "Path"}, "unknown ids 'Path'; use one of name, path"),
        ({"images": HERE, "group_by": "patient"}, "unknown group_by 'patient'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Selection(**options)


@pytest.mark.parametrize(
    ("limit", "grouped", "ids"),
    [
        (None, False, "123"),
        (3, True, "123"),
        (4, False, "123"),
        (1, False, "1"),
        (2, False, "13"),
        (2, True, "12"),
        (1, True, "3"),  # the only lesion of one image
    ],
)
def test_a_limit_spreads_the_images_and_says_so(
    tmp_path: Path, limit: int | None, grouped: bool, ids: str
) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    reporter = Warned()
    selection = Selection([tmp_path], limit=limit, group_by="folder" if grouped else None)
    selected = selection.find(tmp_path / "out", reporter=reporter)
    assert [each.image_id for each in selected.sources] == list(ids)
    assert list(selected.lesions) == (list(ids) if grouped else [])
    assert len(selected.found.sources) == 3
    whole = ", whole lesions" if grouped else ""
    line = f"limited: {len(ids)} of 3 images are predicted, spread evenly over all{whole}"
    assert reporter.lines == [line] * (len(ids) < 3)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 50))
def test_a_limit_keeps_lesions_whole_and_leaves_no_room(names: list[int], limit: int) -> None:
    sources = [ImageFiles(f"{n:02}", Path(f"{n:02}.jpg")) for n in range(len(names))]
    # An image without a lesion may have the name of one.
    lesions = {f"{n:02}": f"{name:02}" for n, name in enumerate(names) if name}
    sizes = Counter(lesions.values())
    smallest = 1 if len(lesions) < len(names) else min(sizes.values())
    if smallest > limit:
        with pytest.raises(DataError, match="more than the limit"):
            spread_out(sources, limit, lesions)
        return
    chosen = spread_out(sources, limit, lesions)
    ids = [each.image_id for each in chosen]
    assert ids == sorted(set(ids))
    assert 0 < len(ids) <= limit
    taken = Counter(lesions[each] for each in ids if each in lesions)
    assert all(sizes[name] == count for name, count in taken.items())
    rest = [sizes[name] for name in sizes if name not in taken]
    rest += [1] * (len(names) - len(lesions) - sum(each not in lesions for each in ids))
    assert all(size > limit - len(ids) for size in rest)


@pytest.mark.parametrize(("images", "limit"), [(1000, 7), (1000, 64), (257, 100)])
def test_gaps_between_the_images_of_a_limit_differ_little(images: int, limit: int) -> None:
    sources = [ImageFiles(f"{n:04}", Path(f"{n:04}.jpg")) for n in range(images)]
    places = [int(each.image_id) for each in spread_out(sources, limit, {})]
    gaps = [after - before for before, after in pairwise([*places, images])]
    assert len(places) == limit
    assert max(gaps) <= 3 * images / limit


# Lists.


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


# Lesions.


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
        "image_id,lesion_id\n./a.jpg,L1\n.\\b.jpg,L1\nold/c.jpg,\n",
    ],
)
def test_tables_name_images_by_id_file_or_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lesions.csv"
    path.write_text(text, encoding="utf-8")
    sources = [ImageFiles(name, tmp_path / f"{name}.jpg") for name in "abc"]
    assert lesions_in(path, sources) == {"a": "L1", "b": "L1"}


@pytest.mark.parametrize("column", ["image_id", "path"])
def test_images_of_one_name_are_in_the_lesions_of_their_folders(
    tmp_path: Path, column: str
) -> None:
    sources = [ImageFiles(f"{name}__1", tmp_path / name / "1.jpg") for name in ("anna", "bert")]
    for source in sources:
        source.path.parent.mkdir()
        source.path.touch()
    (tmp_path / "l.csv").write_text(f"{column},lesion_id\nanna/1.jpg,A\nbert\\1.jpg,B\n")
    assert lesions_in(tmp_path / "l.csv", sources) == {"anna__1": "A", "bert__1": "B"}
    (tmp_path / "l.csv").write_text(f"{column},lesion_id\nbert/1.jpg,B\n")
    with pytest.raises(DataError, match="has none of the 1 images"):
        lesions_in(tmp_path / "l.csv", [ImageFiles("1", sources[0].path)])


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


def two_data_sets(root: Path, *lesions: str) -> list[Path]:
    """Write two data sets with two test images each, of these four lesions."""
    for number, lesion in enumerate(lesions):
        folder = root / "AB"[number // 2]
        write_png(folder / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
        with (folder / "labels.csv").open("a") as table:
            if number % 2 == 0:
                table.write("image,diagnosis,split,lesion_id\n")
            table.write(f"{number}.png,NV,test,{lesion}\n")
    return [root / "A", root / "B"]


def test_lesions_of_two_data_sets_are_not_joined_by_their_numbers(tmp_path: Path) -> None:
    roots = two_data_sets(tmp_path, "1", "1", "1", "2")
    with pytest.raises(DataError, match=r"have a lesion '1'.*--lesions"):
        Selection(roots, split="test").find(tmp_path / "out")
    (tmp_path / "all.csv").write_text("image_id,lesion_id\n0,a\n1,a\n2,b\n3,c\n")
    found = Selection(roots, split="test", lesions=tmp_path / "all.csv").find(tmp_path / "out")
    assert found.lesions == {"0": "a", "1": "a", "2": "b", "3": "c"}


def test_a_data_set_may_be_named_twice(tmp_path: Path) -> None:
    root, _ = two_data_sets(tmp_path, "1", "1", "2", "2")
    found = Selection([root, root], split="test").find(tmp_path / "out")
    assert found.lesions == {"0": "1", "1": "1"}


def test_lesions_of_two_data_sets_stay(tmp_path: Path) -> None:
    roots = two_data_sets(tmp_path, "1", "1", "2", "3")
    found = Selection(roots, split="test").find(tmp_path / "out")
    assert found.lesions == {"0": "1", "1": "1", "2": "2", "3": "3"}


def test_whole_data_sets_name_lesions_by_their_files(tmp_path: Path) -> None:
    for name in ("data/x/1.png", "data/y/1.png", "data/2.png", "other/3.png", "other/4.png"):
        write_png(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    lines = "path,lesion_id\nx/1.png,L1\ny/1.png,L2\n2.png,L2\n"
    (tmp_path / "data" / "manifest.csv").write_text(lines)
    (tmp_path / "other" / "notes.csv").write_text("when,what\n1999,none\n")
    reporter, out = Warned(), tmp_path / "out"
    folders = [tmp_path / "data", tmp_path / "other"]
    selected = Selection(folders).find(out, reporter=reporter)
    lesions = {"2": "L2", "data__x__1": "L1", "data__y__1": "L2"}
    assert (selected.lesions, selected.layouts, reporter.lines) == (lesions, [], [])
    part = Selection([tmp_path / "data" / "x", tmp_path / "data" / "2.png"]).find(out)
    assert part.lesions == {}  # no data set, but a part of one
    one = Selection(folders, limit=3).find(out, reporter=reporter)
    assert [each.image_id for each in one.sources] == ["2", "4", "data__y__1"]
    given = Selection(folders, group_by="folder").find(out).lesions
    assert given == lesions_by_folder(selected.sources)


def test_data_sets_that_are_not_understood_are_predicted_without_lesions(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        write_png(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    manifest = "path,lesion_id\n{}.png,L1\n"
    (tmp_path / "a" / "manifest.csv").write_text(manifest.format(1))
    (tmp_path / "b" / "manifest.csv").write_text(manifest.format(2))
    both = [tmp_path / "a", tmp_path / "b"]
    reporter = Warned()
    assert Selection(both).find(tmp_path / "out", reporter=reporter).lesions == {}
    (line,) = reporter.lines
    assert "two of the data sets have a lesion 'L1'" in line
    assert line.endswith("until then no lesion is known")
    (tmp_path / "b" / "manifest.csv").write_text("path,lesion_id,split\n2.png,L1,later\n")
    reporter = Warned()
    assert Selection(both).find(tmp_path / "out", reporter=reporter).lesions == {"1": "L1"}
    (line,) = reporter.lines
    assert "later" in line
    assert line.endswith("until then its lesions are not known")
