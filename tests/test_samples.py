"""Sampled answers: drawn as with the whole prompt, whatever stands beside a text, and read as votes."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import standins
from credibly.backbones.language_model import load_language_model
from credibly.backbones.outline import Texts, outline
from credibly.backbones.prompted import Frame, Prompted
from credibly.backbones.sampled_answers import (
    Answer,
    Drawing,
    answer_of,
    chances_of,
    end_tokens,
    sampled_answers,
)
from credibly.cli.main import app
from credibly.ensemble import Ensemble, train_members
from credibly.errors import InputError, RunFolderError
from credibly.members import LABELLERS, SOURCES, samples
from credibly.members.answers import checked_names, named_class, words_of
from credibly.members.common import count_weights
from credibly.passes import missing_of
from credibly.records import Examples, Predictions, normalised_log_probs
from credibly.runs import Run
from credibly.settings import BackboneSettings, SamplesSettings, parse_recipe
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.numerics import votes_of
from credibly.workflows import distil, label, load
from standins import WORDS
from workshop import CLASSES, jsonl, made_rows

pytestmark = pytest.mark.slow

FRAME = Frame("a film: dull\nit was: bad\n\na film: ", "\nit was:", ("bad", "good"))
TEXTS = ["good film", "the plot is so very dull", "film", "not bad", "great story with music", "even"]
DRAWING = Drawing(temperature=1.3, tokens=5)
SEEDS = (3, 4, 11)
NAMES = checked_names(["spam", "not spam", "other"])


@pytest.fixture(scope="module")
def model_of(standin):
    """Return a function that loads a stand-in."""

    def load(architecture="llama", token_budget=4096, max_tokens=None):
        return load_language_model(BackboneSettings(
            name=str(standin(architecture, output_layer=True)), precision="fp32",
            token_budget=token_budget, max_tokens=max_tokens,
        ))  # fmt: skip

    return load


def one_by_one(folder, frame, texts, seeds, drawing):
    """Draw the same one text, seed and token at a time, each with all before it, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for seed in seeds:
        own = []
        for text in texts:
            ids, said = tokenizer(frame.before + text + frame.after)["input_ids"], []
            (chances,) = chances_of(text, [seed], drawing.tokens)
            while len(said) < drawing.tokens and tokenizer.eos_token_id not in said:
                with torch.no_grad():
                    logits = model(torch.tensor([[*ids, *said]])).logits[0, -1].double()
                shares = torch.softmax(logits / drawing.temperature, dim=0).cumsum(0).numpy()
                said.append(int(np.searchsorted(shares, chances[len(said)] * shares[-1], side="right")))
            own.append(answer_of(tokenizer, said, frozenset([tokenizer.eos_token_id])))
        found.append(own)
    return found


# Drawing


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "gemma2", "gemma3_text", "qwen3"])
@pytest.mark.parametrize("token_budget", [1, 200])
def test_answers_are_drawn_as_with_the_whole_prompt(architecture, token_budget, model_of, standin):
    model = model_of(architecture, token_budget)
    # Those whose output layer is their large word embeddings are very sure.
    drawing = Drawing(50.0 if architecture in ("gpt2", "gemma2", "gemma3_text") else 1.3, 5)
    found, cut = sampled_answers(model, FRAME, TEXTS, SEEDS, drawing)
    assert found == one_by_one(standin(architecture, output_layer=True), FRAME, TEXTS, SEEDS, drawing)
    assert cut == 0
    assert len({answer.text for member in found for answer in member}) > 2 * len(TEXTS)


def test_an_answer_does_not_depend_on_the_texts_and_the_draws_beside_it(model_of):
    model = model_of()
    together, _ = sampled_answers(model, FRAME, TEXTS, SEEDS, DRAWING)
    for row, text in enumerate(TEXTS):
        ((alone,),), _ = sampled_answers(model, FRAME, [text], SEEDS[1:2], DRAWING)
        assert alone == together[1][row]
    turned, _ = sampled_answers(model, FRAME, TEXTS[::-1], SEEDS[::-1], DRAWING)
    assert turned == [member[::-1] for member in together[::-1]]
    assert sampled_answers(model, FRAME, [], SEEDS, DRAWING)[0] == [[], [], []]


