"""How far each site's integers move the probabilities, and which sites are worth them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, TensorProto, helper

from credibly.export.products import Site
from credibly.export.quantise import quantised
from credibly.export.rounding import FloatMatrix, Rounding, Seen, beside, divided, fine
from credibly.records import FloatArray
from credibly.runtime.graph import TOKEN_BUDGET, Graph, session_of
from credibly.tokens import Tokens, length_batches, padded_rows

SHARES = (1 / 32, 1 / 8)
"""Shares of a site's channels that may stay float beside the others."""
INTEGER_COST = 0.15
"""Time of a multiplication of integers, against one of floats."""
BESIDE_COST = 125
"""Time of adding a second product to a result, in multiplications of floats."""
AGAIN_COST = 80
"""Time of rounding an activation again, in multiplications of floats."""
SITES_AT_ONCE = 8
SAMPLED_ROWS = 4096


@dataclass(frozen=True)
class Choice:
    """One way to run a site.

    Args:
        rounding: how it runs on integers; None where it stays float.
        cost: time, in multiplications of floats.
        effect: how far it moves the probabilities on average, squared.
    """

    rounding: Rounding | None
    cost: float
    effect: float


def probabilities(graph: Graph, tokens: Tokens) -> FloatArray:
    """Return the mean over members of a graph's probabilities, float64, (N, C)."""
    z = graph.token_logits(tokens).astype(np.float64)
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray((exponentials / exponentials.sum(axis=-1, keepdims=True)).mean(axis=0))


def with_model(graph: Graph, model: ModelProto) -> Graph:
    """Return a graph that reads texts alike and runs this model."""
    return replace(graph, session=session_of(model.SerializeToString()))


def roundings_of(
    graph: Graph, model: ModelProto, sites: Sequence[Site], tokens: Tokens, largest: int
) -> dict[str, list[Rounding]]:
    """Return the ways to round each site, the fastest first, fitted on texts.

    Args:
        graph: how texts are read.
        model: in float32.
        sites: of the model.
        tokens: of the texts.
        largest: weight in integers.
    """
    return {
        site.input: [
            divided(seen, site.weight, largest),
            *(beside(seen, site.weight, share, largest) for share in SHARES),
            fine(seen, site.weight, largest),
        ]
        for site, seen in _seen(graph, model, sites, tokens)
    }


def _seen(
    graph: Graph, model: ModelProto, sites: Sequence[Site], tokens: Tokens
) -> Iterator[tuple[Site, Seen]]:
    """Yield what passes through each site; a few sites at a time, to keep memory small."""
    share = SAMPLED_ROWS / max(1, int(tokens.lengths.sum()))
    for start in range(0, len(sites), SITES_AT_ONCE):
        some = sites[start : start + SITES_AT_ONCE]
        names = [site.input for site in some]
        watched = ModelProto()
        watched.CopyFrom(model)
        watched.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
        )
        watching = with_model(graph, watched)
        draw = np.random.default_rng(0)
        kept: list[list[FloatMatrix]] = [[] for _ in some]
        ends: list[list[FloatMatrix]] = [[] for _ in some]
        for indices in length_batches(tokens.lengths, TOKEN_BUDGET, tokens.max_tokens):
            rows = padded_rows(tokens, indices)
            for place, states in enumerate(watching.outputs(rows, names)):
                real = _real_rows(states, rows.mask)
                kept[place].append(real[draw.random(len(real)) < max(share, 16 / len(real))])
                ends[place] += [real.min(axis=0), real.max(axis=0)]
        for site, own, reached in zip(some, kept, ends, strict=True):
            yield site, Seen(np.concatenate(own), np.min(reached, axis=0), np.max(reached, axis=0))


def _real_rows(states: FloatMatrix, mask: np.ndarray) -> FloatMatrix:
    """Return activations, (..., K), as rows, without those of padding where there is one a token."""
    rows = states.reshape(-1, states.shape[-1])
    return rows[mask.reshape(-1).astype(bool)] if len(rows) == mask.size else rows


def choices_of(
    graph: Graph,
    model: ModelProto,
    sites: Sequence[Site],
    roundings: Mapping[str, Sequence[Rounding]],
    tokens: Tokens,
) -> dict[str, list[Choice]]:
    """Return the ways to run each site, the cheapest first, with what each does to the probabilities.

    Measured is what a site does that alone runs on integers; how much less it does with some channels in
    float is told from the errors of its products.
    """
    exact = probabilities(with_model(graph, model), tokens)
    found = {}
    for site in sites:
        ways = roundings[site.input]
        moved = with_model(graph, quantised(model, [site], {site.input: ways[0]}, tables=False))
        effect = float(np.abs(probabilities(moved, tokens) - exact).mean()) ** 2
        least = max(ways[0].error, 1e-12)
        found[site.input] = [
            *(Choice(way, _cost(site, way), effect * (way.error / least) ** 2) for way in ways),
            Choice(None, float(site.weight.size), 0.0),
        ]
    return found


def _cost(site: Site, rounding: Rounding) -> float:
    """Return the time of a site on integers, in multiplications of floats."""
    channels, results = site.weight.shape
    added = results * (BESIDE_COST + len(rounding.outliers)) if len(rounding.outliers) else 0
    again = channels * AGAIN_COST if rounding.fine else 0
    return INTEGER_COST * rounding.weight.size + added + again


def chosen(choices: Mapping[str, Sequence[Choice]], share: float) -> dict[str, Rounding]:
    """Return the roundings of all sites so that together they move the probabilities by a share of the most.

    Step by step that site is given a better choice where it helps most for its time.
    """
    level = dict.fromkeys(choices, 0)
    total = sum(options[0].effect for options in choices.values())
    allowed = share**2 * total
    while total > allowed:
        steps = [
            (_worth(own[level[name]], own[better]), name, better)
            for name, own in choices.items()
            for better in range(len(own))
            if own[better].effect < own[level[name]].effect
        ]
        if not steps:
            break
        _, name, better = max(steps)
        total += choices[name][better].effect - choices[name][level[name]].effect
        level[name] = better
    picked = {name: choices[name][place].rounding for name, place in level.items()}
    return {name: rounding for name, rounding in picked.items() if rounding is not None}


def _worth(now: Choice, better: Choice) -> float:
    """Return how much effect a better choice takes away for its time."""
    return (now.effect - better.effect) / max(better.cost - now.cost, 1.0)
