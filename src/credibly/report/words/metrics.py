"""What metrics and scores of the unknown are called, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass


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


def words_of(metric: str) -> MetricWords:
    """Return how a metric is written; one that is not in the table is written by its own name."""
    return METRIC_WORDS.get(metric, MetricWords(metric.replace("_", " "), 3, False, ""))
