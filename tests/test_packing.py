"""Packed linear layers: the same results, and the model as it was afterwards."""

import pytest
import torch
from torch import nn

from credibly.backbones import packing
from credibly.backbones.packing import packed_linears

BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def network(dtype, bias=True):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(48, 96, bias=bias), nn.GELU(), nn.Linear(96, 32, bias=bias))
    return layers.to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (3, 11, 48), (2, 64, 48)])
def test_packed_layers_give_the_same_results(dtype, bias, shape):
    model, inputs = network(dtype, bias), torch.randn(shape).to(dtype)
    with torch.inference_mode():
        plain = model(inputs)
        with packed_linears(model):
            packed = model(inputs)
    assert packed.dtype == dtype
    torch.testing.assert_close(packed, plain, rtol=0.02, atol=0.02)


def test_bfloat16_layers_are_packed_where_the_processor_has_it_and_no_others():
    model = nn.Sequential(network(torch.bfloat16), network(torch.float32), nn.Bilinear(3, 3, 2).bfloat16())
    with packed_linears(model):
        packed = ["forward" in module.__dict__ for module in model.modules()]
    assert sum(packed) == (2 if BF16 else 0)


def test_the_model_is_restored_even_after_an_error():
    model, inputs = network(torch.bfloat16), torch.randn(4, 48).bfloat16()
    with pytest.raises(RuntimeError), torch.inference_mode(), packed_linears(model):
        model(torch.randn(4, 5).bfloat16())
    assert all("forward" not in module.__dict__ for module in model.modules())
    model(inputs).sum().backward()
    assert model[0].weight.grad is not None


def test_changed_weights_are_packed_anew():
    model, inputs = network(torch.bfloat16), torch.randn(4, 48).bfloat16()
    with torch.inference_mode(), packed_linears(model):
        before = model(inputs)
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.zero_()
    with torch.inference_mode(), packed_linears(model):
        after = model(inputs)
    assert (before != 0).any()
    assert (after == 0).all()


def test_one_user_leaving_does_not_disturb_another():
    model, inputs = network(torch.bfloat16), torch.randn(4, 48).bfloat16()
    with torch.inference_mode():
        plain = model(inputs)
        outer, inner = packed_linears(model), packed_linears(model)
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        torch.testing.assert_close(model(inputs), plain, rtol=0.02, atol=0.02)
        inner.__exit__(None, None, None)
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_a_processor_without_bfloat16_packs_nothing(monkeypatch):
    monkeypatch.setattr(packing.torch.backends.mkldnn, "is_available", lambda: False)
    model = network(torch.bfloat16)
    with packed_linears(model):
        assert all("forward" not in module.__dict__ for module in model.modules())
