"""Inference: bare engines, the whole ``naevus predict`` road, its start-up and its memory.

Networks are exported at the start: a U-Net on EfficientNet-Lite0 at 256 px and an
EfficientNet-Lite0 classifier at 224 px that sees crops. Engines take turns, several rounds in one
process; commands run in processes of their own, whose peak memory (resident set) is asked for at
their end.

    python benchmarks/bench_inference.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from naevus.bundles.bundle import write_bundle
from naevus.bundles.spec import BundleSpec
from naevus.datasets.synthetic import write_isic2018
from naevus.inference.engines import OnnxRuntimeEngine, OpenVINOEngine
from naevus.inference.engines.openvino import import_openvino, precisions_of
from naevus.inference.stream import BATCH, processors
from naevus.taxonomy import ISIC2018
from naevus.training.export.graph import export_onnx
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Way = Callable[[NDArray[np.uint8]], object]

SHARED = Path(os.environ.get("NAEVUS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
SMALL = SHARED / "isic2018" / "ISIC2018_Task1-2_Training_Input"
SEGMENTER, CLASSIFIER = 256, 224
FEW, MANY = 100, 2000

# The peak is asked for inside: what the system tells a parent counts the parent's own memory too,
# of which the child is a copy until it becomes another program.
MEASURED = """
import atexit, pathlib
from naevus.cli.main import run

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