def test_tokens_come_as_often_as_the_model_has_them_at_that_temperature(model_of, standin):
    """Of 3,000 first tokens the shares are those of the softmax, at two temperatures."""
    folder = standin("llama", output_layer=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        ids = tokenizer(FRAME.before + "good film" + FRAME.after, return_tensors="pt")["input_ids"]
        logits = model(ids).logits[0, -1].double()
    for temperature in (0.5, 2.0):
        answers, _ = sampled_answers(model_of(), FRAME, ["good film"], range(3000), Drawing(temperature, 1))
        wanted = torch.softmax(logits / temperature, dim=0).numpy()
        found = [answer.text for (answer,) in answers]
        # Letters and their continuations may look alike once decoded; words do not.
        words = [(found.count(word) / 3000, wanted[tokenizer.convert_tokens_to_ids(word)]) for word in WORDS]
        shares, expected = np.array(words).T
        assert expected.sum() > 0.1
        assert (np.abs(shares - expected) < 4 * np.sqrt(expected / 3000) + 1e-3).all()


def test_near_zero_all_answers_are_the_likeliest(model_of):
    found, _ = sampled_answers(model_of(), FRAME, TEXTS, range(6), Drawing(1e-4, 3))
    assert all(member == found[0] for member in found)


def test_draws_that_begin_alike_are_read_once(model_of, monkeypatch):
    """At a temperature of near zero ten draws of a text are one row, and no longer answers cost more rows."""
    rows, read_on = [], Prompted.read_on

    def noted(prompted, ids, *further, **named):
        rows.append(len(ids))
        return read_on(prompted, ids, *further, **named)

    monkeypatch.setattr(Prompted, "read_on", noted)
    sampled_answers(model_of(), FRAME, TEXTS, range(10), Drawing(1e-4, 3))
    assert sum(rows) <= 2 * len(TEXTS)
    rows.clear()
    sampled_answers(model_of(), FRAME, TEXTS, range(10), Drawing(5.0, 3))
    assert sum(rows) > 4 * len(TEXTS)
    assert max(rows) <= len(TEXTS)


def test_a_text_that_is_too_long_is_cut_and_leaves_room_for_the_answer(model_of):
    model = model_of()
    found, cut = sampled_answers(model, FRAME, ["good film " * 200, "good"], SEEDS, DRAWING)
    assert cut == 1
    assert len(found[0]) == 2
    with pytest.raises(InputError, match="leaves no room for a text"):
        sampled_answers(model_of(max_tokens=30), FRAME, ["good"], SEEDS, DRAWING)


def test_an_answer_ends_with_its_first_line_or_the_models_own_end(model_of):
    model = model_of()

    class Lines:
        def decode(self, tokens, skip_special_tokens):
            return "".join({1: "good", 2: "\n", 4: " film"}[token] for token in tokens)

    ends = end_tokens(model)
    assert ends == {model.tokenizer.eos_token_id}
    assert answer_of(Lines(), [2, 1, 4, 2, 1], ends) == Answer("good film", True)
    assert answer_of(Lines(), [1, 3], ends) == Answer("good", True)
    assert answer_of(Lines(), [2, 1, 4], ends) == Answer("good film", False)
    assert answer_of(Lines(), [2, 2], ends) == Answer("", False)


def test_chances_are_a_texts_and_a_seeds_own():
    first = chances_of("a text", [0, 1], 4)
    assert first.shape == (2, 4)
    np.testing.assert_array_equal(chances_of("a text", [1, 0], 4)[::-1], first)
    assert len({first[0, 0], first[1, 0], chances_of("another", [0], 4)[0, 0]}) == 3
    np.testing.assert_array_equal(chances_of("a text", [0], 2), first[:1, :2])


# Reading


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("spam", 0), (" Spam.", 0), ("SPAM!!", 0), ("It's spam, yes", 0), ("spam spam", 0),
        ("not spam", 1), ("Not-Spam", 1), ("this is not spam.", 1),
        ("spam and not spam", None), ("spam or other", None), ("spammer", None), ("antispam", None),
        ("", None), ("?", None), ("ham", None), ("no spa m", None),
    ],
)  # fmt: skip
def test_an_answer_is_the_class_that_it_names_by_whole_words(answer, expected):
    assert named_class(answer, True, NAMES) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Not other.", None), ("It is not an other", None), ("non-other", None), ("No other", None),
        ("never other!", None), ("It isn't other", None), ("not other but spam", 0), ("spam, not other", 0),
        ("Not so, other", 2), ("not spam", 1), ("not not spam", None), ("not spam, other", None),
        ("It cannot be other", None), ("not really an other", None), ("Answer t other", 2),
    ],
)  # fmt: skip
def test_a_name_that_is_denied_is_no_vote_for_it(answer, expected):
    assert named_class(answer, True, NAMES) == expected


