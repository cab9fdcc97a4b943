"""Prediction by ten members over one trunk, against one full model: same texts, precision and buckets.

The packaged movie reviews through minilm. Judged is what is nearest to its bound: ten members of one of six
blocks may take 3 times as long as one whole model, ten of two blocks 4.5 times.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.measure import Result, alternate, load, seconds_of, write
from credibly.backbones.loading import load_classifier
from credibly.data.reviews import load_reviews
from credibly.members import top_blocks
from credibly.members.common import Members, TrainingData
from credibly.members.full import FullMembers
from credibly.progress import silent
from credibly.settings import BackboneSettings, TopBlocksSettings

NAME = "top_blocks_prediction"
MEMBERS, ROUNDS, TEXTS, MOST = 10, 5, 1500, {1: 3.0, 2: 4.5}


def main() -> None:
    """Predict in turns with a whole model and with ten members of one and of two blocks."""
    load_before = load()
    reviews = load_reviews()
    texts = reviews.test.texts[:TEXTS]
    whole = FullMembers([load_classifier(BackboneSettings(), reviews.train.class_names, 0.0, seed=0)])
    sides = {"whole": whole} | {f"{blocks}_of_6": members_of(blocks, reviews.train) for blocks in MOST}

    def timed(members: Members) -> Callable[[], float]:
        return lambda: seconds_of(lambda: members.log_probs(texts))

    for members in sides.values():
        members.log_probs(texts[:200])
    seconds = alternate({name: timed(members) for name, members in sides.items()}, ROUNDS)
    ratios = {blocks: median(seconds[f"{blocks}_of_6"]) / median(seconds["whole"]) for blocks in MOST}
    nearest = max(MOST, key=lambda blocks: ratios[blocks] / MOST[blocks])
    write(
        Result(
            name=NAME,
            what=f"seconds to predict: ten members of {nearest} of 6 blocks over one trunk / one full model",
            ratio=ratios[nearest],
            unit=f"seconds for {TEXTS} texts",
            sides=seconds,
            at_most=MOST[nearest],
            holds=all(ratios[blocks] <= most for blocks, most in MOST.items()),
            figures={"ratios": {f"{blocks}_of_6": ratio for blocks, ratio in ratios.items()}},
        ),
        load_before,
    )


def members_of(blocks: int, train: object) -> Members:
    """Return ten members that have barely been trained: prediction takes as long whatever they learned."""
    few = train.take(np.arange(32))
    settings = TopBlocksSettings(count=MEMBERS, blocks=blocks)
    settings = settings.model_copy(update={"optimiser": settings.optimiser.model_copy(update={"epochs": 1})})
    data = TrainingData(few.texts, few.targets().astype(np.float32), few.class_names)
    material = top_blocks.prepare(data, BackboneSettings(), settings, silent)
    return top_blocks.fit(material, settings, range(MEMBERS))[0]


if __name__ == "__main__":
    main()
