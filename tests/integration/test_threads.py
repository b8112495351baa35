"""Results are the same bits with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

from threadpoolctl import threadpool_info

_DISTANCES = """
import sys
import numpy as np
from naevus.evaluation.bootstrap import repeatable
from naevus.evaluation.ood import FactorModel
chance = np.random.default_rng(5)
basis = np.linalg.qr(chance.normal(0, 1, (864, 128)))[0].astype(np.float16)
model = FactorModel(
    chance.normal(0, 1, 864).astype(np.float32),
    basis,
    np.geomspace(200, 2, 128).astype(np.float32),
    0.4,
)
rows = chance.normal(0, chance.uniform(0.5, 40, (96, 1)), (96, 864))
whole = model.distances(rows)
alone = np.concatenate([model.distances(row[None]) for row in rows])
back = model.distances(rows[::-1])[::-1]
assert np.array_equal(whole, alone), "an image's batch changes its distance"
assert np.array_equal(whole, back), "the order of images changes a distance"
sys.stdout.write(whole.tobytes().hex())
"""


def test_distances_are_the_same_bits_with_any_number_of_threads() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", _DISTANCES],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads, core in (("1", ""), ("2", ""), ("3", ""), ("2", "Haswell"))
    ]
    assert len(bytes.fromhex(found[0])) == 96 * 8
    assert len(set(found)) == 1


_FIGURES = """
import sys
import numpy as np
from naevus.evaluation.bootstrap import repeatable
chance = np.random.default_rng(0)
weights, columns = chance.random((400, 1501)), chance.random((1501, 37))

@repeatable
def figures():
    return weights @ columns / weights.sum(axis=1, keepdims=True)

sys.stdout.write(figures().tobytes().hex())
"""


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
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
