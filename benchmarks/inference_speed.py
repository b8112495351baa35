"""Images per second from files to probabilities, compared with other scripts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table

from inference_material import SIZE, inputs, originals, small, whole_images
from inference_peers import Script, channels_last, eager, onnxruntime
from naevus.bundles.bundle import builtin, find_bundles
from naevus.images.preprocess import LEAST, InputSpec, decode_once, decoding_side, preprocess
from naevus.images.read import read
from naevus.inference.engines.openvino import precisions
from naevus.inference.networks import open_networks
from naevus.inference.predictor import Predictor
from naevus.io.parallel import BATCH, Workers, batches, cpu_count
from naevus.training.performance import kept_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import Console

    from inference_material import TrainingData
    from inference_peers import Network
    from naevus.bundles.bundle import Bundle
    from naevus.inference.networks import Networks
    from naevus.types import Precision

    EngineSetup = Callable[[Sequence[Path]], object]

USUAL = "torch, the usual script"
AHEAD = "read ahead"
PRECISIONS = {"fp32": False, "bf16": True}
"""What torch computes in, and whether that is half precision; the faster one counts."""
KEPT = ", memory kept"
BEST = ("× best torch", "× best ahead", "× ahead, kept")
"""Columns: torch's fastest network in the usual script; in any; in any, with memory kept or not."""
SETS = {"camera originals": (originals, 128), "256 px": (small, 352)}
"""Images a round, of each set: whole batches, and enough of them to overlap."""


@dataclass
class Ours:
    """naevus with one bundle and one precision.

    Args:
        networks: The loaded networks.
    """

    networks: Networks
    _ready: dict[int, NDArray[np.uint8]] = field(default_factory=dict, init=False)

    def __call__(self, paths: Sequence[Path]) -> object:
        """Predict images as `naevus.load` does."""
        return list(Predictor(*self.networks).stream(paths))

    def readings(self, paths: Sequence[Path]) -> dict[Path, tuple[int, ...]]:
        """Return the shorter sides at which an image is read: two for a small lesion."""
        input_specs = (
            () if self.networks.classifier is None else self.networks.classifier.input_specs
        )
        found: dict[Path, tuple[int, ...]] = {}
        for path, predicted in zip(paths, Predictor(*self.networks).stream(paths), strict=True):
            first = decode_once(path, self.networks.segmenter, input_specs, keep=True)
            finer = {decoding_side(predicted.mask, input_spec) for input_spec in input_specs}
            found[path] = (
                max(LEAST, SIZE),
                *(side for side in finer if first.fine_for(side) is None),
            )
        return found

    def network_alone(self, paths: Sequence[Path]) -> None:
        """Run the networks on prepared inputs."""
        loaded = [each for each in self.networks if each is not None]
        members = [member for each in loaded for member in each.members]
        for size in {member.input_spec.size for member in members} - self._ready.keys():
            self._ready[size] = inputs(paths[:BATCH], size)
        for _ in range(len(paths) // BATCH):
            for member in members:
                member.engine.run(self._ready[member.input_spec.size])


def decoding(readings: Mapping[Path, Sequence[int]]) -> EngineSetup:
    """Read images and resize them to the networks' size, in threads."""
    input_spec = InputSpec("squash", SIZE)

    def decode(path: Path) -> None:
        for side in readings[path]:
            preprocess(read(path, shortest=side), None, input_spec)

    def alone(paths: Sequence[Path]) -> None:
        with Workers(cpu_count()) as workers:
            for _ in workers.ahead(decode, batches(paths)):
                pass

    return alone


class Peers:
    """The scripts to compare with; each network is compiled once."""

    def __init__(self, training_data: TrainingData, console: Console) -> None:
        networks, graphs = training_data.networks, training_data.graphs
        self.eager = {task: eager(network) for task, network in networks.items()}
        self.placed = {
            name: {task: channels_last(each, half=half) for task, each in networks.items()}
            for name, half in PRECISIONS.items()
        }
        self.onnxruntime = {
            "segmentation": onnxruntime(graphs["segmentation"], "logit"),
            "classification": onnxruntime(graphs["classification"], "logits"),
        }
        self.compiled: dict[str, dict[str, Network]] = {}
        self.problem = ""
        blank = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)
        try:
            began = time.perf_counter()
            for name, half in PRECISIONS.items():
                made = {
                    task: channels_last(each, half=half, compiled=True)
                    for task, each in networks.items()
                }
                for run in made.values():
                    run(blank)
                self.compiled[name] = made
            console.print(f"torch.compile took {time.perf_counter() - began:.0f} s for all.")
        except Exception as error:  # noqa: BLE001 - whatever a machine without a compiler raises
            self.problem = str(error).strip().splitlines()[0][:60]

    def ways(self, task: str) -> Iterator[tuple[str, EngineSetup | None]]:
        """Yield scripts by name; None for one that cannot run here.

        The faster precision depends on the processor: both are tried, compiled and not.
        """
        yield USUAL, self._script(self.eager, task)
        for name in PRECISIONS:
            placed = self.placed[name]
            yield f"torch {name}, channels_last", self._script(placed, task)
            yield f"torch {name}, channels_last, {AHEAD}", self._script(placed, task, ahead=True)
            if name in self.compiled:
                built = self.compiled[name]
                yield f"torch {name}, compiled", self._script(built, task)
                yield f"torch {name}, compiled, {AHEAD}", self._script(built, task, ahead=True)
            else:
                yield f"torch {name}, compiled: cannot be compiled here ({self.problem})", None
        yield f"ONNX Runtime, {AHEAD}", self._script(self.onnxruntime, task, ahead=True)

    def _script(self, networks: dict[str, Network], task: str, *, ahead: bool = False) -> Script:
        segment = networks["segmentation"] if task == "road" else None
        return Script(networks["classification"], segment, ahead)


