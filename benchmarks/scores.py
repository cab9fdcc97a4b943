"""Every metric that torchmetrics or scikit-learn have too, on the same thousand resamples, both ways.

Both sides are given the indices and make figures of them: ours by counts of rows, which all metrics
share, the other side by a loop that takes each resample's rows and calls the library, of two libraries
the faster one. The loop runs 50 resamples and is scaled up, and torchmetrics runs without its checks of
arguments. Judged is the time for all metrics; the least gain of one metric alone stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn import metrics
from torchmetrics import functional
from torchmetrics.functional import classification

from benchmarks.intervals import made_answer
from benchmarks.measure import Result, alternate, load, seconds_of, write
from credibly.records import IntArray
from credibly.uncertainty.numerics import entropy
from credibly.uncertainty.scoring.resampling import at_a_time, counted
from credibly.uncertainty.scoring.scores import families, values
from credibly.uncertainty.systems import Answer

NAME = "scores"
WHAT = "seconds for all metrics on 1,000 resamples: loop over the faster library / ours"
CLASSES, RESAMPLES, LOOPED, ROUNDS = 3, 1000, 50, 7
AT_LEAST = 5.0
TOLERANCE = 1e-6
"""By which a figure of all rows may differ from a library's."""

Library = Mapping[str, Callable[[IntArray], float]]
"""By metric, what gives its figure on the rows at these indices."""


def scikit_learn(answer: Answer) -> Library:
    """Return scikit-learn's metrics of an answer."""
    assert answer.label_probs is not None
    labels, probs, predicted = answer.labels, answer.probs, answer.predicted
    wrong, total, classes = predicted != labels, answer.uncertainty.total, range(CLASSES)

    def macro(figure: Callable[..., float]) -> Callable[[IntArray], float]:
        return lambda rows: figure(labels[rows], predicted[rows], average="macro", zero_division=0)

    return {
        "accuracy": lambda rows: metrics.accuracy_score(labels[rows], predicted[rows]),
        "f1_macro": macro(metrics.f1_score),
        "precision_macro": macro(metrics.precision_score),
        "recall_macro": macro(metrics.recall_score),
        "nll": lambda rows: metrics.log_loss(labels[rows], probs[rows], labels=classes),
        "brier": lambda rows: metrics.brier_score_loss(
            labels[rows], probs[rows], labels=classes, scale_by_half=False
        ),
        "auroc": lambda rows: metrics.roc_auc_score(labels[rows], probs[rows], multi_class="ovr"),
        "average_precision": lambda rows: metrics.average_precision_score(labels[rows], probs[rows]),
        "error_auroc": lambda rows: metrics.roc_auc_score(wrong[rows], total[rows]),
    }


def torchmetrics(answer: Answer) -> Library:
    """Return torchmetrics' metrics of an answer, in float64 and without checks of arguments."""
    assert answer.label_probs is not None
    labels, predicted, probs = map(torch.tensor, (answer.labels, answer.predicted, answer.probs))
    shares, wrong = map(torch.tensor, (answer.label_probs, 1 * (answer.predicted != answer.labels)))
    total, aleatoric = map(torch.tensor, (answer.uncertainty.total, answer.uncertainty.aleatoric))
    # Entropies that differ by rounding alone are ties, as on our side.
    raters = torch.from_numpy(entropy(answer.label_probs).round(12))
    unchecked: dict[str, Any] = {"validate_args": False}

    def of(
        figure: Callable[..., torch.Tensor], scores: torch.Tensor, truth: torch.Tensor, **settings: Any
    ) -> Callable[[IntArray], float]:
        def on(rows: IntArray) -> float:
            taken = torch.from_numpy(rows)
            return float(figure(scores[taken], truth[taken], **settings))

        return on

    of_classes: dict[str, Any] = {"num_classes": CLASSES, **unchecked}
    macro = {**of_classes, "average": "macro"}
    bins = {**of_classes, "n_bins": 15, "norm": "l1"}
    return {
        "accuracy": of(
            classification.multiclass_accuracy, predicted, labels, **{**macro, "average": "micro"}
        ),
        "f1_macro": of(classification.multiclass_f1_score, predicted, labels, **macro),
        "precision_macro": of(classification.multiclass_precision, predicted, labels, **macro),
        "recall_macro": of(classification.multiclass_recall, predicted, labels, **macro),
        "ece": of(classification.multiclass_calibration_error, probs, labels, **bins),
        "auroc": of(classification.multiclass_auroc, probs, labels, **macro),
        "average_precision": of(classification.multiclass_average_precision, probs, labels, **macro),
        "error_auroc": of(classification.binary_auroc, total, wrong, **unchecked),
        "kl_raters": of(functional.kl_divergence, shares, probs),
        "spearman_raters": of(functional.spearman_corrcoef, aleatoric, raters),
    }


