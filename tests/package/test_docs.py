"""The extensions that build the documentation: generated parts and refused links."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import naevus
from naevus import __version__
from naevus.datasets.layouts import LAYOUTS, labels, load, values
from naevus.datasets.layouts.images import SPLIT_WORDS
from naevus.evaluation.patient import SITES, joined_site
from naevus.inference.prediction import Prediction
from naevus.io.formats import COLUMN_NAMES
from naevus.runs.prediction_tables import Schema
from naevus.runs.recipe import Recipe
from naevus.taxonomy import ATTRIBUTES, ISIC2018, TAXONOMIES
from tests.helpers import ROOT
from tests.helpers.forge_page import faults

if TYPE_CHECKING:
    from types import ModuleType

DOCS = ROOT / "docs"


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The link checker."""
    monkeypatch.syspath_prepend(DOCS / "extensions")
    import links

    return links


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator of pages."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import write_reference

    return write_reference


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="b.html#there">', None),
        ('<a href="#here">', None),
        ('<a href="https://example.org/far">', None),
        ('<a href="mailto:someone@example.org">', None),
        ('<img src="image.png">', None),
        ('<a href="b.html#gone">', "b.html#gone has no such anchor"),
        ('<a href="c.html">', "c.html is not there"),
        ('<a href="../out.html">', "../out.html leads out of the site"),
        ('<script src="https://example.org/far.js">', "https://example.org/far.js would be"),
        ('<link href="//example.org/font.css">', "//example.org/font.css would be"),
        ('<img src="absent.png">', "absent.png is not there"),
    ],
)
def test_broken_links_are_found(links: Any, tmp_path: Path, html: str, problem: str | None) -> None:
    (tmp_path / "image.png").touch()
    pages = {
        tmp_path / "a.html": links.Parsed(f'<h1 id="here">{html}'),
        tmp_path / "b.html": links.Parsed('<h1 id="there">'),
    }
    found = list(links.broken(pages, tmp_path))
    assert [line.partition(": ")[2][: len(problem or "")] for line in found] == [problem] * bool(
        problem
    )


def test_every_setting_of_a_recipe_is_documented(generated: Any) -> None:
    reported = generated.recipe()
    recipe = Recipe(task="classification").model_dump()
    for name, value in recipe.items():
        assert f"[{name}]" in reported if isinstance(value, dict) else f"| `{name}` |" in reported
        for setting in value if name in {"data", "optimiser", "augment"} else ():
            assert f"| `{setting}` |" in reported
    assert "|  |" not in reported, "a setting without a meaning"


def test_every_column_and_field_is_documented(generated: Any) -> None:
    schema = Schema(ISIC2018.codes, (), {}).arrow()
    assert all(f"| `{name}` |" in generated.columns() for name in schema.names)
    assert "| `temperature` | number (> 0) | `1.0` | The divisor of the natural logits. |" in (
        generated.bundle()
    )
    for name in ("**`StorageCost`**", "**`BundleSpec`**", "| `by_class` |", "| `p_holm` |"):
        assert name in generated.bundle()


def test_every_documented_site_is_understood(generated: Any) -> None:
    page = (ROOT / "docs/how-to/use-the-patients-data.md").read_text()
    assert generated.sites() in page
    listed = [re.findall(r"`([^`]+)`", line) for line in generated.sites().splitlines()[2:]]
    assert [site for site, *_ in listed] == list(SITES)
    for site, *entries in listed:
        assert len(entries) == len(SITES[site])
        for entry in entries:
            for spelled in (entry, entry.upper(), entry.replace(" ", "_"), entry.replace(" ", "-")):
                assert joined_site(spelled) == site, spelled


def test_commands_are_documented_with_their_examples(generated: Any) -> None:
    reported = generated.commands()
    assert "## `naevus predict`" in reported
    assert "```sh\nnaevus predict photo.jpg" in reported
    assert "--help" not in reported


def test_every_layout_column_and_spelling_is_documented(generated: Any) -> None:
    assert all(f"| `{name}` |" in generated.layouts() for name in LAYOUTS)
    for column, names in COLUMN_NAMES.items():
        assert f"| `{column}` |" in generated.table_columns()
        assert all(f"`{name}`" in generated.table_columns() for name in names)
    reported = generated.spellings()
    assert all(name in reported for names in labels.NAMES.values() for name in names)
    assert "melanoma …" in reported
    assert "naevi" in generated.words()
    assert "`unknown`" in generated.no_labels()
    assert all(f"| `{name}` |" in generated.taxonomies() for name in TAXONOMIES)


