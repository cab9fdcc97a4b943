"""Terms of use: asked for before an asset is first used, and the acceptance kept in the cache."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from credibly.assets.table import Asset, Terms
from credibly.errors import TermsError
from credibly.runs import write_bytes

VARIABLE = "CREDIBLY_ACCEPT_TERMS"
"""Environment variable with the names of assets whose terms are accepted, separated by commas."""

FILE = "accepted-terms.json"


def require_accepted(asset: Asset, folder: Path, accept: bool = False) -> None:
    """Go on where an asset has no terms or they are accepted, and keep the acceptance.

    Args:
        asset: whose terms.
        folder: the cache, where acceptances are kept.
        accept: whether they are accepted now.

    Raises:
        TermsError: they are not accepted.
    """
    if asset.terms is None:
        return
    kept = acceptances(folder)
    if kept.get(asset.name, {}).get("terms") == stated(asset.terms):
        return
    if accept:
        keep(asset.name, asset.terms, folder, kept)
    elif asset.name in accepted_in_environment():
        with suppress(OSError):  # a cache that cannot be written still serves while the variable is set
            keep(asset.name, asset.terms, folder, kept)
    else:
        raise TermsError(
            f"{asset.name} comes under the {asset.terms.name}, which have not been accepted here: read them "
            f"at {asset.terms.address}; to accept them, run `credibly fetch {asset.name} --accept-terms` "
            f"or set the environment variable {VARIABLE}={asset.name}"
        )


def acceptances(folder: Path) -> dict[str, Any]:
    """Return what was accepted by asset name; a missing or damaged file is no acceptance."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(content, dict) and all(isinstance(entry, dict) for entry in content.values())
    return content if whole else {}


def keep(name: str, terms: Terms, folder: Path, kept: dict[str, Any]) -> None:
    """Write down that the terms of an asset were accepted now."""
    entry = {"terms": stated(terms), "accepted": datetime.now(UTC).isoformat(timespec="seconds")}
    content = json.dumps({**kept, name: entry}, indent=2) + "\n"
    write_bytes(folder / FILE, content.encode())


def stated(terms: Terms) -> str:
    """Return the terms as one line; other terms of the same asset are to be accepted anew."""
    return f"{terms.name}, {terms.address}"


def accepted_in_environment() -> set[str]:
    """Return the names given in the environment variable."""
    return {name.strip() for name in os.environ.get(VARIABLE, "").split(",")}
