"""What the service answers, as OpenAPI describes it; the answers themselves are written without these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class TextAnswer(BaseModel):
    """The answer to one text; uncertainties in nats, probabilities by class name."""

    id: str | None = Field(description="as given with the text")
    label: str | None = Field(description="the most probable class; null where the text is not answered")
    probability: float = Field(description="of the most probable class")
    probabilities: dict[str, float]
    total: float = Field(description="entropy of the prediction")
    aleatoric: float = Field(description="the part that lies in the text: it is ambiguous")
    epistemic: float = Field(description="the part that lies in the model: the text is unfamiliar")
    answered: bool | None = Field(None, description="where the service may abstain")
    reason: Literal["ambiguous", "unfamiliar"] | None = Field(None, description="why it abstained")
    set: list[str] | None = Field(None, description="classes of which one is right as often as promised")
    members: list[dict[str, float]] | None = Field(None, description="each member's probabilities, if asked")


class Answers(BaseModel):
    """The answers to a request, in the order of its texts."""

    system: str
    answers: list[TextAnswer]


class About(BaseModel):
    """What answers here, and how much it takes on."""

    system: str
    classes: list[str]
    columns: list[str] = Field(description="those that make a text; empty where texts are strings")
    members: bool = Field(description="whether the members' opinions can be asked for")
    promise: str | None
    unfamiliar: list[float] | None = Field(
        description="epistemic uncertainty above which a text is somewhat unfamiliar, and unfamiliar"
    )
    max_texts: int
    max_characters: int
    max_body_bytes: int
    version: str


class State(BaseModel):
    """How the service is."""

    status: str


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


WHY = {
    400: "The body is not JSON.",
    401: "The token is missing or wrong.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "The JSON does not say what is expected.",
    429: "Too much waits already; the header Retry-After says when to ask again.",
    500: "The model failed.",
    503: "The service stops.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how these refusals are described."""
    return {status: {"model": Problem, "description": WHY[status]} for status in statuses}
