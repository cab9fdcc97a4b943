"""GGUF files to ordinary model folders, once: converted ones are kept in the cache.

CACHE/converted/NAME-KEY/                  config, tokenizer and model.safetensors
CACHE/converted/NAME-KEY/.credibly.json    their sizes, written last
CACHE/converted/.NAME-KEY-*/               a conversion under way; moved into place by one rename

Weights come out of their blocks in float32 and are kept in bfloat16, in which the packaged models were
published: half the disk, and the next-token distribution moves by 7e-5 nats (KL divergence, the mean over
five texts; largest change of a logit 0.27), thirty times less than by computing in bfloat16, and far less
than by the four bits. (In float16 it would move by 4e-6 nats, but Gemma overflows when run in it.)
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from credibly.assets import cache_folder
from credibly.assets.cache import MARKER, move_into_place, read_marker, size_of, temporary_folder
from credibly.backbones.quiet import quietly
from credibly.errors import AssetError, MissingExtraError

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the converted folders; one of another format is made anew."""


def is_gguf(source: str) -> bool:
    """Return whether a model's source is a GGUF file and no folder or hub id.

    >>> is_gguf("models/small.gguf"), is_gguf("owner/name")
    (True, False)
    """
    return source.endswith(".gguf") or Path(source).is_file()


def converted(file: Path) -> Path:
    """Return a folder with the model of a GGUF file as `from_pretrained` wants it, made on first use.

    Config, generation settings, tokenizer, special tokens and chat template come out of the file.

    Raises:
        AssetError: the file is damaged, of an architecture that cannot be converted, or the cache cannot be
            written.
        MissingExtraError: the package that reads such files is not installed.
    """
    target = converted_folder(file)
    if is_whole(target):
        return target
    log.warning("%s is converted to safetensors; this takes a minute, once", file.name)
    try:
        with temporary_folder(target.name, target.parent) as scratch:
            fresh = scratch / "fresh"
            fresh.mkdir()
            convert(file, fresh)
            write_marker(fresh)
            move_into_place(fresh, target, is_whole, scratch)
    except OSError as error:
        raise AssetError(
            f"{file} cannot be converted into {target.parent} ({error}); free some room there, or set "
            "CREDIBLY_HOME to a folder of yours"
        ) from error
    return target


def converted_folder(file: Path) -> Path:
    """Return where a file's conversion is, or would be; a changed or moved file has another place."""
    facts = file.resolve().stat()
    described = f"{file.resolve()}\x00{facts.st_size}\x00{facts.st_mtime_ns}"
    key = hashlib.sha256(described.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder() / "converted" / f"{file.stem}-{key}"


def convert(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file into a folder.

    Raises:
        AssetError: the file is damaged or its architecture cannot be converted.
        MissingExtraError: the package that reads such files is not installed.
    """
    with quietly():
        model, tokenizer = read(file)
        plain = without_blocks(model)
        tokenizer.model_max_length = plain.config.get_text_config().max_position_embeddings
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def read(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model of a GGUF file, its weights in bfloat16, and its tokenizer."""
    try:
        with redirect_stderr(io.StringIO()):  # a progress bar of its own that nothing else turns off
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.bfloat16, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                file.parent, gguf_file=file.name, trust_remote_code=False
            )
    except ImportError as error:
        raise MissingExtraError(
            f"{file.name} needs the package gguf to be read ({error}); pip install 'credibly[train]'"
        ) from error
    except OSError:
        raise
    except Exception as error:  # whatever a reader of binary files meets in a damaged one
        raise AssetError(
            f"{file} cannot be converted: {error or type(error).__name__}; it is damaged, or its "
            "architecture is not one that transformers reads from GGUF"
        ) from error
    return model, tokenizer


def without_blocks(model: PreTrainedModel) -> PreTrainedModel:
    """Return the same weights in an ordinary model: one read from GGUF refuses to be saved."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain: PreTrainedModel = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def write_marker(folder: Path) -> None:
    """Write the sizes of all files, after all of them."""
    files = {file.name: {"bytes": size_of(file)} for file in sorted(folder.iterdir())}
    content = json.dumps({"format": FORMAT, "files": files}, indent=2)
    (folder / MARKER).write_text(content + "\n", encoding="utf-8")


def is_whole(folder: Path) -> bool:
    """Return whether a converted folder has its marker and every file in its right size."""
    marker = read_marker(folder)
    return marker.get("format") == FORMAT and all(
        size_of(folder / name) == facts["bytes"] for name, facts in marker["files"].items()
    )
