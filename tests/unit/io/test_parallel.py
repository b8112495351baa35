"""How many processors there are: affinity, and what a container is given."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from naevus.io import parallel


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("max 100000\n", math.inf),
        ("nonsense", math.inf),
        ("5 0", math.inf),
    ],
)
def test_the_quota_of_control_groups_2(quota: str, expected: float, tmp_path: Path) -> None:
    write(tmp_path / "groups", cpu__max=quota)
    write(tmp_path, own="0::/\n")
    assert parallel._quota(tmp_path / "groups", tmp_path / "own") == expected


def test_the_least_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    write(groups / "slice" / "pod", cpu__max="400000 100000")
    write(groups / "slice", cpu__max="300000 100000")
    write(tmp_path, own="0::/slice/pod\n")
    assert parallel._quota(groups, tmp_path / "own") == 3


def test_the_quota_of_control_groups_1(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    cpu = groups / "cpu" / "docker"
    write(cpu, cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    write(groups / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    write(tmp_path, own="4:memory:/docker\n3:cpu,cpuacct:/docker\n")
    assert parallel._quota(groups, tmp_path / "own") == 3


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert parallel._quota(tmp_path / "absent", tmp_path / "absent") == math.inf


def test_at_least_one_and_at_most_what_the_quota_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_quota", lambda: 1)
    assert parallel.cpu_count() == 1
    monkeypatch.setattr(parallel, "_quota", lambda: math.inf)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    assert parallel.cpu_count() == (os.cpu_count() or 1)
