"""Every architecture goes through the same doors, encoder or decoder, whatever its masks and positions."""

import json
import shutil
from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

import standins
from credibly.backbones import BlockCut, blocks_of, embed, embedding, load_backbone, load_classifier
from credibly.backbones.embedding import MIDDLE
from credibly.backbones.loading import open_classifier
from credibly.batching import pad, tokenise
from credibly.errors import InputError
from credibly.settings import BackboneSettings, OptimiserSettings
from credibly.training import Task, train

pytestmark = pytest.mark.slow

ENCODERS = (*standins.ARCHITECTURES, *standins.FURTHER_ENCODERS)
CLASSES = ("bad", "good", "even")
LABELS = torch.arange(9) % 3
TEXTS = standins.made_texts(LABELS.tolist(), seed=5, words=25)
"""Of 3 to 30 words: longer and shorter than the window of sliding attention."""

every_encoder = pytest.mark.parametrize("architecture", ENCODERS)
every_decoder = pytest.mark.parametrize("architecture", standins.DECODERS)
every_architecture = pytest.mark.parametrize("architecture", [*ENCODERS, *standins.DECODERS])
every_cut = pytest.mark.parametrize("top", range(1, standins.BLOCKS + 1))


def settings(folder, **changed):
    return BackboneSettings(**{"name": str(folder), "precision": "fp32", **changed})


def classifier_of(folder, seed=7):
    return load_classifier(settings(folder), CLASSES, 0.1, seed)


def batch_of(classifier, texts=TEXTS):
    return pad(tokenise(classifier.tokenizer, texts, classifier.max_tokens), np.arange(len(texts)))


def logits_of(classifier, batch):
    return classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def test_texts_are_longer_than_the_window_and_of_several_lengths(standin):
    lengths = batch_of(classifier_of(standin("llama"))).attention_mask.sum(dim=1)
    assert lengths.max() > 4 * standins.WINDOW
    assert lengths.max() > 2 * lengths.min()


