"""Give commands tables that are far too large; print what each says and the memory it took.

    python -m tests.helpers.hostile_tables

Files are written piece by piece, and deleted after each case: the largest has a gigabyte.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS: Final = 10_000_000
COLUMNS: Final = 10_000
CELL: Final = 10**9
MEMORY: Final = 600
"""What a command may take in MB: about twice what it takes to start."""


def rows(heading: str, row: str) -> Iterator[bytes]:
    """Yield a table of `ROWS` rows."""
    yield f"{heading}\n".encode()
    block = 100_000
    for start in range(0, ROWS, block):
        yield "".join(f"{row}\n".format(number) for number in range(start, start + block)).encode()


def columns(heading: str, row: str) -> Iterator[bytes]:
    """Yield a table of `COLUMNS` columns and a thousand rows."""
    yield (heading + "".join(f",c{number}" for number in range(COLUMNS)) + "\n").encode()
    for number in range(1000):
        yield (row.format(number) + ",1" * COLUMNS + "\n").encode()


def cell(heading: str, row: str) -> Iterator[bytes]:
    """Yield a table with a cell of `CELL` characters."""
    yield f"{heading},note\n{row.format(0)},".encode()
    for _ in range(1000):
        yield b"x" * (CELL // 1000)
    yield b"\n"


def parquet_rows(path: Path) -> None:
    """Write an out-of-fold table of `ROWS` rows, in a small file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    block = 100_000
    names = ["logit_MEL", "logit_NV", "class_prior_MEL", "class_prior_NV"]
    schema = pa.schema([("image_id", pa.string()), *((name, pa.float64()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, ROWS, block):
            ids = [f"i{number}" for number in range(start, start + block)]
            writer.write_table(
                pa.table([pa.array(ids), *[pa.array([0.5] * block)] * len(names)], schema=schema)
            )


def parquet_cells(path: Path) -> None:
    """Write a table whose texts are 200 GB when each row has its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.DictionaryArray.from_arrays(
        pa.array([0] * 2_000_000, pa.int32()), pa.array(["x" * 100_000])
    )
    pq.write_table(pa.table({"image_id": ids}), path)


FOLDS: Final = "train classification images --folds {} --out run"


class Case(NamedTuple):
    """A table and the command that reads it; ``{}`` is its path."""

    name: str
    write: Callable[[Path], None]
    file: str
    command: str


def text(
    content: Callable[[str, str], Iterator[bytes]], heading: str, row: str
) -> Callable[[Path], None]:
    """Return a writer of a text file."""

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            for piece in content(heading, row):
                stream.write(piece)

    return write


def cases() -> Iterator[Case]:
    """Yield every case."""
    official = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    tables = {
        "manifest": ("path,diagnosis", "images/{}.jpg,nv", "data check {}"),
        "metadata": ("image_id,age", "i{},50", "predict images --metadata {} --out out"),
        "lesions": ("image_id,lesion_id", "i{0},l{0}", "predict images --lesions {} --out out"),
        "submission": (official, "ISIC_{:07},1,0,0,0,0,0,0", "challenge lint {}"),
        "folds": (
            "image_id,group_id,fold",
            "i{0},g{0},0",
            FOLDS,
        ),
    }
    for name, (heading, row, command) in tables.items():
        for content in (rows, columns, cell):
            yield Case(f"{name}, {content.__name__}", text(content, heading, row), "t.csv", command)
    yield Case("input list, rows", text(rows, "#", "/images/{}.jpg"), "t.txt",
               "predict --input-list {} --out out")  # fmt: skip
    yield Case("input list, cell", text(cell, "#", "{}"), "t.txt",
               "predict --input-list {} --out out")  # fmt: skip
    yield Case("Parquet, rows", parquet_rows, "oof.parquet", "evaluate {}")
    yield Case("Parquet, cells", parquet_cells, "oof.parquet", "evaluate {}")


def run(case: Case, folder: Path) -> bool:
    """Run a case, print its line, and return whether it was refused in one line."""
    from PIL import Image

    for number, code in enumerate(("mel", "nv")):
        place = folder / "images" / code
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (200, 150, 130)).save(place / f"i{number}.png")
    path = folder / case.file
    case.write(path)
    size = path.stat().st_size / 2**20
    words = case.command.format(path.name).split()
    child = subprocess.Popen(
        [sys.executable, "-m", "naevus", *words],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    said = child.stderr.read().strip()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    path.unlink()
    memory = usage.ru_maxrss / 1024
    line = " ".join(said.split())
    refused = 1 if "lint" in words else 2
    fine = child.returncode == refused and memory < MEMORY and "Traceback" not in said
    print(f"{'fine' if fine else 'FAILED'} | {case.name} | {size:.0f} MB | "
          f"{child.returncode} | {memory:.0f} MB | {usage.ru_utime:.1f} s | {line[-160:]}",
          flush=True)  # fmt: skip
    return fine


def main() -> int:
    """Run the cases whose names contain the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        fine = [run(case, Path(folder)) for case in cases() if wanted in case.name]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
