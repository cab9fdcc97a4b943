"""How activations and weights are rounded to 8 bits, so that products lose as little as they can.

With one scale s and zero point z for all activations x, (rows, K), and one scale t for each column of W,

    x W ≈ s (x_q - z) W_q t,   x_q = round(x / s) + z in [0, 255],   W_q = round(W / t) in [-127, 127]

A few channels of a transformer's activations reach ten times as far as the others, and would leave these a
tenth of the levels. There are three ways out. `divided`: channels are divided by what they reach beyond the
others, and the rows of W multiplied by it (SmoothQuant, Xiao et al. 2023, https://arxiv.org/abs/2211.10438).
`beside`: the channels that reach farthest are multiplied as floats (LLM.int8(), Dettmers et al. 2022,
https://arxiv.org/abs/2208.07339). `fine`: what rounding left over is rounded again, to sixteenths of a step,
and stands as K further columns beside x_q, over the rows of W_q / 16: 12 bits in one product of 8.

Ranges are fixed at export, not found batch by batch: else what is said of a text would depend on the texts
beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from credibly.records import IntArray

FloatMatrix = NDArray[np.float32]
SMOOTHING = (0.75, 0.9)
REACH = (0.5, 0.9, 0.97)
COVERED = (1.0, 0.85)
"""Shares of what was seen that a range covers: a little less cuts the farthest, and rounds the rest finer."""
FINER = 16
"""Steps of the second rounding in one of the first."""
FULL, REDUCED = 127, 63
"""The largest weight. Processors without VNNI add up pairs of products in 16 bits: 7-bit weights fit."""


@dataclass(frozen=True)
class Seen:
    """What passed through a site.

    Args:
        rows: a sample of its activations, float32, (rows, K).
        low: of each channel over everything seen, (K,).
        high: of each channel over everything seen, (K,).
    """

    rows: FloatMatrix
    low: FloatMatrix
    high: FloatMatrix

    @property
    def reach(self) -> FloatMatrix:
        """How far each channel goes from zero, (K,)."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)) + 1e-6)


@dataclass(frozen=True)
class Rounding:
    """How one site is rounded.

    Args:
        scale: s.
        zero: z.
        weight: W_q, int8, (K, N), its rows multiplied by the divisors, zero for channels that stay float;
            (2 K, N) where activations are rounded twice.
        column_scales: t, float32, (N,).
        correction: what the results are off by on average, float32, (N,), to be added.
        error: size of what is still lost, relative to the results.
        divisors: of the channels, (K,); None where all are one.
        outliers: channels that stay float.
        fine: whether activations are rounded twice.
    """

    scale: float
    zero: int
    weight: NDArray[np.int8]
    column_scales: FloatMatrix
    correction: FloatMatrix
    error: float
    divisors: FloatMatrix | None = None
    outliers: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    fine: bool = False


def divided(seen: Seen, weight: FloatMatrix, largest: int = FULL) -> Rounding:
    """Return the rounding whose range and divided channels lose least; perhaps none are divided.

    Args:
        seen: the site's activations.
        weight: float32, (K, N).
        largest: weight in integers.
    """
    tries = []
    for divisors in divisors_of(seen.reach, weight):
        by = np.float32(1.0) if divisors is None else divisors
        integers, columns = columns_rounded(
            weight if divisors is None else weight * divisors[:, None], largest
        )
        for covered in COVERED:
            scale, zero = range_of(covered * seen.low / by, covered * seen.high / by)
            found = rounded(seen.rows / by, scale, zero) @ (integers * columns)
            tries.append(Rounding(scale, zero, integers, columns, *_lost(seen, weight, found), divisors))
    return min(tries, key=lambda one: one.error)


def beside(seen: Seen, weight: FloatMatrix, share: float, largest: int = FULL) -> Rounding:
    """Return the rounding that leaves a share of the channels float: those that reach farthest.

    Args:
        seen: the site's activations.
        weight: float32, (K, N).
        share: of the channels.
        largest: weight in integers.
    """
    outliers = np.sort(np.argsort(-seen.reach)[: max(1, round(share * len(weight)))])
    kept = np.ones(len(weight), dtype=bool)
    kept[outliers] = False
    scale, zero = range_of(seen.low[kept], seen.high[kept])
    integers, columns = columns_rounded(weight * kept[:, None], largest)
    found = rounded(seen.rows, scale, zero) @ (integers * columns)
    found += seen.rows[:, outliers] @ weight[outliers]
    return Rounding(scale, zero, integers, columns, *_lost(seen, weight, found), outliers=outliers)


