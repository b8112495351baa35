"""Report sections on masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.evaluation.mask_metrics import MaskScore
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.reports.segmentation import failure_section
from tests.helpers.tables import table_of_masks

if TYPE_CHECKING:
    pass


def test_failures_are_listed_by_condition() -> None:
    table = table_of_masks()
    scores = SegmentationEvaluation.of(table)
    section = failure_section(scores)
    tables = {each.name: each.frame for each in section.tables}
    assert list(tables) == ["mask-failures", "mask-sizes", "mask-distances", "mask-thresholds"]
    assert tables["mask-failures"]["failures"].tolist() == [one.failures for one in scores.factors]
    assert tables["mask-sizes"]["images"].sum() == len(table)
    assert f"{100 * scores.failed.value:.1f} %" in section.notes[0]
    before = table[["image_id", "group_id", *MaskScore._fields]]
    plain = failure_section(SegmentationEvaluation.of(before))
    assert [each.name for each in plain.tables] == ["mask-thresholds"]
