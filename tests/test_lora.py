"""Stacked adapters against PEFT's own forward, and what is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

import standins
from credibly.backbones import BlockCut
from credibly.batching import pad, padded_batches, tokenise
from credibly.errors import InputError, RunFolderError
from credibly.members import lora
from credibly.members.common import TrainingData
from credibly.progress import silent
from credibly.settings import BackboneSettings, LoraSettings

CLASSES = ("bad", "good", "even")
LABELS = np.arange(24) % 3
TEXTS = tuple(standins.made_texts(LABELS, seed=3, words=4))
FAST = ("bert", "distilbert", "roberta", "llama", "gpt2")
SLOW = [
    pytest.param(architecture, marks=pytest.mark.slow)
    for architecture in (*standins.ARCHITECTURES, *standins.FURTHER_ENCODERS, *standins.DECODERS)
    if architecture not in FAST
]
DATA = TrainingData(TEXTS, np.eye(3, dtype=np.float32)[LABELS], CLASSES)


def settings(**changed):
    optimiser = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2}
    return LoraSettings(**{"count": 3, "r": 4, "optimiser": optimiser, **changed})


def fitted(folder, seeds=(5, 6, 7), token_budget=4096, precision="fp32", **changed):
    backbone = BackboneSettings(name=str(folder), precision=precision, token_budget=token_budget)
    chosen = settings(**changed)
    material = lora.prepare(DATA, backbone, chosen, silent)
    return lora.fit(material, chosen, seeds)[0]


def peft_log_probs(base, adapter, **loading):
    """Return PEFT's log-probabilities, (N, C), for a saved member."""
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, **loading)
    tokenizer = lora.load_classifier(BackboneSettings(name=str(base)), CLASSES, 0.0, 0).tokenizer
    plain.config.get_text_config().pad_token_id = plain.config.pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(plain, adapter).eval()
    tokens = tokenise(tokenizer, TEXTS, 64)
    result = np.empty((len(TEXTS), 3), dtype=np.float32)
    with torch.no_grad():
        for batch in padded_batches(tokens, 100):
            output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            result[batch.indices] = output.logits.log_softmax(dim=-1).numpy()
    return result


# PEFT asks transformers for a name that is going to be replaced.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("architecture", [*FAST, *SLOW])
def test_a_saved_member_is_the_same_model_to_peft(standin, tmp_path, architecture):
    base = standin(architecture)
    adapters = fitted(base, target_modules="all-linear")
    ours = adapters.log_probs(TEXTS)
    for member in range(3):
        folder = tmp_path / str(member)
        folder.mkdir()
        adapters.save(member, folder)
        np.testing.assert_allclose(peft_log_probs(base, folder), ours[member], atol=1e-4)
    assert np.abs(ours[0] - ours[1]).max() > 1e-2


def test_the_config_of_a_member_names_rank_layers_and_base(standin, tmp_path):
    fitted(standin(), target_modules=["query", "value"], blocks=2).save(0, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 16, "SEQ_CLS")
    assert config["base_model_name_or_path"] == str(standin())
    layers = {re.search(r"layer\.(\d)", name)[1] for name in config["target_modules"]}
    assert layers == {"1", "2"}
    assert {name.rsplit(".", 1)[-1] for name in config["target_modules"]} == {"query", "value"}


