"""How figures are named and written, in one place for the findings, the terminal and the page.

Everything here turns a number of report.json into text; nothing computes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from credibly.uncertainty.scoring.scores import METRICS

UNDEFINED = "–"
"""What stands where a figure is undefined."""

Figure = Mapping[str, Any]
"""A figure as report.json holds it: value, low, high, and spread where there is one."""


@dataclass(frozen=True)
class MetricWords:
    """How a metric is written.

    Args:
        label: its name in a table's head.
        decimals: digits after the point.
        percent: whether it is a share that is written in per cent.
        meaning: one line for a reader who has not met it.
    """

    label: str
    decimals: int
    percent: bool
    meaning: str


METRIC_WORDS: dict[str, MetricWords] = {
    "accuracy": MetricWords("Accuracy", 1, True, "share of texts answered rightly"),
    "nll": MetricWords(
        "NLL", 3, False, "negative log-likelihood: the mean surprise at the true class, in nats"
    ),
    "brier": MetricWords("Brier", 3, False, "squared error of the probabilities, summed over the classes"),
    "ece": MetricWords(
        "ECE, plain", 1, True, "gap between confidence and accuracy in 15 bins; biased upwards"
    ),
    "ece_debiased": MetricWords("ECE, debiased", 1, True, "the same gap with the sampling noise taken out"),
    "ece_equal_mass": MetricWords(
        "ECE, equal mass", 1, True, "the plain gap in 15 bins that hold as many texts each"
    ),
    "ece_classwise": MetricWords(
        "ECE, class-wise", 1, True, "the plain gap of every class's probability, mean over the classes"
    ),
    "smooth_ece": MetricWords(
        "Smooth ECE", 1, True, "the gap without bins: each text is spread over its like"
    ),
    "brier_reliability": MetricWords(
        "Brier: reliability", 4, False, "part of Brier that calibration could remove; lower is better"
    ),
    "brier_resolution": MetricWords(
        "Brier: resolution", 4, False, "part that telling texts apart takes off Brier; higher is better"
    ),
    "brier_uncertainty": MetricWords(
        "Brier: uncertainty", 4, False, "Brier of one who knows no more than the classes' shares"
    ),
    "brier_within_bins": MetricWords(
        "Brier: within bins",
        4,
        False,
        "what 15 bins hide: Brier is reliability - resolution + uncertainty + this",
    ),
    "aurc": MetricWords("AURC", 3, False, "mean risk when only the most certain texts are answered"),
    "eaurc": MetricWords("E-AURC", 3, False, "AURC above that of the same answers with all mistakes last"),
    "risk_at_80": MetricWords("Risk at 80 %", 1, True, "mistakes when the most certain 80 % are answered"),
    "risk_at_90": MetricWords("Risk at 90 %", 1, True, "mistakes when the most certain 90 % are answered"),
    "coverage_at_1": MetricWords(
        "Coverage at 1 %",
        1,
        True,
        "texts that could be answered with at most 1 % mistakes among them, seen afterwards",
    ),
    "coverage_at_5": MetricWords(
        "Coverage at 5 %",
        1,
        True,
        "texts that could be answered with at most 5 % mistakes among them, seen afterwards",
    ),
    "augrc": MetricWords(
        "AUGRC", 3, False, "share of all texts answered wrongly, mean over how many are answered"
    ),
    "error_auroc": MetricWords(
        "Error AUROC", 3, False, "how well total uncertainty ranks mistakes above right answers"
    ),
    "f1_macro": MetricWords("F1, macro", 1, True, "mean over the classes of F1"),
    "precision_macro": MetricWords("Precision, macro", 1, True, "mean over the classes of precision"),
    "recall_macro": MetricWords("Recall, macro", 1, True, "mean over the classes of recall"),
    "auroc": MetricWords(
        "AUROC", 3, False, "how well the class's probability ranks its texts above the others"
    ),
    "average_precision": MetricWords("Average precision", 3, False, "area under the precision-recall curve"),
    "mean_total": MetricWords("Total", 3, False, "mean total uncertainty, in nats"),
    "mean_aleatoric": MetricWords("Aleatoric", 3, False, "mean aleatoric uncertainty, in nats"),
    "mean_epistemic": MetricWords("Epistemic", 4, False, "mean epistemic uncertainty, in nats"),
    "mean_variance": MetricWords(
        "Variance", 5, False, "mean variance of the predicted class's probability over members"
    ),
    "nll_raters": MetricWords(
        "NLL to raters", 3, False, "cross-entropy of the probabilities with the shares of people's answers"
    ),
    "kl_raters": MetricWords(
        "KL to raters", 3, False, "the same less the entropy of people's own answers: 0 is their shares"
    ),
    "spearman_raters": MetricWords(
        "Spearman to raters", 3, False, "rank correlation of aleatoric uncertainty with people's disagreement"
    ),
    "ood_auroc": MetricWords(
        "Shift AUROC, total",
        3,
        False,
        "how well total uncertainty tells this domain's texts from the test texts; 0.5 is chance",
    ),
    "ood_auroc_epistemic": MetricWords(
        "Shift AUROC, epistemic", 3, False, "the same by epistemic uncertainty"
    ),
    "precision": MetricWords("Precision", 1, True, "share of the texts given this class that are of it"),
    "recall": MetricWords("Recall", 1, True, "share of the class's texts that are given it"),
}

MAIN_METRICS = ("accuracy", "nll", "brier", "ece_debiased", "aurc", "error_auroc", "mean_epistemic")
"""The figures of the first table; the others follow in a fuller one."""

SHIFT_METRICS = ("accuracy", "nll", "ece_debiased", "aurc", "mean_total", "mean_epistemic", "ood_auroc")
"""The figures of a shift set's table."""

