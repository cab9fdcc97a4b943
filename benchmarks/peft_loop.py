"""How a careful user trains LoRA members with PEFT: one after another, each on a base of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from credibly.backbones.loading import dropout_fields, load_tokenizer
from credibly.backbones.sources import source_of
from credibly.settings import LoraSettings


@dataclass(frozen=True)
class Texts:
    """Labelled texts: N strings and N class indices."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: int


@dataclass(frozen=True)
class Loop:
    """One way to run the loop.

    Args:
        backbone: a packaged model's name.
        settings: of adapter and optimiser.
        precision: bfloat16, with float32 adapters under autocast, or float32 throughout.
        padded_to: every text is padded to so many tokens; to the longest of its batch where None.
        max_tokens: where texts are cut.
    """

    backbone: str
    settings: LoraSettings
    precision: torch.dtype
    padded_to: int | None
    max_tokens: int

    def member(self, data: Texts, seed: int) -> Member:
        """Return a fresh adapter and head over a base of its own, with its tokenizer."""
        torch.manual_seed(seed)
        source = source_of(self.backbone)
        tokenizer = load_tokenizer(source)
        # Without dropout in the frozen base, as our members train: adapters have their own.
        config = AutoConfig.from_pretrained(source, num_labels=data.classes)
        for field in dropout_fields(config):
            setattr(config, field, 0.0)
        base = AutoModelForSequenceClassification.from_pretrained(source, config=config, dtype=self.precision)
        base.config.pad_token_id = tokenizer.pad_token_id
        chosen = self.settings
        adapter = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=chosen.r,
            lora_alpha=chosen.lora_alpha,
            lora_dropout=chosen.lora_dropout,
            target_modules=chosen.target_modules,
        )
        return Member(get_peft_model(base, adapter), tokenizer, self)


@dataclass(frozen=True)
class Member:
    """A model in training, with its tokenizer."""

    model: nn.Module
    tokenizer: object
    loop: Loop

    def batches(self, data: Texts, size: int, shuffle: bool) -> Iterator[dict[str, torch.Tensor]]:
        """Yield padded batches with labels."""

        def collate(rows: Sequence[int]) -> dict[str, torch.Tensor]:
            fixed = self.loop.padded_to is not None
            batch = self.tokenizer(
                [data.texts[row] for row in rows],
                truncation=True,
                max_length=self.loop.padded_to or self.loop.max_tokens,
                padding="max_length" if fixed else "longest",
                return_tensors="pt",
            )
            return {**batch, "labels": torch.tensor([data.labels[row] for row in rows])}

        yield from DataLoader(range(len(data.texts)), size, shuffle, collate_fn=collate)

    def train(self, data: Texts, steps: int | None = None) -> list[float]:
        """Train over the epochs of the settings, or so many steps, and return the seconds of each step."""
        chosen = self.loop.settings.optimiser
        per_epoch = -(-len(data.texts) // chosen.batch_size)
        total = per_epoch * chosen.epochs
        trained = [own for own in self.model.parameters() if own.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=chosen.learning_rate, weight_decay=chosen.weight_decay)
        schedule = get_linear_schedule_with_warmup(optimiser, round(chosen.warmup_share * total), total)
        self.model.train()
        seconds: list[float] = []
        for _ in range(chosen.epochs):
            for batch in self.batches(data, chosen.batch_size, shuffle=True):
                if steps is not None and len(seconds) == steps:
                    return seconds
                began = time.perf_counter()
                with self.autocast():
                    loss = self.model(**batch).loss
                optimiser.zero_grad()
                loss.backward()
                if chosen.clip_norm:
                    nn.utils.clip_grad_norm_(trained, chosen.clip_norm)
                optimiser.step()
                schedule.step()
                seconds.append(time.perf_counter() - began)
        return seconds

    def nll(self, data: Texts) -> float:
        """Return the mean negative log-likelihood of the labels, in nats."""
        self.model.eval()
        total = 0.0
        with torch.inference_mode(), self.autocast():
            for batch in self.batches(data, 32, shuffle=False):
                z = self.model(**{name: own for name, own in batch.items() if name != "labels"}).logits
                total += float(nn.functional.cross_entropy(z.float(), batch["labels"], reduction="sum"))
        return total / len(data.texts)

    def autocast(self) -> torch.autocast:
        """Return the context of the loop's precision."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.loop.precision == torch.bfloat16)
