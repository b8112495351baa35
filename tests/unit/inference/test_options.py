"""Options of a job: what is refused, and what is left of them with some networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from naevus.errors import ConfigError
from naevus.inference.options import OutputOptions, prediction_options_of
from naevus.inference.segmenter import Segmenter
from tests.helpers.onnx_graphs import segmentation_bundle

if TYPE_CHECKING:
    pass


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(segmentation_bundle(tmp_path_factory.mktemp("s")), threads=1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"only": "masks", "crops": False}, r"no crops \(--no-crops\): .* only masks are written"),
        ({"only": "crops", "masks": False}, r"no masks \(--no-masks\): .* only crops are written"),
        ({"only": "masks", "masks": False, "crops": False}, "no masks and no crops"),
        ({"batch_size": 0}, "a batch of 0 images"),
        ({"only": "mask"}, "unknown only 'mask'; use one of masks, crops"),
        ({"only": ""}, "unknown only ''"),
        ({"decision": "Natural"}, "unknown decision 'Natural'; use one of balanced, natural"),
    ],
)
def test_impossible_outputs_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        OutputOptions(**options)


@pytest.mark.parametrize(
    ("outputs", "masks", "crops", "specs"),
    [
        (OutputOptions(), True, True, 1),
        (OutputOptions(masks=False), False, True, 1),
        (OutputOptions(crops=False), True, False, 0),
        (OutputOptions("masks"), True, True, 0),
        (OutputOptions("crops"), False, True, 1),
    ],
)
def test_what_a_segmenter_alone_writes(
    segmenter: Segmenter, outputs: OutputOptions, masks: bool, crops: bool, specs: int
) -> None:  # fmt: skip
    settings = prediction_options_of(segmenter, None, outputs).settings()
    assert (settings["masks"], settings["write_crops"]) == (masks, crops)
    assert len(settings["crops"]) == specs


def test_tables_do_not_change_what_a_folder_resumes(segmenter: Segmenter) -> None:
    usual = prediction_options_of(segmenter, None).settings()
    tables = OutputOptions(xlsx=True, submission=True, decision="natural")
    assert prediction_options_of(segmenter, None, tables).settings() == usual
    smaller = OutputOptions(batch_size=8)
    assert prediction_options_of(segmenter, None, smaller).settings() != usual


@pytest.mark.parametrize("outputs", [OutputOptions(heatmaps="MEL"), OutputOptions(embeddings=True)])
def test_features_need_a_classifier(segmenter: Segmenter, outputs: OutputOptions) -> None:
    with pytest.raises(ConfigError, match="need a classifier"):
        prediction_options_of(segmenter, None, outputs)
