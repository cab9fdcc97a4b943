"""What a request may say: read from hostile bytes by one pass, and described for OpenAPI beside it.

The body is checked by hand rather than by a model of pydantic, which notes every problem of a body that is
wrong a million times over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from credibly.errors import did_you_mean, listed
from credibly.serve.batching import Asked
from credibly.serve.settings import Given, ServiceSettings

KEYS = ("texts", "members")
LONGEST_ID = 200
KINDS = {str: "text", int: "number", float: "number", bool: "boolean", list: "list", dict: "object"}


class RefusedError(Exception):
    """A request that cannot be answered.

    Args:
        status: of the answer.
        detail: what was expected, and what came.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Question:
    """A request for answers.

    Args:
        texts: what is to be answered.
        ids: each text's, None where it has none.
    """

    texts: tuple[Asked, ...]
    ids: tuple[str | None, ...]


@dataclass(frozen=True)
class Form:
    """How a request for answers looks.

    Args:
        columns: those that make a text, where the model reads several together.
        settings: limits.
    """

    columns: tuple[str, ...]
    settings: ServiceSettings

    def read(self, body: bytes) -> Question:
        """Return what a body asks.

        Raises:
            RefusedError: it is no JSON (400), or does not say what is expected (422).
        """
        content = parsed(body)
        if not isinstance(content, dict):
            raise RefusedError(422, f'expected an object such as {{"texts": ["..."]}}, got {kind(content)}')
        check_keys(content, KEYS, "the request")
        items, members = content.get("texts"), content.get("members", False)
        if not isinstance(members, bool):
            raise RefusedError(422, f"members: expected true or false, got {kind(members)}")
        pairs = [self._item(item, f"texts[{place}]") for place, item in enumerate(self._items(items))]
        return Question(tuple(Asked(text, members) for _, text in pairs), tuple(name for name, _ in pairs))

    def _items(self, items: object) -> Sequence[object]:
        if isinstance(items, str):
            return [items]
        if not isinstance(items, list):
            raise RefusedError(422, f"texts: expected a text or a list of texts, got {kind(items)}")
        if not 0 < len(items) <= self.settings.max_texts:
            raise RefusedError(422, f"texts: expected 1 to {self.settings.max_texts} texts, got {len(items)}")
        return items

    def _item(self, item: object, where: str) -> tuple[str | None, Given]:
        """Return a text's id and the text."""
        if isinstance(item, str) and not self.columns:
            return None, self._text(item, where)
        if not isinstance(item, dict):
            raise RefusedError(422, f"{where}: expected {self._expected()}, got {kind(item)}")
        names = self.columns or ("text",)
        check_keys(item, ("id", *names), where)
        name = item.get("id")
        if name is not None and not (isinstance(name, str) and len(name) <= LONGEST_ID):
            raise RefusedError(
                422, f"{where}.id: expected a text of up to {LONGEST_ID} characters, got {kind(name)}"
            )
        if not self.columns:
            return name, self._text(item.get("text"), f"{where}.text")
        return name, self._row(item, where)

    def _row(self, item: Mapping[str, object], where: str) -> dict[str, str]:
        cells = {name: self._cell(item.get(name), f"{where}.{name}") for name in self.columns}
        if not any(cell.strip() for cell in cells.values()):
            raise RefusedError(422, f"{where}: expected text in one column or more, all are empty")
        return cells

    def _text(self, value: object, where: str) -> str:
        text = self._cell(value, where)
        if not text.strip():
            raise RefusedError(422, f"{where}: expected a text, got an empty one")
        return text

    def _cell(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            raise RefusedError(422, f"{where}: expected a text, got {kind(value)}")
        if len(value) > self.settings.max_characters:
            raise RefusedError(
                422,
                f"{where}: expected at most {self.settings.max_characters} characters, got {len(value)}; "
                "the model reads the beginning alone",
            )
        return value

    def _expected(self) -> str:
        return f"an object with {listed(map(repr, self.columns), 20)}" if self.columns else "a text"

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a body that `read` takes."""
        cell = {"type": "string", "maxLength": self.settings.max_characters}
        text = {**cell, "minLength": 1, "pattern": r"\S"}
        name = {"type": ["string", "null"], "maxLength": LONGEST_ID}
        parts = dict.fromkeys(self.columns, cell) or {"text": text}
        row: dict[str, Any] = {
            "type": "object",
            "properties": {"id": name, **parts},
            "required": list(parts),
            "additionalProperties": False,
        }
        if self.columns:
            filled = {"type": "string", "pattern": r"\S"}
            row["anyOf"] = [{"properties": {column: filled}} for column in self.columns]
        item = row if self.columns else {"anyOf": [text, row]}
        many = {"type": "array", "items": item, "minItems": 1, "maxItems": self.settings.max_texts}
        return {
            "type": "object",
            "properties": {
                "texts": many if self.columns else {"anyOf": [text, many]},
                "members": {"type": "boolean", "default": False},
            },
            "required": ["texts"],
            "additionalProperties": False,
        }


def parsed(body: bytes) -> Any:
    """Return what JSON says; RefusedError (400) where it is none."""
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise RefusedError(400, f"expected JSON in UTF-8: {error!s:.200}") from None


def check_keys(given: Mapping[str, object], known: Sequence[str], where: str) -> None:
    """Raise RefusedError (422) that names a key which is not known."""
    unknown = next((key for key in given if key not in known), None)
    if unknown is not None:
        raise RefusedError(
            422,
            f"{where}: '{unknown:.40}' is not known{did_you_mean(unknown[:40], known)}; "
            f"expected {listed(known, 20)}",
        )


def kind(value: object) -> str:
    """Return what a value of JSON is called in messages.

    >>> kind(None), kind(True), kind([1])
    ('nothing', 'a boolean', 'a list')
    """
    name = KINDS.get(type(value))
    if name is None:
        return "nothing"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
