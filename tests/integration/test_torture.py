"""Commands that are killed, interrupted or starved of space end as undisturbed ones: short form.

``make torture`` runs the same with all jobs, faults and repetitions (`tests.helpers.torture_all`).
Training takes longest; `test_resume` kills it at every stage.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.helpers import ROOT
from tests.helpers.torture_all import FAULTS
from tests.helpers.torture_jobs import Shop, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.torture import Torture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("shop")) as opened:
        yield opened


@pytest.fixture(scope="module")
def tortures(jobs: Shop) -> dict[str, Torture]:
    return {name: jobs.torture(name) for name in jobs.jobs}


SHORT = {
    "SIGKILL": {
        "predict": 4, "gather": 2, "gather folds": 1, "data download": 4, "data split": 1,
        "data synthetic": 2, "data check": 1, "report of predictions": 1,
    },
    "full disk": {"predict": 1},
    "no space": {"predict": 2, "data download": 1},
    "read-only": {"data download": 1},
    "no memory": {"predict": 1},
    "Ctrl-C": {"predict": 1, "data download": 1},
    "SIGTERM": {"predict": 1},
    "two at once": {"predict": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "name", "times"),
    [(fault, name, times) for fault, jobs in SHORT.items() for name, times in jobs.items()],
)
def test_nothing_is_lost(fault: str, name: str, times: int, tortures: dict[str, Torture]) -> None:
    losses = FAULTS[fault](tortures[name], times)
    if losses is None:
        pytest.skip("no file system can be mounted here")
    assert losses.tried == times
    assert losses.lost == []


def test_the_page_has_a_row_for_every_command(jobs: Shop) -> None:
    page = (ROOT / "docs" / "explanation" / "nothing-lost.md").read_text(encoding="utf-8")
    lines = page.partition("<!-- torture -->")[2].partition("<!-- /torture -->")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    assert rows[0] == ["command", *FAULTS, "lost"]
    assert [row[0] for row in rows[2:]] == list(jobs.jobs)
    assert {row[-1] for row in rows[2:]} == {"nothing"}
