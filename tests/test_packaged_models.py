"""The packaged models as they are: what they say makes sense."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from credibly import assets
from credibly.assets import cache_folder
from credibly.backbones import embed, load_backbone
from credibly.backbones.loading import load_tokenizer
from credibly.backbones.sources import source_of
from credibly.backbones.word_tree import word_tree
from credibly.members.prompt_texts import Example, Task, checked_template, plain_frame
from credibly.settings import BackboneSettings

pytestmark = [pytest.mark.assets, pytest.mark.slow]

PARAPHRASES = ("The movie was a delight from start to end.", "I enjoyed every minute of this film.")
OTHER = "The invoice must be paid within thirty days."


def likely_next(name, text, count=3):
    """Return the most probable next tokens, and the model and tokenizer that say so."""
    folder = source_of(name)
    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(**tokenizer([text], return_tensors="pt")).logits[0, -1]
    return [tokenizer.decode(token).strip() for token in logits.topk(count).indices], model, tokenizer


@pytest.fixture
def accepted_terms(monkeypatch):
    """Gemma's terms accepted for one test, after which the cache knows of no more than before."""
    monkeypatch.setenv("CREDIBLY_ACCEPT_TERMS", "gemma")
    kept = cache_folder() / "accepted-terms.json"
    before = kept.read_bytes() if kept.exists() else None
    yield
    if before is None:
        kept.unlink()
    else:
        kept.write_bytes(before)


def test_mpnet_holds_paraphrases_nearer_than_another_text():
    backbone = load_backbone(BackboneSettings(name="mpnet"))
    assert (backbone.pooling, backbone.width, backbone.max_tokens) == ("mean", 768, 512)
    vectors = embed(backbone, [*PARAPHRASES, OTHER])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, *far = vectors[0] @ vectors[1], vectors[0] @ vectors[2], vectors[1] @ vectors[2]
    assert near > max(far) + 0.3
    assert assets.verify("mpnet").name == "mpnet-0.0.1"


def test_smollm2_knows_the_capital_of_france_and_keeps_its_chat_template():
    words, model, tokenizer = likely_next("smollm2", "The capital of France is")
    assert "Paris" in words
    assert type(model).__name__ == "LlamaForCausalLM"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nHello<|im_end|>\n")
    assert tokenizer("<|im_start|>")["input_ids"] == [tokenizer.bos_token_id] == [1]
    assert load_backbone(BackboneSettings(name="smollm2")).pooling == "last"


@pytest.mark.usefixtures("accepted_terms")
def test_gemma_knows_the_capital_of_france():
    words, model, tokenizer = likely_next("gemma", "The capital of France is")
    assert "Paris" in words
    assert type(model).__name__ == "Gemma3ForCausalLM"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert tokenizer("a  b")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer("a  b")["input_ids"], skip_special_tokens=True) == "a  b"
    assert tokenizer("<start_of_turn>")["input_ids"][1:] == [105]


@pytest.mark.parametrize("block", ["{text}\nSentiment: ", "{text}", "{text} Sentiment:"])
def test_a_word_behind_a_template_is_what_stands_behind_it_in_the_examples(block):
    tokenizer = load_tokenizer(source_of("smollm2"))
    task = Task(("negative", "positive"), "sentiment of a film review")
    frame = plain_frame(checked_template(block), task, [Example("Dull.", "negative")])
    tokens = word_tree(tokenizer, frame.after, frame.words).words[0]
    assert tokenizer.decode(tokens) == " negative"
    example = frame.before.split("\n\n")[0]
    assert tokenizer(example)["input_ids"][-len(tokens) :] == list(tokens)
