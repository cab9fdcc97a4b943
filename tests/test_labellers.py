"""Labellers beside prompts: sentences that say the classes, compared with texts or entailed by them."""

import json

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModel, AutoTokenizer, pipeline
from typer.testing import CliRunner

import standins
from credibly.backbones.loading import load_backbone, load_trained_classifier
from credibly.backbones.outline import Texts, outline
from credibly.cli.main import app
from credibly.ensemble import Ensemble, train_members
from credibly.errors import InputError, RecipeError, RunFolderError
from credibly.members import LABELLERS, TrainingData
from credibly.members.common import count_weights
from credibly.members.entailment import entailed_class
from credibly.members.statements import TEMPLATES, statements_of
from credibly.parted import filled, paired
from credibly.progress import silent
from credibly.records import Examples
from credibly.runs import Run
from credibly.settings import (
    BackboneSettings,
    EntailmentSettings,
    PromptsSettings,
    SimilaritySettings,
    parse_recipe,
)
from credibly.uncertainty.dawid_skene import dawid_skene
from credibly.uncertainty.label_shift import BatchBias, correct
from credibly.uncertainty.numerics import votes_of
from credibly.workflows import fit, label, load
from workshop import CLASSES, jsonl, label_lines, label_summary, made_rows

ROWS = 30
SETTINGS = {"similarity": SimilaritySettings, "entailment": EntailmentSettings}
PROMPTS = ["so: {text} was:", "{text} is", "the film {text}:"]
LONG = "good film the plot was bad and " * 20


def made(rows=ROWS, seed=0):
    labels = np.arange(rows) % 3
    ids = tuple(f"{seed}-{row}" for row in range(rows))
    return Examples(ids, tuple(standins.made_texts(labels, seed, words=2)), CLASSES, labels)


@pytest.fixture(scope="module")
def model_of(standin, tmp_path_factory):
    """Return a function that gives the folder of a model for a kind of labeller."""
    inference = standins.save_inference_model(tmp_path_factory.mktemp("nli") / "model")
    folders = {
        "prompts": lambda: standin("llama", output_layer=True), "similarity": standin,
        "entailment": lambda: inference,
    }  # fmt: skip
    return lambda source: folders[source]()


@pytest.fixture
def members_of(model_of):
    """Return a function that makes labellers of a kind."""

    def make(source, texts=(), **settings):
        module, own = LABELLERS[source], SETTINGS[source](**{"count": 3, **settings})
        backbone = BackboneSettings(name=str(model_of(source)), precision="fp32")
        data = TrainingData(tuple(texts), np.zeros((len(texts), 3), np.float32), CLASSES)
        return module.labellers(module.prepare(data, backbone, own, silent), own, range(own.count))

    return make


both = pytest.mark.parametrize("source", SETTINGS)

# Sentences


@pytest.mark.parametrize("description", [None, "sentiment of a film review", "urgency"])
def test_every_default_template_says_each_class_in_its_own_words(description):
    settings = SimilaritySettings(count=len(TEMPLATES), description=description)
    statements = statements_of(CLASSES, settings, range(len(TEMPLATES)))
    assert len(set(statements)) == len(TEMPLATES) >= 5
    for own in statements:
        assert all(name in sentence for name, sentence in zip(CLASSES, own, strict=True))
        assert not any("{" in sentence for sentence in own)


def test_templates_words_and_description_are_the_users():
    settings = EntailmentSettings(
        description="tone of a film",
        templates=["Its {what}: {class}", "A {thing}, {class}"],
        label_words={"bad": "awful", "good": "fine", "even": "neither"},
    )
    assert statements_of(CLASSES, settings, [2, 3]) == (
        ("Its tone: awful", "Its tone: fine", "Its tone: neither"),
        ("A film, awful", "A film, fine", "A film, neither"),
    )


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"templates": ["no place"]}, RecipeError, "expected a column in braces"),
        ({"templates": ["{class} {class}"]}, RecipeError, "expected {class} once"),
        ({"templates": ["{text} {class}"]}, RecipeError, "a template knows .*got '{text}'"),
        ({"templates": ["{clas}"]}, RecipeError, "did you mean 'class'"),
        ({"templates": ["{class}"]}, InputError, "expected at most 1 members, got 2"),
        ({"label_words": {"bad": "x"}}, InputError, "expected a word for every class"),
    ],
)
def test_sentences_that_cannot_be_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        statements_of(CLASSES, SimilaritySettings(**settings), range(2))


# What they say


