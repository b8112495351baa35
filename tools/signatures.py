"""The signatures of a module's public names as Python stubs, each with its first line."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHORT: Final = 60
"""Characters of a constant's value that are shown."""
_DECORATORS: Final = {
    *("property", "cached_property", "classmethod", "staticmethod", "overload", "contextmanager"),
    "dataclass",
}
"""The decorators that say how something is called."""
_CONSTRUCTED: Final = {"__init__", "__call__"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def stubs(things: Iterable[Any], module: str) -> str:
    """Return the stubs of classes and functions, and of a module's constants that are documented.

    Args:
        things: The classes and functions.
        module: The module's name.
    """
    parts = [*_constants(module)]
    for thing in things:
        node = next(
            each
            for each in _tree(thing.__module__).body
            if getattr(each, "name", "") == thing.__name__
        )
        parts.append(ast.unparse(_stub(node)))
    return _formatted("\n\n".join(parts))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))


def _constants(module: str) -> Iterator[str]:
    """Yield the public constants of a module that a text follows."""
    body = _tree(module).body
    for node, text in pairwise(body):
        if not (isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_text(text)):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name) or target.id.startswith("_"):
            continue
        value = "" if node.value is None else ast.unparse(node.value)
        kind = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
        shown = value if len(value) <= _SHORT else "..."
        yield f"{target.id}{kind}{f' = {shown}' if shown else ''}\n{_quoted(text)}"


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _quoted(node: ast.stmt) -> str:
    """Return the first line of a text in triple quotes."""
    assert isinstance(node, ast.Expr)
    assert isinstance(node.value, ast.Constant)
    return f'"""{_first(str(node.value.value))}"""'


def _first(text: str) -> str:
    return inspect.cleandoc(text).partition("\n")[0]


def _stub(node: ast.stmt) -> ast.stmt:
    assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    text = ast.get_docstring(node)
    shown: list[ast.stmt] = [] if text is None else [ast.Expr(ast.Constant(_first(text)))]
    if isinstance(node, ast.ClassDef):
        shown += [each for part in node.body for each in _member(part)]
        decorators = _calling(node.decorator_list)
        kept: Any = ast.ClassDef(node.name, node.bases, node.keywords, shown, decorators)
    else:
        kept = _bare(node, shown)
    if not kept.body:
        kept.body.append(ast.Expr(ast.Constant(...)))
    whole: ast.stmt = ast.fix_missing_locations(kept)
    return whole


def _bare(node: _Function, body: list[ast.stmt]) -> Any:
    return type(node)(
        name=node.name,
        args=node.args,
        body=body,
        decorator_list=_calling(node.decorator_list),
        returns=node.returns,
    )


def _calling(decorators: list[ast.expr]) -> list[ast.expr]:
    return [each for each in decorators if ast.unparse(each).partition("(")[0] in _DECORATORS]


def _member(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yield what is public of a class's member: fields and methods."""
    if isinstance(node, _Function):
        if node.name in _CONSTRUCTED or not node.name.startswith("_"):
            yield _stub(node)
    elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
        value = node.value
        if value is not None and len(ast.unparse(value)) > _SHORT:
            value = ast.Constant(...)
        yield ast.AnnAssign(node.target, node.annotation, value, simple=1)


def _formatted(code: str) -> str:
    """Return code as ruff formats it, in pages too."""
    words = (sys.executable, "-m", "ruff", "format", "--stdin-filename", "shown.py", "-")
    done = subprocess.run(words, check=True, input=code, capture_output=True, text=True)
    return done.stdout.strip()
