"""Fine-tuning a whole encoder on film reviews: transformers' Trainer beside ours, same rows and steps.

IMDB and minilm; same batch size, rate, schedule, warm-up, decay, clipping, precision, length buckets and
cut. Each side's dropout is its own by default: the Trainer's model drops attention weights as well, for which
processors have no fused kernel. Both training curves are written down, and the accuracy of each with its
interval.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from benchmarks.data import missing, rows_of
from benchmarks.measure import Result, alternate, load, seconds_of, write, write_skipped
from credibly.backbones import resolve_precision
from credibly.backbones.loading import load_tokenizer
from credibly.backbones.sources import source_of
from credibly.members import full
from credibly.members.common import TrainingData
from credibly.progress import silent
from credibly.settings import BackboneSettings, FullSettings

NAME = "trainer"
WHAT = "seconds to fine-tune minilm on IMDB reviews: transformers' Trainer / ours"
TRAIN_ROWS, TEST_ROWS, MAX_TOKENS, ROUNDS = 480, 500, 256, 2
BATCH, EPOCHS = 16, 2
TUNING = FullSettings().optimiser.model_copy(update={"epochs": EPOCHS, "batch_size": BATCH})
SETTINGS = FullSettings(count=1, optimiser=TUNING)


@dataclass(frozen=True)
class Reviews:
    """Texts and labels, 0 or 1."""

    texts: tuple[str, ...]
    labels: np.ndarray


class Sides:
    """Both ways, and what became of each."""

    def __init__(self, train: Reviews, test: Reviews) -> None:
        self.train, self.test = train, test
        self.bf16 = resolve_precision("auto", torch.device("cpu")) == "bf16"
        self.hits: dict[str, list[float]] = {"trainer": [], "ours": []}
        self.curves: dict[str, list[float]] = {}

    def trainer(self) -> float:
        """Train with transformers' Trainer; return its seconds."""
        seed = len(self.hits["trainer"])
        torch.manual_seed(seed)
        source = source_of("minilm")
        tokenizer = load_tokenizer(source)
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)

        def rows(reviews: Reviews) -> list[dict[str, Any]]:
            read = tokenizer(list(reviews.texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
            return [
                {"input_ids": ids, "labels": int(label)}
                for ids, label in zip(read, reviews.labels, strict=True)
            ]

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=32,
                learning_rate=TUNING.learning_rate,
                weight_decay=TUNING.weight_decay,
                warmup_steps=round(TUNING.warmup_share * EPOCHS * -(-TRAIN_ROWS // BATCH)),
                max_grad_norm=TUNING.clip_norm,
                train_sampling_strategy="group_by_length",
                bf16=self.bf16,
                use_cpu=True,
                seed=seed,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            one = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), rows(self.train))
            seconds = seconds_of(one.train)
            # It sorts these rows by length, too, so their labels come from it.
            found = one.predict(rows(self.test))
        self.curves["trainer"] = [step["loss"] for step in one.state.log_history if "loss" in step]
        self.hits["trainer"] += (found.predictions.argmax(axis=1) == found.label_ids).tolist()
        return seconds

    def ours(self) -> float:
        """Train by our loop; return its seconds."""
        seed = len(self.hits["ours"])
        targets = np.eye(2, dtype=np.float32)[self.train.labels]
        data = TrainingData(self.train.texts, targets, ("negative", "positive"))
        material = full.prepare(data, BackboneSettings(max_tokens=MAX_TOKENS), SETTINGS, silent)
        fitted: list[Any] = []
        seconds = seconds_of(lambda: fitted.append(full.fit(material, SETTINGS, [seed])))
        members, (history,) = fitted[0]
        self.curves["ours"] = [record.loss for record in history.records]
        predicted = members.log_probs(self.test.texts)[0].argmax(axis=1)
        self.hits["ours"] += (predicted == self.test.labels).tolist()
        return seconds


def main() -> None:
    """Train both sides in turns."""
    load_before = load()
    found = [rows_of(name, count) for name, count in (("imdb_train", TRAIN_ROWS), ("imdb_test", TEST_ROWS))]
    if None in found:
        write_skipped(NAME, WHAT, missing("imdb_train"))
        return
    train, test = (
        Reviews(tuple(row["text"] for row in rows), np.array([row["label"] for row in rows]))
        for rows in found
    )
    sides = Sides(train, test)
    seconds = alternate({"trainer": sides.trainer, "ours": sides.ours}, ROUNDS)
    means = {name: float(np.mean(hits)) for name, hits in sides.hits.items()}
    errors = {name: np.std(hits) / np.sqrt(len(hits)) for name, hits in sides.hits.items()}
    write(
        Result(
            name=NAME,
            what=WHAT,
            ratio=float(np.median(seconds["trainer"]) / np.median(seconds["ours"])),
            unit="seconds",
            sides=seconds,
            at_least=1,
            holds=bool(abs(means["trainer"] - means["ours"]) < 3 * np.hypot(*errors.values())),
            figures={
                "rows": TRAIN_ROWS,
                "accuracy": {
                    name: {
                        "value": mean,
                        "low": mean - 1.96 * errors[name],
                        "high": mean + 1.96 * errors[name],
                    }
                    for name, mean in means.items()
                },
                "training_loss_by_step": sides.curves,
            },
        ),
        load_before,
    )


if __name__ == "__main__":
    main()
