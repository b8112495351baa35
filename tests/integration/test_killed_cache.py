"""Building an image cache in a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import naevus
from naevus.datasets import cache
from naevus.datasets.cache import ImageCache
from naevus.errors import DataError
from naevus.images import preprocess
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import Limits, write_png

if TYPE_CHECKING:
    from naevus.images.preprocess import LoadedInput


SQUASH = InputSpec("squash", 24)
FILES = ("pixels.npy", "index.csv", "failed.csv", "cache.json")


def draw(folder: Path, number: int, seed: int = 0) -> ImageFiles:
    """Write an image of 48 x 64 px and a mask in its middle."""
    random = np.random.default_rng((seed, number))
    path, mask_path = folder / f"p{number:02}.png", folder / f"p{number:02}_mask.png"
    write_png(path, random.integers(0, 256, (48, 64, 3), np.uint8))
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


KILLED = """
import os, signal, sys
from pathlib import Path
from naevus.datasets import cache
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.datasets.cache import ImageCache

images, folder, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
cache._CHECKPOINT_SECONDS = 0.0
names = sorted(path.stem for path in images.glob("p??.png"))
sources = [ImageFiles(name, images / f"{name}.png") for name in names]
replace = Path.replace

def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

def replaced(self, target):
    replace(self, target)
    if target == folder / point:
        die()

Path.replace = replaced
ImageCache.build(
    sources, InputSpec("squash", 24), folder, workers=2,
    progress=lambda done, of: die() if str(done) == point else None,
)
"""


@pytest.mark.parametrize("point", ["5", "pixels.npy", "index.csv"])
def test_a_killed_build_resumes_where_it_stopped(
    sources: list[ImageFiles], tmp_path: Path, decoded: list[str], point: str
) -> None:
    sources[1].path.write_bytes(b"nothing")
    sources = [source._replace(mask_path=None) for source in sources]
    whole = ImageCache.build(sources, SQUASH, tmp_path / "whole")
    decoded.clear()
    folder = tmp_path / "store"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "images"), str(folder), point],
        env={**os.environ, "PYTHONPATH": str(Path(naevus.__file__).parents[1])},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="no finished"):
        ImageCache.open(folder)
    journal = folder / ".building" / "progress.jsonl"
    with journal.open("a") as stream:
        stream.write('["p07", "squ')
    resumed = ImageCache.build(sources, SQUASH, folder)
    assert content(folder) == content(tmp_path / "whole")
    assert resumed.key == whole.key
    assert sorted(decoded) == ([source.image_id for source in sources[5:]] if point == "5" else [])
