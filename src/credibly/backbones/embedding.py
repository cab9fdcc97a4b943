"""Texts to embeddings: computed once a text and model, kept in the cache, read as a memory map."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from credibly.assets import cache_folder
from credibly.backbones.blocks import blocks_of, ended_before, states_before
from credibly.backbones.loading import Backbone
from credibly.backbones.packing import packed_linears
from credibly.batching import TokenBatch, padded_batches, tokenise
from credibly.errors import CrediblyError, InputError
from credibly.parallel import each_batch
from credibly.progress import Progress
from credibly.records import update_with_texts
from credibly.runs import replacing, sha256

log = logging.getLogger(__name__)
FloatMatrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


MIDDLE = "middle"
"""The pooling that averages hidden states half-way up the model: how a text is put, beside what it says."""


def embed(backbone: Backbone, texts: Sequence[str], progress: Progress | None = None) -> FloatMatrix:
    """Return float32 embeddings, (N, D), one a text, pooled over its tokens.

    Texts go through the model in batches of similar length, at most `backbone.token_budget` padded
    tokens each. With the pooling `MIDDLE` only the lower half of the model runs.
    """
    tokens = tokenise(backbone.tokenizer, texts, backbone.max_tokens)
    embeddings: FloatMatrix = np.empty((len(texts), backbone.width), dtype=np.float32)

    def embedded(batch: TokenBatch) -> FloatMatrix:
        on_device = batch.to(backbone.device)
        with torch.inference_mode():
            hidden = states(on_device.inputs())
            pooled: FloatMatrix = pool(hidden, on_device.attention_mask, backbone.pooling).cpu().numpy()
        return pooled

    done = 0
    batches = padded_batches(tokens, backbone.token_budget)
    with packed_linears(backbone.model), hidden_states(backbone) as states:
        for batch, pooled in each_batch(embedded, batches, backbone.device):
            embeddings[batch.indices] = pooled
            done += len(batch.indices)
            if progress:
                progress(done, len(texts))
    return embeddings


@contextmanager
def hidden_states(backbone: Backbone) -> Iterator[Callable[[Mapping[str, Tensor]], Tensor]]:
    """Yield the function of a batch's inputs that gives the hidden states to be pooled, (B, L, H).

    They are those of the last block, or, for the pooling `MIDDLE`, those that enter the upper half of the
    blocks; of a model whose blocks cannot be found, or that has one alone, the last ones serve for both.
    """
    last = lambda inputs: backbone.model(**inputs).last_hidden_state  # noqa: E731
    block = middle_block(backbone.model) if backbone.pooling == MIDDLE else None
    if block is None:
        yield last
        return
    with ended_before(block):
        yield lambda inputs: states_before(backbone.model, inputs)


def middle_block(model: PreTrainedModel) -> nn.Module | None:
    """Return the first block of the upper half; None where there is none."""
    try:
        blocks = blocks_of(model)
    except InputError:
        return None
    return blocks[len(blocks) // 2] if len(blocks) > 1 else None


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool hidden states, (B, L, H), over real tokens to float32, (B, H).

    "mean" averages them, as `MIDDLE` does; "cls" takes the first and "last" the last, whichever side is
    padded.
    """
    if pooling in ("mean", MIDDLE):
        weights = mask.to(torch.float32)
        total = torch.einsum("blh,bl->bh", hidden.float(), weights)
        return total / weights.sum(dim=1, keepdim=True).clamp(min=1)
    positions = torch.arange(mask.shape[1], device=mask.device) * mask
    chosen = mask.argmax(dim=1) if pooling == "cls" else positions.argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen].float()


def embedded_once(backbone: Backbone, texts: Sequence[str], progress: Progress | None = None) -> FloatMatrix:
    """Return the embeddings of these texts, computed on first use and memory-mapped from then on.

    The file is named by a hash of model and tokenizer, the pooling, the cut, the precision and the
    texts, so whatever changes one of them is computed anew. Where the cache cannot be written the embeddings
    are kept in memory.
    """
    file = cache_folder() / "embeddings" / f"{_key(backbone, texts)}.npy"
    if file.is_file():
        try:
            return _mapped(file, (len(texts), backbone.width))
        except (ValueError, OSError) as error:
            log.warning("the cached embeddings at %s are damaged (%s) and are computed anew", file, error)
    embeddings = embed(backbone, texts, progress)
    try:
        with replacing(file) as temporary, temporary.open("wb") as handle:
            np.save(handle, embeddings, allow_pickle=False)
    except (OSError, CrediblyError) as error:
        log.warning("embeddings are not cached: %s", error)
        return embeddings
    return _mapped(file, embeddings.shape)


def _mapped(file: Path, shape: tuple[int, int]) -> FloatMatrix:
    """Return a file of embeddings as a memory map that keeps writes to itself.

    Raises:
        ValueError: the file holds no such array. (`np.load` would tell it in many more ways.)
    """
    mapped: FloatMatrix = np.lib.format.open_memmap(file, mode="c")
    if mapped.shape != shape or mapped.dtype != np.float32:
        raise ValueError(f"expected float32 {shape}, got {mapped.dtype} {mapped.shape}")
    return mapped


def model_fingerprint(source: str) -> str:
    """Return the sha256 of each of a local model's files, tokenizer and all, or the hub id as it is."""
    if not Path(source).is_dir():
        return source
    files = sorted(file for file in Path(source).iterdir() if file.is_file())
    return " ".join(f"{file.name} {sha256(file)}" for file in files)


def _key(backbone: Backbone, texts: Sequence[str]) -> str:
    revision = getattr(backbone.model.config, "_commit_hash", None) or ""
    digest = hashlib.sha256()
    model = (model_fingerprint(backbone.source), revision)
    update_with_texts(digest, (*model, backbone.pooling, str(backbone.max_tokens), backbone.precision))
    update_with_texts(digest, texts)
    return digest.hexdigest()
