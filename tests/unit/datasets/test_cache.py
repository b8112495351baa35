"""The pixel store: what it holds, what it decodes again, and what a kill costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from naevus.datasets import cache
from naevus.datasets.cache import PixelStore
from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.errors import ConfigError, DataError, NaevusError
from naevus.images import preprocess
from naevus.images.geometry import squash
from naevus.images.maskfile import read_mask
from naevus.images.preprocess import Form, Source, cut
from naevus.images.read import DECODING, Limits, allow_megapixels, read, write_png
from naevus.io.files import lock

if TYPE_CHECKING:
    from naevus.images.preprocess import Rendered


SQUASH = Form("squash", 24)
FILES = ("pixels.npy", "index.csv", "quarantine.csv", "store.json")


def draw(folder: Path, number: int, seed: int = 0) -> Source:
    """Write a picture of 48 x 64 px and a mask in its middle."""
    random = np.random.default_rng((seed, number))
    path, mask_path = folder / f"p{number:02}.png", folder / f"p{number:02}_mask.png"
    write_png(path, random.integers(0, 256, (48, 64, 3), np.uint8))
    mask = np.zeros((48, 64), bool)
    mask[14:34, 20 : 40 + number] = True
    write_png(mask_path, mask)
    return Source(path.stem, path, mask_path)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    return [draw(tmp_path / "pictures", number) for number in range(12)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that were decoded, in the order they were."""
    seen: list[str] = []

    def spy(source: Source, form: Form, limits: Limits) -> Rendered:
        seen.append(source.image_id)
        return preprocess.render(source, form, limits)

    monkeypatch.setattr(cache, "render", spy)
    return seen


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_rows_are_the_pictures_by_id(sources: list[Source], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = PixelStore.build(
        sources, SQUASH, tmp_path / "store", progress=lambda done, of: seen.append((done, of))
    )
    assert store.ids == [source.image_id for source in sources]
    assert store.pixels.shape == (12, 24, 24, 3)
    for source in sources:
        expected = squash(read(source.path), 24)
        np.testing.assert_array_equal(store[source.image_id], expected)
        np.testing.assert_array_equal(store.pixels[store.index[source.image_id]], expected)
    assert seen[-1] == (12, 12)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not (tmp_path / "store" / ".building").exists()


def test_every_input_spec_is_cached(sources: list[Source], tmp_path: Path) -> None:
    source = sources[3]
    pixels, mask = read(source.path), read_mask(source.mask_path or Path())

    def row(form: Form) -> np.ndarray:
        store = PixelStore.build([source], form, tmp_path / f"{form.mode}{form.size}")
        assert store.modes == {source.image_id: form.mode}
        assert store.form == form
        return store[source.image_id]

    np.testing.assert_array_equal(row(Form("full", 20)), cut(pixels, None, mode="full", size=20)[0])
    for mode in ("crop", "blank"):
        crop = cut(pixels, mask, mode=mode, size=16, margin=0.1)
        np.testing.assert_array_equal(row(Form(mode, 16, margin=0.1)), crop.pixels)
    shares = row(Form("mask", 12))
    assert shares.shape == (12, 12)
    assert shares.mean() / 255 == pytest.approx(mask.mean(), abs=0.01)
    assert set(np.unique(shares)) > {0, 255}, "edges are averaged"
    larger = row(Form("squash", 96))
    assert larger.shape == (96, 96, 3), "a small picture is enlarged"
    even = PixelStore.build([source], Form("full", 20, colour_constancy=True), tmp_path / "even")
    assert (even[source.image_id] != row(Form("full", 20))).any()


def test_a_crop_without_a_usable_mask_says_that_it_is_full(tmp_path: Path) -> None:
    whole = draw(tmp_path, 1)
    empty = draw(tmp_path, 2)
    assert empty.mask_path is not None
    write_png(empty.mask_path, np.zeros((48, 64), bool))
    bare = draw(tmp_path, 3)._replace(mask_path=None)
    store = PixelStore.build([whole, empty, bare], Form("crop", 16), tmp_path / "store")
    assert store.modes == {"p01": "crop", "p02": "full", "p03": "full"}


def test_nothing_is_decoded_twice(
    sources: list[Source], tmp_path: Path, decoded: list[str]
) -> None:
    folder = tmp_path / "store"
    first = PixelStore.build(sources, SQUASH, folder)
    assert sorted(decoded) == first.ids
    before = content(folder)
    decoded.clear()
    PixelStore.build(sources, SQUASH, folder)
    assert decoded == []
    assert content(folder) == before


def test_only_what_changed_is_decoded_again(
    sources: list[Source], tmp_path: Path, decoded: list[str]
) -> None:
    folder = tmp_path / "store"
    old = PixelStore.build(sources, SQUASH, folder)
    decoded.clear()

    draw(tmp_path / "pictures", 4, seed=1)
    changed = PixelStore.build(sources, SQUASH, folder)
    assert decoded == ["p04"]
    assert changed.key != old.key
    assert [i for i in old.ids if (old[i] != changed[i]).any()] == ["p04"]
    decoded.clear()

    os.utime(sources[5].path, (1, 1))
    assert PixelStore.build(sources, SQUASH, folder).key == changed.key
    assert decoded == [], "another time and the same content is the same picture"

    fewer = [sources[7], sources[2], draw(tmp_path / "pictures", 12)]
    store = PixelStore.build(fewer, SQUASH, folder)
    assert decoded == ["p12"]
    assert store.ids == ["p07", "p02", "p12"]
    np.testing.assert_array_equal(store["p02"], changed["p02"])
    decoded.clear()

    PixelStore.build(fewer, Form("squash", 25), folder)
    assert sorted(decoded) == ["p02", "p07", "p12"], "another form is another picture"


def test_a_mask_counts_for_the_forms_that_use_it(
    sources: list[Source], tmp_path: Path, decoded: list[str]
) -> None:
    for form in (SQUASH, Form("crop", 24)):
        PixelStore.build(sources, form, tmp_path / form.mode)
    decoded.clear()
    mask_path = sources[6].mask_path
    assert mask_path is not None
    write_png(mask_path, np.ones((48, 64), bool) & (np.arange(64) > 40))
    PixelStore.build(sources, SQUASH, tmp_path / "squash")
    assert decoded == []
    PixelStore.build(sources, Form("crop", 24), tmp_path / "crop")
    assert decoded == ["p06"]


def test_bad_pictures_are_quarantined(
    sources: list[Source], tmp_path: Path, decoded: list[str]
) -> None:
    good = sources[2].path.read_bytes()
    sources[2].path.write_bytes(good[: len(good) // 2])
    sources[5].path.write_bytes(b"")
    sources[11].path.unlink()
    folder = tmp_path / "store"
    store = PixelStore.build(sources, SQUASH, folder)
    assert set(store.quarantined) == {"p02", "p05", "p11"}
    assert "p05.png" in store.quarantined["p05"]
    assert len(store) == len(store.pixels) == 9
    assert "p02" not in store
    np.testing.assert_array_equal(store["p10"], squash(read(sources[10].path), 24))
    with pytest.raises(DataError, match=r"p05\.png"):
        store["p05"]
    assert (folder / "quarantine.csv").read_text().count("\n") == 4

    decoded.clear()
    PixelStore.build(sources, SQUASH, folder)
    assert decoded == []
    sources[2].path.write_bytes(good)
    mended = PixelStore.build(sources, SQUASH, folder)
    assert decoded == ["p02"]
    assert set(mended.quarantined) == {"p05", "p11"}
    assert mended.ids[:3] == ["p00", "p01", "p02"]


def test_other_limits_try_the_quarantined_again(sources: list[Source], tmp_path: Path) -> None:
    folder = tmp_path / "store"
    none = PixelStore.build(sources, SQUASH, folder, limits=Limits(pixels=100))
    assert (len(none), len(none.quarantined)) == (0, 12)
    assert len(PixelStore.build(sources, SQUASH, folder)) == 12


def test_two_builders_are_one_too_many(sources: list[Source], tmp_path: Path) -> None:
    with (
        lock(tmp_path / "store" / ".lock"),
        pytest.raises(NaevusError, match="in use by another process"),
    ):
        PixelStore.build(sources, SQUASH, tmp_path / "store")


def test_an_interrupted_build_keeps_what_it_has(
    sources: list[Source], tmp_path: Path, decoded: list[str]
) -> None:
    def stop(done: int, of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PixelStore.build(sources, SQUASH, tmp_path / "store", workers=1, progress=stop)
    decoded.clear()
    PixelStore.build(sources, SQUASH, tmp_path / "store")
    assert sorted(decoded) == [source.image_id for source in sources[4:]]


def test_damage_is_told_and_mended(sources: list[Source], tmp_path: Path) -> None:
    folder = tmp_path / "store"
    PixelStore.build(sources, SQUASH, folder)
    before = content(folder)
    for name in FILES:
        (folder / name).write_bytes(before[name][:15])
        with pytest.raises(DataError, match="build the cache anew"):
            PixelStore.open(folder)
        PixelStore.build(sources, SQUASH, folder)
        assert content(folder) == before


def test_mistakes_of_users_are_errors(sources: list[Source], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="p00 occurs twice"):
        PixelStore.build([sources[0], sources[0]], SQUASH, tmp_path / "store")
    with pytest.raises(DataError, match="no finished pixel store"):
        PixelStore.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="unknown form"):
        Form("zoom", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="make no picture"):
        Form("crop", 0)
    bare = sources[0]._replace(mask_path=None)
    store = PixelStore.build([bare, sources[1]], Form("mask", 8), tmp_path / "store")
    assert "has no mask file" in store.quarantined["p00"]
    assert store.ids == ["p01"]


def far_from_exact(source: Source, form: Form) -> float:
    """How far a crop of a scaled decoding is from that of the whole image, in grey levels."""
    assert source.mask_path is not None
    scaled = preprocess.render(source, form).pixels.astype(float)
    mask = read_mask(source.mask_path)
    exact = cut(read(source.path), mask, mode="crop", size=form.size).pixels.astype(float)
    return float(np.abs(scaled - exact).mean())


def test_a_jpeg_crop_is_decoded_large_enough(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("NV", 5, 600)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=92)
    write_png(tmp_path / "a_mask.png", mask)
    form = Form("crop", 64)
    assert far_from_exact(Source("a", tmp_path / "a.jpg", tmp_path / "a_mask.png"), form) < 4
    small = np.zeros((100, 100), bool)
    small[40:60, 40:60] = True
    assert preprocess.decoding_side(small, form) == pytest.approx(64 * 100 / 26, abs=1)
    assert preprocess.decoding_side(None, form) == 64


def test_a_crop_of_a_real_jpeg_is_decoded_large_enough(shared_data: Path) -> None:
    folder, image_id = shared_data / "isic2018", "ISIC_0024306"
    source = Source(
        image_id,
        folder / "ISIC2018_Task3_Training_Input" / f"{image_id}.jpg",
        folder / "HAM10000_segmentations_lesion_tschandl" / f"{image_id}_segmentation.png",
    )
    assert far_from_exact(source, Form("crop", 64)) < 4


def test_other_decoding_makes_everything_anew(
    sources: list[Source], tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    key = PixelStore.build(sources, SQUASH, folder).key
    del decoded[:]
    assert PixelStore.build(sources, SQUASH, folder).key == key
    assert decoded == []
    monkeypatch.setattr(cache, "DECODING", DECODING + 1)
    assert PixelStore.build(sources, SQUASH, folder).key != key
    assert sorted(decoded) == [source.image_id for source in sources]


def test_a_raised_limit_lets_pictures_in_that_were_refused(
    sources: list[Source], tmp_path: Path
) -> None:
    try:
        allow_megapixels(0.001)
        none = PixelStore.build(sources, SQUASH, tmp_path / "store")
        assert len(none.quarantined) == len(sources)
        allow_megapixels(None)
        assert len(PixelStore.build(sources, SQUASH, tmp_path / "store")) == len(sources)
    finally:
        allow_megapixels(None)
