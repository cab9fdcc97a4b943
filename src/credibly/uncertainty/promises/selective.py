"""Abstention: answer where the uncertainty is low enough, and promise how often such answers are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError, did_you_mean
from credibly.uncertainty.exact import (
    chance_of_so_few,
    check_share,
    checked_column,
    conformal_quantile,
    rows_without_error,
)

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MODES = ("risk", "coverage")

ORDERING_SHARE = 0.2
"""Of the calibration rows, to place the thresholds that the others test."""

START_SHARE, START_ROWS = 0.7, 1.6
"""Where the walk begins: lower than where the placing rows look best, which is partly luck, by this share of
the rows answered there, yet so that 1.6 times the fewest possible are tested (one may then be wrong). At 300
rows, 7 % of them wrong, for a risk of 5 % this found a threshold in all of 150 simulated splits, a walk
from the best-looking one in 110."""


@dataclass(frozen=True)
class Abstention:
    """Answers rows whose uncertainty is at most a threshold; what is promised depends on how it was fitted.

    Args:
        mode: ``risk``: P(error rate among the answered > level) <= delta. ``coverage``: a further row is
            answered with probability `level` or more; nothing is said of errors.
        level: the risk or the coverage asked for.
        threshold: of the uncertainty, answered if at most that; None if nothing is answered.
        rows: calibration rows that it was tested on.
        answered: how many of those it answers.
        wrong: how many of the answered were wrong; None for ``coverage``.
        delta: of ``risk``; None for ``coverage``.

    Raises:
        InputError: the parts do not fit together.
    """

    mode: str
    level: float
    threshold: float | None
    rows: int
    answered: int
    wrong: int | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(
                f"unknown mode '{self.mode}'{did_you_mean(self.mode, MODES)}; expected risk or coverage"
            )
        check_share(self.mode, self.level)
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise InputError(f"expected a finite threshold, or None to answer nothing, got {self.threshold}")
        if (self.mode == "risk") != (self.wrong is not None and self.delta is not None):
            raise InputError(f"expected wrong and delta for 'risk' and for it alone, got {self}")

    @classmethod
    def at_risk(
        cls,
        uncertainty: ArrayLike,
        wrong: ArrayLike,
        risk: float,
        delta: float = 0.05,
        *,
        thresholds: ArrayLike | None = None,
        seed: int = 0,
    ) -> Abstention:
        """Return the threshold that answers most, with P(error rate among the answered > risk) <= delta.

        Learn-then-Test (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052) with fixed-sequence
        testing. Why it holds, for any score and model, if rows are independent and alike:

        *One threshold t, fixed before these rows are seen.* Let R(t) be the error rate among all rows
        with uncertainty <= t, and n of the calibration rows be answered, K of them wrong. n is random,
        but which rows are answered does not depend on the labels: given n, the answered are n
        independent draws from the rows with uncertainty <= t, so K ~ Binomial(n, R(t)). Hence if
        R(t) > risk, p = P(Binomial(n, risk) <= K) is at most delta with probability at most delta,
        whatever n is, and so on average over n. Rows that tie with t are all answered, now as
        later; ties change nothing. p = 1 if n = 0.

        *Several.* They are tested in a fixed order, and the first with p > delta ends the walk. Let t*
        be the first in that order with R(t*) > risk, which the tested rows do not decide. To end on a
        threshold whose risk is too high the walk must pass t*, which has probability at most delta: no
        correction for their number, and R need not be monotone.

        *Where they come from.* At uncertainties of the tested rows themselves the first argument fails:
        given a threshold there, the counts are no longer binomial with that rate. So without
        `thresholds` a fifth of the rows, chosen by the seed, only place them, at their own uncertainties:
        their labels say where the walk begins (`START_SHARE`), and it goes up from there (split
        fixed-sequence testing). The others test.

        Args:
            uncertainty: (N,), higher is less sure: total entropy, 1 - largest probability, ...
            wrong: bool, (N,): whether the predicted class is not the label.
            risk: highest error rate among the answered.
            delta: how often, over calibration sets, it may be above that.
            thresholds: those to test, in this order, fixed without these rows; then all rows test.
            seed: of the rows that place thresholds.

        Raises:
            InputError: too few rows: the message says how many answered rows without an error would do;
                or arguments that do not fit.

        >>> uncertainty = np.linspace(0, 1, 400)
        >>> fitted = Abstention.at_risk(uncertainty, wrong=uncertainty > 0.8, risk=0.05)
        >>> fitted.threshold.__round__(2), fitted.answers([0.3, 0.9]).tolist()
        (0.82, [True, False])
        """
        check_share("risk", risk)
        check_share("delta", delta)
        scores, errors = checked_errors(uncertainty, wrong)
        least, N = rows_without_error(risk, delta), len(scores)
        ordering = 0 if thresholds is not None else _ordering(N)
        if N - ordering < least:
            raise InputError(
                f"expected {least} answered rows or more, even if none of them is wrong, for a risk of "
                f"{risk} with delta = {delta}: got {N - ordering} to test on{_set_aside(N, ordering, least)}"
            )
        rows = np.random.default_rng(seed).permutation(N)
        placing, testing = rows[:ordering], rows[ordering:]
        if thresholds is None:
            enough = START_ROWS * least * len(placing) / len(testing)
            sequence = _placed(scores[placing], errors[placing], risk, enough)
        else:
            sequence = checked_column(thresholds, "thresholds")
        answered, wrong_answers = _counts(scores[testing], errors[testing], sequence)
        passed = chance_of_so_few(wrong_answers, answered, risk) <= delta
        steps = len(passed) if passed.all() else int(np.argmin(passed))
        if steps == 0:
            return cls("risk", risk, None, len(testing), 0, 0, delta)
        best = int(np.argmax(sequence[:steps]))
        found = float(sequence[best])
        return cls("risk", risk, found, len(testing), int(answered[best]), int(wrong_answers[best]), delta)

    @classmethod
    def at_coverage(cls, uncertainty: ArrayLike, coverage: float) -> Abstention:
        """Return the threshold that answers a further row with probability `coverage` or more.

        The ceil((n + 1) coverage)-th smallest uncertainty of n rows, which makes it hold for any number of
        rows; labels are not needed. How often the answers are wrong is not promised.

        Args:
            uncertainty: (N,), higher is less sure.
            coverage: share to be answered.

        Raises:
            InputError: too few rows (the message says how many would do), or a coverage that is no share.
        """
        scores = checked_column(uncertainty, "uncertainty")
        threshold = conformal_quantile(scores, coverage)
        return cls("coverage", coverage, threshold, len(scores), int((scores <= threshold).sum()))

    def answers(self, uncertainty: ArrayLike) -> BoolArray:
        """Return which rows are answered: uncertainty (N,) -> bool, (N,)."""
        scores = checked_column(uncertainty, "uncertainty")
        return np.zeros(len(scores), dtype=bool) if self.threshold is None else scores <= self.threshold

    def in_words(self) -> str:
        """Return what is promised, in one sentence."""
        level = f"{100 * self.level:.4g} %"
        if self.mode == "coverage":
            return f"A new text is answered with a chance of {level} or more; of errors nothing is promised."
        sure = f"with a confidence of {100 * (1 - (self.delta or 0.0)):.4g} %"
        if self.threshold is None:
            return (
                f"It abstains on every text: {self.rows} calibration rows do not show of any threshold, "
                f"{sure}, that at most {level} of the answers are wrong."
            )
        return (
            f"At most {level} of the answers are wrong, {sure}: of {self.rows} calibration rows it "
            f"answered {self.answered}, {self.wrong} of them wrong."
        )

    def as_json(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Abstention:
        """Return the abstention that `as_json` wrote.

        Raises:
            InputError: a key is missing, or a value does not fit.
        """
        try:
            threshold, wrong, delta = content["threshold"], content["wrong"], content["delta"]
            return cls(
                mode=str(content["mode"]),
                level=float(content["level"]),
                threshold=None if threshold is None else float(threshold),
                rows=int(content["rows"]),
                answered=int(content["answered"]),
                wrong=None if wrong is None else int(wrong),
                delta=None if delta is None else float(delta),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected an abstention as as_json writes it, got {content!r} ({error})"
            ) from None


def _placed(scores: FloatArray, errors: BoolArray, risk: float, enough: float) -> FloatArray:
    """Return the distinct scores in rising order, from the one at which the walk begins.

    That is somewhat below the largest at which p is least, see `START_SHARE`.
    """
    values = np.unique(scores)
    answered, wrong = _counts(scores, errors, values)
    p = chance_of_so_few(wrong, answered, risk)
    best = int(answered[len(p) - 1 - int(np.argmin(p[::-1]))])
    return values[np.searchsorted(answered, max(START_SHARE * best, min(best, enough))) :]


def _counts(
    scores: FloatArray, errors: BoolArray, thresholds: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many scores are at most each threshold, and how many errors there are among those."""
    order = np.argsort(scores, kind="stable")
    answered = np.searchsorted(scores[order], thresholds, side="right").astype(np.int64)
    return answered, np.concatenate([[0], np.cumsum(errors[order])])[answered]


def _ordering(N: int) -> int:
    return max(1, round(ORDERING_SHARE * N))


def _set_aside(N: int, ordering: int, least: int) -> str:
    if not ordering:
        return ""
    needed = next(n for n in count(least) if n - _ordering(n) >= least)
    return f", as {ordering} of {N} place the thresholds; {needed} rows in all would do, or give thresholds"


def checked_errors(uncertainty: ArrayLike, wrong: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Return uncertainty, float64, and wrong, bool, both (N,), or raise InputError."""
    scores, errors = checked_column(uncertainty, "uncertainty"), np.asarray(wrong)
    if errors.shape != scores.shape or errors.dtype != np.bool_:
        raise InputError(
            f"expected wrong as booleans of shape {scores.shape}, got {errors.dtype} of shape {errors.shape}"
        )
    return scores, errors
