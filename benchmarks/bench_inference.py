"""The road from an image to an answer: how fast, how soon, and in how much memory.

Three questions, each answered by one table or more:

- speed: files in, probabilities out, on camera originals and on images of 256 px, beside the
  usual torch script, torch at its best (fp32 and bf16, channels_last, ``torch.compile`` or not: the
  fastest here) and ONNX Runtime, which take turns in one process; and how far that is from the
  limit, where decoding (twice, where a crop needs it finer) and networks, each as fast as alone,
  would share the processors without a gap. Torch's best network is shown in the usual script; in
  one that reads ahead in threads at a scale, as naevus does; and in that with the C library set to
  keep freed memory, which few scripts do and which helps it much;
- start: how soon a process of its own answers for one image, and what it does until then;
- memory: the peak of 1,000 images and of 10,000.

Networks are EfficientNet-Lite0 and a U-Net on it with ImageNet weights, the latter taught for some
seconds to contour as the built-in network does, or those of finished runs, both on 192 px; images
are drawn where the shared data are not there.

    python benchmarks/bench_inference.py
    python benchmarks/bench_inference.py --only start --bundle naevus.naevus
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
    parser.add_argument("--only", choices=("speed", "start", "memory"), help="this question alone")
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
