"""Write ``fp32`` for ``f32`` into bundles from before, which are refused otherwise.

Takes bundles (folders and ``.naevus`` files) and runs, whose folds' bundles are meant; a bundle
that is converted already is left alone. Nothing else changes: the model card is made again and
must differ in this word alone.

    python tools/convert_fp32.py results/bundles/*.naevus runs/classification
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from naevus.bundles.bundle import Bundle, pack
from naevus.bundles.card import CARD, card_of
from naevus.bundles.spec import MANIFEST, BundleSpec
from naevus.io.files import sha256, write_text


def convert(folder: Path) -> BundleSpec:
    """Convert a bundle's folder; return its specification."""
    manifest = folder / MANIFEST
    text = manifest.read_text(encoding="utf-8").replace('"f32"', '"fp32"')
    spec = BundleSpec.model_validate_json(text)
    card = card_of(spec)
    if card != (folder / CARD).read_text(encoding="utf-8").replace("f32", "fp32"):
        raise SystemExit(f"{folder}: its model card differs in more than this word")
    write_text(folder / CARD, card)
    write_text(manifest, text.replace(spec.files[CARD], sha256(folder / CARD)))
    return BundleSpec.model_validate_json(manifest.read_text(encoding="utf-8"))


def convert_file(path: Path) -> None:
    """Convert a bundle that is one file."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        pack(folder, convert(folder), path)


def is_old(path: Path) -> bool:
    """Tell whether a bundle still says ``f32``."""
    if path.is_dir():
        return '"f32"' in (path / MANIFEST).read_text(encoding="utf-8")
    with zipfile.ZipFile(path) as archive:
        return b'"f32"' in archive.read(MANIFEST)


def main(paths: list[Path]) -> None:
    """Convert what is named."""
    for path in paths:
        inside = sorted(path.glob("fold-*/bundle")) if (path / "run.toml").exists() else [path]
        for bundle in inside:
            if is_old(bundle):
                convert(bundle) if bundle.is_dir() else convert_file(bundle)
            Bundle.read(bundle)
            print(bundle)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
