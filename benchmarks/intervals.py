"""A thousand resamples of 10,000 rows: seconds a metric, against a loop over scikit-learn and others.

The other side scores the very same resamples one after the other; it runs 20 of them and is scaled up.
Where both have a metric their figures on those resamples must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from benchmarks.measure import Result, load, say, seconds_of, spread, write
from credibly.records import Examples, FloatArray, IntArray, Predictions
from credibly.uncertainty.numerics import entropy
from credibly.uncertainty.scoring.intervals import SHIFT_FIGURES, resampled, score, score_shift
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.scoring.scores import METRICS
from credibly.uncertainty.systems import Answer, answers

NAME = "intervals"
WHAT = "seconds of the slowest metric's interval (1,000 resamples of 10,000 rows) / 1"
SECONDS_ALLOWED = 1.0
ROWS, MEMBERS, RESAMPLES, LOOPED = 10_000, 10, 1000, 20
ROUNDS = 3
TOLERANCE = 1e-5
"""By which a figure may differ from the other side's, which may count in float32."""

Loop = Callable[[Answer, IntArray], float]
"""Scores the rows at these indices."""


def made_answer(C: int, seed: int) -> Answer:
    """Return an ensemble's answer on made rows, with raters' shares."""
    random = np.random.default_rng([seed, C])
    logits = 2.0 * random.normal(size=(ROWS, C))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (truth.cumsum(axis=1) < random.uniform(size=(ROWS, 1))).sum(axis=1).clip(max=C - 1)
    shares = np.stack([random.multinomial(20, row) for row in truth]) / 20
    examples = Examples(
        ids=tuple(map(str, range(ROWS))),
        texts=("text",) * ROWS,
        class_names=tuple(f"class {index}" for index in range(C)),
        labels=labels,
        label_probs=shares,
    )
    noise = 0.5 * random.normal(size=(MEMBERS, ROWS, C))
    return answers("ensemble", Predictions.from_logits(1.2 * logits + noise, examples), {})[0]


def ours(name: str, answer: Answer, shifted: Answer) -> Callable[[], Any]:
    """Return what computes a metric with its interval."""
    if name in SHIFT_FIGURES:
        return lambda: score_shift([answer], [shifted], RESAMPLES, metrics=[])
    return lambda: score([answer], RESAMPLES, metrics=[name])


def loop_of(name: str, C: int) -> Loop | None:
    """Return the other side's way to a metric on some rows; None where it has none."""
    macro = {"average": "macro", "zero_division": 0}
    binary = C == 2

    def classes(figure: Callable[..., float], **settings: str) -> Loop:
        if binary:
            return lambda answer, rows: figure(answer.labels[rows], answer.probs[rows, 1])
        return lambda answer, rows: figure(answer.labels[rows], answer.probs[rows], **settings)

    def labels(figure: Callable[..., float], **settings: Any) -> Loop:
        return lambda answer, rows: figure(answer.labels[rows], answer.predicted[rows], **settings)

    known: dict[str, Loop] = {
        "accuracy": labels(metrics.accuracy_score),
        "f1_macro": labels(metrics.f1_score, **macro),
        "precision_macro": labels(metrics.precision_score, **macro),
        "recall_macro": labels(metrics.recall_score, **macro),
        "nll": lambda answer, rows: metrics.log_loss(
            answer.labels[rows], answer.probs[rows], labels=range(C)
        ),
        "brier": lambda answer, rows: metrics.brier_score_loss(
            answer.labels[rows], answer.probs[rows], labels=range(C), scale_by_half=False
        ),
        "ece": _calibration_error,
        "auroc": classes(metrics.roc_auc_score, multi_class="ovr"),
        "average_precision": classes(metrics.average_precision_score),
        "error_auroc": lambda answer, rows: metrics.roc_auc_score(
            (answer.predicted != answer.labels)[rows], answer.uncertainty.total[rows]
        ),
        "spearman_raters": lambda answer, rows: float(
            spearmanr(answer.uncertainty.aleatoric[rows], _rater_entropy(answer)[rows]).statistic
        ),
    }
    return known.get(name)


def _calibration_error(answer: Answer, rows: IntArray) -> float:
    probs, labels = torch.from_numpy(answer.probs[rows]), torch.from_numpy(answer.labels[rows])
    return float(multiclass_calibration_error(probs, labels, answer.probs.shape[1], n_bins=15, norm="l1"))


def _rater_entropy(answer: Answer) -> FloatArray:
    assert answer.label_probs is not None
    return entropy(answer.label_probs).round(12)


def first_resamples() -> list[IntArray]:
    """Return the rows of the first resamples, as our side draws them."""
    rows: list[IntArray] = []
    for counts in Resampling(RESAMPLES).chunks(ROWS):
        rows += [np.repeat(np.arange(ROWS), column.astype(int)) for column in counts.T]
        if len(rows) >= LOOPED:
            break
    return rows[:LOOPED]


def compare(name: str, C: int, answer: Answer, shifted: Answer, drawn: list[IntArray]) -> dict[str, Any]:
    """Return both sides' seconds for one metric, in turns, and the largest difference of their figures."""
    loop, seconds, scaled = loop_of(name, C), [], []
    looped: list[float] = []
    for _ in range(ROUNDS):
        seconds.append(seconds_of(ours(name, answer, shifted)))
        if loop:
            looped.clear()
            spent = seconds_of(lambda: looped.extend(loop(answer, rows) for rows in drawn))
            scaled.append(spent * RESAMPLES / LOOPED)
    row: dict[str, Any] = {"seconds": spread(seconds)}
    if loop:
        difference = np.abs(resampled([answer], name, RESAMPLES)[:LOOPED] - looped).max()
        row |= {"loop_seconds": spread(scaled), "times_as_fast": median(scaled) / median(seconds)}
        row["largest_difference"] = float(difference)
    say(f"C = {C} {name}: {median(seconds):.3f} s" + (f", loop {median(scaled):.1f} s" if loop else ""))
    return row


def main() -> None:
    """Measure every metric for two and for six classes; the slowest is judged."""
    load_before = load()
    drawn = first_resamples()
    found: dict[str, dict[str, Any]] = {}
    together: dict[str, Any] = {}
    for C in (2, 6):
        answer, shifted = made_answer(C, 0), made_answer(C, 1)
        found[f"{C} classes"] = {name: compare(name, C, answer, shifted, drawn) for name in METRICS}
        together[f"{C} classes"] = spread(
            [seconds_of(lambda one=answer: score([one], RESAMPLES)) for _ in range(ROUNDS)]
        )
    rows = {f"{name}, {classes}": row for classes, part in found.items() for name, row in part.items()}
    slowest = max(rows, key=lambda name: rows[name]["seconds"]["median"])
    seconds = [row["seconds"]["median"] for row in rows.values()]
    loops = [row["loop_seconds"]["median"] for row in rows.values() if "loop_seconds" in row]
    result = Result(
        name=NAME,
        what=WHAT,
        ratio=max(seconds) / SECONDS_ALLOWED,
        unit="seconds; the sides' spread is over metrics",
        sides={"ours": seconds, "loop": loops},
        at_most=1.0,
        holds=all(row.get("largest_difference", 0.0) <= TOLERANCE for row in rows.values()),
        figures={
            "slowest": slowest,
            "loop": f"{LOOPED} of {RESAMPLES} resamples, scaled",
            "all_metrics_of_one_set_together": together,
            "metrics": found,
        },
    )
    write(result, load_before)


if __name__ == "__main__":
    main()
