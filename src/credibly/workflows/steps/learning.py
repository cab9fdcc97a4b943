"""The learning curve: the run's members trained anew on parts of its training texts."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator

from credibly.data.cutting import limited
from credibly.engines.jobs import train
from credibly.ensemble import Ensemble
from credibly.errors import InputError, TrainingError, listed
from credibly.members import LABELLERS
from credibly.passes import groups_of
from credibly.progress import Progress
from credibly.records import UNKNOWN, Examples, Predictions
from credibly.runs import Run, write_json
from credibly.settings import Recipe
from credibly.workflows.steps.work import Work

log = logging.getLogger(__name__)

SCORED = ("calibration", "test")
UNTRAINED = (*LABELLERS, "adapters")
"""Sources whose members are not trained."""


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
            f"expected members that are trained, got {listed(strange)}, which are not; leave out "
            "evaluation.learning_curve"
        )
    least = part_of(train, shares[0], recipe.seed)
    missing = sorted(set(train.labels.tolist()) - set(least.labels.tolist()) - {UNKNOWN})
    if missing or len(least) < recipe.members.count:
        without = f", and none of class {listed(train.class_names[label] for label in missing)}"
        raise InputError(
            "expected shares in evaluation.learning_curve that hold every class and a text a member, got "
            f"{shares[0]:g}: {len(least)} of {len(train)} texts{without if missing else ''}; begin with more"
        )


def learn_on_parts(work: Work) -> None:
    """Train the members on each part where that is not done yet, and store what they answer, no weights.

    Where a member cannot be trained on a part, why is stored in the place of answers, and is not tried again:
    the curve has no point there.
    """
    for name, share in curve_names(work.recipe).items():
        answered = all(work.run.predictions_file(name, split).is_file() for split in SCORED)
        if not (answered or work.run.failure_file(name).is_file()):
            _learn_on(work, name, share)


def _learn_on(work: Work, name: str, share: float) -> None:
    recipe, splits = work.recipe.model_copy(update={"trackers": []}), work.splits.named()
    part = part_of(work.splits.train, share, recipe.seed)
    run = Run(work.run.checkpoints_folder / name)
    stages = work.stages

    def named(stage: str) -> Progress:
        return stages(f"{stage}, {len(part):,} texts")

    try:
        train(run, recipe, part, named, work.splits.validation)
    except TrainingError as error:
        write_json(work.run.failure_file(name), {"texts": len(part), "failure": str(error)})
        log.warning(_without_point(len(part), str(error)))
    else:
        ensemble = Ensemble.open(run, recipe, work.splits.train.class_names)
        for split in SCORED:
            work.run.save_predictions(name, split, ensemble.predict(splits[split], cached=True))
    shutil.rmtree(run.path, ignore_errors=True)


def failed_parts(run: Run) -> list[str]:
    """Return the names of the parts on which a member could not be trained."""
    return [name for name in curve_names(run.recipe) if run.failure_file(name).is_file()]


def curve_notes(run: Run) -> Iterator[str]:
    """Yield a sentence for each point that the learning curve lacks."""
    for name in failed_parts(run):
        facts = run.read_json(run.check(run.failure_file(name)))
        yield _without_point(facts["texts"], facts["failure"])


def _without_point(texts: int, failure: str) -> str:
    return f"the learning curve has no point at {texts:,} texts, where a member cannot be trained: {failure}"


def learned_on_parts(run: Run, texts: int) -> dict[int, dict[str, Predictions]]:
    """Return what members answered by number of texts that they learned, all texts last, and by split.

    Parts on which a member could not be trained are left out.
    """
    failed = failed_parts(run)
    shares = {name: share for name, share in curve_names(run.recipe).items() if name not in failed}
    names = {name: round(share * texts) for name, share in shares.items()}
    return {
        rows: {split: run.load_predictions(name, split) for split in SCORED}
        for name, rows in ({**names, "members": texts} if names else {}).items()
    }
