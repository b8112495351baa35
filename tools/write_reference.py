"""Write the generated parts of the documentation: commands, settings, columns, the API.

A block from ``<!-- generated: NAME ARGUMENTS -->`` to ``<!-- end of generated -->`` in a page is
the Markdown that the function of that name in `GENERATORS` returns. Without arguments all pages are
written; ``--check`` only lists pages that are out of date.

    python tools/write_reference.py
"""

from __future__ import annotations

import html
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import naevus
from naevus.bundles import figures, spec
from naevus.datasets.layouts import LAYOUTS, labels
from naevus.datasets.layouts import values as readers
from naevus.datasets.layouts.images import SPLIT_WORDS
from naevus.evaluation.patient import SITES
from naevus.io.formats import COLUMN_NAMES
from naevus.io.settings import values_of
from naevus.runs.prediction_tables import Schema
from naevus.runs.recipe import Recipe
from naevus.taxonomy import ATTRIBUTES, ISIC2018, TAXONOMIES
from naevus.types import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).parent))

from signatures import stubs

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
API: Final = DOCS / "reference" / "api"
MARKER: Final = re.compile(r"^<!-- generated: (\w+)([^\n]*?) -->$", re.MULTILINE)
END: Final = "<!-- end of generated -->"
BLOCK: Final = re.compile(rf"{MARKER.pattern}\n(?:.*?\n)??{END}", re.MULTILINE | re.DOTALL)
_EXAMPLES = re.compile(r"^(?:Examples:\n)?((?:  naevus .+\n)+)", re.MULTILINE)
_EVERYWHERE = re.compile(r"^\* `--(?:help|install-completion|show-completion)`.*\n", re.MULTILINE)
_NO_OPTIONS = re.compile(r"^\*\*Options\*\*:\n\n+(?=\*\*|##|\Z)", re.MULTILINE)
_COMMAND = re.compile(r"^##+ `(naevus [^`]+)`\n\n(.+)$", re.MULTILINE)
_GROUPS = re.compile(
    r"^## `(naevus \S+)`\n(?:(?!^##).*\n)*?\*\*Commands\*\*:\n\n((?:\* .+\n)+)", re.MULTILINE
)
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def filled(text: str, page: Path) -> str:
    """Return a page with its generated blocks up to date.

    Raises:
        SystemExit: Nothing generates a block, or it has no end.
    """

    def generate(block: re.Match[str]) -> str:
        generator = GENERATORS.get(block[1])
        if generator is None:
            raise SystemExit(f"{page}: nothing generates {block[1]!r}")
        begin = f"<!-- generated: {' '.join((block[1], *block[2].split()))} -->"
        return f"{begin}\n\n{generator(*block[2].split()).strip()}\n\n{END}"

    if len(MARKER.findall(text)) != text.count(END):
        raise SystemExit(f"{page}: a generated block has no {END}")
    return BLOCK.sub(generate, text)


def main(check: bool) -> int:
    """Write all pages, or list which differ; return how many do."""
    differ = 0
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = filled(text, page)
        if new != text:
            differ += 1
            print(f"{page.relative_to(ROOT)} {'differs' if check else 'written'}")
            if not check:
                page.write_text(new, encoding="utf-8")
    return differ


def commands() -> str:
    """Describe every command, as ``--help`` does."""
    words = ("typer", "naevus.cli.main", "utils", "docs", "--name", "naevus")
    output = subprocess.run(
        [sys.executable, "-m", *words], check=True, capture_output=True, text=True
    ).stdout
    output = _EXAMPLES.sub(_as_code, _EVERYWHERE.sub("", output))
    output = html.unescape(output[output.index("## `naevus") :])
    output = _NO_OPTIONS.sub("", output)
    first_lines = {each[1]: each[2] for each in _COMMAND.finditer(output)}
    return _GROUPS.sub(lambda group: _listing(group, first_lines), output)


def _listing(group: re.Match[str], first_lines: Mapping[str, str]) -> str:
    """Return the commands of a group, with links; Typer cuts their descriptions."""
    rows = []
    for name in re.findall(r"^\* `(\S+)`", group[2], re.MULTILINE):
        command = f"{group[1]} {name}"
        rows.append(f"* [`{name}`](#{command.replace(' ', '-')}): {first_lines[command]}")
    return group[0].replace(group[2], "\n".join(rows) + "\n")


def _as_code(examples: re.Match[str]) -> str:
    return f"```sh\n{inspect.cleandoc(examples[1])}\n```\n"


