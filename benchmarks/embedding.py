"""Texts of 64 tokens and more through the language model, against the plain matrix product it is made of.

Both sides are FLOP a second: of the model's matrix products on real tokens (padding counts for nothing,
tokenising and pooling cost time and count for nothing either), and of the fastest plain product of the
same precision on this machine.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Result, alternate, load, seconds_of, spread, write
from credibly.backbones import Backbone, embed, load_backbone
from credibly.batching import Tokens, padded_batches, tokenise
from credibly.data.reviews import load_reviews
from credibly.records import IntArray
from credibly.settings import BackboneSettings

NAME = "embedding"
ROUNDS = 5
TEXTS = 2000
SHORTEST, LONGEST = 64, 200
SPECIAL_TOKENS = 2
"""The model's tokenizer puts one before a text and one behind it."""
LARGE = ((2048, 2048, 2048), (4096, 4096, 4096), (4096, 1024, 1024), (4096, 1024, 4096))
"""Shapes of the plain product, (rows, inner, columns): the fastest of them is the limit."""
OWN = ((4096, 384, 384), (4096, 384, 1536), (4096, 1536, 384))
"""The shapes of the model's own products at a full batch; the small ones may lie in the cache."""
REPEATED_FLOP = 1e11


def long_texts(snippets: tuple[str, ...], backbone: Backbone) -> list[str]:
    """Return texts of 64 to about 200 tokens, evenly spread: review snippets joined, cut between words."""
    random = np.random.default_rng(0)
    words = " ".join(snippets[index] for index in random.permutation(len(snippets))).split()
    ends = np.cumsum(tokenise(backbone.tokenizer, words, LONGEST).lengths - SPECIAL_TOKENS)
    wanted = random.integers(SHORTEST, LONGEST + 1, TEXTS) - SPECIAL_TOKENS
    texts: list[str] = []
    start = 0
    for length in wanted:
        if ends[-1] - ends[start] < LONGEST:
            start = 0
        stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + length)) + 1
        texts.append(" ".join(words[start:stop]))
        start = stop
    return texts


def model_flop(lengths: IntArray, backbone: Backbone) -> float:
    """Return the FLOP of an encoder's matrix products on real tokens.

    Per block and text of L tokens: four products of H x H and two of H x I a token, and 2 L x L x H for
    each of scores and mixing.
    """
    config = backbone.model.config
    H, I, blocks = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    L = lengths.astype(np.float64)
    return float(blocks * (2 * L * (4 * H * H + 2 * H * I) + 4 * L * L * H).sum())


class Product:
    """The plain product in the model's precision, on a few shapes.

    Args:
        dtype: of both matrices.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.pairs = [
            (torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype))
            for rows, inner, columns in LARGE + OWN
        ]
        self.rates: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in LARGE + OWN}

    def rate(self) -> float:
        """Return the FLOP a second of the fastest large shape in this round; all shapes are measured."""
        for (left, right), (shape, rates) in zip(self.pairs, self.rates.items(), strict=True):
            flop = 2.0 * shape[0] * shape[1] * shape[2]
            torch.mm(left, right)
            repeats = max(4, round(REPEATED_FLOP / flop))
            seconds = [seconds_of(lambda pair=(left, right): torch.mm(*pair)) for _ in range(repeats)]
            rates.append(flop / median(seconds))
        return max(self.rates[shape][-1] for shape in LARGE)

    def medians(self, shapes: tuple[tuple[int, int, int], ...]) -> dict[str, float]:
        """Return the median GFLOP a second of each shape."""
        return {"x".join(map(str, shape)): median(self.rates[shape]) / 1e9 for shape in shapes}


class Embedded:
    """Some texts and how fast they are embedded.

    Args:
        backbone: the model.
        texts: of about one kind.
    """

    def __init__(self, backbone: Backbone, texts: list[str]) -> None:
        self.backbone, self.texts = backbone, texts
        self.tokens: Tokens = tokenise(backbone.tokenizer, texts, backbone.max_tokens)
        self.flop = model_flop(self.tokens.lengths, backbone)
        self.seconds: list[float] = []

    def rate(self) -> float:
        """Return the model FLOP a second of embedding the texts, tokenising and pooling in the time."""
        self.seconds.append(seconds_of(lambda: embed(self.backbone, self.texts)))
        return self.flop / self.seconds[-1]

    def figures(self) -> dict[str, Any]:
        """Return lengths, rows a second, padding waste, and tokenising's share of the time."""
        backbone = self.backbone
        tokenising = [
            seconds_of(lambda: tokenise(backbone.tokenizer, self.texts, backbone.max_tokens))
            for _ in range(ROUNDS)
        ]
        lengths = self.tokens.lengths
        padded = sum(batch.input_ids.numel() for batch in padded_batches(self.tokens, backbone.token_budget))
        return {
            "texts": len(self.texts),
            "tokens_shortest": int(lengths.min()),
            "tokens_mean": float(lengths.mean()),
            "tokens_longest": int(lengths.max()),
            "rows_per_second": len(self.texts) / median(self.seconds),
            "tokens_per_second": int(lengths.sum()) / median(self.seconds),
            "padding_waste": 1 - int(lengths.sum()) / padded,
            "tokenising_share": median(tokenising) / median(self.seconds),
        }


def main() -> None:
    """Measure long texts, which are judged, short ones, and the plain product, in turns."""
    load_before = load()
    backbone = load_backbone(BackboneSettings())
    snippets = load_reviews().train.texts
    long, short = Embedded(backbone, long_texts(snippets, backbone)), Embedded(backbone, list(snippets))
    product = Product(torch.bfloat16 if backbone.precision == "bf16" else torch.float32)
    for warm in (long, short):
        embed(backbone, warm.texts[:200])
    found = alternate({"embedding": long.rate, "product": product.rate, "short": short.rate}, ROUNDS)
    sides = {name: [rate / 1e9 for rate in found[name]] for name in ("embedding", "product")}
    shares = [ours / limit for ours, limit in zip(found["embedding"], found["product"], strict=True)]
    share = median(found["embedding"]) / median(found["product"])
    figures = {"long": long.figures(), "short": short.figures()}
    result = Result(
        name=NAME,
        what=f"model FLOP a second of embedding texts of 64 to 200 tokens / of a plain {backbone.precision} "
        "matrix product",
        ratio=share,
        unit=f"GFLOP a second, {backbone.precision}",
        sides=sides,
        at_least=0.35,
        holds=figures["long"]["padding_waste"] < 0.1,
        share_of_limit=share,
        limit={
            "what": f"plain {backbone.precision} matrix product, the fastest large shape, GFLOP a second",
            "large": product.medians(LARGE),
            "own": product.medians(OWN),
        },
        figures={
            **figures,
            "aim": 0.5,
            "share_in_each_round": spread(shares),
            "short_gflop_per_second": spread([rate / 1e9 for rate in found["short"]]),
            "token_budget": backbone.token_budget,
        },
    )
    write(result, load_before)


if __name__ == "__main__":
    main()
