"""What networks may compute in where nobody says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.inference.engines import instructions
from naevus.inference.engines.automatic import candidates
from naevus.inference.engines.trial import Way
from naevus.inference.predictor import open_networks
from tests.helpers.onnx_graphs import classification_bundle, sampled

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.inference.engines import EngineName

F32, BF16 = Way("openvino", "f32"), Way("openvino", "bf16")


@pytest.fixture(autouse=True)
def _processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "has_bf16", lambda: True)
    monkeypatch.setattr(instructions, "limits", lambda: (None,))


def bearing(folder: Path, stored: str) -> Bundle:
    """A bundle in fp32 with a sample, of which it was measured that ``stored`` bears bf16."""
    whole = sampled(classification_bundle(folder / "plain", crop_mode="full"), folder / "whole")
    (choice,) = whole.spec.precision_choices
    choices = (choice.model_copy(update={"stored": stored}),)
    spec = whole.spec.model_copy(update={"precision_choices": choices})
    names = [*(member.file for member in spec.members), "sample.npz"]
    return write_bundle(folder / "bearing", spec, {name: whole.folder / name for name in names})


def test_what_was_measured_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bearing(tmp_path, "fp32")
    assert candidates([bundle]) == [F32, BF16]
    monkeypatch.setattr(instructions, "limits", lambda: (None, "AVX2"))
    held = [Way("openvino", "f32", "AVX2"), Way("openvino", "bf16", "AVX2")]
    monkeypatch.delenv(instructions.SWITCH, raising=False)
    assert candidates([bundle]) == [F32, BF16, *held]
    monkeypatch.setenv(instructions.SWITCH, "AVX512_CORE")  # the user has said it
    assert candidates([bundle]) == [F32, BF16]


def test_no_processor_is_asked_for_what_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "has_bf16", lambda: False)
    assert candidates([bearing(tmp_path, "fp32")]) == [F32]


def test_what_was_measured_of_other_numbers_says_nothing(tmp_path: Path) -> None:
    bundle = bearing(tmp_path, "int8")
    assert bundle.spec.bears("classification") == "f32"
    assert bundle.spec.bears("segmentation") == "f32"
    assert candidates([bundle]) == [F32]


def test_without_a_sample_nothing_else_is_tried(tmp_path: Path) -> None:
    plain = classification_bundle(tmp_path / "plain")
    assert candidates([plain]) == [F32]
    assert candidates([plain], "onnxruntime") == [Way("onnxruntime", "f32")]


def test_networks_compute_in_what_is_named(tmp_path: Path) -> None:
    bundle = bearing(tmp_path, "fp32")
    engines: tuple[EngineName, ...] = ("openvino", "onnxruntime")
    for engine in engines:
        classifier = open_networks([bundle], engine=engine, precision="f32").classifier
        assert classifier is not None
        (member,) = classifier.members
        assert member.engine.precision == classifier.settings()["precision"] == "f32"
        assert classifier.settings()["engine"] == engine
