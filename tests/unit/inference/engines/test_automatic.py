from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.sample import distance, read_sample, sample_batch
from naevus.errors import BundleError, ConfigError
from naevus.inference.engines import automatic, instructions, trial
from naevus.inference.engines.automatic import candidates, choose, decide, describe
from naevus.inference.engines.openvino import SWITCH
from naevus.inference.engines.trial import TIMEOUT, EngineSetup, Result, TrialNetwork
from naevus.inference.networks import open_networks
from naevus.types import EngineChoice, Precision
from tests.helpers.onnx_graphs import (
    classification_bundle,
    sampled,
    segmentation_bundle,
    whole_bundle,
)

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.inference.engines import EngineName


F32, BF16, HELD = (
    EngineSetup("openvino", "fp32"),
    EngineSetup("openvino", "bf16"),
    EngineSetup("openvino", "fp32", "AVX2"),
)


ORT = EngineSetup("onnxruntime", "fp32")
PAIR = [
    TrialNetwork(task, f"{task}.onnx", 32, "sample.npz", {"fp32": 0.01})
    for task in ("segmentation", "classification")
]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stored trials."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delenv(instructions.SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Here OpenVINO is imported; in a process that begins it is not.
    monkeypatch.setattr(instructions, "_READERS", frozenset({"not imported"}))
    return tmp_path / "cache" / "naevus" / "compiled"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle of both tasks with a sample."""
    folder = tmp_path_factory.mktemp("sampled")
    return sampled(whole_bundle(folder / "plain"), folder / "bundle")


def timed(*rounds: float) -> Result:
    return Result(None, 0.0, rounds)


def test_fp32_is_chosen_unless_another_setup_is_a_tenth_faster() -> None:
    trials = {F32: [timed(1, 1, 1)] * 2, BF16: [timed(0.95, 0.92, 0.93)] * 2}
    assert decide(trials, PAIR)[:4] == ("openvino", "fp32", "fp32", None)
    trials = {F32: [timed(1, 1, 1)] * 2, BF16: [timed(0.8, 2, 0.8)] * 2}  # one slow round
    assert decide(trials, PAIR)[:4] == ("openvino", "bf16", "bf16", None)


def test_each_task_has_a_precision_of_its_own() -> None:
    trials = {F32: [timed(1, 1, 1), timed(1, 1, 1)], BF16: [timed(0.6, 0.6, 0.6), timed(2, 2, 2)]}
    assert decide(trials, PAIR)[:4] == ("openvino", "bf16", "fp32", None)
    crashed = {F32: trials[F32], BF16: [Result("crashes"), timed(0.1, 0.1, 0.1)]}
    assert decide(crashed, PAIR)[:4] == ("openvino", "fp32", "bf16", None)


def test_an_instruction_limit_is_chosen_if_it_is_faster() -> None:
    trials = {F32: [timed(1, 1, 1)] * 2, HELD: [timed(0.5, 0.5, 0.5)] * 2}
    choice = decide(trials, PAIR)
    assert (choice.limit, choice.segmentation) == ("AVX2", "fp32")
    assert "2.00 times" in describe(choice, trials)


def test_a_setup_too_slow_to_time_is_not_chosen() -> None:
    trials = {F32: [timed(1, 1)] * 2, BF16: [timed(0.1, 0.1)] * 2}
    choice = decide(trials, PAIR)
    assert choice[:4] == ("openvino", "fp32", "fp32", None)
    assert "no time" in choice.why


def test_onnx_runtime_is_the_last_resort() -> None:
    fine, broken = [timed(1, 1, 1)] * 2, [Result("refused")] * 2
    quick = [timed(0.1, 0.1, 0.1)] * 2
    assert decide({F32: fine, ORT: quick}, PAIR).engine == "openvino"
    choice = decide({F32: broken, BF16: broken, ORT: fine}, PAIR)
    assert choice.engine == "onnxruntime"
    assert "openvino fp32 (refused)" in describe(choice, {F32: broken, BF16: broken, ORT: fine})
    with pytest.raises(ConfigError, match="openvino fp32: refused"):
        decide({F32: broken, BF16: broken}, PAIR)


def test_a_sample_is_the_same_pixels_everywhere_and_its_transforms_differ(bundle: Bundle) -> None:
    assert bundle.spec.sample is not None
    path = bundle.folder / bundle.spec.sample.file
    sample = read_sample(path, {each.file: each.input_size for each in bundle.spec.members})
    batch = sample_batch(sample.pixels, 32)
    assert batch.shape == (8, 32, 32, 3)
    assert len({one.tobytes() for one in batch}) == 8
    assert {*batch[0].ravel().tolist()} <= {*sample.pixels.ravel().tolist()}
    with pytest.raises(BundleError, match="no usable sample"):
        read_sample(path, {"another.onnx": 32})


def test_non_finite_outputs_are_infinitely_distant() -> None:
    right = np.array([[1.0, 2.0, 4.0]], np.float32)
    assert distance(right, right) == 0
    assert 0 < distance(right + np.float32(0.01), right) < 0.02
    for wrong in (right * np.nan, right * np.inf, right[:, :2]):
        assert distance(wrong, right) == float("inf")


@pytest.mark.parametrize("damage", ["cut", "garbage", "absent"])
def test_a_damaged_sample_is_refused(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    assert bundle.spec.sample is not None
    path = tmp_path / "sample.npz"
    whole = (bundle.folder / bundle.spec.sample.file).read_bytes()
    if damage != "absent":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"no numbers")
    with pytest.raises(BundleError, match="no usable sample"):
        read_sample(path, {"names.onnx": 32})


FAULT = """
import os, sys, time
sys.path[:] = {path!r}
from naevus.inference.engines import child
import numpy as np
right = child.open_engine
class Broken:
    def __init__(self, inner, run):
        self.inner, self.outputs, self.precision = inner, inner.outputs, inner.precision
        self.run = lambda batch: run(inner.run(batch))
