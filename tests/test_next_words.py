"""A model asked for words behind texts: as with one whole prompt at a time, whatever is shared and padded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import standins
from credibly.backbones import prompted
from credibly.backbones.language_model import load_language_model
from credibly.backbones.next_words import next_words
from credibly.backbones.prompted import Frame, Prompted
from credibly.backbones.word_tree import WordTree, word_tree
from credibly.errors import InputError
from credibly.parted import filled
from credibly.settings import BackboneSettings

TEXTS = [*standins.made_texts(np.arange(9) % 3, words=8), "!", "film " * 12, "a"]
FEW_SHOT = Frame(
    "a film: dull\nit was: bad\n\na film: fine\nit was: good\n\na film: ", "\nit was:", ("bad", "good")
)
SHORT = Frame("so: ", ":", ("bad", "good"))
# The words of the tree: "plot" goes on as two others, which part at their last tokens.
TREE = Frame("so: ", ":", ("plot", "plotter", "plotted", "even"))
BARE = Frame("", ":", ("bad", "good"))


@pytest.fixture(scope="module")
def model_of(standin):
    """Return a function that loads a stand-in."""

    def load(architecture="llama", token_budget=4096, max_tokens=None):
        settings = BackboneSettings(
            name=str(standin(architecture, output_layer=True)),
            precision="fp32",
            token_budget=token_budget,
            max_tokens=max_tokens,
        )
        return load_language_model(settings)

    return load


def whole_prompts(folder, frame, texts, tree):
    """Say the same one text and word at a time, each with the whole prompt, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = np.empty((len(texts), len(tree.words)))
    for row, text in enumerate(texts):
        ids = tokenizer(frame.before + " ".join(text.split()) + frame.after)["input_ids"]
        for column, word in enumerate(tree.words):
            with torch.no_grad():
                said = model(torch.tensor([[*ids, *word]])).logits[0].log_softmax(dim=-1)
            places = range(len(ids) - 1, len(ids) - 1 + len(word))
            own = sum(float(said[place, token]) for place, token in zip(places, word, strict=True))
            after = {other[len(word)] for other in tree.words if other != word and other[: len(word)] == word}
            rest = 1 - sum(float(said[-1, token].exp()) for token in after)
            found[row, column] = own + np.log(rest)
    return found


@pytest.mark.parametrize(
    "architecture", ["gpt2", "llama", "mistral", "gemma2", "gemma3_text", "qwen2", "qwen3"]
)
@pytest.mark.parametrize("token_budget", [1, 200])
def test_words_are_scored_as_with_the_whole_prompt(architecture, token_budget, model_of, standin):
    model = model_of(architecture, token_budget)
    # The stand-in's words are letters to transformers' own class for Qwen 2: only short ones fit.
    frames = [SHORT, BARE] if architecture == "qwen2" else [SHORT, BARE, FEW_SHOT, TREE]
    texts = TEXTS[-4:] if architecture == "qwen2" else TEXTS
    texts = [text for text in texts if len(text) < 40] if architecture == "qwen2" else texts
    for frame, scores in zip(frames, next_words(model, frames, texts), strict=True):
        tree = word_tree(model.tokenizer, frame.after, frame.words)
        expected = whole_prompts(standin(architecture, output_layer=True), frame, texts, tree)
        np.testing.assert_allclose(scores.log_probs, expected, atol=1e-4)
        assert scores.cut == 0


def test_the_prefix_runs_once_and_the_texts_alone_after_it(model_of, monkeypatch):
    model, seen = model_of(), []
    forward = model.model.base_model.forward

    def noted(*args, **kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model.base_model, "forward", noted)
    next_words(model, [FEW_SHOT], TEXTS)
    whole = len(model.tokenizer(FEW_SHOT.before)["input_ids"])
    assert seen[0] == (1, whole)
    assert sum(rows for rows, _ in seen[1:]) == len(TEXTS)
    assert max(length for _, length in seen[1:]) < 20


