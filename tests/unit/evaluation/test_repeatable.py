"""Figures are the same bits with any number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.comparison import compare
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.ood import OODStatistics
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.evaluation.shortcuts import ShortcutScores, by_embeddings, by_metadata
from naevus.runs.evidence import classification

if TYPE_CHECKING:
    from collections.abc import Callable


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def test_the_threads_are_given_back_also_after_an_error() -> None:
    before = threads()
    assert np.ones((3, 3)) @ np.ones(3) is not None
    assert repeatable(threads)() == {1}
    assert threads() == before

    @repeatable
    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (its own)
        fails()
    assert threads() == before


@pytest.mark.parametrize(
    "function",
    [
        ClassificationEvaluation.of,
        SegmentationEvaluation.of,
        OODStatistics.fit,
        ShortcutScores.of,
        by_embeddings,
        by_metadata,
        compare,
        classification,
        ensemble_scores,
        headline_intervals,
    ],
)
def test_written_results_are_computed_by_one_thread(function: Callable[..., Any]) -> None:
    assert hasattr(getattr(function, "__func__", function), "__wrapped__")
