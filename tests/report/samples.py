"""Predictions made up for the report's tests: small, seeded, with every part a report can have."""

from __future__ import annotations

from typing import Any

import numpy as np

from credibly.records import Examples, Predictions
from credibly.report import build_report
from credibly.uncertainty.calibration.calibrate import Temperature

Stored = dict[str, dict[str, Predictions]]

RESAMPLES = 60
BINARY = ("negative", "positive")
SIX = ("abbreviation", "description", "entity", "human", "location", "number")


def examples(
    N: int,
    classes: tuple[str, ...] = BINARY,
    seed: int = 0,
    raters: bool = False,
    labelled: bool = True,
    name: str = "row",
    texts: tuple[str, ...] | None = None,
) -> Examples:
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(len(classes), 0.6), N)
    labels = shares.argmax(axis=1) if labelled else np.full(N, -1)
    return Examples(
        ids=tuple(f"{name}-{row}" for row in range(N)),
        texts=texts or tuple(f"text {row} of {name}" for row in range(N)),
        class_names=classes,
        labels=labels,
        label_probs=shares if raters else None,
    )


def predictions(rows: Examples, M: int, seed: int, sharp: float = 2.0, noise: float = 1.0) -> Predictions:
    """M members that know the labels (random ones where unknown) through a noise they share in part."""
    random = np.random.default_rng(seed)
    N, C = len(rows), len(rows.class_names)
    labels = np.where(rows.labels < 0, random.integers(0, C, N), rows.labels)
    shared = np.eye(C)[labels] * 1.5 + random.normal(0, 1, (N, C))
    return Predictions.from_logits(sharp * (shared + random.normal(0, noise, (M, N, C))), rows)


def dirichlet(rows: Examples, members: Predictions, seed: int) -> Predictions:
    """A student that has learned the members' mean, and their spread in part."""
    random = np.random.default_rng(seed)
    mean = np.exp(members.log_probs.astype(float)).mean(axis=0)
    spread = np.exp(members.log_probs.astype(float)).std(axis=0).mean(axis=1, keepdims=True)
    level = 2.0 - 6 * spread + random.normal(0, 0.2, spread.shape)
    return Predictions.from_log_concentrations(np.log(mean + 1e-6) + level, rows)


def binary_run() -> dict[str, Any]:
    """What `build_report` takes for a binary run with people's shares, a student and two controls."""
    splits = {
        "calibration": examples(200, seed=1, raters=True, name="calibration"),
        "test": examples(260, seed=2, raters=True, name="test"),
        "tweets": examples(150, seed=3, raters=True, name="tweet"),
        "unknown": examples(90, seed=4, labelled=False, name="unknown"),
    }
    stored: Stored = {"members": {}, "student": {}, "direct": {}, "soft_labels": {}}
    for seed, (split, rows) in enumerate(splits.items()):
        members = predictions(rows, 4, seed, noise=2.0 if split == "tweets" else 1.0)
        stored["members"][split] = members
        stored["student"][split] = dirichlet(rows, members, 40 + seed)
        stored["direct"][split] = predictions(rows, 1, seed, sharp=3.0)
        stored["soft_labels"][split] = predictions(rows, 1, seed, sharp=1.8)
    calibrators = {
        "ensemble+temperature": Temperature.fit(stored["members"]["calibration"]),
        "direct+temperature": Temperature.fit(stored["direct"]["calibration"]),
        "student+temperature": Temperature.fit(stored["student"]["calibration"]),
    }
    history = [{"step": step, "epoch": step / 50, "loss": 1 / (1 + step), "note": "x"} for step in range(250)]
    return {
        "run_name": "sample",
        "recipe": {"data": {"train": "reviews", "text": ["text"]}, "seed": 0},
        "stored": stored,
        "calibrators": calibrators,
        "costs": {
            "ensemble": {
                "seconds": 12.0,
                "parameters": 1_000_000,
                "bytes": 4_000_000,
                "rows_per_second": None,
            },
            "student": {"seconds": 80.0, "parameters": 500_000, "bytes": 2_000_000, "rows_per_second": 700.0},
        },
        "test": splits["test"],
        "notes": ["2 texts that also stand in test were left out of train."],
        "resamples": RESAMPLES,
        "confidence": 0.95,
        "seed": 5,
        "shift_splits": ["tweets", "unknown"],
        "histories": {"student": history, "members/0": history[:3]},
    }


def members_only(test: Examples, M: int = 3, shift: Examples | None = None) -> dict[str, Any]:
    """What `build_report` takes for a run of members alone."""
    stored: Stored = {"members": {"test": predictions(test, M, 7)}}
    if shift is not None:
        stored["members"]["shifted"] = predictions(shift, M, 8)
    return {
        "run_name": "members",
        "recipe": {},
        "stored": stored,
        "calibrators": {},
        "costs": {},
        "test": test,
        "notes": [],
        "resamples": RESAMPLES,
        "confidence": 0.9,
        "seed": 0,
        "shift_splits": [] if shift is None else ["shifted"],
    }


def built(run: dict[str, Any]) -> dict[str, Any]:
    return build_report(**run)
