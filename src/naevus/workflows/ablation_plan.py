"""The plan of an ablation in TOML: its arms, and the recipe of each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from naevus.errors import ConfigError, reason
from naevus.io.settings import read_toml
from naevus.runs.recipe import Recipe, load_recipe
from naevus.runs.recipe_tables import Section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
BUDGET = ("epochs", "batch_size", "sizes", "seed", "early_stopping", "precision", "data.limit")
"""Settings that are the same for all arms."""


class ArmPlan(Section):
    """One arm: a trained network, another use of a trained network, or an ensemble.

    ``set`` changes settings of the recipe by dotted names. ``of`` uses another arm's network with
    ``tta`` or ``decision``. ``mean`` averages the logits of other arms.
    """

    about: str
    set: dict[str, Any] = Field(default_factory=dict)
    detail_of: str | None = Field(
        default=None, description="An arm with crops, whose median resolution limits this arm's."
    )
    of: str | None = None
    tta: Literal["none", "half-turn", "flips", "d4"] = "none"
    decision: Literal["balanced", "raw", "natural"] = "balanced"
    mean: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        trained = bool(self.set) or self.detail_of is not None
        if trained + (self.of is not None) + bool(self.mean) > 1:
            raise ValueError("an arm either trains, uses another arm (of) or is a mean")
        if self.of is None and (self.tta, self.decision) != ("none", "balanced"):
            raise ValueError("tta and decision need `of`: the arm whose network predicts")
        if len(self.mean) == 1:
            raise ValueError("a mean needs two or more arms")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The arms that this arm depends on."""
        return (*self.mean, *([self.of] if self.of else []))

    @property
    def trained(self) -> bool:
        """Whether it trains its own network."""
        return not self.needs


class AblationPlan(Section):
    """A title, a recipe, settings common to all arms, and the arms, one of them the reference."""

    title: str
    recipe: str
    reference: str
    settings: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, ArmPlan]

    @model_validator(mode="after")
    def _names_are_arms(self) -> Self:
        for name, arm in self.arms.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: use lower-case letters, digits and hyphens")
            for other in (*arm.needs, *([arm.detail_of] if arm.detail_of else [])):
                if other not in self.arms or not self.arms[other].trained:
                    raise ValueError(f"{name} depends on {other}, which is not a trained arm")
            if budget := sorted(set(arm.set) & set(BUDGET)):
                raise ValueError(f"{name} cannot set {budget[0]}: all arms have the same budget")
        if self.reference not in self.arms or not self.arms[self.reference].trained:
            raise ValueError(f"the reference {self.reference} is not a trained arm")
        return self

    def shown(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the reference and these arms in the plan's order; no names mean all.

        Raises:
            ConfigError: There is no such arm.
        """
        if unknown := sorted(set(names) - set(self.arms)):
            raise ConfigError(f"no arm is called {unknown[0]}", f"there are {', '.join(self.arms)}")
        return tuple(n for n in self.arms if not names or n in names or n == self.reference)

    def to_train(self, shown: tuple[str, ...]) -> tuple[str, ...]:
        """Return the arms that must be trained for these to be shown, in the plan's order."""
        needed = {one for name in shown for one in (self.arms[name].needs or (name,))}
        return tuple(name for name in self.arms if name in needed)


def load_plan(path: Path) -> AblationPlan:
    """Read a plan.

    Raises:
        ConfigError: The file is unreadable, not TOML or not a plan.
    """
    try:
        settings = read_toml(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read", "name an existing plan") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML ({error})", "correct the file") from error
    try:
        return AblationPlan.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        names = {name: name for name in (*AblationPlan.model_fields, *ArmPlan.model_fields)}
        raise ConfigError(
            f"{path}: {where + ': ' if where else ''}{reason(first, names)}",
            "see recipes/ablations for an example",
        ) from error


def recipes(
    plan: AblationPlan, folder: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, Recipe]:
    """Return the resolved recipe of each arm that trains.

    Args:
        plan: The plan.
        folder: The plan's folder, to which the path of its recipe is relative.
        overrides: Settings of all arms; those of an arm take precedence.

    Raises:
        ConfigError: The recipe is unreadable or not for classification, or a setting is unknown.
    """
    shared = {**plan.settings, **(overrides or {})}
    return {
        name: load_recipe(folder / plan.recipe, "classification", {**shared, **arm.set})
        for name, arm in plan.arms.items()
        if arm.trained
    }
