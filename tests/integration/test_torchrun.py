"""Training in two processes: what one process gets, and what is left when one is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.helpers import ROOT
from tests.helpers.gpu_checks import Checks

pytestmark = pytest.mark.slow

SETTINGS: dict[str, object] = {
    "data.parts": ["task3"],
    "data.cache_size": 40,
    "sizes": [[0, 32]],
    "epochs": 2,
    "batch_size": 8,
    "network.backbone": "test_efficientnet",
    "network.dropout": 0.3,
    "optimiser.ema": 0.9,
    "checkpoint_seconds": 0,
    "metrics": ["tests.helpers.two_processes:deadly"],
}
FOLD = Path("fold-0")


def torchrun(*arguments: object, restarts: int = 0, **environment: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of a module in two processes of one thread."""
    started = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--max-restarts", str(restarts), "-m", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, cwd=ROOT,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return started.returncode, started.stdout, started.stderr


def train(data: Path, out: Path, restarts: int = 0, **environment: str) -> tuple[int, str, str]:
    settings = [("--set", f"{name}={json.dumps(value)}") for name, value in SETTINGS.items()]
    words = [word for pair in settings for word in pair]
    return torchrun(
        "naevus", "train", "classification", data, "--out", out, "--pretrained", "none",
        "--fold", 0, "--cache", out.parent / "cache", *words,
        restarts=restarts, **environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that two processes have trained undisturbed."""
    run = tmp_path_factory.mktemp("two") / "run"
    code, output, error = train(synthetic, run)
    assert code == 0, error
    assert output.count("run: ") == 1  # the second process prints nothing
    assert error.count("fold 0 epoch 1") == 1
    return run


def test_two_processes_get_what_one_gets(whole: Path, synthetic: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / FOLD, tmp_path / FOLD)
    module = "tests.helpers.two_processes"
    code, output, error = torchrun(module, whole, synthetic, whole.parent / "cache", tmp_path)
    assert (code, output) == (0, "all alike\n"), error
    before, after = (pd.read_parquet(run / FOLD / "oof.parquet") for run in (whole, tmp_path))
    pd.testing.assert_frame_equal(before, after, rtol=0, atol=1e-5)  # in other batches


def test_a_killed_process_is_started_again_and_nothing_is_lost(
    whole: Path, synthetic: Path
) -> None:
    run = whole.parent / "killed"
    code, output, error = train(synthetic, run, restarts=1, DEADLY="1")
    assert code == 0, error
    assert "exitcode: -9" in error
    assert (run / "train.log").read_text(encoding="utf-8").count("resumed") == 1
    assert output.count("run: ") == 1
    one, other = (load_file(each / FOLD / "weights.safetensors") for each in (whole, run))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.numpy().tobytes() == other[name].numpy().tobytes(), name
    before, after = (pd.read_parquet(each / "oof.parquet") for each in (whole, run))
    pd.testing.assert_frame_equal(before, after, check_exact=True)
    history = pd.read_csv(run / FOLD / "history.csv")
    assert history["epoch"].tolist() == [0, 1]


def test_the_checks_for_gpus_work_on_a_cpu(tmp_path: Path) -> None:
    checks = Checks("cpu", tmp_path)
    assert checks.training().endswith(" images/s")
    assert checks.inference().startswith("differs by ")
    assert "probabilities differ by" in checks.prediction()
