"""Time of ``naevus predict`` for one image in a new process, and its parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.table import Table

from inference_material import originals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from inference_material import TrainingData

PLAIN: Final = "from naevus.cli.main import run; run()"

# The same command with timed calls: when each call began, in seconds of a clock that all processes
# share, and how long it took without the other parts.
STAGED: Final = """
import time
first_line = time.monotonic()
import atexit, json, sys, threading
from functools import wraps

began, kept, spans, inner = float(sys.argv.pop(1)), sys.argv.pop(1), [], threading.local()

def tell(name, start, seconds):
    spans.append((name, start - began, seconds))

def timed(module, name, part):
    function = getattr(module, name)
    @wraps(function)
    def timed(*args, **kwargs):
        start, outer = time.monotonic(), getattr(inner, "seconds", 0.0)
        inner.seconds = 0.0
        try:
            return function(*args, **kwargs)
        finally:
            whole = time.monotonic() - start
            tell(part, start, whole - inner.seconds)
            inner.seconds = outer + whole
    setattr(module, name, timed)

tell("starting the interpreter", began, first_line - began)
from naevus.cli import main
import naevus.bundles.bundle, naevus.images.read, naevus.io.files
import naevus.inference.engines.openvino as openvino
importing = time.monotonic()
timed(naevus.bundles.bundle, "find_bundles", "reading the bundle, hashing every file")
timed(openvino, "import_openvino", "importing OpenVINO")
timed(openvino.OpenVINOEngine, "__init__", "compiling the networks, or reading them compiled")
timed(openvino.OpenVINOEngine, "run", "running the networks")
for name in ("probe", "read"):
    timed(naevus.images.read, name, "decoding the image")
timed(naevus.images.read, "write_png", "writing images")
timed(naevus.io.files, "write_bytes", "writing tables")
tell("importing the command", first_line, importing - first_line)

def end():
    with open(kept, "w") as stream:
        json.dump([*spans, ("ending", time.monotonic() - began, 0.0)], stream)

atexit.register(end)
main.run()
"""

COLD: Final = "nothing compiled before"
LATER: Final = "compiled by an earlier process"
GOALS: Final = {COLD: 2.5, LATER: 1.5}
"""Seconds until the first answer."""


def report(training_data: TrainingData, folder: Path, rounds: int, console: Console) -> None:
    """Time the command with and without compiled networks, and print both with their parts."""
    (image,) = originals(folder, 1)
    words = ["predict", str(image)]
    for bundle in training_data.shipped:
        words += ["--bundle", str(bundle.folder)]
    cache = {"NAEVUS_CACHE": "on", "XDG_CACHE_HOME": str(folder / "cache")}
    environments = {COLD: {"NAEVUS_CACHE": "off"}, LATER: cache}
    ended(PLAIN, words, cache)
    table = Table("start", title="naevus predict, one image, both networks")
    for column in ("seconds, median", "goal"):
        table.add_column(column, justify="right")
    for name, environment in environments.items():
        seconds = [ended(PLAIN, words, environment) for _ in range(2 * rounds + 1)]
        table.add_row(name, f"{median(seconds):.2f}", f"{GOALS[name]}")
    console.print(table)
    for name, environment in environments.items():
        console.print(parts(name, [staged(words, environment, folder) for _ in range(rounds)]))


def ended(code: str, words: Sequence[str], environment: dict[str, str]) -> float:
    """Run the command into a new folder; return its seconds.

    Raises:
        RuntimeError: The command failed.
    """
    with tempfile.TemporaryDirectory() as out:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, *words, "--out", str(Path(out) / "out")],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"naevus predict ended with {done.returncode}: {done.stderr}")
    return taken


def staged(
    words: Sequence[str], environment: dict[str, str], folder: Path
) -> list[tuple[str, float, float]]:
    """Run the command and return its parts: name, when it began, and how long it took."""
    kept = folder / "parts.json"
    ended(STAGED, [f"{time.monotonic()}", str(kept), *words], environment)
    return [(name, start, seconds) for name, start, seconds in json.loads(kept.read_text())]


def parts(name: str, runs: Sequence[Sequence[tuple[str, float, float]]]) -> Table:
    """Return the parts of the runs, in the order of their start.

    Parts may overlap; the rest is not measured (computation between them, imports inside).
    """
    begins: dict[str, list[float]] = {}
    takes: dict[str, list[float]] = {}
    for spans in runs:
        for part in dict.fromkeys(span[0] for span in spans):
            begins.setdefault(part, []).append(min(at for lines, at, _ in spans if lines == part))
            takes.setdefault(part, []).append(
                sum(taken for lines, _, taken in spans if lines == part)
            )
    table = Table("part", title=f"Its parts, {name} (median of {len(runs)})")
    for column in ("begins at, ms", "takes, ms"):
        table.add_column(column, justify="right")
    for part in sorted(begins, key=lambda part: median(begins[part])):
        start, taken = 1000 * median(begins[part]), 1000 * median(takes[part])
        table.add_row(part, f"{start:.0f}", f"{taken:.0f}" if taken else "")
    return table
