"""What `label` found about texts, to be learned in place of labels or to choose texts by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from credibly.data.labelling import texts_to_label
from credibly.data.leaks import rows
from credibly.errors import DataError
from credibly.records import Examples, FloatArray, IntArray
from credibly.runs import Run
from credibly.settings import DataSettings


@dataclass(frozen=True)
class Opinions:
    """Texts with what a labeller thinks of them, its bias taken off.

    Args:
        examples: label_probs are what its members say together, labels its likeliest class.
        probs: float64, (N, C), the same as it stands in the file: not normalised anew.
        total: float64, (N,), nats.
        aleatoric: float64, (N,), nats.
        epistemic: float64, (N,), nats.
        file_ids: of each text, as the file that was read has or numbers it; `examples` has the labels' own.
        shown: texts that the labeller was shown with their labels, by which it cannot be judged.
    """

    examples: Examples
    probs: FloatArray
    total: FloatArray
    aleatoric: FloatArray
    epistemic: FloatArray
    file_ids: tuple[str, ...]
    shown: tuple[str, ...] = ()


def read_opinions(folder: str | Path, settings: DataSettings | None = None) -> Opinions:
    """Return the opinions in a folder that `label` left, with their texts; labels of the file are not read.

    Args:
        folder: the run folder.
        settings: the file of the texts and their columns; those of the run if left out.

    Raises:
        RunFolderError: the folder is unfinished or damaged, or holds no labels.
        DataError: the file cannot be read, or its texts are not those that were labelled.
    """
    run = Run.open(folder, labels=True)
    content = run.check(run.labels_file).read_text(encoding="utf-8")
    # Not by `splitlines`, which also parts at characters that JSON may leave in an id.
    lines = [json.loads(line) for line in content.split("\n") if line]
    recipe = run.recipe
    assert recipe.labelling is not None
    assert recipe.resolved is not None
    names = tuple(recipe.labelling.classes)
    # Which of the rows were labelled is for the labelling run to say.
    given = (settings or recipe.data).model_copy(update={"limit": recipe.data.limit})
    texts, _ = texts_to_label(given, names, recipe.seed)
    file_ids = texts.ids
    if len(texts) == len(lines):
        texts = replace(texts, ids=tuple(line["id"] for line in lines))  # a copied file numbers its own
    # Rows may be weighed in what is learned of the opinions; for labelling them it did not matter.
    if recipe.resolved.fingerprints.get("unlabelled") != replace(texts, weights=None).fingerprint():
        raise DataError(
            f"{given.train}: expected the texts that {folder} has labelled, in their order, as its columns "
            f"make them, got others ({rows(len(texts))} for {len(lines):,}); give the same file and columns, "
            "or leave the file out"
        )
    probs = np.array([[line["probabilities"][name] for name in names] for line in lines])
    labels = np.array([names.index(line["label"]) for line in lines])
    total, aleatoric, epistemic = (
        np.array([line[part] for line in lines]) for part in ("total", "aleatoric", "epistemic")
    )
    examples = replace(texts, labels=labels, label_probs=probs)
    return Opinions(examples, probs, total, aleatoric, epistemic, file_ids, shown_to(run))


def shown_to(run: Run) -> tuple[str, ...]:
    """Return the texts that the labellers of a run were shown with their labels."""
    return tuple(run.read_json(run.check(run.labelling_file)).get("examples", ()))


def surest_rows(labels: IntArray, total: FloatArray, share: float, below: float | None = None) -> IntArray:
    """Return which opinions to learn, in rising order.

    Args:
        labels: (N,), the likeliest class of each.
        total: (N,), its uncertainty in nats.
        share: of each class, and one opinion of it at least, so that no class is lost.
        below: what is above it is left out, whatever the share.

    >>> surest_rows(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.5]), 0.5).tolist()
    [0, 3]
    """
    order = np.argsort(total, kind="stable")
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    kept = [own[: max(1, round(share * len(own)))] for own in by_class]
    chosen = np.sort(np.concatenate(kept))
    return chosen if below is None else chosen[total[chosen] <= below]


def certainty(probs: ArrayLike) -> FloatArray:
    """Return a weight for each row of class probabilities, float64, (N,), of mean one.

    In proportion to 1 - H(p) / ln C: a label known for sure has the largest, equal probabilities have none.
    That the mean is one leaves learning rate and weight decay what they were. Where no row says anything,
    all count the same.

    >>> certainty([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]).tolist()
    [1.5, 0.0, 1.5]
    """
    p = np.asarray(probs, dtype=np.float64)
    weights = np.clip(1.0 - entr(p).sum(axis=-1) / np.log(p.shape[-1]), 0.0, 1.0)
    total = weights.sum()
    return weights * (len(weights) / total) if total > 0 else np.ones(len(weights))


def weighing(train: Examples, settings: DataSettings) -> Callable[[ArrayLike], FloatArray] | None:
    """Return what gives rows their weights, of mean one, by what is learned of them, (N, C).

    They are those of the training rows, times `certainty` where settings ask for it. Rows after the first
    K, which are not training rows, count as these do in the mean. None where all count the same.
    """
    own, by_certainty = train.weights, settings.row_weights == "certainty"
    if own is None and not by_certainty:
        return None

    def weigh(targets: ArrayLike) -> FloatArray:
        weights = certainty(targets) if by_certainty else np.ones(len(np.asarray(targets)))
        if own is not None and own.any():
            weights[: len(own)] *= own / own.mean()
        total = weights.sum()
        return weights * (len(weights) / total) if total > 0 else np.ones(len(weights))

    return weigh


def opinion_notes(settings: DataSettings) -> Iterator[str]:
    """Yield what opinions in place of labels mean for what comes out; nothing where labels are learned."""
    source = settings.labels_from
    if source is None:
        return
    yield f"train: what is learned are the opinions in {source}, not true labels"
    if settings.calibrated_by_opinions:
        yield (
            f"calibration: cut from the texts labelled in {source}: probabilities are calibrated to the "
            "labeller's opinions and not to the truth, which may be off, and neither an error rate nor "
            "prediction sets are promised; for the truth give a calibration file with true labels"
        )
    if settings.test is None:
        yield "test: none is given, and opinions are no truth to score by, so there is no report"
