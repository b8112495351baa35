"""Simulate a job on many workers, from measured times: images a second, what limits them, the cost.

    python benchmarks/scale_simulation.py
    python benchmarks/scale_simulation.py --workers 64 512 --busy-ms 20 --image-kb 3000

Every worker predicts batches one after the other, and reads the next one meanwhile. They share a
store, which answers a limited number of requests and bytes a second, and a driver, which handles
one batch after the other. The defaults are measured (`docs/explanation/scale.md` says how) or,
where `Setting` says so, assumed. Prices are examples: put in your own.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

MILLION: Final = 1_000_000
_SIMULATED: Final = 200
"""Batches of each worker that are simulated; rates are steady by then."""


@dataclass(frozen=True)
class Setting:
    """What a job needs, and what it shares.

    Attributes:
        alone_ms: Milliseconds of one worker for an image while the machine's other processor is
            idle, which then decodes for it.
        busy_ms: The same while all processors of the machine work, each for its own worker.
        processor_ms: Processor milliseconds of a lone worker for an image: what linear means.
        driver_ms: Milliseconds of the driver for a batch.
        batch: Images of a batch.
        image_kb: Size of an image file.
        files: Files that are written for an image, such as 1 mask.
        gets: Requests that read an image.
        puts: Requests that write a file: three where it is written in parts.
        store_requests: Requests a second that the store answers (assumed).
        store_mb: Megabytes a second that the store delivers to all workers (assumed).
        link_mb: Megabytes a second that one worker reads (assumed).
        latency_ms: Milliseconds until a request is answered (assumed).
        readers: Requests that a worker has under way at once.
        start_s: Seconds until a worker is ready.
        hour_price: Price of a processor for an hour (example).
        get_price: Price of 1,000 requests that read (example).
        put_price: Price of 1,000 requests that write (example).
    """

    alone_ms: float = 33.0
    busy_ms: float = 45.8
    processor_ms: float = 42.7
    driver_ms: float = 15.5
    batch: int = 32
    image_kb: float = 300
    files: float = 1
    gets: float = 1
    puts: float = 3
    store_requests: float = 5500
    store_mb: float = 10_000
    link_mb: float = 100
    latency_ms: float = 30
    readers: int = 2
    start_s: float = 30
    hour_price: float = 0.05
    get_price: float = 0.0004
    put_price: float = 0.005


class Outcome(NamedTuple):
    """What a simulated job does.

    Attributes:
        workers: The number of workers.
        rate: Images a second, all workers together, without the start.
        efficiency: The rate relative to as many processors that each take ``processor_ms``. Of one
            worker it is above 1, because a second processor helps.
        busy: The fraction of time that each shared part works: ``requests``, ``bytes``, ``driver``.
    """

    workers: int
    rate: float
    efficiency: float
    busy: dict[str, float]


class Server:
    """Serves one request after the other.

    Attributes:
        free: When it has finished all requests so far.
        worked: The time for which it has worked.
    """

    def __init__(self) -> None:
        self.free = self.worked = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return when a request is finished that comes now."""
        self.free = max(self.free, now) + seconds
        self.worked += seconds
        return self.free


def simulate(setting: Setting, workers: int) -> Outcome:
    """Simulate workers that never run out of images, and return their steady rate."""
    one = setting.batch
    writes = one * setting.files * setting.puts + setting.puts  # and the batch's rows
    waits = one * setting.gets * setting.latency_ms / 1000 / setting.readers
    own = one * setting.image_kb / 1000 / setting.link_mb
    each = setting.alone_ms if workers == 1 else setting.busy_ms
    compute = one * each / 1000
    requests, content, driver = Server(), Server(), Server()
    # An event is the moment at which a worker begins to read a batch.
    events = [(0.0, worker, 0, 0.0) for worker in range(workers)]
    ends = []
    while events:
        now, worker, number, free = heapq.heappop(events)
        asked = requests.serve(now, (one * setting.gets + writes) / setting.store_requests)
        sent = content.serve(now, one * setting.image_kb / 1000 / setting.store_mb)
        began = max(free, asked, sent, now + waits + own)
        done = began + compute
        ends.append(driver.serve(done, setting.driver_ms / 1000))
        if number + 1 < _SIMULATED:
            heapq.heappush(events, (began, worker, number + 1, done))
    ends.sort()
    half = len(ends) // 2
    rate = one * (len(ends) - 1 - half) / (ends[-1] - ends[half])
    single = 1000 / setting.processor_ms
    parts = {"requests": requests, "bytes": content, "driver": driver}
    busy = {name: min(1.0, part.worked / ends[-1]) for name, part in parts.items()}
    return Outcome(workers, rate, rate / single / workers, busy)


def hours(setting: Setting, outcome: Outcome, images: int = MILLION) -> float:
    """Return the hours of a job, with its start."""
    return (images / outcome.rate + setting.start_s) / 3600


def cost(setting: Setting, outcome: Outcome, images: int = MILLION) -> float:
    """Return the price of a job: processors for its hours, and requests."""
    writes = images * setting.files * setting.puts + images / setting.batch * setting.puts
    reads = images * setting.gets
    requests = (reads * setting.get_price + writes * setting.put_price) / 1000
    return outcome.workers * hours(setting, outcome, images) * setting.hour_price + requests


def report(setting: Setting, workers: Sequence[int], title: str, console: Console) -> None:
    """Print the rates, limits and costs of some numbers of workers."""
    table = Table(
        "workers", "images/s", "of linear", "requests", "bytes", "driver", "hours", "cost",
        title=title, title_justify="left",
    )  # fmt: skip
    for number in workers:
        found = simulate(setting, number)
        table.add_row(
            f"{number:,}",
            f"{found.rate:,.0f}" if found.rate > 100 else f"{found.rate:.1f}",
            f"{found.efficiency:.2f}",
            *(f"{busy:.0%}" for busy in found.busy.values()),
            f"{hours(setting, found):.2f}",
            f"{cost(setting, found):.2f}",
        )
    console.print(table)


def main() -> None:
    """Simulate what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 16, 256])
    for field in fields(Setting):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    asked = vars(parser.parse_args())
    workers = asked.pop("workers")
    setting, console = Setting(**asked), Console()
    table = "Tables, and a mask for each image, in an object store"
    report(setting, workers, table, console)
    report(replace(setting, files=0), workers, "Tables alone (--no-masks --no-crops)", console)
    large = replace(setting, image_kb=10 * setting.image_kb)
    report(large, workers, "Images of ten times the size, decoded as fast", console)


if __name__ == "__main__":
    main()