def test_generated_pages_agree_with_the_code(generated: Any) -> None:
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert generated.filled(text, page) == text, f"{page}: run tools/write_reference.py"


def test_the_table_of_the_page_on_own_images_is_read_as_it_says(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "own-images.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^```text\n(image,.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(table.splitlines()) == 6
    (tmp_path / "labels.csv").write_text(table)
    for line in table.splitlines()[1:]:
        (tmp_path / line.partition(",")[0]).touch()
    dataset = load(tmp_path)
    first = str(dataset).partition("\n")[0]
    assert first == f"{tmp_path} (labels_table): 5 images of 4 lesions of 3 patients"
    assert "five images of four lesions and three patients" in page
    counted = dataset.table["diagnosis"].value_counts(dropna=False).to_dict()
    assert counted == {"NV": 2, "MEL": 1, "BKL": 1, pd.NA: 1}
    assert dataset.table["group_id"].nunique() == 3
    assert [problem.detail for problem in dataset.problems] == ["notes"]
    assert "`ignored: notes`" in page


def test_every_entry_that_a_column_understands_is_documented(generated: Any) -> None:
    reported = generated.values()
    spelled = {**values.SEXES, **values.MALIGNANCY, **labels.CONFIRMATIONS, **SPLIT_WORDS}
    assert all(f"`{name}`" in reported for pair in spelled.items() for name in pair)
    assert all(f"`{kind}`" in reported for kind in values.IMAGE_TYPES)
    assert all(f"`{kind}`" in reported for kind in values.SKIN_TYPES)


def test_a_block_without_end_or_generator_is_an_error(generated: Any, tmp_path: Path) -> None:
    for text in (
        "<!-- generated: nonsense -->\n<!-- end of generated -->\n",
        "<!-- generated: flags -->\n",
    ):
        with pytest.raises(SystemExit):
            generated.filled(text, tmp_path / "page.md")


def test_every_marker_names_a_generator(generated: Any) -> None:
    markers = [
        marker
        for page in DOCS.rglob("*.md")
        for marker in generated.MARKER.findall(page.read_text())
    ]
    assert {name for name, _ in markers} == set(generated.GENERATORS)


def test_the_architecture_page_agrees_with_the_package() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "draw_house.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_every_test_that_a_page_names_exists() -> None:
    named = 0
    for line in (DOCS / "explanation" / "robustness.md").read_text().splitlines():
        source = ""
        for file, name in re.findall(
            r"`((?:unit|integration|package)/[\w/]+\.py)?(?:::(test_\w+))?", line
        ):
            if not file and not name:
                continue
            if file:
                source = (ROOT / "tests" / file).read_text()
            named += 1
            assert not name or f"def {name}" in source, f"{file}::{name}"
    assert named > 50


def test_every_path_in_the_guide_for_contributors_exists() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(
        re.findall(r"`((?:src|tests|docs|recipes|results|tools|benchmarks)[\w/.-]*)`", guide)
    )
    assert len(paths) > 20
    made = {path for path in paths if re.search("[A-Z]{3}", path)}
    assert not {path for path in paths - made if not (ROOT / path).exists()}


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


_PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES_WITH_PYTHON = sorted(
    page for page in (*DOCS.rglob("*.md"), ROOT / "README.md") if "```python" in page.read_text()
)


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=lambda page: page.stem)
def test_python_on_a_page_compiles_and_uses_public_names(page: Path) -> None:
    blocks = _PYTHON_BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        compile(block, str(page), "exec")
        if page.parent.name == "api":  # signatures, not programs
            continue
        for name in re.findall(r"\bnaevus\.(\w+)", block):
            assert hasattr(naevus, name), f"{page.name}: naevus.{name}"


