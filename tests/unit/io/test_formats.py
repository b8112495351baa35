"""Files of ours that are cut, garbage or of another kind are one line with file and remedy."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from naevus.errors import DataError, NaevusError, RunError
from naevus.inference.sheets import first_predictions
from naevus.io.formats import read_csv, read_json, read_parquet
from naevus.runs.prediction_tables import about
from naevus.runs.run import Run, held, read_oof

if TYPE_CHECKING:
    from pathlib import Path


TABLE = pd.DataFrame({"image_id": ["a", "b"], "logit_MEL": [0.5, -1.0], "logit_NV": [1.0, 2.0]})
INPUTS: dict[str, Any] = {
    "data": "d", "layout": "l", "images": 2, "fingerprint": "f", "masks": None, "copies": []
}  # fmt: skip


def damaged(path: Path, how: str) -> None:
    """Damage a file that is there."""
    whole = path.read_bytes()
    if how == "absent":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"no table at all\n",
                "cut": whole[: len(whole) // 2],
                "tail": whole[:-12] + b"\xff" * 12,
                "footer": whole[: -len(whole) // 3] + b"\x80" * 40 + whole[-8:],
                "bytes": b"\xff\xfe\x00{" * 9,
            }[how]
        )


DAMAGES = ("absent", "folder", "empty", "text", "cut", "tail", "footer", "bytes")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_parquet_file_is_a_line(how: str, tmp_path: Path) -> None:
    path = tmp_path / "fold-1" / "oof.parquet"
    path.parent.mkdir()
    TABLE.to_parquet(path)
    pd.testing.assert_frame_equal(read_oof(path), TABLE)
    damaged(path, how)
    with pytest.raises(RunError, match=r"oof\.parquet: .*; delete fold-1 and train it again$"):
        read_oof(path)
    for read in (about, lambda each: first_predictions(each, 1)):
        with pytest.raises(Exception, match=r"oof\.parquet") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert type(caught.value).__module__ == "naevus.errors"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a", "b"]}, "has no column image_id"),
        ({"image_id": ["a", None]}, "image_id does not hold text in every row"),
        ({"image_id": [1, 2]}, "image_id does not hold text in every row"),
        ({"image_id": ["a", "b"], "logit_MEL": ["0.5", "x"]}, "logit_MEL does not hold numbers"),
        ({"image_id": ["a", "b"], "logit_NV": [[1.0], [2.0]]}, "logit_NV does not hold numbers"),
        ({"image_id": ["a", "b"], "logit": [True, False]}, "logit does not hold numbers"),
    ],
)
def test_columns_of_another_kind_are_named(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame(columns).to_parquet(path)
    with pytest.raises(DataError, match=rf"t\.parquet: .*{message}; mend it"):
        read_parquet(path, "mend it", numbers=("logit",))


@pytest.mark.parametrize(
    ("values", "found"),
    [([0, None], "nan"), ([0.0, float("inf")], "inf"), ([0, -1], "-1"), ([0, 1.5], "1.5"),
     ([0, 1e30], r"1e\+30"), (["0", "x"], "x")],
)  # fmt: skip
def test_a_fold_that_is_no_whole_number_is_named(
    values: list[Any], found: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    TABLE.assign(fold=values).to_parquet(path)
    with pytest.raises(DataError, match=rf"column fold has .*{found}.*, not a whole number"):
        read_parquet(path, "mend it", whole=("fold",))
    TABLE.assign(fold=[0, 4]).to_parquet(path)
    assert read_parquet(path, "mend it", whole=("fold", "absent"))["fold"].tolist() == [0, 4]


def test_a_table_that_was_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    TABLE.to_parquet(path)
    kept = read_parquet(path, "mend it")
    opened = [os.path.realpath(f"/proc/self/fd/{each}") for each in _descriptors()]
    assert str(path) not in opened
    assert len(kept) == 2


def _descriptors() -> list[str]:
    return os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []  # noqa: PTH208, PTH112


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{", b'{"data": null}', b'{"data": 5}', b"\xff\xfe", b"[" * 100_000,
     b"{}", b'"text"'],
)  # fmt: skip
def test_damaged_json_is_a_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"inputs\.json: .*; mend it$") as caught:
        read_json(path, "mend it", members={"data": (str,)})
    assert "\n" not in str(caught.value)


def test_a_damaged_csv_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for content in (b"", b"a,b\n1,2,3\n4,5,6,7\n", b"\xff\xfe\xff", b'"'):
        path.write_bytes(content)
        if content.startswith(b"a"):
            continue
        with pytest.raises(DataError, match=r"history\.csv: .*; mend it$"):
            read_csv(path, "mend it")


@pytest.mark.parametrize(
    ("member", "value"),
    [("data", None), ("data", 3), ("fingerprint", []), ("masks", 1), ("copies", "x"),
     ("images", None), ("layout", None)],
)  # fmt: skip
def test_a_run_with_members_of_other_types_is_refused(
    member: str, value: object, tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text('task = "segmentation"\n')
    (tmp_path / "inputs.json").write_text(json.dumps({**INPUTS, member: value}))
    with pytest.raises(RunError, match=rf"inputs\.json: {member} has the wrong type"):
        Run.open(tmp_path)


def test_two_trainings_do_not_fraction_a_run(tmp_path: Path) -> None:
    message = pytest.raises(NaevusError, match="in use by another naevus process")
    with held(tmp_path / "run"), message, held(tmp_path / "run"):
        raise AssertionError
    with held(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_folds_of_a_run_are_trained_side_by_side_and_each_by_one_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    one, other = run / "fold-0", run / "fold-1"
    with held(one), held(other), held(run):
        for fold in (one, other):
            message = pytest.raises(
                NaevusError, match=f"{fold} is in use by another naevus process"
            )
            with message, held(fold):
                raise AssertionError
        left = other / ".checkpoint.0a1b2c3d.tmp.safetensors"
        left.write_bytes(b"x")
    with held(one), held(run):
        assert left.exists()  # may be being written


def test_what_is_only_prepared_is_waited_for(tmp_path: Path) -> None:
    done: list[str] = []
    with held(tmp_path):
        waiting = threading.Event()

        def wait() -> None:
            done.append("waiting")
            waiting.set()

        def second() -> None:
            with held(tmp_path, wait):
                done.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        done.append("first")
    thread.join(10)
    assert done == ["waiting", "first", "second"]


def test_leftovers_of_killed_trainings_are_deleted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fold = run / "fold-0"
    left = [
        run / ".run.abcd_123.tmp.toml",
        fold / ".checkpoint.0a1b2c3d.tmp.safetensors",
        fold / ".oof.zzzzzzz9.tmp.parquet",
        fold / ".bundle.12345678.tmp" / "new" / "graph.onnx",
    ]
    kept = [
        run / "run.toml",
        run / ".lock",
        fold / "notes.tmp",
        fold / ".mine.tmp",
        fold / ".draft.tmp.txt",
        fold / "checkpoint.safetensors",
    ]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with held(run), held(fold):
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    assert not (fold / ".bundle.12345678.tmp").exists()


def test_a_cut_row_group_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "fold-0" / "oof.parquet"
    path.parent.mkdir()
    TABLE.to_parquet(path)
    whole = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    whole[start : start + 12] = b"\xff" * 12
    path.write_bytes(whole)
    with pytest.raises(RunError, match="delete fold-0"):
        read_oof(path)
