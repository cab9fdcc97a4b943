"""Labelling with eight examples in the prompt, against one text after another with the whole prompt.

The packaged movie reviews by smollm2, in the precision that the machine multiplies natively. The other side
runs on fewer texts and is scaled; on both the output layer reads a prompt's last token alone. That both say
the same to 1e-3 is tested in fp32, in which rounding does not hide a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import torch

from benchmarks.measure import Result, alternate, load, seconds_of, write
from credibly.backbones.language_model import LanguageModel, load_language_model
from credibly.backbones.next_words import Frame, next_words
from credibly.backbones.word_tree import word_tree
from credibly.data.reviews import load_reviews
from credibly.members.prompt_texts import TEMPLATES, Example, Task, plain_frame
from credibly.settings import BackboneSettings

NAME = "labelling"
MODEL, ROUNDS, TEXTS, FEWER, COMPARED, AT_LEAST, CLOSE = "smollm2", 5, 512, 32, 32, 8.0, 1e-3


def main() -> None:
    """Compare both sides in fp32, then time them in turns."""
    load_before = load()
    reviews = load_reviews()
    frame, texts = frame_of(reviews.train), reviews.test.texts
    apart = difference(frame, texts[:COMPARED])
    model = load_language_model(BackboneSettings(name=MODEL))
    plain = Plain(model, frame)
    plain.scores(texts[:2])
    next_words(model, [frame], texts[:FEWER])
    seconds = alternate(
        {
            "shared": lambda: seconds_of(lambda: next_words(model, [frame], texts[:TEXTS])),
            "one_by_one": lambda: (
                seconds_of(lambda: plain.scores(spread_over(texts[:TEXTS]))) * TEXTS / FEWER
            ),
        },
        ROUNDS,
    )
    write(
        Result(
            name=NAME,
            what=f"seconds to label with 8 examples by {MODEL}: whole prompts one by one / a shared prefix",
            ratio=median(seconds["one_by_one"]) / median(seconds["shared"]),
            unit=f"seconds for {TEXTS} texts (one by one: {FEWER} of them, scaled)",
            sides=seconds,
            at_least=AT_LEAST,
            holds=apart <= CLOSE,
            figures={
                "largest_difference_in_fp32": apart,
                "prompt_tokens": len(model.tokenizer(frame.before)["input_ids"]),
                "text_tokens": tokens_a_text(model, texts[:TEXTS]),
                "texts_per_second": TEXTS / median(seconds["shared"]),
            },
        ),
        load_before,
    )


def frame_of(train: object) -> Frame:
    """Return the first default prompt with four examples of each class."""
    task = Task(("negative", "positive"), "sentiment of a film review")
    rows = [row for own in (0, 1) for row in np.flatnonzero(train.labels == own)[:4]]
    order = np.random.default_rng(0).permutation(rows)
    shown = [Example(train.texts[row], task.words[train.labels[row]]) for row in order]
    return plain_frame(TEMPLATES[0], task, shown)


def tokens_a_text(model: LanguageModel, texts: Sequence[str]) -> float:
    """Return the mean number of tokens."""
    return float(np.mean([len(own) for own in model.tokenizer(list(texts))["input_ids"]]))


def spread_over(texts: Sequence[str]) -> list[str]:
    """Return some texts, evenly spread over all."""
    return [texts[place] for place in np.linspace(0, len(texts) - 1, FEWER).round().astype(int)]


class Plain:
    """One text after another, each with its whole prompt."""

    def __init__(self, model: LanguageModel, frame: Frame) -> None:
        self.model, self.frame = model, frame
        words = word_tree(model.tokenizer, frame.after, frame.words).words
        assert all(len(word) == 1 for word in words)
        self.tokens = [word[0] for word in words]

    @torch.inference_mode()
    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return log-probabilities of the words, (N, C)."""
        return np.stack([self._score(text) for text in texts])

    def _score(self, text: str) -> np.ndarray:
        inputs = self.model.tokenizer(str(self.frame.around(text)), return_tensors="pt").to(self.model.device)
        logits = self.model.model(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1].float()
        return logits.log_softmax(dim=-1)[self.tokens].cpu().numpy()


def difference(frame: Frame, texts: Sequence[str]) -> float:
    """Return the largest difference of a word's log-probability between the sides, both in fp32."""
    exact = load_language_model(BackboneSettings(name=MODEL, precision="fp32"))
    shared = next_words(exact, [frame], texts)[0].log_probs
    return float(np.abs(shared - Plain(exact, frame).scores(texts)).max())


if __name__ == "__main__":
    main()