@pytest.mark.parametrize("architecture", ["deberta", "deberta-v2"])
def test_layers_that_all_members_share_are_left_alone_or_refused(standin, architecture):
    known = set(fitted(standin(architecture), target_modules="all-linear").updates)
    shared = {"deberta": ("pos_proj", "pos_q_proj"), "deberta-v2": ("key_proj", "query_proj")}[architecture]
    assert known
    assert not any(name.endswith(shared) for name in known)
    with pytest.raises(InputError, match=f"{shared[1]} of this model project relative positions"):
        fitted(standin(architecture), target_modules=["dense", shared[1]])


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_held_out_texts_are_measured_over_a_trunk_as_without_one(standin, architecture):
    held_out = replace(DATA, validation=TrainingData(TEXTS[:7], DATA.targets[:7], CLASSES))
    losses = []
    for blocks in (standins.BLOCKS, None):
        backbone = BackboneSettings(name=str(standin(architecture)), precision="fp32")
        chosen = settings(blocks=blocks, target_modules="all-linear")
        _, histories = lora.fit(lora.prepare(held_out, backbone, chosen, silent), chosen, (5, 6, 7))
        losses.append([record.validation_loss for record in histories[1].records])
    assert None not in losses[0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_base_in_half_precision_keeps_its_positions_exact(standin):
    half = fitted(standin("llama"), precision="bf16").classifier.model
    exact = AutoModelForSequenceClassification.from_pretrained(standin("llama"), num_labels=3)
    assert {weight.dtype for weight in half.base_model.parameters()} >= {torch.bfloat16}
    assert torch.equal(half.model.rotary_emb.inv_freq, exact.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_base_in_half_precision_is_cut_like_any(standin, architecture):
    given = {"precision": "bf16", "lora_dropout": 0.0}
    by_name = fitted(standin(architecture), target_modules=["*.1.*", "*.2.*"], **given)
    by_cut = fitted(standin(architecture), blocks=2, **given)
    np.testing.assert_allclose(by_cut.log_probs(TEXTS), by_name.log_probs(TEXTS), atol=0.05)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_blocks_to_adapt_can_be_named_as_peft_names_them(standin):
    base = standin("llama")
    ours = fitted(base, target_modules=["q_proj", "v_proj"], layers_to_transform=[2, 0])
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"], layers_to_transform=[2, 0])
    theirs = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base, num_labels=3), config)
    adapted = {name.split(".lora_A")[0] for name, _ in theirs.named_parameters() if ".lora_A." in name}
    assert {f"base_model.model.{name}" for name in ours.updates} == adapted
    with pytest.raises(InputError, match=r"members\.layers_to_transform from 0 to 2, got 3"):
        fitted(base, layers_to_transform=[0, 3])
    for wrong, told in (
        ({"blocks": 1, "layers_to_transform": [1]}, "got both"),
        ({"layers_to_transform": []}, "one block or more"),
    ):
        with pytest.raises(ValueError, match=told):
            settings(**wrong)


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_over_a_trunk_that_runs_once_members_become_the_same(standin, architecture):
    """The last two blocks, found by the cut or by their names."""
    by_name = fitted(standin(architecture), target_modules=["*.1.*", "*.2.*"], lora_dropout=0.2)
    by_cut = fitted(standin(architecture), blocks=2, lora_dropout=0.2)
    assert set(by_cut.updates) == set(by_name.updates)
    assert by_name.cut is None
    np.testing.assert_allclose(by_cut.log_probs(TEXTS), by_name.log_probs(TEXTS), atol=2e-5)


def test_the_trunk_runs_once_a_text_for_all_members_and_epochs(standin, monkeypatch):
    seen = []
    whole = BlockCut.trunk

    def counted(cut, batch):
        seen.extend(batch.indices.tolist())
        return whole(cut, batch)

    monkeypatch.setattr(BlockCut, "trunk", counted)
    adapters = fitted(standin(), blocks=1)
    assert sorted(seen) == list(range(len(TEXTS)))
    adapters.log_probs(TEXTS)
    assert sorted(seen) == sorted([*range(len(TEXTS))] * 2)


@pytest.mark.parametrize("blocks", [None, 1])
def test_a_step_in_parts_is_the_same_step(standin, monkeypatch, blocks):
    """A budget of 60 tokens holds two or three rows of each of the three members, of eight."""
    whole = fitted(standin(), lora_dropout=0.0, blocks=blocks)
    seen = []
    monkeypatch.setattr(lora, "pad", lambda *given: seen.append(pad(*given)) or seen[-1])
    parts = fitted(standin(), lora_dropout=0.0, blocks=blocks, token_budget=60)
    assert max(batch.input_ids.numel() for batch in seen) <= 60
    assert len({len(batch.indices) for batch in seen}) > 1
    np.testing.assert_allclose(parts.log_probs(TEXTS), whole.log_probs(TEXTS), atol=2e-5)


