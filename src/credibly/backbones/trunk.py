"""The frozen trunk's hidden states of many texts, computed once and read as a memory map."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from credibly.assets import cache_folder
from credibly.backbones.blocks import BlockCut
from credibly.backbones.loading import Classifier
from credibly.batching import TokenBatch, Tokens, padded_batches
from credibly.parallel import each_batch
from credibly.progress import Progress

log = logging.getLogger(__name__)

IN_MEMORY_BYTES = 1 << 29
"""States up to 512 MiB stay in memory; more go to a file that is mapped."""


class TrunkStates:
    """Hidden states at the cut for every token of N texts, without padding.

    Args:
        states: (tokens of all texts, H), bfloat16 or float32.
    """

    def __init__(self, states: Tensor) -> None:
        self.states = states

    def of(self, batch: TokenBatch) -> Tensor:
        """Return the states of a padded batch, (B, L, H), zero on padding, where the batch lies."""
        rows = self.states.index_select(0, batch.positions.flatten().cpu())
        padded = rows.view(*batch.positions.shape, -1).to(batch.attention_mask.device)
        return padded * batch.attention_mask[:, :, None].to(padded.dtype)


def trunk_states(
    classifier: Classifier, cut: BlockCut, tokens: Tokens, progress: Progress | None = None
) -> TrunkStates:
    """Run the trunk once over all texts and keep its hidden states in the classifier's precision."""
    dtype = torch.bfloat16 if classifier.precision == "bf16" else torch.float32
    states = _room(len(tokens.flat), int(classifier.model.config.get_text_config().hidden_size), dtype)
    done = 0

    def below(batch: TokenBatch) -> Tensor:
        with classifier.autocast():
            return cut.trunk(batch.to(classifier.device)).to(dtype).cpu()

    batches = padded_batches(tokens, classifier.token_budget)
    with cut.stopped():
        for batch, hidden in each_batch(below, batches, classifier.device):
            real = batch.attention_mask.bool()
            states[batch.positions[real]] = hidden[real]
            done += len(batch.indices)
            if progress:
                progress(done, len(tokens))
    return TrunkStates(states)


def _room(tokens: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return an unfilled tensor, (tokens, width): in memory, or mapped from a nameless file if large."""
    size = tokens * width * dtype.itemsize
    if size > IN_MEMORY_BYTES:
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix="trunk-") as handle:
                # Written, not sparse: a full disk must show here and not as a bus error later.
                _fill(Path(handle.name), size)
                return torch.from_file(handle.name, shared=True, size=tokens * width, dtype=dtype).view(
                    tokens, width
                )
        except OSError as error:
            log.warning("no room for the trunk's states on disk (%s); they are kept in memory", error)
    return torch.empty((tokens, width), dtype=dtype)


def _fill(file: Path, size: int) -> None:
    block = bytes(1 << 24)
    with file.open("wb") as handle:
        for start in range(0, size, len(block)):
            handle.write(block[: min(len(block), size - start)])
