"""How badly each class fits a row's probabilities: the scores that prediction sets are cut from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError, did_you_mean, listed
from credibly.records import check_ids, check_probs

FloatArray = NDArray[np.float64]

METHODS = ("lac", "aps", "raps")


@dataclass(frozen=True)
class SetScore:
    """The nonconformity s(row, class): low for classes that belong into the row's set.

    With p the probabilities and rho the sum of those that are larger than the class's own:

    - ``lac``: 1 - p (Sadinle et al. 2019, https://arxiv.org/abs/1609.00451): the smallest sets on
      average, empty for rows on which no class is likely.
    - ``aps``: rho + u p (Romano et al. 2020, https://arxiv.org/abs/2006.02544): sets grow with how hard
      the row is.
    - ``raps``: that, plus penalty * max(0, rank - free), where the most probable class has rank 1
      (Angelopoulos et al. 2021, https://arxiv.org/abs/2009.14193): fewer very large sets.

    u is uniform on [0, 1), drawn by a row's id, where randomised, else 0. Coverage is promised either
    way. Randomised, scores do not tie, so the coverage is at most 1 / (n + 1) above the promise, the sets
    are smaller, and some are empty. With u = 0, which is the paper's set before its last class is dropped
    at random, the most probable class is in every set, so that a model which is right more often than
    was promised covers that much more; the answer does not depend on any draw. Classes of exactly the
    same probability share one score (p is then their sum): they enter together, in any order of classes.

    Args:
        method: ``lac``, ``aps`` or ``raps``.
        randomised: whether u is drawn; without effect on ``lac``.
        penalty: lambda of ``raps``, >= 0.
        free: k_reg of ``raps``, >= 0: how many classes go without penalty.
        seed: of the draws of u.

    Raises:
        InputError: an unknown method, or a penalty that does not fit it.
    """

    method: str = "lac"
    randomised: bool = False
    penalty: float = 0.0
    free: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"unknown method '{self.method}'{did_you_mean(self.method, METHODS)}; "
                f"expected one of {listed(METHODS)}"
            )
        if not (np.isfinite(self.penalty) and self.penalty >= 0 and self.free >= 0):
            raise InputError(
                f"expected a penalty and a number of free classes >= 0, got {self.penalty}, {self.free}"
            )
        if self.method != "raps" and (self.penalty or self.free):
            raise InputError(f"expected a penalty or free classes for 'raps' alone, got '{self.method}'")

    def of(self, probabilities: FloatArray, ids: Sequence[str] | None = None) -> FloatArray:
        """Return the score of every class, (N, C), of checked probabilities, (N, C).

        Raises:
            InputError: the score is randomised and there is not one id a row, all different.
        """
        if self.method == "lac":
            return np.asarray(1 - probabilities)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sorted_probs = np.take_along_axis(probabilities, order, axis=1)
        larger, mass, rank = _blocks(sorted_probs)
        scores = larger + self.penalty * np.maximum(rank - self.free, 0)
        if self.randomised:
            scores = scores + draws(ids, len(scores), self.seed)[:, None] * mass
        unsorted = np.empty_like(scores)
        np.put_along_axis(unsorted, order, scores, axis=1)
        return unsorted

    def as_json(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SetScore:
        """Return the score that `as_json` wrote.

        Raises:
            InputError: a key is missing or unknown, or a value does not fit.
        """
        try:
            return cls(
                str(content["method"]),
                bool(content["randomised"]),
                float(content["penalty"]),
                int(content["free"]),
                int(content["seed"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected {listed(cls().as_json())} of a set's score, got {content!r} ({error})"
            ) from None


def checked_probabilities(probabilities: ArrayLike) -> FloatArray:
    """Return probabilities as float64, (N, C), within [0, 1].

    Raises:
        InputError: another shape, values outside [0, 1], rows that do not sum to one.
    """
    array = np.asarray(probabilities, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise InputError(
            f"expected probabilities of shape (N, C) with two classes or more, got {array.shape}; "
            "combine members first"
        )
    check_probs(array)
    return np.clip(array, 0.0, 1.0)


def draws(ids: Sequence[str] | None, N: int, seed: int) -> FloatArray:
    """Return one number a row, (N,), uniform on [0, 1): the same for an id in any file and order.

    Raises:
        InputError: there is not one id a row, or ids repeat.
    """
    if ids is None or len(ids) != N:
        raise InputError(
            f"expected one id a row to draw by, for {N} rows, got {'none' if ids is None else len(ids)}; "
            "give ids, or fit with randomised=False"
        )
    check_ids(ids)
    digests = (hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest() for name in ids)
    return np.array([(int.from_bytes(digest[:8]) >> 11) * 2.0**-53 for digest in digests])


def _blocks(sorted_probs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return, by place in falling order: the sum of larger probabilities, of equal ones, and the rank."""
    N, C = sorted_probs.shape
    before = np.concatenate([np.zeros((N, 1)), sorted_probs.cumsum(axis=1)], axis=1)
    new = np.concatenate([np.ones((N, 1), dtype=bool), sorted_probs[:, 1:] < sorted_probs[:, :-1]], axis=1)
    last = np.concatenate([new[:, 1:], np.ones((N, 1), dtype=bool)], axis=1)
    first = np.maximum.accumulate(np.where(new, np.arange(C), 0), axis=1)
    end = np.minimum.accumulate(np.where(last, np.arange(C), C)[:, ::-1], axis=1)[:, ::-1]
    larger = np.take_along_axis(before, first, axis=1)
    return larger, np.take_along_axis(before, end + 1, axis=1) - larger, first + 1.0
