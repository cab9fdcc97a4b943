"""The fastest precision at which a graph still answers as its network does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto

from credibly.errors import InputError
from credibly.export.effects import choices_of, chosen, roundings_of, with_model
from credibly.export.parity import DIFFERENCE, WITHIN, Parity
from credibly.export.products import Site, sites_of
from credibly.export.quantise import quantised
from credibly.export.rounding import FULL, REDUCED, Rounding
from credibly.progress import Progress
from credibly.records import Examples, FloatArray, unlabelled
from credibly.runtime.graph import Graph, Logits, multiplies_integers
from credibly.tokens import Tokens
from credibly.uncertainty.systems import Answer

EFFECT_ROWS = 128
EXTREMES = 16
LONG_WORDS = 512
SPEED_ROWS = 512
MARGINS = (0.95, 0.85, 0.78, 0.72, 0.66, 0.6)
"""Shares of the allowed difference that are aimed at on the texts for fitting, one after the other."""
STEP, LEAST_SHARE = 0.95, 0.1
"""By how much less of what integers do is tried next, and where that ends."""
MOST_CANDIDATES = 2 + len(MARGINS)
Answering = Callable[[Logits, Examples], Answer]


@dataclass(frozen=True)
class Rows:
    """The texts of an export.

    Args:
        fitting: on which ranges are found (and on still shorter and longer ones made of them) and products
            are chosen; no labels are looked at.
        held_out: on which parity is judged, and nothing else.
    """

    fitting: Sequence[str]
    held_out: Examples


@dataclass(frozen=True)
class Tried:
    """A precision that was tried.

    Args:
        precision: "float", "int8" or "mixed".
        model: the graph.
        logits: what it gives the held-out texts, float32, (M, N, C).
        rows_per_core_second: of one core, on the held-out texts.
        parity: with the network, on the held-out texts.
        in_float: the sites that stay float.
        partly_float: the sites of which some channels do.
    """

    precision: str
    model: ModelProto
    logits: Logits
    rows_per_core_second: float
    parity: Parity
    in_float: tuple[str, ...] = ()
    partly_float: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what export.json says of it."""
        return {
            "precision": self.precision,
            "rows_per_core_second": self.rows_per_core_second,
            "bytes": self.model.ByteSize(),
            **self.parity.as_json(),
            "in_float": list(self.in_float),
            "partly_float": list(self.partly_float),
        }


def try_all(
    own: Logits, model: ModelProto, graph: Graph, answer: Answering, rows: Rows, progress: Progress
) -> list[Tried]:
    """Return what was tried: float, all on integers and, until one passes, more and more of it in float.

    All are judged on the same rows, and the first that passes is taken: of up to eight tries the one that is
    let through does there a little better than it will on other texts.

    Args:
        own: the network's logits of the held-out texts, (M, N, C).
        model: its graph in float32.
        graph: how texts are read.
        answer: what is compared: what the system answers by the network's logits, and by the graph's.
        rows: texts.
        progress: told of every precision.
    """
    held_out = graph.tokens(rows.held_out.texts)
    timed = graph.tokens(rows.held_out.texts[:SPEED_ROWS])
    reference = answer(own, rows.held_out)
    sites = sites_of(model, len(rows.held_out.class_names))
    tried: list[Tried] = []
    for precision, candidate, roundings in _candidates(model, sites, graph, answer, rows):
        running = with_model(graph, candidate)
        logits = running.token_logits(held_out)
        found = answer(logits, rows.held_out)
        kept = [site.name for site in sites if site.input not in roundings]
        partly = [site.name for site in sites if len(_outliers(roundings, site))]
        parity = Parity.between(reference, found)
        speed = rate(running, timed)
        tried.append(Tried(precision, candidate, logits, speed, parity, tuple(kept), tuple(partly)))
        progress(len(tried), MOST_CANDIDATES)
        if precision != "float" and parity.passed:
            break
    progress(MOST_CANDIDATES, MOST_CANDIDATES)
    return tried


def fastest(tried: Sequence[Tried]) -> Tried:
    """Return the fastest precision that answers the same.

    Raises:
        InputError: none does.
    """
    passing = [each for each in tried if each.parity.passed]
    if not passing:
        raise differing(tried[0].parity)
    return max(passing, key=lambda each: each.rows_per_core_second)


def differing(parity: Parity) -> InputError:
    """Return the error that tells how far graphs are from answering as the networks do."""
    return InputError(
        f"the graph does not answer as the network: {parity.equal_labels:.1%} of the labels are equal on "
        f"{parity.rows} rows, the 99th percentile of differences is {parity.difference_99:.3f}; "
        "serve it with torch"
    )


def _candidates(
    model: ModelProto, sites: Sequence[Site], graph: Graph, answer: Answering, rows: Rows
) -> Iterator[tuple[str, ModelProto, dict[str, Rounding]]]:
    """Yield precisions with their graphs and what runs on integers, the faster ones first after float."""
    yield "float", model, {}
    if not sites:
        return
    tokens, fitting = graph.tokens(rows.fitting), unlabelled(rows.fitting, rows.held_out.class_names)

    def probs_of(candidate: ModelProto) -> FloatArray:
        return answer(with_model(graph, candidate).token_logits(tokens), fitting).probs

    seen = graph.tokens([*rows.fitting, *extremes(rows.fitting)])
    ways = roundings_of(graph, model, sites, seen, largest_weight())
    whole = {name: options[0] for name, options in ways.items()}
    yield "int8", quantised(model, sites, whole), whole
    choices = choices_of(graph, model, sites, ways, graph.tokens(rows.fitting[:EFFECT_ROWS]))
    exact = probs_of(model)
    share = 1.0
    for margin in MARGINS:
        moved = float("inf")
        while moved > margin and share > LEAST_SHARE:
            share *= STEP
            some = chosen(choices, share)
            candidate = quantised(model, sites, some)
            moved = _moved(probs_of(candidate), exact)
        yield "mixed", candidate, some


def extremes(texts: Sequence[str]) -> list[str]:
    """Return first words alone, and texts over and over: what users send may be shorter or longer than these.

    >>> extremes(["too long"])[0], len(extremes(["too long"])[1].split())
    ('too', 512)
    """
    some = texts[:EXTREMES]
    first = [text.split()[0] for text in some]
    return [*first, *(" ".join([text] * (LONG_WORDS // max(1, len(text.split())))) for text in some)]


def _moved(probs: FloatArray, exact: FloatArray) -> float:
    """Return how far probabilities moved, 1 being as far as they may."""
    return float(np.quantile(np.abs(probs - exact).max(axis=-1), WITHIN)) / DIFFERENCE


def _outliers(roundings: Mapping[str, Rounding], site: Site) -> Sequence[int]:
    return roundings[site.input].outliers.tolist() if site.input in roundings else ()


def rate(graph: Graph, tokens: Tokens, tries: int = 3) -> float:
    """Return rows a second of one core, the best of a few tries, by the processor's own clock.

    So whatever else runs on the machine decides nothing.
    """
    alone = replace(graph, workers=1)
    seconds = []
    for _ in range(tries):
        began = time.process_time()
        alone.token_logits(tokens)
        seconds.append(time.process_time() - began)
    return len(tokens) / min(seconds)


def largest_weight() -> int:
    """Return the largest integer of a weight that this processor multiplies without overflow.

    Where an Intel or AMD processor lacks VNNI, products of 8 bits are added up in pairs in 16 bits.
    """
    return FULL if multiplies_integers() else REDUCED
