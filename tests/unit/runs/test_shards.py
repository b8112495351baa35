"""Shards: every item in one part, and records that are read as they were written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from naevus.errors import ConfigError, RunError
from naevus.runs.shards import RECORD, Shard, ShardRecord, digest
from naevus.types import FailedImage

if TYPE_CHECKING:
    from pathlib import Path

FOUND = ShardRecord(
    Shard(2, 3),
    70,
    digest(["a", "b"]),
    "1.0",
    ("mask", "attribute globules"),
    ("bundle/member (network)",),
    {"abc": "bundles/seg"},
    (FailedImage("x", "in/x.jpg", "does not exist"),),
    submission="natural",
)


@given(some.integers(0, 200), some.integers(1, 20))
def test_each_item_is_in_one_part_and_parts_are_alike(items: int, of: int) -> None:
    parts = [list(Shard(number, of).part(range(items))) for number in range(1, of + 1)]
    assert sorted(each for part in parts for each in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a number from 1 to the number of shards"):
        Shard.parse(text)


def test_a_record_survives_a_round_trip(tmp_path: Path) -> None:
    FOUND.write(tmp_path)
    assert ShardRecord.read(tmp_path) == FOUND


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"shard": "4/3"}, "is not a number from 1"),
        ({"images": "70"}, "images has the wrong type"),
        ({"unusable": [["x"]]}, "is not a record of a shard"),
        ({"more": 1}, "is not a record of a shard"),
    ],
)
def test_a_damaged_record_is_refused(
    changes: dict[str, object], problem: str, tmp_path: Path
) -> None:
    FOUND.write(tmp_path)
    path = tmp_path / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(RunError, match=problem):
        ShardRecord.read(tmp_path)
    path.unlink()
    with pytest.raises(RunError, match="is not a finished shard"):
        ShardRecord.read(tmp_path)