atexit.register(peak)
run()
"""


class Ended(NamedTuple):
    """How long a command took, in seconds, and the most memory it held, in megabytes."""

    seconds: float
    megabytes: float


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=MANY, help="pictures of the larger job")
    asked = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 120, highlight=False)
    if os.getloadavg()[0] > 0.5:
        console.print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): the figures suffer.")
    os.environ["NAEVUS_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = export(folder)
        for graph, size in (("segmenter", SEGMENTER), ("classifier", CLASSIFIER)):
            ways = engines(folder / f"{graph}.onnx", networks[graph])
            console.print(compare(f"{graph}, {size} px", ways, size, asked.rounds))
        console.print(start_up(folder, asked.rounds))
        console.print(whole_road(folder, asked.rounds))
        console.print(memory(folder, asked.many))


def export(folder: Path) -> dict[str, torch.nn.Module]:
    """Write both networks as graphs and as bundles."""
    networks = {
        "segmenter": Preprocessed(build_segmenter()).eval(),
        "classifier": Preprocessed(build_classifier()).eval(),
    }
    member = {"file": "network.onnx", "architecture": "EfficientNet-Lite0"}
    even = [1 / len(ISIC2018)] * len(ISIC2018)
    one = [1.0] * len(ISIC2018)
    diagnosing = {**member, "input_size": CLASSIFIER, "weights": one, "shares": even}
    specs = {
        "segmenter": {"segmenter": {"members": [{**member, "input_size": SEGMENTER}]}},
        "classifier": {
            "classifier": {
                "members": [diagnosing],
                "taxonomy": "isic2018",
                "classes": ISIC2018.codes,
                "crop_mode": "crop",
            }
        },
    }
    for (name, network), size in zip(networks.items(), (SEGMENTER, CLASSIFIER), strict=True):
        graph = folder / f"{name}.onnx"
        export_onnx(network, graph, input_size=size)
        spec = BundleSpec.model_validate(specs[name])
        write_bundle(folder / name, spec, {"network.onnx": graph})
    return dict(networks)


def engines(graph: Path, network: torch.nn.Module) -> dict[str, Way]:
    """Return the ways to run a graph, by name."""
    torch.set_num_threads(processors())

    def eager(batch: NDArray[np.uint8]) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(batch))

    ways: dict[str, Way] = {
        "torch eager": eager,
        "ONNX Runtime": OnnxRuntimeEngine(graph).run,
    }
    for precision in precisions_of(import_openvino().Core()):
        for streams in range(1, min(2, processors()) + 1):
            engine = OpenVINOEngine(graph, precision=precision, streams=streams)
            ways[f"OpenVINO {precision}, {streams} stream(s)"] = engine.run
    return ways


def compare(title: str, ways: dict[str, Way], size: int, rounds: int) -> Table:
    """Time a batch and a single picture, all ways in turn."""
    chance = np.random.default_rng(2018)
    batch = chance.integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    seconds: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            for count in (BATCH, 1):
                began = time.perf_counter()
                way(batch[:count])
                if number:  # the first round warms up
                    seconds.setdefault((name, count), []).append(time.perf_counter() - began)
    table = Table("way", title=f"{title}, {processors()} processors, median of {rounds} rounds")
    for column in (f"batch of {BATCH}, pictures/s", "one picture, ms"):
        table.add_column(column, justify="right")
    for name in ways:
        whole, single = median(seconds[name, BATCH]), median(seconds[name, 1])
        table.add_row(name, f"{BATCH / whole:.1f}", f"{1000 * single:.1f}")
    return table


def start_up(folder: Path, rounds: int) -> Table:
    """Time the command for one picture, with and without what an earlier start compiled."""
    (picture,) = pictures(folder, 1)
    kept = {"NAEVUS_CACHE": "on", "XDG_CACHE_HOME": str(folder / "cache")}
    predict(folder, [picture], {**kept})
    ways = {"cache off": {}, "compiled before": kept}
    table = Table("start", "seconds, median", title="naevus predict, one picture, both networks")
    for name, environment in ways.items():
        taken = [predict(folder, [picture], environment).seconds for _ in range(rounds)]
        table.add_row(name, f"{median(taken):.2f}")
    helped = [run(["--help"], {}).seconds for _ in range(rounds)]
    table.add_row("naevus --help", f"{median(helped):.2f}")
    return table


def whole_road(folder: Path, rounds: int) -> Table:
    """Time masks, crops and diagnoses of many pictures, the start taken off."""
    table = Table("pictures", "engine", title="naevus predict, masks, crops and diagnoses")
    table.add_column("pictures/s, median", justify="right")
    originals = sorted((SHARED / "originals").glob("*.jpg"))
    for name, chosen in (("small", pictures(folder, 2 * FEW)), ("camera originals", originals)):
        for engine in ("openvino", "onnxruntime"):
            rates = []
            for _ in range(rounds if chosen else 0):
                start = predict(folder, chosen[:1], {}, "--engine", engine).seconds
                whole = predict(folder, chosen, {}, "--engine", engine).seconds
                rates.append((len(chosen) - 1) / (whole - start))
            table.add_row(name, engine, f"{median(rates):.1f}" if rates else "absent")
    return table


def memory(folder: Path, many: int) -> Table:
    """Compare the peak memory of a small job and a large one."""
    table = Table("pictures", title="peak memory of naevus predict")
    table.add_column("MB", justify="right")
    for count in (FEW, many):
        chosen = pictures(folder, count)
        table.add_row(str(len(chosen)), f"{predict(folder, chosen, {}).megabytes:.0f}")
    return table


def pictures(folder: Path, count: int) -> list[Path]:
    """Return real pictures where they are, drawn ones otherwise; linked often enough."""
    found = sorted(SMALL.glob("*.jpg"))
    if not found:
        drawn = folder / "drawn"
        if not drawn.exists():
            write_isic2018(drawn, pictures=FEW, size=384)
        found = sorted(drawn.rglob("ISIC_*.jpg"))
    links = folder / "pictures"
    links.mkdir(exist_ok=True)
    chosen = []
    for number in range(count):
        link = links / f"p{number:06}.jpg"
        if not link.exists():
            link.symlink_to(found[number % len(found)])
        chosen.append(link)
    return chosen


def predict(
    folder: Path, chosen: Sequence[Path], environment: dict[str, str], *options: str
) -> Ended:
    """Run ``naevus predict`` with both networks into a new folder."""
    bundles = ["--bundle", str(folder / "segmenter"), "--bundle", str(folder / "classifier")]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        words = ["predict", *map(str, chosen), *bundles, "--out", out, *options]
        return run(words, environment)


def run(words: Sequence[str], environment: dict[str, str]) -> Ended:
    """Run ``naevus`` in a process of its own.

    Raises:
        RuntimeError: It failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"naevus {words[0]} ended with {done.returncode}: {done.stderr}")
    return Ended(taken, int(done.stdout.splitlines()[-1]) / 1024)


if __name__ == "__main__":
    main()