SCORE_WORDS = {
    "max_probability": ("1 − highest probability", "how far the predicted class is from certain"),
    "total": ("Total uncertainty", "entropy of the prediction"),
    "epistemic": ("Epistemic uncertainty", "how far the members differ, or how little the student knows"),
    "energy": ("Energy", "how small the Dirichlet is that the student emits: -ln of its concentrations' sum"),
    "mahalanobis": ("Mahalanobis distance", "to the nearest class of the training texts' embeddings"),
    "relative_mahalanobis": (
        "Relative Mahalanobis distance",
        "the same less the distance to all training texts as one class",
    ),
    "nearest_neighbours": ("Nearest neighbours", "distance to the tenth nearest training text's embedding"),
    "two_depths": (
        "Two depths",
        "distances to the training texts in what is said (nearest neighbours) and in how it is put "
        "(Mahalanobis, half-way up the model), added up",
    ),
}
"""Scores of the unknown: name and meaning, in the order of their tables."""

COST_METRICS = ("seconds", "parameters", "bytes", "rows_per_second")


def higher_is_better(metric: str) -> bool | None:
    """Return which way a metric is better; None where neither is (an uncertainty is no merit)."""
    return METRICS[metric].higher_is_better if metric in METRICS else None


def words_of(metric: str) -> MetricWords:
    """Return how a metric is written; one that is not in the table is written by its own name."""
    return METRIC_WORDS.get(metric, MetricWords(metric.replace("_", " "), 3, False, ""))


def number(metric: str, value: float | None, unit: bool = True) -> str:
    """Write a value of a metric, without its interval.

    >>> number("accuracy", 0.8372), number("nll", 0.3881), number("auroc", None)
    ('83.7 %', '0.388', '–')
    """
    if value is None:
        return UNDEFINED
    if value == 0 and not words_of(metric).percent:
        return "0"  # exactly, as the epistemic uncertainty of one member is
    words = words_of(metric)
    text = f"{100 * value if words.percent else value:.{words.decimals}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return f"{text} %" if words.percent and unit else text


def bracket(metric: str, figure: Figure) -> str:
    """Write a figure's interval; nothing where there is none, or where it is exactly zero.

    >>> bracket("nll", {"value": 0.388, "low": 0.3612, "high": 0.415})
    '[0.361, 0.415]'
    """
    low, high = figure.get("low"), figure.get("high")
    if low is None or high is None or low == high == 0:
        return ""
    return f"[{_end(metric, low)}, {_end(metric, high)}]"


def _end(metric: str, value: float) -> str:
    """Write an interval's end; one that is not zero must not look like zero, for much hangs on it.

    >>> _end("accuracy", 0.0), _end("accuracy", 0.0004)
    ('0.0', '0.04')
    """
    words = words_of(metric)
    scaled = 100 * value if words.percent else value
    places = range(words.decimals, words.decimals + 3)
    shown = next((f"{scaled:.{places_}f}" for places_ in places if float(f"{scaled:.{places_}f}")), None)
    return shown or f"{0:.{words.decimals}f}"


def with_interval(metric: str, figure: Figure) -> str:
    """Write a figure with its interval.

    >>> with_interval("accuracy", {"value": 0.8372, "low": 0.822, "high": 0.851})
    '83.7 % [82.2, 85.1]'
    """
    return f"{number(metric, figure['value'])} {bracket(metric, figure)}".rstrip()


def difference(metric: str, figure: Figure) -> str:
    """Write a difference with its interval; percentages differ by points.

    >>> difference("accuracy", {"value": -0.012, "low": -0.02, "high": -0.004})
    '-1.2 points [-2.0, -0.4]'
    """
    text = number(metric, figure["value"], False)
    points = " points" if words_of(metric).percent else ""
    sign = "" if text.startswith("-") or figure["value"] is None or float(text) == 0 else "+"
    return f"{sign}{text}{points} {bracket(metric, figure)}".rstrip()


def count(value: int | float) -> str:
    """Write a whole number with commas between thousands.

    >>> count(22713216)
    '22,713,216'
    """
    return f"{round(value):,}"


def cost(name: str, value: float | None) -> str:
    """Write a cost with its unit.

    >>> cost("seconds", 75.2), cost("parameters", 22713216), cost("bytes", 90_900_000)
    ('75 s', '22.7 M', '90.9 MB')
    """
    if value is None:
        return UNDEFINED
    if name == "seconds":
        return _duration(value)
    number_, _, scale = _scaled(value).partition(" ")
    return f"{number_} {scale}B" if name == "bytes" else f"{number_} {scale}".rstrip()


def visible(text: str) -> str:
    r"""Show control characters as their pictures, and what is no character as the replacement mark.

    A NUL or a lone surrogate would make the page, or the whole file, unreadable.

    >>> visible("a\x00b"), visible("two\nlines")
    ('a␀b', 'two\nlines')
    """
    if text.isprintable():
        return text
    pictures = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
    clean = text.translate(pictures | dict.fromkeys(range(0x80, 0xA0), 0xFFFD))
    return clean.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def listed_words(items: list[str]) -> str:
    """Join words as a sentence does.

    >>> listed_words(["one"]), listed_words(["one", "two", "three"])
    ('one', 'one, two and three')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def _scaled(value: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.1f} {letter}"
    return f"{value:.0f}"
