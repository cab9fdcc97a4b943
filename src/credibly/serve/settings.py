"""What the service is given: how it answers, and how much it takes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from credibly.errors import InputError, listed

Given = str | Mapping[str, str]
"""A text, or a row with the columns that make one."""

Row = dict[str, Any]
"""One text's answer, as `credibly predict` prints it."""

Opinion = dict[str, float]
"""One member's probabilities by class."""


@dataclass(frozen=True)
class Answering:
    """What answers: functions that are called from one thread at a time, with texts of several requests.

    Args:
        name: the system, for example "student+temperature".
        classes: C names.
        predict: N texts to N rows.
        columns: those that make a text, where the model reads several together; else texts are strings.
        opinions: N texts to what each member says of each; None where there are no members.
        promise: what is promised of the answers, in words; None where nothing is.
        unfamiliar: epistemic uncertainties from which on a text is called somewhat unfamiliar, and
            unfamiliar; None where it is not known what is usual.
    """

    name: str
    classes: tuple[str, ...]
    predict: Callable[[Sequence[Given]], list[Row]]
    columns: tuple[str, ...] = ()
    opinions: Callable[[Sequence[Given]], list[list[Opinion]]] | None = None
    promise: str | None = None
    unfamiliar: tuple[float, float] | None = None


@dataclass(frozen=True)
class ServiceSettings:
    """How much is taken on, and how fast.

    Args:
        token: what callers must show as ``Authorization: Bearer TOKEN``; None where anyone may ask.
        max_batch: texts that the model is given at once.
        max_delay_ms: how long an idle model waits for further texts to answer together.
        max_queue: texts that may wait; beyond it requests are refused with 429.
        max_texts: texts in a request.
        max_characters: characters in a text, or in a cell of a row.
        max_body_bytes: bytes in a request's body.
        max_held_bytes: bytes of all bodies that are held at once; beyond it requests are refused with 429.
        max_connections: connections that are answered.
        patience_seconds: how long a client may take to send a request, or to read an answer.
        stop_seconds: how long accepted requests are waited for when the service stops.

    Raises:
        InputError: a value is out of range, or a request may be larger than what may wait.
    """

    token: str | None = field(default=None, repr=False)
    max_batch: int = 128
    max_delay_ms: float = 3.0
    max_queue: int = 4096
    max_texts: int = 1000
    max_characters: int = 100_000
    max_body_bytes: int = 4 * 2**20
    max_held_bytes: int = 64 * 2**20
    max_connections: int = 512
    patience_seconds: float = 20.0
    stop_seconds: float = 30.0

    def __post_init__(self) -> None:
        wrong = [item.name for item in fields(self) if not self._in_range(item.name)]
        if wrong:
            values = (f"{name} {getattr(self, name)}" for name in wrong)
            raise InputError(f"expected values above zero, got {listed(values)}")
        for whole, part in (("max_queue", "max_texts"), ("max_held_bytes", "max_body_bytes")):
            if getattr(self, whole) < getattr(self, part):
                raise InputError(
                    f"expected {whole} to be at least {part}, so that the largest request can be answered, "
                    f"got {getattr(self, whole)} and {getattr(self, part)}"
                )
        if self.token is not None:
            check_token(self.token)

    def _in_range(self, name: str) -> bool:
        value = getattr(self, name)
        return name == "token" or (value >= 0 if name == "max_delay_ms" else value > 0)


SHORTEST_TOKEN = 16


def check_token(token: str) -> str:
    """Return a token, or raise InputError where it can be guessed or does not fit into a header."""
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            f"expected a token of {SHORTEST_TOKEN} or more ASCII characters without spaces, got "
            f"{len(token)} characters; make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token
