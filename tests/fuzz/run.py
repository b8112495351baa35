"""Fuzz one target with atheris, from its seeds and the kept findings.

    python -m tests.fuzz.run images --seconds 600

An input that crashes, takes over 5 seconds or over 2 GB is written to ``tests/data/fuzz/TARGET``,
where `tests/integration/test_fuzz_findings.py` reads it in every later run of the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

from tests.helpers import ROOT


def main() -> None:
    """Fuzz until the time is over or something is found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=["images", "tables", "bundles", "layouts"])
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    with atheris.instrument_imports(include=["naevus"]):
        from tests.fuzz import targets
    findings = ROOT / "tests" / "data" / "fuzz" / options.target
    findings.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix=f"corpus-{options.target}-"))
    for number, seed in enumerate(targets.seeds(options.target)):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    os.environ["XDG_CACHE_HOME"] = str(corpus / ".cache")  # unpacked bundles
    settings = {
        "max_total_time": options.seconds,
        "timeout": 5,
        "rss_limit_mb": 2048,
        "max_len": 65_536,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    flags = [f"-{name}={value}" for name, value in settings.items()]

    def one(content: bytes) -> None:
        try:
            targets.run(options.target, content)
        except BaseException:
            # libFuzzer does the same, but may be stopped by its own alarm before it has.
            name = hashlib.sha256(content).hexdigest()[:16]
            (findings / f"crash-{name}").write_bytes(content)
            raise

    atheris.Setup([sys.argv[0], *flags, str(corpus), str(findings)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
