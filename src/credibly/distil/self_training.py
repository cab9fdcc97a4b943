"""Self-training: a student learns what the one before it says, and the members' opinion holds it.

As Noisy Student (Xie et al. 2020, https://arxiv.org/abs/1911.04252) has it, the one that labels drops no
units and the one that learns does, labels are soft, and each student is a new one: it starts from the
language model's weights and not from the last student's, so that it takes over no more than what that one
says. Where they learn true labels beside the new ones, here the members' opinion stays, as an anchor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from credibly.distil.targets import DirichletTargets


def anchored(opinions: DirichletTargets, said: NDArray[np.float32], share: float) -> DirichletTargets:
    """Return what the next student learns: the members' mean and a student's, mixed.

    The precision stays the members': a student knows of their spread only what it learned of it.

    Args:
        opinions: the members', for N texts.
        said: (N, C), a student's probabilities of them.
        share: weight of the members' mean.

    >>> opinions = DirichletTargets(np.array([[0.5, 0.5]]), np.array([7.0]))
    >>> anchored(opinions, np.array([[0.9, 0.1]]), 0.25).mean
    array([[0.8, 0.2]], dtype=float32)
    """
    mixed = share * opinions.mean + (1.0 - share) * said
    return replace(opinions, mean=np.asarray(mixed, dtype=np.float32))
