"""Columns to examples: what a cell means, and every problem of a file told with its line."""

import json
import time

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from pyarrow import parquet

from credibly.data import read_examples
from credibly.errors import DataError
from credibly.settings import DataSettings


def settings(**values):
    return DataSettings(train="unused.csv", **values)


def jsonl(folder, *rows, name="a.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def csv_file(folder, content, name="a.csv"):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def labels_file(folder, labels):
    return jsonl(folder, *({"text": f"text {n}", "label": label} for n, label in enumerate(labels)))


def error_of(path, class_names=None, labelled=True, **values):
    with pytest.raises(DataError) as caught:
        read_examples(path, settings(**values), class_names, labelled)
    return str(caught.value)


def test_a_csv_file_gives_texts_labels_and_numbered_ids(tmp_path):
    examples = read_examples(csv_file(tmp_path, "text,label\ngood,pos\nbad,neg\n", "films.csv"), settings())
    assert examples.ids == ("films-000001", "films-000002")
    assert examples.texts == ("good", "bad")
    assert examples.class_names == ("neg", "pos")
    assert examples.labels.tolist() == [1, 0]
    assert examples.label_probs is None
    assert examples.groups is None


@pytest.mark.parametrize(
    ("given", "names", "indices"),
    [
        ([10, 9, 2, 10], ("2", "9", "10"), [2, 1, 0, 2]),
        ([-1, 1, 0], ("-1", "0", "1"), [0, 2, 1]),
        (["1", "0", "10", "9"], ("0", "1", "9", "10"), [1, 0, 3, 2]),
        ([1.0, 0.0, 1], ("0", "1"), [1, 0, 1]),
        (["1.0", "0.0", "1"], ("0", "1"), [1, 0, 1]),
        ([True, False], ("false", "true"), [1, 0]),
        (["True", "FALSE", "true"], ("false", "true"), [1, 0, 1]),
        (["b ", " a", "b"], ("a", "b"), [1, 0, 1]),
        (["[a]", "b"], ("[a]", "b"), [0, 1]),
        (["007", "7"], ("007", "7"), [0, 1]),
        (["正面", "负面"], ("正面", "负面"), [0, 1]),
        (["9" * 30, "x"], ("9" * 30, "x"), [0, 1]),
    ],
)
def test_labels_are_integers_names_or_booleans(tmp_path, given, names, indices):
    examples = read_examples(labels_file(tmp_path, given), settings())
    assert examples.class_names == names
    assert examples.labels.tolist() == indices


def test_the_same_labels_in_any_format_give_the_same_classes(tmp_path):
    table = pyarrow.table({"text": ["a", "b"], "label": [1.0, 0.0]})
    parquet.write_table(table, tmp_path / "a.parquet")
    files = [
        csv_file(tmp_path, "text,label\na,1\nb,0\n"),
        jsonl(tmp_path, {"text": "a", "label": 1}, {"text": "b", "label": "0"}),
        tmp_path / "a.parquet",
    ]
    found = [read_examples(path, settings(), name="x") for path in files]
    assert len({examples.fingerprint() for examples in found}) == 1


def test_known_classes_keep_their_order_and_spelling(tmp_path):
    path = csv_file(tmp_path, "text,label\na,True\nb,false\n")
    examples = read_examples(path, settings(), class_names=("True", "False"))
    assert examples.class_names == ("True", "False")
    assert examples.labels.tolist() == [0, 1]


def test_an_unknown_label_at_evaluation_names_line_label_and_known_classes(tmp_path):
    path = csv_file(tmp_path, "text,label\na,positive\nb,positve\nc,neutral\n")
    message = error_of(path, class_names=("negative", "positive"))
    for part in (
        f"{path}:3",
        "'positve'",
        "did you mean 'positive'",
        f"{path}:4",
        "'neutral'",
        "negative, positive",
    ):
        assert part in message


def test_one_class_is_enough_at_evaluation_and_too_few_without_known_classes(tmp_path):
    path = csv_file(tmp_path, "text,label\na,yes\nb,yes\n")
    assert read_examples(path, settings(), class_names=("no", "yes")).labels.tolist() == [1, 1]
    message = error_of(path)
    for part in (str(path), "two classes", "'label'", "only 'yes'"):
        assert part in message


@pytest.mark.parametrize("label", [["a", "b"], ["a"], {"a": 1}, "[0, 2]", "['a']", []])
def test_several_labels_a_row_are_refused(tmp_path, label):
    message = error_of(labels_file(tmp_path, ["a", label, "b"]))
    assert ":2:" in message
    assert "multi-label is out of scope" in message


@pytest.mark.parametrize("label", [0.5, 1e300, float("inf")])
def test_a_measurement_is_no_label(tmp_path, label):
    message = error_of(labels_file(tmp_path, [0, label, 1]))
    assert ":2:" in message
    assert "not measurements" in message


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_a_missing_label_is_an_error_in_labelled_data_and_unknown_elsewhere(tmp_path, missing):
    path = labels_file(tmp_path, ["a", missing, "b"])
    message = error_of(path)
    assert f"{path}:2" in message
    assert "'label' has no label" in message
    assert read_examples(path, settings(), ("a", "b"), labelled=False).labels.tolist() == [0, -1, 1]


def test_unlabelled_data_needs_no_label_column(tmp_path):
    examples = read_examples(jsonl(tmp_path, {"text": "a"}), settings(), ("a", "b"), labelled=False)
    assert examples.labels.tolist() == [-1]
    assert "'label'" in error_of(jsonl(tmp_path, {"text": "a"}))


def test_several_text_columns_are_joined_and_empty_ones_left_out(tmp_path):
    path = jsonl(
        tmp_path,
        {"title": "T", "body": "B", "label": 0},
        {"title": "", "body": "only body", "label": 1},
        {"title": "only title", "body": None, "label": 1},
    )
    assert read_examples(path, settings(text=["title", "body"])).texts == ("T\nB", "only body", "only title")


def test_columns_are_put_together_by_a_template_or_as_a_pair(tmp_path):
    rows = [{"q": "why?", "p": "So.", "label": 0}, {"q": "", "p": "It {is}.", "label": 1}]
    path = jsonl(tmp_path, *rows, {"q": "who?", "p": None, "label": 1})
    filled = read_examples(path, settings(template="Q: {q} P: {p}")).texts
    assert filled == ("Q: why? P: So.", "Q:  P: It {is}.", "Q: who? P: ")
    assert [text[text.start : text.stop] for text in filled] == ["So.", "It {is}.", ""]
    pairs = read_examples(path, settings(text=["q", "p"], pair=True, cut="q")).texts
    assert [text.sequences for text in pairs] == [("why?", "So."), ("", "It {is}."), ("who?", "")]
    assert [text[text.start : text.stop] for text in pairs] == ["why?", "", "who?"]


@pytest.mark.parametrize("how", [{"template": "Q: {q} P: {p}"}, {"text": ["q", "p"], "pair": True}])
def test_a_row_without_any_text_is_told_though_a_template_has_words(tmp_path, how):
    path = jsonl(tmp_path, {"q": "why?", "p": "So.", "label": 0}, {"q": " ", "p": None, "label": 1})
    assert "a.jsonl:2: columns 'q', 'p' is empty" in error_of(path, **how)


def test_a_template_with_a_missing_column_is_told_with_the_nearest(tmp_path):
    path = csv_file(tmp_path, "question,passage,label\na,b,0\nc,d,1\n")
    message = error_of(path, template="{question} {passge}")
    assert message == (
        f"{path}:2: expected template column 'passge' (did you mean 'passage'?); the columns are 'question', "
        "'passage', 'label'; name the right one as data.template"
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "is empty"),
        (" \t\n", "is empty"),
        (None, "is empty"),
        (5, "a number 5"),
        (True, "a boolean True"),
        (["a", "b"], "a list"),
        ({"a": 1}, "an object"),
        ("half \ud83d", "U+D83D"),
    ],
)
def test_a_text_that_is_empty_or_no_string_is_named(tmp_path, value, told):
    path = jsonl(tmp_path, {"text": "good", "label": 0}, {"text": value, "label": 1})
    message = error_of(path)
    for part in (f"{path}:2", "'text'", told):
        assert part in message
    message.encode("utf-8")


