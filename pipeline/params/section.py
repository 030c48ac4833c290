"""What every section of params is made of: strict frozen models, and the small types that keys share. No section stands here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Policy = Literal["off", "warn", "drop", "block"]
"""What becomes of rows that a rule finds: none is looked for; they are counted and listed; they are left out; the run ends."""


class Section(BaseModel):
    # Strict: "1e-4" is a string in YAML 1.1 and must be reported, not guessed at; an int where a float is due is fine.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
