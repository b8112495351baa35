"""The image cache: its content, repeated decoding, and interrupted builds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from naevus.datasets import cache
from naevus.datasets.cache import ImageCache
from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.errors import ConfigError, DataError, NaevusError
from naevus.images import preprocess
from naevus.images.geometry import squash
from naevus.images.maskfile import read_mask
from naevus.images.preprocess import ImageFiles, InputSpec, cut
from naevus.images.read import DECODING, Limits, allow_megapixels, read, write_png
from naevus.io.files import lock

if TYPE_CHECKING:
    from naevus.images.preprocess import LoadedInput


SQUASH = InputSpec("squash", 24)
FILES = ("pixels.npy", "index.csv", "failed.csv", "cache.json")


def draw(folder: Path, number: int, seed: int = 0) -> ImageFiles:
    """Write an image of 48 x 64 px and a mask in its middle."""
    rng = np.random.default_rng((seed, number))
    path, mask_path = folder / f"p{number:02}.png", folder / f"p{number:02}_mask.png"
    write_png(path, rng.integers(0, 256, (48, 64, 3), np.uint8))
    mask = np.zeros((48, 64), bool)
    mask[14:34, 20 : 40 + number] = True
    write_png(mask_path, mask)
    return ImageFiles(path.stem, path, mask_path)


@pytest.fixture
def sources(tmp_path: Path) -> list[ImageFiles]:
    return [draw(tmp_path / "images", number) for number in range(12)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of decoded images, in order."""
    seen: list[str] = []

    def spy(source: ImageFiles, input_spec: InputSpec, limits: Limits) -> LoadedInput:
        seen.append(source.image_id)
        return preprocess.load_input(source, input_spec, limits)

    monkeypatch.setattr(cache, "load_input", spy)
    return seen


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_rows_are_the_images_by_id(sources: list[ImageFiles], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache = ImageCache.build(
        sources, SQUASH, tmp_path / "store", progress=lambda done, of: seen.append((done, of))
    )
    assert cache.ids == [source.image_id for source in sources]
    assert cache.pixels.shape == (12, 24, 24, 3)
    for source in sources:
        expected = squash(read(source.path), 24)
        np.testing.assert_array_equal(cache[source.image_id], expected)
        np.testing.assert_array_equal(cache.pixels[cache.index[source.image_id]], expected)
    assert seen[-1] == (12, 12)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not (tmp_path / "store" / ".building").exists()


def test_every_input_spec_is_cached(sources: list[ImageFiles], tmp_path: Path) -> None:
    source = sources[3]
    pixels, mask = read(source.path), read_mask(source.mask_path or Path())

    def row(input_spec: InputSpec) -> np.ndarray:
        cache = ImageCache.build(
            [source], input_spec, tmp_path / f"{input_spec.mode}{input_spec.size}"
        )
        assert cache.modes == {source.image_id: input_spec.mode}
        assert cache.input_spec == input_spec
        return cache[source.image_id]

    np.testing.assert_array_equal(
        row(InputSpec("full", 20)), cut(pixels, None, mode="full", size=20)[0]
    )
    for mode in ("crop", "blank"):
        crop = cut(pixels, mask, mode=mode, size=16, margin=0.1)
        np.testing.assert_array_equal(row(InputSpec(mode, 16, margin=0.1)), crop.pixels)
    class_priors = row(InputSpec("mask", 12))
    assert class_priors.shape == (12, 12)
    assert class_priors.mean() / 255 == pytest.approx(mask.mean(), abs=0.01)
    assert set(np.unique(class_priors)) > {0, 255}, "edges are averaged"
    larger = row(InputSpec("squash", 96))
    assert larger.shape == (96, 96, 3), "a small image is enlarged"
    even = ImageCache.build(
        [source], InputSpec("full", 20, colour_constancy=True), tmp_path / "even"
    )
    assert (even[source.image_id] != row(InputSpec("full", 20))).any()


def test_a_crop_without_a_usable_mask_is_recorded_as_full(tmp_path: Path) -> None:
    whole = draw(tmp_path, 1)
    empty = draw(tmp_path, 2)
    assert empty.mask_path is not None
    write_png(empty.mask_path, np.zeros((48, 64), bool))
    bare = draw(tmp_path, 3)._replace(mask_path=None)
    cache = ImageCache.build([whole, empty, bare], InputSpec("crop", 16), tmp_path / "store")
    assert cache.modes == {"p01": "crop", "p02": "full", "p03": "full"}


def test_nothing_is_decoded_twice(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str]
) -> None:
    folder = tmp_path / "store"
    first = ImageCache.build(sources, SQUASH, folder)
    assert sorted(decoded) == first.ids
    before = content(folder)
    decoded.clear()
    ImageCache.build(sources, SQUASH, folder)
    assert decoded == []
    assert content(folder) == before


