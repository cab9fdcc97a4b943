"""Members that infer: which of the sentences that say the classes a text entails, by an inference model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from credibly.backbones.footprint import FLOAT, Needs, forward, untrained_needs
from credibly.backbones.loading import Classifier, load_trained_classifier
from credibly.backbones.outline import Outline, Texts
from credibly.backbones.reading import Reading
from credibly.batching import padded_batches, tokenise
from credibly.errors import InputError, listed
from credibly.members.common import Histories, TrainingData, count_weights
from credibly.members.opinions import Bias, FloatArray, Labellers, Said
from credibly.members.statements import Statements, load_statements, save_statements, statements_of
from credibly.parted import paired
from credibly.progress import Progress, Stages
from credibly.reading import count_cut
from credibly.records import normalised_log_probs
from credibly.settings import BackboneSettings, EntailmentSettings
from credibly.training import UNWATCHED, History, Monitor
from credibly.tuning import class_logits

ENTAILED = "entail"
"""What the name of the class begins with that says a sentence follows from a text."""
LEAST_ROOM = 8
"""Tokens of a text, those around it counted, below which nothing can be said of it."""


@dataclass(frozen=True)
class EntailmentMembers(Labellers):
    """M sets of sentences, and one model that says which of them a text entails.

    Args:
        classifier: the inference model.
        entailed: which of its classes says that a sentence follows.
        statements: M members' sentences, C each.
    """

    classifier: Classifier
    entailed: int
    statements: Statements

    @property
    def shared_parameters(self) -> int:
        """Number of weights of the inference model."""
        return count_weights(self.classifier.model.parameters())

    @property
    def reader(self) -> Reading:
        """The inference model, with the room that the longest sentence leaves for a text."""
        return _reader(self.classifier, self.statements)

    def said(self, texts: Sequence[str], progress: Progress | None = None) -> Said:
        """Return the softmax over the classes of the logits of entailment, as Yin et al. 2019 have it.

        https://arxiv.org/abs/1909.00161; what the model says of contradiction has no part in it, as in the
        zero-shot pipeline of transformers where one class alone is right.
        """
        logits = np.empty((self.count, len(texts), len(self.class_names)))
        for member, own in enumerate(self.statements):
            logits[member] = self._entailment(texts, own)
            if progress:
                progress((member + 1) * len(texts), self.count * len(texts))
        return Said(normalised_log_probs(logits).astype(np.float64), count_cut((self.reader,), texts))

    def _entailment(self, texts: Sequence[str], statements: Sequence[str]) -> FloatArray:
        """Return the logits of entailment, float64, (N, C); where a pair is too long, the text gives way."""
        model = self.classifier
        pairs = [paired(text, statement, cut_first=True) for text in texts for statement in statements]
        batches = padded_batches(tokenise(model.tokenizer, pairs, model.max_tokens), model.token_budget)
        logits = class_logits(model, batches, len(pairs))[:, self.entailed]
        return logits.reshape(len(texts), len(statements)).astype(np.float64)

    def save(self, member: int, folder: Path) -> None:
        """Write one member's sentences and bias."""
        save_statements(folder, self.statements[member], self.bias.content(member))


def _reader(classifier: Classifier, statements: Statements) -> Reading:
    tokenizer = classifier.tokenizer
    sentences = [sentence for own in statements for sentence in own]
    ids = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    between = tokenizer.num_special_tokens_to_add(pair=True) - tokenizer.num_special_tokens_to_add()
    return Reading(tokenizer, classifier.max_tokens - between - max(map(len, ids)))


def entailed_class(names: Sequence[str], model: str) -> int:
    """Return which of a model's classes says that a sentence follows from a text.

    >>> entailed_class(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], "an-nli-model")
    2

    Raises:
        InputError: none of them says so by its name, or several do.
    """
    found = [index for index, name in enumerate(names) if name.lower().startswith(ENTAILED)]
    if len(found) != 1:
        raise InputError(
            f"expected an NLI model, with one class called entailment, and those of {model} are "
            f"{listed(names, 10)}; take a model that was trained on MNLI or the like, or "
            "name its classes in id2label of its config.json"
        )
    return found[0]


@dataclass(frozen=True)
class Pool:
    """What members are made of: the inference model, and texts on which their bias is found."""

    classifier: Classifier
    entailed: int
    data: TrainingData


def group_size(settings: EntailmentSettings) -> int:
    """Return how many members are made in one pass: all."""
    return settings.count


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: EntailmentSettings, stages: Stages
) -> Pool:
    """Load the model."""
    return Pool(*_loaded(backbone), data)


def _loaded(backbone: BackboneSettings) -> tuple[Classifier, int]:
    """Return an inference model, and which of its classes is entailment."""
    classifier = load_trained_classifier(backbone)
    entailed = entailed_class(classifier.class_names, backbone.name)
    tokenizer = classifier.tokenizer
    if tokenizer.num_special_tokens_to_add(pair=True) <= tokenizer.num_special_tokens_to_add():
        raise InputError(
            f"expected a model that reads a text and a sentence as a pair, and the tokenizer of "
            f"{backbone.name} puts nothing between them; take another model"
        )
    return classifier, entailed


def fit(
    material: Pool, settings: EntailmentSettings, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> tuple[EntailmentMembers, Histories]:
    """Make one member a seed; nothing is trained, but each one's bias is found on training texts.

    Raises:
        InputError: as `labellers`.
    """
    members = labellers(material, settings, seeds)
    unbiased = members.warmed_up(material.data, settings.warm_up, monitor.progress)
    return unbiased, [History() for _ in seeds]


def labellers(material: Pool, settings: EntailmentSettings, seeds: Sequence[int]) -> EntailmentMembers:
    """Make one member a seed, with no bias taken off.

    Raises:
        InputError: templates or words that do not fit, more members than templates, or sentences that leave
            no room for a text.
    """
    names = material.data.class_names
    statements = statements_of(names, settings, seeds)
    if (room := _reader(material.classifier, statements).max_tokens) < LEAST_ROOM:
        raise InputError(
            f"the longest of the sentences that say the classes leaves {max(0, room)} of the model's "
            f"{material.classifier.max_tokens} tokens for a text, expected {LEAST_ROOM} or more; "
            "shorten members.templates or members.description"
        )
    bias = Bias.none(len(seeds), len(names))
    return EntailmentMembers(bias, names, material.classifier, material.entailed, statements)


def load(
    folders: Sequence[Path],
    backbone: BackboneSettings,
    settings: EntailmentSettings,
    class_names: Sequence[str],
) -> EntailmentMembers:
    """Return saved members on their model.

    Raises:
        RunFolderError: a file is damaged.
    """
    statements, bias = load_statements(folders, class_names)
    return EntailmentMembers(bias, tuple(class_names), *_loaded(backbone), statements)


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: EntailmentSettings) -> Needs:
    """Return what these members need: every text runs once a member and class.

    What the sentences add to the texts is not counted.
    """
    kept = outline.passing(texts, backbone.token_budget, side_by_side=True)
    through = forward(outline, texts, outline.blocks) * settings.count * outline.classes
    return untrained_needs(outline, outline.parameters, FLOAT * outline.parameters, kept, through)
