"""Prediction sets: as many classes a row as it takes to hold the label as often as was promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError, listed
from credibly.records import UNKNOWN, IntArray, check_class_names, check_labels
from credibly.uncertainty.exact import check_share, conformal_quantile, smallest_calibration
from credibly.uncertainty.promises.set_scores import SetScore, checked_probabilities

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)
"""What the penalty of ``raps`` is chosen from, as its authors do."""

TUNING_SHARE = 0.2
"""Of the calibration rows, to choose what ``raps`` is not given; they do not count for its threshold."""


@dataclass(frozen=True)
class PredictionSets:
    """Sets {class: s(row, class) <= threshold} with a promised coverage (split conformal prediction).

    Whatever the model and the data: if a further row is exchangeable with the calibration rows, its set
    holds its label with probability `coverage` or more. The probability is over calibration rows and row
    together; what one calibration set gives varies as `exact.coverage_range` says. With one threshold
    the promise is an average over classes, easy ones above it and hard ones below; with one a class
    (Mondrian, Vovk 2012, https://arxiv.org/abs/1209.2673) it holds for the rows of every class alone, and
    takes enough calibration rows of each. It does not hold on shifted data.

    Args:
        score: how badly a class fits.
        coverage: the promise.
        thresholds: one, or one a class.
        rows: the calibration rows behind each threshold.
        class_names: C unique names.

    Raises:
        InputError: the parts do not fit together.

    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
    >>> fitted = PredictionSets.fit(probabilities, [0, 0, 1], coverage=0.5)
    >>> fitted.thresholds[0].__round__(9), fitted.sets([[0.85, 0.15], [0.5, 0.5]]).tolist()
    (0.2, [[True, False], [False, False]])
    """

    score: SetScore
    coverage: float
    thresholds: tuple[float, ...]
    rows: tuple[int, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        check_share("coverage", self.coverage)
        fits = len(self.thresholds) == len(self.rows) and len(self.rows) in (1, len(self.class_names))
        if not (fits and np.isfinite(self.thresholds).all()):
            raise InputError(
                f"expected one finite threshold with its rows, or one for each of {len(self.class_names)} "
                f"classes, got {self.thresholds} with rows {self.rows}"
            )

    @property
    def class_conditional(self) -> bool:
        """Whether every class has a threshold of its own."""
        return len(self.thresholds) > 1

    @classmethod
    def fit(
        cls,
        probabilities: ArrayLike,
        labels: ArrayLike,
        coverage: float,
        method: str = "lac",
        *,
        class_conditional: bool = False,
        randomised: bool = False,
        ids: Sequence[str] | None = None,
        penalty: float | None = None,
        free: int | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> PredictionSets:
        """Return the sets whose thresholds these calibration rows give.

        Args:
            probabilities: (N, C), each row normalised: a system's answers on rows it did not learn from.
            labels: integers, (N,); rows of unknown class (-1) are left out.
            coverage: the promise, for instance 0.9.
            method: ``lac``, ``aps`` or ``raps``, see `SetScore`.
            class_conditional: promise it for the rows of every class alone.
            randomised: draw u of ``aps`` and ``raps`` by the rows' ids, see `SetScore`.
            ids: N unique names, that no row to be answered shares; needed where randomised.
            penalty: lambda of ``raps``. What is left out of it and of `free` is chosen on a fifth of the
                rows (see `_tuned`), and the thresholds come from the others.
            free: k_reg of ``raps``.
            class_names: C names for messages and figures; their numbers if left out.
            seed: of the draws, and of which rows choose what ``raps`` is not given.

        Raises:
            InputError: too few rows for the promise (the message says how many would do, and of which
                class), or arguments that do not fit.
        """
        check_share("coverage", coverage)
        probs = checked_probabilities(probabilities)
        N, C = probs.shape
        names = tuple(str(index) for index in range(C)) if class_names is None else tuple(class_names)
        if len(names) != C:
            raise InputError(f"expected {C} class names, got {len(names)}: {listed(names)}")
        truth = check_labels(labels, N, C)
        score = SetScore(method, randomised and method != "lac", penalty or 0.0, free or 0, seed)
        calibration = np.flatnonzero(truth != UNKNOWN)
        if method == "raps" and (penalty is None or free is None):
            score, calibration = _tuned(score, penalty, free, probs, truth, calibration, coverage)
        classes = truth[calibration]
        own = score.of(probs, ids)[calibration, classes]
        parts = [own[classes == index] for index in range(C)] if class_conditional else [own]
        _check_rows(parts, coverage, names)
        thresholds = tuple(conformal_quantile(part, coverage) for part in parts)
        return cls(score, float(coverage), thresholds, tuple(map(len, parts)), names)

    def sets(self, probabilities: ArrayLike, ids: Sequence[str] | None = None) -> BoolArray:
        """Return which classes are in each row's set: probabilities (N, C) -> bool, (N, C).

        Raises:
            InputError: another number of classes than fitted on, no probabilities, or no ids where the
                sets are randomised.
        """
        probs = checked_probabilities(probabilities)
        if probs.shape[1] != len(self.class_names):
            raise InputError(
                f"expected {len(self.class_names)} classes as fitted on "
                f"({listed(self.class_names)}), got {probs.shape[1]}"
            )
        return np.asarray(self.score.of(probs, ids) <= np.asarray(self.thresholds))

    def as_json(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        return {
            "score": self.score.as_json(),
            "coverage": self.coverage,
            "thresholds": list(self.thresholds),
            "rows": list(self.rows),
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PredictionSets:
        """Return the sets that `as_json` wrote.

        Raises:
            InputError: a key is missing, or a value does not fit.
        """
        try:
            return cls(
                SetScore.from_json(content["score"]),
                float(content["coverage"]),
                tuple(float(threshold) for threshold in content["thresholds"]),
                tuple(int(rows) for rows in content["rows"]),
                tuple(str(name) for name in content["class_names"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected prediction sets as as_json writes them, got {content!r} ({error})"
            ) from None


def _check_rows(parts: Sequence[FloatArray], coverage: float, names: Sequence[str]) -> None:
    """Raise InputError that names every class with too few rows for thresholds of its own."""
    least = smallest_calibration(coverage)
    short = [
        f"{len(part)} of '{name}'" for name, part in zip(names, parts, strict=False) if len(part) < least
    ]
    if len(parts) > 1 and short:
        raise InputError(
            f"expected {least} calibration rows or more of every class for a coverage of {coverage} in each, "
            f"got {listed(short, 10)}; give more rows, a lower coverage, or class_conditional=False"
        )


def _tuned(
    score: SetScore,
    penalty: float | None,
    free: int | None,
    probs: FloatArray,
    truth: IntArray,
    calibration: NDArray[np.intp],
    coverage: float,
) -> tuple[SetScore, NDArray[np.intp]]:
    """Return ``raps`` with what was left out, and the rows that did not choose it.

    `free` becomes the conformal quantile of the labels' ranks, `penalty` the one of `PENALTIES` whose
    sets are smallest on average, the least such, as the authors do; without randomness, so that the
    choice does not hang on draws.
    """
    least = smallest_calibration(coverage)
    if len(calibration) < 2 * least:
        raise InputError(
            f"expected {2 * least} calibration rows or more for a coverage of {coverage}, half to choose "
            f"what raps was not given, got {len(calibration)}; give penalty and free to need {least}"
        )
    shuffled = np.random.default_rng(score.seed).permutation(calibration)
    tuning = max(least, round(TUNING_SHARE * len(calibration)))
    chosen, rest = shuffled[:tuning], np.sort(shuffled[tuning:])
    rows, labels = probs[chosen], truth[chosen]
    own = rows[np.arange(tuning), labels]
    if free is None:
        free = int(conformal_quantile(1.0 + (rows > own[:, None]).sum(axis=1), coverage))
    plain = replace(score, randomised=False, free=free)
    options = [replace(plain, penalty=value) for value in (PENALTIES if penalty is None else (penalty,))]
    sizes = []
    for option in options:
        scores = option.of(rows)
        sizes.append((scores <= conformal_quantile(scores[np.arange(tuning), labels], coverage)).sum())
    return replace(options[int(np.argmin(sizes))], randomised=score.randomised), rest
