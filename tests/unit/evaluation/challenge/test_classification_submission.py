"""Writing submissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from naevus.errors import SubmissionError
from naevus.evaluation.challenge import score_classification
from naevus.evaluation.challenge.classification import write_submission
from naevus.evaluation.challenge.lint import (
    lint_classification,
)
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@settings(deadline=None, max_examples=40)
@given(weights=arrays(np.float32, (4, 7), elements=st.sampled_from([0, 1, 1, 2, 3, 1e-12])))
def test_written_submissions_are_accepted_and_scored_as_intended(
    tmp_path_factory: pytest.TempPathFactory, weights: NDArray[np.float32]
) -> None:
    weights[:, 0] += weights.sum(1) == 0
    probabilities = weights / weights.sum(1, keepdims=True)
    path = tmp_path_factory.mktemp("submission") / "submission.csv"
    ids = [f"ISIC_{n:07d}" for n in range(4)]
    write_submission(path, ids, probabilities, ISIC2018)
    assert lint_classification(path, ids) == []
    table = pd.read_csv(path)
    values = table[list(ISIC2018.codes)].to_numpy()
    assert table["image"].tolist() == ids
    assert (values.argmax(1) == probabilities.argmax(1)).all()
    np.testing.assert_allclose(values, probabilities, atol=2e-9, rtol=0)


def test_certainty_and_single_rows_keep_their_decimal_point(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, ["ISIC_0000001"], np.eye(7)[[2]], ISIC2018)
    assert path.read_text().splitlines()[1].startswith("ISIC_0000001,0.000000000,0.000000000,1.0")
    assert lint_classification(path) == []
    assert score_classification(path, path)["overall"] == 1


def test_rows_other_than_probabilities_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    good = np.eye(7)[[0, 1]]
    bad = [
        (["a", "a"], good),
        (["a"], good),
        (["a\nb", "c"], good),
        (["a", "b"], good * np.nan),
        (["a", "b"], good * 5 - 1),
        (["a", "b"], good / 2),
        (["a", "b"], good[:, :3]),
    ]
    for ids, values in bad:
        with pytest.raises(SubmissionError):
            write_submission(path, ids, values, ISIC2018)
    assert not path.exists()
