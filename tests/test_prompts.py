"""Prompts as members: how they are put together, and what every member source must hold to."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import standins
from credibly.backbones.next_words import next_words
from credibly.ensemble import Ensemble, train_members
from credibly.errors import InputError, RecipeError, RunFolderError
from credibly.members import TrainingData, prompts
from credibly.members.common import drawn, labels_of
from credibly.members.prompt_texts import (
    CHAT_TEMPLATES,
    TEMPLATES,
    Example,
    Task,
    Template,
    chat_frame,
    checked_template,
    plain_frame,
)
from credibly.passes import missing_of
from credibly.progress import silent
from credibly.records import Examples
from credibly.runs import Run
from credibly.settings import BackboneSettings, PromptsSettings, parse_recipe
from credibly.training import UNWATCHED

CLASSES = ("bad", "good", "even")
SHORT = ["so: {text} was:", "{text} is", "the film {text}:"]
TASK = Task(("negative", "positive"), "sentiment of a film review")
SHOWN = [Example("Dull,\nvery dull.", "negative"), Example("A joy.", "positive")]


def made(rows=60, seed=0):
    labels = np.arange(rows) % 3
    ids = tuple(f"{seed}-{row}" for row in range(rows))
    return Examples(ids, tuple(standins.made_texts(labels, seed, words=2)), CLASSES, labels)


def recipe_of(folder, count=3, seed=0, **changed):
    members = {"source": "prompts", "count": count, "templates": SHORT, "shots": 3, **changed}
    return parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(folder), "precision": "fp32"},
            "members": members,
            "seed": seed,
        }
    )


@pytest.fixture
def trained(standin, tmp_path):
    """Return a function that makes an ensemble of prompts in a run."""

    def fit(name="run", examples=None, architecture="llama", **changed):
        run = Run(tmp_path / name)
        run.begin(recipe_of(standin(architecture, output_layer=True), **changed))
        train_members(run, run.recipe, examples or made())
        return run

    return fit


def opened(run):
    return Ensemble.open(run, run.recipe, CLASSES)


# What a prompt says


def test_examples_stand_between_the_header_and_the_text_each_answered():
    template = Template("{Thing}: {text}\n{What}:", "Say its {what}: {classes}.")
    frame = plain_frame(template, TASK, SHOWN)
    assert frame.around(" Fine\nfilm. ") == (
        "Say its sentiment: negative or positive.\n\nFilm review: Dull, very dull.\nSentiment: negative\n\n"
        "Film review: A joy.\nSentiment: positive\n\nFilm review: Fine film.\nSentiment:"
    )
    assert frame.words == TASK.words


def test_a_conversation_has_the_header_first_and_the_examples_answered():
    template = Template("{Thing}: {text}\n{What}?", "Say its {what}.")
    frame = chat_frame(template, TASK, SHOWN, lambda messages: json.dumps(messages) + "<answer>")
    messages, _, after = frame.around("Fine.").partition("<answer>")
    assert after == ""
    assert [(own["role"], own["content"]) for own in json.loads(messages)] == [
        ("user", "Say its sentiment.\n\nFilm review: Dull, very dull.\nSentiment?"),
        ("assistant", "negative"),
        ("user", "Film review: A joy.\nSentiment?"),
        ("assistant", "positive"),
        ("user", "Film review: Fine.\nSentiment?"),
    ]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "description", ["sentiment of a film review", "urgency", "The topic of each question."]
)
def test_every_default_prompt_holds_the_text_once_and_ends_for_a_word(template, description):
    header, before, after = template.filled(Task(("no", "maybe", "yes"), description))
    assert "TEXT" not in header + before + after
    assert "{" not in header + before + after
    assert after
    assert not after[-1].isspace()


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
@pytest.mark.parametrize("description", ["sentiment of a film review", "urgency"])
def test_every_default_question_holds_the_text_once_and_names_the_answers(template, description):
    task = Task(("no", "maybe", "yes"), description)
    whole = chat_frame(template, task, [], lambda messages: messages[0]["content"]).around("What a film.")
    assert whole.count("What a film.") == 1
    assert whole.count("no, maybe or yes") == 1
    assert "{" not in whole


def test_default_questions_all_differ():
    asked = {chat_frame(own, TASK, SHOWN, json.dumps).around("x") for own in CHAT_TEMPLATES}
    assert len(asked) == len(CHAT_TEMPLATES) >= 5


def test_default_prompts_all_differ():
    assert len({plain_frame(own, TASK, SHOWN).around("x") for own in TEMPLATES}) == len(TEMPLATES) >= 8


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no place", "expected a column in braces"),
        ("{text} {text}:", "once"),
        ("{classes}:", "once"),
        ("{text} {clases}:", "did you mean 'classes'"),
    ],
)
def test_wrong_templates_are_refused(template, message):
    with pytest.raises(RecipeError, match=message):
        checked_template(template)


@pytest.mark.parametrize(
    ("block", "end"),
    [("{text}\nIt was: ", "\nIt was:"), ("{text}:\n", ":\n"), ("{text}  ", ""), ("{text}\n ", "\n")],
)
def test_spaces_at_the_end_of_a_template_are_the_answers(block, end):
    frame = plain_frame(checked_template(block), TASK, SHOWN)
    assert frame.after == end
    space = "" if end.endswith("\n") else " "
    assert f"A joy.{end}{space}positive\n\n" in frame.before


def test_examples_are_drawn_in_balance_and_in_an_order_of_their_own():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 5)
    for count, expected in ((3, [1, 1, 1]), (9, [3, 3, 3]), (12, [5, 3, 4]), (18, [10, 3, 5])):
        rows = drawn(labels, count, np.random.default_rng(0))
        assert len(set(rows.tolist())) == count
        found = np.bincount(labels[rows], minlength=3)
        assert (found == expected).all() or (count == 12 and sorted(found[[0, 2]]) == [4, 5])
    orders = {tuple(drawn(labels[:4], 4, np.random.default_rng(seed))) for seed in range(8)}
    assert len(orders) > 1
    assert drawn(labels, 0, np.random.default_rng(0)).shape == (0,)


def test_a_row_has_no_class_where_it_weighs_nothing_or_several_are_as_likely():
    rows = [[0.1, 0.6, 0.3], [0.0, 0.0, 0.0], [0.4, 0.2, 0.4], [0.0, 0.0, 2.5], [1 / 3, 1 / 3, 1 / 3]]
    labels = labels_of(np.array(rows, dtype=np.float32))
    assert labels.tolist() == [1, -1, -1, 2, -1]
    assert sorted(drawn(labels, 5, np.random.default_rng(0)).tolist()) == [0, 3]
    assert labels_of(np.zeros((0, 3), np.float32)).shape == (0,)


# Members


def test_each_member_has_its_prompt_and_its_order(trained):
    run = trained(count=6)
    frames = [json.loads((run.member_folder(seed) / "prompt.json").read_text()) for seed in range(6)]
    assert len({frame["before"] for frame in frames}) == 6
    assert [frame["after"] for frame in frames] == [" was:", " is", ":"] * 2
    assert all(frame["before"].count("\n\n") == 3 for frame in frames)
    known = set(made().texts)
    shown = [
        block.removeprefix("so: ").partition(" was: ") for block in frames[0]["before"].split("\n\n")[:3]
    ]
    assert {text for text, _, _ in shown} <= known
    assert sorted(word for _, _, word in shown) == ["bad", "even", "good"]


def test_members_are_the_same_under_a_seed_and_others_under_another(trained):
    first, again, other = (trained(name, seed=seed) for name, seed in (("a", 4), ("b", 4), ("c", 40)))
    texts = made(12, seed=9)
    records = [opened(run).predict(texts).log_probs for run in (first, again, other)]
    np.testing.assert_array_equal(records[0], records[1])
    assert np.abs(records[0] - records[2]).max() > 1e-3
    for seed in (4, 5, 6):
        files = [run.member_folder(seed) / "prompt.json" for run in (first, again)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_record_is_that_of_the_model_without_each_prompts_mean_over_the_classes(trained):
    run, examples = trained(warm_up=500), made()
    ensemble = opened(run)
    members = ensemble.members[0]
    raw = np.stack([own.log_probs for own in next_words(members.model, members.frames, examples.texts)])
    raw -= np.log(np.exp(raw).sum(axis=-1, keepdims=True))
    means = [raw[:, examples.labels == own].mean(axis=1, keepdims=True) for own in range(3)]
    shifted = raw - np.mean(means, axis=0)
    expected = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    predictions = ensemble.predict(examples)
    np.testing.assert_allclose(predictions.log_probs, expected, atol=1e-5)
    assert predictions.provenance["members"].startswith("3 prompts on ")


def test_a_prediction_does_not_depend_on_the_texts_beside_it_nor_on_their_order(trained):
    ensemble, examples = opened(trained()), made(20, seed=9)
    together = ensemble.predict(examples).log_probs
    alone = np.concatenate([ensemble.predict(examples.take([row])).log_probs for row in range(20)], axis=1)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_allclose(
        ensemble.predict(examples.take(order)).log_probs, together[:, order], atol=1e-5
    )
    assert ensemble.predict(examples.take([])).shape == (3, 0, 3)


def test_a_member_is_what_it_is_without_the_others(trained):
    together = opened(trained("a", count=3, seed=5)).predict(made(10, seed=9)).log_probs
    alone = opened(trained("b", count=1, seed=6)).predict(made(10, seed=9)).log_probs
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_only_missing_members_are_made_again(trained):
    run = trained()
    content = (run.member_folder(1) / "prompt.json").read_text()
    shutil.rmtree(run.member_folder(1))
    assert missing_of(run, run.recipe) == [1]
    train_members(run, run.recipe, made())
    assert (run.member_folder(1) / "prompt.json").read_text() == content


def test_a_damaged_prompt_is_told(trained):
    run = trained()
    (run.member_folder(1) / "prompt.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"prompt\.json is damaged"):
        opened(run)


def test_a_prompt_costs_no_weights_and_its_reader_leaves_it_room(trained):
    members = opened(trained()).members[0]
    assert members.member_parameters == 0
    assert members.shared_parameters == sum(own.numel() for own in members.model.model.parameters())
    longest = max(len(frame.before + frame.after) for frame in members.frames)
    assert 64 - longest < members.reader.max_tokens < 64 - 10


# Settings that do not fit


def pool_of(standin, examples=None, chat_template=None):
    data = TrainingData((), np.zeros((0, 3), np.float32), CLASSES)
    if examples is not None:
        data = TrainingData(examples.texts, examples.targets(), CLASSES)
    settings = BackboneSettings(name=str(standin("llama", output_layer=True)), precision="fp32")
    pool = prompts.prepare(data, settings, PromptsSettings(), silent)
    pool.model.tokenizer.chat_template = chat_template
    return pool


def test_without_examples_members_are_as_many_as_prompts_at_most(standin):
    pool = pool_of(standin)
    settings = PromptsSettings(templates=SHORT, shots=8)
    assert prompts.labellers(pool, settings, range(3)).count == 3
    with pytest.raises(InputError, match="expected at most 3 members, got 4"):
        prompts.labellers(pool, settings, range(4))
    with pytest.raises(InputError, match="at most 10 members, got 11"):
        prompts.labellers(pool_of(standin, made()), PromptsSettings(shots=0), range(11))


def test_texts_of_no_weight_or_no_single_class_are_no_examples(standin):
    pool, examples = pool_of(standin, made(12)), made(12)
    targets = examples.targets()
    targets[:7] = 0
    targets[7] = 1 / 3
    pool = replace(pool, data=replace(pool.data, targets=targets))
    settings = PromptsSettings(templates=["{text} so:"], shots=12)
    for seeds in (range(1), range(1, 3)):
        for frame in prompts.labellers(pool, settings, seeds).frames:
            found = dict(block.split(" so: ") for block in frame.before.split("\n\n")[:-1])
            assert found == {examples.texts[row]: CLASSES[row % 3] for row in range(8, 12)}
    pool = replace(pool, data=replace(pool.data, targets=np.zeros_like(targets)))
    with pytest.raises(InputError, match="expected at most 3 members, got 4"):
        prompts.labellers(pool, PromptsSettings(templates=SHORT, shots=8), range(4))


def test_a_chat_template_is_used_where_that_is_asked_for(standin):
    template = (
        "{% for own in messages %}<{{ own['role'] }}>{{ own['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    settings = PromptsSettings(templates=["{text} so:"], shots=1)
    asked, plain = (
        prompts.labellers(pool_of(standin, made(), template), replace_chat(settings, chat), range(1))
        for chat in (True, False)
    )
    assert asked.frames[0].before.startswith("<user>")
    assert asked.frames[0].after == " so:<assistant>"
    assert not plain.frames[0].before.startswith("<user>")
    with pytest.raises(InputError, match="no chat template"):
        prompts.labellers(pool_of(standin, made()), replace_chat(settings, True), range(1))


def test_what_the_tokenizer_begins_with_is_not_said_twice(standin):
    template = "{{ bos_token }}{% for own in messages %}{{ own['content'] }}{% endfor %}"
    pool = pool_of(standin, chat_template=template)
    settings = PromptsSettings(templates=["so {text}:"], count=1)
    assert prompts.labellers(pool, settings, range(1)).frames[0].before == "so "


def test_words_for_classes_that_are_not_there_are_refused(standin):
    settings = PromptsSettings(templates=SHORT, label_words={"bad": "dull", "fine": "good"})
    with pytest.raises(InputError, match=r"expected a word for every class, got none for good, even"):
        prompts.labellers(pool_of(standin), settings, range(1))


def replace_chat(settings, chat):
    return settings.model_copy(update={"chat": chat})


def test_fit_finds_the_bias_on_training_texts_and_says_how_far_it_is(standin):
    told = []
    pool = pool_of(standin, made())
    members, histories = prompts.fit(
        pool,
        PromptsSettings(templates=SHORT, shots=2, warm_up=20),
        range(2),
        replace(UNWATCHED, progress=lambda done, total: told.append((done, total))),
    )
    assert told[-1] == (40, 40)
    assert members.bias.values.shape == (2, 1, 3)
    assert len(histories) == 2
    assert members.bias.values.std(axis=2).min() > 0
