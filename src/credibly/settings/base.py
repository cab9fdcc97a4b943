"""What all blocks of the recipe share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Limited = Literal["train", "validation", "calibration", "test", "unlabelled"]


class Settings(BaseModel):
    """Base of every block of the recipe: frozen, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)
