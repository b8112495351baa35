"""Draw the architecture: the image of the layers, and the table of the modules.

The layers are those that import-linter checks (``pyproject.toml``), the descriptions the first
lines of docstrings. Writes ``docs/images/layers.svg`` and the table in
``docs/explanation/architecture.md``; ``--check`` only lists which of them are out of date.

    python tools/draw_house.py
"""

from __future__ import annotations

import ast
import sys
import tomllib
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "src" / "naevus"
IMAGE: Final = ROOT / "docs" / "images" / "layers.svg"
PAGE: Final = ROOT / "docs" / "explanation" / "architecture.md"
_BEGIN, _END = "<!-- modules: made by tools/draw_house.py -->\n", "<!-- end of modules -->\n"
_COLOURS = (
    *("#cfd8dc", "#d7ccc8", "#ffe0b2", "#ffccbc", "#bbdefb", "#c5cae9", "#b2dfdb"),
    *("#dcedc8", "#fff9c4", "#f0f4c3", "#eceff1", "#f5f5f5"),
)
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-labelledby="title" font-family="system-ui, sans-serif" text-anchor="middle">
  <title id="title">The packages, layer by layer; each may import those below it</title>"""
_BOX = """  <rect rx="8" x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}"
    stroke="#00000055"/>
  <text x="{middle}" y="{above}" font-size="17" font-weight="600" fill="#102027">{name}</text>
  <text x="{middle}" y="{below}" font-size="13" fill="#263238">{words}</text>"""
_WIDTH, _LEFT, _HIGH, _STEP, _GAP = 760, 50, 52, 64, 16


def layers() -> list[list[str]]:
    """Return the layers from the top, each with its packages."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(
        each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    )
    return [layer.split(" | ") for layer in contract["layers"]]


def description(path: Path) -> str:
    """Return the first line of a module's or package's docstring, without the full stop."""
    file = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".:")


def place(name: str) -> Path:
    """Return the folder or file of a name in a layer."""
    folder = PACKAGE / name
    return folder if folder.is_dir() else folder.with_suffix(".py")


def image() -> str:
    """Return the layers as SVG."""
    rows = layers()
    height = 16 + _STEP * len(rows)
    parts = [_HEAD.format(width=_WIDTH, height=height)]
    for number, names in enumerate(rows):
        across = _WIDTH - 2 * _LEFT - _GAP * (len(names) - 1)
        width = across // len(names)
        for column, name in enumerate(names):
            x, y = _LEFT + column * (width + _GAP), 8 + number * _STEP
            words = _short(description(place(name)), width // 7)
            box = {"x": x, "y": y, "width": width, "height": _HIGH, "middle": x + width // 2}
            parts.append(
                _BOX.format(
                    **box,
                    above=y + 22,
                    below=y + 41,
                    colour=_COLOURS[number % len(_COLOURS)],
                    name=escape(name),
                    words=escape(words),
                )
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def table() -> str:
    """Return the modules of every package as Markdown, from the top."""
    lines = ["| module | content |", "|---|---|"]
    for names in layers():
        for name in names:
            where = place(name)
            title = f"**`{name}/`**" if where.is_dir() else f"**`{name}`**"
            lines.append(f"| {title} | **{_cell(description(where))}** |")
            if where.is_dir():
                lines += [
                    f"| `{file.relative_to(where).with_suffix('')}` | {_cell(description(file))} |"
                    for file in sorted(where.rglob("*.py"))
                    if file.name != "__init__.py"
                ]
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with its table up to date."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def _short(words: str, most: int) -> str:
    if len(words) <= most:
        return words
    return words[: most - 1].rpartition(" ")[0].rstrip(",:;") + " …"


def _cell(words: str) -> str:
    return words.replace("``", "`").replace("|", r"\|")


def main() -> int:
    """Write both, or with ``--check`` return 1 where one differs."""
    found = {IMAGE: image(), PAGE: page()}
    stale = [path for path, text in found.items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)}: run python tools/draw_house.py\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(found[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
