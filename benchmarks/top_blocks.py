"""Ten members that tune the top two of six blocks over one trunk, against ten full fine-tunings.

The packaged movie reviews and minilm; same rows, precision, length buckets, batch size, three epochs, rate
and schedule. The trunk's one run over the texts is in the time. One full fine-tuning is timed a round, and
its seconds are scaled to ten. The held-out NLL of both is reported: the top blocks learn what they can.
"""

from __future__ import annotations

from statistics import median

import numpy as np

from benchmarks.measure import Result, alternate, load, seconds_of, write
from credibly.data.reviews import load_reviews
from credibly.members import full, top_blocks
from credibly.members.common import Members, TrainingData
from credibly.progress import silent
from credibly.records import UNKNOWN
from credibly.settings import BackboneSettings, FullSettings, TopBlocksSettings

NAME = "top_blocks"
MEMBERS, ROUNDS, ROWS, TEST_ROWS = 10, 2, 800, 800


class Sides:
    """Both sources on the same texts, and the held-out NLL of their members."""

    def __init__(self) -> None:
        reviews = load_reviews()
        train = reviews.train.take(np.arange(ROWS))
        known = np.flatnonzero(reviews.test.labels != UNKNOWN)[:TEST_ROWS]
        self.test = reviews.test.take(known)
        self.data = TrainingData(train.texts, train.targets().astype(np.float32), train.class_names)
        self.nll: dict[str, list[float]] = {"top_blocks": [], "full": []}

    def top_blocks(self) -> float:
        """Tune ten members' top blocks; return the seconds, the trunk's run among them."""
        return self._train("top_blocks", MEMBERS)

    def full(self) -> float:
        """Tune one whole model; return the seconds that ten would take."""
        return self._train("full", 1) * MEMBERS

    def _train(self, name: str, count: int) -> float:
        source = {"top_blocks": top_blocks, "full": full}[name]
        settings = {
            "top_blocks": TopBlocksSettings(count=count, blocks=2),
            "full": FullSettings(count=count),
        }[name]
        first = len(self.nll[name])
        fitted: list[Members] = []

        def work() -> None:
            material = source.prepare(self.data, BackboneSettings(), settings, silent)
            fitted.append(source.fit(material, settings, range(first, first + count))[0])

        seconds = seconds_of(work)
        log_probs = fitted[0].log_probs(self.test.texts)
        rows = np.arange(len(self.test))
        self.nll[name] += [-float(own[rows, self.test.labels].mean()) for own in log_probs]
        return seconds


def main() -> None:
    """Train both sides in turns."""
    load_before = load()
    sides = Sides()
    seconds = alternate({"full": sides.full, "top_blocks": sides.top_blocks}, ROUNDS)
    write(
        Result(
            name=NAME,
            what="seconds to tune ten members, 3 epochs, minilm: whole models / two of six blocks, one trunk",
            ratio=median(seconds["full"]) / median(seconds["top_blocks"]),
            unit="seconds for ten members",
            sides=seconds,
            at_least=3,
            figures={
                "rows": ROWS,
                "full_members_trained_a_round": 1,
                "held_out_nll": {
                    name: {"mean": float(np.mean(own)), "members": len(own)}
                    for name, own in sides.nll.items()
                },
            },
        ),
        load_before,
    )


if __name__ == "__main__":
    main()
