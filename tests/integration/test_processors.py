"""The built-in networks with every instruction set that this processor supports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.inference.engines import instructions
from naevus.inference.engines.openvino import SWITCH
from naevus.runs.environment import processor
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from pathlib import Path

# Processor features that each limit needs, in Linux's names.
LIMITS = {
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_FP16": "avx512_fp16",
    "AVX512_CORE_AMX": "amx_tile",
}
ANSWER = """
import json, sys, naevus
one = naevus.load()(sys.argv[1])
mask = round(float(one.mask.mean()), 3)
spots = [round(float(each.mean()), 3) for each in one.attribute_masks.values()]
presence = list(one.attributes.values())
print(json.dumps([one.predicted, mask, list(one.probabilities.values()), spots, presence]))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "drawn.png"
    Image.fromarray(draw_lesion("MEL", 3, 256)[0]).save(path)
    return path


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != instructions.SWITCH}
    return subprocess.run(
        [sys.executable, *arguments],
        env=known | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def answer(image: Path, **variables: str) -> Any:
    done = run(["-c", ANSWER, str(image)], **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def usual(image: Path) -> Any:
    """The prediction with all instructions, in fp32."""
    return answer(image, **{SWITCH: "off"})


@pytest.mark.parametrize("limit", LIMITS)
def test_every_instruction_set_gives_the_same_prediction(
    image: Path, usual: Any, limit: str
) -> None:
    _, able = processor()
    if LIMITS[limit] not in able:
        pytest.skip(f"this processor cannot pass for one with {limit}")
    diagnosis, mask, probabilities, spots, presence = answer(
        image, **{SWITCH: "off", instructions.SWITCH: limit}
    )
    assert diagnosis == usual[0]
    assert mask == pytest.approx(usual[1], abs=0.01)
    assert len(spots) == len(ATTRIBUTES)
    assert spots == pytest.approx(usual[3], abs=0.01)
    assert presence == pytest.approx(usual[4], abs=0.15 if limit == "AVX" else 0.001)
    # Only without instructions for 8 bits (AVX), rounding differs.
    assert probabilities == pytest.approx(usual[2], abs=0.15 if limit == "AVX" else 0.001)


def test_onnx_runtime_predicts_if_openvino_s_outputs_are_wrong(image: Path, usual: Any) -> None:
    """Limited to SSE 4.1, OpenVINO silently resizes the segmenter's maps wrongly."""
    _, able = processor()
    if "sse4_1" not in able:
        pytest.skip("this is no such processor")
    diagnosis, mask, probabilities, spots, presence = answer(
        image, **{SWITCH: "off", instructions.SWITCH: "SSE41"}
    )
    assert diagnosis == usual[0]
    assert mask == pytest.approx(usual[1], abs=0.01)
    assert spots == pytest.approx(usual[3], abs=0.01)
    assert presence == pytest.approx(usual[4], abs=0.15)
    assert probabilities == pytest.approx(usual[2], abs=0.15)


def test_by_default_the_command_predicts_and_resumes_with_the_same_engine(
    image: Path, usual: Any, tmp_path: Path
) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), SWITCH: ""}
    out = tmp_path / "out"
    command = ["-m", "naevus", "predict", str(image), "--out", str(out)]
    done = run(command, **cache)
    assert done.returncode == 0, done.stderr
    assert "Finding the fastest way to run the networks" in done.stderr
    assert "Networks run in" in done.stderr
    assert usual[0] in done.stdout
    settings = json.loads((out / "predict.json").read_bytes())
    # A resumed job uses the stored choice, whatever would be chosen now.
    again = run(command, **{SWITCH: "off"})
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "predict.json").read_bytes()) == settings
