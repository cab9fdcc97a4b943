"""Ten heads trained as one batched product, against a loop over ten models with a DataLoader.

Same embeddings, targets, shape, batch size, epochs, rate, decay, dropout and schedule. What both sides
become must be equal too: their mean held-out NLL over members may differ by noise only. The loop runs
on as many threads as suit it best: on small products one may be faster than all. It computes in single
precision, as R0's does; the batched product in what a run would choose, bf16 where the processor has it,
and once in single precision too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Result, alternate, load, rounded, seconds_of, spread, write
from credibly.backbones import embedded_once, load_backbone
from credibly.backbones.loading import Precision, resolve_precision
from credibly.data.reviews import load_reviews
from credibly.members import head_stack as heads
from credibly.records import UNKNOWN
from credibly.settings import BackboneSettings, HeadsSettings, OptimiserSettings

NAME = "heads"
WHAT = "seconds to train ten heads: a loop over ten models with a DataLoader / one batched product"
ROUNDS = 3
LARGEST_SURPRISE = 3.0
"""Standard errors by which the sides' mean NLL may differ: chance alone passes them once in 370 runs."""

DEMO = HeadsSettings()
PLAIN = HeadsSettings(
    dropout=0.0,
    optimiser=OptimiserSettings(epochs=10, batch_size=64, learning_rate=1e-3, schedule="constant"),
)
"""Adam at a constant rate, without dropout or decay."""


@dataclass(frozen=True)
class Task:
    """Embeddings of the packaged movie reviews.

    Args:
        train: float32, (N, D).
        targets: float32, (N, C), normalised: the raters' shares.
        test: float32, (T, D).
        labels: int64, (T,), all known.
    """

    train: np.ndarray
    targets: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def load_task() -> Task:
    """Return the task, its embeddings from the cache where they are there."""
    reviews = load_reviews()
    backbone = load_backbone(BackboneSettings())
    train = np.array(embedded_once(backbone, reviews.train.texts))
    test = np.array(embedded_once(backbone, reviews.test.texts))
    known = reviews.test.labels != UNKNOWN
    return Task(train, reviews.train.targets(), test[known], reviews.test.labels[known])


def looped(task: Task, settings: HeadsSettings, seeds: Iterable[int]) -> list[nn.Module]:
    """Train one model after the other, as a notebook does."""
    data = TensorDataset(torch.from_numpy(task.train), torch.from_numpy(task.targets))
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(_train_one(data, settings, task.train.shape[1], task.targets.shape[1]))
    return models


def _train_one(data: TensorDataset, settings: HeadsSettings, width: int, classes: int) -> nn.Module:
    chosen = settings.optimiser
    hidden = settings.hidden[0]
    model = nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(settings.dropout), nn.Linear(hidden, classes)
    )
    # AdamW without decay is Adam.
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay
    )
    loader = DataLoader(data, batch_size=chosen.batch_size, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=len(loader) * chosen.epochs)
    criterion = nn.CrossEntropyLoss()
    model.train()
    for _ in range(chosen.epochs):
        for inputs, targets in loader:
            optimiser.zero_grad()
            criterion(model(inputs), targets).backward()
            optimiser.step()
            if chosen.schedule == "cosine":
                schedule.step()
    return model.eval()


