"""Texts that stand within others are found as by comparing each with each, and are cut as one."""

import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from credibly.data import load_splits
from credibly.data.containment import FEWEST_WORDS, containers, families, grouped
from credibly.data.text import text_key, words
from credibly.records import Examples
from credibly.settings import DataSettings

FEW_WORDS = st.lists(st.sampled_from("abc"), max_size=7)


def stands_within(short, long):
    places = range(len(long) - len(short) + 1)
    return len(short) < len(long) and any(long[start : start + len(short)] == short for start in places)


@given(st.lists(FEW_WORDS, max_size=8), st.lists(FEW_WORDS, max_size=8))
def test_containers_are_those_that_comparing_each_with_each_finds(phrases, texts):
    expected = {}
    for phrase in phrases:
        around = [text for text in texts if stands_within(phrase, text)]
        if len(phrase) >= FEWEST_WORDS and around:
            longest = max(map(len, around))
            expected[" ".join(phrase)] = min(" ".join(text) for text in around if len(text) == longest)
    spaced = [" ".join(text) for text in texts]
    found = containers([" ".join(phrase) for phrase in phrases], spaced)
    assert {phrase: spaced[place] for phrase, place in found.items()} == expected


@given(st.lists(FEW_WORDS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_families_do_not_depend_on_the_order_of_the_rows(texts, random):
    texts = [" ".join(own) or "." for own in texts]
    keys = dict(zip(texts, families(texts), strict=True))
    shuffled = random.sample(texts, len(texts))
    assert dict(zip(shuffled, families(shuffled), strict=True)) == keys


def test_a_family_is_a_text_with_all_that_stands_within_it_whatever_its_case_and_punctuation():
    texts = [
        "A film of quiet charm, and of wit.",
        "of quiet charm",
        "OF QUIET CHARM AND OF WIT!",
        "quiet charm",
        "quiet charm of films",
        "a film of quiet charm and of wit",
    ]
    whole = text_key(texts[0])
    assert families(texts) == [whole, whole, whole, text_key("quiet charm"), text_key(texts[4]), whole]


def test_families_are_groups_where_no_groups_are_given():
    texts = ("quiet charm of films", "A film of quiet charm", "of quiet charm!", "of quiet charm")
    given = Examples(("a", "b", "c", "d"), texts, ("no", "yes"), np.zeros(4, dtype=np.int64))
    assert grouped(given).groups == ("a", "b", "b", "b")
    named = replace(given, groups=("x", "y", "z", "z"))
    assert grouped(named) is named
    apart = given.take([0, 1])
    assert grouped(apart) is apart


def test_a_sentence_and_its_phrases_are_cut_as_one(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for sentence in range(300):
        said = [f"w{sentence}x{place}" for place in range(10)]
        parts = [said, said[:6], said[4:], said[2:7]]
        rows += [{"text": " ".join(part), "label": int(sentence % 2)} for part in parts]
    random.shuffle(rows)
    file = tmp_path / "phrases.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    splits = load_splits(DataSettings(train=str(file)), seed=0)
    sets = {name: {text.partition("x")[0] for text in part.texts} for name, part in splits.named().items()}
    np.testing.assert_allclose(
        [len(sets[name]) for name in ("train", "calibration", "test")], [195, 45, 60], atol=1
    )
    assert sum(map(len, sets.values())) == 300
    assert all(len(part) == 4 * len(sets[name]) for name, part in splits.named().items())
    assert any("texts that stand within others with those" in note for note in splits.notes)
    assert not any("stand word for word within" in note for note in splits.notes)


def labelled(file, texts):
    lines = [json.dumps({"text": text, "label": place % 2}) + "\n" for place, text in enumerate(texts)]
    file.write_text("".join(lines), encoding="utf-8")
    return str(file)


def test_what_stands_within_train_texts_of_another_file_is_told(tmp_path):
    train = labelled(
        tmp_path / "train.jsonl", [f"text {number} has a few more words" for number in range(40)]
    )
    test = [*(f"{number} has a few" for number in range(7)), "7 has", *(f"new {n}" for n in range(12))]
    splits = load_splits(DataSettings(train=train, test=labelled(tmp_path / "test.jsonl", test)), seed=0)
    learned = [words(text).split() for text in splits.train.texts]
    asked = [words(text).split() for text in test]
    count = sum(len(phrase) > 2 and any(stands_within(phrase, own) for own in learned) for phrase in asked)
    assert 0 < count <= 7
    assert f"test: {count} rows stand word for word within a train text; kept" in splits.notes


def test_what_stands_within_calibration_texts_is_told_of_a_test_file(tmp_path):
    settings = DataSettings(
        train=labelled(
            tmp_path / "train.jsonl", [f"text {number} has a few more words" for number in range(40)]
        ),
        calibration=labelled(
            tmp_path / "calibration.jsonl", [f"{number} is said of another" for number in range(9)]
        ),
        test=labelled(tmp_path / "test.jsonl", ["1 is said of", "2 is said", "is said of", "new 3"]),
    )
    notes = [note for note in load_splits(settings).notes if "word for word" in note]
    assert notes == ["test: 3 rows stand word for word within a calibration text; kept"]


def test_words_are_those_between_spaces_without_punctuation():
    assert words("It 's  good -- isn't it ?") == "it s good isnt it"
    assert words("?!") == ""
    assert words("Ｆｉｌｍ É") == "film é"
