"""Lengths of calibration texts: told where they are others than those to come, and drawn alike."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.data import load_splits
from credibly.data.cutting import limited
from credibly.data.lengths import as_long_as, distance
from credibly.errors import DataError
from credibly.records import Examples
from credibly.settings import DataSettings
from workshop import jsonl


def rows(count, prefix):
    return [{"text": f"{prefix} {number}", "label": number % 2} for number in range(count)]


@pytest.mark.parametrize(
    ("calibration", "test", "count", "told"),
    [
        ("short", "a much longer text", 100, ["shorter"]),
        ("a much longer text", "short", 100, ["longer"]),
        ("short", "brief", 100, []),
        ("short", "a much longer text", 99, []),
    ],
)
def test_calibration_texts_of_another_length_than_test_texts_are_told(
    tmp_path, calibration, test, count, told
):
    files = {"train": "text", "calibration": calibration, "test": test}
    given = {name: str(jsonl(tmp_path / f"{name}.jsonl", rows(count, text))) for name, text in files.items()}
    notes = load_splits(DataSettings(label="label", **given), seed=0).notes
    found = [note for note in notes if "may not hold there" in note]
    assert [note.split()[4] for note in found] == told
    for note in found:
        middle = {name: np.median([len(f"{text} {n}") for n in range(count)]) for name, text in files.items()}
        assert f"up to {middle['calibration']:.0f} and {middle['test']:.0f} characters" in note


def examples_of(lengths, labels=None):
    """Return examples with distinct texts of these lengths."""
    texts = tuple(f"{row:x}".rjust(length, "x") for row, length in enumerate(lengths))
    labels = np.zeros(len(lengths), np.int64) if labels is None else np.asarray(labels)
    return Examples(tuple(map(str, range(len(texts)))), texts, ("no", "yes"), labels)


@given(
    st.lists(st.integers(1, 30), min_size=200, max_size=400),
    st.lists(st.integers(1, 30), min_size=100, max_size=500),
    st.integers(0, 3),
)
def test_texts_are_drawn_as_long_as_others_and_as_many_as_there_are(own, like, seed):
    own, like = examples_of([4 + length for length in own]), ["x" * (4 + length) for length in like]
    wanted, there = (np.sort([len(text) for text in texts]) for texts in (like, own.texts))
    ends = sorted({wanted[0] - 1, *(wanted[-(-len(like) * part // 20) - 1] for part in range(1, 21))})
    ranges = list(itertools.pairwise(ends))
    if not all(((after < there) & (there <= end)).any() for after, end in ranges):
        with pytest.raises(DataError, match="as no calibration text has"):
            as_long_as(own, like, seed)
        return
    found = as_long_as(own, like, seed)
    drawn, held = found.examples, np.sort([len(text) for text in found.examples.texts])
    assert len(drawn) == len({*drawn.ids}) <= len(own)
    assert wanted[0] <= held[0] <= held[-1] <= wanted[-1]
    for after, end in ranges:
        counts = [((after < lengths) & (lengths <= end)).sum() for lengths in (wanted, held, there)]
        assert abs(counts[1] - len(drawn) * counts[0] / len(like)) <= 0.5 + len(ends) / 2  # all are rounded
        assert counts[1] <= counts[2]
        assert (after + 1, end) != found.scarcest or counts[1] == counts[2]
    shuffled = own.take(np.random.default_rng(seed).permutation(len(own)))
    assert {*as_long_as(shuffled, like, seed).examples.ids} == {*drawn.ids}


def test_a_limit_after_the_draw_keeps_the_lengths():
    """Drawn by one order and cut by the same, what is short and plenty would come first again."""
    generator = np.random.default_rng(0)
    own = examples_of(np.minimum(8 + generator.geometric(0.06, size=6_000), 90))
    like = ["x" * length for length in generator.integers(20, 80, size=500)]
    drawn = as_long_as(own, like, seed=4).examples
    cut = limited(drawn, len(drawn) // 2, seed=4)
    gap = distance(*(np.sort([len(text) for text in texts]) for texts in (cut.texts, like)))
    assert gap < 1.6 * np.sqrt(1 / len(cut) + 1 / len(like))


@pytest.mark.parametrize(
    ("own", "like", "said"),
    [
        ([5, 6, 7], [5] * 99, "expected 100 texts or more"),
        ([5, 6, 7], [9] * 100, "100.0% of the texts .* have 9 to 9 characters"),
        ([5] * 50, [5] * 90 + [200] * 10, "10.0% of the texts .* have 6 to 200 characters"),
    ],
)
def test_lengths_that_cannot_be_drawn_are_told(own, like, said):
    with pytest.raises(DataError, match=said):
        as_long_as(examples_of(own), ["x" * length for length in like])


def test_where_most_are_of_one_length_so_is_what_is_drawn():
    drawn = as_long_as(examples_of([30] * 2000 + [200]), ["x" * 30] * 95 + ["x" * 200] * 5).examples
    assert sorted(map(len, drawn.texts)) == [30] * 19 + [200]


def test_drawn_by_length_the_labels_are_those_of_the_texts_to_come():
    """Where the label hangs on the length alone, drawing by length gives the share that is to come."""
    generator = np.random.default_rng(0)

    def labels_of(lengths):
        return (generator.random(len(lengths)) < np.asarray(lengths) / 100).astype(np.int64)

    lengths = np.minimum(4 + generator.geometric(0.05, size=20_000), 90)
    own = examples_of(lengths, labels_of(lengths))
    to_come = generator.integers(30, 90, size=4_000)
    share = labels_of(to_come).mean()
    drawn = as_long_as(own, ["x" * length for length in to_come]).examples
    error = np.sqrt(0.25 / len(drawn) + 0.25 / len(to_come))
    assert len(drawn) > 200
    assert abs(own.labels.mean() - share) > 8 * error
    assert abs(drawn.labels.mean() - share) < 3 * error


def test_calibration_like_draws_before_the_limit_and_says_so(tmp_path):
    train = [
        {"id": f"{n}", "text": f"{n} " + "long " * (n % 3 == 0) * 9, "label": "ab"[n % 2]} for n in range(300)
    ]
    like = [{"text": f"{n} " + "long " * 9, "label": "no class of these"} for n in range(150)]
    settings = DataSettings(
        train=str(jsonl(tmp_path / "train.jsonl", train)),
        label="label",
        calibration_share=0.5,
        calibration_like=str(jsonl(tmp_path / "like.jsonl", like)),
        limit={"calibration": 20},
    )
    splits = load_splits(settings, seed=1)
    assert len(splits.calibration) == 20
    assert all("long" in text for text in splits.calibration.texts)
    (said,) = [note for note in splits.notes if "as long as the texts of" in note]
    assert re.match("calibration: .* of .* rows are drawn, .*like.jsonl", said)
    assert not [note for note in splits.notes if "may not hold there" in note]


@given(st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(1, 9), min_size=1))
def test_the_distance_of_lengths_is_the_largest_gap_between_their_shares(one, other):
    def share(lengths, most):
        return sum(length <= most for length in lengths) / len(lengths)

    expected = max(abs(share(one, most) - share(other, most)) for most in range(10))
    assert distance(np.sort(one), np.sort(other)) == pytest.approx(expected)
