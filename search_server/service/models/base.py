"""What all answers have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from search_server.service.texts import placeless

AP = Annotated[float, Field(ge=0, le=1, description="COCO box AP in [0, 1]", examples=[0.412])]
Gain = Annotated[
    float, Field(ge=-1, le=1, description="difference of two APs in [0, 1]", examples=[0.033])
]

Shown = Annotated[str, BeforeValidator(placeless)]
"""A text of the store, which may name a place of this machine: without it."""


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True)


class Health(Answer):
    """The answer of a probe."""

    status: str = Field(examples=["ok"])
