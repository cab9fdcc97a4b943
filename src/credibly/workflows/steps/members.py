"""The members: trained where they are not there yet, and what they answer."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from credibly.backbones.sources import source_of
from credibly.engines.jobs import train
from credibly.ensemble import Ensemble
from credibly.passes import groups_of, missing_of
from credibly.settings import Recipe
from credibly.workflows.common.contents import folder_bytes, known_costs
from credibly.workflows.steps.work import Work, rate, some_of


def train_members(work: Work) -> None:
    """Train the members where they are not there yet, and store their predictions.

    What they say of the texts to train on is asked only where a student learns from it.
    """
    run, recipe = work.run, work.recipe
    splits = work.splits.named() if recipe.distil.enabled else work.scored()
    missing = [split for split in splits if not run.predictions_file("members", split).is_file()]
    measured = work.splits.test is None or "rows_per_second" in known_costs(run).get("members", {})
    if not missing_of(run, recipe) and not missing and measured:
        return
    began = time.perf_counter()
    train(run, recipe, work.splits.train, work.stages, work.splits.validation)
    seconds = time.perf_counter() - began
    ensemble = Ensemble.open(run, recipe, work.splits.train.class_names)
    told = work.stages("predicting with the members")
    for done, split in enumerate(missing, start=1):
        run.save_predictions("members", split, ensemble.predict(splits[split], cached=True))
        told(done, len(missing))
    if work.splits.test is None:
        return
    some = some_of(work.splits.test)
    work.note_cost(
        "members",
        training_seconds=seconds + known_costs(run).get("members", {}).get("training_seconds", 0.0),
        shared_parameters=sum(members.shared_parameters for members in ensemble.members),
        member_parameters=float(np.mean([members.member_parameters for members in ensemble.members])),
        shared_bytes=sum(folder_bytes(Path(source_of(name))) for name in _backbones_of(recipe)),
        member_bytes=folder_bytes(run.members_folder) / recipe.members.count,
        rows_per_second=rate(lambda: ensemble.predict(some), len(some)),
    )


def _backbones_of(recipe: Recipe) -> set[str]:
    """Return the names of the language models that members share."""
    return {group.backbone.name for group in groups_of(recipe) if group.settings.source != "full"}
