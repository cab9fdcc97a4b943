"""Whether a file is like what a run was trained on: the conclusion in words, and the terminal's tables.

Rendered from what `workflows.shift` returns alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from credibly.report.wording import SCORE_WORDS, bracket, count, number, visible, with_interval

Content = Mapping[str, Any]

DIFFERENT_BELOW = 0.05
"""A p-value of the test below this says that the texts differ."""
CLEARLY_FROM, WHOLLY_FROM = 0.64, 0.9
"""AUROC: of a medium effect (Cohen's d of a half, for normal scores), and where few texts are alike."""
SHOWN = 200
"""Characters of a text."""


def conclusion(content: Content) -> tuple[str, str]:
    """Return what the figures bear out: a word for it, and a sentence.

    The word is one of ``too few``, ``alike``, ``another mix``, ``slightly stranger``, ``stranger`` and
    ``unlike``. The test alone decides whether there is a difference, and the effect how large it is.
    """
    auroc, test = content["scores"][content["score"]]["auroc"], content["test"]
    rows = f"these {count(content['rows']['file'])} texts"
    trained = "those that the run was trained on"
    if test is None:
        return "too few", f"One text or none is too few to say whether it is like {trained}."
    p = f"p = {test['p']:.3f}"
    if test["p"] >= DIFFERENT_BELOW:
        return "alike", f"Nothing shows that {rows} differ from {trained} ({p})."
    if auroc["value"] is None or auroc["low"] is None or auroc["low"] <= 0.5:
        said = f"{rows} differ from {trained} ({p}), but are no stranger one by one: another mix of them."
        return "another mix", said[:1].upper() + said[1:]
    if auroc["value"] < CLEARLY_FROM:
        return "slightly stranger", f"These texts differ from {trained} ({p}), though only slightly."
    if auroc["value"] < WHOLLY_FROM:
        return "stranger", f"These texts are stranger than {trained} ({p})."
    return "unlike", f"These texts are of another kind than {trained} ({p})."


def effect_in_words(content: Content) -> list[str]:
    """Return what the effect size and the number of rows mean, a sentence each."""
    auroc, rows = content["scores"][content["score"]]["auroc"], content["rows"]
    label = SCORE_WORDS[content["score"]][0].lower()
    said = []
    if auroc["value"] is not None:
        said.append(
            f"Of a text of this file and a calibration text, the first is the stranger in "
            f"{with_interval('accuracy', auroc)} of all pairs, by {label}; 50 % is alike."
        )
    said += [
        f"{with_interval('accuracy', found['share'])} of the texts are stranger than "
        f"{100 * found['level']:g} % of the calibration texts; {100 - 100 * found['level']:g} % is alike."
        for found in content["beyond"]
    ]
    missed = 100 * content["noticeable_auroc"]
    least = (
        f"less than {missed:.0f} % of all pairs can go unnoticed" if missed < 100 else "little can be told"
    )
    said.append(f"With {count(rows['file'])} texts against {count(rows['calibration'])}, {least}.")
    return said


def print_likeness(content: Content, console: Console) -> None:
    """Print the conclusion, the figures behind it, and the texts that stick out; 100 columns are enough."""
    console.print()
    console.print(Text(visible(content["conclusion"]["sentence"]), style="bold"))
    for sentence in [*effect_in_words(content), *content["notes"]]:
        console.print(Padding(Text(visible(sentence)), (0, 0, 0, 1)))
    console.print(_scores_table(content))
    console.print(_classes_table(content))
    if content["texts"]:
        console.print(Text(" The texts farthest from the training texts", style="bold"))
        console.print(_texts_table(content))


def _scores_table(content: Content) -> Table:
    """Return how well each score of the system tells the file's texts, the fixed one in bold."""
    table = _table(f"by the scores of {visible(content['system'])}", "AUROC", "pass as known, %")
    for name, found in content["scores"].items():
        cells = (with_interval("ood_auroc", found["auroc"]), _share(found["fpr95"]))
        table.add_row(SCORE_WORDS[name][0], *cells, style="bold" if name == content["score"] else "")
    return table


def _classes_table(content: Content) -> Table:
    table = _table("class", "in train, %", "answered on calibration, %", "answered on this file, %")
    for name, shares in content["classes"].items():
        table.add_row(
            Text(visible(name)), *(_share(shares[part]) for part in ("train", "calibration", "file"))
        )
    return table


def _texts_table(content: Content) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("id", overflow="fold", max_width=20)
    table.add_column("as strange, %", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold", max_width=20)
    table.add_column("text, and what is unusual about it", overflow="fold")
    for own in content["texts"]:
        text = " ".join(own["text"].split())
        shown = Text(visible(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"))
        if own["reasons"]:
            shown.append(f"\n{', '.join(own['reasons'])}", style="dim")
        answer = Text(visible(f"{own['label']} {number('accuracy', own['probability'])}"))
        rare = f"{100 * own['as_strange']:.2g}"
        table.add_row(Text(visible(own["id"])), rare, answer, shown)
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _share(figure: Mapping[str, Any]) -> str:
    return f"{number('accuracy', figure['value'], False)} {bracket('accuracy', figure)}".rstrip()
