"""The simulation of many workers agrees with closed forms where one part limits the rate."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

from scale_simulation import MILLION, Setting, cost, hours, simulate

FREE = Setting(
    alone_ms=25, busy_ms=25, processor_ms=25, driver_ms=0.001,
    store_requests=1e9, store_mb=1e9, link_mb=1e9,
    latency_ms=0,
)  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 16, 256])
def test_workers_that_share_nothing_are_linear(workers: int) -> None:
    found = simulate(FREE, workers)
    assert found.rate == pytest.approx(workers * 40, rel=0.02)
    assert found.efficiency == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("workers", "measured"), [(1, 30.3), (2, 42.3)])
def test_measured_rates_are_reproduced(workers: int, measured: float) -> None:
    assert simulate(Setting(), workers).rate == pytest.approx(measured, rel=0.04)


def test_the_driver_limits_the_batches_a_second() -> None:
    found = simulate(replace(FREE, driver_ms=10), 256)
    assert found.rate == pytest.approx(32 / 0.010, rel=0.02)
    assert found.busy["driver"] == pytest.approx(1, abs=0.02)


def test_the_store_limits_requests_and_bytes_a_second() -> None:
    found = simulate(replace(FREE, store_requests=1000, files=0, puts=0), 256)
    assert found.rate == pytest.approx(1000, rel=0.03)
    found = simulate(replace(FREE, store_mb=100, image_kb=200), 256)
    assert found.rate == pytest.approx(500, rel=0.03)


def test_reading_that_takes_longer_than_predicting_limits_a_worker() -> None:
    slow = replace(FREE, latency_ms=100, readers=2)  # 50 ms an image, against 25
    assert simulate(slow, 1).rate == pytest.approx(20, rel=0.02)


def test_costs_are_processors_and_requests() -> None:
    setting = replace(FREE, start_s=0, hour_price=1, get_price=0, put_price=0)
    found = simulate(setting, 16)
    assert hours(setting, found) * 16 == pytest.approx(MILLION * 0.025 / 3600, rel=0.02)
    assert cost(setting, found) == pytest.approx(MILLION * 0.025 / 3600, rel=0.02)
    priced = replace(setting, hour_price=0, get_price=1, put_price=2, gets=1, files=1, puts=3)
    requests = MILLION * 1 + (MILLION * 3 + MILLION / 32 * 3) * 2
    assert cost(priced, found) == pytest.approx(requests / 1000)