def test_all_problems_are_told_at_once_up_to_five(tmp_path):
    rows = [
        {"text": "", "label": 0},
        {"text": "b"},
        {"label": 1},
        *({"text": 3, "label": 1} for _ in range(7)),
    ]
    path = jsonl(tmp_path, {"text": "a", "label": 1}, *rows)
    message = error_of(path)
    for line in (2, 3, 4, 5, 6):
        assert f"{path}:{line}:" in message
    assert f"{path}:7:" not in message
    assert "and 5 more" in message
    assert "fill or remove" in message
    assert "fill in the labels" in message


def test_a_row_with_two_problems_has_both_told(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "label": 1}, {"text": "", "label": [1]})
    message = error_of(path)
    assert message.count(f"{path}:2:") == 2


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    path = csv_file(tmp_path, "texts,label\na,0\nb,1\n")
    message = error_of(path)
    for part in (str(path), "text column 'text'", "did you mean 'texts'", "'label'", "data.text"):
        assert part in message
    assert "id column 'key'" in error_of(path, text="texts", id="key")
    assert "did you mean 'label'" in error_of(path, text="texts", label="labels")


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_delimiter_is_recognised_in_the_message(tmp_path, delimiter, word):
    assert word in error_of(csv_file(tmp_path, f"text{delimiter}label\na{delimiter}1\n"))


