"""Commands that do not train need no training framework, and help imports nothing heavy."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import naevus
from naevus.evaluation.challenge.classification import write_submission
from naevus.taxonomy import ISIC2018
from tests.helpers import ROOT
from tests.helpers.children import FRAMEWORKS, without
from tests.helpers.onnx_graphs import classification_bundle, segmentation_bundle

BASE_LACKS = [*FRAMEWORKS, "onnxruntime", "scipy", "skimage", "sklearn"]
"""All that the base install does not bring."""


HEAVY = {"PIL", "cv2", "jinja2", "numpy", "openvino", "pandas", "pyarrow", "torch"}
ROOMS = [
    module.name
    for module in pkgutil.walk_packages(naevus.__path__, "naevus.")
    if not module.name.startswith(("naevus.training.", "naevus.export.", "naevus.workflows."))
    and module.name != "naevus.__main__"
]


@pytest.fixture(scope="module")
def training_data(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> Path:
    """A folder with bundles, a submission with its ground truth, and synthetic ``data``."""
    folder = tmp_path_factory.mktemp("material")
    segmentation_bundle(folder / "contours")
    classification_bundle(folder / "answers", crop_mode="crop")
    ids = [f"ISIC_{number:07}" for number in range(7)]
    write_submission(folder / "truth.csv", ids, np.eye(7), ISIC2018)
    write_submission(folder / "answers.csv", ids, 0.3 / 7 + 0.7 * np.eye(7), ISIC2018)
    (folder / "data").symlink_to(synthetic)
    return folder


@pytest.mark.slow
def test_only_training_needs_a_training_framework(training_data: Path) -> None:
    truth = "data/ISIC2018_Task1_Training_GroundTruth"
    bundles = ("--bundle", "contours", "--bundle", "answers")
    commands: list[list[object]] = [
        ["--help"],
        ["data", "show", "data", "--count", 4],
        ["data", "check", "data"],
        ["data", "split", "data", "--part", "task3", "--out", "folds.csv"],
        ["train", "classification", "--show-recipe"],
        [
            *("predict", "data/ISIC2018_Task3_Training_Input", *bundles),
            *("--submission", "--out", "predicted"),
        ],
        ["evaluate", "predicted", "--data", "data"],
        ["challenge", "score", "truth.csv", "answers.csv"],
        ["challenge", "score", truth, truth],
        ["challenge", "lint", "predicted/submission.csv"],
        ["challenge", "lint", "predicted/masks"],
        ["train", "segmentation", "data", "--out", "run"],
    ]
    predictions, imported = without(FRAMEWORKS, commands, modules=ROOMS, folder=training_data)
    *fine, training = predictions
    for words, answer in zip(commands, fine, strict=False):
        output = f"naevus {' '.join(map(str, words))}: {answer.error or answer.out}"
        assert answer.code == 0 or (answer.code == 1 and words[0] in FINDING), output
    assert (training_data / "contact-sheet.png").exists()
    assert (training_data / "predicted" / "predictions.parquet").exists()
    assert "balanced accuracy" in predictions[6].out
    assert training.code == 2
    assert "[train]" in training.error
    assert not (training_data / "run").exists()
    assert not imported.intersection(FRAMEWORKS)


FINDING = {"data", "challenge"}
"""Commands that end with 1 where they found something."""


def test_the_base_install_runs_its_commands(training_data: Path) -> None:
    truth = "data/ISIC2018_Task1_Training_GroundTruth"
    image = "data/ISIC2018_Task1-2_Training_Input"
    segmentation = ("--bundle", "contours", "--only", "masks")
    once = ("--k", 1, "--no-duplicates", "--out", "one.csv")
    commands: list[list[object]] = [
        ["data", "show", "data", "--count", 2, "--out", "sheet.png"],
        ["data", "split", "data", "--part", "task1", *once],
        ["train", "segmentation", "--show-recipe"],
        ["predict", image, *segmentation, "--out", "base"],
        ["evaluate", "base", "--data", "data"],
        ["challenge", "score", truth, "base/masks"],
        ["challenge", "lint", "truth.csv"],
        ["demo", "--count", 40, "--out", "demo"],
        ["data", "split", "data", "--part", "task1", "--out", "five.csv"],
        ["challenge", "score", "truth.csv", "answers.csv"],
        ["predict", image, *segmentation, "--engine", "onnxruntime", "--out", "other"],
    ]
    predictions, imported = without(BASE_LACKS, commands, modules=ROOMS, folder=training_data)
    *fine, folds, score, predict = predictions
    for words, answer in zip(commands, fine, strict=False):
        assert answer.code == 0, f"naevus {' '.join(map(str, words))}: {answer.error or answer.out}"
    for answer, extra in ((folds, "evaluate"), (score, "evaluate"), (predict, "onnxruntime")):
        assert answer.code == 2
        assert answer.error.count("\n") == 1
        assert f"[{extra}]" in answer.error
    demo = fine[-1].out
    assert "12 images predicted by" in demo
    assert "[train]" in demo
    assert (training_data / "demo" / "builtin.png").exists()
    assert not imported.intersection(BASE_LACKS)


ELSEWHERE = ("fcntl", "grp", "pwd", "resource", "termios")
"""Modules of the standard library that Windows lacks."""


NOT_EVERYWHERE = (
    *("chown", "fork", "getpgid", "geteuid", "getuid", "killpg", "mkfifo", "posix_fallocate"),
    *("pread", "preadv", "pwrite", "pwritev", "register_at_fork", "sched_getaffinity"),
    *("sched_setaffinity", "setsid", "statvfs", "sysconf"),
)
"""What ``os`` lacks on Windows or macOS."""


def test_commands_run_without_functions_that_other_systems_lack(training_data: Path) -> None:
    images = "data/ISIC2018_Task3_Training_Input"
    bundles = ("--bundle", "contours", "--bundle", "answers")
    commands: list[list[object]] = [
        ["data", "show", "data", "--count", 2, "--out", "elsewhere.png"],
        ["data", "check", "data"],
        ["data", "split", "data", "--part", "task3", "--out", "elsewhere.csv"],
        ["predict", images, *bundles, "--precision", "fp32", "--out", "elsewhere"],
        ["evaluate", "elsewhere", "--data", "data"],
    ]
    predictions, imported = without(
        ELSEWHERE, commands, absent=NOT_EVERYWHERE, folder=training_data
    )
    for words, answer in zip(commands, predictions, strict=True):
        output = f"naevus {' '.join(map(str, words))}: {answer.error or answer.out}"
        assert answer.code == 0 or (answer.code == 1 and words[0] in FINDING), output
    assert not imported.intersection(ELSEWHERE)


def test_the_python_interface_needs_no_training_framework(training_data: Path) -> None:
    code = (
        "import sys; from tests.helpers.blocked import Blocker\n"
        f"sys.meta_path.insert(0, Blocker({BASE_LACKS}))\n"
        "import naevus\n"
        "predictor = naevus.load(['contours', 'answers'])\n"
        "predictions = list(predictor.stream('data/ISIC2018_Task3_Training_Input'))\n"
        "assert len(predictions) > 50 and all(each.predicted for each in predictions)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=training_data,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    (answer, train), imported = without([], [["--help"], ["train", "--help"]], folder=tmp_path)
    assert answer.code == train.code == 0
    assert not imported.intersection(HEAVY)


def test_every_package_is_listed() -> None:
    assert {"naevus.images.read", "naevus.cli.main", "naevus.reports.contact_sheet"} < set(ROOMS)
    assert len(ROOMS) > 80