def ours(names: list[str], answer: Answer, drawn: IntArray) -> dict[str, np.ndarray[Any, Any]]:
    """Return metrics on every resample, (R,) by name, out of the rows of each, (R, N)."""
    N = len(answer.ids)
    size, statistics = at_a_time(N), [family(answer) for family in families(names)]
    chunks: list[dict[str, Any]] = []
    for start in range(0, len(drawn), size):
        counts = counted(drawn[start : start + size], N)
        chunks.append(
            {name: found for one in statistics if one for name, found in one(counts).items() if name in names}
        )
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}


def measured(resamples: int = RESAMPLES, looped: int = LOOPED, rounds: int = ROUNDS) -> Result:
    """Return what so many resamples take on both sides, in turns, and how far their figures differ."""
    torch.set_num_threads(1)
    answer = made_answer(CLASSES, 0)
    everything = np.arange(len(answer.ids))
    drawn = np.random.default_rng(0).integers(0, len(everything), (resamples, len(everything)))
    libraries = {"scikit-learn": scikit_learn(answer), "torchmetrics": torchmetrics(answer)}
    names = list(dict.fromkeys(name for library in libraries.values() for name in library))
    sides = {"ours": partial(seconds_of, partial(ours, names, answer, drawn))}
    for name in names:
        sides[f"ours, {name}"] = partial(seconds_of, partial(ours, [name], answer, drawn))
        for library, known in libraries.items():
            if name in known:
                sides[f"{library}, {name}"] = partial(_scaled_loop, known[name], drawn, looped)
    seconds = alternate(sides, rounds)
    found = ours(names, answer, drawn[:looped])
    exact = values(answer, names)
    table = {
        name: _compared(name, seconds, libraries, exact[name], found[name], everything, drawn[:looped])
        for name in names
    }
    loops = [
        sum(seconds[f"{own['library']}, {name}"][at] for name, own in table.items()) for at in range(rounds)
    ]
    least = min(names, key=lambda name: table[name]["times_as_fast"])
    return Result(
        name=NAME,
        what=WHAT,
        ratio=median(loops) / median(seconds["ours"]),
        unit="seconds for all metrics",
        sides={"ours": seconds["ours"], "loop": loops},
        at_least=AT_LEAST,
        holds=all(own["point_difference"] <= TOLERANCE for own in table.values()),
        figures={
            "rows": len(everything),
            "classes": CLASSES,
            "loop": f"{looped} of {resamples} resamples, scaled",
            "least_alone": {least: table[least]["times_as_fast"]},
            "metrics": table,
        },
    )


def _scaled_loop(figure: Callable[[IntArray], float], drawn: IntArray, looped: int) -> float:
    return seconds_of(lambda: [figure(rows) for rows in drawn[:looped]]) * len(drawn) / looped


def _compared(
    name: str,
    seconds: Mapping[str, list[float]],
    libraries: Mapping[str, Library],
    exact: float | None,
    found: np.ndarray[Any, Any],
    everything: IntArray,
    drawn: IntArray,
) -> dict[str, Any]:
    """Return a metric's seconds on both sides, and its largest differences over libraries."""
    holding = {library: known[name] for library, known in libraries.items() if name in known}
    faster = min(holding, key=lambda library: median(seconds[f"{library}, {name}"]))
    alone, loop = median(seconds[f"ours, {name}"]), median(seconds[f"{faster}, {name}"])
    assert exact is not None
    return {
        "seconds": alone,
        "library": faster,
        "library_seconds": loop,
        "times_as_fast": loop / alone,
        "point_difference": max(abs(exact - figure(everything)) for figure in holding.values()),
        "resamples_difference": max(
            abs(float(own) - figure(rows))
            for figure in holding.values()
            for own, rows in zip(found, drawn, strict=True)
        ),
    }


def main() -> None:
    """Measure a thousand resamples and write the result."""
    load_before = load()
    write(measured(), load_before)


if __name__ == "__main__":
    main()
