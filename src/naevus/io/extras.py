"""The extras: the optional packages of each, which are missing here, and how to install them."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from naevus.errors import NaevusError

EXTRAS: Final = {
    "evaluate": ("sklearn",),
    "report": ("matplotlib", "sklearn"),
    "train": (
        "torch",
        "torchvision",
        "timm",
        "segmentation_models_pytorch",
        "lightning_fabric",
        "onnx",
        "onnxscript",
        "safetensors",
        "sklearn",
    ),
    "ray": ("ray",),
    "excel": ("openpyxl",),
    "heif": ("pi_heif",),
    "onnxruntime": ("onnxruntime",),
    "quantise": ("nncf", "onnxruntime"),
    "tracking": ("tensorboard",),
    "mlflow": ("mlflow", "alembic", "sqlalchemy"),
}
"""The import names of the packages in each extra."""

_PACKAGE: Final = Path(__file__).parents[1]
"""The folder of the package ``naevus``."""


def missing(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed; imports none of them."""
    return [name for name in EXTRAS[extra] if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def require(extra: str, what: str) -> None:
    """Check that the packages of an extra are installed, without the time of importing them.

    Args:
        extra: The extra.
        what: What needs it, for the message.

    Raises:
        NaevusError: A package is missing.
    """
    absent = missing(extra)
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        raise NaevusError(
            f"{what} needs {', '.join(absent)}, which {verb} not installed", how_to_install(extra)
        )


def how_to_install(extra: str) -> str:
    """Return the remedy for a missing extra, such as ``run pip install -e '.[train]'``.

    It names what naevus was installed from, since that need not be on a package index: a checkout,
    or the folder or wheel that pip noted.
    """
    root = _PACKAGE.parents[1]
    if _PACKAGE.parent.name == "src" and (root / "pyproject.toml").is_file():
        return f"run pip install -e {_with_extra(root, extra)}"
    origin = _installed_from()
    place = shlex.quote(f"naevus[{extra}]") if origin is None else _with_extra(origin, extra)
    return f"run pip install {place}"


def _with_extra(origin: Path, extra: str) -> str:
    try:
        here = Path.cwd() == origin
    except FileNotFoundError:
        here = False
    return shlex.quote(f"{'.' if here else origin}[{extra}]")


def _installed_from() -> Path | None:
    """Return the local folder or archive that pip installed naevus from; None if there is none."""
    # Imported for this message alone.
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415
    from urllib.parse import urlsplit  # noqa: PLC0415
    from urllib.request import url2pathname  # noqa: PLC0415

    try:
        noted = distribution("naevus").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    if noted is None:
        return None
    url = urlsplit(json.loads(noted)["url"])
    path = Path(url2pathname(url.path))
    return path if url.scheme == "file" and path.exists() else None