# Pages as a forge shows them, where nothing but Markdown is read.

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "results/*.md", "tests/data/*.md")
    for page in ROOT.glob(pattern)
)
NOTEBOOK = DOCS / "getting-started" / "notebook.ipynb"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_whole_where_it_lies(page: Path, links: ModuleType) -> None:
    assert faults(page.read_text(encoding="utf-8"), page, links.anchor_of) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```{toctree}\n:hidden:\n\na\n```", "a directive of Sphinx"),
        (":::{note}\nText.\n:::", "a directive of Sphinx"),
        ("See {ref}`there`.", "a role of Sphinx"),
        ("See {py:func}`naevus.load`.", "a role of Sphinx"),
        ('--8<-- "snippet.md"', "a snippet or an include"),
        ("{% include 'a.md' %}", "a snippet or an include"),
        ("Version {{ version }}.", "a snippet or an include"),
        ("!!! note", "a snippet or an include"),
        (".. include:: a.md", "a snippet or an include"),
        ("[[_TOC_]]", "a snippet or an include"),
        ("TODO: write this.", "a placeholder"),
        ("Clone <your fork>.", "a placeholder"),
        ("```sh\nexport KEY=YOUR_KEY\n```", "a placeholder"),
        ("The figures are coming soon.", "a placeholder"),
        ("Written to /home/me/naevus/runs.", "a path of one machine"),
        ("```text\n/mnt/runs/out.csv\n```", "a path of one machine"),
        ("In C:\\Users\\me.", "a path of one machine"),
        ("![It](file:///a.png)", "a path of one machine"),
        ("`pip install naevus`", "an address that does not exist"),
        ("```sh\npip install -U 'naevus[train]'\n```", "an address that does not exist"),
        ("pip install git+https://example.org/naevus", "an address that does not exist"),
        ("[here](https://github.com/naevus/naevus)", "an address that does not exist"),
        ("<!-- generated: flags -->\n\n<!-- end of generated -->", "an empty generated block"),
        ("# A\n\n## B\n\n## C\n\nText.", "a heading without content: B"),
        ("# A\n\nText.\n\n## Results\n\n<!-- later -->\n", "a heading without content: Results"),
        ("Text.\n\n<!-- api: naevus.a -->", "a module without signatures: naevus.a"),
        ("<!-- api: naevus.a -->\n\n<!-- end of api -->", "a module without signatures"),
        ("<!-- api: a.b -->\n\n```python\n```\n\n<!-- end of api -->", "a module without sig"),
        ("| a | b |\n|---|---|\n| c |  |", "an empty cell: | c |  |"),
        ("| a | b | c |\n|---|---|---|\n| d | | e |", "an empty cell"),
        ("| a | b |\n|---|---|\n| c | d |\n| e | |", "an empty cell: | e | |"),
        ("# A\n\n**Options**:\n\n**Commands**:\n\n* `a`: b.", "a label without content: Options"),
        ("# A\n\nText.\n\n**Options**:\n\n## B\n\nText.", "a label without content: Options"),
        ("# A\n\nText.\n\n**Options**:\n", "a label without content: Options"),
        ("* `check`: Find damaged files,...", "a cut sentence: * `check`: Find damaged files,..."),
        ("* `split`: Split the training images into…", "a cut sentence"),
        ("| a | b |\n|---|---|\n| `Run` | A folder: `run.toml`, `fold-k/`... |", "a cut sentence"),
        ("[gone](absent.md)", "a link to nothing: absent.md"),
        ("![gone](images/absent.png)", "a link to nothing: images/absent.png"),
        ("[root](/docs/index.md)", "a link to nothing: /docs/index.md"),
        ("# A b\n\n[no](#a-c)", "a link to no heading: #a-c"),
        ("[no](there.md#gone)", "a link to no heading: there.md#gone"),
    ],
)
def test_what_a_forge_cannot_show_is_found(
    tmp_path: Path, links: ModuleType, text: str, fault: str
) -> None:
    (tmp_path / "there.md").write_text("# There\n\nText.\n")
    found = faults(text, tmp_path / "page.md", links.anchor_of)
    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    "text",
    [
        "# A\n\n## B\n\nText of `predictions/photos` and photos/a.jpg.",
        "```sh\n# Not a heading\npip install '.[train]'\n```",
        "<!-- toctree: How-to\na\nb\n-->\n\nText.",
        "# The patient's `x.y` data\n\n[it](#the-patients-xy-data), [there](there.md#there)",
        "Masks are in `{folder}/masks`, sets such as {MEL, NV}.",
        "[a site](https://challenge.isic-archive.com/)",
        '```json\n{"a": {"b": 1}}\n```',
        "| | b |\n|---|---|\n| c | d |\n| | e |",
        "| a | b |\n|---|---|\n| `x \\| y` | – |",
        "<!-- api: a.b -->\n\n```python\ndef f() -> None: ...\n```\n\n<!-- end of api -->",
        "**Options**:\n\n* `--out`: Where.\n\n**Note.** Text.\n\n**A**\n\nText.",
        "```console\n$ naevus predict [IMAGES]...\n```\n\nThe file is `fold-k/...`.",
    ],
)
def test_what_a_forge_shows_is_left_alone(tmp_path: Path, links: ModuleType, text: str) -> None:
    (tmp_path / "there.md").write_text("# There\n\nText.\n")
    assert faults(text, tmp_path / "page.md", links.anchor_of) == []


