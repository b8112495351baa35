"""Peak memory of ``naevus predict`` for different numbers of images."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from inference_material import drawn_data, repeated

if TYPE_CHECKING:
    from rich.console import Console

    from inference_material import TrainingData

COUNTS = 1_000, 10_000
GOAL = 1.10

# The child reports its own peak: the value that a parent gets includes the parent's memory, since
# the child is a copy of it until it starts another program.
MEASURED = """
import atexit, pathlib
from naevus.cli.main import run

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

atexit.register(peak)
run()
"""


def report(training_data: TrainingData, folder: Path, console: Console) -> None:
    """Measure a job and one ten times as large, on synthetic images, and print both."""
    drawn = sorted((drawn_data(folder) / "ISIC2018_Task1-2_Training_Input").glob("*.jpg"))
    table = Table("images", title="Peak memory of naevus predict: masks, crops and diagnoses")
    for column in ("MB", "of the smaller job's"):
        table.add_column(column, justify="right")
    peaks: list[float] = []
    for count in COUNTS:
        images = folder / f"of-{count}"
        repeated(drawn, images, count)
        peaks.append(peak(images, training_data))
        growth = peaks[-1] / peaks[0]
        table.add_row(f"{count:,}", f"{peaks[-1]:.0f}", f"{growth:.3f}")
    table.caption = f"goal: at most {GOAL}"
    console.print(table)


def peak(images: Path, training_data: TrainingData) -> float:
    """Return the peak memory of predicting a folder's images, in megabytes.

    Raises:
        RuntimeError: The command failed.
    """
    words = ["predict", str(images)]
    for bundle in training_data.shipped:
        words += ["--bundle", str(bundle.folder)]
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *words, "--out", str(Path(out) / "out")],
            env={**os.environ, "NAEVUS_CACHE": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"naevus predict ended with {done.returncode}: {done.stderr}")
    return int(done.stdout.splitlines()[-1]) / 1024
