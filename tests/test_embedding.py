"""Embeddings that depend on the text alone, and a cache of them by content."""

import errno
import json
import logging
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import standins
from credibly.backbones import (
    embed,
    embedded_once,
    load_backbone,
)
from credibly.backbones.embedding import pool
from credibly.settings import BackboneSettings

TEXTS = standins.made_texts(np.arange(12) % 3, seed=3, words=15)

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