def fault(path, engine, threads, *, precision):
    if engine != "openvino" or {only!r} and os.environ.get("ONEDNN_MAX_CPU_ISA"):
        return right(path, engine, threads, precision=precision)
    def run(outputs):
        {run}
        return outputs
    {load}
    return Broken(right(path, engine, threads, precision=precision), run)
child.open_engine = fault
child.main()
"""


FAULTS = {
    "compiling raises": ("pass", "raise RuntimeError('no implementation')", "no implementation"),
    "running raises": ("raise RuntimeError('bad layer')", "pass", "bad layer"),
    "killed by a signal": ("os.kill(os.getpid(), 11)", "pass", "signal 11"),
    "hangs": ("time.sleep(600)", "pass", TIMEOUT),
    "gives NaN": ("[each.fill(np.nan) for each in outputs.values()]", "pass", "not finite"),
    "is off": ("[each.__imul__(1.5) for each in outputs.values()]", "pass", "wrong outputs"),
}


def broken(monkeypatch: pytest.MonkeyPatch, kind: str, *, only: bool = True) -> str:
    """Break OpenVINO in children; with ``only``, except in those with an instruction limit."""
    run, load, problem = FAULTS[kind]
    program = FAULT.format(path=sys.path, run=run, load=load, only=only)
    monkeypatch.setattr(trial, "command", lambda: [sys.executable, "-c", program])
    if kind == "hangs":
        monkeypatch.setattr(automatic, "LIMIT_S", 30.0)
        monkeypatch.setattr(automatic, "PATIENCE_S", 1.0)
    return problem


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_leads_to_the_next_choice(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    problem = broken(monkeypatch, kind)
    monkeypatch.setattr(automatic, "candidates", lambda *_: [F32, HELD])
    lines: list[str] = []
    choice = choose([bundle], report=lines.append)
    assert choice[:4] == ("openvino", "fp32", "fp32", "AVX2")
    assert len(lines) == 2
    assert "openvino fp32 (" in lines[1]
    assert problem in lines[1]


def test_onnx_runtime_predicts_if_openvino_fails(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "is off", only=False)
    monkeypatch.setattr(automatic, "candidates", lambda *_: [F32])
    choice = choose([bundle], report=lambda _: None)
    assert choice.engine == "onnxruntime"


def test_if_no_engine_runs_one_line_names_the_extra(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "compiling raises", only=False)
    monkeypatch.setattr(automatic, "candidates", lambda *_: [F32])
    version = automatic._version
    monkeypatch.setattr(
        automatic, "_version", lambda name: None if name == "onnxruntime" else version(name)
    )
    with pytest.raises(ConfigError, match=r"no implementation.*\[onnxruntime\]") as raised:
        choose([bundle], report=lambda _: None)
    assert "\n" not in str(raised.value)


def test_a_named_engine_is_tried_alone_and_fails_clearly(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "killed by a signal")
    with pytest.raises(ConfigError, match=r"openvino bf16: crashes \(signal 11\)"):
        choose([bundle], precision="bf16", report=pytest.fail)


@pytest.mark.parametrize(
    ("unchecked", "job", "named"),
    [
        ("names.onnx", {"diagnose": False}, None),
        ("segmentation.onnx", {}, "segmentation.onnx"),
        ("names.onnx", {}, "names.onnx"),
    ],
)
def test_a_named_precision_needs_to_suit_only_the_networks_of_the_job(
    bundle: Bundle, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch,
    unchecked: str, job: dict[str, Any], named: str | None,
) -> None:  # fmt: skip
    sample = bundle.spec.sample
    assert sample is not None
    tolerances = {file: dict(each) for file, each in sample.tolerances.items()}
    del tolerances[unchecked]["bf16"]
    spec = bundle.spec.model_copy(
        update={"sample": sample.model_copy(update={"tolerances": tolerances})}
    )
    names = [*(member.file for member in spec.members), sample.file]
    files = {name: bundle.folder / name for name in names}
    other = write_bundle(tmp_path / "other", spec, files)
    # fp32 stands for bf16, which not every processor has.
    send = trial._Child._send
    monkeypatch.setattr(
        trial._Child, "_send", lambda self, line: send(self, line.replace("bf16", "fp32"))
    )
    opened: list[EngineChoice] = []
    monkeypatch.setattr("naevus.inference.networks._opened", lambda *given: opened.append(given[2]))
    for again in (False, True):  # again: from what was stored
        if again:
            monkeypatch.setattr(automatic, "tried", lambda *_, **__: pytest.fail("tried again"))
        if named is None:
            open_networks([other], precision="bf16", **job)
            assert opened.pop()[:3] == ("openvino", "bf16", "fp32")
        else:
            with pytest.raises(ConfigError, match=f"{named} was not checked in bf16"):
                open_networks([other], precision="bf16", **job)


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_a_machine_too_busy_to_start_is_said_to_be(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision | None
) -> None:
    broken(monkeypatch, "hangs", only=False)
    monkeypatch.setattr(automatic, "candidates", lambda *_: [F32])
    monkeypatch.setattr(automatic, "_version", lambda name: "1" if name == "openvino" else None)
    with pytest.raises(ConfigError, match=r"did not start within 1 s; try again.*CACHE=off"):
        choose([bundle], precision=precision, report=lambda _: None)


def test_trials_run_once_and_their_result_is_stored(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(automatic, "candidates", lambda *_: [F32, HELD])
    first = choose([bundle], report=lines.append)
    assert lines[0].startswith("Finding the fastest way")
    (file,) = kept.glob("choice-*.json")
    monkeypatch.setattr(automatic, "tried", lambda *_, **__: pytest.fail("tried again"))
    assert choose([bundle], report=pytest.fail) == first
    whole = json.loads(file.read_bytes())
    monkeypatch.setattr(automatic, "tried", lambda *_, **__: {F32: [timed(1, 1, 1)] * 2})
    for damaged in (b"", b"[]", b"{}", b'{"attempts": 1, "trials": [[1, 2]]}'):
        file.write_bytes(damaged)
        assert choose([bundle], report=lambda _: None).engine == "openvino"
    assert whole["attempts"] == 1


def test_a_second_trial_does_not_claim_to_be_the_only_one(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "candidates", lambda *_: [F32, HELD])
    # Too busy: there was no time for any round.
    results = {F32: [timed()] * 2, HELD: [timed()] * 2}
    monkeypatch.setattr(automatic, "tried", lambda *_, **__: results)
    said = []
    for _ in range(automatic.ATTEMPTS + 1):
        lines: list[str] = []
        choose([bundle], report=lines.append)
        said.append(lines[0] if lines else "")
    assert said[0].startswith("Finding the fastest way to run the networks, once,")
    assert said[1:-1] == [said[1]] * (automatic.ATTEMPTS - 1)
    assert said[1].startswith("Timing the networks again,")
    assert said[-1] == ""


@pytest.mark.parametrize("how", ["off", "read-only"])
def test_without_a_cache_fp32_is_used_without_trials(
    bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "off":
        monkeypatch.setenv(SWITCH, "off")
    else:
        kept.parent.mkdir(parents=True)
        kept.write_text("a file in the folder's place")
    monkeypatch.setattr(automatic, "tried", lambda *_, **__: pytest.fail("tried"))
    choice = choose([bundle], report=pytest.fail)
    assert choice[:4] == ("openvino", "fp32", "fp32", None)
    assert not choice.tried


def test_without_a_sample_fp32_is_used_and_reported(
    tmp_path: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = classification_bundle(tmp_path / "plain")
    with caplog.at_level(logging.INFO, "naevus"):
        networks = open_networks([plain])
    assert networks.classifier is not None
    assert networks.classifier.settings()["precision"] == "fp32"
    assert "no sample" in caplog.text


def test_wrong_outputs_are_reported_even_without_trials(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "off")
    assert bundle.spec.sample is not None
    other = sampled(segmentation_bundle(tmp_path / "other", seeds=(1,)), tmp_path / "wrong")
    right = automatic.trial_networks(other)[0]
    monkeypatch.setattr(
        "naevus.inference.networks.trial_networks",
        lambda _: [right._replace(tolerances={"fp32": 1e-12})],
    )
    with pytest.raises(ConfigError, match="wrong outputs"):
        open_networks([other], engine="openvino")


def test_instructions_are_limited_only_if_still_unset_and_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instructions, "_READERS", frozenset({"not imported"}))
    monkeypatch.setenv(instructions.SWITCH, "AVX512_CORE")
    instructions.hold("AVX2")
    assert instructions.limit() == instructions.users_limit() == "AVX512_CORE"
    monkeypatch.delenv(instructions.SWITCH)
    monkeypatch.setattr(instructions, "_READERS", frozenset({"numpy"}))
    instructions.hold("AVX2")
    assert instructions.limit() is None
    monkeypatch.setattr(instructions, "_READERS", frozenset({"not imported"}))
    monkeypatch.setattr(instructions, "_held", [])
    monkeypatch.setenv(instructions.SWITCH, "")
    instructions.hold("AVX2")
    assert (instructions.limit(), instructions.held()) == ("AVX2", "AVX2")
    assert instructions.users_limit() is None
    assert instructions.SWITCH not in instructions.environment(None)
    assert instructions.environment("AVX")[instructions.SWITCH] == "AVX"


@pytest.mark.parametrize(
    ("able", "limits", "bf16"),
    [
        ("avx2", (None,), False),
        ("avx512f avx512_bf16", (None,), True),
        ("avx512f avx512_bf16 amx_tile amx_bf16", (None, "AVX512_CORE_FP16"), True),
        ("", (None, "AVX512_CORE_FP16"), True),  # a system that does not report features
    ],
)
def test_candidates_follow_the_processor(
    monkeypatch: pytest.MonkeyPatch, able: str, limits: tuple[str | None, ...], bf16: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(instructions, "processor", lambda: ("one", frozenset(able.split())))
    assert instructions.limits() == limits
    assert instructions.has_bf16() == bf16


def test_a_resumed_job_keeps_its_choice(tmp_path: Path) -> None:
    from naevus.runs.predictions import SETTINGS, PredictionsFolder

    part = {
        "engine": "openvino", "precision": "bf16", "instructions": "AVX2", "device": "cpu"
    }  # fmt: skip
    folder = PredictionsFolder(tmp_path)
    assert folder.choice() is None
    (tmp_path / SETTINGS).write_text(json.dumps({"segmenter": part, "classifier": None}))
    assert folder.choice() == EngineChoice(
        "openvino", "bf16", "fp32", "AVX2", "as the job began", device="cpu"
    )
    on_gpu = part | {"engine": "onnxruntime", "precision": "fp32", "device": "cuda:1"}
    (tmp_path / SETTINGS).write_text(json.dumps({"segmenter": on_gpu, "classifier": None}))
    choice = folder.choice()
    assert choice is not None
    assert choice.device == "cuda:1"
    (tmp_path / SETTINGS).write_text(json.dumps({"segmenter": part | {"precision": "x"}}))
    assert folder.choice() is None


@pytest.fixture
def bf16_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bf16, whose instructions need no limit."""
    monkeypatch.setattr(instructions, "has_bf16", lambda: True)
    monkeypatch.setattr(instructions, "limits", lambda: (None,))


