"""Attention where a gradient flows: plain for short texts in bf16 on a processor, and the same figures."""

import copy

import numpy as np
import pytest
import torch

import standins
from credibly.backbones import load_classifier
from credibly.backbones.attention import LONGEST_PLAIN, attention_for_gradient, is_plain
from credibly.members import SOURCES
from credibly.members.common import TrainingData
from credibly.progress import silent
from credibly.settings import BackboneSettings, FullSettings, LoraSettings
from workshop import CLASSES

CPU = torch.device("cpu")


@pytest.mark.parametrize(("device", "precision", "longest", "plain"), [
    ("cpu", "bf16", LONGEST_PLAIN, True), ("cpu", "bf16", LONGEST_PLAIN + 1, False),
    ("cpu", "fp32", 8, False), ("cuda", "bf16", 8, False),
])  # fmt: skip
def test_the_plain_way_is_taken_where_it_is_the_faster(device, precision, longest, plain):
    assert is_plain(torch.device(device), precision, longest) == plain


def test_no_other_way_is_left_inside_and_all_are_back_behind():
    before = torch.backends.cuda.flash_sdp_enabled()
    with attention_for_gradient(CPU, "bf16", 8):
        assert torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() == before


def gradients(model, longest):
    model = copy.deepcopy(model)
    ids = torch.arange(5, 5 + 3 * 12).view(3, 12)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16), attention_for_gradient(CPU, "bf16", longest):
        loss = model(input_ids=ids, attention_mask=mask).logits.float().logsumexp(dim=-1).sum()
    loss.backward()
    return torch.cat([own.grad.flatten() for own in model.parameters() if own.grad is not None])


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_both_ways_give_the_same_gradient(standin, architecture):
    settings = BackboneSettings(name=str(standin(architecture)), precision="fp32")
    model = load_classifier(settings, CLASSES, 0.0, seed=1).model
    plain, fused = (gradients(model, longest) for longest in (12, LONGEST_PLAIN + 1))
    assert torch.nn.functional.cosine_similarity(plain, fused, dim=0) > 0.999
    assert not torch.equal(plain, fused)


@pytest.mark.parametrize("settings", [FullSettings, LoraSettings])
@pytest.mark.parametrize(("precision", "plain"), [("bf16", True), ("fp32", False)])
def test_training_takes_that_way_and_prediction_the_fused_one(
    standin, monkeypatch, settings, precision, plain
):
    ways = set()
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*given, **named):
        fused = torch.backends.cuda.flash_sdp_enabled()
        ways.add(("training" if torch.is_grad_enabled() else "prediction", "fused" if fused else "plain"))
        return attention(*given, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    own = settings(count=1, optimiser={"epochs": 1, "batch_size": 8})
    source = SOURCES[own.source]
    labels = np.arange(12) % 3
    data = TrainingData(tuple(standins.made_texts(labels)), np.eye(3, dtype=np.float32)[labels], CLASSES)
    backbone = BackboneSettings(name=str(standin()), precision=precision)
    members, _ = source.fit(source.prepare(data, backbone, own, silent), own, (1,))
    members.log_probs(data.texts)
    assert ways == {("training", "plain" if plain else "fused"), ("prediction", "fused")}
