"""A base that several devices share: the same numbers, each block whole on one of them, nothing on two."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from transformers import BertConfig, BertForSequenceClassification

import standins
from credibly.backbones import load_backbone, load_classifier, placement
from credibly.backbones.blocks import blocks_of
from credibly.backbones.embedding import MIDDLE, embed
from credibly.backbones.language_model import load_language_model
from credibly.backbones.loading import load_trained_classifier
from credibly.backbones.next_words import next_words
from credibly.backbones.prompted import Frame
from credibly.backbones.sampled_answers import Drawing, sampled_answers
from credibly.distil import Network
from credibly.errors import InputError, RecipeError
from credibly.members import lora
from credibly.progress import silent
from credibly.settings import BackboneSettings, parse_recipe
from credibly.training import Checkpoints, Monitor
from devices import standing_in
from test_lora import CLASSES, DATA, TEXTS, peft_log_probs, settings

pytestmark = pytest.mark.slow

QUICKLY = ("bert", "llama")
ARCHITECTURES = (*standins.ARCHITECTURES, *standins.FURTHER_ENCODERS, *standins.DECODERS)
every_architecture = pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=() if name in QUICKLY else pytest.mark.slow) for name in ARCHITECTURES],
)
FRAME = Frame("film: the plot was ", " it was:", ("bad", "good fine", "even"))
SEEDS = (5, 6, 7)


def shared(folder, **changed):
    return BackboneSettings(name=str(folder), precision="fp32", device_map="auto", **changed)


def fitted(folder, monitor=None, **changed):
    chosen = settings(**changed)
    material = lora.prepare(DATA, shared(folder), chosen, silent)
    return lora.fit(material, chosen, SEEDS, *([monitor] if monitor else []))[0]


def values_of(adapters):
    """Return what adapters say and hold, in the processor's memory."""
    states = [adapters.state(member) for member in range(adapters.count)]
    return [adapters.log_probs(TEXTS), *(one.cpu().numpy() for own in states for one in own.values())]


