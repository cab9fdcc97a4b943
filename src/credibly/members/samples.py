"""Members that are sampled answers: one prompt of one language model, answered M times at a temperature.

Each answer is a vote: all probability for the class that it names. One that names none, or several, says
nothing, and is the same probability for each class. So the members' mean is the share of votes,

    mean_c = (votes for c + answers that say nothing / C) / M,

of which the likeliest class is that of the most votes, however many say nothing; where all do, every class is
as likely. A vote has no entropy: of a text's total uncertainty what is aleatoric is ln C times the share of
answers that say nothing, and the rest is epistemic by construction. The total is what there is to go by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from credibly.backbones.footprint import Needs, forward, untrained_needs
from credibly.backbones.label_words import checked_words
from credibly.backbones.language_model import LanguageModel, load_language_model
from credibly.backbones.outline import Outline, Texts
from credibly.backbones.prompted import Frame
from credibly.backbones.reading import Reading
from credibly.backbones.sampled_answers import Answer, Drawing, sampled_answers
from credibly.backbones.word_tree import word_tree
from credibly.errors import RunFolderError
from credibly.members.answers import checked_names, named_class
from credibly.members.common import Histories, TrainingData, count_weights
from credibly.members.opinions import Bias, FloatArray, Labellers, Said
from credibly.members.prompt_texts import PLAIN, Template, checked_template
from credibly.members.prompts import Pool, frame_of
from credibly.progress import Progress, Stages
from credibly.records import LOWEST_LOG_PROB
from credibly.runs import write_json
from credibly.settings import BackboneSettings, SamplesSettings
from credibly.training import UNWATCHED, History, Monitor

FILE = "sample.json"
TEMPLATE = Template(PLAIN, "Possible answers for {what}: {classes}.")
"""The default prompt: where any answer may be given, the classes have to be named."""
ROOM = 3
"""Tokens of an answer beyond those of the longest class: a word before it, and what shows that it ended."""
EXAMPLES_SEED = 0
"""All members show the same examples in the same order, whatever their seeds."""


@dataclass(frozen=True)
class SampleMembers(Labellers):
    """M answers a text of one language model.

    Args:
        model: that is asked.
        frame: the prompt.
        drawing: temperature and length.
        seeds: one a member.
    """

    model: LanguageModel
    frame: Frame
    drawing: Drawing
    seeds: tuple[int, ...]

    @property
    def shared_parameters(self) -> int:
        """Number of weights of the language model, which all members share."""
        return count_weights(self.model.model.parameters())

    @property
    def reader(self) -> Reading:
        """The language model, with the room that prompt and answer leave for a text."""
        prompt = self.model.tokenizer(f"{self.frame.before}{self.frame.after}")["input_ids"]
        return Reading(self.model.tokenizer, self.model.max_tokens - len(prompt) - self.drawing.tokens)

    def said(self, texts: Sequence[str], progress: Progress | None = None) -> Said:
        """Return one vote a member and text; the same text is answered in the same way again.

        Raises:
            InputError: the model does not know a word, or the prompt leaves no room for a text.
        """
        told = progress and (lambda done, total: progress(done * self.count, total * self.count))
        answers, cut = sampled_answers(self.model, self.frame, texts, self.seeds, self.drawing, told)
        names = checked_names(self.frame.words)
        votes = np.array([_vote(own, names) for member in answers for own in member])
        return Said(votes.reshape(self.count, len(texts), len(names)), cut)

    def save(self, member: int, folder: Path) -> None:
        """Write one member: the prompt, how it is answered, and the seed."""
        own = {"seed": self.seeds[member], **self.bias.content(member)}
        write_json(folder / FILE, {**asdict(self.frame), **asdict(self.drawing), **own})


def _vote(answer: Answer, names: Sequence[tuple[str, ...]]) -> FloatArray:
    """Return log-probabilities, (C,): those of one class, or of none."""
    chosen = named_class(answer.text, answer.ended, names)
    if chosen is None:
        return np.full(len(names), -np.log(len(names)))
    return np.where(np.arange(len(names)) == chosen, 0.0, LOWEST_LOG_PROB)


def group_size(settings: SamplesSettings) -> int:
    """Return how many members are made in one pass: all."""
    return settings.count


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: SamplesSettings, stages: Stages
) -> Pool:
    """Load the language model."""
    return Pool(load_language_model(backbone), data)


def fit(
    material: Pool, settings: SamplesSettings, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> tuple[SampleMembers, Histories]:
    """Make one member a seed; nothing is trained, and votes have no bias that could be taken off.

    Raises:
        InputError: as `labellers`.
    """
    return labellers(material, settings, seeds), [History() for _ in seeds]


def labellers(material: Pool, settings: SamplesSettings, seeds: Sequence[int]) -> SampleMembers:
    """Make one member a seed: an answer to the same prompt.

    Raises:
        InputError: a template or words that do not fit.
    """
    data, model = material.data, material.model
    words = tuple(checked_words(data.class_names, settings.label_words))
    checked_names(words)
    template = TEMPLATE if settings.template is None else checked_template(settings.template)
    frame = frame_of(material, settings, words, template, EXAMPLES_SEED)
    longest = max(len(word) for word in word_tree(model.tokenizer, frame.after, words).words)
    drawing = Drawing(settings.temperature, settings.answer_tokens or longest + ROOM)
    bias = Bias.none(len(seeds), len(words))
    return SampleMembers(bias, data.class_names, model, frame, drawing, tuple(seeds))


def load(
    folders: Sequence[Path],
    backbone: BackboneSettings,
    settings: SamplesSettings,
    class_names: Sequence[str],
) -> SampleMembers:
    """Return saved members on their language model.

    Raises:
        RunFolderError: a file is damaged, or the members have different prompts.
    """
    read = [_read(folder / FILE) for folder in folders]
    (frame, drawing), *others = dict.fromkeys((frame, drawing) for frame, drawing, _ in read)
    if others:
        raise RunFolderError(f"{folders[0].parent}: members have different prompts; run with --overwrite")
    seeds, bias = tuple(seed for *_, seed in read), Bias.none(len(read), len(class_names))
    return SampleMembers(bias, tuple(class_names), load_language_model(backbone), frame, drawing, seeds)


def _read(file: Path) -> tuple[Frame, Drawing, int]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        frame = Frame(content["before"], content["after"], tuple(content["words"]))
        return frame, Drawing(float(content["temperature"]), int(content["tokens"])), int(content["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); run again with --overwrite") from None


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: SamplesSettings) -> Needs:
    """Return what these members need: the language model, run once over prompts and texts.

    What the examples add is not counted, nor are the few tokens of the answers.
    """
    parameters = outline.encoder_parameters + outline.output_layer
    base = outline.element_bytes * parameters + outline.packed_bytes
    kept = outline.passing(texts, backbone.token_budget, side_by_side=True)
    return untrained_needs(outline, parameters, base, kept, forward(outline, texts, outline.blocks))
