"""Rewrite files of naevus 0.1 in the words of 0.2; no number changes.

``python tools/convert_formats.py PATH...`` takes out-of-fold tables (``*.parquet``), recipes
(``*.toml``), bundles (a folder or one ``.naevus`` file) and run folders, and rewrites each in its
place. What is converted already stays as it is.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from naevus.bundles.bundle import write_bundle
from naevus.bundles.spec import MANIFEST, BundleSpec
from naevus.io.files import atomic, write_json, write_text
from naevus.types import Precision

_COLUMNS = {
    "truth": "diagnosis",
    "thresholded": "thresholded_jaccard",
    "area": "lesion_area",
    "size": "image_size",
    "loss": "train_loss",
    "pictures_per_second": "images_per_second",
}
_PREFIXES = {"share_": "class_prior_", "weight_": "class_weight_", "inner_": "val_"}
_KEYS = {  # of bundle.json, wherever they stand
    "pictures": "images",
    "cell_offset": "cam_offset",
    "shares": "class_priors",
    "cleaning": "postprocessing",
    "stored": "storage",
    "computed": "precision",
    "precision_costs": "storage_costs",
    "precision_refusals": "storage_refusals",
    "precision_choices": "recommended",
    "why": "reason",
    "on": "measured_on",
    "level": "coverage",
}
_SETTINGS = {"inner_share": "validation_fraction", "dihedral": "d4", "weights": "pretrained"}
_FILES = {"heldout.parquet": "oof.parquet", "refused.csv": "failed.csv"}


def column(name: str) -> str:
    """Return a column's name of today."""
    for old, new in _PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return _COLUMNS.get(name, name)


def convert_table(path: Path) -> None:
    """Rename the columns of an out-of-fold table."""
    table = pq.read_table(path)
    names = [column(name) for name in table.column_names]
    if names == table.column_names:
        return
    metadata = {
        key: value for key, value in (table.schema.metadata or {}).items() if key != b"pandas"
    }
    renamed = pa.table(table.columns, names=names).replace_schema_metadata(metadata or None)
    with atomic(path) as temporary:
        pq.write_table(renamed, temporary)


def convert_toml(path: Path) -> None:
    """Rename the settings of a recipe."""
    text = path.read_text(encoding="utf-8")
    for old, new in _SETTINGS.items():
        text = re.sub(rf"^{old}(?= *=)", new, text, flags=re.MULTILINE)
    write_text(path, text)


def spec_of(content: Any, member: bool = False) -> Any:
    """Return the content of a bundle.json in today's words."""
    if isinstance(content, list):
        return [spec_of(each, member) for each in content]
    if isinstance(content, str):
        return re.sub(r"\bpicture(s?)\b", r"image\1", content)
    if not isinstance(content, dict):
        return content
    changed = {}
    for key, value in content.items():
        new, given = _KEYS.get(key, key), value
        if member and key in {"weights", "precision"}:
            new = {"weights": "class_weights", "precision": "storage"}[key]
        if "thresholds" in content and key == "codes":
            new = "classes"
        if key == "reference" and not isinstance(value, int | float):  # a cost's is a number
            new, given = "ood", value and "ood.npz"
        if key in {"provenance", "files"}:
            changed[new] = {("ood.npz" if k == "reference.npz" else k): v for k, v in value.items()}
        elif key == "tolerances":
            changed[new] = {k: {_precision(p): t for p, t in v.items()} for k, v in value.items()}
        else:
            given = _precision(given) if new == "precision" else given
            changed[new] = spec_of(given, key == "members")
    return changed


def _precision(value: Any) -> Any:
    return "fp32" if value == "f32" and "fp32" in get_args(Precision) else value


def convert_bundle(path: Path) -> None:
    """Rename what a bundle's manifest says; its networks stay as they are, byte for byte."""
    with tempfile.TemporaryDirectory() as place:
        folder = path
        if path.is_file():
            folder = Path(place) / "bundle"
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if "storage" in json.dumps(content) and "picture" not in json.dumps(content):
            return
        spec = BundleSpec.model_validate(spec_of(content))
        files = {}
        for name in spec.files.keys() - {"MODEL_CARD.md"}:
            old = folder / ("reference.npz" if name == "ood.npz" else name)
            files[name] = old
        out = Path(place) / ("new.naevus" if path.is_file() else "new")
        write_bundle(out, spec.model_copy(update={"files": {}}), files)
        if path.is_file():
            path.write_bytes(out.read_bytes())
            return
        (folder / "reference.npz").unlink(missing_ok=True)
        for each in out.iterdir():
            (folder / each.name).write_bytes(each.read_bytes())


def convert_run(folder: Path) -> None:
    """Convert a run's recipe, tables, histories and bundles."""
    convert_toml(folder / "run.toml")
    inputs = folder / "inputs.json"
    content = json.loads(inputs.read_text(encoding="utf-8"))
    names = {"pictures": "images", "warm_start": "init_from"}
    write_json(inputs, {names.get(key, key): value for key, value in content.items()})
    contents = folder / "contents.json"
    if contents.exists():
        named = json.loads(contents.read_text(encoding="utf-8"))
        for kind, entries in named.items():
            named[kind] = {
                name.replace("pictures", "images"): value for name, value in entries.items()
            }
        write_json(contents, named)
    for old, new in _FILES.items():
        for path in folder.rglob(old):
            path.rename(path.with_name(new))
    for path in (*folder.rglob("oof.parquet"), *folder.rglob("lesions.parquet")):
        convert_table(path)
    for path in folder.rglob("history.csv"):
        head, _, rest = path.read_text(encoding="utf-8").partition("\n")
        write_text(path, ",".join(map(column, head.split(","))) + "\n" + rest)
    for path in folder.rglob(MANIFEST):
        convert_bundle(path.parent)


def main(paths: list[str]) -> None:
    """Convert each path by what it is."""
    for path in map(Path, paths):
        if path.is_dir():
            (convert_run if (path / "run.toml").exists() else convert_bundle)(path)
        else:
            {".parquet": convert_table, ".toml": convert_toml}.get(path.suffix, convert_bundle)(
                path
            )
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
