"""Why a text is left unanswered: its classes are close, or nothing like it has been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError
from credibly.uncertainty.exact import checked_column

FloatArray = NDArray[np.float64]

AMBIGUOUS, UNFAMILIAR = "ambiguous", "unfamiliar"

QUANTILES = 1000
"""Most calibration values that are kept of each uncertainty: a thousandth is fine enough to compare by."""


@dataclass(frozen=True)
class Reasons:
    """Names the uncertainty that stands out more, each measured against the calibration rows.

    The two are not on one scale: aleatoric uncertainty is mostly many times the epistemic. So each is
    turned into its quantile, the share of calibration rows that lie below it. A row is ``unfamiliar``
    where its epistemic quantile is at least its aleatoric one and above none, else ``ambiguous``. A
    single member has no epistemic uncertainty, so that all its rows are ambiguous. Another score of
    being far from the training data may stand for epistemic.

    Args:
        aleatoric: calibration rows' values in rising order, at most 1000 of them.
        epistemic: likewise.

    Raises:
        InputError: no values, or some that are not finite or not in order.

    >>> reasons = Reasons.fit(aleatoric=[0.1, 0.3, 0.6], epistemic=[0.0, 0.01, 0.02])
    >>> reasons.of(aleatoric=[0.65, 0.2], epistemic=[0.01, 0.03])
    ('ambiguous', 'unfamiliar')
    """

    aleatoric: tuple[float, ...]
    epistemic: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("aleatoric", "epistemic"):
            values = checked_column(getattr(self, name), name)
            if not len(values) or (np.diff(values) < 0).any():
                raise InputError(f"expected {name} uncertainties of calibration rows in rising order")

    @classmethod
    def fit(cls, aleatoric: ArrayLike, epistemic: ArrayLike) -> Reasons:
        """Return the reasons that go by these calibration rows' uncertainties, each (N,).

        Raises:
            InputError: no rows, or values that are not finite.
        """
        return cls(_kept(aleatoric, "aleatoric"), _kept(epistemic, "epistemic"))

    def of(self, aleatoric: ArrayLike, epistemic: ArrayLike) -> tuple[str, ...]:
        """Return ``ambiguous`` or ``unfamiliar`` for each of N rows, by its uncertainties, each (N,).

        Raises:
            InputError: values that are not finite, or another number of the one than of the other.
        """
        first = _share_below(self.aleatoric, checked_column(aleatoric, "aleatoric"))
        second = _share_below(self.epistemic, checked_column(epistemic, "epistemic"))
        if len(first) != len(second):
            raise InputError(f"expected both uncertainties of each row, got {len(first)} and {len(second)}")
        unfamiliar = (second >= first) & (second > 0)
        return tuple(UNFAMILIAR if flag else AMBIGUOUS for flag in unfamiliar)

    def as_json(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        return {"aleatoric": list(self.aleatoric), "epistemic": list(self.epistemic)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Reasons:
        """Return the reasons that `as_json` wrote.

        Raises:
            InputError: a key is missing, or a value does not fit.
        """
        try:
            parts = (tuple(map(float, content[name])) for name in ("aleatoric", "epistemic"))
            return cls(*parts)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected aleatoric and epistemic values, got {content!r:.80} ({error})"
            ) from None


def _kept(values: ArrayLike, name: str) -> tuple[float, ...]:
    array = np.sort(checked_column(values, name))
    places = np.linspace(0, len(array) - 1, min(len(array), QUANTILES)).round().astype(np.int64)
    return tuple(array[places].tolist())


def _share_below(calibration: Sequence[float], values: FloatArray) -> FloatArray:
    return np.asarray(np.searchsorted(calibration, values, side="left") / len(calibration))
