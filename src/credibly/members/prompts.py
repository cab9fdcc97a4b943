"""Members that are prompts: one language model, asked in several ways, with examples in several orders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from credibly.backbones.footprint import Needs, forward, untrained_needs
from credibly.backbones.label_words import checked_words
from credibly.backbones.language_model import LanguageModel, load_language_model
from credibly.backbones.next_words import next_words
from credibly.backbones.outline import Outline, Texts
from credibly.backbones.prompted import Frame
from credibly.backbones.reading import Reading
from credibly.errors import InputError, RunFolderError
from credibly.members.common import Histories, TrainingData, count_weights, drawn, labels_of
from credibly.members.opinions import Bias, Labellers, Said
from credibly.members.prompt_texts import (
    CHAT_TEMPLATES,
    DEFAULT_DESCRIPTION,
    TEMPLATES,
    Example,
    Task,
    Template,
    chat_frame,
    checked_template,
    plain_frame,
)
from credibly.progress import Progress, Stages
from credibly.runs import write_json
from credibly.settings import BackboneSettings, PromptsSettings, SamplesSettings
from credibly.training import UNWATCHED, History, Monitor, stream

FILE = "prompt.json"


@dataclass(frozen=True)
class PromptMembers(Labellers):
    """M prompts of one language model.

    Args:
        model: that is asked.
        frames: one a member.
    """

    model: LanguageModel
    frames: tuple[Frame, ...]

    @property
    def shared_parameters(self) -> int:
        """Number of weights of the language model, which all members share."""
        return count_weights(self.model.model.parameters())

    @property
    def reader(self) -> Reading:
        """The language model, with the room that the longest prompt leaves for a text."""
        prompts = self.model.tokenizer([f"{frame.before}{frame.after}" for frame in self.frames])["input_ids"]
        return Reading(self.model.tokenizer, self.model.max_tokens - max(map(len, prompts)))

    def said(self, texts: Sequence[str], progress: Progress | None = None) -> Said:
        """Return what the prompts say, before any bias is taken off.

        Raises:
            InputError: the model does not know a word, or a prompt leaves no room for a text.
        """
        scores = next_words(self.model, self.frames, texts, progress)
        return Said(np.stack([own.log_probs for own in scores]), max(own.cut for own in scores))

    def save(self, member: int, folder: Path) -> None:
        """Write one prompt, its words and its bias."""
        content = {**asdict(self.frames[member]), **self.bias.content(member)}
        write_json(folder / FILE, content)


@dataclass(frozen=True)
class Pool:
    """What prompts are made of: the language model, and texts whose classes are known."""

    model: LanguageModel
    data: TrainingData


def group_size(settings: PromptsSettings) -> int:
    """Return how many members are made in one pass: all."""
    return settings.count


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: PromptsSettings, stages: Stages
) -> Pool:
    """Load the language model."""
    return Pool(load_language_model(backbone), data)


def fit(
    material: Pool, settings: PromptsSettings, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> tuple[PromptMembers, Histories]:
    """Make one prompt a seed; nothing is trained, but each prompt's bias is found on training texts.

    Raises:
        InputError: as `labellers`, or words that the model does not know.
    """
    members = labellers(material, settings, seeds)
    unbiased = members.warmed_up(material.data, settings.warm_up, monitor.progress)
    return unbiased, [History() for _ in seeds]


def labellers(material: Pool, settings: PromptsSettings, seeds: Sequence[int]) -> PromptMembers:
    """Make one prompt a seed, with no bias taken off.

    Raises:
        InputError: templates or words that do not fit, or without examples more members than templates.
    """
    data = material.data
    words = tuple(checked_words(data.class_names, settings.label_words))
    usual = CHAT_TEMPLATES if settings.chat else TEMPLATES
    templates = [checked_template(own) for own in settings.templates] or usual
    shown = settings.shots > 0 and bool((labels_of(data.targets) >= 0).any())
    if not shown and len(seeds) > len(templates):
        raise InputError(
            f"without examples members differ by their prompts alone: expected at most {len(templates)} "
            f"members, got {len(seeds)}; give examples, or more prompts as members.templates"
        )
    frames = tuple(
        frame_of(material, settings, words, templates[seed % len(templates)], seed) for seed in seeds
    )
    bias = Bias.none(len(frames), len(words))
    return PromptMembers(bias, data.class_names, material.model, frames)


def frame_of(
    material: Pool,
    settings: PromptsSettings | SamplesSettings,
    words: tuple[str, ...],
    template: Template,
    seed: int,
) -> Frame:
    """Return a prompt: a template, and examples drawn with a seed, as the model's chat has them or plain.

    Texts of no weight, or of several classes as likely, are no examples.

    Raises:
        InputError: the model has no chat template.
    """
    tokenizer, data = material.model.tokenizer, material.data
    task = Task(words, settings.description or DEFAULT_DESCRIPTION)
    labels = labels_of(data.targets)
    rows = drawn(labels, settings.shots, stream(seed, "examples"))
    examples = [Example(data.texts[row], words[labels[row]]) for row in rows]
    if not settings.chat:
        return plain_frame(template, task, examples)
    return chat_frame(template, task, examples, lambda messages: rendered(tokenizer, messages))


def rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """Return a conversation as a model's chat template writes it, up to where the answer begins.

    Raises:
        InputError: the model has no chat template.
    """
    if tokenizer.chat_template is None:
        raise InputError("the model has no chat template; leave members.chat out, or take a chat model")
    whole: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # Some templates begin with what the tokenizer puts before every text anyway.
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return whole.removeprefix(tokenizer.bos_token) if begins and tokenizer.bos_token else whole


def load(
    folders: Sequence[Path],
    backbone: BackboneSettings,
    settings: PromptsSettings,
    class_names: Sequence[str],
) -> PromptMembers:
    """Return saved prompts on their language model.

    Raises:
        RunFolderError: a file is damaged.
    """
    read = [_read(folder / FILE, len(class_names)) for folder in folders]
    frames = tuple(frame for frame, _ in read)
    bias = Bias.joined([own for _, own in read])
    return PromptMembers(bias, tuple(class_names), load_language_model(backbone), frames)


def _read(file: Path, C: int) -> tuple[Frame, Bias]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Frame(content["before"], content["after"], tuple(content["words"])), Bias.read(content, C)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); run again with --overwrite") from None


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: PromptsSettings) -> Needs:
    """Return what these members need: the language model, run once a member over prompts and texts.

    What the examples add is not counted: they run once a member.
    """
    parameters = outline.encoder_parameters + outline.output_layer
    base = outline.element_bytes * parameters + outline.packed_bytes
    kept = outline.passing(texts, backbone.token_budget, side_by_side=True)
    through = forward(outline, texts, outline.blocks) * settings.count
    return untrained_needs(outline, parameters, base, kept, through)
