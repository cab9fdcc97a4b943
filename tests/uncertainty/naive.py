"""Every metric a second time, on rows written out, mostly by scikit-learn, torchmetrics and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import entropy, foldnorm, norm, spearmanr
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

TOLERANCES = {"ece": 1e-6, "smooth_ece": 2e-4}
"""Torchmetrics computes in single precision; cells and midpoints differ."""


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
        found["kl_raters"] = np.mean([entropy(q, p) for q, p in zip(shares, answer.probs[rows], strict=True)])
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
        "ece_equal_mass": ece_equal_mass(confidence, ~wrong, answer),
        "ece_classwise": np.mean([binned_gaps(probs[:, c], labels == c) for c in range(C)]),
        "smooth_ece": smooth_ece(confidence, ~wrong),
        **brier_parts(probs, labels),
        "aurc": aurc(confidence, wrong),
        "eaurc": aurc(confidence, wrong) - aurc(-wrong.astype(float), wrong),
        "risk_at_80": risk_at(0.8, confidence, wrong),
        "risk_at_90": risk_at(0.9, confidence, wrong),
        "coverage_at_1": coverage_at(0.01, confidence, wrong),
        "coverage_at_5": coverage_at(0.05, confidence, wrong),
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
        shares.append(n / len(confidence))
        pseudo = 4 * shares[-1]
        drawn = (n * accuracy + 2 * mean + pseudo / 2) / (n + 2 + pseudo)
        errors.append(max(np.sqrt(drawn * (1 - drawn) / n), 1e-15))
        plain += shares[-1] * abs(accuracy - mean)

    def shown(t):
        return sum(w * foldnorm.mean(t / s, scale=s) for w, s in zip(shares, errors, strict=True)) - plain

    return 0.0 if shown(0.0) >= 0 else brentq(shown, 0.0, plain + 1e-9, xtol=1e-14)


def binned_gaps(said, true) -> float:
    total = 0.0
    for b in range(15):
        inside = (said > b / 15) & (said <= (b + 1) / 15)
        total += abs(said[inside].sum() - true[inside].sum())
    return total / len(said)


def ece_equal_mass(confidence, correct, answer) -> float:
    """Bins end at the sorted confidences of the whole answer, every fifteenth of its rows."""
    whole = np.sort(answer.confidence[answer.labels >= 0])
    ends = [whole[int(np.ceil(len(whole) * k / 15)) - 1] for k in range(1, 15)]
    places = [sum(value > end for end in ends) for value in confidence]
    return sum(abs(sum(
        correct[row] - confidence[row] for row, own in enumerate(places) if own == place
    )) for place in range(15)) / len(confidence)  # fmt: skip


def smooth_ece(confidence, correct) -> float:
    """The sum over Gaussians and their mirror images, integrated by midpoints, its fixed point by brentq."""
    t = (np.arange(401) + 0.5) / 401
    images = [sign * confidence + shift for sign in (1, -1) for shift in (-2, 0, 2)]

    def error(sigma):
        remains = sum(norm.pdf(t[:, None], centre, sigma) @ (correct - confidence) for centre in images)
        return np.abs(remains).mean() / len(confidence)

    return brentq(lambda sigma: error(sigma) - sigma, 0.004, 1.0) if error(0.004) > 0.004 else 0.0


def brier_parts(probs, labels) -> dict[str, float]:
    """As Stephenson et al. write them: sums over bins and over the rows in each."""
    N, C = probs.shape
    found = dict.fromkeys(("reliability", "resolution", "uncertainty", "within_bins"), 0.0)
    for c in range(C):
        p, y = probs[:, c], (labels == c).astype(float)
        found["uncertainty"] += y.mean() * (1 - y.mean())
        for b in range(15):
            inside = (p > b / 15) & (p <= (b + 1) / 15)
            if inside.any():
                p_bin, y_bin = p[inside].mean(), y[inside].mean()
                found["reliability"] += inside.sum() * (p_bin - y_bin) ** 2 / N
                found["resolution"] += inside.sum() * (y_bin - y.mean()) ** 2 / N
                found["within_bins"] += ((p[inside] - p_bin) ** 2).sum() / N
                found["within_bins"] -= 2 * ((p[inside] - p_bin) * (y[inside] - y_bin)).sum() / N
    return {f"brier_{name}": value for name, value in found.items()}


def risk_at(coverage, confidence, wrong) -> float:
    """The mean over orders of ties of the error rate among the first ceil(coverage N)."""
    count, errors, before = int(np.ceil(round(coverage * len(wrong), 9))), 0.0, 0
    for level in sorted(set(confidence), reverse=True):
        own = wrong[confidence == level]
        taken = min(len(own), count - before)
        errors += taken * own.mean()
        before += taken
    return errors / count


def coverage_at(risk, confidence, wrong) -> float:
    held = [
        (confidence >= level).mean() for level in set(confidence) if wrong[confidence >= level].mean() <= risk
    ]
    return max(held, default=0.0)


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