def test_a_batch_holds_the_budget_with_the_prefix_counted(model_of, monkeypatch):
    model, most = model_of(token_budget=120), []
    read = Prompted.read

    def noted(asked, batch, keep):
        most.append(len(batch.indices) * (asked.prefix + batch.input_ids.shape[1]))
        return read(asked, batch, keep)

    monkeypatch.setattr(Prompted, "read", noted)
    next_words(model, [FEW_SHOT], TEXTS)
    assert 40 < max(most) <= 120


LONG = "good film " * 200


@pytest.mark.parametrize("cut", ["question", "passage"])
def test_of_a_template_the_column_that_is_cut_loses_its_end_alone(model_of, cut):
    """The prompt keeps its own, and the other column stands whole in it."""
    model = model_of()
    cells = {"question": "is it dull?", "passage": "the plot is fine."}
    text = filled("about: {question} say: {passage}", {**cells, cut: LONG}, cut)
    (read,) = prompted._read(model.tokenizer, SHORT, [text], 64)
    before, after = (
        model.tokenizer.decode(model.tokenizer(part, add_special_tokens=False)["input_ids"])
        for part in SHORT.around("about: " + text[7:]).split(LONG.strip())
    )
    said = model.tokenizer.decode(read.ids, skip_special_tokens=True)
    assert read.cut
    assert len(read.ids) == 64
    assert said.startswith(before.strip())
    assert said.endswith(after.strip())


def test_where_another_column_is_too_long_the_whole_text_gives_way_and_no_question_is_lost(model_of):
    model = model_of()
    text = filled("about: {question} say: {passage}", {"question": LONG, "passage": "fine."}, "passage")
    (read,) = prompted._read(model.tokenizer, SHORT, [text], 64)
    (plain,) = prompted._read(model.tokenizer, SHORT, [str(text)], 64)
    assert read == plain


def test_texts_that_join_the_prompts_last_token_are_read_whole(model_of, standin):
    """Behind "film" without a space the text's letters belong to the same word."""
    frame, texts = Frame("the film", ":", ("bad", "good")), ["s", "film", "!", "good film"]
    model = model_of()
    scores = next_words(model, [frame], texts)[0].log_probs
    tree = word_tree(model.tokenizer, frame.after, frame.words)
    expected = whole_prompts(standin("llama", output_layer=True), frame, texts, tree)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_a_long_text_loses_its_end_and_the_prompt_keeps_its_own(model_of):
    model = model_of()
    long = "good film " * 500
    scores = next_words(model, [SHORT, TREE], [long, "good"])
    assert [own.cut for own in scores] == [1, 1]
    for frame, own, words in ((SHORT, scores[0], 64), (TREE, scores[1], 64 - 3)):
        room = words - len(model.tokenizer("so: :")["input_ids"])
        kept = " ".join(("good film " * 500).split()[:room])
        np.testing.assert_allclose(
            own.log_probs[0], next_words(model, [frame], [kept])[0].log_probs[0], atol=1e-5
        )


def test_a_prompt_without_room_for_a_text_is_refused(model_of):
    with pytest.raises(InputError, match=r"the prompt alone has \d+ tokens.*fewer or shorter examples"):
        next_words(model_of(max_tokens=30), [FEW_SHOT], ["good"])


def test_a_text_on_several_lines_is_read_on_one(model_of):
    found = next_words(model_of(), [SHORT], ["good\n\nso:  film", "good so: film", ""])[0].log_probs
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isfinite(found).all()


def test_no_texts_have_no_scores(model_of):
    assert next_words(model_of(), [SHORT], [])[0].log_probs.shape == (0, 2)


def test_bfloat16_rounds_no_word_to_a_sixteenth(standin):
    settings = BackboneSettings(name=str(standin("llama", output_layer=True)), precision="bf16")
    exact = load_language_model(settings.model_copy(update={"precision": "fp32"}))
    rounded = load_language_model(settings)
    texts = standins.made_texts(np.arange(40) % 3, words=8)
    margins = [
        np.diff(next_words(model, [SHORT], texts)[0].log_probs, axis=1)[:, 0] for model in (exact, rounded)
    ]
    assert len(np.unique(margins[1])) > 30
    assert np.corrcoef(margins)[0, 1] > 0.99