def bearing(folder: Path, stored: str) -> Bundle:
    """A bundle in fp32 with a sample, whose costs of bf16 were measured in ``stored``."""
    whole = sampled(classification_bundle(folder / "plain", crop_mode="full"), folder / "whole")
    (choice,) = whole.spec.recommended
    choices = (choice.model_copy(update={"storage": stored}),)
    spec = whole.spec.model_copy(update={"recommended": choices})
    names = [*(member.file for member in spec.members), "sample.npz"]
    return write_bundle(folder / "bearing", spec, {name: whole.folder / name for name in names})


@pytest.mark.usefixtures("bf16_processor")
def test_a_measured_precision_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bearing(tmp_path, "fp32")
    assert candidates([bundle]) == [F32, BF16]
    monkeypatch.setattr(instructions, "limits", lambda: (None, "AVX2"))
    held = [EngineSetup("openvino", "fp32", "AVX2"), EngineSetup("openvino", "bf16", "AVX2")]
    monkeypatch.delenv(instructions.SWITCH, raising=False)
    assert candidates([bundle]) == [F32, BF16, *held]
    monkeypatch.setenv(instructions.SWITCH, "AVX512_CORE")  # set by the user
    assert candidates([bundle]) == [F32, BF16]


@pytest.mark.usefixtures("bf16_processor")
def test_unsupported_precisions_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor with bf16, whose instructions need no limit."""
    monkeypatch.setattr(instructions, "has_bf16", lambda: False)
    assert candidates([bearing(tmp_path, "fp32")]) == [F32]


@pytest.mark.usefixtures("bf16_processor")
def test_measurements_of_another_storage_do_not_count(tmp_path: Path) -> None:
    bundle = bearing(tmp_path, "int8")
    assert bundle.spec.recommended_precision("classification") == "fp32"
    assert bundle.spec.recommended_precision("segmentation") == "fp32"
    assert candidates([bundle]) == [F32]


@pytest.mark.usefixtures("bf16_processor")
def test_without_a_sample_only_fp32_is_a_candidate(tmp_path: Path) -> None:
    plain = classification_bundle(tmp_path / "plain")
    assert candidates([plain]) == [F32]
    assert candidates([plain], "onnxruntime") == [EngineSetup("onnxruntime", "fp32")]


@pytest.mark.usefixtures("bf16_processor")
def test_networks_compute_in_the_named_precision(tmp_path: Path) -> None:
    bundle = bearing(tmp_path, "fp32")
    engines: tuple[EngineName, ...] = ("openvino", "onnxruntime")
    for engine in engines:
        classifier = open_networks([bundle], engine=engine, precision="fp32").classifier
        assert classifier is not None
        (member,) = classifier.members
        assert member.engine.precision == classifier.settings()["precision"] == "fp32"
        assert classifier.settings()["engine"] == engine