def test_similarity_is_the_softmax_of_cosines(members_of, standin):
    """Text by text, by transformers alone."""
    model, tokenizer = AutoModel.from_pretrained(standin()).eval(), AutoTokenizer.from_pretrained(standin())

    def direction(text):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        return hidden / hidden.norm()

    members, texts = members_of("similarity", temperature=0.2), made(8, seed=3).texts
    expected = [
        [[float(direction(text) @ direction(sentence)) / 0.2 for sentence in own] for text in texts]
        for own in members.statements
    ]
    said = members.said(texts)
    np.testing.assert_allclose(
        said.log_probs, torch.tensor(expected).log_softmax(dim=-1).numpy(), rtol=0, atol=1e-4
    )
    assert said.cut == 0
    np.testing.assert_allclose(said.mass, 1, atol=1e-6)


def test_similarity_knows_texts_that_use_a_classes_words(members_of):
    words = dict(zip(CLASSES, map(" ".join, standins.TELLING), strict=True))
    examples = made(60)
    members = members_of("similarity", examples.texts, count=2, templates=["{class}", "so {class}"],
                         label_words=words)  # fmt: skip
    found = members.without_bias(examples.texts).log_probs(examples.texts).argmax(axis=-1)
    assert (found == examples.labels).mean() > 0.8


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2"])
def test_entailment_is_what_the_zero_shot_pipeline_answers(architecture, tmp_path):
    folder = standins.save_inference_model(tmp_path / "nli", architecture)
    own = EntailmentSettings(count=1, templates=["This example is {class}."])
    module, backbone = LABELLERS["entailment"], BackboneSettings(name=str(folder), precision="fp32")
    data = TrainingData((), np.zeros((0, 3), np.float32), CLASSES)
    members = module.labellers(module.prepare(data, backbone, own, silent), own, range(1))
    texts = [*made(6, seed=3).texts, LONG]
    said = members.said(texts)
    asked = pipeline("zero-shot-classification", model=str(folder), device="cpu")
    if architecture == "bert":  # as BERT's own tokenizer does, and the stand-in's does not by itself
        asked.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    for row, text in enumerate(texts):
        answer = asked(text, list(CLASSES), hypothesis_template="This example is {}.", multi_label=False)
        expected = [answer["scores"][answer["labels"].index(name)] for name in CLASSES]
        np.testing.assert_allclose(np.exp(said.log_probs[0, row]), expected, atol=1e-5)
    assert said.cut == 1
    assert np.ptp(said.log_probs[0], axis=-1).min() > 1e-3


@pytest.mark.parametrize(
    ("names", "index"),
    [(["entailment", "neutral", "contradiction"], 0), (["not_entailment", "Entailment"], 1),
     (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], 2)],
)  # fmt: skip
def test_the_class_that_is_entailment_is_read_from_its_name(names, index):
    assert entailed_class(names, "model") == index


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], ["entailment", "entailed"]])
def test_a_model_that_does_not_say_which_class_is_entailment_is_refused(names):
    with pytest.raises(InputError, match=f"one class called entailment, and those of mine are {names[0]}"):
        entailed_class(names, "mine")


def test_models_that_infer_nothing_are_refused(model_of, standin, tmp_path):
    module, own = LABELLERS["entailment"], EntailmentSettings()
    data = TrainingData((), np.zeros((0, 3), np.float32), CLASSES)
    sentiment = standins.save_inference_model(tmp_path / "mood", names=("bad", "good"))
    causal = standins.save_inference_model(tmp_path / "causal", "gpt2")
    for folder, message in (
        (standin(), "hold no classification head"),
        (sentiment, "one class called entailment"),
        (causal, "puts nothing between them"),
    ):
        backbone = BackboneSettings(name=str(folder), precision="fp32")
        with pytest.raises(InputError, match=message):
            module.prepare(data, backbone, own, silent)


def test_sentences_must_leave_room_for_a_text(members_of):
    with pytest.raises(InputError, match="of the model's 64 tokens for a text"):
        members_of("entailment", count=1, templates=["xyz " * 20 + "{class}"])


@both
def test_a_text_that_is_too_long_loses_its_end_and_is_counted(source, members_of):
    members = members_of(source)
    said = members.said(["good film", LONG, "bad film"])
    assert said.cut == 1
    longer = members.said([LONG + " dull"]).log_probs
    np.testing.assert_allclose(said.log_probs[:, 1], longer[:, 0], atol=1e-4)


