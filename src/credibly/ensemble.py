"""Members trained and run over examples; what comes out is their record, and nothing is averaged here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from credibly.backbones.reading import Reader
from credibly.errors import InputError, TrainingError
from credibly.members import SOURCES, Members, TrainingData
from credibly.progress import Stages, silent
from credibly.records import Examples, Predictions
from credibly.runs import Run, replacing
from credibly.settings import BackboneSettings, MixedSettings, Recipe
from credibly.training import HISTORY, Checkpoints, History, Monitor, Trackers


@dataclass(frozen=True)
class Group:
    """Members of one source on one backbone, as the recipe wants them.

    Args:
        backbone: the language model.
        settings: of the source.
        seeds: one a member.
    """

    backbone: BackboneSettings
    settings: Any
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Source and backbone, for messages."""
        return f"{len(self.seeds)} {self.settings.source} on {self.backbone.name}"


@dataclass(frozen=True)
class Ensemble:
    """Trained members, group after group.

    Args:
        groups: as the recipe wants them.
        members: trained, one entry a group.
        class_names: C names.
    """

    groups: tuple[Group, ...]
    members: tuple[Members, ...]
    class_names: tuple[str, ...]

    @classmethod
    def open(cls, run: Run, recipe: Recipe, class_names: Sequence[str]) -> Ensemble:
        """Load a run's members.

        Raises:
            RunFolderError: a member is missing or damaged.
        """
        groups = tuple(groups_of(recipe))
        for group in groups:
            for seed in group.seeds:
                run.check_folder(run.member_folder(seed))
        members = tuple(
            SOURCES[group.settings.source].load(
                [run.member_folder(seed) for seed in group.seeds], group.backbone, group.settings, class_names
            )
            for group in groups
        )
        return cls(groups, members, tuple(class_names))

    @property
    def readers(self) -> tuple[Reader, ...]:
        """How each group's model reads texts."""
        return tuple(members.reader for members in self.members)

    def predict(self, examples: Examples, cached: bool = False) -> Predictions:
        """Return the members' record on examples, (M, N, C).

        Args:
            examples: texts; labels go into the record and are not looked at.
            cached: whether to keep what is computed once a text for the next time.
        """
        return Predictions(
            log_probs=np.concatenate([members.log_probs(examples.texts, cached) for members in self.members]),
            ids=examples.ids,
            class_names=self.class_names,
            labels=examples.labels,
            label_probs=examples.label_probs,
            provenance={"members": "; ".join(group.name for group in self.groups)},
        )


def groups_of(recipe: Recipe) -> Iterator[Group]:
    """Yield the recipe's groups; members are seeded by the recipe's seed and those that follow."""
    parts = (
        [(part.backbone or recipe.backbone, part.members) for part in recipe.members.parts]
        if isinstance(recipe.members, MixedSettings)
        else [(recipe.backbone, recipe.members)]
    )
    first = recipe.seed
    for backbone, settings in parts:
        yield Group(backbone, settings, tuple(range(first, first + settings.count)))
        first += settings.count


def train_members(
    run: Run,
    recipe: Recipe,
    examples: Examples,
    stages: Stages = silent,
    validation: Examples | None = None,
) -> None:
    """Train the members that the run does not hold yet, and write each member's folder whole.

    A training that was killed goes on from its last checkpoint. Where some members' training fails, the
    others are written before that is told.

    Args:
        run: where to.
        recipe: what to train.
        examples: all of which need a label or label probabilities.
        stages: told of progress.
        validation: held out, for the histories and for stopping early.

    Raises:
        RecordError: a row has no label.
        InputError: there are fewer rows than members, or settings that do not fit the backbone.
        TrainingError: a member's loss was no longer finite.
    """
    if recipe.members.count > len(examples):
        raise InputError(
            f"expected at least as many training rows as members ({recipe.members.count}), "
            f"got {len(examples)}"
        )
    data = _training_data(examples)
    if validation is not None:
        data = replace(data, validation=_training_data(validation))
    failures: dict[int, str] = {}
    for group in groups_of(recipe):
        source = SOURCES[group.settings.source]
        size = source.group_size(group.settings)
        passes = [group.seeds[start : start + size] for start in range(0, len(group.seeds), size)]
        missing = [seeds for seeds in passes if not _have(run, seeds)]
        if missing:
            material = source.prepare(data, group.backbone, group.settings, stages)
        for seeds in missing:
            checkpoints = Checkpoints(run.checkpoints_folder / f"members-{seeds[0]}")
            with Trackers.of(run, recipe).told(_name(seeds), seeds) as log:
                monitor = Monitor(stages(_stage(group, seeds)), checkpoints, log)
                members, histories = source.fit(material, group.settings, seeds, monitor)
            failures |= _store(run, members, seeds, histories)
            checkpoints.remove()
    if failures:
        raise TrainingError(
            "; ".join(f"member {seed}: {failure}" for seed, failure in failures.items())
            + f" ({recipe.members.count - len(failures)} of {recipe.members.count} members are trained)"
        )


def _training_data(examples: Examples) -> TrainingData:
    return TrainingData(examples.texts, examples.targets(), examples.class_names)


def _store(run: Run, members: Members, seeds: Sequence[int], histories: Sequence[History]) -> dict[int, str]:
    """Write every member whose training did not fail, and return the failures by seed."""
    for member, (seed, history) in enumerate(zip(seeds, histories, strict=True)):
        if history.failure is None and not run.member_folder(seed).is_dir():
            with replacing(run.member_folder(seed)) as folder:
                folder.mkdir()
                members.save(member, folder)
                (folder / HISTORY).write_text(history.as_lines(), encoding="utf-8")
    return {seed: history.failure for seed, history in zip(seeds, histories, strict=True) if history.failure}


def member_seeds(recipe: Recipe) -> list[int]:
    """Return each member's seed: the recipe's and those that follow."""
    return [seed for group in groups_of(recipe) for seed in group.seeds]


def trained(run: Run, recipe: Recipe) -> bool:
    """Whether all of a run's members are there."""
    return _have(run, member_seeds(recipe))


def _have(run: Run, seeds: Sequence[int]) -> bool:
    # A member's folder is moved into place whole, so one that is there is complete.
    return all(run.member_folder(seed).is_dir() for seed in seeds)


def _stage(group: Group, seeds: Sequence[int]) -> str:
    """Name a pass: all members of the group at once, or one or some by their seeds."""
    source = group.settings.source
    if len(seeds) == len(group.seeds):
        return f"training {len(seeds)} {source}"
    which = f"member {seeds[0]}" if len(seeds) == 1 else f"members {seeds[0]} to {seeds[-1]}"
    return f"training {source}, {which}"


def _name(seeds: Sequence[int]) -> str:
    """Name a pass as trackers do."""
    return f"member-{seeds[0]}" if len(seeds) == 1 else f"members-{seeds[0]}-{seeds[-1]}"
