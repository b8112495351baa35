"""Figures are the same bits with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from naevus.evaluation.comparison import compare
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.evaluation.evaluate import DiagnosticScores, scored
from naevus.evaluation.ood import Reference
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.segmentation import OutlineScores, segmentation_scores
from naevus.evaluation.shortcuts import ShortcutScores, by_embeddings, by_metadata
from naevus.reports.report import make_report
from naevus.runs.evidence import diagnosing, outlining

if TYPE_CHECKING:
    from collections.abc import Callable

_FIGURES = """
import sys
import numpy as np
from naevus.evaluation.repeatable import repeatable
chance = np.random.default_rng(0)
weights, columns = chance.random((400, 1501)), chance.random((1501, 37))

@repeatable
def figures():
    return weights @ columns / weights.sum(axis=1, keepdims=True)

sys.stdout.write(figures().tobytes().hex())
"""


def test_sums_do_not_hang_on_the_number_of_threads() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _FIGURES],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in "123"
    }
    (one,) = found
    assert len(bytes.fromhex(one)) == 400 * 37 * 8


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
        DiagnosticScores.of,
        OutlineScores.from_table,
        Reference.fit,
        ShortcutScores.of,
        by_embeddings,
        by_metadata,
        compare,
        diagnosing,
        ensemble_scores,
        make_report,
        outlining,
        scored,
        segmentation_scores,
    ],
)
def test_what_is_written_comes_of_one_thread(function: Callable[..., Any]) -> None:
    assert hasattr(getattr(function, "__func__", function), "__wrapped__")
