"""Actors of Ray against one process: speed, memory, and what is lost when actors are killed.

    python benchmarks/ray_actors.py speed --count 384 --rounds 3
    python benchmarks/ray_actors.py kill --count 20000
    python benchmarks/ray_actors.py memory --counts 1000 20000

Speed is that of the built-in networks once all actors are up, in rounds that alternate between
them: as images a second, and as processor time of the workers for an image, which hardly depends
on what else runs. Ray's services, which work all the time, are counted apart. The other two use
tiny networks, so that 20,000 images take minutes: what they measure does not depend on the
networks. Needs Linux, the extra ``ray`` and the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

WARM: Final = 0.2
"""Fraction of the images that are predicted before the clock starts."""
ACTORS: Final = 2
_COMPARED: Final = ("rate", "processor_ms")
KILLED_AT: Final = (0.3, 0.6)
"""Fractions of the images after which an actor is killed."""


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "kill", "memory", "job"])
    parser.add_argument("--count", type=int, default=384)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.what == "job":
        print(json.dumps(job(**asked.job)))
        return
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.what == "speed":
            speed(folder, asked.count, asked.rounds, asked.side, console)
        elif asked.what == "kill":
            kill(folder, asked.count, console)
        else:
            memory(folder, asked.counts, console)


def speed(folder: Path, count: int, rounds: int, side: int, console: Console) -> None:
    """Print the rate of one process with two threads, of two actors, and of one thread alone."""
    from naevus.bundles.bundle import builtin

    images = generated(folder / "images", count, side)
    kinds = {
        "one process, 2 threads": {"ray": False, "threads": 2},
        "2 actors of 1 thread": {"ray": True, "threads": 1},
        "one process, 1 thread": {"ray": False, "threads": 1},
    }
    rounds_of: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind, options in kinds.items():
            out = folder / f"{number}-{kind}"
            found = in_child(images=str(images), out=str(out), bundles=[str(builtin())], **options)
            rounds_of[kind].append(found)
            console.print(
                f"round {number + 1}, {kind}: {found['rate']:.1f} images/s, "
                f"{found['processor_ms']:.1f} processor ms an image, of the driver "
                f"{found['driver_ms']:.2f}, services {found['services']:.3f} processors, "
                f"peak {max(found['peaks']):.0f} MB"
            )
    table = Table("median of the rounds", "images/s", "processor ms an image")
    medians = []
    for kind, measured in rounds_of.items():
        rate, ms = (statistics.median(one[name] for one in measured) for name in _COMPARED)
        table.add_row(kind, f"{rate:.1f}", f"{ms:.1f}")
        medians.append((rate, ms))
    console.print(table)
    process, two, alone = medians
    console.print(
        f"2 actors against one process: {two[0] / process[0]:.2f} of its images/s; it needs "
        f"{process[1] / two[1]:.2f} of their processor time\n"
        f"2 actors against 1 thread: {two[0] / alone[0]:.2f} times its images/s"
    )


def kill(folder: Path, count: int, console: Console) -> None:
    """Kill two actors on the way, and print what became of the images."""
    images, bundles = generated(folder / "images", count, 64), tiny(folder)
    found = in_child(
        images=str(images), out=str(folder / "out"), bundles=bundles, ray=True, threads=1, kills=2
    )
    console.print(
        f"{count:,} images, {len(found['killed'])} actors killed: {found['rows']:,} rows, "
        f"{found['distinct']:,} different ids, {found['failed']} failed; "
        f"{found['seconds']:.0f} s, peak of an actor {max(found['peaks']):.0f} MB"
    )


def memory(folder: Path, counts: list[int], console: Console) -> None:
    """Print the peak memory of an actor and of the driver for jobs of several sizes."""
    bundles = tiny(folder)
    table = Table("images", "peak of an actor, MB", "peak of the driver, MB")
    for count in counts:
        images = generated(folder / f"of-{count}", count, 64)
        out = folder / f"out-{count}"
        found = in_child(images=str(images), out=str(out), bundles=bundles, ray=True, threads=1)
        table.add_row(f"{count:,}", f"{max(found['peaks']):.0f}", f"{found['driver_peak']:.0f}")
    console.print(table)


def generated(folder: Path, count: int, side: int) -> Path:
    """Write small JPEGs of spots on skin; every 64th is a new one, the others are links to it."""
    import cv2

    folder.mkdir()
    rng = np.random.default_rng(0)
    first = folder / "0.jpg"
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number % max(1, count // 64) == 0:
            image = rng.normal(190, 12, (side, side, 3)).clip(0, 255).astype(np.uint8)
            colour = tuple(int(each) for each in rng.integers(30, 110, 3))
            cv2.circle(
                image, (side // 2, side // 2), int(side * rng.uniform(0.15, 0.3)), colour, -1
            )
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
            first = path
        else:
            os.link(first, path)
    return folder


def tiny(folder: Path) -> list[str]:
    """Write bundles of networks with a few weights."""
    from tests.helpers.onnx_graphs import classification_bundle, segmentation_bundle

    segmentation_bundle(folder / "s")
    classification_bundle(folder / "c", crop_mode="crop")
    return [str(folder / "s"), str(folder / "c")]


def in_child(**options: Any) -> dict[str, Any]:
    """Run a job in a process of its own.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, __file__, "job", "--job", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def job(
    images: str, out: str, bundles: list[str], *, ray: bool, threads: int, kills: int = 0
) -> dict[str, Any]:
    """Predict a folder; return rate, rows, and peaks of memory in megabytes."""
    import pyarrow.parquet as pq
    from tests.helpers.ray_actors import actors, processor_seconds

    from naevus.bundles.bundle import find_bundles
    from naevus.datasets.sources import find_images
    from naevus.inference.batch import predict
    from naevus.inference.engines import streams_for
    from naevus.inference.networks import open_networks
    from naevus.inference.options import OutputOptions
    from naevus.inference.ray import RayBackend
    from naevus.io.parallel import BATCH

    sources = find_images([Path(images)]).sources
    streams = streams_for(len(sources), threads)
    networks = open_networks(
        find_bundles(map(Path, bundles)), engine="openvino", precision="fp32", threads=threads,
        streams=streams,
    )  # fmt: skip
    times: list[tuple[int, float, float, tuple[float, float]]] = []
    peaks: dict[int, float] = {}
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        ends = done == total or (done >= WARM * total and not times)
        # Looking at all processes takes a while, so it is done seldom.
        if ends:
            times.append((done, time.perf_counter(), time.process_time(), processor_seconds()))
        due = len(killed) < kills and done >= KILLED_AT[len(killed)] * total
        if ray and (ends or due or done % (20 * BATCH) == 0):
            pids = actors()
            peaks.update({pid: max(peaks.get(pid, 0), peak_of(pid)) for pid in pids})
            if due and pids:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

    began = time.perf_counter()
    result = predict(
        sources,
        Path(out),
        OutputOptions(crops=False),
        segmenter=networks.segmenter,
        classifier=networks.classifier,
        threads=threads,
        backend=RayBackend(threads=threads, processors=ACTORS) if ray else None,
        progress=progress,
    )
    warm = times[0]
    ids = pq.read_table(result.table, columns=["image_id"]).column("image_id").to_pylist()
    return {
        "rate": (times[-1][0] - warm[0]) / (times[-1][1] - warm[1]),
        "driver_ms": (times[-1][2] - warm[2]) / (times[-1][0] - warm[0]) * 1000,
        "processor_ms": (times[-1][3][0] - warm[3][0]) / (times[-1][0] - warm[0]) * 1000,
        "services": (times[-1][3][1] - warm[3][1]) / (times[-1][1] - warm[1]),
        "seconds": time.perf_counter() - began,
        "rows": len(ids),
        "distinct": len(set(ids)),
        "failed": len(result.failed),
        "killed": killed,
        "peaks": list(peaks.values()) or [peak_of(os.getpid())],
        "driver_peak": peak_of(os.getpid()),
    }


def peak_of(pid: int) -> float:
    """Return the peak memory of a process in megabytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main()
