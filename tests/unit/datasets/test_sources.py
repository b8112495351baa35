"""Images by id: absent files, and ids that depend on paths alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from naevus.datasets.sources import find_images, remote_images
from naevus.errors import DataError
from naevus.io.stores import Store

if TYPE_CHECKING:
    from pathlib import Path


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"image")


def test_listed_paths_that_do_not_exist_count_as_failed(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    listed = [tmp_path / "a/x.jpg", tmp_path / "gone.jpg", tmp_path / "b"]
    found = find_images([], listed=listed)
    assert [each.image_id for each in found.sources] == ["x", "y"]
    problem = "does not exist; check the name and the folder"
    assert found.failed == [("gone", str(tmp_path / "gone.jpg"), problem)]
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


def test_results_of_earlier_jobs_are_no_images_unless_they_are_named(tmp_path: Path) -> None:
    make(tmp_path, "lesion.jpg", "old/predict.json", "old/crops/lesion.png", "old/report/x.png")
    make(tmp_path, "a/run/run.toml", "a/run/folds.csv", "a/run/1/b.png", "recipe/run.toml")
    make(tmp_path, "recipe/mole.jpg", "out/predict.json", "out/crops/lesion.png")
    (tmp_path / "a/link").symlink_to(tmp_path / "old")
    found = find_images([tmp_path], without=tmp_path / "out")
    assert [each.image_id for each in found.sources] == ["lesion", "mole"]
    # The link leads to what was left out already; the job's own folder is not counted.
    assert found.outputs == [str(tmp_path / each) for each in ("a/run", "old")]
    named = find_images([tmp_path / "old"])
    assert [each.image_id for each in named.sources] == ["lesion", "x"]
    with pytest.raises(
        DataError, match=r"no images there \(1 folder of naevus's own results: .*run"
    ):
        find_images([tmp_path / "a"], without=tmp_path / "old")


def test_results_of_earlier_jobs_in_a_store_are_no_images(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    make(tmp_path, "lesion.jpg", "b/old/predict.json", "b/old/crops/lesion.png", "b/mole.jpg")
    make(tmp_path, "b/old/again/predict.json")
    found = remote_images([Store.of(f"file://{tmp_path}")])
    assert [each.image_id for each in found.sources] == ["lesion", "mole"]
    assert found.outputs == [f"file://{tmp_path}/b/old"]
    named = remote_images([Store.of(f"file://{tmp_path}/b/old")])
    assert [each.image_id for each in named.sources] == ["lesion"]
