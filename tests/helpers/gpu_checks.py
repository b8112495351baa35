"""What only a GPU can show, as one short run; on a CPU it shows that the checks themselves work.

    python -m tests.helpers.gpu_checks --device cuda

Data and networks are made here: nothing else is needed. One line is printed for each check.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from naevus.bundles.bundle import Bundle
from naevus.datasets.synthetic import write_isic2018
from naevus.inference.engines import open_engine
from tests.helpers import ROOT
from tests.helpers.torture_jobs import train_words

TOLERANCE: Final = 1e-3
"""Largest difference of a logit between a GPU and a CPU in fp32, relative to the largest logit."""
SETTINGS: Final[dict[str, Any]] = {"network.dropout": 0.3, "optimiser.ema": 0.9}


class Checks:
    """The checks; each returns what it found, and raises an error if that is wrong.

    Args:
        device: ``cuda``, or ``cpu`` to try the checks.
        folder: Where data and runs go.
    """

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.gpu = device.startswith("cuda")
        self.data = folder / "ISIC2018"
        write_isic2018(self.data, images=60, seed=7, size=64)

    def training(self) -> str:
        """Train, and note the speed."""
        self.run("whole")
        history = pd.read_csv(self.folder / "whole" / "fold-0" / "history.csv")
        assert np.isfinite(history["train_loss"]).all()
        return f"{history['images_per_second'].iloc[-1]:.0f} images/s"

    def resuming(self) -> str:
        """Kill a training and resume it: augmentation, dropout and sampling go on exactly."""
        process = self.start("killed")
        checkpoint = self.folder / "killed" / "fold-0" / "checkpoint.safetensors"
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.02)
        process.kill()
        process.communicate()
        self.run("killed")
        log = (self.folder / "killed" / "train.log").read_text(encoding="utf-8")
        one, other = (
            load_file(self.folder / name / "fold-0" / "weights.safetensors")
            for name in ("whole", "killed")
        )
        far = max(float((one[name] - other[name]).abs().max()) for name in one)
        assert far <= (1e-4 if self.gpu else 0), far  # some sums on a GPU have no fixed order
        return f"{'resumed' if 'resumed' in log else 'killed too late'}; weights differ by {far:g}"

    def processes(self) -> str:
        """Train on all GPUs, or in two processes: every held-out image has one prediction."""
        import torch

        count = torch.cuda.device_count() if self.gpu else 2
        self.run("divided", "-m", "torch.distributed.run", "--nproc-per-node", str(count),
                 **{"network.sync_batch_norm": self.gpu})  # fmt: skip
        whole, divided = (
            pd.read_parquet(self.folder / name / "fold-0" / "oof.parquet")
            for name in ("whole", "divided")
        )
        assert whole["image_id"].tolist() == divided["image_id"].tolist()
        return f"{count} processes, {len(divided)} held-out images"

    def inference(self) -> str:
        """Compare ONNX Runtime on the GPU with OpenVINO on the CPU, and note the speed."""
        import onnxruntime

        providers = onnxruntime.get_available_providers()
        assert not self.gpu or "CUDAExecutionProvider" in providers, f"only {providers}"
        bundle = Bundle.read(self.folder / "whole" / "fold-0" / "bundle")
        (member,) = bundle.spec.members
        side = member.input_size
        batch = np.random.default_rng(0).integers(0, 256, (32, side, side, 3)).astype(np.uint8)
        here, there = (
            open_engine(bundle.member_path(member), name, precision="fp32")
            for name in ("openvino", "onnxruntime")
        )
        expected, found = here.run(batch)["logits"], there.run(batch)["logits"]
        far = float(np.abs(found - expected).max() / np.abs(expected).max())
        assert far < TOLERANCE, far
        began = time.perf_counter()
        for _ in range(20):
            there.run(batch)
        return f"differs by {far:.1e}; {640 / (time.perf_counter() - began):.0f} images/s"

    def prediction(self) -> str:
        """Predict with the command on the device and on the CPU: the same diagnoses."""
        tables = []
        for device in (self.device, "cpu"):
            out = self.folder / f"predicted-{device.replace(':', '-')}"
            self.command(
                "predict", self.data, "--split", "train", "--part", "task3", "--device", device,
                "--bundle", self.folder / "whole" / "fold-0" / "bundle", "--out", out,
            )  # fmt: skip
            settings = json.loads((out / "predict.json").read_text(encoding="utf-8"))
            taken = settings["classifier"]["device"]
            assert taken.partition(":")[0] == device.partition(":")[0], taken
            tables.append(pd.read_parquet(out / "predictions.parquet"))
        one, other = (table.filter(like="prob_").to_numpy(float) for table in tables)
        far = float(np.abs(one - other).max())
        assert one.size
        assert far < TOLERANCE, far
        return f"{len(one)} images; probabilities differ by {far:.1e}"

    def command(self, *words: object) -> None:
        """Run a command of naevus to its end."""
        ended = subprocess.run(
            [sys.executable, "-m", "naevus", *map(str, words)], cwd=self.folder, check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-2000:]

    def run(self, out: str, *before: str, **settings: Any) -> None:
        """Train to the end."""
        process = self.start(out, *before, **settings)
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-2000:]

    def start(self, out: str, *before: str, **settings: Any) -> subprocess.Popen[str]:
        """Start a training."""
        words = train_words(self.data, out, "--device", self.device, **SETTINGS, **settings)
        return subprocess.Popen(
            [sys.executable, *before, "-m", "naevus", *map(str, words)], cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run all checks and return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(parser.parse_args(arguments).device, Path(folder))
        every: tuple[Callable[[], str], ...] = (
            checks.training, checks.resuming, checks.processes, checks.inference,
            checks.prediction,
        )  # fmt: skip
        for check in every:
            try:
                result, found = "fine", check()
            except Exception as error:  # noqa: BLE001 (the other checks go on)
                result, found, failed = "FAILED", repr(error), failed + 1
            line = {"check": check.__name__, "result": result, "found": found}
            print(json.dumps(line), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