def ours(training_data: TrainingData, task: str, folder: Path) -> dict[str, Ours]:
    """Load naevus in each precision, and with the released bundles."""
    plain: Sequence[Bundle] = [training_data.plain]
    shipped = list(training_data.shipped)
    if task == "classification":
        plain = [whole_images(training_data.plain, folder / "plain-whole")]
        shipped = [
            whole_images(each, folder / f"shipped-whole-{number}")
            for number, each in enumerate(shipped)
            if each.spec.classifier is not None
        ]

    def load(bundles: Sequence[Bundle], precision: Precision | None) -> Ours:
        return Ours(open_networks(bundles, precision=precision, streams=cpu_count()))

    loaded = {f"naevus {precision}": load(plain, precision) for precision in precisions()}
    return {
        **loaded,
        f"naevus, shipped ({training_data.stored})": load(shipped, training_data.computed),
    }


TITLES = {
    "classification": "Files to probabilities, classification alone",
    "road": "Files to probabilities, mask, crop and classification",
}


@dataclass
class Race:
    """The scripts that take turns on the same images.

    Args:
        title: Title of its table.
        others: Other scripts by name; None for those that cannot run here.
        mine: naevus, by name.
        paths: The images of all rounds.
        rounds: Number of rounds.

    Attributes:
        seconds: Time per image in each round, by script.
        processor: Time of all processors per image, likewise.
    """

    title: str
    others: dict[str, EngineSetup | None]
    mine: dict[str, Ours]
    paths: Sequence[Path]
    rounds: int
    seconds: dict[str, NDArray[np.float64]] = field(default_factory=dict, init=False)
    processor: dict[str, NDArray[np.float64]] = field(default_factory=dict, init=False)

    def run(self) -> None:
        """Time all scripts in turn."""
        ways: dict[str, EngineSetup] = {
            name: way for name, way in self.others.items() if way is not None
        }
        ways |= self.mine
        ways["decoding alone"] = decoding(next(iter(self.mine.values())).readings(self.paths))
        ways |= {f"{name}: networks alone": each.network_alone for name, each in self.mine.items()}
        self.time(ways)

    def run_kept(self) -> None:
        """Time torch once more with freed memory kept."""
        self.time(
            {f"{name}{KEPT}": way for name, way in self.others.items() if way and "torch" in name}
        )

    def time(self, ways: Mapping[str, EngineSetup]) -> None:
        """Time some scripts in turn, after one batch each that does not count."""
        count = len(self.paths) // self.rounds
        for way in ways.values():
            way(self.paths[:BATCH])
        self.seconds |= {name: np.zeros(self.rounds) for name in ways}
        self.processor |= {name: np.zeros(self.rounds) for name in ways}
        for number in range(self.rounds):
            chosen = self.paths[number * count : (number + 1) * count]
            for name, way in ways.items():
                began, worked = time.perf_counter(), time.process_time()
                way(chosen)
                self.processor[name][number] = (time.process_time() - worked) / count
                self.seconds[name][number] = (time.perf_counter() - began) / count

    def table(self) -> Table:
        """Return the result."""
        torches = [name for name in self.seconds if name.startswith("torch")]
        plain = [name for name in torches if not name.endswith(KEPT)]
        alike = [name for name in plain if AHEAD not in name]
        rivals = [min(names, key=self._middle) for names in (alike, plain, torches)]
        table = Table(
            "way", title=f"{self.title}: {cpu_count()} threads, median of {self.rounds} rounds"
        )
        rates = ("images/s", "× usual", *BEST, "of the limit")
        for column in rates:
            table.add_column(column, justify="right")
        for name, way in self.others.items():
            if way is None:
                table.add_row(name, *["–"] * len(rates))
        alone = [name for name in self.seconds if name.endswith(" alone")]
        for name, seconds in self.seconds.items():
            if name in alone:
                continue
            limit = ""
            if name in self.mine:
                both = self.seconds["decoding alone"] + self.seconds[f"{name}: networks alone"]
                limit = f"{median(both / seconds):.2f}"
            ratios = (median(self.seconds[other] / seconds) for other in (USUAL, *rivals))
            rate = f"{1 / self._middle(name):.1f}"
            table.add_row(name, rate, *(f"{ratio:.2f}" for ratio in ratios), limit)
        lines = [f"{column}: {name}" for column, name in zip(BEST, rivals, strict=True)]
        lines += [f"{name} {1 / self._middle(name):.0f}/s" for name in alone]
        table.caption = "; ".join(lines)
        return table

    def _middle(self, name: str) -> float:
        return float(np.median(self.seconds[name]))


