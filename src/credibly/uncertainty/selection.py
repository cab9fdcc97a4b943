"""Which texts to label next: those of which most is to be learned, and not one like the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError
from credibly.records import IntArray

FloatArray = NDArray[np.float64]


def most(scores: ArrayLike, count: int) -> IntArray:
    """Return the rows with the highest scores, the highest first, of equals the first.

    With mutual information as the score this is BALD (Houlsby et al. 2011, https://arxiv.org/abs/1112.5745);
    with the entropy of the prediction, uncertainty sampling.

    Args:
        scores: (N,), finite.
        count: how many, 1 or more; all where there are fewer.

    Raises:
        InputError: a score is not finite, or the count is below one.

    >>> most([0.1, 0.7, 0.7, 0.3], 3).tolist()
    [1, 2, 3]
    """
    values = np.asarray(scores, dtype=np.float64)
    _check(values, count)
    return np.argsort(-values, kind="stable")[:count]


def diverse(probs: ArrayLike, embeddings: ArrayLike, count: int, seed: int = 0) -> IntArray:
    """Return rows that are uncertain and unlike each other, by BADGE (Ash et al. 2020).

    A text is placed where the gradient of a last layer would point if its likeliest class were right
    (https://arxiv.org/abs/1906.03671): the outer product of probabilities less that class's one, and of its
    embedding. The first is the longest gradient; the others are drawn by k-means++, each with a chance in
    proportion to its squared distance from the nearest that is taken.

    Where the paper takes the network's embeddings as they are, these are centred and brought to length one:
    embeddings of language models have most of their length in common, and would all point one way.

    Args:
        probs: (N, C), probabilities.
        embeddings: (N, D).
        count: how many, 1 or more; all where there are fewer.
        seed: of the draws, which also depend on the order of the rows.

    Raises:
        InputError: shapes do not fit, a value is not finite, or the count is below one.
    """
    errors, places = np.array(probs, dtype=np.float64), _directions(embeddings)
    if errors.ndim != 2 or len(errors) != len(places):
        raise InputError(f"expected an embedding a row of probs, got {errors.shape} and {places.shape}")
    _check(errors, count)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    draws = np.random.default_rng(seed)
    lengths = (errors**2).sum(axis=1) * (places**2).sum(axis=1)
    chosen = [int(lengths.argmax())] if len(errors) else []
    nearest = np.full(len(errors), np.inf)
    while 0 < len(chosen) < min(count, len(errors)):
        last = chosen[-1]
        # |a x h - b x k|^2 without the product of classes and dimensions.
        products = (errors @ errors[last]) * (places @ places[last])
        nearest = np.minimum(nearest, np.maximum(lengths + lengths[last] - 2 * products, 0.0))
        nearest[chosen] = 0.0
        chosen.append(_drawn(nearest, chosen, draws))
    return np.array(chosen, dtype=np.int64)


def _directions(embeddings: ArrayLike) -> FloatArray:
    """Return embeddings, (N, D), around their mean and of length one."""
    values = np.asarray(embeddings, dtype=np.float64)
    _check(values, 1)
    values = values - values.mean(axis=0) if len(values) > 1 else values
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12))


def _drawn(weights: FloatArray, chosen: list[int], draws: np.random.Generator) -> int:
    """Return a row drawn by its weight; where none has any, the first that is not chosen."""
    total = weights.sum()
    if total > 0:
        return int(draws.choice(len(weights), p=weights / total))
    return next(row for row in range(len(weights)) if row not in set(chosen))


def _check(values: FloatArray, count: int) -> None:
    if not np.isfinite(values).all():
        raise InputError("expected finite values to choose by, got NaN or infinity")
    if count < 1:
        raise InputError(f"expected 1 text or more to choose, got {count}")