def test_a_denial_that_is_a_class_denies_no_other():
    names = checked_names(["no", "yes"])
    answers = ("No.", "no, yes", "never yes", "Not no", "yes no")
    found = [named_class(answer, True, names) for answer in answers]
    assert found == [0, None, None, None, None]


def test_a_last_word_that_may_go_on_does_not_count():
    assert named_class("other", False, NAMES) is None
    assert named_class("other ", False, NAMES) == 2
    assert named_class("it is not spam", False, NAMES) is None
    assert named_class("other one", False, NAMES) == 2


@given(strategies.lists(strategies.sampled_from(["spam", "not", "other", "so", "."]), max_size=8))
def test_case_and_punctuation_never_tell(words):
    plain = named_class(" ".join(words), True, NAMES)
    assert named_class(", ".join(word.upper() for word in words), True, NAMES) == plain
    if plain is not None:
        assert set(NAMES[plain]) <= set(words_of(" ".join(words)))


def test_classes_that_no_answer_can_tell_apart_are_refused():
    for words in (["bad", "Bad!"], ["+", "good"], ["a b", "a-b"]):
        with pytest.raises(InputError, match=r"by whole words, got .*members\.label_words"):
            checked_names(words)


# Votes


def record_of(votes):
    """Return the record of votes, (M, N), of which -1 says nothing."""
    names = checked_names(CLASSES)
    said = np.array([[samples._vote(answer_for(vote), names) for vote in own] for own in votes])
    return Predictions(normalised_log_probs(said), tuple(map(str, range(said.shape[1]))), CLASSES)


def answer_for(vote):
    return Answer("nothing" if vote < 0 else CLASSES[vote], True)


def test_the_mean_is_the_share_of_votes_and_silence_is_everyones():
    votes = np.array([[0, 0, 1, -1], [0, 1, 1, -1], [0, -1, 2, -1], [0, -1, -1, -1]])
    mean = combine(record_of(votes))
    # Twelfths: a vote is three, and silence one for each class.
    expected = [[12, 0, 0], [5, 5, 2], [1, 7, 4], [4, 4, 4]]
    np.testing.assert_allclose(mean, np.array(expected) / 12, atol=1e-6)


FIVE_TEXTS = strategies.lists(strategies.integers(-1, 2), min_size=5, max_size=5)


@given(strategies.lists(FIVE_TEXTS, min_size=2, max_size=9))
def test_votes_decide_and_all_their_doubt_is_epistemic(votes):
    """The likeliest class has the most votes; a vote has no entropy, and silence has ln C."""
    votes = np.array(votes)
    record = record_of(votes)
    counts = np.stack([(votes == place).sum(axis=0) for place in range(3)], axis=1)
    silent = (votes < 0).mean(axis=0)
    mean = combine(record)
    np.testing.assert_allclose(mean, counts / len(votes) + silent[:, None] / 3, atol=1e-6)
    for row in range(5):
        assert counts[row, mean[row].argmax()] == counts[row].max()
    parts = decompose(record)
    np.testing.assert_allclose(parts.aleatoric, silent * np.log(3), atol=1e-6)
    np.testing.assert_allclose(parts.total, -(mean * np.log(np.maximum(mean, 1e-300))).sum(axis=1), atol=1e-6)
    # A silent member votes for no class more than for another, wherever votes are counted.
    np.testing.assert_allclose(votes_of(record.log_probs).mean(axis=0), mean, atol=1e-6)
    majority = combine(record, "majority_vote")
    np.testing.assert_allclose(majority, (mean * len(votes) + 1) / (len(votes) + 3), atol=1e-5)


# Members


def made(rows=30, seed=0):
    labels = np.arange(rows) % 3
    ids = tuple(f"{seed}-{row}" for row in range(rows))
    return Examples(ids, tuple(standins.made_texts(labels, seed, words=2)), CLASSES, labels)


@pytest.fixture
def trained(standin, tmp_path):
    """Return a function that makes an ensemble of answers in a run."""

    def fit(name="run", count=4, seed=0, **changed):
        run = Run(tmp_path / name)
        members = {"source": "samples", "count": count, "template": "so: {text} was:", "shots": 2, **changed}
        run.begin(parse_recipe({
            "data": {"train": "unused"}, "members": members, "seed": seed,
            "backbone": {"name": str(standin("llama", output_layer=True)), "precision": "fp32"},
        }))  # fmt: skip
        train_members(run, run.recipe, made())
        return run

    return fit