def test_a_file_without_header_gives_a_short_message(tmp_path):
    message = error_of(csv_file(tmp_path, "word " * 100_000 + ",1\nb,0\n"))
    assert "'text'" in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"text": []}, "text columns"),
        ({"text": ["text", "text"]}, "differ"),
        ({"text": ["label"]}, "both as text and as label"),
        ({"label": None}, "data.label or data.probabilities"),
        ({"probabilities": ["p.yes"]}, "every class"),
        ({"probabilities": ["p.yes", "p.yes"]}, "every class"),
    ],
)
def test_columns_that_cannot_be_are_refused(tmp_path, values, told):
    assert told in error_of(csv_file(tmp_path, "text,label\na,0\nb,1\n"), **values)


def test_ids_come_from_their_column_and_must_differ(tmp_path):
    path = jsonl(tmp_path, *({"text": "t", "label": n, "key": key} for n, key in enumerate([7, "b", 3.0])))
    assert read_examples(path, settings(id="key")).ids == ("7", "b", "3")
    again = csv_file(tmp_path, "key,text,label\na,x,0\nb,y,1\na,z,1\n")
    message = error_of(again, id="key")
    for part in (f"{again}:4", "'a'", f"{again}:2", "ids must differ"):
        assert part in message


@pytest.mark.parametrize("value", [None, "", " ", 1.5, ["a"], "\udc00"])
@pytest.mark.parametrize("setting", ["id", "group"])
def test_an_id_or_group_that_is_none_is_named(tmp_path, value, setting):
    rows = [{"text": "a", "label": 0, "key": "x"}, {"text": "b", "label": 1, "key": value}]
    message = error_of(jsonl(tmp_path, *rows), **{setting: "key"})
    assert ":2:" in message
    assert "'key'" in message
    message.encode("utf-8")


def test_groups_come_from_their_column_and_may_be_absent(tmp_path):
    path = csv_file(tmp_path, "text,label,who\na,0,1\nb,1,1\n")
    assert read_examples(path, settings(group="who")).groups == ("1", "1")
    assert read_examples(path, settings(group="whom")).groups is None


def test_probabilities_give_soft_labels_and_the_likeliest_class(tmp_path):
    path = csv_file(tmp_path, "text,p.no,p.yes\na,0.25,0.75\nb,0.9,0.1\nc,0.5,0.5\n")
    examples = read_examples(path, settings(probabilities=["p.no", "p.yes"]))
    assert examples.class_names == ("no", "yes")
    assert examples.labels.tolist() == [1, 0, -1]
    np.testing.assert_allclose(examples.label_probs, [[0.25, 0.75], [0.9, 0.1], [0.5, 0.5]])


def test_a_label_column_wins_over_the_likeliest_class(tmp_path):
    path = csv_file(tmp_path, "text,label,no,yes\na,no,0.25,0.75\nb,,0.25,0.75\n")
    assert read_examples(path, settings(probabilities=["no", "yes"])).labels.tolist() == [0, 1]


def test_a_further_file_may_hold_labels_where_the_first_held_probabilities(tmp_path):
    columns = {"label": "gold", "probabilities": ["p.no", "p.yes"]}
    path = csv_file(tmp_path, "text,gold\na,yes\nb,no\n")
    examples = read_examples(path, settings(**columns), class_names=("no", "yes"))
    assert examples.labels.tolist() == [1, 0]
    assert examples.label_probs is None
    assert "'p.no'" in error_of(path, **columns)  # of a train file columns that are not there are a slip
    path = csv_file(tmp_path, "text,gold,p.no\na,yes,0.1\n")
    assert "'p.yes'" in error_of(path, class_names=("no", "yes"), **columns)


def test_a_weight_column_says_how_much_a_row_counts(tmp_path):
    rows = [
        {"text": "a", "label": 0, "w": 2},
        {"text": "b", "label": 1, "w": "0.5"},
        {"text": "c", "label": 1, "w": 0},
    ]
    path = jsonl(tmp_path, *rows)
    examples = read_examples(path, settings(weight="w"))
    assert examples.weights.tolist() == [2.0, 0.5, 0.0]
    assert examples.take([2, 0]).weights.tolist() == [0.0, 2.0]
    assert examples.fingerprint() != read_examples(path, settings()).fingerprint()
    assert read_examples(path, settings(weight="other")).weights is None
    for wrong in (-1, "many", None, float("inf")):
        path = jsonl(tmp_path, *rows[:2], {"text": "d", "label": 0, "w": wrong})
        with pytest.raises(DataError, match=r":3: column 'w' .*weights are numbers of 0 or more"):
            read_examples(path, settings(weight="w"))