def test_a_layer_below_the_trunk_cannot_be_adapted(standin):
    below = "bert.encoder.layer.0.attention.self.query"
    assert below in fitted(standin(), target_modules=[below, "value"]).updates
    with pytest.raises(InputError, match=r"no linear layer is called bert\.encoder\.layer\.0"):
        fitted(standin(), target_modules=[below, "value"], blocks=1)


def test_more_blocks_than_there_are_is_told(standin):
    with pytest.raises(InputError, match="expected 1 to 3 blocks to tune, got 9"):
        fitted(standin(), blocks=9)


def test_fresh_adapters_change_nothing_but_the_head(standin):
    """B starts at zero, so members with one head would agree with the plain model."""
    backbone = BackboneSettings(name=str(standin()), precision="fp32")
    adapters = lora.build(backbone, settings(), CLASSES, seeds=[5, 6])
    plain = lora.load_classifier(backbone, CLASSES, dropout=0.0, seed=0)
    (head,) = adapters.heads.values()
    with torch.no_grad():
        for own, stacked in zip(plain.model.classifier.parameters(), head.stacked, strict=True):
            own.copy_(stacked[1])
    tokens = tokenise(plain.tokenizer, TEXTS, plain.max_tokens)
    (batch,) = padded_batches(tokens, 10_000)
    with torch.no_grad():
        expected = plain.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    found = adapters.log_probs(TEXTS)[1][batch.indices]
    np.testing.assert_allclose(found, expected.log_softmax(dim=-1).numpy(), atol=1e-5)


def test_only_adapters_and_heads_are_trained(standin):
    before = AutoModelForSequenceClassification.from_pretrained(standin(), num_labels=3).state_dict()
    adapters = fitted(standin())
    after = adapters.classifier.model.state_dict()
    shared = {name for name in after if name in before and "classifier" not in name}
    assert len(shared) > 10
    assert all(torch.equal(before[name], after[name]) for name in shared)
    r = 4
    intermediate = adapters.classifier.model.config.intermediate_size
    widths = 3 * ([(32, 32)] * 4 + [(32, intermediate), (intermediate, 32)])
    assert adapters.member_parameters == sum(r * (a + b) for a, b in widths) + 32 * 3 + 3


def test_saved_members_load_into_their_places(standin, tmp_path):
    adapters = fitted(standin())
    folders = [tmp_path / str(member) for member in range(3)]
    for member, folder in enumerate(folders):
        folder.mkdir()
        adapters.save(member, folder)
    backbone = BackboneSettings(name=str(standin()), precision="fp32")
    loaded = lora.load(folders[::-1], backbone, settings(), CLASSES)
    np.testing.assert_allclose(loaded.log_probs(TEXTS), adapters.log_probs(TEXTS)[::-1], atol=1e-6)
    with pytest.raises(RunFolderError, match="another adapter"):
        lora.load(folders, backbone, settings(r=8), CLASSES)


def test_targets_that_match_nothing_are_told_with_the_nearest_and_all_names(standin):
    with pytest.raises(InputError, match=r"called quary \(did you mean 'query'\?\).*has .*key.*value"):
        fitted(standin(), target_modules=["quary", "value"])


def test_a_learned_adapter_uses_its_dropout_seen_only(standin):
    adapters = fitted(standin(), lora_dropout=0.5)
    np.testing.assert_array_equal(adapters.log_probs(TEXTS), adapters.log_probs(TEXTS))
    without = fitted(standin(), lora_dropout=0.0)
    assert np.abs(adapters.log_probs(TEXTS) - without.log_probs(TEXTS)).max() > 1e-2
