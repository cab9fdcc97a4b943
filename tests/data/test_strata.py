"""Ranges of lengths: about equally many texts in each, and as many as there are texts for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.data.strata import MOST_STRATA, TEXTS_A_STRATUM, Strata
from credibly.errors import InputError


def texts_of(lengths):
    return ["a" * length for length in lengths]


def test_without_edges_there_is_one_range():
    assert Strata().count == 1
    assert Strata().places(texts_of([0, 5, 900])).tolist() == [0, 0, 0]


def test_a_text_as_long_as_an_edge_is_below_it():
    strata = Strata((3.0, 10.0))
    assert strata.count == 3
    assert strata.places(texts_of([0, 3, 4, 10, 11])).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (249, 1), (250, 2), (999, 7), (1000, 8), (5000, 8)])
def test_there_are_as_many_ranges_as_texts_allow(rows, count):
    lengths = np.random.default_rng(0).permutation(rows) + 1
    strata = Strata.of(texts_of(lengths))
    assert strata.count == count == max(1, min(MOST_STRATA, rows // TEXTS_A_STRATUM))
    held = np.bincount(strata.places(texts_of(lengths)), minlength=count)
    assert held.max() - held.min() <= 1


@given(st.lists(st.integers(0, 4), min_size=300, max_size=400))
def test_texts_of_few_lengths_leave_no_range_empty(lengths):
    texts = texts_of(lengths)
    strata = Strata.of(texts)
    assert set(strata.places(texts)) == set(range(strata.count))
    assert Strata.of(texts[::-1]) == strata


@pytest.mark.parametrize("lengths", [[5, 9], [5, 9, 9], [1, 2, 40], [7]])
@pytest.mark.parametrize("times", [125, 250, 400])
def test_texts_of_two_or_three_lengths_leave_no_range_empty(lengths, times):
    texts = texts_of(lengths * times)
    strata = Strata.of(texts)
    assert set(strata.edges) <= set(lengths)
    assert np.bincount(strata.places(texts), minlength=strata.count).min() >= min(len(texts), times)


def test_edges_that_do_not_rise_are_refused():
    with pytest.raises(InputError, match="rising edges"):
        Strata((3.0, 3.0))
