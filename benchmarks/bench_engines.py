"""Is the default as fast as the best manual choice? The built-in networks in every setup.

Each setup runs in its own process, so that instructions can be limited. A round times all setups
one after the other, and the median of the rounds is printed. With ``--images`` it also checks that
the command works by default with each instruction set of the processor.

    python benchmarks/bench_engines.py
    python benchmarks/bench_engines.py --rounds 5 --images photographs
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from naevus.inference.engines.instructions import SWITCH
from naevus.runs.environment import processor

LIMITS = {
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_FP16": "avx512_fp16",
    "AVX512_CORE_AMX": "amx_tile",
}
"""What a limit needs of the processor, as Linux tells it."""
DEFAULT = "default"
_CHILD = """
import json, sys, time
import naevus
from naevus.datasets.synthetic.photograph import draw_lesion
settings, images = json.loads(sys.argv[1]), int(sys.argv[2])
predictor = naevus.load(streams=2, **settings)
drawn = [draw_lesion(("MEL", "NV", "BKL")[n % 3], n, 256)[0] for n in range(32)]
batch = [drawn[n % 32] for n in range(images)]
predictor(batch[:64])
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    predictor(batch)
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    """Time every setup, and compare the default with the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=128, help="Images a round.")
    parser.add_argument("--images", type=Path, help="A folder to predict with each limit.")
    given = parser.parse_args()
    _, able = processor()
    limits = [limit for limit, flag in LIMITS.items() if flag in able]
    ways: dict[str, tuple[dict[str, Any], str | None]] = {DEFAULT: ({}, None)}
    for limit in (None, *limits[2:]):
        for precision in ("fp32", "bf16"):
            name = f"{precision} up to {limit or 'all'}"
            ways[name] = ({"engine": "openvino", "precision": precision}, limit)
    timed = measure(ways, given.rounds, given.count)
    speeds = {name: given.count / statistics.median(some) for name, some in timed.items() if some}
    for name, speed in sorted(speeds.items(), key=lambda pair: -pair[1]):
        print(f"{name:32} {speed:6.1f} images/s")
    for name in ways.keys() - speeds.keys():
        print(f"{name:32} does not run")
    print(f"default / best: {speeds[DEFAULT] / max(speeds.values()):.3f}")
    if given.images is not None:
        for each in (None, *limits):
            print(each or "all instructions", answered(given.images, each))


def measure(
    ways: dict[str, tuple[dict[str, Any], str | None]], rounds: int, count: int
) -> dict[str, list[float]]:
    """Return the seconds of each setup's rounds; empty if it does not run."""
    found: dict[str, list[float]] = {}
    children = {}
    for name, (settings, limit) in ways.items():
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(settings), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(limit),
            text=True,
        )
        assert child.stdout is not None
        found[name] = []
        if child.stdout.readline().strip() == "ready":
            children[name] = child
    for _ in range(rounds):
        for name, child in children.items():
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            found[name].append(float(child.stdout.readline()))
    for child in children.values():
        child.kill()
        child.wait()
    return found


def environment(limit: str | None) -> dict[str, str]:
    """Return the environment of a process with limited instructions."""
    known = {name: value for name, value in os.environ.items() if name != SWITCH}
    return known if limit is None else known | {SWITCH: limit}


def answered(images: Path, limit: str | None) -> str:
    """Return the exit code of the command, and the number of predicted images."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        done = subprocess.run(
            [sys.executable, "-m", "naevus", "predict", str(images), "--out", str(out)],
            env=environment(limit),
            capture_output=True,
            text=True,
            check=False,
        )
        table = out / "predictions.csv"
        rows = len(table.read_text().splitlines()) - 1 if table.exists() else 0
    chosen = [line for line in done.stderr.splitlines() if line.startswith("Networks run in")]
    return f"exit {done.returncode}, {rows} answers. {' '.join(chosen)}"


if __name__ == "__main__":
    main()
