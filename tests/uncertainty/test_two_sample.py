"""The test of two sets of embeddings: by its definition, and at the level that it promises."""

import numpy as np
import pytest
from scipy.stats import binom

from credibly.errors import InputError
from credibly.uncertainty.unknown import two_sample
from credibly.uncertainty.unknown.distances import Embedded
from credibly.uncertainty.unknown.two_sample import two_sample_test


def both(rows):
    """Texts that look the same at both depths."""
    return Embedded(rows, rows)


def by_definition(first, second):
    """The unbiased squared discrepancy, pair by pair, as Gretton et al. write it."""
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
    pooled = np.concatenate([first, second])
    pairs = [((a - b) ** 2).sum() for n, a in enumerate(pooled) for b in pooled[n + 1 :]]
    scale = 2 * np.median(pairs)

    def mean(one, other, same):
        values = [
            np.exp(-((a - b) ** 2).sum() / scale)
            for n, a in enumerate(one)
            for m, b in enumerate(other)
            if not (same and n == m)
        ]
        return np.mean(values)

    return mean(first, first, True) + mean(second, second, True) - 2 * mean(first, second, False)


def test_the_discrepancy_is_that_of_its_definition():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(9, 4)), random.normal(0.5, 1, (6, 4))
    found = two_sample_test(both(first), both(second), permutations=200)
    assert found.discrepancy == pytest.approx(by_definition(first, second), abs=1e-12)
    assert found.rows == (9, 6)
    middle = random.normal(size=(9, 3)), random.normal(2, 1, (6, 3))
    found = two_sample_test(Embedded(first, middle[0]), Embedded(second, middle[1]), permutations=2)
    expected = (by_definition(first, second) + by_definition(*middle)) / 2
    assert found.discrepancy == pytest.approx(expected, abs=1e-12)


def test_the_p_value_counts_the_permutations_that_are_as_large(monkeypatch):
    """All ways to choose two of four rows, instead of draws: p is a share of them."""
    rows = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    found = two_sample_test(both(rows[:2]), both(rows[2:]), permutations=6000)
    # Of the six ways to part the four rows, two are as far apart: this one and its mirror image.
    assert found.p == pytest.approx(2 / 6, abs=0.03)
    monkeypatch.setattr(two_sample, "CHUNK", 7)
    assert two_sample_test(both(rows[:2]), both(rows[2:]), permutations=6000).p == found.p


def test_sets_that_differ_are_told_apart_and_equal_ones_are_not():
    random = np.random.default_rng(1)
    first, second = random.normal(size=(150, 8)), random.normal(size=(120, 8))
    assert two_sample_test(both(first), both(second)).p > 0.05
    assert two_sample_test(both(first), both(second + 1.0)).p == pytest.approx(0.001)
    assert two_sample_test(both(np.ones((5, 3))), both(np.ones((4, 3)))).p == 1


def test_many_rows_are_drawn_from_and_few_are_none():
    random = np.random.default_rng(2)
    rows = random.normal(size=(50, 4))
    whole = both(rows)
    assert two_sample_test(whole, both(rows[:20] + 1), most_rows=30).rows == (30, 20)
    assert two_sample_test(whole.take(slice(1)), whole) is None
    assert two_sample_test(whole.take(slice(2)), whole).rows == (2, 50)
    with pytest.raises(InputError, match="expected finite embeddings"):
        two_sample_test(whole, both(np.full((3, 4), np.inf)))


@pytest.mark.slow
@pytest.mark.parametrize(("N", "K"), [(60, 60), (200, 12)])
def test_the_level_holds(N, K):
    """Of 600 pairs of sets from one mixture at most 5 % are rejected, but for chance; and about so many."""
    rejected = 0
    for seed in range(600):
        random = np.random.default_rng(seed)
        rows = random.normal(size=(N + K, 6)) + 2 * np.eye(6)[random.integers(0, 3, N + K)]
        rejected += two_sample_test(both(rows[:N]), both(rows[N:]), permutations=99, seed=seed).p <= 0.05
    assert binom.ppf(0.005, 600, 0.05) <= rejected <= binom.ppf(0.995, 600, 0.05)