def test_of_a_template_and_a_pair_the_column_that_is_cut_loses_its_end_to_entailment(members_of):
    members, ends = members_of("entailment"), ("dull plot", "great story")

    def texts(middle):
        made = [filled("{long} says: {end}", {"long": middle, "end": own}, "long") for own in ends]
        return made + [paired(middle, own, cut_first=True) for own in ends]

    said, longer = (members.said(texts(middle)).log_probs for middle in (LONG, LONG + " dull"))
    np.testing.assert_allclose(said, longer, atol=1e-4)
    # What stands at the end is read.
    assert np.abs(said[:, 0] - said[:, 1]).max() > 1e-3
    assert np.abs(said[:, 2] - said[:, 3]).max() > 1e-3
    # Where what is kept is too long itself, it is the text that gives way, and not the sentence.
    kept = filled("{end} {long}", {"end": LONG, "long": "so"}, "long")
    np.testing.assert_allclose(members.said([kept]).log_probs, members.said([str(kept)]).log_probs, atol=1e-4)


# Members as any other


@both
def test_what_is_said_depends_neither_on_the_texts_beside_it_nor_on_the_other_members(source, members_of):
    texts, members = made(12, seed=5).texts, members_of(source)
    together = members.said(texts).log_probs
    assert together.shape == (3, 12, 3)
    alone = np.concatenate([members.said([text]).log_probs for text in texts], axis=1)
    np.testing.assert_allclose(alone, together, atol=1e-4)
    np.testing.assert_allclose(members_of(source, count=1).said(texts).log_probs[0], together[0], atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert members.said([]).log_probs.shape == (3, 0, 3)


@both
def test_the_bias_is_the_mean_over_the_texts_it_is_found_on(source, members_of):
    members, texts, told = members_of(source), made(20).texts, []
    raw = members.said(texts).log_probs
    unbiased = members.without_bias(texts, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(unbiased.bias.values[:, 0], raw.mean(axis=1), atol=1e-5)
    assert told[-1][0] == told[-1][1] > 0
    shifted = raw - raw.mean(axis=1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(unbiased.log_probs(texts), expected, atol=1e-5)


def fitted_on(source, folder, texts, labels, warm_up):
    """Return labellers of a kind, fitted on texts, (N,), of these classes, (N,)."""
    kinds = {**SETTINGS, "prompts": PromptsSettings}
    templates = {"templates": PROMPTS, "shots": 0} if source == "prompts" else {}
    own = kinds[source](count=2, warm_up=warm_up, **templates)
    targets = np.vstack([np.eye(3), np.zeros(3)])[labels].astype(np.float32)
    backbone = BackboneSettings(name=str(folder), precision="fp32")
    pool = LABELLERS[source].prepare(TrainingData(tuple(texts), targets, CLASSES), backbone, own, silent)
    return LABELLERS[source].fit(pool, own, range(2))[0]


@pytest.mark.parametrize("source", ["prompts", *SETTINGS])
def test_the_bias_found_by_fit_is_the_mean_over_the_classes_whatever_their_shares(source, model_of):
    labels = np.repeat([0, 1, 2, -1], [14, 3, 1, 2])  # the last two are of no class
    texts = standins.made_texts(np.maximum(labels, 0), words=2)
    members = fitted_on(source, model_of(source), texts, labels, warm_up=50)
    said = members.said(texts).log_probs
    said = said - np.log(np.exp(said).sum(axis=-1, keepdims=True))
    means = np.mean([said[:, labels == own].mean(axis=1) for own in range(3)], axis=0)
    np.testing.assert_allclose(members.bias.values[:, 0], means, atol=1e-4)


def test_a_file_sorted_by_label_gives_no_classes_signal_for_a_bias(model_of):
    labels = np.repeat([0, 1, 2], 40)
    texts = standins.made_texts(labels, words=2)
    folder = model_of("similarity")
    found, whole = (fitted_on("similarity", folder, texts, labels, count) for count in (30, 120))
    # Thirty of 120 texts tell the bias of all but for noise; the first thirty are of one class.
    assert np.abs(found.bias.values - whole.bias.values).max() < 0.25
    first = found.without_bias(texts[:30]).bias.values
    assert np.abs(first - whole.bias.values).max() > 0.5


def test_texts_of_no_class_find_the_bias_where_there_are_no_others(model_of):
    texts, labels = standins.made_texts([0, 1, 2] * 4), np.full(12, -1)
    members = fitted_on("similarity", model_of("similarity"), texts, labels, warm_up=50)
    plain = members.without_bias(texts)
    np.testing.assert_allclose(members.bias.values, plain.bias.values, atol=1e-6)


@both
def test_saved_members_come_back_as_they_were(source, model_of, tmp_path):
    recipe = parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(model_of(source)), "precision": "fp32"},
            "members": {"source": source, "count": 2},
        }
    )
    run, examples = Run(tmp_path / "run"), made()
    run.begin(recipe)
    train_members(run, recipe, examples)
    found = Ensemble.open(run, recipe, CLASSES)
    first = found.predict(examples).log_probs
    np.testing.assert_allclose(first.mean(axis=1), first.mean(axis=1).mean(), atol=0.5)
    np.testing.assert_array_equal(first, Ensemble.open(run, recipe, CLASSES).predict(examples).log_probs)
    members = found.members[0]
    assert (members.count, members.member_parameters) == (2, 0)
    assert 0 < members.reader.max_tokens <= 64
    (run.member_folder(1) / "statements.json").write_text('{"statements": ["one"], "bias": [0]}')
    with pytest.raises(RunFolderError, match=r"statements\.json is damaged .expected 3 statements"):
        Ensemble.open(run, recipe, CLASSES)


