"""A head of label words says what the language model says, trains from there, and refuses what has none."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

import standins
import workshop
from credibly.backbones import load_classifier
from credibly.backbones.label_words import label_tokens
from credibly.batching import padded_batches, tokenise
from credibly.errors import InputError, RecipeError
from credibly.members import SOURCES
from credibly.members.common import TrainingData
from credibly.progress import silent
from credibly.settings import BackboneSettings, parse_recipe, recipe_text
from credibly.tuning import class_logits

CLASSES = ("bad", "good", "even")
LABELS = np.arange(12) % 3
TEXTS = tuple(f"film: {text}, this was:" for text in standins.made_texts(LABELS, seed=4, words=9))
DATA = TrainingData(TEXTS, np.eye(3, dtype=np.float32)[LABELS], CLASSES)

every_decoder = pytest.mark.parametrize("architecture", standins.DECODERS)


@pytest.fixture
def language_model(standin):
    """Return a function that gives the folder of a tiny causal model with its output layer."""
    return lambda architecture="llama", side="right": standin(architecture, side, output_layer=True)


def backbone(folder, **changed):
    return BackboneSettings(name=str(folder), precision="fp32", **changed)


def head_of(folder, words=None, classes=CLASSES):
    classifier = load_classifier(backbone(folder), classes, 0.0, seed=0, words=words or {})
    return classifier.model.score.weight.detach()


def said(classifier, texts=TEXTS):
    """Return a classifier's log-probabilities, (N, C), its texts padded together."""
    batches = padded_batches(tokenise(classifier.tokenizer, texts, classifier.max_tokens), 4096)
    return torch.tensor(class_logits(classifier, batches, len(texts))).log_softmax(dim=-1).numpy()


def said_plainly(folder, words, capped=True):
    return workshop.next_words(folder, TEXTS, words, capped)


