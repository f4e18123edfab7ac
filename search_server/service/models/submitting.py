"""What is sent to submit a search, and what is answered to who only asks whether it could be."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from search_server.service.models.base import Answer

EXAMPLE: dict[str, Any] = {
    "name": "digits-atss",
    "detector": "digits/atss",
    "data": "digits",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "funnel": {"proxy": {"steps": 200, "seeds": [0]}},
    "limits": {"steps": 4800},
}


class SpecBody(BaseModel):
    """A job spec as JSON; as YAML it is sent by itself, as `application/yaml`."""

    model_config = ConfigDict(extra="forbid")

    spec: dict[str, Any] = Field(
        description="fields of a job spec; `detector` and `data` are names that the service has",
        examples=[EXAMPLE],
    )


class Checked(Answer):
    """A spec that could be submitted."""

    name: str
    candidates: int = Field(ge=1, description="that the search makes at most")
    spec: dict[str, Any] = Field(description="the spec with all that it left out")
