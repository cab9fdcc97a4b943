"""Backbones: embeddings that depend on the text alone, a cache by content, and models cut between blocks."""

import errno
import json
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from torch import nn

import standins
from credibly.assets import cache_folder
from credibly.backbones import (
    BlockCut,
    blocks_of,
    embed,
    embedded_once,
    load_backbone,
    load_classifier,
    resolve_precision,
    trunk,
)
from credibly.backbones.embedding import pool
from credibly.backbones.loading import open_classifier
from credibly.backbones.trunk import trunk_states
from credibly.batching import pad, tokenise
from credibly.errors import AssetError, CrediblyError, InputError
from credibly.settings import BackboneSettings, OptimiserSettings
from credibly.training import Task, train

CLASSES = ("bad", "good", "even")
TEXTS = standins.made_texts(np.arange(12) % 3, seed=3, words=15)
CPU = torch.device("cpu")

all_architectures = pytest.mark.parametrize("architecture", standins.ARCHITECTURES)


def settings(folder, **changed):
    return BackboneSettings(**{"name": str(folder), "precision": "fp32", **changed})


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "embeddings"


@contextmanager
def forwards_of(model):
    """Yield the list of batches that go through a model."""
    seen = []
    handle = model.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    yield seen
    handle.remove()


# Pooling


def naive_pool(hidden, mask, pooling):
    rows = []
    for states, real in zip(hidden, mask, strict=True):
        kept = [state for state, one in zip(states, real, strict=True) if one]
        rows.append({"mean": sum(kept) / len(kept), "cls": kept[0], "last": kept[-1]}[pooling])
    return torch.stack(rows)


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    side=st.sampled_from(["left", "right"]),
    pooling=st.sampled_from(["mean", "cls", "last"]),
    seed=st.integers(0, 1000),
)
def test_pooling_equals_a_loop_over_real_tokens(lengths, side, pooling, seed):
    longest = max(lengths)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
    mask = mask.flip(1) if side == "left" else mask
    hidden = torch.randn(len(lengths), longest, 4, generator=torch.Generator().manual_seed(seed))
    hidden[mask == 0] = 1e6
    torch.testing.assert_close(pool(hidden, mask, pooling), naive_pool(hidden, mask, pooling))


