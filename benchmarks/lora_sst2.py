"""Ten LoRA members in one pass, against a good PEFT loop: dynamic padding, bf16, one member after another.

SST-2 and minilm; same rows, batch size, steps, rate, schedule and adapters. The loop runs on as many threads
as suit it best. It trains two members a round, and its seconds are scaled to ten. What both sides become
must be equal: their mean NLL on the validation rows may differ by noise only.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.data import missing, rows_of
from benchmarks.heads import LARGEST_SURPRISE, on_threads
from benchmarks.measure import Result, alternate, load, seconds_of, write, write_skipped
from benchmarks.peft_loop import Loop, Texts
from credibly.backbones import resolve_precision
from credibly.members import lora
from credibly.members.common import TrainingData
from credibly.progress import silent
from credibly.settings import BackboneSettings, LoraSettings, OptimiserSettings

NAME = "lora_sst2"
WHAT = "seconds to train ten LoRA members on SST-2, minilm: a PEFT loop, padded dynamically / one pass"
MEMBERS, LOOPED = 10, 2
ROUNDS = 3
TRAIN_ROWS, TEST_ROWS = 1600, 872
BATCH, MAX_TOKENS = 8, 128
SETTINGS = LoraSettings(
    count=MEMBERS,
    group=MEMBERS,
    lora_alpha=16,
    target_modules=["query", "value"],
    optimiser=OptimiserSettings(
        epochs=1, batch_size=BATCH, learning_rate=1e-3, weight_decay=0.01, warmup_share=0.1,
        schedule="linear", clip_norm=1.0,
    ),
)  # fmt: skip


def main() -> None:
    """Train both sides in turns and compare seconds and NLL."""
    load_before = load()
    train_rows, test_rows = rows_of("sst2_train", TRAIN_ROWS), rows_of("sst2_validation", TEST_ROWS)
    if train_rows is None or test_rows is None:
        write_skipped(NAME, WHAT, missing("sst2_train"))
        return
    train, test = (
        Texts(tuple(row["text"] for row in rows), tuple(row["label"] for row in rows), 2)
        for rows in (train_rows, test_rows)
    )
    sides = Sides(train, test)
    seconds = alternate({"peft_loop": sides.loop, "one_pass": sides.one_pass}, ROUNDS)
    ours, theirs = sides.nll["one_pass"], sides.nll["peft_loop"]
    error = np.sqrt(sum(np.var(own, ddof=1) / len(own) for own in (ours, theirs)))
    surprise = float(abs(np.mean(ours) - np.mean(theirs)) / error)
    write(
        Result(
            name=NAME,
            what=WHAT,
            ratio=float(np.median(seconds["peft_loop"]) / np.median(seconds["one_pass"])),
            unit="seconds for ten members",
            sides=seconds,
            at_least=1.3,
            holds=surprise < LARGEST_SURPRISE,
            figures={
                "aim": 2,
                "rows": TRAIN_ROWS,
                "steps": TRAIN_ROWS // BATCH,
                "batch_size": BATCH,
                "loop_members_trained_a_round": LOOPED,
                "loop_threads": sides.threads,
                "validation_nll": {name: nll_over_members(own) for name, own in sides.nll.items()},
                "nll_difference_in_standard_errors": surprise,
            },
        ),
        load_before,
    )


def nll_over_members(nll: list[float]) -> dict[str, float]:
    """Return mean and spread over members, and how many there are."""
    return {
        "mean": float(np.mean(nll)),
        "spread_over_members": float(np.std(nll, ddof=1)),
        "members": len(nll),
    }


class Sides:
    """Both ways to train, and the validation NLL of every member that they trained.

    Args:
        train: texts to train on.
        test: texts to score.
    """

    def __init__(self, train: Texts, test: Texts) -> None:
        self.train, self.test = train, test
        bf16 = resolve_precision("auto", torch.device("cpu")) == "bf16"
        precision = torch.bfloat16 if bf16 else torch.float32
        self.way = Loop("minilm", SETTINGS, precision, None, MAX_TOKENS)
        self.nll: dict[str, list[float]] = {"peft_loop": [], "one_pass": []}
        self.threads = self._best_threads()

    def loop(self) -> float:
        """Train a few members one after another; return the seconds that ten would take."""
        done = len(self.nll["peft_loop"])
        members = [self.way.member(self.train, seed) for seed in range(done, done + LOOPED)]
        with on_threads(self.threads):
            seconds = seconds_of(lambda: [member.train(self.train) for member in members])
        self.nll["peft_loop"] += [member.nll(self.test) for member in members]
        return seconds * MEMBERS / LOOPED

    def one_pass(self) -> float:
        """Train ten members in one pass; return the seconds, loading left out on both sides."""
        targets = np.eye(self.train.classes, dtype=np.float32)[list(self.train.labels)]
        data = TrainingData(self.train.texts, targets, ("negative", "positive"))
        backbone = BackboneSettings(max_tokens=MAX_TOKENS)
        material = lora.prepare(data, backbone, SETTINGS, silent)
        done = len(self.nll["one_pass"])
        fitted: list[lora.Adapters] = []
        seconds = seconds_of(
            lambda: fitted.append(lora.fit(material, SETTINGS, range(done, done + MEMBERS))[0])
        )
        log_probs = fitted[0].log_probs(self.test.texts)
        rows = np.arange(len(self.test.labels))
        self.nll["one_pass"] += [-float(own[rows, list(self.test.labels)].mean()) for own in log_probs]
        return seconds

    def _best_threads(self) -> int:
        """Return the number of threads, one or all, with which the loop's step is faster."""
        every = torch.get_num_threads()
        member = self.way.member(self.train, 0)
        steps = {}
        for threads in (1, every):
            with on_threads(threads):
                steps[threads] = float(np.median(member.train(self.train, steps=20)[5:]))
        return min(steps, key=lambda threads: steps[threads])


if __name__ == "__main__":
    main()