def report_builtin(others: Sequence[Path], folder: Path, rounds: int, console: Console) -> None:
    """Measure the built-in bundle on images of 256 px, with and without attributes.

    Args:
        others: Further bundles to measure in turn, such as the former built-in one.
        folder: Folder for images.
        rounds: Number of rounds.
        console: Where the table is printed.
    """
    images, count = SETS["256 px"]
    how: dict[str, Any] = {"precision": "fp32", "streams": cpu_count()}
    present = find_bundles([builtin()])
    mine = {
        "built in": Ours(open_networks(present, **how)),
        "built in, --no-attributes": Ours(open_networks(present, attributes=False, **how)),
        **{each.name: Ours(open_networks(find_bundles([each]), **how)) for each in others},
    }
    race = Race(TITLES["road"], {}, mine, images(folder, count * rounds), rounds)
    race.time(race.mine)
    title = f"{race.title}, 256 px, fp32: {cpu_count()} threads, {rounds} rounds of {count} images"
    table = Table("bundle", title=title)
    for column in ("images/s, median", "least", "most", "processor ms per image"):
        table.add_column(column, justify="right")
    for name, seconds in race.seconds.items():
        rates = 1 / np.sort(seconds)
        shown = [f"{rate:.1f}" for rate in (np.median(rates), rates[-1], rates[0])]
        table.add_row(name, *shown, f"{1000 * np.median(race.processor[name]):.1f}")
    console.print(table)


def report(training_data: TrainingData, folder: Path, rounds: int, console: Console) -> None:
    """Measure and print a table for each task and set of images."""
    torch.set_num_threads(cpu_count())
    peers = Peers(training_data, console)
    races = []
    for task in ("classification", "road"):
        mine = ours(training_data, task, folder)
        for name, (images, count) in SETS.items():
            title = f"{TITLES[task]}, {name}"
            paths = images(folder, count * rounds)
            races.append(Race(title, dict(peers.ways(task)), mine, paths, rounds))
    for race in races:
        race.run()
    # Last, since a process that has kept memory cannot restore the C library's defaults.
    with kept_memory():
        for race in races:
            race.run_kept()
    for race in races:
        console.print(race.table())