def test_pooling_half_precision_sums_in_single_precision():
    hidden = torch.full((1, 3000, 1), 1.0, dtype=torch.bfloat16)
    pooled = pool(hidden, torch.ones(1, 3000, dtype=torch.long), "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == 1.0


# Embeddings


@all_architectures
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_an_embedding_does_not_depend_on_the_texts_beside_it(standin, architecture, pooling):
    folder = standin(architecture)
    together = embed(load_backbone(settings(folder, pooling=pooling)), TEXTS)
    backbone = load_backbone(settings(folder, pooling=pooling, token_budget=1))
    alone = np.concatenate([embed(backbone, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_allclose(embed(backbone, [TEXTS[i] for i in order]), together[order], atol=1e-5)
    assert together.shape == (12, standins.WIDTH)
    assert together.dtype == np.float32
    assert np.abs(together[0] - together[1]).max() > 0.01


@all_architectures
def test_embeddings_equal_those_of_plain_transformers(standin, architecture):
    from transformers import AutoModel, AutoTokenizer

    folder = standin(architecture)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        expected = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in TEXTS
        ]
    ours = embed(load_backbone(settings(folder)), TEXTS)
    np.testing.assert_allclose(ours, torch.stack(expected), atol=1e-5)


@all_architectures
def test_a_tokenizer_that_pads_on_the_left_changes_no_embedding(standin, architecture):
    left = load_backbone(settings(standin(architecture, "left")))
    right = load_backbone(settings(standin(architecture, "right")))
    np.testing.assert_allclose(embed(left, TEXTS), embed(right, TEXTS), atol=1e-5)


def test_embedding_leaves_the_model_in_evaluation_mode_and_tells_progress(standin):
    backbone = load_backbone(settings(standin(), token_budget=40))
    told = []
    first = embed(backbone, TEXTS, lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(embed(backbone, TEXTS), first)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert told == sorted(told)
    assert told[-1] == (12, 12)
    assert len(told) > 3


def test_no_texts_have_no_embeddings(standin):
    assert embed(load_backbone(settings(standin())), []).shape == (0, standins.WIDTH)


def test_bf16_embeddings_are_near_those_of_fp32(standin):
    exact = embed(load_backbone(settings(standin())), TEXTS)
    rough = embed(load_backbone(settings(standin(), precision="bf16")), TEXTS)
    assert rough.dtype == np.float32
    similarity = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert similarity.min() > 0.99
    assert not np.array_equal(exact, rough)


# The cache


def test_embeddings_are_computed_once_and_mapped_afterwards(standin, own_cache):
    backbone = load_backbone(settings(standin()))
    with forwards_of(backbone.model) as seen:
        first = embedded_once(backbone, TEXTS)
        assert len(seen) > 0
        seen.clear()
        again = embedded_once(load_backbone(settings(standin())), TEXTS)
        second = embedded_once(backbone, list(TEXTS))
        assert seen == []
    np.testing.assert_array_equal(first, embed(backbone, TEXTS))
    for mapped in (first, again, second):
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, first)
    assert len(list(own_cache.iterdir())) == 1


def test_writing_to_embeddings_does_not_change_the_cache(standin, own_cache):
    backbone = load_backbone(settings(standin()))
    first = embedded_once(backbone, TEXTS)
    kept = np.array(first)
    first[:] = 0
    np.testing.assert_array_equal(embedded_once(backbone, TEXTS), kept)


def with_other_weights(folder, copy):
    return standins.save_model(copy, seed=1)


def with_another_tokenizer(folder, copy):
    shutil.copytree(folder, copy)
    file = copy / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(content), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("changed", "texts", "other"),
    [
        ({}, [*TEXTS[:-1], "another"], None),
        ({}, TEXTS[::-1], None),
        ({}, [*TEXTS[:-2], "a", "b\x00c"], None),
        ({}, [*TEXTS[:-2], "a\x00b", "c"], None),
        ({"pooling": "cls"}, TEXTS, None),
        ({"precision": "bf16"}, TEXTS, None),
        ({"max_tokens": 4}, TEXTS, None),
        ({}, TEXTS, with_other_weights),
        ({}, TEXTS, with_another_tokenizer),
    ],
)
def test_whatever_changes_embeddings_is_computed_anew(standin, own_cache, tmp_path, changed, texts, other):
    embedded_once(load_backbone(settings(standin())), TEXTS)
    folder = standin() if other is None else other(standin(), tmp_path / "model")
    backbone = load_backbone(settings(folder, **changed))
    with forwards_of(backbone.model) as seen:
        found = embedded_once(backbone, texts)
    assert len(seen) > 0
    np.testing.assert_array_equal(found, embed(backbone, texts))
    assert len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize("pair", [(["a\x00b", "c"], ["a", "b\x00c"]), (["ab", "c"], ["a", "bc"])])
def test_texts_of_the_same_characters_are_told_apart(standin, own_cache, pair):
    backbone = load_backbone(settings(standin()))
    for texts in pair:
        embedded_once(backbone, texts)
    assert len(list(own_cache.iterdir())) == 2


def test_the_batch_size_has_no_say_in_the_cache(standin, own_cache):
    for budget in (64, 4096):
        embedded_once(load_backbone(settings(standin(), token_budget=budget)), TEXTS)
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-10]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"garbage that is no array at all"),
        lambda file: file.write_bytes(b"PK\x03\x04 looks like a zip"),
        lambda file: np.save(file, np.zeros((3, 3), dtype=np.float32)),
        lambda file: np.save(file, np.zeros((12, standins.WIDTH))),
        lambda file: np.save(file, np.array([{"a": 1}]), allow_pickle=True),
    ],
)
def test_a_damaged_cache_is_computed_anew(standin, own_cache, damage):
    backbone = load_backbone(settings(standin()))
    whole = np.array(embedded_once(backbone, TEXTS))
    (file,) = own_cache.iterdir()
    content = file.read_bytes()
    damage(file)
    np.testing.assert_array_equal(embedded_once(backbone, TEXTS), whole)
    assert file.read_bytes() == content


