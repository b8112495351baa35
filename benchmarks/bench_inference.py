"""Prediction from image files: speed, start-up time and memory.

Four measurements, each with one or more tables:

- speed: from files to probabilities, on camera originals and on images of 256 px. It is compared
  with the usual torch script, torch at its best (fp32 and bf16, channels_last, ``torch.compile`` or
  not: the fastest here) and ONNX Runtime, in turn in one process; and with the limit at which
  decoding (twice, if a crop needs a higher resolution) and networks, each as fast as alone, share
  the processors without idle time. Torch's best network is measured in the usual script; in one
  that decodes at reduced size in background threads, as naevus does; and in the latter with freed
  memory kept by the C library, which few scripts do and which makes it much faster;
- builtin: the built-in bundle with and without attributes, beside those of ``--bundle``, on images
  of 256 px;
- start: time until a new process has predicted one image, and its parts;
- memory: the peak of 1,000 images and of 10,000.

Networks are EfficientNet-Lite0 and a U-Net on it with ImageNet weights, the latter trained for some
seconds to segment like the built-in network, or those of finished runs, both on 192 px. Images are
synthetic if the shared data are absent.

    python benchmarks/bench_inference.py
    python benchmarks/bench_inference.py --only start --bundle naevus.naevus
    python benchmarks/bench_inference.py --only builtin --bundle former.naevus
    python benchmarks/bench_inference.py --run runs/segmentation --run runs/classification
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

import inference_memory
import inference_speed
import inference_start
from inference_material import make_training_data
from naevus.io.parallel import cpu_count

BUSY = 0.5


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", choices=("speed", "builtin", "start", "memory"), help="this question alone"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        default=[],
        help="what is shipped (again for the other task); by default the networks in 8 bits",
    )
    parser.add_argument(
        "--run", type=Path, action="append", default=[], help="a finished run, for its network"
    )
    asked = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 120, highlight=False)
    if os.getloadavg()[0] > BUSY:
        console.print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): the figures suffer.")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.only in {None, "builtin"}:
            others = asked.bundle if asked.only else []
            inference_speed.report_builtin(others, folder, asked.rounds, console)
        if asked.only == "builtin":
            return
        training_data = make_training_data(folder, asked.run, asked.bundle)
        if asked.only in {None, "start"}:
            inference_start.report(training_data, folder, asked.rounds, console)
        if asked.only in {None, "memory"}:
            inference_memory.report(training_data, folder, console)
        if asked.only in {None, "speed"}:
            inference_speed.report(training_data, folder, asked.rounds, console)
    took = time.perf_counter() - began
    console.print(f"{cpu_count()} processors; all of it took {took / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
