"""Settings: their values as TOML, their differences, and in words which values they take."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from naevus.errors import ConfigError
from naevus.io.limits import SETTINGS, read_limited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pydantic.fields import FieldInfo

_SHOWN = 3
"""Number of differing settings that a message names."""
_SIGNS = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
_TYPE_WORDS = {bool: "true, false", float: "number", int: "whole number", str: "text"}


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Check that an option is one of its choices; nothing else checks what Python passes.

    Raises:
        ConfigError: It is none of them.

    Examples:
        >>> check_choice("engine", "Openvino", ("openvino", "onnxruntime"))
        Traceback (most recent call last):
        naevus.errors.ConfigError: unknown engine 'Openvino'; use one of openvino, onnxruntime
    """
    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"unknown {option} {value!r}", f"use one of {', '.join(known)}")


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and value of a setting; values are TOML, bare words are strings."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: has no value", "write NAME=VALUE")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def toml_value(value: Any) -> str:
    """Return a value that JSON can hold as TOML, on one line."""
    if isinstance(value, dict):
        items = (f"{_key(name)} = {toml_value(item)}" for name, item in value.items())
        return "{" + ", ".join(items) + "}"
    # JSON's strings and lists are valid TOML, except for surrogate pairs and U+007F.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which settings differ, such as ``epochs is 9, not 12``; empty if none does.

    Args:
        there: The settings of a run, with tables of them.
        now: The settings that are asked for.
    """
    found = []
    for name, ours, theirs in _pairs(there, now):
        if ours != theirs:
            found.append(f"{name} is {toml_value(ours)} there, not {toml_value(theirs)}")
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def names_of_differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ, those in tables by dots."""
    return [name for name, ours, theirs in _pairs(there, now) if ours != theirs]


def _pairs(there: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in {**there, **now}:
        ours, theirs = there.get(name), now.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() & theirs.keys():
            yield from ((f"{name}.{key}", *rest) for key, *rest in _pairs(ours, theirs))
        else:
            yield name, ours, theirs


def values_of(field: FieldInfo) -> str:
    """Return in words which values a field of a pydantic model takes, choices in backticks.

    Examples:
        >>> from pydantic import BaseModel, Field
        >>> class Settings(BaseModel):
        ...     epochs: int = Field(default=9, ge=1)
        ...     select: Literal["last", "best"] = "last"
        >>> [values_of(field) for field in Settings.model_fields.values()]
        ['whole number (≥ 1)', '`last`, `best`']
    """
    extra = field.json_schema_extra
    named = extra.get("choices") if isinstance(extra, dict) else None
    if isinstance(named, list):
        choices = ", ".join(f"`{choice}`" for choice in named)
        return f"list of {choices}" if get_origin(field.annotation) is tuple else choices
    limits = [
        f"{sign} {getattr(limit, kind.lower())}"
        for limit in field.metadata
        for kind, sign in _SIGNS.items()
        if type(limit).__name__ == kind
    ]
    words = type_words(field.annotation)
    return " ".join([words, *([f"({', '.join(limits)})"] if limits else [])])


def type_words(annotation: Any) -> str:
    """Return a type as a reader of TOML or JSON understands it."""
    if get_origin(annotation) is Annotated:
        return type_words(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    inner = [type_words(each) for each in get_args(annotation) if each is not Ellipsis]
    origin = get_origin(annotation)
    if origin is dict:
        return "table"
    if origin is tuple:
        endless = Ellipsis in get_args(annotation)
        return f"list of {inner[0]}" if endless else f"[{', '.join(inner)}]"
    if inner:  # a union
        return " or ".join("nothing" if each == "NoneType" else each for each in inner)
    return _TYPE_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not TOML, is not in UTF-8, or is too large.
    """
    try:
        return tomllib.loads(read_limited(path, SETTINGS).decode().replace("\r\n", "\n"))
    except RecursionError:
        raise ValueError("too many brackets inside one another") from None
