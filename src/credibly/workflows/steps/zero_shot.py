"""What label words answer before any training, stored as the untrained network's answers."""

from __future__ import annotations

from pathlib import Path

from credibly.backbones.sources import source_of
from credibly.workflows.common.contents import folder_bytes
from credibly.workflows.common.zero_shot import ZERO_SHOT, starting_from_words, zero_shot_network
from credibly.workflows.steps.work import Work, store_answers


def store_zero_shot(work: Work) -> None:
    """Store what the members' label words answer before any training, where they start from such."""
    groups, run = starting_from_words(work.recipe), work.run
    if not groups or all(run.predictions_file(ZERO_SHOT, split).is_file() for split in work.scored()):
        return
    network = zero_shot_network(work.recipe, work.splits.train.class_names)
    size = folder_bytes(Path(source_of(groups[0].backbone.name)))
    costs = {"parameters": network.parameters, "training_seconds": 0.0, "bytes": size}
    store_answers(work, ZERO_SHOT, network.predict, work.scored(), **costs)
