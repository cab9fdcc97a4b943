"""Terms of use: asked for before anything is downloaded, and accepted once."""

import json
import shutil
import sys
from dataclasses import replace

import pytest

from credibly.assets import Terms
from credibly.assets.cache import fetch_asset
from credibly.cli import main as command_line
from credibly.errors import TermsError
from packages import (
    FILES,
    GOOD,
    Downloader,
    asset_of,
    no_download,
)


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
