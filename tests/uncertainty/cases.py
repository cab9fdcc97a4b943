"""Predictions and answers that the tests of this folder share."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from credibly.records import Examples, Predictions
from credibly.uncertainty.decompose import Uncertainty
from credibly.uncertainty.systems import Answer, answers


def examples(N: int, C: int, labels=None, label_probs=None) -> Examples:
    return Examples(
        ids=tuple(f"row-{index}" for index in range(N)),
        texts=("text",) * N,
        class_names=tuple(f"class-{index}" for index in range(C)),
        labels=np.full(N, -1) if labels is None else np.asarray(labels),
        label_probs=label_probs,
    )


def predictions_of(probs, labels=None, label_probs=None) -> Predictions:
    array = np.asarray(probs, dtype=np.float64)
    return Predictions.from_probs(array, examples(array.shape[-2], array.shape[-1], labels, label_probs))


def dirichlet_of(concentrations, labels=None, label_probs=None) -> Predictions:
    z = np.log(np.asarray(concentrations, dtype=np.float64))
    return Predictions.from_log_concentrations(z, examples(*z.shape, labels, label_probs))


def random_predictions(N=200, M=3, C=3, seed=0, raters=True, unknown=0.0, coarse=False) -> Predictions:
    """Members that know something, rows of unknown label, raters; coarse probabilities make many ties."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, C, N)
    logits = random.normal(0, 1.3, (N, C)) + 1.5 * np.eye(C)[truth] + random.normal(0, 0.8, (M, N, C))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if coarse:
        probs = (np.round(probs * 4) + 1) / (np.round(probs * 4) + 1).sum(-1, keepdims=True)
    shares = random.multinomial(10, random.dirichlet(np.ones(C), N)) / 10
    labels = np.where(random.random(N) < unknown, -1, truth)
    return predictions_of(probs, labels, shares if raters else None)


def answer_of(probs, labels, label_probs=None) -> Answer:
    return answers("ensemble", predictions_of(probs, labels, label_probs), {})[0]


def random_answer(system="ensemble", **options) -> Answer:
    return answers(system, random_predictions(**options), {})[0]


def taken(answer: Answer, rows: np.ndarray, groups=None) -> Answer:
    """The answer on these rows, some perhaps more than once."""
    parts = {part.name: getattr(answer.uncertainty, part.name)[rows] for part in fields(Uncertainty)}
    return replace(
        answer,
        probs=answer.probs[rows],
        uncertainty=Uncertainty(**parts),
        labels=answer.labels[rows],
        label_probs=None if answer.label_probs is None else answer.label_probs[rows],
        ids=tuple(map(str, range(len(rows)))),
        concentrations=None,
        groups=groups,
    )


def copied(answer: Answer, times: int) -> Answer:
    """Every row so many times, its copies in one group."""
    rows = np.repeat(np.arange(len(answer.ids)), times)
    return taken(answer, rows, groups=rows)
