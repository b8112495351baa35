"""Dependencies: their licences, the hashes of their releases, and what the audit reports."""

from __future__ import annotations

import json
import re
import sys
import tomllib

import pytest

from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import audit

RULES = tomllib.loads((ROOT / "licences.toml").read_text(encoding="utf-8"))
LOCKS = ["base.txt", "all.txt"]
HASHES = r"(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
ENTRY = re.compile(r"^[\w.-]+==\S+(?: ; .+?)?" + HASHES, re.MULTILINE)


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {key(name): version for name, version in found}


def constraints() -> dict[str, str]:
    return pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))


def test_every_installed_package_has_an_allowed_licence_or_a_reason() -> None:
    found = audit.check_licences(audit.installed_licences(), RULES)
    assert not found.refused
    assert found.allowed > 50


@pytest.mark.parametrize(
    ("package", "licence", "verdict"),
    [
        ("a", "MIT", "allowed"),
        ("a", "MIT License; BSD License", "allowed"),
        ("a", "GPL-3.0-only OR MIT", "allowed"),
        ("a", "MIT AND (Apache-2.0 WITH LLVM-exception)", "allowed"),
        ("a", "UNKNOWN", "refused"),
        ("a", "", "refused"),
        ("a", "MIT AND GPL-3.0-only", "refused"),
        ("a", "BSD License; GNU General Public License (GPL)", "refused"),
        ("nvidia", "NVIDIA Proprietary Software", "refused"),
        ("nvidia-new-library", "NVIDIA Proprietary Software", "excepted"),
        ("NVIDIA_new.library", "NVIDIA Proprietary Software", "excepted"),
        ("efficientnet-lite9-pytorch-model", "UNKNOWN", "excepted"),
        ("efficientnet-lite9-pytorch-model-fork", "UNKNOWN", "refused"),
    ],
)
def test_a_licence_is_judged(package: str, licence: str, verdict: str) -> None:
    found = audit.check_licences({package: licence}, RULES)
    assert (found.allowed, len(found.excepted), len(found.refused)) == (
        int(verdict == "allowed"),
        int(verdict == "excepted"),
        int(verdict == "refused"),
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_hashed_requirements_pin_the_tested_releases(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert ENTRY.sub("", text) == ""  # nothing else: no index, no address, no release without hash
    tested = constraints()
    assert {
        name: (version, tested[name])
        for name, version in pins(text).items()
        if name in tested and version != tested[name]
    } == {}


def test_hashed_requirements_cover_the_declared_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {
        "base.txt": project["dependencies"],
        "all.txt": [each for extra in extras.values() for each in extra],
    }
    for lock, requirements in declared.items():
        locked = pins((ROOT / "requirements" / lock).read_text(encoding="utf-8"))
        names = {key(re.split(r"[<>=!~\[; ]", each)[0]) for each in requirements}
        assert names - set(locked) == set(), lock


def test_releases_without_an_answer_count_as_not_checked() -> None:
    answer = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": []},
            {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]},
            {"name": "c", "skip_reason": "Dependency not found"},
        ]
    }
    found = audit.read_vulnerabilities(json.dumps(answer), ["a", "b", "c"])
    assert found == audit.Vulnerabilities({"b 2": ["PYSEC-1", "PYSEC-2"]}, ["c"], 2)


@pytest.mark.parametrize("answer", ["", "Connection refused", "[]", "{}", "null"])
def test_a_service_that_does_not_answer_checked_nothing(answer: str) -> None:
    assert audit.read_vulnerabilities(answer, ["a", "b"]) == ({}, ["a", "b"], 0)
