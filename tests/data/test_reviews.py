"""The packaged reviews: fixed splits, signs and shares of the raters."""

import numpy as np
import pytest

from credibly.data import load_splits
from credibly.data.reviews import movie_splits, read_domain
from credibly.errors import AssetError
from credibly.records import Examples
from credibly.settings import DataSettings


def domain(folder, texts, ratings):
    (folder / "x_GroundTruth.txt").write_bytes(texts)
    (folder / "x_anonDataRatings.txt").write_bytes(ratings)
    return folder


def test_labels_are_signs_and_zeros_count_half(tmp_path):
    texts = b'1\t0.5\tQuoted "so" and on\r\n2\t-1.0\tBad\ttabbed\r\n3\t0\tEven\r\n4\t0.25\tNearly'
    ratings = b"\xef\xbb\xbf1\t0.5\t1.1\t[2, 0, 0, 0]\r\n3\t0\t1\t[1, -1]\r\n"
    ratings += b"2\t-1\t0\t[-1, -1]\r\n4\t0.25\t1\t[4, -1, -1, -1]\r\n"
    examples = read_domain(domain(tmp_path, texts, ratings), "x", "movie")
    assert examples.ids == ("movie-1", "movie-2", "movie-3", "movie-4")
    assert examples.texts == ('Quoted "so" and on', "Bad\ttabbed", "Even", "Nearly")
    assert examples.labels.tolist() == [1, 0, -1, 1]
    np.testing.assert_allclose(examples.label_probs[:, 1], [0.625, 0.0, 0.5, 0.25])


def test_texts_without_ratings_are_told(tmp_path):
    with pytest.raises(AssetError, match="same ids"):
        read_domain(domain(tmp_path, b"1\t0\ta\n", b"2\t0\t1\t[0]\n"), "x", "movie")
    with pytest.raises(AssetError, match=":1: expected 3 fields"):
        read_domain(domain(tmp_path, b"1\t0\n", b"1\t0\t1\t[0]\n"), "x", "movie")


def test_the_cut_of_movies_is_fixed_and_parts_no_equal_texts():
    texts = tuple(f"Film {number // 2}{'!' * (number % 2)}" for number in range(17_001))
    movies = Examples(tuple(map(str, range(17_001))), texts, ("a", "b"), np.zeros(17_001, dtype=int))
    parts = movie_splits(movies)
    assert sum(map(len, parts)) == 17_001
    assert 5500 <= len(parts[0]) <= 5501
    assert 2500 <= len(parts[1]) <= 2501
    names = [{text.rstrip("!") for text in part.texts} for part in parts]
    assert sum(map(len, names)) == 8501
    backwards = movie_splits(movies.take(np.arange(17_001)[::-1]))
    assert [set(part.ids) for part in backwards] == [set(part.ids) for part in parts]


@pytest.mark.assets
def test_the_packaged_reviews_have_their_known_numbers():
    splits = load_splits(DataSettings(train="reviews"), seed=5, members=10)
    counts = {name: len(part) for name, part in splits.named().items()}
    assert counts == {
        "train": 5500, "calibration": 2500, "test": 2605, "tweets": 4200, "amazon": 3707, "editorials": 5190,
    }  # fmt: skip
    assert "amazon: dropped 1 row whose text also stands in test" in splits.notes
    movies = [splits.train, splits.calibration, splits.test]
    assert sum(int((part.labels == -1).sum()) for part in movies) == 37
    positive = sum(int((part.labels == 1).sum()) for part in movies)
    assert positive / 10_605 == pytest.approx(0.4943, abs=1e-4)
    assert splits.train.ids[:2] == ("movie-1", "movie-4")
    assert splits.train.class_names == ("negative", "positive")
    assert all(part.label_probs is not None for part in splits.named().values())
    assert splits.test.fingerprint() == load_splits(DataSettings(train="reviews"), seed=6).test.fingerprint()
