"""The built-in bundle gives the recorded results on every machine."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.helpers.recorded import IMAGES, RECORDED, predict


def test_probabilities_and_areas_are_those_recorded() -> None:
    recorded = pd.read_csv(RECORDED)
    paths = [IMAGES / f"{name}.jpg" for name in recorded["image_id"]]
    assert len(paths) == 24
    found = predict(paths)
    assert found.columns.tolist() == recorded.columns.tolist()
    np.testing.assert_allclose(found.iloc[:, 1:], recorded.iloc[:, 1:], rtol=0, atol=0.02)
