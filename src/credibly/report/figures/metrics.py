"""Which figures stand in which table, and which way each is better."""

from __future__ import annotations

from credibly.uncertainty.scoring.scores import METRICS

MAIN_METRICS = ("accuracy", "nll", "brier", "ece_debiased", "aurc", "error_auroc", "mean_epistemic")
"""The figures of the first table; the others follow in a fuller one."""

SHIFT_METRICS = ("accuracy", "nll", "ece_debiased", "aurc", "mean_total", "mean_epistemic", "ood_auroc")
"""The figures of a shift set's table."""

COST_METRICS = ("seconds", "parameters", "bytes", "rows_per_second")


def higher_is_better(metric: str) -> bool | None:
    """Return which way a metric is better; None where neither is (an uncertainty is no merit)."""
    return METRICS[metric].higher_is_better if metric in METRICS else None
