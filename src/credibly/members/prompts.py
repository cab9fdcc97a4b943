"""Members that are prompts: one language model, asked in several ways, with examples in several orders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from credibly.backbones.footprint import Memory, Needs, Work, forward, heaped
from credibly.backbones.label_words import checked_words
from credibly.backbones.language_model import LanguageModel, load_language_model
from credibly.backbones.next_words import Frame, next_words
from credibly.backbones.outline import Outline, Texts
from credibly.backbones.reading import Reading
from credibly.errors import InputError, RunFolderError
from credibly.members.common import Histories, LogProbs, TrainingData, count_weights
from credibly.members.prompt_texts import (
    DEFAULT_DESCRIPTION,
    TEMPLATES,
    Example,
    Task,
    chat_frame,
    checked_template,
    drawn,
    plain_frame,
)
from credibly.progress import Progress, Stages
from credibly.records import normalised_log_probs
from credibly.runs import write_json
from credibly.settings import BackboneSettings, PromptsSettings
from credibly.training import UNWATCHED, History, Monitor, stream

FILE = "prompt.json"
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """What M prompts say of N texts.

    Args:
        log_probs: float64, (M, N, C): of the classes' words within the model's whole distribution.
        cut: how many texts were too long for the longest prompt.
    """

    log_probs: FloatArray
    cut: int

    @property
    def mass(self) -> FloatArray:
        """float64, (M, N): the probability that the model says any of the words."""
        return np.asarray(np.exp(self.log_probs).sum(axis=-1))


@dataclass(frozen=True)
class PromptMembers:
    """M prompts of one language model.

    Args:
        model: that is asked.
        frames: one a member.
        bias: float64, (M, C), taken off the words' log-probabilities.
        class_names: C names.
    """

    model: LanguageModel
    frames: tuple[Frame, ...]
    bias: FloatArray
    class_names: tuple[str, ...]

    @property
    def count(self) -> int:
        """M."""
        return len(self.frames)

    @property
    def shared_parameters(self) -> int:
        """Number of weights of the language model, which all members share."""
        return count_weights(self.model.model.parameters())

    @property
    def member_parameters(self) -> int:
        """A prompt has no weights."""
        return 0

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

    def log_probs(self, texts: Sequence[str], cached: bool = False) -> LogProbs:
        """Return log-probabilities, float32, (M, N, C), normalised."""
        return normalised_log_probs(self.said(texts).log_probs - self.bias[:, None])

    def save(self, member: int, folder: Path) -> None:
        """Write one prompt, its words and its bias."""
        content = {**asdict(self.frames[member]), "bias": self.bias[member].tolist()}
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

    The bias is the mean log-probability of each class (batch calibration, Zhou et al. 2023,
    https://arxiv.org/abs/2309.17249); no label is looked at for it.

    Raises:
        InputError: as `prompts_of`, or words that the model does not know.
    """
    members = prompts_of(material, settings, seeds)
    said = members.said(material.data.texts[: settings.warm_up], monitor.progress)
    bias = normalised_log_probs(said.log_probs).mean(axis=1, dtype=np.float64)
    return replace(members, bias=bias), [History() for _ in seeds]


def prompts_of(material: Pool, settings: PromptsSettings, seeds: Sequence[int]) -> PromptMembers:
    """Make one prompt a seed, with no bias taken off.

    Raises:
        InputError: templates or words that do not fit, or without examples more members than templates.
    """
    tokenizer, data = material.model.tokenizer, material.data
    task = Task(
        tuple(checked_words(data.class_names, settings.label_words)),
        settings.description or DEFAULT_DESCRIPTION,
    )
    templates = [checked_template(own) for own in settings.templates] or TEMPLATES
    shown = bool(data.texts) and settings.shots > 0
    if not shown and len(seeds) > len(templates):
        raise InputError(
            f"without examples members differ by their prompts alone: expected at most {len(templates)} "
            f"members, got {len(seeds)}; give examples, or more prompts as members.templates"
        )
    labels = data.targets.argmax(axis=1) if shown else np.zeros(0, dtype=np.int64)

    def frame(seed: int) -> Frame:
        rows = drawn(labels, settings.shots, stream(seed, "examples"))
        examples = [Example(data.texts[row], task.words[labels[row]]) for row in rows]
        template = templates[seed % len(templates)]
        if not settings.chat:
            return plain_frame(template, task, examples)
        return chat_frame(template, task, examples, lambda messages: rendered(tokenizer, messages))

    frames = tuple(frame(seed) for seed in seeds)
    return PromptMembers(material.model, frames, np.zeros((len(frames), len(task.words))), data.class_names)


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
    read = [_read(folder / FILE) for folder in folders]
    frames, bias = tuple(frame for frame, _ in read), np.array([own for _, own in read])
    return PromptMembers(load_language_model(backbone), frames, bias, tuple(class_names))


def _read(file: Path) -> tuple[Frame, list[float]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        frame = Frame(content["before"], content["after"], tuple(content["words"]))
        return frame, [float(value) for value in content["bias"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); run again with --overwrite") from None


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: PromptsSettings) -> Needs:
    """Return what these members need: the language model, run once a member over prompts and texts.

    What the examples add is not counted: they run once a member.
    """
    base = outline.element_bytes * (outline.encoder_parameters + outline.output_layer) + outline.packed_bytes
    passing = heaped(outline, outline.passing(texts, backbone.token_budget, side_by_side=True))
    through = forward(outline, texts, outline.blocks) * settings.count
    return Needs(
        parameters=outline.encoder_parameters + outline.output_layer,
        trainable=0,
        memory=Memory(
            base=base, trainable=0, gradients=0, moments=0, best=0, activations=0, texts=0,
            loading=base + passing, prediction=base + passing,
        ),
        preparing=Work(),
        training=Work(),
        predicting=through,
    )  # fmt: skip
