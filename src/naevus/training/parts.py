"""Own parts: code outside naevus that a recipe names, such as ``mypackage.losses:Tversky``.

Importing such a name runs its code. Only training does so; export and reproduce, with ``--trust``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naevus.errors import ConfigError, NaevusError, RunError
from naevus.io.files import sha256, write_json
from naevus.io.formats import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from naevus.io.progress import Reporter

_INSTALL = "install its package, or put its folder on PYTHONPATH"


def import_part(name: str) -> Any:
    """Import an object by its name.

    Args:
        name: ``package.module:attribute``.

    Raises:
        ConfigError: There is no such module or attribute, or the module fails.
    """
    module, _, attribute = name.partition(":")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name}: there is no module {error.name}", _INSTALL) from error
    except Exception as error:
        raise ConfigError(
            f"{name}: importing it raised {type(error).__name__}: {error}", "correct its code"
        ) from error
    if not hasattr(found, attribute):
        raise ConfigError(f"{name}: the module has no {attribute}", "correct the name")
    return getattr(found, attribute)


def make_part(name: str, **arguments: Any) -> Callable[..., Any]:
    """Import a class or function and call it; what it returns must be callable.

    Args:
        name: ``package.module:attribute``.
        arguments: Passed to it by name.

    Raises:
        ConfigError: It cannot be imported, raises an error, or returns nothing callable.
    """
    maker = import_part(name)
    try:
        made = maker(**arguments)
    except NaevusError:
        raise
    except Exception as error:
        given = ", ".join(f"{key}=..." for key in arguments)
        raise ConfigError(
            f"{name}({given}) raised {type(error).__name__}: {error}", "correct its code"
        ) from error
    if not callable(made):
        raise ConfigError(f"{name} returned {type(made).__name__}", "return something callable")
    return made  # type: ignore[no-any-return]


def origins_of(names: Iterable[str]) -> dict[str, str]:
    """Return where each own part comes from: its package with its version, and its file's hash.

    Raises:
        ConfigError: One cannot be imported.
    """
    found = {}
    installed = packages_distributions()
    for name in names:
        import_part(name)
        module = name.partition(":")[0]
        file = getattr(sys.modules[module], "__file__", None)
        package = module.partition(".")[0]
        known = installed.get(package)
        label = f"{known[0]} {version(known[0])}" if known else package
        hashed = f", file SHA-256 {sha256(Path(file))[:16]}" if file else ""
        found[name] = f"{label}{hashed}"
    return found


def note_origins(path: Path, origins: Mapping[str, str], reporter: Reporter) -> None:
    """Record where own parts come from in a run's ``environment.json``, and report changes.

    Raises:
        RunError: The file is damaged.
    """
    if not origins:
        return
    noted = read_json(path, "train into another folder", error=RunError)
    for name in (name for name in origins if noted.get(name, origins[name]) != origins[name]):
        reporter.warning(f"{name} was {noted[name]} when the run was started", "changed")
    write_json(path, {**origins, **noted})
