"""An empty cache for every test of the packaged assets."""

import pytest

from credibly.assets import cache_folder


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path, request):
    """An empty cache for every test but those that need the packaged assets."""
    if request.node.get_closest_marker("assets"):
        return cache_folder()
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
