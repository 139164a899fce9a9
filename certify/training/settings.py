"""Types of the objectives' settings, with what is legal for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Linf = Literal["linf"]
"""Boxes are what interval bounds are of: no other norm."""

Radius = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
