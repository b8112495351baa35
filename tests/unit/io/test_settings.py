"""Settings: their differences, and in words which values they take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from naevus.io.settings import differences, toml_value, type_words, values_of
from naevus.runs.recipe import load_recipe


def test_differing_settings_are_named_with_both_values() -> None:
    recipe = load_recipe(None, "segmentation", {"network.decoder": {"channels": [4, 8]}})
    other = {"epochs": 12, "optimiser.clip": 0, "network.decoder": {"channels": [4]}, "seed": 1}
    settings = load_recipe(None, "segmentation", other).settings()
    assert differences(recipe.settings(), recipe.settings()) == ""
    assert differences(recipe.settings(), settings) == (
        "seed is 2018 there, not 1, epochs is 9 there, not 12, "
        "network.decoder.channels is [4, 8] there, not [4] and 1 more"
    )
    assert differences({"a": 1}, {"b": None, "a": 1}) == ""


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true, false"),
        (Literal["a", "b"], "`a`, `b`"),
        (tuple[int, ...], "list of whole number"),
        (tuple[int, float], "[whole number, number]"),
        (dict[str, int], "table"),
        (str | None, "text or nothing"),
        (Annotated[float, "more"], "number"),
    ],
)
def test_types_are_put_in_words(annotation: Any, words: str) -> None:
    assert type_words(annotation) == words


class Settings(BaseModel):
    """Settings with limits and choices."""

    rate: float = Field(default=0.5, gt=0, le=1)
    terms: tuple[str, ...] = Field(default=(), json_schema_extra={"choices": ["a", "MODULE:NAME"]})


def test_limits_and_choices_are_named() -> None:
    found = [values_of(field) for field in Settings.model_fields.values()]
    assert found == ["number (> 0, ≤ 1)", "list of `a`, `MODULE:NAME`"]


def test_values_are_toml() -> None:
    value = {"a b": [1, True, "x"], "c": {"d": 0.5}}
    assert toml_value(value) == '{"a b" = [1, true, "x"], c = {d = 0.5}}'
