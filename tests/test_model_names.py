"""A model by name: packaged, of the hub, a local folder or file; anything else is refused with hints."""

import pytest

from credibly.assets import model_source
from credibly.errors import AssetError


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "home"))


def model_folder(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_hub_ids_pass_through_unchanged():
    for name in ("google/electra-base-discriminator", "gpt2", "bert-base-uncased", "owner/Name.v1_2"):
        assert model_source(name) == name


def test_a_local_folder_is_kept_and_checked(tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "models" / "mine")
    assert model_source(str(folder)) == str(folder)
    monkeypatch.chdir(tmp_path)
    assert model_source("models/mine") == "models/mine"
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetError, match=r"no config\.json"):
        model_source("empty")
    with pytest.raises(AssetError, match="is a file"):
        model_source(str(folder / "config.json"))
    with pytest.raises(AssetError, match=r"did you mean '.*models/mine'"):
        model_source(str(folder.with_name("mime")))


def test_a_gguf_file_and_a_folder_with_one_are_that_file(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF and so on")
    assert model_source(str(file)) == model_source(str(tmp_path)) == str(file)
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(AssetError, match=r"several GGUF files \(model\.gguf, other\.gguf\)"):
        model_source(str(tmp_path))
    model_folder(tmp_path / "whole")
    (tmp_path / "whole" / "model.gguf").write_bytes(b"GGUF")
    assert model_source(str(tmp_path / "whole")) == str(tmp_path / "whole")
    file.write_bytes(b"<html>")
    with pytest.raises(AssetError, match="damaged or no GGUF file"):
        model_source(str(file))
    with pytest.raises(AssetError, match=r"did you mean '.*other\.gguf'"):
        model_source(str(tmp_path / "othr.gguf"))
    with pytest.raises(AssetError, match="no model is called"):
        model_source("nowhere/none.gguf")


@pytest.mark.parametrize(("file", "told"), [("recipe.yaml", "student"), ("adapter_config.json", "adapter")])
def test_a_folder_of_another_kind_is_told(tmp_path, file, told):
    (tmp_path / file).write_text("")
    with pytest.raises(AssetError, match=told):
        model_source(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "minilmm",
        "./nowhere",
        "/nowhere/at/all",
        "a/b/c",
        "~nobody-here/x",
        "x" * 5000,
        "a\x00b",
        "../x",
    ],
)
def test_a_name_that_is_no_model_is_refused_with_hints(name):
    with pytest.raises(AssetError) as caught:
        model_source(name)
    for part in ("minilm", "OWNER/NAME", "config.json"):
        assert part in str(caught.value)


def test_near_names_are_suggested_and_data_is_no_model():
    with pytest.raises(AssetError, match="did you mean 'minilm'"):
        model_source("minilmm")
    with pytest.raises(AssetError, match="did you mean 'bert-base-uncased'"):
        model_source("bert-base-uncase")
    with pytest.raises(AssetError, match="data set, not a model"):
        model_source("reviews")
