"""Every metric a second time, on rows written out, mostly by scikit-learn, torchmetrics and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import entropy, foldnorm, spearmanr
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error


def scores(answer, rows) -> dict[str, float]:
    """Return all metrics of these rows (indices, repeats allowed); NaN where undefined."""
    known = rows[answer.labels[rows] >= 0]
    found = label_scores(answer.probs[known], answer.uncertainty.total[known], answer.labels[known], answer)
    for part in ("total", "aleatoric", "epistemic", "variance"):
        found[f"mean_{part}"] = getattr(answer.uncertainty, part)[rows].mean()
    if answer.label_probs is not None:
        shares = answer.label_probs[rows]
        found["nll_raters"] = np.mean(
            [-(q * np.log(p)).sum() for q, p in zip(shares, answer.probs[rows], strict=True)]
        )
        ambiguity = entropy(answer.label_probs, axis=-1).round(12)[rows]
        found["spearman_raters"] = correlation(answer.uncertainty.aleatoric[rows], ambiguity)
    return found


def label_scores(probs, total, labels, answer) -> dict[str, float]:
    C = probs.shape[1]
    predicted, confidence = probs.argmax(-1), probs.max(-1)
    wrong = predicted != labels
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    chosen = (
        [1] if C == 2 else [c for c in range(C) if 0 < (answer.labels[answer.labels >= 0] == c).mean() < 1]
    )
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "nll": sk.log_loss(labels, probs, labels=range(C)),
        "brier": sk.brier_score_loss(labels, probs, labels=range(C), scale_by_half=False),
        "ece": ece(probs, labels),
        "ece_debiased": ece_debiased(confidence, ~wrong),
        "aurc": aurc(confidence, wrong),
        "augrc": augrc(confidence, wrong),
        "auroc": np.mean([auroc(labels == c, probs[:, c]) for c in chosen]),
        "average_precision": np.mean([average_precision(labels == c, probs[:, c]) for c in chosen]),
        "error_auroc": auroc(wrong, total),
    }


def auroc(positive, score) -> float:
    if positive.all() or not positive.any():
        return np.nan
    return sk.roc_auc_score(positive, score)


def average_precision(positive, score) -> float:
    if positive.all() or not positive.any():
        return np.nan
    return sk.average_precision_score(positive, score)


def correlation(first, second) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of constant input and gives NaN, as we do
        return spearmanr(first, second).statistic


def ece(probs, labels) -> float:
    return multiclass_calibration_error(
        torch.tensor(probs), torch.tensor(labels), num_classes=probs.shape[1], n_bins=15, norm="l1"
    ).item()


def ece_debiased(confidence, correct) -> float:
    shares, errors, plain = [], [], 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        n = inside.sum()
        if not n:
            continue
        accuracy, mean = correct[inside].mean(), confidence[inside].mean()
        drawn = (n * accuracy + 2 * mean) / (n + 2)
        shares.append(n / len(confidence))
        errors.append(max(np.sqrt(drawn * (1 - drawn) / n), 1e-15))
        plain += shares[-1] * abs(accuracy - mean)

    def shown(t):
        return sum(w * foldnorm.mean(t / s, scale=s) for w, s in zip(shares, errors, strict=True)) - plain

    return 0.0 if shown(0.0) >= 0 else brentq(shown, 0.0, plain + 1e-9, xtol=1e-14)


def aurc(confidence, wrong) -> float:
    """Mean over k of the expected error rate among the k most confident, ties in random order."""
    rates, errors_before, before = [], 0.0, 0
    for level in sorted(set(confidence), reverse=True):
        errors = wrong[confidence == level]
        rates += [(errors_before + j * errors.mean()) / (before + j) for j in range(1, len(errors) + 1)]
        errors_before += errors.sum()
        before += len(errors)
    return float(np.mean(rates))


def augrc(confidence, wrong) -> float:
    """Mean over k of the expected errors among the k most confident, over N, ties in random order."""
    errors, before = [], 0.0
    for level in sorted(set(confidence), reverse=True):
        own = wrong[confidence == level]
        errors += [before + j * own.mean() for j in range(1, len(own) + 1)]
        before += own.sum()
    return float(np.mean(errors) / len(wrong))
