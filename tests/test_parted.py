"""Texts in parts: a template's or a pair's whole, and the one part that gives way, wherever they travel."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.data.text import text_key
from credibly.errors import RecipeError
from credibly.parted import PartedText, columns_of, filled, on_one_line, paired
from credibly.records import Examples, concatenate
from credibly.settings import Recipe, parse_recipe, recipe_text, with_columns

some_text = st.text(max_size=30)
TEMPLATE = "Question: {question} Context: {passage}"


def examples_of(texts, prefix="row"):
    ids = tuple(f"{prefix}{number}" for number in range(len(texts)))
    return Examples(ids, tuple(texts), ("no", "yes"), np.zeros(len(texts), dtype=np.int64))


def parts_of(text):
    return text.start, text.stop, text.boundary, text.sequences


def data_of(**values):
    return parse_recipe({"data": {"train": "a.csv", **values}}).data


# The whole and its parts


def test_a_template_is_filled_and_its_last_column_gives_way():
    text = filled(TEMPLATE, {"question": "why?", "passage": "Because."}, "passage")
    assert text == "Question: why? Context: Because."
    assert text[text.start : text.stop] == "Because."
    assert text.sequences == (text,)


@given(some_text, some_text, some_text)
def test_a_template_gives_what_format_gives(question, passage, more):
    template = "{{q}} {question}{passage}\n{more} }}{question}"
    cells = {"question": question, "passage": passage, "more": more}
    for cut in ("passage", "more"):
        text = filled(template, cells, cut)
        assert text == template.format(**cells)
        assert text[text.start : text.stop] == cells[cut]


@given(some_text, some_text, st.booleans(), st.integers(0, 30))
def test_a_shortened_pair_keeps_one_text_and_the_beginning_of_the_other(first, second, cut_first, characters):
    text = paired(first, second, cut_first).shortened(characters)
    expected = (first[:characters], second) if cut_first else (first, second[:characters])
    assert text.sequences == expected
    assert parts_of(text) == parts_of(paired(*expected, cut_first))


@given(some_text, some_text, some_text, st.integers(0, 30))
def test_a_shortened_template_keeps_all_but_the_end_of_one_part(before, passage, after, characters):
    whole = PartedText(before + passage + after, len(before), len(before) + len(passage))
    text = whole.shortened(characters)
    assert text == before + passage[:characters] + after
    assert text[text.start : text.stop] == passage[:characters]


@given(st.text("ab \n\t", max_size=8), st.text("cd \n", max_size=12), st.text("ef \n", max_size=8))
def test_on_one_line_the_same_part_gives_way(before, passage, after):
    text = PartedText(before + passage + after, len(before), len(before) + len(passage))
    line = on_one_line(text)
    assert line == " ".join(text.split())
    assert line[line.start : line.stop].split() == passage.split()
    assert line[: line.start].split() == before.split()
    whole = on_one_line(str(text))
    assert (whole, whole.start, whole.stop) == (line, 0, len(line))


def test_a_pair_keeps_what_gives_way_of_its_first_text_and_all_of_that_after_it():
    first = filled(TEMPLATE, {"question": "why?", "passage": "So it is."}, "question")
    text = paired(first, "True.", cut_first=True)
    assert text[text.start : text.stop] == "why?"
    assert text.wider == (0, len(first))
    short = text.shortened(2)
    assert short.sequences == ("Question: wh Context: So it is.", "True.")
    assert short.wider == (0, len(first) - 2)
    assert pickle.loads(pickle.dumps(short)).wider == short.wider


# Where they travel


@pytest.mark.parametrize(
    "text", [filled(TEMPLATE, {"question": "a", "passage": "b"}, "passage"), paired("a", "b")]
)
def test_parts_survive_all_that_is_done_to_examples(text):
    examples = concatenate([examples_of(["other", text]), examples_of([text], "more")]).take([1, 2])
    for same in (*examples.texts, copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert isinstance(same, PartedText)
        assert same == text
        assert parts_of(same) == parts_of(text)


def test_equal_words_in_other_parts_are_other_data():
    texts = ["a\nb", paired("a", "b"), paired("a", "b", cut_first=True), PartedText("a\nb", 0, 1)]
    assert len({examples_of([text]).fingerprint() for text in texts}) == 4
    assert examples_of([paired("a", "b")]).fingerprint() == examples_of([paired("a", "b")]).fingerprint()


def test_the_leak_check_compares_the_whole_text():
    assert text_key(paired("One", "two.")) == text_key("one TWO")
    assert text_key(paired("one", "two")) != text_key(paired("one", "three"))


# The recipe


def test_a_template_names_the_text_columns():
    data = data_of(template="{title}: {body} {{sic}} {title}")
    assert (data.text, data.cut_column) == (["title", "body"], "body")
    assert data_of(template="{a} {b}", text=["b", "a"]).text == ["a", "b"]
    assert data_of(template="{a} {b}", cut="a").cut_column == "a"


def test_without_template_or_pair_no_column_is_cut():
    assert (data_of().text, data_of().cut_column) == (["text"], None)
    assert (data_of(text=["a", "b"]).cut_column, data_of(text=["a", "b"], pair=True).cut_column) == (
        None,
        "b",
    )


@pytest.mark.parametrize("values", [{"template": TEMPLATE}, {"text": ["b", "a"], "pair": True, "cut": "b"}])
def test_templates_and_pairs_come_back_from_yaml(tmp_path, values):
    import yaml

    recipe = parse_recipe({"data": {"train": "a.csv", **values}})
    assert parse_recipe(yaml.safe_load(recipe_text(recipe))) == recipe
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"template": "{0}"},
            "data.template: expected plain column names in braces, such as {text}, got '{0}'",
        ),
        ({"template": "{}"}, "got '{}'"),
        ({"template": "{a!r}"}, "got '{a!r}'"),
        ({"template": "{a:>3}"}, "got '{a:>3}'"),
        ({"template": "{a:{b}}"}, "got '{a:{b}}'"),
        ({"template": "{a.b}"}, "got '{a.b}'"),
        ({"template": "{a[0]}"}, "got '{a[0]}'"),
        ({"template": "{ a }"}, "got '{ a }'"),
        ({"template": "{a"}, "data.template: expected '}' before end of string; write {{ and }}"),
        ({"template": "a}"}, "data.template: Single '}' encountered"),
        ({"template": "{{a}}"}, "expected a column in braces, such as {text}, got none in '{{a}}'"),
        ({"template": ""}, "expected a column in braces"),
        (
            {"template": "{a} {b}", "text": ["a", "c"]},
            "data.text: expected the columns of the template (a, b), got a, c; leave data.text out",
        ),
        ({"template": "{a} {b}", "text": ["a"]}, "expected the columns of the template (a, b), got a;"),
        (
            {"template": "{a} {b}", "pair": True},
            "data.pair: expected a template or a pair, got both; leave one of them out",
        ),
        ({"pair": True}, "data.pair: expected two text columns, got text"),
        ({"text": ["a", "b", "c"], "pair": True}, "data.pair: expected two text columns, got a, b, c"),
        ({"cut": "text"}, "data.cut: expected a template or a pair of which to cut a column, got neither"),
        (
            {"template": TEMPLATE, "cut": "pasage"},
            "data.cut: expected one of the text columns (question, passage), got 'pasage' "
            "(did you mean 'passage'?)",
        ),
        ({"template": "{p} {q} {p}", "cut": "p"}, "data.cut: 'p' is what is cut"),
        ({"template": "{p} {p}"}, "data.cut: 'p' is what is cut of texts that are too long"),
    ],
)  # fmt: skip
def test_what_is_no_template_or_pair_is_told(values, told):
    with pytest.raises(RecipeError) as caught:
        data_of(**values)
    assert told in str(caught.value)


@given(st.text(alphabet="{}ab!:.0 ", max_size=12))
def test_every_string_is_a_template_that_fills_or_is_refused(template):
    try:
        columns = columns_of(template)
    except RecipeError:
        return
    cells = {column: f"<{column}>" for column in columns}
    assert columns
    assert filled(template, cells, columns[-1]) == template.format(**cells)


def test_columns_that_do_not_go_with_the_template_are_refused_later_too():
    with pytest.raises(
        RecipeError, match=r"expected the columns of the template \(question, passage\), got a"
    ):
        with_columns(data_of(template=TEMPLATE), {"text": ["a"]})
    assert with_columns(data_of(text=["a", "b"], pair=True), {"text": ["c", "d"]}).cut_column == "d"
