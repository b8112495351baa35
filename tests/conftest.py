"""Fixtures every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from naevus.datasets.synthetic import write_isic2018

# Tests leave nothing in the user's cache of compiled networks; those about it turn it on.
os.environ["NAEVUS_CACHE"] = "off"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also where a test imports ONNX Runtime itself
os.environ.pop("COLUMNS", None)  # commands print as into a pipe, whoever runs the tests

# A busy machine is no failure.
settings.register_profile("naevus", deadline=None)
settings.load_profile("naevus")

_SHARED = Path(os.environ.get("NAEVUS_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real pictures; the test is skipped where it is absent."""
    folder = _SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"real pictures are not here ({folder.name} beside the checkout is absent)")
    return folder


@pytest.fixture(scope="session")
def shared_field() -> Path:
    """Files as people have them; the test is skipped where they are absent."""
    folder = _SHARED / "field"
    if not folder.is_dir():
        pytest.skip("files as people have them are not here (shared/field is absent)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The official scorer's answers; the test is skipped where they are absent."""
    folder = _SHARED / "golden" / "isic-challenge-scoring"
    if not folder.is_dir():
        pytest.skip("the golden cases are not here (shared/golden beside the checkout is absent)")
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set in the ISIC 2018 layout: Tasks 1 and 3."""
    root = tmp_path_factory.mktemp("drawn") / "ISIC2018"
    write_isic2018(root, pictures=100, seed=7, size=64)
    return root