def test_a_full_disk_keeps_embeddings_in_memory(standin, own_cache, monkeypatch, caplog):
    backbone = load_backbone(settings(standin()))

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with caplog.at_level(logging.WARNING, "credibly"):
        found = embedded_once(backbone, TEXTS)
    assert "embeddings are not cached: no room on the disk" in caplog.text
    np.testing.assert_array_equal(found, embed(backbone, TEXTS))
    assert list(own_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_keeps_embeddings_in_memory(standin, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "file"))
    backbone = load_backbone(settings(standin()))
    with caplog.at_level(logging.WARNING, "credibly"):
        found = embedded_once(backbone, TEXTS)
    assert "embeddings are not cached" in caplog.text
    np.testing.assert_array_equal(found, embed(backbone, TEXTS))


# A model cut between two blocks


def classifier_of(folder, seed=0, dropout=0.1):
    return load_classifier(settings(folder), CLASSES, dropout, seed)


def batch_of(classifier, texts=TEXTS, side="right"):
    tokens = tokenise(classifier.tokenizer, texts, classifier.max_tokens)
    return pad(tokens, np.arange(len(texts)))


def full_logits(classifier, batch):
    return classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def state_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@all_architectures
@pytest.mark.parametrize("top", range(1, standins.BLOCKS + 1))
def test_the_upper_blocks_on_trunk_states_give_the_whole_models_logits(standin, architecture, top):
    classifier = classifier_of(standin(architecture))
    batch = batch_of(classifier)
    expected = full_logits(classifier, batch).detach()
    cut = BlockCut(classifier.model, top)
    hidden = cut.trunk(batch)
    assert hidden.shape == (*batch.input_ids.shape, standins.WIDTH)
    with cut.resumed(), torch.no_grad():
        torch.testing.assert_close(cut.logits(batch, hidden), expected, atol=1e-5, rtol=0)
        # What comes out depends on the states given, and not on the ids.
        assert (cut.logits(batch, hidden.flip(0)) - expected).abs().max() > 0.01
    torch.testing.assert_close(full_logits(classifier, batch), expected, atol=0, rtol=0)


def test_threads_run_below_and_above_the_cut_side_by_side(standin):
    classifier = classifier_of(standin())
    cut = BlockCut(classifier.model, 2)
    batches = [batch_of(classifier, [text] * 3) for text in TEXTS[:12]] * 5
    alone = [full_logits(classifier, batch).detach() for batch in batches]
    meeting = threading.Barrier(4, timeout=30)

    def met(work, *arguments):
        meeting.wait()
        with torch.inference_mode():
            return work(*arguments)

    with ThreadPoolExecutor(4) as pool:
        with cut.stopped():
            hidden = list(pool.map(lambda batch: met(cut.trunk, batch), batches))
        with cut.resumed():
            found = list(pool.map(lambda pair: met(cut.logits, *pair), zip(batches, hidden, strict=True)))
    for own, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)


