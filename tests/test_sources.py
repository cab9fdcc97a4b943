"""A model that cannot be had is refused with the reason: not there, gated, code of its own, or a pickle."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import PretrainedConfig

from credibly.backbones import load_backbone, load_classifier, sources
from credibly.errors import AssetError
from credibly.settings import BackboneSettings


def refusal_of(name):
    """Return what is told of a model, which is the same whatever it is loaded for."""
    told = set()
    for load in (
        lambda: load_backbone(BackboneSettings(name=str(name))),
        lambda: load_classifier(BackboneSettings(name=str(name)), ("a", "b"), 0.1, 0),
    ):
        with pytest.raises(AssetError) as caught:
            load()
        told.add(str(caught.value))
    assert len(told) == 1
    return told.pop()


@pytest.fixture
def hub_says(monkeypatch, tmp_path):
    """Return a function that makes the hub answer every request for a model by an error."""
    monkeypatch.setattr(sources.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def say(kind):
        def answer(*arguments, **options):
            response = SimpleNamespace(headers={}, request=None)
            try:
                raise kind("refused by the hub", response=response)
            except Exception as error:
                # As transformers tells it.
                raise OSError("there was a problem with the hub") from error

        monkeypatch.setattr(PretrainedConfig, "get_config_dict", answer)

    return say


def test_a_gated_model_is_refused_with_the_reason_and_its_page(hub_says):
    hub_says(GatedRepoError)
    told = refusal_of("owner/gated")
    for part in ("owner/gated cannot be loaded: it is gated", "/owner/gated)", "hf auth login"):
        assert part in told


def test_a_model_that_the_hub_does_not_have_is_answered_with_the_nearest_name(hub_says, tmp_path):
    (tmp_path / "hub" / "models--google--electra-small").mkdir(parents=True)
    hub_says(RepositoryNotFoundError)
    told = refusal_of("google/electra-smal")
    for part in ("the hub has none of that name", "did you mean 'google/electra-small'?", "minilm, mpnet"):
        assert part in told
    assert "did you mean" not in refusal_of("google/electra-small")


def test_without_the_hub_the_error_names_the_model():
    assert "the model owner/nowhere cannot be loaded" in refusal_of("owner/nowhere")


def test_a_hub_model_of_pickles_alone_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(PretrainedConfig, "get_config_dict", lambda *arguments, **options: ({}, {}))
    monkeypatch.setattr(sources, "file_exists", lambda name, file: file == "pytorch_model.bin")
    told = refusal_of("owner/pickled")
    assert "only as a pickle (pytorch_model.bin), which can run code" in told


def with_config(folder, **values):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **values}))
    return folder


def test_a_model_with_code_of_its_own_is_refused_with_the_reason(standin, tmp_path):
    folder = shutil.copytree(standin(), tmp_path / "model")
    with_config(folder, model_type="mine", auto_map={"AutoModel": "code.Mine", "AutoConfig": "code.Config"})
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    told = refusal_of(folder)
    assert "auto_map in its config.json names AutoConfig, AutoModel" in told
    assert "such code is never run" in told
    assert not (tmp_path / "ran").exists()


def test_code_beside_an_architecture_that_is_known_is_left_alone(standin, tmp_path):
    folder = shutil.copytree(standin(), tmp_path / "model")
    with_config(folder, auto_map={"AutoModel": "code.Mine", "AutoConfig": "code.Config"})
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert load_backbone(BackboneSettings(name=str(folder))).width == 32
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_weights_as_a_pickle_alone_are_refused_and_never_read(standin, tmp_path, file):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = shutil.copytree(standin(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(Trap(), folder / file)
    told = refusal_of(folder)
    assert f"only as a pickle ({file}), which can run code when it is read" in told
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_left_alone(standin, tmp_path):
    folder = shutil.copytree(standin(), tmp_path / "model")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    assert load_backbone(BackboneSettings(name=str(folder))).width == 32