@both
def test_what_they_need_is_told_without_weights(source, model_of):
    backbone = BackboneSettings(name=str(model_of(source)), precision="fp32")
    loaded = load_backbone(backbone) if source == "similarity" else load_trained_classifier(backbone)
    needs = LABELLERS[source].needs(
        outline(backbone, CLASSES), Texts(np.array([5, 9]), 16), backbone, SETTINGS[source]()
    )
    assert needs.parameters == count_weights(loaded.model.parameters())
    assert (needs.trainable, needs.training.operations) == (0, 0)
    assert needs.predicting.operations > 0
    assert needs.memory.prediction > needs.memory.base >= 4 * needs.parameters


# Labelling


@pytest.fixture
def labelled(tmp_path, model_of):
    """Return a function that labels a file of texts."""
    texts = jsonl(tmp_path / "texts.jsonl", made_rows(ROWS))

    def run(name, source, **changed):
        given = {key.replace("__", "."): value for key, value in changed.items()}
        own = {"backbone.name": str(model_of(source)), "members.source": source, "members.count": 3}
        shared = {"labelling.classes": list(CLASSES), "backbone.precision": "fp32"}
        return label(texts, tmp_path / name, {**shared, **own, **given})

    return run


def mixed(model_of):
    """Return the members of a recipe in which labellers of three kinds stand side by side."""
    kinds = {
        "prompts": {"count": 2, "templates": PROMPTS},
        "similarity": {"count": 2},
        "entailment": {"count": 1},
    }
    return {
        "source": "mixed",
        "parts": [
            {
                "backbone": {"name": str(model_of(source)), "precision": "fp32"},
                "members": {"source": source, **own},
            }
            for source, own in kinds.items()
        ],
    }  # fmt: skip


@both
def test_labels_are_those_of_the_record_without_its_bias(source, labelled):
    run = labelled("run", source)
    raw = run.load_predictions("members", "unlabelled")
    assert raw.provenance["members"].startswith(f"3 {source} on ")
    shifted = raw.log_probs - raw.log_probs.mean(axis=1, keepdims=True)
    probs = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    found = [list(line["probabilities"].values()) for line in label_lines(run)]
    np.testing.assert_allclose(found, probs.mean(axis=0), atol=1e-5)
    content = label_summary(run)
    assert content["mass"] is None
    assert [own["seed"] for own in content["labellers"]] == [0, 1, 2]
    assert content["labellers"][0]["kind"].startswith(f"{source} on ")


