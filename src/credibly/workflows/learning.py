"""The learning curve: the run's members trained anew on parts of its training texts."""

from __future__ import annotations

import shutil

from credibly.data.cutting import limited
from credibly.engines.jobs import train
from credibly.ensemble import Ensemble
from credibly.errors import InputError, listed
from credibly.members import LABELLERS
from credibly.passes import groups_of
from credibly.records import Examples, Predictions
from credibly.runs import Run
from credibly.settings import Recipe
from credibly.workflows.work import Work

SCORED = ("calibration", "test")
UNTRAINED = (*LABELLERS, "adapters")
"""Sources whose members learn nothing from the training texts."""


def curve_names(recipe: Recipe) -> dict[str, float]:
    """Return the shares of the training texts by the name under which the answers are stored."""
    return {f"learning_{share:g}": share for share in recipe.evaluation.learning_curve}


def part_of(train: Examples, share: float, seed: int) -> Examples:
    """Return a share of the training texts, every class in its own; a larger share holds a smaller one."""
    return limited(train, limit=round(share * len(train)), seed=seed)


def check_learning_curve(recipe: Recipe, train: Examples, tested: bool) -> None:
    """Raise InputError where there is no curve to be had, before anything is trained."""
    shares = recipe.evaluation.learning_curve
    if not shares:
        return
    if not tested:
        raise InputError(
            "expected a test set beside evaluation.learning_curve, which is scored on it; give one"
        )
    strange = [group.name for group in groups_of(recipe) if group.settings.source in UNTRAINED]
    if strange:
        raise InputError(
            f"expected members that learn from the training texts, got {listed(strange)}, which do not; "
            "leave out evaluation.learning_curve"
        )
    least = part_of(train, shares[0], recipe.seed)
    missing = sorted(set(train.labels.tolist()) - set(least.labels.tolist()))
    if missing or len(least) < recipe.members.count:
        without = f", and none of class {listed(train.class_names[label] for label in missing)}"
        raise InputError(
            "expected shares in evaluation.learning_curve that hold every class and a text a member, got "
            f"{shares[0]:g}: {len(least)} of {len(train)} texts{without if missing else ''}; begin with more"
        )


def learn_on_parts(work: Work) -> None:
    """Train the members on each part where that is not done yet, and store what they answer, no weights."""
    for name, share in curve_names(work.recipe).items():
        if not all(work.run.predictions_file(name, split).is_file() for split in SCORED):
            _learn_on(work, name, share)


def _learn_on(work: Work, name: str, share: float) -> None:
    recipe, splits = work.recipe.model_copy(update={"trackers": []}), work.splits.named()
    part = part_of(work.splits.train, share, recipe.seed)
    run = Run(work.run.checkpoints_folder / name)
    stages = work.stages

    def named(stage: str) -> object:
        return stages(f"{stage}, {len(part):,} texts")

    train(run, recipe, part, named, work.splits.validation)  # type: ignore[arg-type]
    ensemble = Ensemble.open(run, recipe, work.splits.train.class_names)
    for split in SCORED:
        work.run.save_predictions(name, split, ensemble.predict(splits[split], cached=True))
    shutil.rmtree(run.path)


def learned_on_parts(run: Run, texts: int) -> dict[int, dict[str, Predictions]]:
    """Return what members answered by number of texts that they learned, all texts last, and by split."""
    names = {name: round(share * texts) for name, share in curve_names(run.recipe).items()}
    return {
        rows: {split: run.load_predictions(name, split) for split in SCORED}
        for name, rows in ({**names, "members": texts} if names else {}).items()
    }
