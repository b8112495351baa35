"""Content that must not occur anywhere in the package."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.helpers import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))
PICKLING = frozenset({"load", "save", "savez", "savez_compressed", "read_array", "write_array"})
"""NumPy's functions that read or write pickles unless forbidden to."""
MACHINE = re.compile(r"(?<![\w.~/-])/(?:work|home|root|tmp|Users|mnt|opt)/\w")
REGISTRY = re.compile(r"--(?:extra-)?index-url|(?:pypi|pythonhosted)\.org/|download\.pytorch\.org")


def pickles_in(source: str) -> list[str]:
    """Return the calls that may read or write a pickle, as source text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        allowed = {
            word.arg: word.value.value
            for word in node.keywords
            if isinstance(word.value, ast.Constant)
        }
        name = ast.unparse(node.func)
        module, _, function = name.rpartition(".")
        numpy = module in {"np", "numpy", "np.lib.format", "numpy.lib.format"}
        if (
            allowed.get("allow_pickle") is True
            or (numpy and function in PICKLING and allowed.get("allow_pickle") is not False)
            or function in {"read_pickle", "to_pickle"}
            or (name == "torch.load" and allowed.get("weights_only") is not True)
            or name == "torch.save"
        ):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, mmap_mode='r')", True),
        ("np.load(path, allow_pickle=False)", False),
        ("np.lib.format.read_array(stream)", True),
        ("numpy.save(path, rows)", True),
        ("read(path, allow_pickle=True)", True),
        ("frame.to_pickle(path)", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=True)", False),
        ("torch.save(state, path)", True),
        ("json.load(stream)", False),
    ],
)
def test_pickles_are_recognised(source: str, found: bool) -> None:
    assert bool(pickles_in(source)) is found


def test_no_pickle_is_read_or_written() -> None:
    assert len(SOURCES) > 100
    found = {path.name: pickles_in(path.read_text()) for path in SOURCES}
    assert not {name: calls for name, calls in found.items() if calls}


def test_no_file_names_a_machine_or_a_registry() -> None:
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
    files = [ROOT / name for name in (*names, "CITATION.cff")]
    for folder in ("src", "docs", "recipes", "benchmarks", "results"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    assert len(files) > len(SOURCES)
    for path in files:
        text = path.read_text()
        for pattern in (MACHINE, REGISTRY):
            found = pattern.search(text)
            assert not found, f"{path.relative_to(ROOT)}: {found.group()}"


TEXTS = frozenset({".py", ".md", ".toml", ".html", ".csv", ".json"})


@pytest.mark.parametrize("folder", ["src", "benchmarks", "tools"])
def test_no_difference_is_printed_as_minus_zero(folder: str) -> None:
    """Numbers with a sign that round to zero lose a minus by the ``z`` of their format."""
    signed = re.compile(r"[:\"]\+\.\d+[f%]")
    assert not [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in signed.finditer(path.read_text())
    ]


def test_one_module_imports_openvino() -> None:
    """Only that module disables its telemetry."""
    importing = [
        path.relative_to(ROOT / "src").as_posix()
        for path in SOURCES
        if re.search(
            r"^\s*(?:import|from) openvino|import_module\(.openvino", path.read_text(), re.MULTILINE
        )
    ]
    assert importing == ["naevus/inference/engines/openvino.py"]
    banned = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "openvino" in banned["flake8-tidy-imports"]["banned-api"]
