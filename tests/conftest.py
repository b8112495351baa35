"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from naevus.datasets.synthetic import write_isic2018
from tests.helpers import ROOT

# Tests write nothing to the user's cache of compiled networks; tests of the cache turn it on.
os.environ["NAEVUS_CACHE"] = "off"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also where a test imports ONNX Runtime itself
os.environ.pop("COLUMNS", None)  # commands print as into a pipe, whoever runs the tests

# A busy machine is not a failure.
settings.register_profile("naevus", deadline=None)
settings.load_profile("naevus")

_SHARED = Path(os.environ.get("NAEVUS_SHARED", ROOT.parent / "shared"))
_DATA = ROOT / "tests" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in ``tests/integration``."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "integration"):
            item.add_marker("integration")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real dermoscopic images; the test is skipped if it is absent."""
    folder = _SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real images are not here (shared/data beside the checkout is absent)")
    return folder


@pytest.fixture(scope="session")
def shared_field() -> Path:
    """Files from cameras and phones; the test is skipped if they are absent."""
    folder = _SHARED / "field"
    if not folder.is_dir():
        pytest.skip("files of real cameras are not here (shared/field is absent)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The official ISIC scorer's inputs and results, see ``tests/data/README.md``."""
    return _DATA / "golden"


@pytest.fixture(scope="session")
def layout_examples() -> Path:
    """The tables of public data sets, with made-up rows, one folder each."""
    return _DATA / "layouts"


@pytest.fixture(scope="session")
def synthetic_images() -> Path:
    """The committed synthetic data set: 40 images of 160 px in the ISIC 2018 layout."""
    return _DATA / "ISIC2018"


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set in the ISIC 2018 layout: Tasks 1 and 3."""
    root = tmp_path_factory.mktemp("drawn") / "ISIC2018"
    write_isic2018(root, images=100, seed=7, size=64)
    return root
