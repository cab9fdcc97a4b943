"""A base in four bits: as bitsandbytes holds it for transformers, under adapters that PEFT loads."""

import functools

import numpy as np
import pytest
import torch
from transformers import BitsAndBytesConfig

import standins
from credibly.backbones import four_bit
from credibly.backbones.footprint import FLOAT
from credibly.backbones.outline import Texts, outline
from credibly.errors import InputError, MissingExtraError
from credibly.members import lora
from credibly.settings import BackboneSettings
from test_lora import CLASSES, TEXTS, fitted, peft_log_probs, settings

NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.float32,
    llm_int8_skip_modules=["classifier", "score", "bert.pooler.dense"],
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Return a function that gives a stand-in whose layers are as wide as a block of shared scales."""
    return functools.cache(
        lambda architecture="bert": standins.save_model(
            tmp_path_factory.mktemp("wide") / architecture, architecture, width=64
        )
    )


@pytest.fixture
def in_float(monkeypatch):
    """Keep bitsandbytes from rounding inputs to bfloat16, as it does on processors that multiply such.

    What differs by 1e-7 before it is rounded may differ by 1e-3 after.
    """
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


@pytest.mark.slow
# PEFT asks transformers for a name that is going to be replaced.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_members_on_a_base_in_four_bits_are_peft_s_on_theirs(wide, tmp_path, architecture, in_float):
    base = wide(architecture)
    adapters = fitted(base, load_in_4bit=True)
    found = adapters.log_probs(TEXTS)
    for member in range(3):
        folder = tmp_path / str(member)
        folder.mkdir()
        adapters.save(member, folder)
        theirs = peft_log_probs(base, folder, quantization_config=NF4)
        np.testing.assert_allclose(theirs, found[member], atol=1e-4)
    exact = fitted(base).log_probs(TEXTS)
    assert np.abs(found - exact).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_base_in_four_bits_is_cut_like_any(wide, in_float, precision):
    given = {"load_in_4bit": True, "precision": precision, "lora_dropout": 0.0}
    by_name = fitted(wide(), target_modules=["*.1.*", "*.2.*"], **given)
    by_cut = fitted(wide(), blocks=2, **given)
    atol = 1e-4 if precision == "fp32" else 0.05
    np.testing.assert_allclose(by_cut.log_probs(TEXTS), by_name.log_probs(TEXTS), atol=atol)


@pytest.mark.slow
def test_saved_members_answer_as_before(wide, tmp_path):
    adapters = fitted(wide(), load_in_4bit=True)
    folders = [tmp_path / str(member) for member in range(3)]
    for member, folder in enumerate(folders):
        folder.mkdir()
        adapters.save(member, folder)
    backbone = BackboneSettings(name=str(wide()), precision="fp32")
    again = lora.load(folders, backbone, settings(load_in_4bit=True), CLASSES)
    np.testing.assert_array_equal(again.log_probs(TEXTS), adapters.log_probs(TEXTS))


def test_the_base_takes_the_room_that_the_plan_says(wide):
    """Of the scales only the rule is held: a stand-in has less than the 256 that share one."""
    backbone = BackboneSettings(name=str(wide()), precision="fp32")
    chosen = settings(load_in_4bit=True)
    adapters = lora.build(backbone, chosen, CLASSES, (0, 1))
    exact = lora.build(backbone, settings(), CLASSES, (0, 1))
    assert adapters.shared_parameters == exact.shared_parameters
    held = [weight for weight in adapters.classifier.model.parameters() if hasattr(weight, "quant_state")]
    products = sum(four_bit.count_held(weight) for weight in held)
    own = outline(backbone, CLASSES)
    assert products == own.block.products * own.blocks
    assert sum(weight.numel() for weight in held) == products / 2
    texts = Texts(np.array([5, 9]), 9)
    planned, whole = (lora.needs(own, texts, backbone, each).memory.base for each in (chosen, settings()))
    assert whole - planned == round((FLOAT - four_bit.WEIGHT_BYTES) * products)
    # NF4's 4 bits and 8 a block of 64, and single precision for every 256 of these (QLoRA, section 3).
    assert pytest.approx((4 + 8 / 64 + 32 / (64 * 256)) / 8, abs=1e-3) == four_bit.WEIGHT_BYTES


def test_what_cannot_be_held_in_four_bits_is_told(standin, monkeypatch):
    with pytest.raises(InputError, match="the blocks of gpt2 have none"):
        fitted(standin("gpt2"), load_in_4bit=True)
    monkeypatch.setattr(four_bit, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"credibly\[four-bit\]"):
        fitted(standin(), load_in_4bit=True)