def test_labellers_of_all_kinds_answer_in_one_record(labelled, model_of, tmp_path):
    recipe = {
        "data": {"train": str(tmp_path / "texts.jsonl")},
        "labelling": {"classes": list(CLASSES), "lowest_mass": 0},
        "members": mixed(model_of),
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    labelled("prompts", "prompts", members__count=2, members__templates=PROMPTS, labelling__lowest_mass=0)
    run = label(file, tmp_path / "mixed")
    raw = run.load_predictions("members", "unlabelled")
    assert raw.shape == (5, ROWS, 3)
    alone = Run(tmp_path / "prompts").load_predictions("members", "unlabelled")
    np.testing.assert_allclose(raw.log_probs[:2], alone.log_probs, atol=1e-5)
    files = sorted(own.name for own in (run.path / "members").rglob("*.json"))
    assert files == ["prompt.json"] * 2 + ["statements.json"] * 3
    assert 0 < label_summary(run)["mass"] < 1
    assert {own["kind"].split()[0] for own in label_summary(run)["labellers"]} == {"prompts", *SETTINGS}
    recipe["labelling"]["lowest_mass"] = 0.99
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(InputError, match=r"hardly ever says 'bad'.*by member 0 \(\S+, member 1 \(\S+; give"):
        label(file, tmp_path / "hardly")


def test_votes_are_weighed_where_that_is_asked_for_and_stand_beside_the_mean_anyway(labelled):
    plain = labelled("plain", "similarity", members__count=5)
    run = labelled("weighed", "similarity", members__count=5, labelling__combine="dawid_skene")
    raw = run.load_predictions("members", "unlabelled")
    corrected = correct(raw, BatchBias.of(raw.log_probs).bias, None).corrected
    expected = dawid_skene(votes_of(corrected.log_probs))
    found = [list(line["probabilities"].values()) for line in label_lines(run)]
    np.testing.assert_allclose(found, expected.probs, atol=1e-9)
    before, content = label_summary(plain), label_summary(run)
    assert list(content["combined"]) == ["mean", "dawid_skene"]
    assert before["combined"] == content["combined"]
    assert (before["combine"], content["combine"]) == ("mean", "dawid_skene")
    labels = [[line["label"] for line in label_lines(own)] for own in (plain, run)]
    differ = np.mean([one != other for one, other in zip(*labels, strict=True)])
    assert content["combined_differ"] == pytest.approx(differ)
    for member, own in enumerate(content["labellers"]):
        assert own["accuracy"] == pytest.approx(expected.accuracies[member])
        rows = [list(row.values()) for row in own["confusion"].values()]
        np.testing.assert_allclose(rows, expected.confusion[member])
    for one, other in zip(label_lines(plain), label_lines(run), strict=True):
        assert all(one[part] == other[part] for part in ("total", "aleatoric", "epistemic"))
    assert any("Dawid and Skene" in note for note in content["notes"])
    assert not any("Dawid and Skene" in note for note in before["notes"])


def test_examples_that_nobody_shows_are_said_to_be_for_nothing(labelled, tmp_path):
    shown = jsonl(tmp_path / "few.jsonl", [{"text": f"film {name}", "label": name} for name in CLASSES])
    run = labelled("run", "similarity", labelling__examples=str(shown))
    content = label_summary(run)
    assert "the examples are not looked at: prompts alone show any" in content["notes"]
    assert content["examples"] == []
    plain = labelled("plain", "similarity")
    assert run.labels_file.read_bytes() == plain.labels_file.read_bytes()


def test_too_few_to_be_weighed_are_refused_and_not_weighed(labelled):
    content = label_summary(labelled("two", "similarity", members__count=2))
    assert list(content["combined"]) == ["mean"]
    assert "accuracy" not in content["labellers"][0]
    with pytest.raises(InputError, match="expected 3 labellers or more"):
        labelled("refused", "similarity", members__count=2, labelling__combine="dawid_skene")


def test_members_that_must_be_trained_label_nothing(labelled, model_of, tmp_path):
    parts = [*mixed(model_of)["parts"], {"members": {"source": "heads"}}]
    with pytest.raises(
        InputError, match=r"expected members\.source prompts, samples, similarity.*, got heads"
    ):
        label("a.jsonl", tmp_path / "refused", {
            "labelling.classes": list(CLASSES), "members": {"source": "mixed", "parts": parts},
        })  # fmt: skip


@pytest.mark.slow
def test_a_fit_on_them_is_a_run_as_any_other(model_of, tmp_path, no_plots):
    data = jsonl(tmp_path / "data.jsonl", made_rows(60))
    recipe = {
        "members": {"source": "mixed", "parts": mixed(model_of)["parts"][1:]},
        "distil.enabled": False,
        "evaluation.resamples": 20,
    }
    run = fit(data, tmp_path / "fit", recipe)
    report = json.loads(run.report_json.read_text(encoding="utf-8"))
    assert {"single", "ensemble", "ensemble+temperature"} <= set(report["systems"])
    assert load(run.path).predict(["film good"])[0]["label"] in CLASSES


def test_the_command_takes_the_kind_of_labeller(model_of, tmp_path):
    texts = jsonl(tmp_path / "texts.jsonl", made_rows(ROWS))
    arguments = ["label", str(texts), "--classes", "bad,good,even", "--source", "entailment"]
    more = ["--prompts", "4", "--describe", "tone of a film", "--set", "labelling.combine=dawid_skene",
            "--output", str(tmp_path / "run")]  # fmt: skip
    shown = CliRunner().invoke(app, [*arguments, "--labeller", str(model_of("entailment")), *more])
    assert shown.exception is None
    assert f"{ROWS} texts, 4 labellers" in shown.output
    assert "votes by Dawid and Skene" in shown.output
    assert "might say" not in shown.output
    refused = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "x")])
    assert isinstance(refused.exception, InputError)
    assert "--labeller" in str(refused.exception)
