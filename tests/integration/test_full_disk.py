"""A full disk and an unwritable folder give one line, and jobs resume; a closed pipe ends none."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from naevus.datasets.cache import ImageCache
from naevus.errors import NaevusError
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import write_png
from naevus.io.files import atomic, write_csv
from naevus.io.workbooks import write_workbook
from tests.helpers.onnx_graphs import segmentation_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def mount(folder: Path, *options: str) -> bool:
    command = ["mount", *options, "-t", "tmpfs", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not mount(folder, "-o", "size=400k"):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def sources(tmp_path: Path) -> list[ImageFiles]:
    rng = np.random.default_rng(3)
    found = []
    for number in range(12):
        path = tmp_path / f"p{number}.png"
        Image.fromarray(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(path)
        found.append(ImageFiles(f"p{number}", path))
    return found


def test_a_full_disk_while_caching_is_one_line_and_caching_resumes(
    small: Path, sources: list[ImageFiles]
) -> None:
    input_spec = InputSpec("full", 128)
    (small / "ballast").write_bytes(b"x" * 120_000)
    with pytest.raises(NaevusError, match=r"cannot be written \(No space left"):
        ImageCache.build(sources, input_spec, small / "cache")
    subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True, capture_output=True)
    cache = ImageCache.build(sources, input_spec, small / "cache")
    assert len(cache) == len(sources)
    assert all(cache[source.image_id].any() for source in sources)


def workbook(path: Path) -> None:
    write_workbook(
        path, ["id", "value"], ([f"{number}", number / 7] for number in range(40_000)), {}
    )


def tensors(path: Path) -> None:
    import torch

    from naevus.training.loop import save_tensors  # late: torch takes seconds

    save_tensors(path, {"weights": torch.rand(200_000)}, {})


def table(path: Path) -> None:
    arrow = pa.table({"value": np.random.default_rng(0).random(100_000)})
    with atomic(path) as temporary, pq.ParquetWriter(temporary, arrow.schema) as writer:
        writer.write_table(arrow)


def lines(path: Path) -> None:
    write_csv(path, ["value"], ([number / 7] for number in range(100_000)))


@pytest.mark.parametrize("write", [workbook, tensors, table, lines])
def test_a_full_disk_while_a_file_is_written_is_one_line(
    write: Callable[[Path], None], small: Path
) -> None:
    path = small / "out" / "file"
    with pytest.raises(NaevusError, match=r"file: cannot be written \(.*No space left"):
        write(path)
    gc.collect()  # nothing is reported later
    assert not list((small / "out").iterdir())
    subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True, capture_output=True)
    write(path)
    assert list((small / "out").iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="no such pipes on Windows")
@pytest.mark.parametrize("both", [False, True])
def test_a_job_outlives_the_reader_of_its_output(both: bool, tmp_path: Path) -> None:
    for number in range(2):
        write_png(tmp_path / f"{number}.png", np.full((40, 50, 3), 90 + number, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    segmentation_bundle(tmp_path / "bundle")
    words = ("--bundle", tmp_path / "bundle", "--only", "masks", "--threads", 1, "--out")
    command = [sys.executable, "-m", "naevus", "predict", *map(str, (tmp_path, *words, "out"))]
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        stdout=written,
        stderr=written if both else subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(written)
    assert done.returncode == 1  # a finding, as without the pipe: one file is no image
    assert both or "error" not in done.stderr
    made = {each.name for each in (tmp_path / "out").iterdir()}
    assert {"predictions.parquet", "predictions.csv", "failed.csv", "masks"} <= made


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_for_the_output_is_reported(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "naevus", "train", "segmentation", "--show-recipe"],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: No space left on device")
    assert done.stderr.count("\n") == 1
