"""``naevus show``: pictures with their masks and labels, before any model exists."""

from __future__ import annotations

import random
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, errors, progress
from naevus.errors import DataError, PictureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset, Record

    Seen = tuple[Record, NDArray[np.uint8], NDArray[np.bool_] | None]

_TILE = 192
_PAGE = 640


def show(
    data: Annotated[Path, typer.Argument(help="Folder of pictures in a known layout.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; contact-sheet.png, or .html with --window, by default."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures, drawn at random.")] = 36,
    diagnosis: Annotated[
        list[str] | None, typer.Option(help="Only this diagnosis, such as MEL; may be repeated.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Only this part of the data, such as task1 or task3.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw; another seed, other pictures.")] = 0,
    window: Annotated[
        bool, typer.Option("--window", help="Open a page to leaf through them in the browser.")
    ] = False,
) -> None:
    """Show pictures with their masks and labels: a contact sheet, or a page to leaf through.

    Needs no model. Pictures that cannot be read are named and left out.

    Examples:
      naevus show ISIC2018
      naevus show ISIC2018 --diagnosis MEL --count 48 --out melanomas.png
      naevus show ISIC2018 --part task1 --window
    """
    from naevus.datasets.layouts import load

    dataset = load(data)
    if part is not None:
        dataset = dataset.part(part)
    chosen = _choose(dataset, count, diagnosis, seed)
    title = f"{data.resolve().name}: {len(chosen)} of {len(dataset)} pictures"
    path = out or Path("contact-sheet.html" if window else "contact-sheet.png")
    if window:
        _write_page(chosen, path, title)
        opened = webbrowser.open(path.resolve().as_uri())
        console.print(f"{path}" if opened else f"no browser here: open {path} in one")
    else:
        _write_sheet(chosen, path, title)
        console.print(f"{path}", soft_wrap=True)


def _choose(
    dataset: Dataset, count: int, diagnoses: Sequence[str] | None, seed: int
) -> list[Record]:
    """Return at most ``count`` random pictures, ordered by diagnosis and id."""
    wanted = [code.upper() for code in diagnoses or ()]
    order = {code: dataset.taxonomy.index(code) for code in wanted or dataset.taxonomy.codes}
    rows = [row for row in dataset.pictures().rows() if not wanted or row.diagnosis in order]
    if not rows:
        of = f" of {', '.join(wanted)}" if wanted else ""
        raise DataError(f"{dataset.root} holds no pictures{of}", "choose another folder or filter")
    chosen = random.Random(seed).sample(rows, min(count, len(rows)))  # noqa: S311 - no secret
    return sorted(chosen, key=lambda row: (order.get(row.diagnosis or "", 99), row.image_id))


def _write_sheet(chosen: Sequence[Record], path: Path, title: str) -> None:
    from naevus.reports.contact_sheet import Tile, contact_sheet

    tiles = [
        Tile(pixels, mask, caption=f"{row.diagnosis or ''} {row.image_id}".strip())
        for row, pixels, mask in _seen(chosen, _TILE)
    ]
    contact_sheet(tiles, path, tile=_TILE, title=title)


def _write_page(chosen: Sequence[Record], path: Path, title: str) -> None:
    from naevus.reports.browser import leaf, write_browser

    leaves = [
        leaf(row.image_id, _facts(row), pixels, mask, _PAGE)
        for row, pixels, mask in _seen(chosen, _PAGE)
    ]
    write_browser(leaves, path, title=title)


def _seen(chosen: Sequence[Record], shortest: int) -> Iterator[Seen]:
    """Yield each picture with its mask; one that cannot be read is named and left out."""
    from naevus.images.maskfile import read_mask
    from naevus.images.read import read

    with progress("reading pictures", len(chosen)) as move:
        for done, row in enumerate(chosen, start=1):
            try:
                assert row.path is not None  # _choose takes rows with a picture
                pixels = read(row.path, shortest=shortest)
                mask = read_mask(row.mask_path) if row.mask_path else None
            except PictureError as error:
                errors.print(f"left out: {error}")
                continue
            finally:
                move(done, len(chosen))
            yield row, pixels, mask


def _facts(row: Record) -> list[tuple[str, str]]:
    known = {
        "diagnosis": row.diagnosis,
        "confirmed by": row.confirmation,
        "lesion": row.lesion_id,
        "site": row.site,
        "age": None if row.age is None else f"{row.age:g}",
        "sex": row.sex,
        "split": row.split,
        "part": row.part,
    }
    return [(name, value) for name, value in known.items() if value is not None]
