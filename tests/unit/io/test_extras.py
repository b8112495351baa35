"""Extras: what is missing is named, with a command that works where naevus was installed."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from naevus.errors import NaevusError
from naevus.io import extras
from naevus.io.extras import EXTRAS, how_to_install, missing, require
from tests.helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direct_url: dict[str, Any] | None
) -> None:
    """Make naevus look like a package in ``site-packages``, with what pip noted about it."""
    monkeypatch.setattr(extras, "_PACKAGE", tmp_path / "site-packages" / "naevus")
    noted = None if direct_url is None else json.dumps(direct_url)
    found = SimpleNamespace(read_text=lambda name: noted)
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: found)


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    internal = {"docs", "fuzz", "audit", "dev"}
    assert set(EXTRAS) == set(declared) - internal
    for name, modules in EXTRAS.items():
        assert 0 < len(modules) <= len(declared[name])


def test_a_checkout_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "my checkout"
    (checkout / "src" / "naevus").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(extras, "_PACKAGE", checkout / "src" / "naevus")
    monkeypatch.chdir(checkout)
    assert how_to_install("train") == "run pip install -e '.[train]'"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(how_to_install("train")) == [
        *("run", "pip", "install", "-e"),
        f"{checkout}[train]",
    ]


@pytest.mark.parametrize("name", ["a checkout", "naevus-1.0-py3-none-any.whl"])
def test_what_pip_noted_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tmp_path / name
    installed(monkeypatch, tmp_path, {"url": origin.as_uri()})
    assert how_to_install("excel") == "run pip install 'naevus[excel]'"  # it is no longer there
    origin.touch()
    assert how_to_install("excel") == f"run pip install {shlex.quote(f'{origin}[excel]')}"


@pytest.mark.parametrize("noted", [None, {"url": "https://example.org/naevus.whl"}])
def test_otherwise_the_name_is_named(
    noted: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, tmp_path, noted)
    assert how_to_install("excel") == "run pip install 'naevus[excel]'"


def test_missing_packages_are_found_without_importing_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "train", ("decimal", "no_such_package", "no_such.module"))
    before = set(sys.modules)
    assert missing("train") == ["no_such_package", "no_such.module"]
    assert set(sys.modules) == before
    with pytest.raises(NaevusError) as caught:
        require("train", "training")
    assert str(caught.value) == (
        "training needs no_such_package, no_such.module, which are not installed; "
        + how_to_install("train")
    )


def test_nothing_is_refused_where_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "train", ("json",))
    require("train", "training")