def test_only_changed_images_are_decoded_again(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str]
) -> None:
    folder = tmp_path / "store"
    old = ImageCache.build(sources, SQUASH, folder)
    decoded.clear()

    draw(tmp_path / "images", 4, seed=1)
    changed = ImageCache.build(sources, SQUASH, folder)
    assert decoded == ["p04"]
    assert changed.key != old.key
    assert [i for i in old.ids if (old[i] != changed[i]).any()] == ["p04"]
    decoded.clear()

    os.utime(sources[5].path, (1, 1))
    assert ImageCache.build(sources, SQUASH, folder).key == changed.key
    assert decoded == [], "another time and the same content is the same image"

    fewer = [sources[7], sources[2], draw(tmp_path / "images", 12)]
    cache = ImageCache.build(fewer, SQUASH, folder)
    assert decoded == ["p12"]
    assert cache.ids == ["p07", "p02", "p12"]
    np.testing.assert_array_equal(cache["p02"], changed["p02"])
    decoded.clear()

    ImageCache.build(fewer, InputSpec("squash", 25), folder)
    assert sorted(decoded) == ["p02", "p07", "p12"], "another form is another image"


def test_a_changed_mask_affects_only_input_specs_that_use_it(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str]
) -> None:
    for input_spec in (SQUASH, InputSpec("crop", 24)):
        ImageCache.build(sources, input_spec, tmp_path / input_spec.mode)
    decoded.clear()
    mask_path = sources[6].mask_path
    assert mask_path is not None
    write_png(mask_path, np.ones((48, 64), bool) & (np.arange(64) > 40))
    ImageCache.build(sources, SQUASH, tmp_path / "squash")
    assert decoded == []
    ImageCache.build(sources, InputSpec("crop", 24), tmp_path / "crop")
    assert decoded == ["p06"]


