"""What all parts of ``bundle.json`` have in common, and the words several of them use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["segmentation", "classification"]
Precision = Literal["fp32", "fp16", "int8"]
"""How the numbers of a graph are stored; int8 graphs also compute in it."""
Computed = Literal["f32", "bf16"]
"""What an engine computes in, but for what a graph itself computes in 8 bits."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
