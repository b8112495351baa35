"""Additional cost of reading a JPEG with the checks of `read`: profiles, scans, memory.

Files are read unchanged and with an embedded sRGB profile, each with and without all checks that
`read` makes besides decoding pixels. The variants are interleaved, processor time is measured, and
the median of the rounds' ratios is reported.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from PIL import Image, ImageCms
from rich.console import Console
from rich.table import Table

from naevus.images import decoders
from naevus.images import read as reading
from naevus.images.read import ImageBytes, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_LEAST = ", nothing checked"
DATA = Path(__file__).parents[2] / "shared" / "data"


def _none(*_: object) -> None:
    """Do nothing."""


def _nothing(_: object) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def nothing_examined() -> Iterator[None]:
    """Remove everything from `read` that an ordinary file without a profile does not need."""
    with (
        mock.patch.object(reading, "_conversion", _none),
        mock.patch.object(reading, "_cost", _none),
        mock.patch.object(reading._IN_FLIGHT, "room_for", _nothing),  # noqa: SLF001
        mock.patch.object(decoders, "has_several_scans", _none),
    ):
        yield


def with_srgb(content: bytes) -> bytes:
    """Insert an sRGB profile at the start of a JPEG."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", icc_profile=profile)
    at = buffer.getvalue().index(b"\xff\xe2")
    length = int.from_bytes(buffer.getvalue()[at + 2 : at + 4], "big")
    return content[:2] + buffer.getvalue()[at : at + 2 + length] + content[2:]


def seconds(files: list[ImageBytes], shortest: int) -> float:
    """Return the processor time of reading files one after the other."""
    begun = time.process_time()
    for file in files:
        read(file, shortest=shortest)
    return time.process_time() - begun


def ways(files: list[ImageBytes], shortest: int) -> dict[str, Callable[[], float]]:
    """Return the variants: for each kind of file, without and with all checks."""
    profiled = [ImageBytes(file.name, with_srgb(file.content)) for file in files]

    def least(some: list[ImageBytes]) -> float:
        with nothing_examined():
            return seconds(some, shortest)

    return {
        "no profile, nothing checked": lambda: least(files),
        "no profile": lambda: seconds(files, shortest),
        "sRGB, nothing checked": lambda: least(profiled),
        "sRGB": lambda: seconds(profiled, shortest),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    folders = {
        "originals, 1 to 10 megapixels": ("originals", 21),
        "256 px": ("isic2018/ISIC2018_Task3_Training_Input", 100),
    }
    table = Table("files", "way", "ms an image", "more")
    for title, (folder, count) in folders.items():
        paths = sorted((arguments.data / folder).glob("*.jpg"))[:count]
        compared = ways([ImageBytes(path.name, path.read_bytes()) for path in paths], 256)
        taken: dict[str, list[float]] = {way: [] for way in compared}
        for _ in range(arguments.rounds):
            for way, measure in compared.items():
                taken[way].append(measure())
        for way, times in taken.items():
            first = taken[f"{way.removesuffix(_LEAST)}{_LEAST}"]
            ratios = [time / least for time, least in zip(times, first, strict=True)]
            each = 1000 * statistics.median(times) / len(paths)
            table.add_row(title, way, f"{each:.3f}", f"{statistics.median(ratios) - 1:+z.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
