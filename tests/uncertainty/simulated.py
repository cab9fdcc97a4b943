"""Models whose calibration in the population is known: what the simulations draw from."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit, softmax

from credibly.uncertainty.scoring.binning import BINS, bin_of
from uncertainty.cases import answer_of

KINDS = ("confident", "broad", "vague", "six")
"""Confidences of a good binary model, even over [1/2, 1], of a poor binary one, of a six-class model."""

SURE = "sure"
"""Of a model that is almost always right: 99.6 % on average, half of the rows above 99.8."""

FAULTS = ("none", "over 3 %", "over 10 %", "too sharp")
"""Perfect; more confident than right by 3 and by 10 points; logits twice as large as they should be."""


def confidences(kind, N, random):
    if kind == "confident":
        return expit(np.abs(random.normal(3, 2, N)))
    if kind == "broad":
        return 0.5 + 0.5 * random.random(N)
    if kind == "sure":
        return expit(np.abs(random.normal(6.5, 1.5, N)))
    if kind == "vague":
        return expit(np.abs(random.normal(0, 1, N)))
    return softmax(random.normal(0, 2, (N, 6)), -1).max(-1)


def chance_of_right(confidence, fault):
    if fault == "too sharp":
        return expit(logit(np.clip(confidence, 1e-9, 1 - 1e-12)) / 2)
    over = {"none": 0.0, "over 3 %": 0.03, "over 10 %": 0.1}[fault]
    return np.clip(confidence - over, 0, 1)


def true_error(kind, fault, N=2_000_000):
    """The population's calibration error of the binned model, to about 0.02 points."""
    confidence = confidences(kind, N, np.random.default_rng(12345))
    gaps = np.bincount(bin_of(confidence), confidence - chance_of_right(confidence, fault), minlength=BINS)
    return float(np.abs(gaps).sum() / N)


def drawn(kind, fault, N, random):
    """Confidences and whether each row is right."""
    confidence = confidences(kind, N, random)
    return confidence, random.random(N) < chance_of_right(confidence, fault)


def drawn_answer(N, random, over=0.0):
    """A whole answer of a binary model: calibrated but for logits too large by a factor."""
    z = random.normal(0.5, 1.7, N)
    labels = (random.random(N) < expit(z)).astype(int)
    p = expit(z * (1 + over))
    return answer_of(np.stack([1 - p, p], -1)[None], labels)
