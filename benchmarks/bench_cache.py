"""From camera-size JPEGs to 256 px: naevus compared with usual methods.

Times are the best of a few rounds for each image, averaged. scikit-image and Pillow run in one
thread, as in a loop over files; the cache is built with one and with all processors. The second
table is the comparison that chose the decoder behind `naevus.images.read`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image
from rich.console import Console
from rich.table import Table

from naevus.datasets.cache import ImageCache
from naevus.images.geometry import squash
from naevus.images.jpeg import SPARE
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    ImageData = NDArray[np.uint8]
    EngineSetup = Callable[[Path], ImageData]

SIZE = 256
ORIGINALS = Path(__file__).parents[2] / "shared" / "data" / "originals"
ANTI_ALIASED = "scikit-image, anti-aliased"
NAEVUS = "read + squash"
GOALS = {
    ANTI_ALIASED: 20.0,
    "scikit-image, not anti-aliased": 6.0,
    "Pillow full decode + resize": 1.8,
}


def skimage_anti_aliased(path: Path) -> ImageData:
    """Resize as scikit-image recommends."""
    return _skimage(path, anti_aliasing=True)


def skimage_aliased(path: Path) -> ImageData:
    """Resize as many projects of 2019 did."""
    return _skimage(path, anti_aliasing=False)


def _skimage(path: Path, *, anti_aliasing: bool) -> ImageData:
    from skimage.io import imread
    from skimage.transform import resize

    resized = resize(imread(path), (SIZE, SIZE), anti_aliasing=anti_aliasing)  # type: ignore[no-untyped-call]
    return np.asarray((255 * resized).round(), np.uint8)


def pillow_full(path: Path) -> ImageData:
    """Decode at full size, then resize with Pillow (bicubic, its default)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE)))


def naevus(path: Path) -> ImageData:
    """Prepare an image as the cache does."""
    return squash(read(path, shortest=SIZE), SIZE)


def with_simplejpeg(path: Path) -> ImageData:
    """Scales M/8."""
    least = round(SPARE * SIZE)
    data = path.read_bytes()
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    scaled = {"min_height": least, "min_width": least} if min(height, width) > least else {}
    return squash(simplejpeg.decode_jpeg(data, **scaled), SIZE)


def with_opencv(path: Path) -> ImageData:
    """Scales 1/2, 1/4 and 1/8, and the header read by simplejpeg, as OpenCV reports no size."""
    data = path.read_bytes()
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    flags = {
        8: cv2.IMREAD_REDUCED_COLOR_8,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        1: cv2.IMREAD_COLOR,
    }
    fits = next(
        scale for scale in flags if min(height, width) >= scale * SPARE * SIZE or scale == 1
    )
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags[fits])
    assert decoded is not None
    return squash(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8), SIZE)


def with_pillow_draft(path: Path) -> ImageData:
    """Scales 1/2, 1/4 and 1/8."""
    with Image.open(path) as image:
        fraction = SPARE * SIZE / min(image.size)
        image.draft("RGB", (round(image.width * fraction), round(image.height * fraction)))
        return squash(np.asarray(image.convert("RGB")), SIZE)


class Timing(NamedTuple):
    """Milliseconds per image, and mean absolute difference from anti-aliased resizing."""

    milliseconds: float
    difference: float


def time_ways(
    paths: Sequence[Path], ways: dict[str, EngineSetup], truth: dict[Path, ImageData], rounds: int
) -> dict[str, Timing]:
    """Time all methods image by image, so that other load affects them equally."""
    seconds = dict.fromkeys(ways, 0.0)
    differences = dict.fromkeys(ways, 0.0)
    for path in paths:
        for name, way in ways.items():
            best = float("inf")
            for _ in range(rounds):
                start = time.perf_counter()
                pixels = way(path)
                best = min(best, time.perf_counter() - start)
            seconds[name] += best
            differences[name] += float(np.abs(pixels.astype(int) - truth[path]).mean())
    count = len(paths)
    return {name: Timing(1000 * seconds[name] / count, differences[name] / count) for name in ways}


def time_store(
    paths: Sequence[Path], truth: dict[Path, ImageData], workers: int | None, rounds: int
) -> Timing:
    """Time building a cache of the images, hashing and writing included."""
    sources = [ImageFiles(path.stem, path) for path in paths]
    best = float("inf")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            cache = ImageCache.build(
                sources, InputSpec("squash", SIZE), Path(folder), workers=workers
            )
            best = min(best, time.perf_counter() - start)
            differences = [
                float(np.abs(cache[path.stem].astype(int) - truth[path]).mean()) for path in paths
            ]
    return Timing(1000 * best / len(paths), float(np.mean(differences)))


def comparison(title: str, timings: dict[str, Timing], ours: Sequence[str]) -> Table:
    """Format timings, with their ratios to each of ``ours``."""
    table = Table(title=f"{title}, to {SIZE} px")
    table.add_column("way", no_wrap=True)
    for column in ("ms an image", *(f"/ {name}" for name in ours), "goal", "difference*"):
        table.add_column(column, justify="right")
    for name, (milliseconds, difference) in timings.items():
        ratios = (f"{milliseconds / timings[other].milliseconds:.1f} x" for other in ours)
        goal = f">= {GOALS[name]:g} x" if name in GOALS else ""
        table.add_row(name, f"{milliseconds:.1f}", *ratios, goal, f"{difference:.2f}")
    table.caption = "* mean absolute, to the anti-aliased image, in grey levels"
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--originals", type=Path, default=ORIGINALS, help="folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=3, help="the best of this many counts")
    arguments = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 120, highlight=False)
    paths = sorted(arguments.originals.glob("*.jpg"))
    if not paths:
        console.print(f"bench_cache: no JPEGs in {arguments.originals}, nothing measured")
        return
    cv2.setNumThreads(1)
    if os.getloadavg()[0] > 0.5:
        console.print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): the ratios suffer.")
    truth = {path: skimage_anti_aliased(path) for path in paths}
    usual: dict[str, EngineSetup] = dict(
        zip(GOALS, (skimage_anti_aliased, skimage_aliased, pillow_full), strict=True)
    )
    timings = time_ways(paths, {**usual, NAEVUS: naevus}, truth, arguments.rounds)
    ours = (NAEVUS, "cache, 1 thread", f"cache, {os.cpu_count()} threads")
    for name, workers in zip(ours[1:], (1, None), strict=True):
        timings[name] = time_store(paths, truth, workers, arguments.rounds)
    console.print(comparison(f"{len(paths)} originals", timings, ours))
    decoders: dict[str, EngineSetup] = {
        "simplejpeg": with_simplejpeg,
        "OpenCV": with_opencv,
        "Pillow draft": with_pillow_draft,
    }
    chosen = time_ways(paths, decoders, truth, arguments.rounds)
    console.print(comparison("Scaled decoders", chosen, ("simplejpeg",)))


if __name__ == "__main__":
    main()
