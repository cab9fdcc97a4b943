"""What a run keeps of the texts it was trained on, so that others can be held against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from credibly.backbones import Backbone, embedded_once, load_backbone
from credibly.backbones.embedding import MIDDLE
from credibly.data import Splits, load_splits
from credibly.errors import CrediblyError, RunFolderError
from credibly.passes import Group, groups_of
from credibly.progress import Stages, silent
from credibly.records import Examples, IntArray
from credibly.runs import Run, write_bytes
from credibly.settings import Recipe
from credibly.uncertainty.unknown.distances import Embedded
from credibly.uncertainty.unknown.shift import Reference, Scores
from credibly.workflows.common.provenance import changed_sets
from credibly.workflows.steps.work import Work

MOST_ROWS = 5000
"""Texts of a set that are kept: more would hardly move a score, and fill the disk."""
STAGE = "embedding a reference"
EMBEDDED = ("heads", "laplace")
"""Member sources that embed the texts anyway."""


@dataclass(frozen=True)
class Embedder:
    """Embeds texts with the frozen language model that a run's members start from.

    What members were tuned to is left out of account: it holds what tells the classes apart, and drops what
    does not.

    Args:
        group: the members whose model it is.
    """

    group: Group

    @classmethod
    def of(cls, recipe: Recipe) -> Embedder:
        """Return the embedder of a recipe."""
        return cls(embedding_group(recipe))

    @cached_property
    def backbone(self) -> Backbone:
        """The model, loaded when first asked."""
        return load_backbone(self.group.backbone)

    def embed(self, texts: Sequence[str], rows: IntArray | None = None) -> Embedded:
        """Return the texts at these rows, or all, as the model sees them; kept in the cache."""
        chosen = texts if rows is None else [texts[row] for row in rows]
        middle = embedded_once(replace(self.backbone, pooling=MIDDLE), chosen)
        if rows is not None and self.group.settings.source in EMBEDDED:
            # They have had all of them embedded, and the cache knows them by that.
            return Embedded(embedded_once(self.backbone, texts)[rows], middle)
        return Embedded(embedded_once(self.backbone, chosen), middle)


def embedding_group(recipe: Recipe) -> Group:
    """Return the members whose model embeds: heads, whose embeddings are there anyway, else the first."""
    groups = list(groups_of(recipe))
    return next((group for group in groups if group.settings.source in EMBEDDED), groups[0])


def kept_rows(N: int, seed: int) -> IntArray:
    """Return the rows of a set that a reference keeps: all, or 5,000 drawn with a seed, in rising order."""
    if N <= MOST_ROWS:
        return np.arange(N)
    return np.sort(np.random.default_rng(seed).choice(N, MOST_ROWS, replace=False))


def keep_reference(
    run: Run, recipe: Recipe, splits: Splits, embedder: Embedder, stages: Stages = silent
) -> Reference:
    """Return a run's reference, which is made and written where it is not there yet."""
    if not run.reference_file.is_file():
        write_bytes(run.reference_file, _reference(recipe, splits, embedder, stages).as_bytes())
    return Reference.read(run.check(run.reference_file))


def reference_of(run: Run, embedder: Embedder, stages: Stages = silent) -> Reference:
    """Return the reference of a finished run; one without is made from its data, and not written.

    Raises:
        RunFolderError: there is none, and the data cannot be had or are others by now.
    """
    if run.reference_file.is_file():
        return Reference.read(run.check(run.reference_file))
    recipe = run.recipe
    try:
        splits = load_splits(recipe.data, recipe.seed, recipe.members.count)
    except CrediblyError as error:
        raise _without_reference(run, f"its data cannot be read ({error})") from None
    if {"train", "calibration"} & {*changed_sets(run, splits)}:
        raise _without_reference(run, "its data are others by now")
    return _reference(recipe, splits, embedder, stages)


def strangeness(work: Work) -> dict[str, Scores]:
    """Return the test and shift sets' embedding scores, if there are both.

    An unfinished run keeps its reference; to a finished one nothing is written.
    """
    run, splits, embedder = work.run, work.splits, Embedder.of(work.recipe)
    if not run.finished:
        keep_reference(run, work.recipe, splits, embedder, work.stages)
    if splits.test is None or not splits.shift:
        return {}
    reference = reference_of(run, embedder, work.stages)
    sets: dict[str, Examples] = {"test": splits.test, **splits.shift}
    return {name: reference.scores(embedder.embed(examples.texts)) for name, examples in sets.items()}


def _reference(recipe: Recipe, splits: Splits, embedder: Embedder, stages: Stages) -> Reference:
    told = stages(STAGE)
    told(0, 1)
    sets = (splits.train, splits.calibration)
    rows = [kept_rows(len(examples), recipe.seed) for examples in sets]
    train, calibration = (
        embedder.embed(examples.texts, own) for examples, own in zip(sets, rows, strict=True)
    )
    reference = Reference(
        train=train,
        labels=splits.train.labels[rows[0]],
        calibration=calibration,
        class_names=splits.train.class_names,
        backbone=embedder.group.backbone.name,
    )
    told(1, 1)
    return reference


def _without_reference(run: Run, reason: str) -> RunFolderError:
    return RunFolderError(
        f"{run.path} keeps no reference of its training texts, as runs of earlier versions do, and "
        f"{reason}; fit it again"
    )
