"""What networks compute in where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.figures import PrecisionChoice
from naevus.inference.engines.openvino import precisions
from naevus.inference.networks import open_networks
from tests.onnx_graphs import classification_bundle


def bearing(folder: Path, stored: str) -> Bundle:
    """A bundle in fp32, of which it was measured that ``stored`` bears bf16."""
    plain = classification_bundle(folder / "plain", crop_mode="full")
    choice = PrecisionChoice.model_validate(
        {"task": "classification", "stored": stored, "computed": "bf16", "why": "measured"}
    )
    spec = plain.spec.model_copy(update={"precision_choices": (choice,)})
    files = {member.file: plain.member_path(member) for member in spec.members}
    return write_bundle(folder / "bearing", spec, files)


def computed_in(bundle: Bundle, **how: object) -> str:
    """What the bundle's classifier computes in."""
    classifier = open_networks([bundle], **how).classifier  # type: ignore[arg-type]
    assert classifier is not None
    (member,) = classifier.members
    assert member.engine.precision == classifier.settings()["precision"]
    return member.engine.precision


def test_what_was_measured_is_computed_in_where_it_can_be(tmp_path: Path) -> None:
    bundle = bearing(tmp_path, "fp32")
    assert computed_in(bundle) == ("bf16" if "bf16" in precisions() else "f32")
    assert computed_in(bundle, precision="f32") == "f32"


def test_no_processor_is_asked_for_what_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("naevus.inference.networks.precisions", lambda: ("f32",))
    assert computed_in(bearing(tmp_path, "fp32")) == "f32"


def test_what_was_measured_of_other_numbers_says_nothing(tmp_path: Path) -> None:
    bundle = bearing(tmp_path, "int8")
    assert bundle.spec.bears("classification") == "f32"
    assert bundle.spec.bears("segmentation") == "f32"
    assert computed_in(bundle) == "f32"