def assert_equal(split, whole):
    assert len(split) == len(whole)
    for ours, theirs in zip(split, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# What is computed on several devices is what one computes, to the bit


@every_architecture
@pytest.mark.parametrize("blocks", [None, 2])
def test_members_trained_over_a_split_base_are_those_over_a_whole_one(standin, architecture, blocks):
    found = []
    for count in (3, 1):
        with standing_in(count):
            adapters = fitted(standin(architecture), blocks=blocks, target_modules="all-linear")
            found.append(values_of(adapters))
            where = {
                weight.device.index
                for update in adapters.updates.values()
                for weight in (update.down, update.up)
            }
            assert len(where) == min(count, blocks or count)
            for update in adapters.updates.values():
                assert update.down.device == update.up.device == update.base.weight.device
    assert_equal(*found)


@every_architecture
@pytest.mark.parametrize("pooling", ["auto", MIDDLE])
def test_embeddings_of_a_split_model_are_those_of_a_whole_one(standin, architecture, pooling):
    found = []
    for count in (3, 1):
        with standing_in(count):
            backbone = load_backbone(shared(standin(architecture)))
            chosen = backbone.pooling if pooling == "auto" else pooling
            found.append([embed(replace(backbone, pooling=chosen), TEXTS)])
    assert_equal(*found)


def test_states_half_way_up_come_back_to_where_the_texts_are(standin):
    found = []
    for count, first in ((2, 1 << 17), (1, None)):
        with standing_in(count, room=1 << 40, first=first) as devices:
            backbone = load_backbone(shared(standin()))
            assert blocks_of(backbone.model)[0].attention.self.query.weight.device == devices[-1]
            found.append([embed(replace(backbone, pooling=MIDDLE), TEXTS)])
    assert_equal(*found)


@pytest.mark.parametrize("architecture", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_split_language_model_says_what_a_whole_one_says(standin, architecture):
    scores, answers = [], []
    for count in (3, 1):
        with standing_in(count):
            model = load_language_model(shared(standin(architecture, output_layer=True)))
            (said,) = next_words(model, [FRAME], TEXTS)
            scores.append([said.log_probs])
            answers.append(sampled_answers(model, FRAME, TEXTS[:6], SEEDS, Drawing(1.0, 3)))
    assert_equal(*scores)
    assert answers[0] == answers[1]


def test_a_split_classifier_answers_as_a_whole_one(standin, tmp_path):
    classifier = load_classifier(BackboneSettings(name=str(standin()), precision="fp32"), CLASSES, 0.0, 0)
    classifier.model.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    ids = torch.arange(12).view(2, 6)
    found = []
    for count in (2, 1):
        with standing_in(count) as devices, torch.no_grad():
            model = load_trained_classifier(shared(tmp_path)).model
            logits = model(
                input_ids=ids.to(devices[0]), attention_mask=torch.ones_like(ids, device=devices[0])
            )[0]
            assert logits.device == devices[0]
            found.append([logits.cpu().numpy()])
    assert_equal(*found)


def test_a_split_base_answers_by_its_label_words_as_a_whole_one(standin):
    found = []
    for count in (3, 1):
        with standing_in(count):
            words = dict(zip(CLASSES, ("awful", "fine", "usual"), strict=True))
            chosen = settings(head="label_words", label_words=words)
            folder = standin("llama", output_layer=True)
            classifier = lora.untrained(shared(folder), CLASSES, chosen)
            found.append([Network(classifier, emits_dirichlet=False).logits(TEXTS)])
    assert_equal(*found)


def test_a_training_over_a_split_base_goes_on_from_its_checkpoint(standin, tmp_path, monkeypatch):
    with standing_in(2):
        whole = values_of(fitted(standin()))
        checkpoints = Checkpoints(tmp_path / "one")
        steps = []

        def stopped(step, total):
            steps.append(step)
            if step == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(standin(), Monitor(progress=stopped, checkpoints=checkpoints))
        assert checkpoints.latest() is not None
        again = fitted(
            standin(), Monitor(progress=lambda step, total: steps.append(step), checkpoints=checkpoints)
        )
        assert_equal(values_of(again), whole)
    assert steps == [1, 2, 3, 4, 4, 5, 6]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("architecture", QUICKLY)
def test_a_member_trained_over_a_split_base_is_the_same_model_to_peft(standin, tmp_path, architecture):
    with standing_in(3):
        adapters = fitted(standin(architecture))
        ours = adapters.log_probs(TEXTS)[1]
        adapters.save(1, tmp_path)
    np.testing.assert_allclose(peft_log_probs(standin(architecture), tmp_path), ours, atol=1e-4)


def test_what_is_merged_into_a_split_base_answers_as_the_member(standin):
    with standing_in(3) as devices:
        adapters = fitted(standin())
        own = adapters.log_probs(TEXTS[:1])[2, 0]
        tokens = adapters.classifier.tokenizer(TEXTS[0], return_tensors="pt")
        with adapters.merged(2) as model, torch.no_grad():
            logits = model(**{name: ids.to(devices[0]) for name, ids in tokens.items()}).logits
            found = logits.log_softmax(dim=-1)[0].cpu().numpy()
    np.testing.assert_allclose(found, own, atol=1e-5)


def test_a_split_base_in_four_bits_answers_as_a_whole_one(tmp_path, monkeypatch):
    """Both devices are the processor: what is seen is that hooks go with layers that are four-bit by then."""
    base = standins.save_model(tmp_path / "wide", "llama", width=64)
    whole = values_of(fitted(base, load_in_4bit=True))
    monkeypatch.setattr(placement, "all_devices", lambda: [torch.device("cpu")] * 2)
    monkeypatch.setattr(placement, "free_bytes", lambda device: 1 << 20)
    adapters = fitted(base, load_in_4bit=True)
    layers = [layer for layer in adapters.classifier.model.modules() if type(layer).__name__ == "Linear4bit"]
    assert all(hasattr(layer, "_hf_hook") and layer.weight.bnb_quantized for layer in layers)
    assert len(layers) == 7 * standins.BLOCKS
    assert_equal(values_of(adapters), whole)


# What lies where


@every_architecture
def test_every_block_is_whole_on_one_device_and_all_else_on_the_first(standin, architecture):
    with standing_in(3) as devices:
        model = load_backbone(shared(standin(architecture))).model
        inside = set()
        for block, device in zip(blocks_of(model), devices, strict=True):
            tensors = [*block.parameters(), *block.buffers()]
            inside |= {id(tensor) for tensor in tensors}
            assert {tensor.device for tensor in tensors} == {device}
        rest = [one for one in (*model.parameters(), *model.buffers()) if id(one) not in inside]
        assert {tensor.device for tensor in rest} == {devices[0]}


sizes = some.lists(some.integers(1, 50), min_size=1, max_size=6)


@given(
    outside=some.integers(0, 60),
    blocks=sizes,
    rooms=some.lists(some.integers(1, 120), min_size=1, max_size=3),
)
def test_blocks_are_dealt_in_order_so_that_the_fullest_device_is_as_little_full_as_may_be(
    outside, blocks, rooms
):
    def fullest(places):
        held = [outside * (place == 0) for place in range(len(rooms))]
        for size, place in zip(blocks, places, strict=True):
            held[place] += size
        return max(own / room for own, room in zip(held, rooms, strict=True))

    def orders(left, least):
        if left == 0:
            yield []
            return
        for place in range(least, len(rooms)):
            yield from ([place, *rest] for rest in orders(left - 1, place))

    best = min(map(fullest, orders(len(blocks), 0)))
    found = placement.dealt(outside, blocks, rooms)
    if best > 1:
        assert found is None
        return
    assert found == sorted(found)
    assert fullest(found) == best


def test_a_base_that_all_devices_together_do_not_hold_is_refused(standin):
    with (
        standing_in(2, room=1000),
        pytest.raises(InputError, match=r"room for 0\.\d GB of weights on 2 devices"),
    ):
        load_backbone(shared(standin()))


def test_a_model_with_weights_in_none_of_its_parts_is_refused():
    model = BertForSequenceClassification(
        BertConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2)
    )
    model.bert.extra = torch.nn.Parameter(torch.zeros(2))
    with standing_in(2) as devices, pytest.raises(InputError, match=re.escape("its bert.extra is in none")):
        placement.place(model, devices)


def test_where_there_is_one_device_it_holds_all_and_that_is_told_once(standin, caplog):
    placement.say_alone.cache_clear()
    with caplog.at_level(logging.WARNING, logger="credibly"):
        backbones = [load_backbone(shared(standin())), load_backbone(shared(standin()))]
    whole = load_backbone(BackboneSettings(name=str(standin()), precision="fp32"))
    assert [record.message for record in caplog.records] == [
        f"backbone.device_map: there is one device (cpu), and it holds all of {standin()}"
    ]
    assert not hasattr(backbones[0].model, "hf_device_map")
    np.testing.assert_array_equal(embed(backbones[1], TEXTS), embed(whole, TEXTS))


# What is refused before anything is written

SHARED = {"data": {"train": "unused"}, "backbone": {"name": "any", "device_map": "auto"}}


@pytest.mark.parametrize("source", ["full", "top_blocks", "snapshots", "dropout"])
def test_what_tunes_the_base_itself_is_refused_on_a_split_one(source):
    with pytest.raises(RecipeError, match=f"members.*{source} tunes the base itself.*take lora"):
        parse_recipe({**SHARED, "members": {"source": source}})
    parts = [{"members": {"source": "lora"}}, {"members": {"source": source}}]
    with pytest.raises(RecipeError, match=f"{source} tunes the base itself"):
        parse_recipe({**SHARED, "members": {"source": "mixed", "parts": parts}})
    parts[1]["backbone"] = {"name": "small"}
    assert parse_recipe({**SHARED, "members": {"source": "mixed", "parts": parts}}).members.count > 1


def test_students_and_processes_beside_a_split_base_are_refused():
    with pytest.raises(RecipeError, match=r"distil\.backbone: a student is tuned on one device"):
        parse_recipe({"data": {"train": "unused"}, "distil": {"backbone": SHARED["backbone"]}})
    with pytest.raises(RecipeError, match="processes: expected auto or 1"):
        parse_recipe({**SHARED, "processes": 2})
    recipe = parse_recipe(SHARED)
    assert (recipe.backbone.device_map, recipe.student_backbone.device_map) == ("auto", None)
