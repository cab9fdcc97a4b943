"""All labellers of a recipe: asked one kind after the other, and their answers put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from credibly.errors import listed
from credibly.members import LABELLERS, Labellers, Said, TrainingData
from credibly.members.prompts import PromptMembers
from credibly.passes import Group, groups_of
from credibly.progress import Progress, Stages
from credibly.runs import Run, replacing
from credibly.settings import Recipe
from credibly.uncertainty.dawid_skene import LEAST_LABELLERS, DawidSkene, dawid_skene
from credibly.uncertainty.label_shift import Corrections
from credibly.uncertainty.numerics import votes_of
from credibly.uncertainty.systems import Answer, answers


@dataclass(frozen=True)
class Panel:
    """M labellers, in groups.

    Args:
        groups: as the recipe wants them.
        labellers: one entry a group.
    """

    groups: tuple[Group, ...]
    labellers: tuple[Labellers, ...]

    @classmethod
    def of(cls, recipe: Recipe, shown: TrainingData, stages: Stages) -> Panel:
        """Make a recipe's labellers.

        Args:
            recipe: of which all members are labellers.
            shown: the classes, and the examples that prompts show.
            stages: told of progress.

        Raises:
            AssetError: a model cannot be had.
            InputError: a model or settings that do not fit.
        """
        groups = tuple(groups_of(recipe))
        made = []
        for group in groups:
            source = LABELLERS[group.settings.source]
            material = source.prepare(shown, group.backbone, group.settings, stages)
            made.append(source.labellers(material, group.settings, group.seeds))
        return cls(groups, tuple(made))

    @property
    def count(self) -> int:
        """M."""
        return sum(own.count for own in self.labellers)

    @property
    def name(self) -> str:
        """Kinds and backbones, for the record."""
        return "; ".join(group.name for group in self.groups)

    @property
    def kinds(self) -> str:
        """How many of which kind, for messages."""
        return listed(f"{len(group.seeds)} {group.settings.source}" for group in self.groups)

    @property
    def words(self) -> list[tuple[str, ...]]:
        """The words that a member's model has to say, by member; none of those that are no prompts."""
        return [
            own.frames[member].words if isinstance(own, PromptMembers) else ()
            for own in self.labellers
            for member in range(own.count)
        ]

    def said(self, texts: Sequence[str], progress: Progress | None = None) -> Said:
        """Return what all labellers say, before any bias is taken off."""
        parts, before, total = list[Said](), 0, self.count * len(texts)
        for own in self.labellers:
            parts.append(own.said(texts, _scaled(progress, before, own.count * len(texts), total)))
            before += own.count * len(texts)
        return Said(np.concatenate([part.log_probs for part in parts]), max(part.cut for part in parts))

    def save(self, run: Run) -> None:
        """Write every labeller to a folder of its own."""
        for group, own in zip(self.groups, self.labellers, strict=True):
            for member, seed in enumerate(group.seeds):
                with replacing(run.member_folder(seed)) as folder:
                    folder.mkdir()
                    own.save(member, folder)


def _scaled(progress: Progress | None, before: int, share: int, total: int) -> Progress | None:
    """Return what tells a part's progress as that of the whole: not all parts count alike."""
    if progress is None:
        return None
    return lambda done, own: progress(before + done * share // max(1, own), total)


@dataclass(frozen=True)
class Combined:
    """What labellers say put together, in each way that is open to them.

    Args:
        mean: by the mean of their probabilities.
        weighed: what their votes tell of each; None where they are too few.
    """

    mean: Answer
    weighed: DawidSkene | None

    @classmethod
    def of(cls, corrections: Corrections) -> Combined:
        """Combine the record to use; class shares that are given hold, others are found with the votes."""
        final = corrections.final
        enough = final.shape[0] >= LEAST_LABELLERS
        weighed = dawid_skene(votes_of(final.log_probs), corrections.prior) if enough else None
        return cls(answers("ensemble", final, {})[0], weighed)

    def answer(self, rule: str) -> Answer:
        """Return the answers by `mean` or `dawid_skene`; their uncertainty is the labellers' own."""
        if rule == "mean":
            return self.mean
        assert self.weighed is not None
        return replace(self.mean, probs=self.weighed.probs)

    @property
    def differ(self) -> float | None:
        """The share of texts that the two rules label differently."""
        if self.weighed is None:
            return None
        return float((self.weighed.probs.argmax(axis=1) != self.mean.predicted).mean())

    @property
    def answers(self) -> dict[str, Answer]:
        """All answers by the name of their rule."""
        rules = ["mean"] if self.weighed is None else ["mean", "dawid_skene"]
        return {rule: self.answer(rule) for rule in rules}
