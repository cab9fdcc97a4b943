"""Texts to batches: every row once, within the budget, padded on the tokenizer's side, cuts counted."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import standins
from credibly import batching
from credibly.batching import (
    Tokens,
    length_batches,
    pad,
    padded_batches,
    padded_length,
    padding_share,
    shuffled_batches,
    tokenise,
)

TOKENIZER = standins.tokenizer()
WORD_IDS = dict(TOKENIZER.get_vocab())
PADDING = WORD_IDS["[PAD]"]
lengths_of_texts = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def tokens_of(lengths, side="right", padding_id=PADDING):
    """Tokens whose ids tell row and place."""
    flat = [100 * row + place for row, length in enumerate(lengths) for place in range(length)]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.asarray(flat, dtype=np.int32), starts, padding_id, side)


def sequences(tokens):
    return [tokens.flat[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)]


def ids_of(text):
    return [WORD_IDS["[CLS]"], *(WORD_IDS[word] for word in text.split()), WORD_IDS["[SEP]"]]


# Tokenising


def test_texts_become_ids_with_special_tokens():
    texts = ["good film", "bad", "the plot was very dull"]
    tokens = tokenise(TOKENIZER, texts, 64)
    assert sequences(tokens) == [ids_of(text) for text in texts]
    assert tokens.lengths.tolist() == [4, 3, 7]
    assert len(tokens) == 3
    assert (tokens.padding_id, tokens.padding_side, tokens.truncated) == (PADDING, "right", 0)
    assert tokens.flat.dtype == np.int32


def test_tokenising_in_pieces_is_tokenising_the_whole(monkeypatch):
    texts = standins.made_texts(np.arange(50) % 3)
    whole = tokenise(TOKENIZER, texts, 10)
    monkeypatch.setattr(batching, "TOKENISE_ROWS", 7)
    parts = tokenise(TOKENIZER, texts, 10)
    assert sequences(parts) == sequences(whole)
    assert parts.truncated == whole.truncated > 0


@pytest.mark.parametrize(
    ("words", "cut"),
    [(1, 0), (7, 0), (8, 0), (9, 1), (10, 1), (300, 1)],
)
def test_a_cut_is_counted_only_where_something_is_lost(words, cut):
    tokens = tokenise(TOKENIZER, ["film " * words, "good"], max_tokens=10)
    assert tokens.lengths.tolist() == [min(words + 2, 10), 3]
    assert tokens.truncated == cut
    assert sequences(tokens)[0][-1] == WORD_IDS["[SEP]"]


@given(st.lists(st.text(min_size=1, max_size=40), max_size=8), st.integers(3, 20))
def test_tokens_are_those_of_the_plain_tokenizer(texts, max_tokens):
    tokens = tokenise(TOKENIZER, texts, max_tokens)
    plain = [TOKENIZER(text, truncation=True, max_length=max_tokens)["input_ids"] for text in texts]
    whole = [TOKENIZER(text, truncation=False, verbose=False)["input_ids"] for text in texts]
    assert sequences(tokens) == plain
    assert tokens.truncated == sum(len(ids) > max_tokens for ids in whole)


def test_no_text_is_no_token():
    tokens = tokenise(TOKENIZER, [], 10)
    assert (len(tokens), tokens.flat.tolist(), tokens.truncated) == (0, [], 0)
    assert list(padded_batches(tokens, 100)) == []


def test_a_text_of_which_nothing_is_left_is_one_unknown_token():
    bare = standins.tokenizer()
    bare._tokenizer.post_processor = None
    tokens = tokenise(bare, ["\u0000", "good"], 10)
    assert sequences(tokens) == [[WORD_IDS["[UNK]"]], [WORD_IDS["good"]]]


@pytest.mark.parametrize("text", ["film " * 200_000, "f" * 1_000_000, "好" * 1_000_000, "film. " * 166_000])
def test_a_million_characters_are_cut_and_not_read_to_the_end(text, monkeypatch):
    read = []
    real = type(TOKENIZER).__call__

    def counted(self, texts, **settings):
        read.extend(map(len, texts))
        return real(self, texts, **settings)

    monkeypatch.setattr(type(TOKENIZER), "__call__", counted)
    tokens = tokenise(TOKENIZER, [text, "good"], 64)
    monkeypatch.undo()
    start = TOKENIZER(text[:40_000], truncation=True, max_length=64)["input_ids"]
    assert sequences(tokens) == [start, ids_of("good")]
    if len(start) == 64:
        assert tokens.truncated == 1
        assert sum(read) < 20_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" " * 1_000_000 + "good film", ["good", "film"]),
        ("good" + "\n" * 500_000 + "film", ["good", "film"]),
        # One word too long for the vocabulary is one unknown token, however long it is.
        ("x" * 300_000 + " good", ["[UNK]", "good"]),
    ],
)
def test_words_behind_a_long_run_of_nothing_are_read(text, words):
    tokens = tokenise(TOKENIZER, [text], 16)
    assert sequences(tokens) == [[WORD_IDS[name] for name in ("[CLS]", *words, "[SEP]")]]
    assert tokens.truncated == 0


# Batches by length


@given(lengths_of_texts, st.integers(1, 120))
def test_every_row_is_in_one_batch_within_the_budget(lengths, budget):
    lengths = np.asarray(lengths)
    batches = length_batches(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(lengths_of_texts, st.integers(1, 120))
def test_batches_go_from_long_to_short_and_are_filled(lengths, budget):
    lengths = np.asarray(lengths)
    batches = length_batches(lengths, budget)
    longest = [int(lengths[batch].max()) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * lengths[batch].max() > budget
        assert lengths[batch].min() >= lengths[following].max()


def test_no_lengths_are_no_batches():
    assert length_batches(np.zeros(0, dtype=np.int64), 10) == []
    assert padding_share(np.zeros(0, dtype=np.int64), []) == 0.0


def test_sorted_batches_waste_little():
    lengths = np.random.default_rng(0).integers(5, 200, 3000)
    arrival = [np.arange(start, min(start + 32, 3000)) for start in range(0, 3000, 32)]
    assert padding_share(lengths, arrival) > 0.4
    assert padding_share(lengths, length_batches(lengths, 4096)) < 0.05


@given(st.integers(1, 600), st.integers(1, 600))
def test_a_batch_is_padded_to_whole_vectors_where_that_adds_little(longest, most):
    padded = padded_length(longest, most)
    assert longest <= padded <= max(longest, most)
    assert padded == longest or padded % 16 == 0
    assert 12 * (padded - longest) <= longest
    if longest >= 181 and most >= 600:
        assert padded % 16 == 0


def test_rows_are_padded_no_further_than_the_model_can_read():
    for most, width in ((128, 128), (127, 127), (0, 127)):
        tokens = Tokens(np.zeros(127, np.int32), np.asarray([0, 127]), 0, "right", 0, most)
        assert pad(tokens, np.asarray([0])).input_ids.shape == (1, width)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(300, 2000))
def test_aligned_batches_stay_within_the_budget(lengths, budget):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(np.zeros(sum(lengths), np.int32), starts, 0, "right", 0, 300)
    batches = list(padded_batches(tokens, budget))
    assert all(batch.input_ids.numel() <= budget for batch in batches)
    assert sum(int(batch.attention_mask.sum()) for batch in batches) == sum(lengths)


def test_the_padding_share_by_hand():
    # 3 + 3 and 5 + 1 tokens in batches of 2 x 3 and 2 x 5: 12 of 16 places are real.
    share = padding_share(np.array([3, 5, 3, 1]), [np.array([0, 2]), np.array([1, 3])])
    assert share == 1 - 12 / 16


# Shuffled batches


@given(lengths_of_texts, st.integers(1, 10), st.integers(0, 5), st.integers(1, 4))
def test_shuffled_batches_hold_every_row_once_and_are_full_but_one(lengths, size, seed, pools):
    lengths = np.asarray(lengths)
    batches = shuffled_batches(lengths, size, np.random.default_rng(seed), pools)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)
    assert all(len(batch) <= size for batch in batches)


def test_shuffled_batches_follow_the_seed_and_change_with_every_epoch():
    lengths = np.random.default_rng(0).integers(1, 50, 200)

    def epochs(seed):
        generator = np.random.default_rng(seed)
        return [[b.tolist() for b in shuffled_batches(lengths, 8, generator)] for _ in range(2)]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    assert epochs(1)[0] != epochs(1)[1]


def test_lengths_within_a_shuffled_batch_are_alike_and_batches_come_in_any_order():
    lengths = np.random.default_rng(0).integers(1, 200, 2000)
    batches = shuffled_batches(lengths, 20, np.random.default_rng(0), pool_batches=100)
    assert padding_share(lengths, batches) < 0.1
    longest = [int(lengths[batch].max()) for batch in batches]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.5


# Padding


@pytest.mark.parametrize("side", ["left", "right"])
@given(lengths=lengths_of_texts, data=st.data())
def test_a_padded_batch_holds_the_sequences_and_says_where_they_lie(side, lengths, data):
    tokens = tokens_of(lengths, side, padding_id=7)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, unique=True))
    batch = pad(tokens, np.asarray(rows))
    longest = max(lengths[row] for row in rows)
    assert (
        batch.input_ids.shape == batch.attention_mask.shape == batch.positions.shape == (len(rows), longest)
    )
    for place, row in enumerate(rows):
        ids, mask = batch.input_ids[place].tolist(), batch.attention_mask[place].bool()
        own, room = sequences(tokens)[row], [7] * (longest - lengths[row])
        assert ids == (room + own if side == "left" else own + room)
        assert mask.tolist() == ([False] * len(room) + [True] * len(own))[:: 1 if side == "left" else -1]
        assert tokens.flat[batch.positions[place][mask].numpy()].tolist() == own
    assert ((batch.positions >= 0) & (batch.positions < len(tokens.flat))).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_equals_the_tokenizers_own(side):
    tokenizer = standins.tokenizer(side)
    texts = ["good film", "bad", "the plot was very dull"]
    batch = pad(tokenise(tokenizer, texts, 64), np.array([2, 0, 1]))
    plain = tokenizer([texts[2], texts[0], texts[1]], padding=True, return_tensors="pt")
    assert batch.input_ids.tolist() == plain["input_ids"].tolist()
    assert batch.attention_mask.tolist() == plain["attention_mask"].tolist()
    assert batch.indices.tolist() == [2, 0, 1]


@given(lengths_of_texts, st.integers(1, 100))
def test_padded_batches_hold_every_token_once(lengths, budget):
    tokens = tokens_of(lengths)
    seen = np.zeros(len(tokens.flat), dtype=int)
    rows = []
    for batch in padded_batches(tokens, budget):
        rows += batch.indices.tolist()
        seen[batch.positions[batch.attention_mask.bool()].numpy()] += 1
        assert len(batch.indices) == 1 or batch.input_ids.numel() <= budget
    assert sorted(rows) == list(range(len(lengths)))
    assert (seen == 1).all()


def test_a_batch_moves_to_a_device_with_ids_and_mask():
    import torch

    batch = pad(tokens_of([2, 3]), np.array([0, 1])).to(torch.device("meta"))
    assert batch.input_ids.device.type == batch.attention_mask.device.type == "meta"
    assert batch.indices.tolist() == [0, 1]
