"""Members trained and run over examples; what comes out is their record, and nothing is averaged here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from credibly.backbones import Backbone, embed, embedded_once
from credibly.members import heads
from credibly.progress import Progress
from credibly.records import Examples, Predictions
from credibly.runs import Run, write_text
from credibly.settings import Recipe
from credibly.training import HISTORY, StepRecord, history_lines

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Ensemble:
    """M trained members on one backbone.

    Args:
        backbone: embeds the texts.
        members: the batched heads.
        class_names: C names.
        source: the member source's name.
    """

    backbone: Backbone
    members: heads.Heads
    class_names: tuple[str, ...]
    source: str = "heads"

    @classmethod
    def train(
        cls, recipe: Recipe, backbone: Backbone, examples: Examples, progress: Progress | None = None
    ) -> tuple[Ensemble, list[list[StepRecord]]]:
        """Train the recipe's members on examples, all of which need a label or label probabilities.

        Raises:
            RecordError: a row has no label.
            InputError: there are fewer rows than members.
            TrainingError: a loss is no longer finite.
        """
        members, histories = heads.fit(
            embedded_once(backbone, examples.texts),
            examples.targets(),
            recipe.members,
            member_seeds(recipe),
            progress,
        )
        return cls(backbone, members, examples.class_names), histories

    @classmethod
    def open(cls, run: Run, backbone: Backbone) -> Ensemble:
        """Load a run's members.

        Raises:
            RunFolderError: a member is missing or damaged.
        """
        files = [run.check(run.member_folder(seed) / WEIGHTS) for seed in member_seeds(run.recipe)]
        return cls(backbone, heads.load_members(files), heads.class_names_of(files[0]))

    def save(self, run: Run, recipe: Recipe, histories: Sequence[Sequence[StepRecord]]) -> None:
        """Write every member's history and then its weights, each whole."""
        for member, (seed, history) in enumerate(zip(member_seeds(recipe), histories, strict=True)):
            write_text(run.member_folder(seed) / HISTORY, history_lines(history))
            heads.save_member(self.members, member, run.member_folder(seed) / WEIGHTS, self.class_names)

    def predict(self, examples: Examples, cached: bool = False) -> Predictions:
        """Return the members' record on examples, (M, N, C).

        Args:
            examples: texts; labels go into the record and are not looked at.
            cached: whether to keep the embeddings for the next time.
        """
        embeddings = (embedded_once if cached else embed)(self.backbone, examples.texts)
        return Predictions(
            log_probs=heads.predict(self.members, embeddings),
            ids=examples.ids,
            class_names=self.class_names,
            labels=examples.labels,
            label_probs=examples.label_probs,
            provenance={"source": self.source, "backbone": self.backbone.name},
        )

    @property
    def backbone_parameters(self) -> int:
        """Number of weights that all members share."""
        return sum(parameter.numel() for parameter in self.backbone.model.parameters())

    @property
    def member_parameters(self) -> int:
        """Number of weights of one member."""
        return sum(parameter.numel() for parameter in self.members.parameters()) // self.members.members


def member_seeds(recipe: Recipe) -> list[int]:
    """Return each member's seed: the recipe's and those that follow."""
    return [recipe.seed + member for member in range(recipe.members.count)]


def trained(run: Run, recipe: Recipe) -> bool:
    """Whether all of a run's members are there."""
    return all((run.member_folder(seed) / WEIGHTS).is_file() for seed in member_seeds(recipe))