def fine(seen: Seen, weight: FloatMatrix, largest: int = FULL) -> Rounding:
    """Return the rounding that rounds activations twice.

    Args:
        seen: the site's activations.
        weight: float32, (K, N).
        largest: weight in integers.
    """
    # What is left over lies on both sides of zero: the zero point must leave room for it below and above.
    room = (seen.high.max() - seen.low.min()) * FINER / 255
    scale, zero = range_of(np.minimum(seen.low, -room), np.maximum(seen.high, room))
    integers, columns = columns_rounded(weight, largest)
    sixteenths = np.round(weight / columns / FINER).astype(np.int8)
    coarse = rounded(seen.rows, scale, zero)
    rest = rounded(seen.rows - coarse, scale / FINER, zero)
    found = coarse @ (integers * columns) + rest @ (sixteenths * columns * np.float32(FINER))
    both = np.concatenate([integers, sixteenths])
    return Rounding(scale, zero, both, columns, *_lost(seen, weight, found), fine=True)


def rounded(rows: FloatMatrix, scale: float, zero: int) -> FloatMatrix:
    """Return activations as 8 bits hold them."""
    levels = np.clip(np.round(rows / np.float32(scale)) + zero, 0, 255) - zero
    return np.asarray(levels * np.float32(scale), dtype=np.float32)


def _lost(seen: Seen, weight: FloatMatrix, found: FloatMatrix) -> tuple[FloatMatrix, float]:
    """Return what results are off by on average, (N,), and the size of what they are off by beyond that."""
    exact = seen.rows @ weight
    lost = exact - found
    correction = lost.mean(axis=0)
    return correction.astype(np.float32), relative_error(lost - correction, exact)


def divisors_of(reach: FloatMatrix, weight: FloatMatrix) -> Iterator[FloatMatrix | None]:
    """Yield ways to divide channels: none, down to a common reach, or by shares of reach and weight."""
    yield None
    for quantile in REACH:
        yield np.maximum(1.0, reach / np.quantile(reach, quantile)).astype(np.float32)
    heaviest = np.abs(weight).max(axis=1) + 1e-6
    for power in SMOOTHING:
        divisors = reach**power / heaviest ** (1 - power)
        yield (divisors / np.exp(np.log(divisors).mean())).astype(np.float32)


def range_of(low: FloatMatrix, high: FloatMatrix) -> tuple[float, int]:
    """Return scale and zero point that cover all channels, and zero exactly.

    >>> range_of(np.array([0.0, -100.0]), np.array([155.0, 0.0]))
    (1.0, 100)
    """
    least, most = min(float(low.min(initial=0.0)), 0.0), max(float(high.max(initial=0.0)), 0.0)
    scale = max(most - least, 1e-8) / 255
    return scale, int(np.clip(round(-least / scale), 0, 255))


def columns_rounded(weight: FloatMatrix, largest: int = FULL) -> tuple[NDArray[np.int8], FloatMatrix]:
    """Return W_q and t of weights, (K, N)."""
    scales = np.maximum(np.abs(weight).max(axis=0), 1e-8) / largest
    integers = np.clip(np.round(weight / scales), -largest, largest).astype(np.int8)
    return integers, scales.astype(np.float32)


def relative_error(lost: FloatMatrix, exact: FloatMatrix) -> float:
    """Return the size of an error, (rows, N), relative to the results, each row weighed by its own size.

    What follows brings rows to one size: those few of a huge size must not decide for all others.
    """
    sizes = (exact**2).mean(axis=1)
    weights = 1.0 / (sizes + np.median(sizes) + 1e-12)
    return float(np.sqrt(((lost**2).mean(axis=1) * weights).sum() / max((sizes * weights).sum(), 1e-12)))