def best_threads(task: Task) -> int:
    """Return the number of threads, one or all, with which the loop is faster on a short training."""
    short = PLAIN.model_copy(update={"optimiser": PLAIN.optimiser.model_copy(update={"epochs": 1})})
    every = torch.get_num_threads()
    seconds: dict[int, list[float]] = {1: [], every: []}
    for _ in range(3):
        for threads, spent in seconds.items():
            with on_threads(threads):
                spent.append(seconds_of(lambda: looped(task, short, [0])))
    return min(seconds, key=lambda threads: min(seconds[threads]))


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Within this context torch runs on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Compared:
    """Both sides under one setting: their seconds, and what each of their members scores.

    Args:
        task: the data.
        settings: of the heads.
        threads: of the loop.
        precision: of the batched product.
    """

    def __init__(self, task: Task, settings: HeadsSettings, threads: int, precision: Precision) -> None:
        self.task = task
        self.settings = settings
        self.threads = threads
        self.precision = precision
        self.scores: dict[str, list[float]] = {"loop": [], "batched": []}
        self.seconds = alternate({"loop": self._loop, "batched": self._batched}, ROUNDS)

    def _seeds(self, side: str) -> range:
        """Return new seeds each round, so that every member counts as one more draw."""
        first = len(self.scores[side])
        return range(first, first + self.settings.count)

    def _loop(self) -> float:
        seeds, models = self._seeds("loop"), []
        with on_threads(self.threads):
            seconds = seconds_of(lambda: models.extend(looped(self.task, self.settings, seeds)))
        with torch.inference_mode():
            self._score("loop", [model(torch.from_numpy(self.task.test)) for model in models])
        return seconds

    def _batched(self) -> float:
        seeds, fitted = list(self._seeds("batched")), []

        def fit() -> None:
            data = self.task.train, self.task.targets
            fitted.append(heads.fit(*data, self.settings, seeds, precision=self.precision)[0])

        seconds = seconds_of(fit)
        self._score("batched", list(torch.from_numpy(heads.predict(fitted[0], self.task.test))))
        return seconds

    def _score(self, side: str, logits: list[Tensor]) -> None:
        labels = torch.from_numpy(self.task.labels)
        self.scores[side] += [float(nn.functional.cross_entropy(own, labels)) for own in logits]

    @property
    def ratio(self) -> float:
        """How many times as fast the batched product is."""
        return median(self.seconds["loop"]) / median(self.seconds["batched"])

    @property
    def surprise(self) -> float:
        """The difference of the sides' mean NLL in standard errors."""
        sides = [np.asarray(self.scores[side]) for side in ("loop", "batched")]
        error = np.sqrt(sum(scores.var(ddof=1) / len(scores) for scores in sides))
        return float(abs(sides[0].mean() - sides[1].mean()) / error)

    def figures(self) -> dict[str, Any]:
        """Return seconds and held-out NLL of both sides, the latter with its spread over members."""
        nll = {
            side: {
                "mean": float(np.mean(scores)),
                "spread_over_members": float(np.std(scores, ddof=1)),
                "members": len(scores),
            }
            for side, scores in self.scores.items()
        }
        return rounded(
            {
                "ratio": self.ratio,
                "precision": self.precision,
                "seconds": {side: spread(runs) for side, runs in self.seconds.items()},
                "held_out_nll": nll,
                "nll_difference_in_standard_errors": self.surprise,
            }
        )


def product_rate(precision: Precision) -> float:
    """Return the FLOP a second of a plain matrix product."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(2048, 1024, dtype=kind), torch.randn(1024, 1024, dtype=kind)
    seconds = [seconds_of(lambda: torch.mm(left, right)) for _ in range(20)]
    return 2 * 2048 * 1024 * 1024 / min(seconds)


def training_flop(task: Task, settings: HeadsSettings) -> float:
    """Return the FLOP of the matrix products in one training of all members, none counted twice.

    Forward, and backward by the weights, for each layer; backward by the inputs for all but the first.
    """
    hidden, D, C = settings.hidden[0], task.train.shape[1], task.targets.shape[1]
    by_row = 2 * (2 * D * hidden + 3 * hidden * C)
    return float(by_row * len(task.train) * settings.optimiser.epochs * settings.count)


def main() -> None:
    """Compare under the demo's setting, which is judged, the plain one, and in single precision."""
    load_before = load()
    task = load_task()
    threads, precision = best_threads(task), resolve_precision("auto", torch.device("cpu"))
    compared = Compared(task, DEMO, threads, precision)
    others = {
        "plain": Compared(task, PLAIN, threads, precision),
        "single_precision": Compared(task, DEMO, threads, "fp32"),
    }
    limit = product_rate(precision)
    achieved = training_flop(task, DEMO) / median(compared.seconds["batched"])
    result = Result(
        name=NAME,
        what=WHAT,
        ratio=compared.ratio,
        unit="seconds",
        sides=compared.seconds,
        at_least=4.0,
        holds=max(each.surprise for each in (compared, *others.values())) <= LARGEST_SURPRISE,
        share_of_limit=achieved / limit,
        limit={"what": f"{precision} matrix product, GFLOP a second", "rate": limit / 1e9},
        figures={
            "threads_of_the_loop": threads,
            "rows": len(task.train),
            "held_out_rows": len(task.test),
            "largest_nll_difference_in_standard_errors": LARGEST_SURPRISE,
            "demo": compared.figures(),
            **{name: other.figures() for name, other in others.items()},
        },
    )
    write(result, load_before)


if __name__ == "__main__":
    main()
