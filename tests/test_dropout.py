"""Members as masks of one network, against the plain network with its activations masked by hand."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import standins
from credibly.backbones.loading import load_classifier
from credibly.backbones.outline import Texts, outline
from credibly.batching import pad, tokenise
from credibly.ensemble import Ensemble, train_members
from credibly.errors import InputError, RunFolderError
from credibly.members import dropout
from credibly.members.common import TrainingData
from credibly.members.masks import UnitDropout, drop_whole_units, masks_of
from credibly.passes import missing_of
from credibly.progress import silent
from credibly.records import Examples
from credibly.runs import Run
from credibly.settings import BackboneSettings, DropoutSettings, parse_recipe

CLASSES = ("bad", "good", "even")
LABELS = np.arange(48) % 3
TEXTS = tuple(standins.made_texts(LABELS, seed=3, words=6))
DATA = TrainingData(TEXTS, np.eye(3, dtype=np.float32)[LABELS], CLASSES)
OPTIMISER = {"epochs": 2, "batch_size": 12, "learning_rate": 1e-3}


def settings_of(blocks):
    return DropoutSettings(count=3, blocks=blocks, dropout=0.2, optimiser=OPTIMISER)


def fitted(folder, blocks):
    backbone = BackboneSettings(name=str(folder), precision="fp32", token_budget=200)
    settings = settings_of(blocks)
    material = dropout.prepare(DATA, backbone, settings, silent)
    return dropout.fit(material, settings, (5, 6, 7))[0]


# Prediction


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.parametrize("blocks", [2, None])
def test_a_member_is_the_plain_network_with_its_units_masked(standin, architecture, blocks):
    members = fitted(standin(architecture), blocks)
    found = members.log_probs(TEXTS)
    plain = load_classifier(BackboneSettings(name=str(standin(architecture))), CLASSES, 0.2, seed=0)
    batch = pad(tokenise(plain.tokenizer, TEXTS, plain.max_tokens), np.arange(48))
    for member, own in enumerate(members.members):
        plain.model.load_state_dict(own.weights, strict=False)
        layers = dict(plain.model.named_modules())
        handles = [
            layers[name].register_forward_hook(lambda module, given, output, mask=mask: output * mask)
            for name, mask in own.masks.items()
        ]
        with torch.no_grad():
            expected = plain.model(**batch.inputs()).logits.log_softmax(dim=-1).numpy()
        np.testing.assert_allclose(found[member], expected, atol=1e-5)
        for handle in handles:
            handle.remove()
    assert min(np.abs(found[a] - found[b]).max() for a in range(3) for b in range(a)) > 1e-3


@pytest.mark.parametrize("blocks", [1, 2, None])
def test_only_units_above_the_cut_are_masked(standin, blocks):
    """Of each of a BERT's blocks two layers, one before the head, and one behind the embeddings."""
    masks = fitted(standin(), blocks).members[0].masks
    assert len(masks) == (2 * standins.BLOCKS + 2 if blocks is None else 2 * blocks + 1)
    assert {len(mask) for mask in masks.values()} == {standins.WIDTH}


def test_after_predicting_the_network_is_as_it_was(standin):
    members = fitted(standin(), 2)
    members.log_probs(TEXTS)
    layers = [module for module in members.classifier.model.modules() if isinstance(module, UnitDropout)]
    assert not any(module.training for module in members.classifier.model.modules())
    assert layers
    assert all(layer.mask is None for layer in layers)


def test_a_model_without_dropout_layers_is_refused(standin):
    with pytest.raises(InputError, match="LlamaForSequenceClassification has no dropout layers"):
        fitted(standin("llama"), 2)


# Masks


def test_a_members_masks_depend_on_its_seed_alone_and_keep_the_mean():
    widths = {"first": 40_000, "second": 30}
    one, again, other = (masks_of(widths, 0.25, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in widths)
    assert not torch.equal(one["first"], other["first"])
    assert sorted(one["first"].unique().tolist()) == pytest.approx([0, 4 / 3])
    assert one["first"].mean().item() == pytest.approx(1, abs=0.02)


def test_training_drops_a_unit_at_every_place_of_a_text_and_others_in_the_next():
    torch.manual_seed(0)
    layer = UnitDropout(0.5)
    dropped = layer(torch.ones(200, 7, 30))
    assert sorted(dropped.unique().tolist()) == [0, 2]
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert layer(torch.ones(5, 30)).shape == (5, 30)


def test_attention_is_dropped_as_ever_and_whole_in_prediction():
    layer, plain = UnitDropout(0.5), nn.Dropout(0.5)
    weights = torch.ones(2, 4, 5, 5)
    torch.manual_seed(0)
    expected = plain(weights)
    torch.manual_seed(0)
    assert torch.equal(layer(weights), expected)
    layer.eval().mask = torch.zeros(5)
    assert torch.equal(layer(weights), weights)
    assert torch.equal(layer(torch.ones(1, 2, 5)), torch.zeros(1, 2, 5))


def test_every_dropout_layer_is_replaced_in_its_mode():
    model = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))).eval()
    drop_whole_units(model)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [(type(module), module.p, module.training) for module in found] == [
        (UnitDropout, 0.3, False),
        (UnitDropout, 0.1, False),
    ]


# On disk


@pytest.fixture
def run(standin, tmp_path):
    recipe = parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(standin()), "precision": "fp32"},
            "members": {"source": "dropout", "count": 3, "blocks": 1, "optimiser": OPTIMISER},
        }
    )
    run = Run(tmp_path / "run")
    run.begin(recipe)
    train_members(run, recipe, examples())
    return run


def examples():
    return Examples(tuple(str(row) for row in range(48)), TEXTS, CLASSES, LABELS)


def answers(run):
    return Ensemble.open(run, run.recipe, CLASSES).predict(examples()).log_probs


def test_the_network_is_kept_once(run, standin):
    names = [{file.name for file in run.member_folder(seed).iterdir()} for seed in range(3)]
    assert ["model.safetensors" in own for own in names] == [True, False, False]
    assert all("masks.safetensors" in own for own in names)
    (members,) = Ensemble.open(run, run.recipe, CLASSES).members
    assert all(own.weights is members.members[0].weights for own in members.members)
    backbone = run.recipe.backbone
    own = outline(backbone, CLASSES)
    needs = dropout.needs(own, Texts(np.full(48, 9), 16), backbone, run.recipe.members)
    assert needs.trainable == sum(tensor.numel() for tensor in members.members[0].weights.values())
    assert needs.one_network


def test_a_run_that_lost_the_holder_of_the_network_gets_the_same_back(run):
    before = answers(run)
    shutil.rmtree(run.member_folder(0))
    assert missing_of(run, run.recipe) == [0]
    train_members(run, run.recipe, examples())
    np.testing.assert_array_equal(answers(run), before)


def test_a_damaged_network_and_masks_of_another_model_are_told_by_file(run):
    file = run.member_folder(0) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(RunFolderError, match=r"members/0/model.safetensors is damaged"):
        answers(run)
    file.write_bytes(content)
    other = run.recipe.model_copy(update={"members": run.recipe.members.model_copy(update={"blocks": 2})})
    with pytest.raises(RunFolderError, match="other layers"):
        Ensemble.open(run, other, CLASSES)
