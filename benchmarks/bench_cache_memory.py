"""Peak memory of caching a whole data set and a tenth of it, which must be equal.

    python benchmarks/bench_cache_memory.py --data DATA

Each size is built in its own process; the peak is reported by the operating system (resident set,
including memory-mapped pages).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from naevus.datasets.cache import ImageCache
from naevus.datasets.layouts import load
from naevus.images.preprocess import ImageFiles, InputSpec

DATA = Path(__file__).parents[2] / "shared" / "data" / "isic2018"
SIZE, GOAL = 256, 600


def build(data: Path, count: int | None) -> tuple[int, float]:
    """Cache some images; return their number and the peak memory in megabytes."""
    rows = load(data).images().rows()
    sources = [ImageFiles(f"{row.part}-{row.image_id}", row.path) for row in rows if row.path]
    sources = sources[-(count or len(sources)) :]
    with tempfile.TemporaryDirectory() as folder:
        cache = ImageCache.build(sources, InputSpec("full", SIZE), Path(folder) / "store")
        done = len(cache)
    return done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure both sizes and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="a data set in a known layout")
    data = parser.parse_args().data
    console = Console()
    if not data.is_dir():
        console.print("no data set here: name one with --data")
        return
    table = Table("images", title=f"caching at {SIZE} px")
    table.add_column(f"peak memory, MB (goal: at most {GOAL})", justify="right")
    for count in (1000, 10_014):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            done, peak = process.submit(build, data, count).result()
        table.add_row(str(done), f"{peak:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
