"""Check the licences of the installed dependencies, and ask for known vulnerabilities.

Licences are compared with ``licences.toml``. Vulnerabilities of the releases in
``requirements/all.txt`` are asked of the package index; without an answer, this is said and counted
as no failure (with ``--strict``, it is one).

    python tools/audit.py
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
ALLOWED: Final = ROOT / "licences.toml"
PINNED: Final = ROOT / "requirements" / "all.txt"


class Licences(NamedTuple):
    """The licences of installed packages, by verdict.

    Attributes:
        allowed: The number of packages whose licence is allowed.
        excepted: Package and reason of each exception.
        refused: Package and licence of each package that is neither.
    """

    allowed: int
    excepted: dict[str, str]
    refused: dict[str, str]


def installed_licences() -> dict[str, str]:
    """Return the licence that each installed package states."""
    command = [sys.executable, "-m", "piplicenses", "--format", "json", "--from", "mixed"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return {each["Name"]: each["License"] for each in json.loads(answer.stdout)}


def check_licences(licences: dict[str, str], rules: dict[str, Any]) -> Licences:
    """Compare licences with the rules of ``licences.toml``.

    Every licence of a conjunction must be allowed, and one of a choice (``OR``).
    """
    found = Licences(0, {}, {})
    for package, licence in sorted(licences.items()):
        name = re.sub(r"[-_.]+", "-", package).lower()
        reasons = [why for rule, why in rules["exceptions"].items() if fnmatch(name, rule)]
        if any(_all_allowed(choice, rules["allowed"]) for choice in licence.split(" OR ")):
            found = found._replace(allowed=found.allowed + 1)
        elif reasons:
            found.excepted[package] = reasons[0]
        else:
            found.refused[package] = licence
    return found


def _all_allowed(licence: str, allowed: list[str]) -> bool:
    return all(part.strip(" ()") in allowed for part in re.split(r" AND |; ", licence)) or (
        licence in allowed
    )


class Vulnerabilities(NamedTuple):
    """What the package index knows of the pinned releases.

    Attributes:
        known: Release and the names of its vulnerabilities.
        unanswered: Releases of which nothing is known, as the service did not answer.
        checked: The number of releases with an answer.
    """

    known: dict[str, list[str]]
    unanswered: list[str]
    checked: int


def read_vulnerabilities(answer: str, pinned: list[str]) -> Vulnerabilities:
    """Read the JSON of pip-audit; releases that it skipped, or all without JSON, are unanswered."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Vulnerabilities({}, pinned, 0)
    known = {
        f"{each['name']} {each['version']}": [found["id"] for found in each["vulns"]]
        for each in packages
        if each.get("vulns")
    }
    unanswered = [each["name"] for each in packages if "skip_reason" in each]
    return Vulnerabilities(known, unanswered, len(packages) - len(unanswered))


def ask_for_vulnerabilities() -> Vulnerabilities:
    """Run pip-audit on the pinned releases."""
    pinned = re.findall(r"^([\w.-]+)==", PINNED.read_text(encoding="utf-8"), re.MULTILINE)
    command = [sys.executable, "-m", "pip_audit", "-r", str(PINNED), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    return read_vulnerabilities(answer.stdout, pinned)


def main() -> None:
    """Print both checks; exit with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strict", action="store_true", help="fail if the service is silent")
    strict: bool = parser.parse_args().strict
    rules = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    licences = check_licences(installed_licences(), rules)
    print(f"licences: {licences.allowed} packages allowed, {len(licences.excepted)} exceptions")
    for package, licence in licences.refused.items():
        print(f"licences: {package} has {licence!r}: allow it, or give a reason, in {ALLOWED.name}")
    found = ask_for_vulnerabilities()
    print(f"vulnerabilities: {found.checked} releases checked, {len(found.known)} affected")
    for release, names in found.known.items():
        print(f"vulnerabilities: {release}: {', '.join(names)}")
    if found.unanswered:
        print(f"vulnerabilities: no answer for {len(found.unanswered)} releases: not checked")
    sys.exit(bool(licences.refused or found.known or (strict and found.unanswered)))


if __name__ == "__main__":
    main()
