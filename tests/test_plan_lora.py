"""What LoRA members need, as a plan tells it, against what their steps and batches take."""

from itertools import product

import numpy as np
import pytest

from credibly.backbones.footprint import FLOAT, GAPS
from credibly.backbones.outline import Texts, outline
from credibly.batching import pad, tokenise
from credibly.members import lora
from credibly.settings import LoraSettings
from test_plans import CLASSES, TEXTS, backbone_of, bytes_kept

LENGTHS = Texts(np.array([4, 9, 10, 10]), 10)


def kept_by_a_step(backbone, settings, rows):
    """Return the bytes that a step of all members keeps: as told, and as torch does."""
    adapters = lora.build(backbone, settings, CLASSES, range(settings.count))
    classifier = adapters.classifier
    tokens = tokenise(classifier.tokenizer, TEXTS, classifier.max_tokens)
    longest = np.argsort(-tokens.lengths)[:rows]
    batch = lora.for_all_members(pad(tokens, longest), settings.count)
    texts = Texts(tokens.lengths[longest], batch.input_ids.shape[1])
    needs = lora.needs(outline(backbone, CLASSES), texts, backbone, settings)
    return needs.memory.activations / GAPS, bytes_kept(classifier, batch, autocast=False)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize(
    ("changed", "flowing"),
    [({}, 3), ({"layers_to_transform": [2]}, 1), ({"layers_to_transform": [1, 2]}, 2), ({"r": 64}, 3)],
    ids=["all", "last", "last_two", "high_rank"],
)
def test_a_step_keeps_what_its_gradient_flows_through_and_rounded_weights(
    standin, architecture, changed, flowing
):
    settings = LoraSettings(**{"count": 4, "r": 4, "lora_dropout": 0.0, **changed})
    for precision, rows in product(("fp32", "bf16"), (1, 6)):
        said, found = kept_by_a_step(backbone_of(standin(architecture), precision), settings, rows)
        # The plan has one block more, for what the backward pass makes.
        assert 0.75 < said / found * flowing / (flowing + 1) < 1.35


def test_a_batch_of_prediction_holds_a_text_of_every_member_at_the_least(standin):
    backbone = backbone_of(standin())
    own, settings = outline(backbone, CLASSES), LoraSettings(count=30, r=1)
    predicting = [
        lora.needs(own, LENGTHS, backbone.model_copy(update={"token_budget": budget}), settings)
        for budget in (16, 300, 600)
    ]
    least, same, twice = (needs.memory.prediction for needs in predicting)
    assert least == same
    assert twice - same == own.passing(LENGTHS, 20) * 30 - own.passing(LENGTHS, 10) * 30 > 0


def test_a_base_is_read_before_it_is_cast_and_all_members_join_it_after(standin):
    for precision, element in (("fp32", 4), ("bf16", 2)):
        backbone = backbone_of(standin(), precision)
        own = outline(backbone, CLASSES)
        few, many = (
            lora.needs(own, LENGTHS, backbone, LoraSettings(count=count, group=1)) for count in (1, 200)
        )
        base = few.parameters - few.trainable
        assert few.memory.loading == max(FLOAT * own.parameters, element * base + FLOAT * few.trainable)
        assert many.memory.loading == element * base + FLOAT * 200 * many.trainable


def test_what_lies_below_named_blocks_is_gone_through_in_every_step(standin):
    """A trunk that is cut off runs once."""
    backbone = backbone_of(standin())
    own = outline(backbone, CLASSES)
    cut, named = (
        lora.needs(own, LENGTHS, backbone, LoraSettings(count=2, **blocks))
        for blocks in ({"blocks": 1}, {"layers_to_transform": [2]})
    )
    assert cut.trainable == named.trainable
    assert cut.preparing.operations > 0
    assert named.preparing.operations == 0
    epochs = LoraSettings().optimiser.epochs
    below = cut.preparing.operations
    assert named.training.operations - cut.training.operations == 2 * epochs * below
    assert named.predicting.operations - cut.predicting.operations == (2 - 1) * below