@all_architectures
@pytest.mark.parametrize("top", [1, 2])
def test_gradients_above_the_cut_are_those_of_the_whole_model(standin, architecture, top):
    classifier = classifier_of(standin(architecture))
    batch, labels = batch_of(classifier), torch.arange(12) % 3
    cut = BlockCut(classifier.model, top)
    tuned = {name: p for name, p in classifier.model.named_parameters() if p.requires_grad}
    nn.functional.cross_entropy(full_logits(classifier, batch), labels).backward()
    expected = {name: p.grad.clone() for name, p in tuned.items() if p.grad is not None}
    classifier.model.zero_grad()
    hidden = cut.trunk(batch)
    with cut.resumed():
        nn.functional.cross_entropy(cut.logits(batch, hidden), labels).backward()
    found = {name: p.grad for name, p in tuned.items() if p.grad is not None}
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@all_architectures
@pytest.mark.parametrize("top", [1, 2])
def test_only_what_lies_above_the_cut_is_tuned(standin, architecture, top):
    classifier = classifier_of(standin(architecture))
    before, batch = state_of(classifier.model), batch_of(classifier)
    cut = BlockCut(classifier.model, top)
    assert all(parameter.grad is None for parameter in classifier.model.parameters())
    hidden, labels = cut.trunk(batch), torch.arange(12) % 3
    optimiser = OptimiserSettings(epochs=3, batch_size=12, learning_rate=0.01, weight_decay=0.1)
    with cut.resumed():
        train(
            Task(
                classifier.model,
                lambda start: repeat(batch),
                lambda one: [nn.functional.cross_entropy(cut.logits(one, hidden), labels)[None]],
                1,
            ),
            optimiser,
        )
    after = state_of(classifier.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    upper = {id(p) for block in blocks_of(classifier.model)[-top:] for p in block.parameters()}
    names = dict(classifier.model.named_parameters())
    in_blocks = {name for name, p in names.items() if id(p) in upper}
    assert in_blocks <= changed
    head = {name for name in names if name.startswith(("classifier", "pre_classifier"))}
    assert head
    assert head <= changed
    shared = changed - in_blocks - head
    assert all("pooler" in name for name in shared), shared
    # The trunk is the same, so its states still hold.
    torch.testing.assert_close(cut.trunk(batch), hidden, atol=0, rtol=0)


@all_architectures
def test_afterwards_the_model_is_as_it_was(standin, architecture):
    classifier = classifier_of(standin(architecture))
    model, batch = classifier.model, batch_of(classifier)
    blocks, kept = list(blocks_of(model)), state_of(model)
    cut = BlockCut(model, 1)
    own = {name: tensor.detach().clone() for name, tensor in model.named_parameters() if tensor.requires_grad}
    hidden = cut.trunk(batch)

    def interrupted():
        with cut.resumed(), cut.holding({name: tensor + 1 for name, tensor in own.items()}):
            assert list(blocks_of(model))[:-1] != blocks[:-1]
            assert all(torch.equal(model.get_parameter(name), own[name] + 1) for name in own)
            cut.logits(batch, hidden)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(now is then for now, then in zip(blocks_of(model), blocks, strict=True))
    assert not any(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert kept.keys() == model.state_dict().keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


@all_architectures
def test_a_tuned_model_saved_and_loaded_gives_the_same_logits(standin, architecture, tmp_path):
    classifier = classifier_of(standin(architecture))
    batch = batch_of(classifier)
    cut = BlockCut(classifier.model, 2)
    hidden = cut.trunk(batch)
    with cut.resumed():
        train(
            Task(
                classifier.model,
                lambda start: repeat(batch),
                lambda one: [cut.logits(one, hidden).square().mean()[None]],
                1,
            ),
            OptimiserSettings(epochs=2, batch_size=12, learning_rate=0.01),
        )
    classifier.model.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    again = open_classifier(tmp_path, settings(tmp_path))
    torch.testing.assert_close(full_logits(again, batch), full_logits(classifier, batch), atol=1e-6, rtol=0)
    assert again.class_names == CLASSES


@pytest.mark.parametrize("top", [0, standins.BLOCKS + 1, -1])
def test_a_cut_beyond_the_blocks_is_refused(standin, top):
    with pytest.raises(InputError, match=rf"expected 1 to {standins.BLOCKS} blocks to tune, got {top}"):
        BlockCut(classifier_of(standin()).model, top)


def test_a_model_without_a_list_of_blocks_is_refused(standin):
    model = classifier_of(standin()).model
    model.config.num_hidden_layers = 17
    with pytest.raises(InputError, match="keeps no list of 17 blocks; tune the whole of it"):
        blocks_of(model)


# The trunk's states of many texts


@all_architectures
@pytest.mark.parametrize("in_memory", [True, False])
def test_stored_trunk_states_resume_to_the_whole_models_logits(standin, architecture, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(trunk, "IN_MEMORY_BYTES", 0)
    classifier = classifier_of(standin(architecture))
    tokens = tokenise(classifier.tokenizer, TEXTS, classifier.max_tokens)
    told = []
    cut = BlockCut(classifier.model, 1)
    states = trunk_states(classifier, cut, tokens, lambda done, total: told.append((done, total)))
    assert states.states.shape == (len(tokens.flat), standins.WIDTH)
    assert told[-1] == (12, 12)
    for rows in ([0, 5, 3], [7], list(range(11, -1, -1))):
        batch = pad(tokens, np.asarray(rows))
        expected = full_logits(classifier, batch).detach()
        assert (states.of(batch)[batch.attention_mask == 0] == 0).all()
        with cut.resumed(), torch.no_grad():
            torch.testing.assert_close(cut.logits(batch, states.of(batch)), expected, atol=1e-5, rtol=0)
    left = [file for file in cache_folder().iterdir() if file.name.startswith("trunk-")]
    assert left == []


def test_trunk_states_stay_in_memory_where_the_disk_is_full(standin, monkeypatch, caplog):
    def full(file, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    classifier = classifier_of(standin())
    tokens = tokenise(classifier.tokenizer, TEXTS, classifier.max_tokens)
    expected = trunk_states(classifier, BlockCut(classifier.model, 1), tokens).states
    monkeypatch.setattr(trunk, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(trunk, "_fill", full)
    with caplog.at_level(logging.WARNING, "credibly"):
        states = trunk_states(classifier, BlockCut(classifier.model, 1), tokens)
    assert "no room for the trunk's states" in caplog.text
    assert torch.equal(states.states, expected)


@settings_of_hypothesis(max_examples=5)
@given(size=st.integers(1, 100_000))
def test_room_on_disk_is_written_not_promised(tmp_path_factory, size):
    file = tmp_path_factory.mktemp("room") / "x"
    trunk._fill(file, size)
    assert file.stat().st_size == size
    assert file.stat().st_blocks * 512 >= size


# Loading


@all_architectures
def test_a_new_head_follows_the_seed_and_disturbs_no_one(standin, architecture):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, same, other = (classifier_of(standin(architecture), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    weights = [state_of(classifier.model) for classifier in (first, same, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    differing = {name for name in weights[0] if not torch.equal(weights[0][name], weights[2][name])}
    assert differing
    assert all(("classifier" in name) or ("pooler" in name) for name in differing)


@all_architectures
def test_dropout_reaches_every_place(standin, architecture):
    model = classifier_of(standin(architecture), dropout=0.37).model
    found = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert found
    assert set(found.values()) == {0.37}, found
    assert {m.drop_prob for m in model.modules() if hasattr(m, "drop_prob")} <= {0.37}


@all_architectures
def test_a_classifier_has_the_class_names_and_no_gradients_switched_off(standin, architecture):
    classifier = classifier_of(standin(architecture))
    assert classifier.class_names == CLASSES
    assert classifier.model.config.label2id == {"bad": 0, "good": 1, "even": 2}
    assert classifier.model.config.pad_token_id == standins.SPECIAL.index("[PAD]")
    assert not classifier.model.training
    assert {p.dtype for p in classifier.model.parameters()} == {torch.float32}


@all_architectures
def test_the_longest_text_that_the_model_can_take_goes_through(standin, architecture):
    backbone = load_backbone(settings(standin(architecture)))
    assert backbone.max_tokens == standins.POSITIONS
    assert np.isfinite(embed(backbone, ["film " * 1000])).all()
    assert load_backbone(settings(standin(architecture), max_tokens=7)).max_tokens == 7
    assert load_backbone(settings(standin(architecture), max_tokens=10_000)).max_tokens == standins.POSITIONS


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (None, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}, "last"),
    ],
)
def test_pooling_is_the_one_that_the_model_was_trained_with(standin, tmp_path, modes, expected):
    folder = tmp_path / "model"
    shutil.copytree(standin(), folder)
    if modes is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
    assert load_backbone(settings(folder)).pooling == expected
    assert load_backbone(settings(folder, pooling="last")).pooling == "last"


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def pickled_weights(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def broken_config(folder):
    (folder / "config.json").write_text("{", encoding="utf-8")


def own_code(folder):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')", encoding="utf-8")


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    "damage", [cut_weights, no_weights, pickled_weights, broken_config, own_code, no_tokenizer]
)
def test_a_model_that_cannot_be_loaded_is_told_by_name(standin, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(standin(), folder)
    damage(folder)
    for load in (
        lambda: load_backbone(settings(folder)),
        lambda: load_classifier(settings(folder), CLASSES, 0.1, 0),
        lambda: open_classifier(folder, settings(folder)),
    ):
        with pytest.raises(AssetError, match="cannot be loaded") as caught:
            load()
        assert str(folder) in str(caught.value)
    assert not (folder / "ran").exists()


def test_precision_is_what_is_asked_for_or_what_the_processor_can(monkeypatch):
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    for abilities, expected in [
        ({"amx_bf16": True}, "bf16"),
        ({"avx2": True, "bf16": False}, "fp32"),
        ({}, "fp32"),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=abilities: found)
        assert resolve_precision("auto", CPU) == expected


def test_loading_leaves_the_log_level_of_transformers_alone(standin):
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_backbone(settings(standin()))
    with pytest.raises(CrediblyError):
        open_classifier(Path("nowhere-at-all"), settings("x"))
    assert transformers_logging.get_verbosity() == level
    assert transformers_logging.is_progress_bar_enabled() == bars