@pytest.mark.parametrize("architecture", ["bert"])
def test_an_encoder_is_refused(architecture, standin):
    with pytest.raises(InputError, match="causal language model"):
        load_language_model(BackboneSettings(name=str(standin(architecture))))


def test_a_model_without_its_output_layer_is_refused(standin):
    with pytest.raises(InputError, match="no output layer"):
        load_language_model(BackboneSettings(name=str(standin("llama"))))


def test_the_model_is_left_as_it_was(model_of):
    model = model_of()
    inputs = model.tokenizer("good film", return_tensors="pt")
    with torch.no_grad():
        before = model.model(**inputs).logits
        next_words(model, [FEW_SHOT], TEXTS)
        after = model.model(**inputs).logits
    assert before.shape == after.shape
    np.testing.assert_array_equal(before, after)


# Words as tokens


@pytest.mark.parametrize("words", [("bad", "good"), ("plot", "plotter"), ("filmgood", "filmbad")])
def test_words_are_all_the_tokens_that_they_add_to_the_prompt(words, model_of):
    tokenizer = model_of().tokenizer
    for word, tokens in zip(words, word_tree(tokenizer, "it was:", words).words, strict=True):
        whole = tokenizer(f"it was: {word}", add_special_tokens=False)["input_ids"]
        assert whole == [*tokenizer("it was:", add_special_tokens=False)["input_ids"], *tokens]
        assert len(tokens) == (1 if word in standins.WORDS else 4 if word != "filmgood" else 5)


@pytest.fixture(scope="module")
def by_bytes():
    """A tokenizer that joins a word with the space before it, as those of most language models do."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, special_tokens=["<s>"]
    )
    inner.train_from_iterator(["good good", "bad bad", "it was: good", "it was: bad"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")


@pytest.mark.parametrize(("ending", "space"), [(" it was:", " "), ("", " "), (" it was:\n", "")])
def test_a_word_is_scored_as_it_stands_in_the_examples_behind_the_prompts_end(ending, space, by_bytes):
    tree = word_tree(by_bytes, ending, ("bad", "good"))
    for word, tokens in zip(("bad", "good"), tree.words, strict=True):
        assert by_bytes.decode(tokens) == f"{space}{word}"
        whole = by_bytes(f"film.{ending}{space}{word}")["input_ids"]
        assert whole == [*by_bytes(f"film.{ending}")["input_ids"], *tokens]


def test_unknown_words_and_equal_ones_are_refused(model_of):
    tokenizer = model_of().tokenizer
    with pytest.raises(InputError, match="does not know '☃'"):
        word_tree(tokenizer, ":", ("good", "☃"))
    with pytest.raises(InputError, match="'good', 'Good' are the same tokens"):
        word_tree(tokenizer, ":", ("good", "Good"))


def test_a_word_that_goes_on_as_another_counts_only_where_it_ends():
    tree = WordTree(((1,), (1, 2), (3,)))
    at = {(): np.log([[0.5, 0.2]]), (1,): np.log([[0.4]])}
    np.testing.assert_allclose(np.exp(tree.log_probs(at)), [[0.5 * 0.6, 0.5 * 0.4, 0.2]])


def test_paths_are_read_once_each():
    assert WordTree(((1,), (2,))).paths == ()
    assert WordTree(((1, 2, 3), (1, 2, 4), (5, 6))).paths == ((1, 2), (5,))
    assert WordTree(((1, 2, 3), (1, 4))).depth == 2


@given(
    st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=2, max_size=5, unique=True
    ),
    st.integers(0, 10_000),
)
def test_words_exclude_each_other_so_their_probabilities_sum_to_one_at_most(words, seed):
    generator, tree = np.random.default_rng(seed), WordTree(tuple(words))
    at = {
        node: np.log(generator.dirichlet(np.ones(5), size=3)[:, : len(tokens)])
        for node, tokens in tree.nodes.items()
    }
    probabilities = np.exp(tree.log_probs(at))
    assert (probabilities > 0).all()
    assert (probabilities.sum(axis=1) <= 1 + 1e-9).all()