@every_architecture
@pytest.mark.parametrize("pooling", ["auto", "cls", "mean", "last"])
def test_an_embedding_depends_on_its_text_alone(standin, architecture, pooling):
    backbone = load_backbone(settings(standin(architecture), pooling=pooling))
    together = embed(backbone, TEXTS)
    alone = np.concatenate([embed(backbone, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    assert pooling == "cls" or np.ptp(together, axis=0).max() > 0.1


@every_architecture
def test_an_embedding_does_not_depend_on_the_side_that_the_tokenizer_pads(standin, architecture):
    assert AutoTokenizer.from_pretrained(standin(architecture, "left")).padding_side == "left"
    left, right = (load_backbone(settings(standin(architecture, side))) for side in ("left", "right"))
    np.testing.assert_allclose(embed(left, TEXTS), embed(right, TEXTS), atol=1e-5, rtol=0)


@every_architecture
def test_the_middle_is_the_mean_of_the_states_half_way_up_and_runs_no_further(standin, architecture):
    backbone = replace(load_backbone(settings(standin(architecture))), pooling=MIDDLE)
    batch = pad(tokenise(backbone.tokenizer, TEXTS, backbone.max_tokens), np.arange(len(TEXTS)))
    with torch.no_grad():
        states = backbone.model(**batch.inputs(), output_hidden_states=True).hidden_states
    half, real = states[standins.BLOCKS // 2], batch.attention_mask.bool()
    expected = np.stack([half[row][real[row]].mean(dim=0).numpy() for row in range(len(TEXTS))])
    seen = []
    handle = blocks_of(backbone.model)[standins.BLOCKS // 2].register_forward_hook(
        lambda *given: seen.append(given)
    )
    np.testing.assert_allclose(embed(backbone, TEXTS), expected, atol=1e-5, rtol=0)
    assert seen == []
    handle.remove()
    whole = replace(backbone, pooling="mean")
    assert np.isfinite(embed(whole, TEXTS)).all()
    assert not np.allclose(embed(whole, TEXTS), expected, atol=1e-2)


def test_a_model_of_one_block_has_its_last_states_in_the_middle_too(standin, monkeypatch):
    backbone = replace(load_backbone(settings(standin())), pooling=MIDDLE)
    monkeypatch.setattr(embedding, "blocks_of", lambda model: nn.ModuleList([nn.Identity()]))
    expected = embed(replace(backbone, pooling="mean"), TEXTS)
    np.testing.assert_array_equal(embed(backbone, TEXTS), expected)

    def none(model):
        raise InputError("no list of blocks")

    monkeypatch.setattr(embedding, "blocks_of", none)
    np.testing.assert_array_equal(embed(backbone, TEXTS), expected)


@every_encoder
def test_encoders_are_pooled_by_the_mean(standin, architecture):
    assert load_backbone(settings(standin(architecture))).pooling == "mean"


@every_decoder
def test_decoders_are_pooled_by_the_last_token_and_pad_with_the_texts_end(standin, architecture):
    backbone = load_backbone(settings(standin(architecture)))
    assert backbone.pooling == "last"
    # Only the class of Qwen 2 brings a padding token of its own.
    expected = "<|endoftext|>" if architecture == "qwen2" else backbone.tokenizer.eos_token
    assert backbone.tokenizer.pad_token == expected
    ids = torch.tensor(backbone.tokenizer([TEXTS[0]])["input_ids"])
    hidden = backbone.model(input_ids=ids).last_hidden_state[0, -1]
    np.testing.assert_allclose(embed(backbone, TEXTS)[0], hidden.numpy(), atol=1e-5, rtol=0)


@every_architecture
def test_bf16_embeddings_are_near_those_of_fp32(standin, architecture, caplog):
    half, whole = (load_backbone(settings(standin(architecture), precision=p)) for p in ("bf16", "fp32"))
    assert half.pooling == whole.pooling
    assert np.corrcoef(embed(half, TEXTS).ravel(), embed(whole, TEXTS).ravel())[0, 1] > 0.995
    # DeBERTa multiplies by a constant of single precision, and so runs in it.
    assert half.precision == ("fp32" if architecture == "deberta" else "bf16")
    assert ("does not compute in bf16" in caplog.text) == (architecture == "deberta")


@every_architecture
def test_bf16_logits_are_near_those_of_fp32_above_any_cut(standin, architecture):
    whole = classifier_of(standin(architecture))
    half = load_classifier(settings(standin(architecture), precision="bf16"), CLASSES, 0.1, 7)
    assert half.precision == ("fp32" if architecture == "deberta" else "bf16")
    batch, cut = batch_of(half), BlockCut(half.model, 2)
    with torch.no_grad(), half.autocast():
        expected = logits_of(whole, batch).float()
        hidden = cut.trunk(batch).to(torch.bfloat16 if half.precision == "bf16" else torch.float32)
        with cut.resumed():
            found = cut.logits(batch, hidden).float()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@every_architecture
def test_the_longest_text_that_fits_goes_through_and_fills_the_positions(standin, architecture):
    backbone = load_backbone(settings(standin(architecture)))
    assert backbone.max_tokens == standins.POSITIONS
    assert np.isfinite(embed(backbone, ["film " * 100])).all()


@pytest.mark.parametrize("padding_id", [0, 1, 5])
def test_positions_that_count_from_the_padding_id_are_not_run_over(standin, tmp_path, padding_id):
    folder = shutil.copytree(standin("roberta"), tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "pad_token_id": padding_id}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": 10**6}))
    backbone = load_backbone(settings(folder))
    assert backbone.max_tokens == standins.POSITIONS + 2 - (padding_id + 1)
    assert np.isfinite(embed(backbone, ["film " * 100])).all()


@every_architecture
def test_logits_depend_on_the_text_alone(standin, architecture):
    classifier = classifier_of(standin(architecture, "left"))
    with torch.no_grad():
        together = logits_of(classifier, batch_of(classifier))
        alone = [logits_of(classifier, batch_of(classifier, [text])) for text in TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@every_architecture
@every_cut
def test_the_upper_blocks_resumed_give_the_whole_models_logits(standin, architecture, top):
    classifier = classifier_of(standin(architecture))
    batch = batch_of(classifier)
    with torch.no_grad():
        expected = logits_of(classifier, batch)
    cut = BlockCut(classifier.model, top)
    # Whatever stands on padding has no say.
    hidden = cut.trunk(batch) * batch.attention_mask[:, :, None]
    with cut.resumed(), torch.no_grad():
        torch.testing.assert_close(cut.logits(batch, hidden), expected, atol=1e-5, rtol=0)
        assert (cut.logits(batch, hidden.flip(0)) - expected).abs().max() > 0.01


@every_architecture
def test_a_step_above_the_cut_leaves_the_trunk_as_it_was(standin, architecture):
    classifier = classifier_of(standin(architecture))
    batch, cut = batch_of(classifier), BlockCut(classifier.model, 1)
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    hidden = cut.trunk(batch)
    with cut.resumed():
        train(
            Task(
                classifier.model,
                lambda start: repeat(batch),
                lambda one: [nn.functional.cross_entropy(cut.logits(one, hidden), LABELS)[None]],
                1,
            ),
            OptimiserSettings(epochs=1, batch_size=9, learning_rate=0.01, weight_decay=0.1),
        )
    changed = {
        name
        for name, tensor in classifier.model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    below = {id(p) for block in blocks_of(classifier.model)[:-1] for p in block.parameters()}
    names = dict(classifier.model.named_parameters())
    assert not {name for name, parameter in names.items() if id(parameter) in below} & changed
    assert any(
        id(names[name]) in {id(p) for p in blocks_of(classifier.model)[-1].parameters()} for name in changed
    )
    torch.testing.assert_close(cut.trunk(batch), hidden, atol=0, rtol=0)


@every_architecture
def test_a_new_head_follows_its_seed(standin, architecture):
    first, again, other = (
        classifier_of(standin(architecture), seed).model.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_architecture
def test_a_classifier_saved_and_loaded_gives_the_same_logits(standin, architecture, tmp_path):
    classifier = classifier_of(standin(architecture))
    classifier.model.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    again = open_classifier(tmp_path, settings(tmp_path))
    with torch.no_grad():
        expected = logits_of(classifier, batch_of(classifier))
        torch.testing.assert_close(logits_of(again, batch_of(again)), expected, atol=1e-6, rtol=0)
    assert again.class_names == CLASSES
