"""Normalised texts: equal where people would say so, in any script."""

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credibly.data.text import normalised, text_key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Don't panic!", "DON’T  PANIC"),
        ("it 's n't bad .", "It'sn't bad"),
        ("straße", "STRASSE"),
        ("ﬁne…", "fine..."),
        ("é", "e\u0301"),
        ("这部电影，很好！", "这部电影很好"),
        ("هذا رائع، جدا؟", "هذا رائع جدا"),
        ("बहुत अच्छा है।", "बहुत अच्छा है"),
        ("ＡＢＣ　１２", "abc12"),
        ("zero\u200bwidth", "zerowidth"),
        ("I ❤️ it", "I ❤ it"),
        ("`` quoted ''", "quoted"),
    ],
)
def test_case_spaces_and_punctuation_do_not_matter(first, second):
    assert normalised(first) == normalised(second)
    assert text_key(first) == text_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("like C", "like C++"),
        ("good 😀", "good 😡"),
        ("👍", "👎"),
        (":-)", ":-("),
        ("!!!", "..."),
        ("कि", "का"),
        ("مدرسة", "مدرسه"),
        ("5 $", "5 €"),
        ("🫨", "🫷"),
    ],
)
def test_texts_that_say_different_things_stay_different(first, second):
    assert normalised(first) != normalised(second)


@settings(deadline=None)
@given(st.text())
def test_how_characters_are_composed_does_not_matter_and_no_text_becomes_empty(text):
    whole = normalised(text)
    assert normalised(unicodedata.normalize("NFD", text)) == whole
    assert normalised(unicodedata.normalize("NFC", text)) == whole
    assert bool(whole) == bool(text.strip())


@pytest.mark.parametrize(
    "text", ["a\u0301\u0316" * 330_000, "好" * 1_000_000, "word " * 200_000, "." * 1_000_000]
)
def test_a_million_characters_take_no_quadratic_time(text):
    start = time.process_time()
    text_key(text)
    assert time.process_time() - start < 2
