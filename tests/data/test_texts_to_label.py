"""Texts to label and examples to show: labels are not read, examples fit the classes and do not leak."""

import pytest

from credibly.data.labelling import shown_examples, texts_to_label
from credibly.errors import DataError, InputError, RecordError
from credibly.records import UNKNOWN
from credibly.settings import DataSettings
from workshop import jsonl

CLASSES = ("no", "yes")


@pytest.fixture
def files(tmp_path):
    """Return a function that writes rows, and gives the settings that read them and the file."""

    def write(rows, name="texts"):
        file = jsonl(tmp_path / f"{name}.jsonl", rows)
        return DataSettings(train=str(file)), file

    return write


def rows_of(*texts, label=None):
    return [{"text": text} | ({} if label is None else {"label": label}) for text in texts]


def test_texts_come_in_order_and_of_unknown_class(files):
    settings, _ = files(rows_of("one", "two", "one"))
    texts, notes = texts_to_label(settings, CLASSES)
    assert texts.texts == ("one", "two", "one")
    assert texts.ids == ("texts-000001", "texts-000002", "texts-000003")
    assert texts.class_names == CLASSES
    assert (texts.labels == UNKNOWN).all()
    assert notes == []


def test_labels_are_ignored_whatever_they_are_and_that_is_said(files):
    settings, file = files(rows_of("one", "two", label="whatever"))
    texts, notes = texts_to_label(settings, CLASSES)
    assert (texts.labels == UNKNOWN).all()
    assert notes == [f"{file}: column 'label' is not read; texts are labelled as if nobody knew it"]


@pytest.mark.parametrize(
    ("classes", "message"), [((), "got 0"), (("no",), "got 1"), (("no", "no"), "differ")]
)
def test_two_classes_are_needed(files, classes, message):
    settings, _ = files(rows_of("one"))
    with pytest.raises(RecordError, match=message):
        texts_to_label(settings, classes)


def test_an_empty_text_is_named_by_its_line(files):
    settings, _ = files(rows_of("one", " ", "two"))
    with pytest.raises(DataError, match=r"texts\.jsonl:2: column 'text' is empty"):
        texts_to_label(settings, CLASSES)


def test_standard_input_is_refused():
    with pytest.raises(InputError, match="expected a file to label, got standard input"):
        texts_to_label(DataSettings(train="-"), CLASSES)


@pytest.fixture
def shown(files):
    """Return a function that reads examples beside texts "one" and "two"."""

    def read(rows):
        settings, _ = files(rows_of("one", "two"))
        _, file = files(rows, "examples")
        return shown_examples(file, settings, CLASSES, texts_to_label(settings, CLASSES)[0])

    return read


def test_examples_are_read_with_their_labels(shown):
    examples, notes = shown([*rows_of("good", label="yes"), *rows_of("bad", label="no")])
    assert examples.texts == ("good", "bad")
    assert examples.labels.tolist() == [1, 0]
    assert notes == []


def test_an_example_that_is_to_be_labelled_is_shown_and_told(shown):
    rows = [*rows_of("good", "TWO!", label="yes"), *rows_of("bad", label="no")]
    examples, (note,) = shown(rows)
    assert examples.texts == ("good", "TWO!", "bad")
    assert "1 row whose text also stands in examples" in note


def test_examples_that_contradict_each_other_are_refused(shown):
    rows = [*rows_of("good", "fine", label="yes"), *rows_of("Good.", label="no")]
    with pytest.raises(DataError, match=r"2 rows contradict each other.*'good', 'Good\.'"):
        shown(rows)


def test_examples_of_one_class_or_repeated_are_told(shown):
    examples, notes = shown(rows_of("good", "good!", label="yes"))
    assert len(examples) == 2
    assert notes == [
        "examples: 1 row repeats an earlier text; kept",
        "examples: none is of class no; prompts then lean towards the others",
    ]


def test_examples_of_unknown_class_are_refused(shown):
    with pytest.raises(DataError, match="unknown label 'yess' \\(did you mean 'yes'\\?\\)"):
        shown(rows_of("good", label="yess"))


def test_class_probabilities_of_the_file_are_not_read_either(files):
    shares = {"share.no": 0.2, "share.yes": 0.8}
    settings, _ = files([{"text": "one", **shares}, {"text": "two", **shares}])
    texts, _ = texts_to_label(settings.model_copy(update={"probabilities": list(shares)}), CLASSES)
    assert texts.label_probs is None
    assert (texts.labels == UNKNOWN).all()