def test_a_prediction_of_the_tutorial_s_numbers_reads_as_the_tutorial_shows() -> None:
    """Whatever the built-in networks give for the image, its lines are those of a prediction."""
    page = (DOCS / "getting-started" / "first-prediction.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"prints:\n\n```text\n.*? of the image\n\n(.*?)```", page, re.DOTALL)
    found = re.findall(r"^  ([A-Z]+) +([\d.]+)%", shown, re.MULTILINE)
    # Equal as printed, but in this order.
    probabilities = {
        code: float(value) / 100 - 1e-6 * place for place, (code, value) in enumerate(found)
    }
    answer = max(probabilities, key=lambda code: probabilities[code])
    balanced = dict(re.findall(r"(equally common): .* \((\w+)\)", shown))
    common = balanced.get("equally common", answer)
    (area,) = re.findall(r"covers ([\d.]+)%", shown)
    sizes = re.findall(r"diameters are (\d+) x (\d+) pixels", shown)
    spelled = {label: name for name, label in ATTRIBUTES.items()}
    attributes = {
        spelled[label.strip()]: int(value) / 100
        for label, value in re.findall(r"([a-z ]+) \((\d+)%\)", shown)
        if label.strip() in spelled
    }
    prediction = Prediction(
        re.findall(r"\w+", shown)[0],
        Path("photo.jpg"),
        100,
        100,
        lesion_area=float(area) / 100,
        touches_border="reaches its border" in shown,
        measurements=SimpleNamespace(  # type: ignore[arg-type]
            longest_diameter=float(sizes[0][0]), perpendicular_diameter=float(sizes[0][1])
        )
        if sizes
        else None,
        probabilities={code: probabilities[code] for code in ISIC2018.codes},
        balanced_probabilities={code: float(code == common) for code in ISIC2018.codes},
        uncertainty=float(re.findall(r"uncertainty: ([\d.]+)", shown)[0]),
        prediction_set=tuple(re.findall(r"set: ([A-Z, ]+)\.", shown)[0].split(", ")),
        coverage=0.9,
        attributes=attributes,
        taxonomy="isic2018",
    )
    assert str(prediction) == shown.rstrip("\n")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    excerpt = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)[0]
    lines = [line for line in excerpt.splitlines() if line.strip() not in {"", "..."}]
    assert [line for line in lines if line not in shown.splitlines()] == []
    assert f"# {prediction.predicted} {prediction.confidence:.2f}" in readme
    assert f'# ("{prediction.predicted}", {prediction.confidence:.2f})' in page
    first = ", ".join(f'"{code}": {probabilities[code]:.3f}' for code in ISIC2018.codes[:2])
    assert f"# {{{first}, ...}}" in page


def test_the_notebook_has_its_outputs_and_no_path_of_the_machine_that_ran_it(
    links: ModuleType,
) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert faults(source, NOTEBOOK, links.anchor_of) == []
            continue
        shows = isinstance(ast.parse(re.sub("(?m)^%.*", "", source)).body[-1], ast.Expr)
        assert bool(cell["outputs"]) == shows, source
        texts = [each.get("text") or each["data"]["text/plain"] for each in cell["outputs"]]
        for text in texts:
            assert faults("".join(text), NOTEBOOK, links.anchor_of) == []


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=str)
def test_workflows_use_official_actions_pinned_by_hash_and_may_only_read(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: name its version"
    assert re.search(r"^permissions:\n  contents: read$", text, re.MULTILINE)


def test_the_site_is_published_from_main_alone_and_built_strictly() -> None:
    text = (ROOT / ".github/workflows/pages.yml").read_text()
    assert "push: { branches: [main] }" in text
    assert "if: github.ref == 'refs/heads/main'" in text
    assert "run: make docs" in text
    recipe = (ROOT / "Makefile").read_text().partition("\ndocs:")[2].partition("\n\n")[0]
    assert "--fail-on-warning" in recipe
    built = re.search(r"docs (build/\w+)$", recipe, re.MULTILINE)
    assert built
    assert f"path: {built[1]} }}" in text


def test_what_to_cite_is_what_the_citation_file_says() -> None:
    page = (DOCS / "how-to" / "publish-results.md").read_text(encoding="utf-8")
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", page, re.DOTALL)
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for value in re.findall(
        r"^ *(?:- )?(?:title|version|year|doi|url): \"?([^\"\n]+)", cited, re.MULTILINE
    ):
        assert f"{{{value}}}" in bibtex, value
    for family in re.findall(r"family-names: (\w+)", cited):
        assert family in bibtex
    assert f"naevus (version {__version__})" in page
