"""What is fuzzed: a function per kind of file, which takes any bytes.

Each lets only an unexpected error out: a crash, or an answer that contradicts another reading of
the same bytes. `NaevusError` is the right answer to bad bytes.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from naevus.bundles.bundle import Bundle
from naevus.bundles.spec import parse_manifest
from naevus.datasets.layouts import load
from naevus.errors import NaevusError
from naevus.images.maskfile import read_mask_file
from naevus.images.read import ImageBytes, Limits, probe, read, read_stored
from naevus.inference.engines.graphfile import check_graph
from naevus.io.formats import read_csv, read_json, read_parquet, read_table
from naevus.runs.recipe import load_recipe
from tests.helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIXELS: Final = 4_000_000
"""Limit on the images here: what a run of a million inputs can afford."""


@contextlib.contextmanager
def file(content: bytes, name: str) -> Iterator[Path]:
    """Yield a file with the content."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def images(content: bytes) -> None:
    """Read as an image and as a mask; header, image and mask must agree."""
    source, limits = ImageBytes("image", content), Limits(pixels=PIXELS)
    with contextlib.suppress(NaevusError):
        header = probe(source, limits)
        assert 0 < header.width * header.height <= 2 * PIXELS
        pixels = read(source, limits=limits)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (header.height, header.width, 3)
        assert (read(source, limits=limits) == pixels).all()
        small = read(source, shortest=8, limits=limits)
        assert small.shape[0] <= header.height
        assert small.shape[1] <= header.width
    with contextlib.suppress(NaevusError):
        stored = read_stored(source, limits)
        mask = read_mask_file(source, limits)
        assert mask.mask.dtype == np.bool_
        assert mask.mask.shape == stored.values.shape[:2]


_FORMATS = (".csv", ".tsv", ".xlsx", ".parquet", ".json", ".toml")


def tables(content: bytes) -> None:
    """Read as a table; the first byte chooses the format."""
    chosen = _FORMATS[content[0] % len(_FORMATS)] if content else ".csv"
    with file(content[1:], f"table{chosen}") as path, contextlib.suppress(NaevusError):
        if chosen == ".parquet":
            read_parquet(path, "write it again", numbers=("prob",))
        elif chosen == ".json":
            read_json(path, "write it again", members={"a": (int,)})
        elif chosen == ".toml":
            load_recipe(path)
        else:
            table = read_table(path)
            assert all(
                value is not None and (isinstance(value, str) or value != value)
                for column in table
                for value in table[column].astype(object).where(table[column].notna(), np.nan)
            )
            if chosen == ".csv":
                read_csv(path, "write it again")


def bundles(content: bytes) -> None:
    """Open as a bundle: an archive, a manifest, and a graph, by the first byte."""
    kind, content = (content[0] % 3, content[1:]) if content else (0, content)
    with contextlib.suppress(NaevusError):
        if kind == 0:
            with file(content, "bundle.naevus") as path:
                Bundle.read(path)
        elif kind == 1:
            parse_manifest(content, "bundle.json")
        else:
            check_graph(Path("graph.onnx"), content)


def layouts(content: bytes) -> None:
    """Read a data set whose file names and tables are in the content.

    A line ``> NAME`` begins a file; the lines up to the next one are its content.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder) / "data"
        root.mkdir()
        for entry in content.split(b"\n> ")[:40]:
            name, _, text = entry.partition(b"\n")
            parts = [
                part for part in name.decode(errors="replace").split("/") if part.strip(". \0")
            ]
            if not parts or any(len(part.encode()) > 100 or "\0" in part for part in parts[:4]):
                continue
            path = root.joinpath(*parts[:4])
            with contextlib.suppress(OSError):  # a file where a folder is wanted
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
        with contextlib.suppress(NaevusError):
            dataset = load(root)
            ids = dataset.table[["part", "split", "image_id"]].astype(str).agg("|".join, axis=1)
            assert not ids.duplicated().any()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "images": images,
    "tables": tables,
    "bundles": bundles,
    "layouts": layouts,
}


def run(name: str, content: bytes) -> None:
    """Run a target as a command would: without printing warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGETS[name](content)


def seeds(name: str) -> Iterator[bytes]:
    """Yield valid inputs to start from, all made here or in the repository."""
    yield from {"images": _images, "tables": _tables, "bundles": _bundles, "layouts": _folders}[
        name
    ]()


def _images() -> Iterator[bytes]:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
    image, mask = (
        Image.fromarray(noise),
        Image.fromarray((noise[..., 0] > 99).astype(np.uint8) * 255),
    )
    for kind, options in (
        ("JPEG", {"quality": 80}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("AVIF", {}),
        ("JPEG2000", {}),
    ):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        yield stream.getvalue()
    for each in (
        mask,
        mask.convert("1"),
        mask.convert("P"),
        image.convert("RGBA"),
        image.convert("CMYK"),
    ):
        stream = io.BytesIO()
        each.save(stream, "TIFF" if each.mode == "CMYK" else "PNG")
        yield stream.getvalue()


def _tables() -> Iterator[bytes]:
    import pandas as pd

    from naevus.io.workbooks import write_workbook

    for path in sorted((ROOT / "tests" / "data" / "layouts").rglob("*.csv"))[:12]:
        yield b"\x00" + path.read_bytes()[:2000]
    yield b"\x01" + b"image\tdx\na\tnv\nb\tmel\n"
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        book, parquet = Path(folder) / "a.xlsx", Path(folder) / "a.parquet"
        write_workbook(book, ["image_id", "age"], [["a", 5], ["b", None]], {})
        yield b"\x02" + book.read_bytes()
        pd.DataFrame({"image_id": ["a", "b"], "prob_MEL": [0.5, 1.0]}).to_parquet(parquet)
        yield b"\x03" + parquet.read_bytes()
    yield b'\x04{"a": 1, "b": [1.5, null, "x"]}'
    for recipe in sorted((ROOT / "recipes").glob("*.toml")):
        yield b"\x05" + recipe.read_bytes()


def _bundles() -> Iterator[bytes]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("bundle.json", "{}")
        archive.writestr("classification-0.onnx", "x")
    yield b"\x00" + stream.getvalue()
    builtin = ROOT / "src" / "naevus" / "bundles" / "builtin"
    yield b"\x01" + (builtin / "bundle.json").read_bytes()
    yield b"\x02" + _graph()


def _graph() -> bytes:
    from onnx import TensorProto, helper

    shape = [1, 3]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, shape, [1.0, 2.0, 3.0])],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def _folders() -> Iterator[bytes]:
    for folder in sorted((ROOT / "tests" / "data" / "layouts").iterdir()):
        parts = []
        tree = folder / "TREE.txt"
        if tree.exists():
            parts += [line.strip().encode() + b"\nx" for line in tree.read_text().splitlines()[:12]]
        for table in sorted(folder.rglob("*")):
            if table.is_file() and table.suffix in {".csv", ".txt"} and table != tree:
                name = table.relative_to(folder).as_posix().encode()
                parts.append(name + b"\n" + table.read_bytes()[:1500])
        yield b"\n> ".join(parts)
