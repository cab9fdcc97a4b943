"""Attention where a gradient flows: plain for short texts in bf16 on a processor, and the same figures."""

import copy

import pytest
import torch

from credibly.backbones import load_classifier
from credibly.backbones.attention import LONGEST_PLAIN, attention_for_gradient, is_plain
from credibly.settings import BackboneSettings
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
