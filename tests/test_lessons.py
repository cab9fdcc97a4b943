"""What students and controls learn, texts made from others, and students with fewer layers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoModelForSequenceClassification

import standins
from credibly.backbones.blocks import blocks_of
from credibly.backbones.loading import load_classifier
from credibly.distil import DirichletTargets, Network, dirichlet_targets, lesson, made_texts
from credibly.distil.augment import spliced, with_words, words_of
from credibly.distil.layers import every_other
from credibly.distil.lessons import LESSONS, own_temperatures, smoothed
from credibly.distil.losses import reverse_kl, soft_cross_entropy
from credibly.parted import filled, paired
from credibly.records import Predictions
from credibly.settings import CONTROLS, AugmentSettings, BackboneSettings, DistilSettings
from credibly.workflows.steps.transfer import mask_token

K, N, C = 4, 6, 3
RANDOM = np.random.default_rng(0)
LABELS = np.eye(C, dtype=np.float32)[RANDOM.integers(0, C, K)]
OPINIONS = DirichletTargets(
    softmax(RANDOM.normal(size=(N, C)), axis=1).astype(np.float32), np.arange(1, N + 1, dtype=np.float32)
)
Z = torch.randn(3, C, generator=torch.Generator().manual_seed(1))
LABELLED, ALL = torch.tensor([3, 0, 2]), torch.tensor([5, 1, 4])


def learned(control, **settings):
    return lesson(control, LABELS, OPINIONS, DistilSettings(**settings))


# Losses


def test_every_control_that_settings_know_has_a_lesson():
    assert tuple(LESSONS) == CONTROLS


def test_controls_that_learn_labels_see_the_texts_that_have_one_and_no_other():
    assert learned("direct").rows.tolist() == learned("label_smoothing").rows.tolist() == [0, 1, 2, 3]
    assert [learned(control).rows for control in ("soft_labels", "soft_labels_t4", None)] == [None] * 3


def test_label_smoothing_is_torchs():
    ours = learned("label_smoothing").loss(Z, LABELLED)
    theirs = torch_cross_entropy(Z, torch.from_numpy(LABELS[LABELLED]).argmax(dim=1), label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)
    np.testing.assert_allclose(smoothed(LABELS).sum(axis=1), 1, rtol=1e-6)


def test_a_text_has_the_temperature_of_its_third_by_the_ensembles_confidence():
    wanted = {5: 2.0, 4: 2.0, 1: 4.0, 2: 4.0, 0: 6.0, 3: 6.0}
    mean = np.array(
        [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.95, 0.05], [0.4, 0.6], [0.5, 0.5]], dtype=np.float32
    )
    assert dict(enumerate(own_temperatures(mean))) == wanted
    equal = np.full((5, 2), 0.5, dtype=np.float32)
    assert own_temperatures(equal).tolist() == [4.0] * 5


def test_soft_labels_at_each_texts_own_temperature_are_the_mean_of_the_texts_alone():
    temperatures = torch.from_numpy(own_temperatures(OPINIONS.mean))
    assert len(set(temperatures.tolist())) == 3
    alone = [
        soft_cross_entropy(z[None], torch.from_numpy(OPINIONS.mean[row])[None], float(temperatures[row]))
        for z, row in zip(Z, ALL, strict=True)
    ]
    torch.testing.assert_close(learned("soft_labels_own_t").loss(Z, ALL), torch.stack(alone).mean())


def test_each_head_of_hydra_learns_its_own_member():
    said = torch.randn(4, N, C, generator=torch.Generator().manual_seed(2))
    record = Predictions(
        log_probs=log_softmax(said, dim=-1).numpy(),
        ids=tuple(map(str, range(N))),
        class_names=("a", "b", "c"),
    )  # fmt: skip
    halves = [dirichlet_targets(record.take(rows), 100.0) for rows in ([0, 1, 2], [3, 4, 5])]
    taught = lesson("hydra", LABELS, DirichletTargets.joined(halves), DistilSettings())
    assert (taught.heads, taught.rows) == (4, None)
    z = torch.randn(3, 4 * C, generator=torch.Generator().manual_seed(3))
    members = torch.from_numpy(np.exp(record.log_probs))
    by_head = [torch_cross_entropy(z[:, C * head : C * head + C], members[head, ALL]) for head in range(4)]
    torch.testing.assert_close(taught.loss(z, ALL), torch.stack(by_head).mean())


@given(st.floats(0.5, 20), st.integers(0, 100))
def test_soft_labels_at_a_temperature_have_the_gradient_of_hintons_divergence(temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    z, teacher = (torch.randn(4, C, generator=generator, dtype=torch.float64) for _ in range(2))
    ours, theirs = (z.clone().requires_grad_() for _ in range(2))
    soft_cross_entropy(ours, torch.softmax(teacher, dim=1), temperature).backward()
    divergence = kl_div(
        log_softmax(theirs / temperature, dim=1), torch.softmax(teacher / temperature, dim=1),
        reduction="batchmean",
    )  # fmt: skip
    (temperature**2 * divergence).backward()
    # The loss is taken in single precision.
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_soft_labels_are_the_ensembles_mean_at_their_temperature():
    mean = torch.from_numpy(OPINIONS.mean[ALL])
    torch.testing.assert_close(learned("soft_labels").loss(Z, ALL), torch_cross_entropy(Z, mean))
    torch.testing.assert_close(learned("soft_labels_t4").loss(Z, ALL), soft_cross_entropy(Z, mean, 4.0))
    # By hand: ln (0.8, 0.2) / 2 gives (2/3, 1/3); against logits (0, 0) that is ln 2, times 2^2.
    loss = soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.8, 0.2]]), 2.0)
    assert loss.item() == pytest.approx(4 * np.log(2))


def test_the_student_mixes_its_parts_by_their_shares():
    rows = torch.tensor([0, 2, 5])
    mean, precision = (torch.from_numpy(own[rows]) for own in (OPINIONS.mean, OPINIONS.precision))
    # The last text has no label, and its row of zeros adds nothing.
    truth = torch.from_numpy(np.concatenate([LABELS, np.zeros((2, C), dtype=np.float32)])[rows])
    label = -(truth * log_softmax(Z, dim=1)).sum() / 3
    parts = reverse_kl(Z, mean, precision), soft_cross_entropy(Z, mean, 2.0), label
    mixed = learned(None, soft_share=0.3, label_share=0.2, temperature=2.0).loss(Z, rows)
    torch.testing.assert_close(mixed, 0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2])
    torch.testing.assert_close(learned(None).loss(Z, rows), parts[0])


# Made texts

TEXTS = ["one two three four five six", "seven eight nine ten", "eleven twelve", "thirteen"]
words = st.lists(st.text("abcdeé ", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=8)


def made(texts, *kinds, copies=1, share=0.3, seed=0, mask=None):
    return made_texts(texts, AugmentSettings(copies=copies, kinds=list(kinds), share=share), seed, mask)


def test_no_texts_are_made_unless_asked_for():
    assert AugmentSettings().copies == 0
    assert made(TEXTS, "word_dropout", copies=0) == []


def test_made_texts_go_by_the_seed():
    kinds = ("word_dropout", "span_masking", "splices")
    assert made(TEXTS, *kinds, copies=5) == made(TEXTS, *kinds, copies=5)
    assert made(TEXTS, *kinds, copies=5) != made(TEXTS, *kinds, copies=5, seed=1)


@given(st.lists(words.map(" ".join), min_size=1, max_size=5), st.floats(0.01, 0.99), st.integers(0, 50))
def test_word_dropout_leaves_words_in_their_order_and_never_none(texts, share, seed):
    for text in made(texts, "word_dropout", share=share, seed=seed, copies=2):
        assert text.split()
        assert any(is_subsequence(text.split(), whole.split()) for whole in texts)


def is_subsequence(part, whole):
    left = iter(whole)
    return all(word in left for word in part)


def test_word_dropout_leaves_out_about_its_share():
    (text,) = made([" ".join(map(str, range(5000)))], "word_dropout", share=0.3)
    assert len(text.split()) == pytest.approx(3500, abs=100)


def test_a_span_is_masked_word_for_word_or_left_out():
    (masked,) = made(TEXTS[:1], "span_masking", share=0.5, mask="[MASK]")
    assert masked.split().count("[MASK]") == 3
    assert "[MASK] [MASK] [MASK]" in masked
    (shorter,) = made(TEXTS[:1], "span_masking", share=0.5)
    assert shorter.split() == [word for word in masked.split() if word != "[MASK]"]


def test_a_mask_token_is_one_that_every_model_reads():
    def reader(token):
        return SimpleNamespace(tokenizer=SimpleNamespace(mask_token=token), max_tokens=9)

    assert mask_token([reader("[MASK]"), reader("[MASK]")]) == "[MASK]"
    assert mask_token([reader("[MASK]"), reader("<mask>")]) is None
    assert mask_token([reader(None)]) is None


def test_a_splice_is_the_beginning_of_one_text_before_the_end_of_another():
    for seed in range(20):
        text = "".join(spliced(words_of(TEXTS[0]), words_of(TEXTS[1]), np.random.default_rng(seed))).split()
        first = [word for word in text if word in TEXTS[0].split()]
        second = [word for word in text if word in TEXTS[1].split()]
        assert first + second == text
        assert TEXTS[0].split()[: len(first)] == first
        assert TEXTS[1].split()[-len(second) :] == second


def test_what_stays_as_it_was_is_left_out():
    assert made(["alone"] * 5, "word_dropout", "span_masking", mask="[MASK]") == []


def test_of_templates_and_pairs_only_the_part_that_gives_way_is_changed():
    text = filled("Is {it} so? {why} End.", {"it": "that thing", "why": "one two three four"}, "why")
    for seed in range(10):
        for changed in made([text], "word_dropout", "span_masking", share=0.5, seed=seed):
            assert changed.startswith("Is that thing so? ")
            assert changed.endswith(" End.")
            assert changed[changed.start : changed.stop].split() != ["one", "two", "three", "four"]
    for cut_first in (False, True):
        pair = paired("one two", "three four", cut_first)
        changed = with_words(pair, ["x", " y", " z"])
        assert changed.sequences == (("x y z", "three four") if cut_first else ("one two", "x y z"))
        assert changed[changed.start : changed.stop] == "x y z"


# Fewer layers


@pytest.mark.parametrize(
    "architecture", [*standins.ARCHITECTURES, "modernbert", "gpt2", "llama", "gemma3_text", "qwen3"]
)
def test_every_other_block_is_kept_and_plain_transformers_load_it(architecture, standin, tmp_path):
    settings = BackboneSettings(name=str(standin(architecture)), precision="fp32")
    whole = load_classifier(settings, ("bad", "good"), dropout=0.0, seed=3)
    half = every_other(whole)
    kept = [list(block.parameters()) for block in list(blocks_of(whole.model))[::2]]
    found = [list(block.parameters()) for block in blocks_of(half.model)]
    assert len(found) == len(kept) == (standins.BLOCKS + 1) // 2
    for one, other in zip(kept, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    head = {
        name: own for name, own in whole.model.named_parameters() if name.startswith(("classifier", "score"))
    }
    assert head
    assert all(torch.equal(own, half.model.get_parameter(name)) for name, own in head.items())
    Network(half, emits_dirichlet=True).save(tmp_path / "student")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(plain(input_ids=ids).logits, half.model(input_ids=ids).logits)
        assert not torch.allclose(plain(input_ids=ids).logits, whole.model(input_ids=ids).logits)
