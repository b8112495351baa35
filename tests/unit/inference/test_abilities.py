"""What bundles can do is known before their networks are loaded, and checked by the same rules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from naevus.errors import ConfigError
from naevus.inference.abilities import Abilities
from naevus.inference.classifier import Classifier
from naevus.inference.engines.graphfile import output_names
from naevus.inference.options import OutputOptions, check_options, check_tables
from naevus.inference.segmenter import Segmenter
from naevus.taxonomy import ISIC2018
from tests.helpers.onnx_graphs import (
    attributes_bundle,
    classification_bundle,
    segmentation_bundle,
    whole_bundle,
)

if TYPE_CHECKING:
    from naevus.bundles.bundle import Bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    root = tmp_path_factory.mktemp("bundles")
    return {
        "masks": segmentation_bundle(root / "s"),
        "plain": classification_bundle(root / "c", crop_mode="full"),
        "crops": classification_bundle(root / "d", crop_mode="crop"),
        "other": classification_bundle(
            root / "o", classes=("A", "B"), taxonomy=None, class_weights=(1, 1),
            class_priors=(0.5, 0.5),
        ),
        "whole": whole_bundle(root / "w"),
        "colours": attributes_bundle(root / "a", lesion=False),
    }  # fmt: skip


def abilities(bundles: dict[str, Bundle], names: str, **used: bool) -> Abilities:
    return Abilities.of([bundles[name] for name in names.split()], **used)


def test_loaded_networks_can_do_what_their_bundles_can(bundles: dict[str, Bundle]) -> None:
    segmenter = Segmenter(bundles["masks"], attributes=[bundles["colours"]], threads=1)
    classifier = Classifier(bundles["whole"], threads=1)
    loaded = Abilities.of_loaded(segmenter, classifier)
    named = abilities(bundles, "masks colours")
    assert loaded.classes == classifier.classes == ISIC2018.codes
    assert loaded.crops == classifier.needs_mask is True
    assert (loaded.segmenting, loaded.finding) == (named.segmenting, named.finding)
    loaded.check()
    for member in classifier.members:
        assert output_names(member.path) == member.engine.outputs


def test_parts_of_a_bundle_may_be_left_out(bundles: dict[str, Bundle]) -> None:
    assert abilities(bundles, "whole", diagnose=False).classes == ()
    assert abilities(bundles, "whole", diagnose=False).segmenting
    assert not any(abilities(bundles, "colours", attributes=False))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such class": ("whole", {"heatmaps": "XYZ"}, "'XYZ': the bundle has no such class; use one"),
    "no map": ("plain", {"heatmaps": True}, "heatmaps need networks with the output 'cam'"),
    "no map of a class": ("plain", {"heatmaps": "MEL"}, "need networks with the output 'cam'"),
    "no classifier": ("masks", {"heatmaps": True}, "heatmaps need a classifier"),
    "no diagnoses": ("whole", {"only": "masks", "heatmaps": True}, "heatmaps need a classifier"),
    "no features": ("masks", {"embeddings": True}, "embeddings need a classifier"),
    "no crops": ("crops", {}, "this classifier needs crops around the lesion"),
    "no masks to write": ("plain", {"only": "masks"}, "masks need a segmentation bundle"),
    "no masks to crop by": ("crops", {"only": "crops"}, "crops need a segmentation bundle"),
    "no masks to leave out": ("plain", {"masks": False}, "no masks: no bundle here segments"),
    "unlike": ("plain other", {}, "differ in classes"),
}


@pytest.mark.parametrize(("names", "options", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_bundles_cannot_do_is_refused(
    names: str, options: dict[str, Any], problem: str, bundles: dict[str, Bundle]
) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_options(OutputOptions(**options), abilities(bundles, names))


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ("whole", {"heatmaps": "mel", "embeddings": True}),
        ("masks plain", {}),
        ("masks crops colours", {}),
        ("plain", {"only": "crops"}),
        ("colours", {}),
    ],
)
def test_what_they_can_do_is_not(
    names: str, options: dict[str, Any], bundles: dict[str, Bundle]
) -> None:
    check_options(OutputOptions(**options), abilities(bundles, names))


@pytest.mark.parametrize(
    ("names", "metadata", "problem"),
    [
        ("whole", {"has_patients": True}, "has no model of the patient's data"),
        ("masks", {"has_patients": True}, "metadata need a classifier"),
        ("plain", {"has_scale": True}, "a scale in mm per pixel has no effect"),
        ("colours", {"has_scale": True}, "a scale in mm per pixel has no effect"),
    ],
)
def test_metadata_must_count(
    names: str, metadata: dict[str, bool], problem: str, bundles: dict[str, Bundle]
) -> None:
    table: Any = SimpleNamespace(**{"has_patients": False, "has_scale": False} | metadata)
    with pytest.raises(ConfigError, match=problem):
        check_options(OutputOptions(), abilities(bundles, names), table)


def test_a_submission_needs_a_challenge_s_diagnoses(bundles: dict[str, Bundle]) -> None:
    asked = OutputOptions(submission=True)
    assert check_tables(asked, 3, abilities(bundles, "whole")) == ISIC2018
    assert check_tables(OutputOptions(), 3, abilities(bundles, "other")) is None
    for names in ("other", "masks"):
        with pytest.raises(ConfigError, match="a submission needs the diagnoses of a challenge"):
            check_tables(asked, 3, abilities(bundles, names))