def opened(run):
    return Ensemble.open(run, run.recipe, CLASSES)


def test_members_make_one_record_of_votes_the_same_under_a_seed(trained):
    runs = [trained(name, seed=seed) for name, seed in (("a", 4), ("b", 4), ("c", 40))]
    records = [opened(run).predict(made(40, seed=9)) for run in runs]
    first, again, other = (record.log_probs for record in records)
    assert first.shape == (4, 40, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    tops = np.exp(first).max(axis=-1)
    assert set(np.round(np.unique(tops), 4)) <= {np.float32(0.3333), np.float32(1.0)}
    assert 0 < (tops > 0.9).mean() < 1
    assert records[0].provenance["members"].startswith("4 samples on ")
    folders = [run.member_folder(5) / "sample.json" for run in runs[:2]]
    assert folders[0].read_bytes() == folders[1].read_bytes()


def test_a_member_is_what_it_is_without_the_others_and_comes_back_when_lost(trained):
    together, alone = trained("a", count=3, seed=5), trained("b", count=1, seed=6)
    texts = made(20, seed=9)
    record = opened(together).predict(texts).log_probs
    np.testing.assert_array_equal(record[1], opened(alone).predict(texts).log_probs[0])
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(opened(together).predict(texts.take(order)).log_probs, record[:, order])
    assert opened(together).predict(texts.take([])).shape == (3, 0, 3)
    shutil.rmtree(together.member_folder(6))
    assert missing_of(together, together.recipe) == [6]
    train_members(together, together.recipe, made())
    np.testing.assert_array_equal(opened(together).predict(texts).log_probs, record)


def test_all_members_ask_the_same_and_it_names_the_classes(trained):
    run = trained(template=None, shots=3, description="tone of a film")
    contents = [json.loads((run.member_folder(seed) / "sample.json").read_text()) for seed in range(4)]
    assert len({content["before"] for content in contents}) == 1
    assert contents[0]["before"].startswith("Possible answers for tone: bad, good or even.\n\nFilm: ")
    assert contents[0]["after"] == "\nTone:"
    assert [content["seed"] for content in contents] == [0, 1, 2, 3]
    assert {content["tokens"] for content in contents} == {1 + samples.ROOM}


def test_damaged_members_are_told(trained):
    run = trained()
    file = run.member_folder(1) / "sample.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "after": " is"}))
    with pytest.raises(RunFolderError, match="different prompts"):
        opened(run)
    file.write_text("{}")
    with pytest.raises(RunFolderError, match=r"sample\.json is damaged"):
        opened(run)


def test_what_they_need_is_told_without_weights(trained, standin):
    assert SOURCES["samples"] is LABELLERS["samples"]
    (members,) = opened(trained()).members
    assert (members.count, members.member_parameters) == (4, 0)
    assert 0 < members.reader.max_tokens < 64 - members.drawing.tokens
    backbone = BackboneSettings(name=str(standin("llama", output_layer=True)), precision="fp32")
    needs = samples.needs(
        outline(backbone, CLASSES), Texts(np.array([5, 9]), 16), backbone, SamplesSettings()
    )
    assert needs.parameters == members.shared_parameters == count_weights(members.model.model.parameters())
    assert (needs.trainable, needs.training.operations) == (0, 0)
    assert needs.predicting.operations > 0


# Labelling


@pytest.fixture
def labelled(tmp_path, standin):
    """Return a function that labels a file of texts by sampled answers."""
    texts = jsonl(tmp_path / "texts.jsonl", made_rows(60))

    def run(name="run", **changed):
        settings = {
            "backbone.name": str(standin("llama", output_layer=True)), "backbone.precision": "fp32",
            "members.source": "samples", "members.count": 5, "members.template": "so: {text} was:",
            "members.answer_tokens": 8, "labelling.classes": list(CLASSES),
        }  # fmt: skip
        given = {key.replace("__", "."): value for key, value in changed.items()}
        return label(texts, tmp_path / name, {**settings, **given})

    return run


def lines_of(run):
    return [json.loads(line) for line in run.labels_file.read_text(encoding="utf-8").splitlines()]


def test_labels_are_the_shares_of_votes_and_silence_is_counted(labelled):
    run = labelled()
    record = run.load_predictions("members", "unlabelled").log_probs
    silent = np.ptp(record, axis=-1) == 0
    votes = np.stack([(np.exp(record[..., place]) > 0.9).sum(axis=0) for place in range(3)], axis=1)
    for row, line in enumerate(lines_of(run)):
        expected = (votes[row] + silent[:, row].sum() / 3) / 5
        np.testing.assert_allclose(list(line["probabilities"].values()), expected, atol=1e-6)
        assert line["aleatoric"] == pytest.approx(silent[:, row].mean() * np.log(3), abs=1e-5)
        if silent[:, row].all():
            assert list(line["probabilities"].values()) == pytest.approx([1 / 3] * 3)
    content = json.loads(run.labelling_file.read_text())
    answers = content["answers"]
    assert (answers["answers"], answers["texts_without"]) == (300, silent.all(axis=0).sum())
    assert answers["none_share"] == pytest.approx(silent.mean())
    assert answers["texts_without"] > 0
    assert content["bias"]["method"] == run.recipe.labelling.bias == "none"
    assert content["mass"] is None
    notes = " ".join(content["notes"])
    assert "of 300 sampled answers name no class or several" in notes
    assert "epistemic by construction" in notes
    assert "assumption" not in notes


def test_answers_that_never_name_a_class_are_an_error_and_no_label(labelled, tmp_path):
    with pytest.raises(InputError, match=r"not one of 300 sampled answers names a class.*answer_tokens"):
        labelled(labelling__classes=["plotter story", "music scene"], members__template="so {text}:")
    assert not (tmp_path / "run" / "labels.jsonl").exists()


def test_votes_are_moved_to_no_class_shares(labelled):
    for prior in ("estimate", dict.fromkeys(CLASSES, 1 / 3)):
        with pytest.raises(InputError, match="sampled answers are votes, which no shift moves"):
            labelled(labelling__prior=prior)


def test_beside_prompts_the_bias_of_these_alone_is_taken_off(labelled):
    parts = [
        {"members": {"source": "samples", "count": 2, "template": "so: {text} was:", "answer_tokens": 8}},
        {"members": {"source": "prompts", "count": 1, "templates": ["so: {text} was:"]}},
    ]
    run = label(*mixed(labelled, parts))
    bias = json.loads(run.labelling_file.read_text())["bias"]["by_member"]
    assert [any(own.values()) for own in bias] == [False, False, True]


def mixed(labelled, parts):
    """Return the arguments that label by several sources."""
    run = labelled("alone")
    settings = {
        "backbone.name": run.recipe.backbone.name, "backbone.precision": "fp32",
        "members": {"source": "mixed", "parts": parts},
        "labelling.classes": list(CLASSES), "labelling.lowest_mass": 0,
    }  # fmt: skip
    return run.recipe.data.train, run.path.parent / "mixed", settings


def test_sampled_answers_are_distilled(labelled, tmp_path, standin):
    run = labelled()
    settings = {
        "distil.backbone.name": str(standin()), "distil.backbone.precision": "fp32", "distil.blocks": 1,
        "distil.optimiser.epochs": 1, "distil.soft_share": 0.5,
    }  # fmt: skip
    student = distil(run.path, tmp_path / "student", settings)
    answer = load(student.path).predict(["film good"])[0]
    assert np.isfinite(list(answer["probabilities"].values())).all()
    assert np.isfinite(student.load_predictions("student", "calibration").log_probs).all()


def test_the_command_draws_as_many_answers_at_that_temperature(tmp_path, standin):
    jsonl(tmp_path / "texts.jsonl", made_rows(40))
    arguments = [
        "label", str(tmp_path / "texts.jsonl"), "--classes", "bad,good,even", "--samples", "3",
        "--temperature", "0.7", "--labeller", str(standin("llama", output_layer=True)),
        "--set", "members.template='so: {text}:'", "--set", "members.answer_tokens=8",
        "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exception is None
    assert "40 texts, 3 sampled answers" in shown.output
    assert "name no class or several" in shown.output
    assert "without the labellers' bias" not in shown.output
    members = Run(tmp_path / "run").recipe.members
    assert (members.source, members.count, members.temperature) == ("samples", 3, 0.7)
    for wrong in (["--prompts", "2"], ["--source", "similarity"]):
        refused = CliRunner().invoke(app, [*arguments, *wrong])
        assert isinstance(refused.exception, InputError)
        assert "--samples alone" in str(refused.exception)
