"""The commands that are broken on purpose, with their inputs."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from naevus.datasets.synthetic import write_isic2018
from tests.helpers.download_server import serving
from tests.helpers.faults import Commands
from tests.helpers.onnx_graphs import whole_bundle
from tests.helpers.torture import Job, Torture, anything, readable_tensors, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


IMPORTED = (
    "naevus.export.export",
    "naevus.inference.batch",
    "naevus.inference.gather",
    "naevus.inference.engines.onnxruntime",
    "naevus.inference.engines.openvino",
    "naevus.inference.predictor",
    "naevus.reports.contact_sheet",
    "naevus.reports.html",
    "naevus.reports.report",
    "naevus.training.train",
    "naevus.datasets.audit",
    "openpyxl",
)
"""Modules that every command finds imported."""

SETTINGS: dict[str, object] = {
    "data.parts": ["task3"],
    "data.cache_size": 40,
    "sizes": [[0, 32]],
    "epochs": 2,
    "batch_size": 8,
    "workers": 1,
    "network.pretrained": "none",
    "network.backbone": "test_resnet",
    "checkpoint_seconds": 0,
}
FILES = ("ISIC2018_Task3_Training_LesionGroupings.csv", "ISIC2018_Task3_Test_GroundTruth.zip")


def train_words(
    data: Path, out: str, *more: str, fold: int = 0, **settings: object
) -> tuple[object, ...]:
    """Return the command that trains one fold of a small network."""
    sets = [f"{name}={json.dumps(value)}" for name, value in (SETTINGS | settings).items()]
    options = [word for each in sets for word in ("--set", each)]
    words = ("train", "classification", data, "--out", out, "--fold", fold, "--cache", "cache")
    return *words, *options, *more


_TRAINED = {
    "*/checkpoint.safetensors": readable_tensors,
    "*/best.safetensors": readable_tensors,
    "*/history.csv": whole_rows,
    "*/metrics.jsonl": anything,
    "*/train.log": anything,
}
_TIMES = ("*/history.csv", "*/metrics.jsonl", "*/train.log", "*/checkpoint.safetensors")


class Shop:
    """All jobs, and the inputs that they share.

    Args:
        folder: Where inputs and results go.
        url: Address of a server with `FILES`.
        commands: Runs the jobs.
        others: Runs jobs in other processes, where sets have another order.
    """

    def __init__(self, folder: Path, url: str, commands: Commands, others: Commands) -> None:
        self.folder, self.commands, self.others = folder, commands, others
        self.data, self.bundle = folder / "ISIC2018", folder / "bundle"
        self.images = folder / "images"
        write_isic2018(self.data, images=60, seed=7, size=64)
        whole_bundle(self.bundle, temperature=2.0)
        pool = sorted((self.data / "ISIC2018_Task3_Training_Input").glob("*.jpg"))[:12]
        self.images.mkdir()
        for path in pool:
            shutil.copy(path, self.images)
        (self.images / "broken.jpg").write_bytes(b"\xff\xd8 no image")
        lesions = [f"{path.stem},lesion-{number // 2}" for number, path in enumerate(pool)]
        self.lesions = folder / "lesions.csv"
        self.lesions.write_text("\n".join(["image_id,lesion_id", *lesions]) + "\n")
        self.run = folder / "given" / "run"
        self.jobs = {job.name: job for job in self._jobs(url)}

    def torture(self, name: str, seed: int = 0) -> Torture:
        """Return a job with its folder for results."""
        return Torture(self.jobs[name], self.commands, self.others, self.folder / "results", seed)

    def trained(self, folder: Path) -> None:
        """Copy a finished run into a folder."""
        if not self.run.exists():
            outcome = self.commands.run(train_words(self.data, "run"), self.run.parent)
            assert outcome.code == 0, outcome.error
        shutil.copytree(self.run, folder / "run")

    def predicted(self, folder: Path) -> None:
        """Copy a finished predictions folder into a folder."""
        given = self.folder / "given" / "predicted"
        if not given.exists():
            outcome = self.commands.run(self.predict_words(), given)
            assert outcome.code == 1, outcome.error
        shutil.copytree(given / "out", folder / "out")

    def sharded(self, folder: Path) -> None:
        """Copy the two shards of a job into a folder."""
        given = self.folder / "given" / "sharded"
        if not given.exists():
            for number in (1, 2):
                words = *self.predict_words(f"shard-{number}"), "--shard", f"{number}/2"
                outcome = self.commands.run(words, given)
                assert outcome.code in (0, 1), outcome.error
        for number in (1, 2):
            shutil.copytree(given / f"shard-{number}", folder / f"shard-{number}")

    def divided(self, folder: Path) -> None:
        """Copy the folds of a training, each in a run of its own, into a folder."""
        given = self.folder / "given" / "divided"
        if not given.exists():
            split = ("data", "split", self.data, "--part", "task3", "--k", "2", "--out", "f.csv")
            outcome = self.commands.run(split, given)
            assert outcome.code == 0, outcome.error
            for fold in range(2):
                words = train_words(self.data, f"fold-{fold}", "--folds", "f.csv", fold=fold)
                outcome = self.commands.run(words, given)
                assert outcome.code == 0, outcome.error
        for fold in range(2):
            shutil.copytree(given / f"fold-{fold}", folder / f"fold-{fold}")

    def predict_words(self, out: str = "out") -> tuple[object, ...]:
        """Return the command that predicts images with everything that it can write."""
        return (
            "predict", self.images, "--out", out, "--bundle", self.bundle, "--batch-size", "4",
            "--heatmaps", "--embeddings", "--xlsx", "--submission", "--lesions", self.lesions,
            "--engine", "onnxruntime", "--threads", "2",
        )  # fmt: skip

    def _jobs(self, url: str) -> Iterator[Job]:
        yield Job("train", train_words(self.data, "run"), differs=_TIMES, grows=_TRAINED)
        exported = ("export", "run", "--out")
        yield Job("export to a file", (*exported, "b.naevus"), self.trained)
        yield Job("export to a folder", (*exported, "b"), self.trained)
        yield Job("predict", self.predict_words())
        shards = ("shard-1", "shard-2")
        yield Job("gather", ("gather", *shards, "--out", "out"), self.sharded)
        yield Job("gather folds", ("gather", "fold-0", "fold-1", "--out", "run"), self.divided)
        yield Job("data download", ("data", "download", *FILES, "--out", "in", "--base-url", url))
        yield Job("data split", ("data", "split", self.data, "--part", "task3", "--out", "f.csv"))
        words = ("data", "synthetic", "--count", "40", "--size", "32", "--split", "train")
        yield Job("data synthetic", (*words, "--out", "made"))
        yield Job("data check", ("data", "check", self.data, "--out", "checked"))
        yield Job("evaluate", ("evaluate", "run"), self.trained)
        yield Job("report", ("report", "run", "--figures"), self.trained)
        yield Job("report of predictions", ("report", "out"), self.predicted)


def files_to_download() -> dict[str, bytes]:
    """Return the content of `FILES`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(5):
            values = np.random.default_rng(number).bytes(40_000)
            archive.writestr(f"ISIC2018_Task3_Test_GroundTruth/{number}.bin", values)
    return {
        FILES[0]: b"image,lesion_id\n" + b"ISIC_0,HAM_0\n" * 20_000,
        FILES[1]: packed.getvalue(),
    }


@contextmanager
def shop(folder: Path, modules: Sequence[str] = IMPORTED) -> Iterator[Shop]:
    """Open the shop: the server of files and the process that forks."""
    forks, further = Commands(*modules), Commands(*modules, hash_seed=1)
    with serving() as server, forks as commands, further as others:
        server.files |= files_to_download()
        server.chunk, server.pause_s = 20_000, 0.002
        yield Shop(folder, server.url, commands, others)