def recipe() -> str:
    """List every setting of a training job, table by table."""
    fields = Recipe.model_fields.items()
    tables = {name: model for name, field in fields if (model := _model(field.annotation))}
    parts = [_fields(Recipe, leave_out=tuple(tables))]
    for name, model in tables.items():
        parts += [f"## `[{name}]`", inspect.getdoc(model) or "", _fields(model)]
    return "\n\n".join(parts)


def bundle() -> str:
    """List the keys of ``bundle.json``, the whole file first."""
    models = [
        model
        for module in (spec, figures)
        for value in reversed(vars(module).values())
        if (model := _model(value)) and value.__module__ == module.__name__
    ]
    parts = []
    for model in models:
        what = (inspect.getdoc(model) or "").partition("\n")[0]
        parts += [f"**`{model.__name__}`**: {what}", _fields(model)]
    return "\n\n".join(parts)


def columns() -> str:
    """List the columns of ``predictions.parquet`` with their types."""
    schema = Schema(ISIC2018.codes, (), {}).arrow()
    rows = [(f"`{field.name}`", f"`{field.type}`") for field in schema]
    return _table(("column", "Arrow type"), rows)


def flags() -> str:
    """List the flags of predictions."""
    return _table(("flag", "meaning"), [(f"`{code}`", text) for code, text in FLAGS.items()])


def diagnoses() -> str:
    """List the seven diagnoses of ISIC 2018."""
    rows = [
        (f"`{each.code}`", each.name, "yes" if each.malignant else "no")
        for each in ISIC2018.diagnoses
    ]
    return _table(("code", "diagnosis", "counted as malignant"), rows)


def package(name: str) -> str:
    """List the public names of a package, module by module."""
    folder = import_module(f"naevus.{name}").__path__
    found = sorted(each.name for each in pkgutil.iter_modules(folder))
    return "\n\n".join(module(f"naevus.{name}.{each}") for each in found)


def module(name: str) -> str:
    """Show the signatures of a module; the site documents more, see docs/extensions/api.py."""
    there = import_module(name)
    about = (inspect.getdoc(there) or "").partition("\n\n")[0].replace("\n", " ")
    shown = stubs([thing for _, thing in _offered(there)], name)
    code = [f"```python\n{shown}\n```"] if shown else []
    parts = [f"## {name}", about, f"<!-- api: {name} -->", *code, "<!-- end of api -->"]
    return "\n\n".join(parts)


def _offered(there: ModuleType) -> Iterator[tuple[str, Any]]:
    package = hasattr(there, "__path__")
    for label, thing in sorted(vars(there).items()):
        if label.startswith("_") or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        home = thing.__module__
        if home == there.__name__ or (package and home.startswith(f"{there.__name__}.")):
            yield label, thing


def _first_line(thing: Any) -> str:
    inherited = inspect.isclass(thing) and "__doc__" not in vars(thing)
    doc = None if inherited else inspect.getdoc(thing)
    return (doc or "").partition("\n")[0].replace("``", "`")


