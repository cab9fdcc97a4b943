"""The jobs of training members, dealt out to as many processes as the recipe and the machine want."""

from __future__ import annotations

import torch

from credibly.engines.processes import train_side_by_side
from credibly.ensemble import train_members
from credibly.errors import TrainingError
from credibly.passes import count_passes, groups_of, passes_of
from credibly.progress import Stages, silent
from credibly.records import Examples
from credibly.runs import Run
from credibly.settings import Recipe


def train(
    run: Run,
    recipe: Recipe,
    examples: Examples,
    stages: Stages = silent,
    validation: Examples | None = None,
) -> None:
    """Train the members that the run does not hold yet, and write each member's folder whole.

    Args:
        run: where to.
        recipe: what to train; `processes` says on how many devices or processes.
        examples: all of which need a label or label probabilities.
        stages: told of progress.
        validation: held out, for the histories and for stopping early.

    Raises:
        RecordError: a row has no label.
        InputError: there are fewer rows than members, or settings that do not fit the backbone.
        TrainingError: a member's loss was no longer finite; the others are written.
        ProcessError: a process died; what others have finished is written.
    """
    missing = [each.missing for group in groups_of(recipe) for each in passes_of(run, recipe, group)]
    processes = min(count_processes(recipe), count_passes(recipe))
    if processes > 1:
        # Also where one pass is left of a run that goes on: it takes as many threads as when all began.
        dealt = [missing[place::processes] for place in range(min(processes, len(missing)))]
        shares = [frozenset(sum(seeds, ())) for seeds in dealt]
        failures = train_side_by_side(run, recipe, examples, shares, processes, stages, validation)
    else:
        failures = train_members(run, recipe, examples, stages, validation)
    if failures:
        raise TrainingError(
            "; ".join(f"member {seed}: {failure}" for seed, failure in sorted(failures.items()))
            + f" ({recipe.members.count - len(failures)} of {recipe.members.count} members are trained)"
        )


def count_processes(recipe: Recipe) -> int:
    """Return how many trainings a recipe wants side by side: by itself one a GPU, and one without any.

    Where the GPUs share a base, they all take part in one training.
    """
    if recipe.processes == "auto":
        shared = any(group.backbone.device_map is not None for group in groups_of(recipe))
        return 1 if shared else max(1, torch.cuda.device_count())
    return recipe.processes
