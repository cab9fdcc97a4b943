"""The texts of prompts: templates over class names and a line of description, and examples in some order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from credibly.backbones.prompted import Frame
from credibly.errors import RecipeError, did_you_mean, listed
from credibly.parted import pieces_of

DEFAULT_DESCRIPTION = "category of a text"
ARTICLES = ("a ", "an ", "the ", "each ", "this ")
GAP = "\n\n"
"""Between the parts of a prompt."""
PLACE = "TEXT" * 8
"""Stands for the text while a chat template is filled."""


@dataclass(frozen=True)
class Task:
    """What is asked of a text.

    Args:
        words: C words, which say the classes.
        description: one line, best as WHAT of WHICH TEXT: "sentiment of a film review".
    """

    words: tuple[str, ...]
    description: str

    @property
    def cells(self) -> dict[str, str]:
        """What a template can name beside the text.

        >>> Task(("bad", "good"), "the sentiment of a film review").cells["Thing"]
        'Film review'
        """
        first, _, second = self.description.partition(" of ")
        what, thing = bare(first), bare(second) or "text"
        classes = f"{', '.join(self.words[:-1])} or {self.words[-1]}"
        return {
            "what": what, "What": what[:1].upper() + what[1:],
            "thing": thing, "Thing": thing[:1].upper() + thing[1:],
            "classes": classes, "description": self.description,
        }  # fmt: skip


def bare(phrase: str) -> str:
    """Return a phrase without an article and a full stop.

    >>> bare("The sentiment"), bare("a film review.")
    ('sentiment', 'film review')
    """
    phrase = phrase.strip().rstrip(".:?!").strip()
    article = next((own for own in ARTICLES if phrase.lower().startswith(own)), "")
    return phrase[len(article) :]


@dataclass(frozen=True)
class Template:
    """A way to ask.

    Args:
        block: around the text, which it names once as {text}; the answer follows at its end.
        header: once, before everything else.
    """

    block: str
    header: str = ""

    def filled(self, task: Task) -> tuple[str, str, str]:
        """Return the header, and what stands before and behind a text.

        Raises:
            RecipeError: a field that is not known, or {text} not once in the block.
        """
        before, after = _filled(self.block, task).split(PLACE)
        return (_filled(self.header, task) if self.header else ""), before, after


def _filled(words: str, task: Task) -> str:
    cells = {**task.cells, "text": PLACE}
    return "".join(piece + (cells[name] if name else "") for piece, name in pieces_of(words))


def checked_template(block: str) -> Template:
    r"""Return a template of the user's, without spaces at its end: to most tokenizers they are the answer's.

    >>> checked_template("{text}\nSentiment: ").block
    '{text}\nSentiment:'

    Raises:
        RecipeError: a field that is not known, or {text} not once.
    """
    check_fields(block, "text")
    return Template(block.rstrip(" "))


def check_fields(template: str, place: str) -> None:
    """Raise RecipeError for a field that is not known, or where `place` does not stand in it once."""
    named = [name for _, name in pieces_of(template) if name]
    known = [place, *Task(("a", "b"), "").cells]
    for name in named:
        if name not in known:
            raise RecipeError(
                f"a template knows {listed((f'{{{own}}}' for own in known), 20)}, got '{{{name}}}'"
                f"{did_you_mean(name, known)}"
            )
    if named.count(place) != 1:
        raise RecipeError(f"expected {{{place}}} once in a template, got '{template}'")


PLAIN = "{Thing}: {text}\n{What}:"
TEMPLATES = (
    Template(PLAIN),
    Template('"{text}" is a {thing} whose {what} is'),
    Template("{text}\nOverall, the {what} is"),
    Template(PLAIN, "Below are {thing}s, each with its {what}."),
    Template(PLAIN, "Possible answers for {what}: {classes}."),
    Template('{Thing}: "{text}"\nThe {what} of this {thing} is'),
    Template("{text}\nThe {what} of this {thing} is"),
    Template("{text} The {what} is"),
    Template(PLAIN, "Say of each {thing} whether its {what} is {classes}."),
    Template("Text: {text}\n{What}:"),
)
"""The default prompts; members take them in this order. Small models go on with a text better than they
follow an instruction, so most only show where the answer stands."""

ONE_WORD = "Answer with one word only."
CHAT_TEMPLATES = (
    Template("{text}", f"Classify the {{what}} of the {{thing}} as {{classes}}. {ONE_WORD}"),
    Template("{Thing}: {text}", f"Is the {{what}} of this {{thing}} {{classes}}? {ONE_WORD}"),
    Template(f"{{text}}\n\nIs the {{what}} of this {{thing}} {{classes}}? {ONE_WORD}"),
    Template(PLAIN, f"Say of each {{thing}} whether its {{what}} is {{classes}}. {ONE_WORD}"),
    Template('"{text}"', f"Read this {{thing}} and say what its {{what}} is: {{classes}}. {ONE_WORD}"),
    Template("{text}\n\nThe {what} of this {thing}, in one word, {classes}:"),
    Template("Text: {text}", f"Which of {{classes}} is the {{what}} of the text? {ONE_WORD}"),
)
"""The default questions where a model is asked by its chat template. An answer begins anew there and does
not go on with the text, so all of them name the classes."""


@dataclass(frozen=True)
class Example:
    """A text whose class is known.

    Args:
        text: any text.
        word: that says its class.
    """

    text: str
    word: str


def plain_frame(template: Template, task: Task, examples: Sequence[Example]) -> Frame:
    r"""Return a prompt as running text.

    >>> task = Task(("bad", "good"), "sentiment of a review")
    >>> plain_frame(Template("{text}\n{What}:"), task, [Example("Dull.", "bad")]).before
    'Dull.\nSentiment: bad\n\n'
    """
    header, before, after = template.filled(task)
    space = "" if after[-1:].isspace() else " "
    shown = [f"{before}{one_line(own.text)}{after}{space}{own.word}" for own in examples]
    parts = [*([header] if header else []), *shown, before]
    return Frame(GAP.join(parts), after, task.words)


def chat_frame(
    template: Template,
    task: Task,
    examples: Sequence[Example],
    rendered: Callable[[list[dict[str, str]]], str],
) -> Frame:
    """Return a prompt as a conversation in which the examples' classes were answered.

    Args:
        template: to ask by.
        task: what is asked.
        examples: in their order.
        rendered: writes messages as the model's chat template has them, up to where its answer begins.
    """
    header, before, after = template.filled(task)
    messages = []
    for own in examples:
        messages += [("user", f"{before}{one_line(own.text)}{after}"), ("assistant", own.word)]
    messages.append(("user", f"{before}{PLACE}{after}"))
    messages[0] = ("user", f"{header}{GAP if header else ''}{messages[0][1]}")
    whole = rendered([{"role": role, "content": content} for role, content in messages])
    start = whole.rindex(PLACE)
    return Frame(whole[:start], whole[start + len(PLACE) :], task.words)


def one_line(text: str) -> str:
    """Return a text without line breaks, which part the blocks of a prompt."""
    return " ".join(text.split())