def test_nested_probabilities_are_read_in_the_order_of_known_classes(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "probabilities": {"yes": 0.75, "no": 0.25}})
    columns = ["probabilities.yes", "probabilities.no"]
    examples = read_examples(path, settings(probabilities=columns), class_names=("no", "yes"))
    np.testing.assert_allclose(examples.label_probs, [[0.25, 0.75]])
    assert examples.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("nan", "1", "holds nan"),
        ("inf", "0", "holds inf"),
        ("-0.1", "1.1", "holds -0.1"),
        ("0.4", "0.5", "sum to 0.9"),
        ("0.5", "0.502", "sum to 1.002"),
        ("3", "-2", "holds 3.0"),
        ("", "1", "is empty"),
        ("much", "1", "'much'"),
        ('"0,5"', "0.5", "decimal point"),
    ],
)
def test_probabilities_that_are_none_are_named(tmp_path, first, second, told):
    path = csv_file(tmp_path, f"text,no,yes\na,0.5,0.5\nb,{first},{second}\n")
    message = error_of(path, probabilities=["no", "yes"])
    assert f"{path}:3:" in message
    assert told in message


def test_json_nan_and_boolean_probabilities_are_named(tmp_path):
    for value, told in ((float("nan"), "nan"), (True, "a boolean"), ([0.5], "a list"), (10**400, "number")):
        path = jsonl(tmp_path, {"text": "a", "no": value, "yes": 0.5})
        message = error_of(path, probabilities=["no", "yes"])
        assert told in message
        assert "'no'" in message


def test_probabilities_of_other_classes_than_the_known_are_refused(tmp_path):
    path = csv_file(tmp_path, "text,p.no,p.yes\na,0.5,0.5\n")
    message = error_of(path, class_names=("no", "maybe"), probabilities=["p.no", "p.yes"])
    assert "no, maybe" in message


def test_an_error_in_probabilities_within_rounding_is_none(tmp_path):
    path = csv_file(tmp_path, "text,a,b,c\nx,0.3333,0.3333,0.3333\n")
    probs = read_examples(path, settings(probabilities=["a", "b", "c"])).label_probs
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)


SCRIPTS = {
    "chinese": "这部电影“非常好看”，推荐！",
    "arabic": "هذا الفيلم رائع، أنصح به",
    "hindi": "यह फ़िल्म बहुत अच्छी है।",
    "emoji": "👍🏽 loved it 👨‍👩‍👧 ❤️",
    "thai": "หนังสนุกมาก",
    "quotes": 'she said "no", twice',
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_texts_of_every_script_come_back_unchanged(tmp_path, suffix):
    import csv

    path = tmp_path / f"a{suffix}"
    records = [(text, name) for name, text in SCRIPTS.items()]
    if suffix == ".jsonl":
        lines = (json.dumps({"text": text, "label": name}, ensure_ascii=False) for text, name in records)
        path.write_text("\n".join(lines), encoding="utf-8")
    elif suffix == ".parquet":
        parquet.write_table(pyarrow.table({"text": list(SCRIPTS.values()), "label": list(SCRIPTS)}), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, delimiter="," if suffix == ".csv" else "\t")
            writer.writerows([("text", "label"), *records])
    examples = read_examples(path, settings())
    assert examples.texts == tuple(SCRIPTS.values())
    assert [examples.class_names[label] for label in examples.labels] == list(SCRIPTS)


def test_a_text_of_a_million_characters_is_kept(tmp_path):
    text = "好 e\u0301" * 250_000
    path = jsonl(tmp_path, {"text": text, "label": 0}, {"text": "b", "label": 1})
    assert read_examples(path, settings()).texts[0] == text


@pytest.mark.slow
def test_sixty_seven_thousand_rows_load_in_two_seconds(tmp_path):
    path = tmp_path / "a.jsonl"
    line = '{"text": "a phrase of some ten words or so, as in sst", "label": %d}\n'
    path.write_text("".join(line % (number % 2) for number in range(67_349)), encoding="utf-8")
    start = time.process_time()
    examples = read_examples(path, settings())
    assert len(examples) == 67_349
    assert time.process_time() - start < 2


cells = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        " ",
        "a",
        "0",
        "[1]",
        "\ud800",
        "\x00",
        [],
        ["a"],
        {},
    ]
)


@settings_of_hypothesis(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["text", "label", "p"]), cells), min_size=1, max_size=5))
def test_any_json_rows_give_examples_or_a_data_error(tmp_path_factory, rows):
    path = jsonl(tmp_path_factory.mktemp("any"), *rows)
    try:
        outcome = read_examples(path, settings())
    except DataError as error:
        outcome = str(error)
        outcome.encode("utf-8")
    assert outcome
