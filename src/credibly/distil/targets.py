"""What the student learns from: saved predictions as Dirichlet targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credibly.records import Predictions
from credibly.uncertainty.combine import combine


@dataclass(frozen=True)
class DirichletTargets:
    """A Dirichlet for each example that stands for the members' spread.

    Args:
        mean: float32, (N, C), normalised: the ensemble's prediction.
        precision: float32, (N,): the larger, the less the members differ.
        members: float32, (M, N, C), normalised: what each member says; None where they are not known apart.
    """

    mean: NDArray[np.float32]
    precision: NDArray[np.float32]
    members: NDArray[np.float32] | None = None

    @classmethod
    def joined(cls, parts: Sequence[DirichletTargets]) -> DirichletTargets:
        """Return the targets of several parts, whose members are known, one part after the other."""
        known = [part.members for part in parts if part.members is not None]
        return cls(
            np.concatenate([part.mean for part in parts]),
            np.concatenate([part.precision for part in parts]),
            np.concatenate(known, axis=1) if len(known) == len(parts) else None,
        )


def dirichlet_targets(predictions: Predictions, highest_precision: float) -> DirichletTargets:
    """Return the proxy Dirichlet of Ryabinin et al. (2021), section 3.

    See https://arxiv.org/abs/2105.06987. Its mean is the members' mean of probabilities. Its
    precision comes from Stirling's approximation of the maximum-likelihood estimate,

        beta_0 = (C - 1) / (2 sum_c mean_c (ln mean_c - mean over members of ln p_c)),

    which grows without bound as the members agree; it is cut at `highest_precision`.
    """
    mean = combine(predictions)
    log_probs = predictions.log_probs.astype(np.float64)
    spread = (mean * (np.log(mean) - log_probs.mean(axis=0))).sum(axis=-1)
    C = mean.shape[-1]
    lowest_spread = (C - 1) / (2.0 * highest_precision)
    precision = (C - 1) / (2.0 * np.maximum(spread, lowest_spread))
    members = np.exp(log_probs).astype(np.float32)
    return DirichletTargets(mean.astype(np.float32), precision.astype(np.float32), members)