def test_unreadable_images_are_listed_as_failed(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str]
) -> None:
    good = sources[2].path.read_bytes()
    sources[2].path.write_bytes(good[: len(good) // 2])
    sources[5].path.write_bytes(b"")
    sources[11].path.unlink()
    folder = tmp_path / "store"
    cache = ImageCache.build(sources, SQUASH, folder)
    assert set(cache.failed) == {"p02", "p05", "p11"}
    assert "p05.png" in cache.failed["p05"]
    assert len(cache) == len(cache.pixels) == 9
    assert "p02" not in cache
    np.testing.assert_array_equal(cache["p10"], squash(read(sources[10].path), 24))
    with pytest.raises(DataError, match=r"p05\.png"):
        cache["p05"]
    assert (folder / "failed.csv").read_text().count("\n") == 4

    decoded.clear()
    ImageCache.build(sources, SQUASH, folder)
    assert decoded == []
    sources[2].path.write_bytes(good)
    fixed = ImageCache.build(sources, SQUASH, folder)
    assert decoded == ["p02"]
    assert set(fixed.failed) == {"p05", "p11"}
    assert fixed.ids[:3] == ["p00", "p01", "p02"]


def test_failed_images_are_tried_again_with_other_limits(
    sources: list[ImageFiles], tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    none = ImageCache.build(sources, SQUASH, folder, limits=Limits(pixels=100))
    assert (len(none), len(none.failed)) == (0, 12)
    assert len(ImageCache.build(sources, SQUASH, folder)) == 12


def test_an_image_that_changes_while_it_is_read_is_read_again(
    sources: list[ImageFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, other = sources[3].path, sources[4].path.read_bytes()

    def load(source: ImageFiles, input_spec: InputSpec, limits: Limits) -> LoadedInput:
        found = preprocess.load_input(source, input_spec, limits)
        if source.path == changing:
            changing.write_bytes(other)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(cache, "load_input", load)
        built = ImageCache.build(sources, SQUASH, tmp_path / "store")
    assert built.failed == {"p03": f"{changing}: changed while it was read"}
    again = ImageCache.build(sources, SQUASH, tmp_path / "store")
    assert not again.failed
    np.testing.assert_array_equal(again["p03"], again["p04"])


def test_a_second_concurrent_build_is_refused(sources: list[ImageFiles], tmp_path: Path) -> None:
    with (
        lock(tmp_path / "store" / ".lock"),
        pytest.raises(NaevusError, match="in use by another naevus process"),
    ):
        ImageCache.build(sources, SQUASH, tmp_path / "store")


def test_an_interrupted_build_keeps_finished_rows(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str]
) -> None:
    def stop(done: int, of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageCache.build(sources, SQUASH, tmp_path / "store", workers=1, progress=stop)
    decoded.clear()
    ImageCache.build(sources, SQUASH, tmp_path / "store")
    assert sorted(decoded) == [source.image_id for source in sources[4:]]


def test_damage_is_reported_and_fixed(sources: list[ImageFiles], tmp_path: Path) -> None:
    folder = tmp_path / "store"
    ImageCache.build(sources, SQUASH, folder)
    before = content(folder)
    for name in FILES:
        (folder / name).write_bytes(before[name][:15])
        with pytest.raises(DataError, match="rebuild the cache"):
            ImageCache.open(folder)
        ImageCache.build(sources, SQUASH, folder)
        assert content(folder) == before


def test_user_mistakes_are_errors(sources: list[ImageFiles], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="p00 occurs twice"):
        ImageCache.build([sources[0], sources[0]], SQUASH, tmp_path / "store")
    with pytest.raises(DataError, match="no finished image cache"):
        ImageCache.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="unknown input mode"):
        InputSpec("zoom", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is invalid"):
        InputSpec("crop", 0)
    bare = sources[0]._replace(mask_path=None)
    cache = ImageCache.build([bare, sources[1]], InputSpec("mask", 8), tmp_path / "store")
    assert "has no mask file" in cache.failed["p00"]
    assert cache.ids == ["p01"]


def far_from_exact(source: ImageFiles, input_spec: InputSpec) -> float:
    """Return the difference of crops from scaled and full decoding, in grey levels."""
    assert source.mask_path is not None
    scaled = preprocess.load_input(source, input_spec).pixels.astype(float)
    mask = read_mask(source.mask_path)
    exact = cut(read(source.path), mask, mode="crop", size=input_spec.size).pixels.astype(float)
    return float(np.abs(scaled - exact).mean())


def test_a_jpeg_crop_is_decoded_large_enough(tmp_path: Path) -> None:
    pixels, mask = draw_lesion("NV", 5, 600)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=92)
    write_png(tmp_path / "a_mask.png", mask)
    input_spec = InputSpec("crop", 64)
    assert (
        far_from_exact(ImageFiles("a", tmp_path / "a.jpg", tmp_path / "a_mask.png"), input_spec) < 4
    )
    small = np.zeros((100, 100), bool)
    small[40:60, 40:60] = True
    assert preprocess.decoding_side(small, input_spec) == pytest.approx(64 * 100 / 26, abs=1)
    assert preprocess.decoding_side(None, input_spec) == 64


def test_a_crop_of_a_real_jpeg_is_decoded_large_enough(shared_data: Path) -> None:
    folder, image_id = shared_data / "isic2018", "ISIC_0024306"
    source = ImageFiles(
        image_id,
        folder / "ISIC2018_Task3_Training_Input" / f"{image_id}.jpg",
        folder / "HAM10000_segmentations_lesion_tschandl" / f"{image_id}_segmentation.png",
    )
    assert far_from_exact(source, InputSpec("crop", 64)) < 4


def test_another_decoding_rebuilds_the_cache(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    key = ImageCache.build(sources, SQUASH, folder).key
    del decoded[:]
    assert ImageCache.build(sources, SQUASH, folder).key == key
    assert decoded == []
    monkeypatch.setattr(cache, "DECODING", DECODING + 1)
    assert ImageCache.build(sources, SQUASH, folder).key != key
    assert sorted(decoded) == [source.image_id for source in sources]


def test_a_raised_limit_accepts_images_that_were_refused(
    sources: list[ImageFiles], tmp_path: Path
) -> None:
    try:
        allow_megapixels(0.001)
        none = ImageCache.build(sources, SQUASH, tmp_path / "store")
        assert len(none.failed) == len(sources)
        allow_megapixels(None)
        assert len(ImageCache.build(sources, SQUASH, tmp_path / "store")) == len(sources)
    finally:
        allow_megapixels(None)