@every_decoder
@pytest.mark.parametrize("side", ["left", "right"])
def test_zero_shot_is_what_the_language_model_says(language_model, architecture, side):
    folder = language_model(architecture, side)
    classifier = load_classifier(backbone(folder), CLASSES, 0.0, seed=0, words={})
    expected = said_plainly(folder, CLASSES, capped=False)
    np.testing.assert_allclose(said(classifier), expected, atol=1e-5)
    alone = np.concatenate([said(classifier, [text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_a_soft_cap_moves_no_label(language_model):
    folder = language_model("gemma2")
    capped, plain = said_plainly(folder, CLASSES), said_plainly(folder, CLASSES, capped=False)
    assert np.abs(capped - plain).max() > 1e-6
    np.testing.assert_array_equal(capped.argsort(axis=1), plain.argsort(axis=1))


def test_tied_and_untied_output_layers_are_both_met(language_model):
    tied = {a: json.loads((language_model(a) / "config.json").read_text())["tie_word_embeddings"]
            for a in ("gpt2", "llama")}  # fmt: skip
    assert tied == {"gpt2": True, "llama": False}


def test_given_words_stand_in_the_order_of_the_classes(language_model):
    folder = language_model()
    words = {"even": "usual", "bad": "awful", "good": "lovely"}
    classifier = load_classifier(backbone(folder), CLASSES, 0.0, seed=0, words=words)
    np.testing.assert_allclose(
        said(classifier), said_plainly(folder, ["awful", "lovely", "usual"]), atol=1e-5
    )


def test_the_head_is_the_same_whatever_the_seed(language_model):
    folder = backbone(language_model())
    first, second = (load_classifier(folder, CLASSES, 0.0, seed, words={}).model.score for seed in (0, 1))
    assert torch.equal(first.weight, second.weight)


SETTINGS = {
    "lora": {"lora_dropout": 0.1, "r": 4},
    "top_blocks": {"dropout": 0.0, "blocks": 1},
    "full": {"dropout": 0.0},
}


def fitted(folder, source, seeds=(5, 6), epochs=1, rate=1e-3):
    """Return members of a source, tuned with one batch an epoch, and their histories."""
    optimiser = {"epochs": epochs, "batch_size": len(TEXTS), "learning_rate": rate, "warmup_share": 0.0}
    settings = {"source": source, "count": len(seeds), "head": "label_words", "optimiser": optimiser}
    recipe = parse_recipe({"data": {"train": "unused"}, "members": {**settings, **SETTINGS[source]}})
    material = SOURCES[source].prepare(DATA, backbone(folder), recipe.members, silent)
    return SOURCES[source].fit(material, recipe.members, seeds), recipe.members


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("source", SETTINGS)
def test_training_starts_from_zero_shot_and_goes_on_from_there(language_model, architecture, source):
    folder = language_model(architecture)
    zero_shot = -said_plainly(folder, CLASSES)[np.arange(len(LABELS)), LABELS].mean()
    (members, histories), _ = fitted(folder, source, epochs=12, rate=5e-3)
    for member, history in enumerate(histories):
        losses = [record.loss for record in history.records]
        assert losses[0] == pytest.approx(zero_shot, abs=1e-5)
        learned = -members.log_probs(TEXTS)[member][np.arange(len(LABELS)), LABELS].mean()
        assert learned < zero_shot - 0.2


@pytest.mark.parametrize("source", SETTINGS)
def test_saved_members_load_without_the_output_layer(language_model, tmp_path, monkeypatch, source):
    folder = language_model()
    (members, _), settings = fitted(folder, source, rate=1e-2)
    folders = [tmp_path / str(member) for member in range(2)]
    for member, own in enumerate(folders):
        own.mkdir()
        members.save(member, own)
    monkeypatch.setattr("credibly.backbones.loading.output_rows", None)
    loaded = SOURCES[source].load(folders, backbone(folder), settings, CLASSES)
    np.testing.assert_allclose(loaded.log_probs(TEXTS), members.log_probs(TEXTS), atol=1e-5)


# PEFT asks transformers for a name that is going to be replaced.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_saved_adapter_is_the_same_model_to_peft(language_model, tmp_path, architecture):
    folder = language_model(architecture)
    (adapters, _), _ = fitted(folder, "lora", rate=1e-2)
    adapters.save(1, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    model = PeftModel.from_pretrained(plain, tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    expected = torch.stack(logits).log_softmax(dim=-1).numpy()
    np.testing.assert_allclose(adapters.log_probs(TEXTS)[1], expected, atol=1e-4)
    assert np.abs(adapters.log_probs(TEXTS)[1] - said_plainly(folder, CLASSES)).max() > 1e-2


def byte_level(*merged):
    """Return a tokenizer of GPT-2's kind that knows these words whole, and all bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = {letter: index for index, letter in enumerate(letters)}, []
    for word in merged:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    inner = Tokenizer(models.BPE(vocabulary, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=None)


def sentence_pieces(*words):
    """Return a tokenizer of Llama 2's kind: a mark for the space, put before every text."""
    letters = {letter for word in words for letter in word}
    pieces = [("<unk>", 0.0), ("▁", -5.0), (":", -5.0), ("▁:", -4.0)]
    pieces += [(letter, -9.0) for letter in sorted(letters)] + [(f"▁{word}", -3.0) for word in words]
    inner = Tokenizer(models.Unigram(pieces, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        (byte_level("Ġgood", "Ġbad", "good", "bad"), ["Ġbad", "Ġgood"]),
        # Of a word that is in pieces the first piece is taken, with its space.
        (byte_level("Ġgo", "Ġba", "good", "bad"), ["Ġba", "Ġgo"]),
        # The space is a token of its own: it tells no class.
        (byte_level("good", "bad"), ["bad", "good"]),
        (sentence_pieces("good", "bad"), ["▁bad", "▁good"]),
        (standins.tokenizer(causal=True), ["bad", "good"]),
    ],
    ids=["whole", "in pieces", "space apart", "sentence pieces", "word pieces"],
)
def test_the_token_of_a_word_is_the_first_that_follows_a_prompt(tokenizer, expected):
    tokens = label_tokens(tokenizer, ("bad", "good"), {})
    assert tokenizer.convert_ids_to_tokens(list(tokens)) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"bad": "awful", "good": "fine"}, "a word for every class, got none for even"),
        ({"bad": "awful", "good": " ", "even": ""}, "got none for good, even; leave members.label_words out"),
        (
            {"bad": "a", "good": "b", "even": "c", "god": "d"},
            r"no class 'god' \(did you mean 'good'\?\)",
        ),
        ({"bad": "awful", "good": "☃", "even": "plain"}, "does not know '☃'; give other words"),
        ({"bad": "poor", "good": "fine", "even": "fine"}, "'fine', 'fine' begin with the same token"),
        (
            {"bad": "badly", "good": "good", "even": "bad"},
            r"'badly', 'bad' begin with the same token \('bad'\).*give words that begin differently",
        ),
    ],
)
def test_words_that_tell_no_class_are_refused(language_model, words, told):
    with pytest.raises(InputError, match=told):
        head_of(language_model(), words)


def without_output_layer(folder, standin):
    return standin("llama")


def with_bias(folder, standin):
    """Return a Phi model: its output layer has a bias."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "phi", hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
        vocab_size=len(standins.tokenizer()), max_position_embeddings=64,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    standins.tokenizer(causal=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda folder, standin: standin("bert"), "this bert model .*no causal language model"),
        (lambda folder, standin: standin("distilbert"), "this distilbert model .*no causal language model"),
        (lambda folder, standin: standin("llama"), "files hold no output layer; take another backbone"),
        (with_bias, "this phi model .*has a bias.* or leave members.head out"),
    ],
    ids=["bert", "distilbert", "no output layer", "bias"],
)
def test_a_model_without_such_a_head_is_refused(standin, tmp_path, made, told):
    with pytest.raises(InputError, match=told):
        head_of(made(tmp_path, standin))


def test_words_for_a_linear_head_are_refused():
    members = {"source": "lora", "label_words": {"bad": "awful"}}
    with pytest.raises(
        RecipeError, match=r"members.label_words: a linear head says no words; set members.head"
    ):
        parse_recipe({"data": {"train": "unused"}, "members": members})


@pytest.mark.parametrize("source", SETTINGS)
def test_head_and_words_come_back_from_yaml(tmp_path, source):
    import yaml

    words = {"0": "awful", "1": "good"}
    members = {"source": source, "head": "label_words", "label_words": words}
    recipe = parse_recipe({"data": {"train": "unused"}, "members": members})
    again = parse_recipe(yaml.safe_load(recipe_text(recipe)))
    assert again == recipe
    assert again.members.words == words