def exports() -> str:
    """List the names that `import naevus` offers, and the module of each."""
    rows = []
    for name in naevus.__all__:
        thing = getattr(naevus, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            rows.append((f"`naevus.{name}`", _first_line(thing), _linked(thing.__module__)))
    return _table(("name", "description", "defined in"), rows)


def _linked(name: str) -> str:
    """Return a module's name, with a link if a page of the API documents it."""
    package = name.split(".")[1]
    wanted = f"generated: module {name} -->", f"generated: package {package} -->"
    pages = {page.name: page.read_text(encoding="utf-8") for page in API.glob("*.md")}
    found = [each for marker in wanted for each, text in pages.items() if marker in text]
    if not found:
        return f"`{name}`"
    page = "" if found[0] == "index.md" else found[0]
    return f"[`{name}`]({page}#{name.replace('.', '')})"


def layouts() -> str:
    """List the layouts in the order in which they are tried."""
    rows = []
    for name, module in LAYOUTS.items():
        what = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
        rows.append((f"`{name}`", module.DESCRIPTION, what))
    return _table(("layout", "recognised by", "content"), rows)


_COLUMNS: Final = {
    "image_id": "the image: its id, file name or path",
    "path": "the image file; a table with it is a manifest, whose images may lie anywhere",
    "mask_path": "the mask of the lesion",
    "diagnosis": "trained on and scored",
    "benign_malignant": "trained on and scored where there are no diagnoses",
    "lesion_id": "images of a lesion stay together; predictions by lesion",
    "group_id": "images of a group stay together",
    "patient_id": "images of a patient stay together",
    "age": "years; subgroups, and the patient's data",
    "sex": "subgroups, and the patient's data",
    "site": "subgroups, and the patient's data",
    "confirmation": "how the diagnosis was confirmed; subgroups",
    "image_type": "images that are not dermoscopic are left out",
    "fitzpatrick_skin_type": "subgroups",
    "dermoscopic_type": "subgroups",
    "anatom_site": "a finer site; subgroups",
    "split": "images of validation and test are not trained on",
    "part": "a part that `--part` selects",
    **{f"attribute_{name}": f"the mask of the attribute {name}" for name in ATTRIBUTES},
}
"""What each column of a table is for."""


def table_columns() -> str:
    """List the columns of tables of images, with the names under which each is read."""
    rows = [
        (f"`{name}`", _COLUMNS[name], ", ".join(f"`{each}`" for each in names))
        for name, names in COLUMN_NAMES.items()
    ]
    return _table(("column", "use", "names in tables"), rows)


def values() -> str:
    """List the entries that each column of tables of images understands."""
    rows = [
        ("age", "years", f"{readers.AGES}; any others are unknown, and reported"),
        *_spelled("sex", readers.SEXES, "kept, in lower case"),
        *_spelled("malignant, target", readers.MALIGNANCY, "read as diagnoses"),
        *_spelled("confirmation", labels.CONFIRMATIONS, "kept, in lower case"),
        *_spelled("split", SPLIT_WORDS, "refused"),
        *(
            ("image type", f"`{kind}`", "entries that contain " + _listed(words))
            for kind, words in readers.IMAGE_TYPES.items()
        ),
        (
            "site",
            "kept, in lower case",
            "any; some [change the odds](use-the-patients-data.md#sites)",
        ),
        ("skin type", _listed(readers.SKIN_TYPES), "`1` to `6`, also after a word (`FST IV`)"),
    ]
    return _table(("column", "read as", "entries"), rows)


def sites() -> str:
    """List the sites that change the odds, with their spellings."""
    return _table(
        ("site", "entries"),
        [
            (f"`{site}`", ", ".join(f"`{each.replace('_', ' ')}`" for each in spellings))
            for site, spellings in SITES.items()
        ],
    )


def _spelled(column: str, spelled: Mapping[str, str], others: str) -> Iterator[tuple[str, ...]]:
    for meaning in dict.fromkeys(spelled.values()):
        names = {meaning.lower(): None} if column != "malignant, target" else {}
        names |= dict.fromkeys(name for name, its in spelled.items() if its == meaning)
        yield column, f"`{meaning}`", _listed(names)
    yield column, others, "any others"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def spellings() -> str:
    """List the spellings of each code."""
    rows = [
        (
            f"`{code}`",
            ", ".join(names),
            ", ".join(f"{begin}…" for begin, its in labels.BEGINNINGS if its == code) or "–",
        )
        for code, names in labels.NAMES.items()
    ]
    return _table(("code", "spellings", "beginnings"), rows)


def words() -> str:
    """List the spellings of single words."""
    meant: dict[str, list[str]] = {}
    for word, read in labels.WORDS.items():
        if word != read:
            meant.setdefault(read, []).append(word)
    rows = [(read, ", ".join(spelled)) for read, spelled in sorted(meant.items())]
    return _table(("word", "spellings"), rows)


def no_labels() -> str:
    """List the entries that mean no diagnosis."""
    return ", ".join(f"`{each}`" for each in sorted(labels.NO_LABEL) if each)


def taxonomies() -> str:
    """List the taxonomies with their classes, the malignant ones in bold."""
    rows = [
        (
            f"`{name}`",
            ", ".join(f"**{d.code}**" if d.malignant else d.code for d in taxonomy.diagnoses),
        )
        for name, taxonomy in TAXONOMIES.items()
    ]
    return _table(("taxonomy", "classes, in order; malignant in bold"), rows)


GENERATORS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        commands,
        recipe,
        bundle,
        columns,
        flags,
        diagnoses,
        package,
        module,
        exports,
        layouts,
        table_columns,
        values,
        sites,
        spellings,
        words,
        no_labels,
        taxonomies,
    )
}


def _fields(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> str:
    meanings = _meanings(model)
    rows = [
        (
            f"`{name}`",
            values_of(field),
            _default(field),
            field.description or meanings.get(name, ""),
        )
        for name, field in model.model_fields.items()
        if name not in leave_out
    ]
    return _table(("name", "values", "default", "meaning"), rows)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each attribute in the docstrings of a model and its bases."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        text = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2]
        found |= {name: " ".join(what.split()) for name, what in _ATTRIBUTE.findall(text)}
    return found


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "(required)"
    if isinstance(value, BaseModel):
        return f"that of {type(value).__name__}"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _model(annotation: Any) -> type[BaseModel] | None:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(_lines(header, rows))


def _lines(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    raise SystemExit(1 if main("--check" in sys.argv) and "--check" in sys.argv else 0)
