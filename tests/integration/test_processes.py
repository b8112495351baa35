"""Predictors in forked and spawned processes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import naevus
from naevus.errors import ConfigError
from naevus.inference.predictor import Predictor
from tests.helpers.onnx_graphs import whole_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray


def synthetic(seed: int, height: int = 120, width: int = 180) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = rng.integers(190, 240, (height, width, 3), dtype=np.uint8)
    top, left = rng.integers(20, 40, 2)
    image[top : top + 50, left : left + 70] = (120, 60, 40)
    return image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "bundle"
    whole_bundle(folder, temperature=2.0)
    return folder


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> Predictor:
    return naevus.load(bundle, threads=2)


def values_of(prediction: Any) -> dict[str, Any]:
    values: dict[str, Any] = prediction.to_dict()
    return {name: value for name, value in values.items() if name not in {"image_id", "path"}}


FORKED = """
import os, sys
import numpy as np
import naevus

pixels = np.full((120, 180, 3), 200, np.uint8)
pixels[30:90, 50:110] = (90, 50, 40)
predictor = naevus.load(sys.argv[1], threads=2, engine=sys.argv[2])
alone = predictor(pixels).to_dict()
child = os.fork()
if child == 0:
    try:
        predictor(pixels)
    except naevus.NaevusError as error:
        print(error, flush=True)
    again = naevus.load(sys.argv[1], threads=2, engine=sys.argv[2])
    print(again(pixels).to_dict() == alone, flush=True)
    sys.exit(0)  # an ordinary end, which takes everything apart
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_fork_is_an_immediate_error_and_may_load_again(bundle: Path, engine: str) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(bundle), engine],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    values, works = done.stdout.splitlines()
    assert "loaded before a fork" in values
    assert "spawn" in values
    assert works == "True"


def _ask(predictor: Predictor, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    return values_of(predictor(pixels))


def test_spawned_processes_load_their_own(bundle: Path, loaded: Predictor) -> None:
    pixels = synthetic(7)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(_ask, (loaded, pixels)).get(120) == values_of(loaded(pixels))
    job = loaded._pipeline
    made = Predictor(job.prediction_options.segmenter, job.prediction_options.classifier)
    with pytest.raises(ConfigError, match=r"only a predictor from naevus\.load"):
        copy.copy(made)  # uses the same state as sending it to a process
