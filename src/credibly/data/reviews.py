"""The packaged `reviews`: texts that about 20 people each rated from -4 to +4.

Movie reviews make train, calibration and test; tweets, Amazon reviews and newspaper editorials are other
domains. The label is the sign of the mean rating; the label probability is the share of people who rated
above zero, zeros counted half. Hutto & Gilbert 2014, https://ojs.aaai.org/index.php/ICWSM/article/view/14550
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from credibly.assets import fetch
from credibly.data.leaks import Parts
from credibly.data.text import text_key
from credibly.errors import AssetError
from credibly.records import UNKNOWN, Examples

REVIEWS = "reviews"
CLASS_NAMES = ("negative", "positive")
MOVIES = "movieReviewSnippets"
DOMAINS = {"tweets": "tweets", "amazon": "amazonReviewSnippets", "editorials": "nytEditorialSnippets"}
TRAIN_ROWS = 5500
CALIBRATION_ROWS = 2500
"""As many as there are test rows: a temperature of 1,500 rows errs more than 2,600 test rows forgive."""


def load_reviews() -> Parts:
    """Return the packaged reviews, fetching them on first use.

    Raises:
        AssetError: they cannot be had.
    """
    folder = fetch(REVIEWS)
    train, calibration, test = movie_splits(read_domain(folder, MOVIES, "movie"))
    names = {"tweets": "tweet", "amazon": "amazon", "editorials": "editorial"}
    shift = {name: read_domain(folder, files, names[name]) for name, files in DOMAINS.items()}
    return Parts(train, calibration, test, None, shift)


def movie_splits(movies: Examples) -> tuple[Examples, Examples, Examples]:
    """Cut the movie texts by a hash of the text alone, so that figures compare across versions and seeds.

    Texts that are equal but for case, spaces and punctuation stay together; so a split may hold a row or
    two more than its round number.
    """
    keys = [text_key(text) for text in movies.texts]
    order = sorted(range(len(keys)), key=lambda index: (keys[index], index))
    first = cut_after(order, keys, TRAIN_ROWS)
    second = cut_after(order, keys, first + CALIBRATION_ROWS)
    bounds = ((0, first), (first, second), (second, len(order)))
    train, calibration, test = (movies.take(sorted(order[low:high])) for low, high in bounds)
    return train, calibration, test


def cut_after(order: list[int], keys: list[str], place: int) -> int:
    """Return the first place from here on that parts no equal texts."""
    while 0 < place < len(order) and keys[order[place]] == keys[order[place - 1]]:
        place += 1
    return min(place, len(order))


def read_domain(folder: Path, files: str, prefix: str) -> Examples:
    """Return one domain's texts with labels and label probabilities, in the file's order."""
    texts = {cells[0]: cells[2] for cells in fields(folder / f"{files}_GroundTruth.txt", 3)}
    ratings = {cells[0]: cells[3] for cells in fields(folder / f"{files}_anonDataRatings.txt", 4)}
    if texts.keys() != ratings.keys():
        raise AssetError(f"{folder}: the texts and the ratings of {files} do not have the same ids")
    people = [np.asarray(json.loads(ratings[name])) for name in texts]
    positive = np.asarray([((votes > 0) + 0.5 * (votes == 0)).mean() for votes in people])
    signs = np.sign([votes.sum() for votes in people])
    return Examples(
        ids=tuple(f"{prefix}-{name}" for name in texts),
        texts=tuple(texts.values()),
        class_names=CLASS_NAMES,
        labels=np.where(signs == 0, UNKNOWN, signs > 0).astype(np.int64),
        label_probs=np.stack([1 - positive, positive], axis=1),
    )


def fields(file: Path, count: int) -> Iterator[list[str]]:
    """Yield the fields of each line, stripped; there is no quoting, and a byte order mark may lead."""
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            cells = [cell.strip() for cell in line.split("\t", count - 1)]
            if len(cells) != count:
                raise AssetError(f"{file}:{number}: expected {count} fields, got {len(cells)}")
            yield cells
