"""Texts that know their parts, so that one of them gives way where the whole is too long for a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

from credibly.errors import RecipeError, did_you_mean, listed


class PartedText(str):
    """A string to all who read, compare and show it, and beside that the place of the part that gives way.

    Args:
        text: the whole.
        start: where the part begins that is cut first.
        stop: where it ends.
        boundary: where the first text of a sentence pair ends (a line break parts it from the second); None
            where the whole is one text.

    >>> text = PartedText("What? A long story.", 6, 19)
    >>> text.shortened(6), text.sequences
    ('What? A long', ('What? A long story.',))
    """

    start: int
    stop: int
    boundary: int | None
    wider: tuple[int, int] | None

    def __new__(
        cls,
        text: str,
        start: int,
        stop: int,
        boundary: int | None = None,
        wider: tuple[int, int] | None = None,
    ) -> PartedText:
        """Return the text with the place of the part that is cut first."""
        self = super().__new__(cls, text)
        self.start, self.stop, self.boundary, self.wider = start, stop, boundary, wider
        return self

    def __getnewargs__(self) -> tuple[str, int, int, int | None, tuple[int, int] | None]:  # type: ignore[override]
        """Return what a copy or pickle is made from."""
        return str(self), self.start, self.stop, self.boundary, self.wider

    @property
    def sequences(self) -> tuple[str, ...]:
        """The text, or the two of a pair."""
        return (str(self),) if self.boundary is None else (self[: self.boundary], self[self.boundary + 1 :])

    def shortened(self, characters: int) -> PartedText:
        """Return the text with only so many characters of the part that gives way."""
        gone = self.stop - self.start - characters
        if gone <= 0:
            return self
        stop = self.stop - gone
        boundary = (
            self.boundary if self.boundary is None or self.boundary < self.stop else self.boundary - gone
        )
        wider = self.wider and (self.wider[0], self.wider[1] - gone)
        return PartedText(self[:stop] + self[self.stop :], self.start, stop, boundary, wider)

    @property
    def ways(self) -> tuple[tuple[int, int], ...]:
        """Where what gives way begins and ends, one after the other."""
        return ((self.start, self.stop), *([self.wider] if self.wider else []))

    def lies_in(self, place: tuple[int, int], sequence: int, start: int, stop: int) -> bool:
        """Return whether these characters of a sequence (0; 1 of a pair) lie within a place, from and to."""
        first = sequence and (self.boundary or 0) + 1
        return place[0] <= first + start < place[1] and first + stop <= place[1]


def parted(text: str) -> PartedText:
    """Return a text with its part that gives way: all of it, where it has none of its own."""
    return text if isinstance(text, PartedText) else PartedText(text, 0, len(text))


def on_one_line(text: str) -> PartedText:
    r"""Return a text without line breaks and needless spaces, of which the same part gives way.

    >>> line = on_one_line(PartedText("What?\nA  long\nstory. Why?", 6, 20))
    >>> line, line[line.start : line.stop]
    ('What? A long story. Why?', ' A long story.')
    """
    own = parted(text)
    start, stop = (len(" ".join(own[:place].split())) for place in (own.start, own.stop))
    return PartedText(" ".join(own.split()), start, stop)


def paired(first: str, second: str, cut_first: bool = False) -> PartedText:
    r"""Return two texts as a sentence pair, of which the second gives way, or the first.

    Of a first text that has a part which gives way, this does so before the rest.

    >>> paired("one", "two"), paired("one", "two").sequences
    ('one\ntwo', ('one', 'two'))
    """
    whole, boundary = f"{first}\n{second}", len(first)
    if not cut_first:
        return PartedText(whole, boundary + 1, len(whole), boundary)
    own = parted(first)
    return PartedText(whole, own.start, own.stop, boundary, (0, boundary))


def filled(template: str, cells: Mapping[str, str], cut: str) -> PartedText:
    """Return a template with its columns' cells, of which that of the column `cut` gives way.

    >>> filled("Is {it} so? {{sic}} {why}", {"it": "that", "why": "No."}, "why")
    'Is that so? {sic} No.'
    """
    whole, start, stop = "", 0, 0
    for words, column in pieces_of(template):
        whole += words
        cell = cells[column] if column else ""
        if column == cut:
            start, stop = len(whole), len(whole) + len(cell)
        whole += cell
    return PartedText(whole, start, stop)


def columns_of(template: str) -> list[str]:
    """Return the columns that a template names, each once, in order.

    >>> columns_of("{title}: {body} ({title})")
    ['title', 'body']

    Raises:
        RecipeError: as `pieces_of`.
    """
    return list(dict.fromkeys(column for _, column in pieces_of(template) if column))


@lru_cache
def pieces_of(template: str) -> tuple[tuple[str, str], ...]:
    """Return a template's words, each with the column behind them; an empty name behind the last.

    Raises:
        RecipeError: a brace stands alone, a field is more than a plain name, or there is no field.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"{error}; write {{{{ and }}}} for braces that name no column") from None
    for _, name, form, conversion in parsed:
        if name is not None and (form or conversion or not _is_plain(name)):
            field = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise RecipeError(f"expected plain column names in braces, such as {{text}}, got '{{{field}}}'")
    pieces = tuple((words, name or "") for words, name, _, _ in parsed)
    if not any(name for _, name in pieces):
        raise RecipeError(f"expected a column in braces, such as {{text}}, got none in '{template}'")
    return pieces


def check_cut(template: str | None, columns: list[str], cut: str) -> None:
    """Raise RecipeError where no text column of this name can be cut: it must stand once in a template."""
    if cut not in columns:
        raise RecipeError(
            f"expected one of the text columns ({listed(columns, 20)}), "
            f"got '{cut}'{did_you_mean(cut, columns)}"
        )
    if template and [column for _, column in pieces_of(template)].count(cut) > 1:
        raise RecipeError(
            f"'{cut}' is what is cut of texts that are too long, and the template names it more than once; "
            "name it once, or another column as data.cut"
        )


def _is_plain(name: str) -> bool:
    return bool(name) and name == name.strip() and not name.isdigit() and not set(name) & set(".[]")
