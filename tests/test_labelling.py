"""`label`: texts in, a run folder with labels out; the same after any interruption, and no label is read."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from credibly.cli.main import app
from credibly.data import load_splits, strata
from credibly.data.opinions import read_opinions
from credibly.errors import InputError, RunFolderError
from credibly.members import LABELLERS, Said, prompts
from credibly.members.opinions import rewrite_bias
from credibly.members.prompts import PromptMembers
from credibly.passes import groups_of
from credibly.progress import silent
from credibly.records import normalised_log_probs
from credibly.runs import Run, write_json
from credibly.uncertainty.combine import combine
from credibly.uncertainty.label_shift import (
    CONTENT_FREE,
    BatchBias,
    batch_bias,
    content_free_bias,
    correct,
    with_shares,
    without_bias,
)
from credibly.workflows import evaluate, evaluate_predictions, fit, label, load
from credibly.workflows.common.recipes import make_recipe
from credibly.workflows.labelling import label as asking
from credibly.workflows.labelling.labelled import shifts_of
from workshop import CLASSES, jsonl, label_lines, label_summary, made_rows

pytestmark = pytest.mark.slow

ROWS = 50
PROMPTS = ["so: {text} was:", "{text} is", "the film {text}:"]
EXAMPLES = [
    {"text": f"film {word}", "label": name}
    for name, word in zip(CLASSES, ("awful", "lovely", "usual"), strict=True)
]


@pytest.fixture
def files(tmp_path, standin):
    """Return a function that labels a file of texts on a stand-in."""
    texts = jsonl(tmp_path / "texts.jsonl", made_rows(ROWS))
    examples = jsonl(tmp_path / "examples.jsonl", EXAMPLES)

    def settings(**changed):
        given = {name.replace("__", "."): value for name, value in changed.items()}
        return {
            "backbone.name": str(standin("llama", output_layer=True)),
            "backbone.precision": "fp32",
            "members.count": 3,
            "members.templates": PROMPTS,
            "labelling.classes": list(CLASSES),
            "labelling.examples": str(examples),
            "labelling.lowest_mass": 0,
            **given,
        }

    def run(name="run", resume=False, overwrite=False, source=texts, **changed):
        return label(source, tmp_path / name, settings(**changed), resume, overwrite)

    return run


def bytes_of(run):
    return {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in sorted(run.path.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }


# What comes out


def test_texts_labelled_by_hand_may_be_shown_and_all_texts_be_asked_about(files, tmp_path):
    own = made_rows(ROWS)
    few = jsonl(tmp_path / "few.jsonl", [{"text": row["text"], "label": row["label"]} for row in own[:3]])
    run = files(labelling__examples=str(few))
    assert len(label_lines(run)) == ROWS
    assert any("3 rows whose text also stands in examples" in note for note in label_summary(run)["notes"])
    test = jsonl(tmp_path / "test.jsonl", own[:2] + made_rows(12, seed=8))
    settings = {"data.labels_from": str(run.path), "data.test": str(test), "data.label": "label"}
    splits = load_splits(make_recipe(None, settings).data)
    assert len(splits.test) == 12
    assert "test: dropped 2 rows whose text also stands in the labeller's examples" in splits.notes


def test_every_text_has_a_line_in_the_files_order(files):
    run = files()
    lines = label_lines(run)
    assert [line["id"] for line in lines] == [f"texts-{row:06d}" for row in range(1, ROWS + 1)]
    for line in lines:
        assert list(line) == ["id", "label", "probabilities", "total", "aleatoric", "epistemic"]
        assert sum(line["probabilities"].values()) == pytest.approx(1)
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert line["total"] == pytest.approx(line["aleatoric"] + line["epistemic"])
        assert 0 <= line["epistemic"] <= line["total"] <= np.log(3) + 1e-9
    assert Run.open(run.path, labels=True).finished


def test_the_raw_record_is_stored_and_the_lines_are_it_without_its_mean(files):
    run = files()
    raw = run.load_predictions("members", "unlabelled")
    assert raw.shape == (3, ROWS, 3)
    assert (raw.labels == -1).all()
    shifted = raw.log_probs - raw.log_probs.mean(axis=1, keepdims=True)
    probs = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    found = [list(line["probabilities"].values()) for line in label_lines(run)]
    np.testing.assert_allclose(found, probs.mean(axis=0), atol=1e-5)


def test_a_limit_labels_a_part_drawn_by_the_seed_and_a_fit_finds_that_part_again(files, tmp_path):
    run, other = files(data__limit={"train": 20}), files("other", data__limit={"train": 20}, seed=1)
    chosen = [line["id"] for line in label_lines(run)]
    assert len(chosen) == 20
    assert set(chosen) < {f"texts-{row:06d}" for row in range(1, ROWS + 1)}
    assert chosen == sorted(chosen) != [line["id"] for line in label_lines(other)]
    opinions = read_opinions(run.path, run.recipe.data.model_copy(update={"limit": {"train": 5}}))
    assert list(opinions.examples.ids) == chosen


def test_labels_of_the_file_change_nothing(files, tmp_path):
    rows = made_rows(ROWS)
    blind = jsonl(tmp_path / "texts2.jsonl", [{"text": row["text"], "id": n} for n, row in enumerate(rows)])
    wrong = jsonl(tmp_path / "texts3.jsonl", [{**row, "label": "x", "id": n} for n, row in enumerate(rows)])
    first, second = (files(own.stem, source=own, data__id="id") for own in (blind, wrong))
    assert first.labels_file.read_bytes() == second.labels_file.read_bytes()
    assert not any("is not read" in note for note in label_summary(first)["notes"])
    assert any("is not read" in note for note in label_summary(second)["notes"])


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(files):
    first, again, other = files("a"), files("b"), files("c", seed=7)
    assert bytes_of(first)["labels.jsonl"] == bytes_of(again)["labels.jsonl"]
    assert bytes_of(first)["labels.jsonl"] != bytes_of(other)["labels.jsonl"]


@pytest.mark.slow
def test_labels_can_be_scored_later_against_the_file(files, tmp_path):
    run = files()
    report = evaluate_predictions(run.labels_file, tmp_path / "texts.jsonl")
    known = [row["label"] for row in made_rows(ROWS)]
    right = np.mean([line["label"] == own for line, own in zip(label_lines(run), known, strict=True)])
    assert report["systems"]["ensemble"]["accuracy"]["value"] == pytest.approx(right)


def test_labellers_are_evaluated_on_a_labelled_file_with_and_without_their_bias(files, tmp_path):
    own, further = made_rows(ROWS), made_rows(30, seed=8)
    few = jsonl(tmp_path / "few.jsonl", own[:3])
    run = files(labelling__examples=str(few))
    before = bytes_of(run)
    report = evaluate(run.path, jsonl(tmp_path / "judged.jsonl", further + own[:2]))
    assert bytes_of(run) == before
    assert list(report["systems"]) == ["single", "ensemble", "majority_vote", "with_bias"]
    assert report["rows"]["test"] == 30
    assert "test: dropped 2 rows whose text also stands in the labeller's examples" in report["notes"]
    assert [member["name"] for member in report["each_member"]] == ["0", "1", "2"]
    again = files("again", source=tmp_path / "judged.jsonl", labelling__examples=str(few))
    raw = again.load_predictions("members", "unlabelled").take(list(range(30)))
    labels = np.array([CLASSES.index(row["label"]) for row in further])
    bias = np.array([list(own.values()) for own in label_summary(run)["bias"]["by_member"]])
    for name, record in (("with_bias", raw), ("ensemble", without_bias(raw, bias))):
        right = (combine(record).argmax(axis=1) == labels).mean()
        assert report["systems"][name]["accuracy"]["value"] == pytest.approx(right)


def test_labellers_without_bias_to_take_off_are_evaluated_once(files, tmp_path):
    run = files(labelling__bias="none")
    report = evaluate(run.path, tmp_path / "texts.jsonl")
    assert list(report["systems"]) == ["single", "ensemble", "majority_vote"]


def test_texts_that_are_too_long_are_cut_and_counted(files, tmp_path):
    rows = [{"text": "good film " * 200}, {"text": "bad film"}]
    content = label_summary(files(source=jsonl(tmp_path / "long.jsonl", rows)))
    assert content["cut"] == 1
    assert any(note.startswith("1 of 2 texts were too long") for note in content["notes"])
    assert any("2 texts are few" in note for note in content["notes"])


# Bias and class shares


def test_a_bias_by_length_is_taken_off_range_by_range_and_kept_for_other_texts(files, tmp_path, monkeypatch):
    monkeypatch.setattr(strata, "TEXTS_A_STRATUM", 10)
    shares = [0.2, 0.3, 0.5]
    prior = dict(zip(CLASSES, shares, strict=True))
    run = files(labelling__bias="batch_by_length", labelling__prior=prior)
    content, raw = label_summary(run), run.load_predictions("members", "unlabelled")
    texts = tuple(row["text"] for row in made_rows(ROWS))
    edges = content["bias"]["longest"]
    places = np.searchsorted(edges, [len(text) for text in texts])
    assert len(edges) >= 1
    bias = np.array([[list(row.values()) for row in own] for own in content["bias"]["by_length"]])
    np.testing.assert_allclose(bias, batch_bias(raw.log_probs, places))
    expected = with_shares(without_bias(raw, bias[:, places]), shares)
    probs = [list(line["probabilities"].values()) for line in label_lines(run)]
    np.testing.assert_allclose(probs, np.exp(expected.log_probs).mean(axis=0), atol=1e-5)
    assert any(f"by {len(edges) + 1} ranges of lengths" in note for note in content["notes"])
    # As members of a run they take the same off, whatever the texts beside it.
    report = evaluate(run.path, jsonl(tmp_path / "few.jsonl", made_rows(ROWS)[:7]))
    right = np.mean(
        [CLASSES[int(np.argmax(own))] == row["label"] for own, row in zip(probs, made_rows(7), strict=False)]
    )
    assert report["systems"]["ensemble"]["accuracy"]["value"] == pytest.approx(right)
    for seed, folder in enumerate(sorted(run.members_folder.iterdir())):
        rewrite_bias(folder, shifts_of(run).content(seed))
    group = next(groups_of(run.recipe))
    members = LABELLERS["prompts"].load(
        sorted(run.members_folder.iterdir()), group.backbone, group.settings, CLASSES
    )
    again = np.exp(members.log_probs(texts[:9])).mean(axis=0)
    np.testing.assert_allclose(again, probs[:9], atol=1e-4)


def test_what_goes_with_the_length_of_a_text_is_told(files, monkeypatch):
    monkeypatch.setattr(strata, "TEXTS_A_STRATUM", 10)
    monkeypatch.setattr(asking, "MUCH", 0.0)
    told = "goes with the length of the text"
    assert any(told in note for note in label_summary(files())["notes"])
    monkeypatch.setattr(asking, "MUCH", 1.0)
    assert not any(told in note for note in label_summary(files("other"))["notes"])


@pytest.mark.parametrize("bias", ["batch", "batch_by_length"])
def test_texts_of_few_lengths_are_labelled(files, tmp_path, monkeypatch, bias):
    monkeypatch.setattr(strata, "TEXTS_A_STRATUM", 10)
    rows = [{"text": text} for text in ("a b c", "a film good") for _ in range(20)]
    run = files(source=jsonl(tmp_path / "few.jsonl", rows), labelling__bias=bias)
    assert len(label_lines(run)) == 40
    assert label_summary(run)["bias"]["longest"] == ([] if bias == "batch" else [5])


def test_labels_of_an_earlier_version_are_refused(files, tmp_path):
    run = files()
    content = json.loads(run.labelling_file.read_text(encoding="utf-8"))
    del content["bias"]["taken_off"]
    write_json(run.labelling_file, content)
    run.finish({"format_version": 1})
    with pytest.raises(RunFolderError, match="earlier version of credibly; label again"):
        evaluate(run.path, tmp_path / "texts.jsonl")


def test_raw_and_corrected_stand_side_by_side(files):
    content = label_summary(files())
    assert list(content["systems"]) == ["raw", "corrected"]
    assert content["assumed_shares"] == pytest.approx(dict.fromkeys(CLASSES, 1 / 3))
    assert content["systems"]["raw"]["changed"] == 0
    for figures in content["systems"].values():
        assert sum(figures["shares"].values()) == pytest.approx(1)
    assert any("assumption" in note for note in content["notes"])


def test_bias_can_be_left_in_or_found_on_inputs_that_say_nothing(files):
    plain, free = files("plain", labelling__bias="none"), files("free", labelling__bias="content_free")
    raw = plain.load_predictions("members", "unlabelled")
    np.testing.assert_allclose(
        [list(line["probabilities"].values()) for line in label_lines(plain)],
        np.exp(raw.log_probs).mean(axis=0),
        atol=1e-6,
    )
    bias = [list(own.values()) for own in label_summary(free)["bias"]["by_member"]]
    members = prompts.load(
        [free.member_folder(seed) for seed in range(3)], free.recipe.backbone, free.recipe.members, CLASSES
    )
    said = members.said(CONTENT_FREE).log_probs
    np.testing.assert_allclose(bias, content_free_bias(said), atol=1e-5)


def test_known_shares_are_those_of_the_labels(files):
    run = files(labelling__prior={"bad": 0.5, "good": 0.3, "even": 0.2})
    content = label_summary(run)
    assert list(content["systems"]) == ["raw", "corrected", "prior_corrected"]
    expected = {"bad": 0.5, "good": 0.3, "even": 0.2}
    assert content["assumed_shares"] == pytest.approx(expected)
    assert content["systems"]["prior_corrected"]["shares"] == pytest.approx(expected, abs=0.15)
    labels = [line["label"] for line in label_lines(run)]
    assert labels.count("bad") / ROWS == content["systems"]["prior_corrected"]["shares"]["bad"]


def test_estimated_shares_take_the_place_of_equal_ones(files):
    plain, estimated = files("plain"), files("estimated", labelling__prior="estimate")
    shares = label_summary(plain)["estimated_shares"]
    assert label_summary(estimated)["assumed_shares"] == pytest.approx(shares)


def test_shares_far_from_equal_are_told_unless_they_are_taken(files):
    """The texts are of one class but for a few, which the stand-in tells by the letters of a word."""
    spread = np.random.default_rng(0)
    raw = np.where(np.arange(ROWS) < 5, 3.0, -1.0) + 0.3 * spread.normal(size=(3, ROWS))
    run = files()
    record = run.load_predictions("members", "unlabelled")
    logits = np.stack([np.zeros_like(raw), raw, np.full_like(raw, -9)], axis=-1)
    skewed = replace(record, log_probs=normalised_log_probs(logits))
    corrections = correct(skewed, BatchBias.of(skewed.log_probs).bias, None)
    job = asking._job(run, run.recipe, silent, resume=True)
    said = Said(logits, 0)
    assert any("suggest other class shares" in note for note in asking._findings(job, said, corrections))


# Interrupted, refused


def test_a_run_killed_between_chunks_goes_on_to_the_same_bytes(files, monkeypatch):
    monkeypatch.setattr(asking, "CHUNK", 20)
    whole = files("whole")
    said, asked = PromptMembers.said, []

    def dies(members, texts, progress=None):
        asked.append(len(texts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return said(members, texts, progress)

    with monkeypatch.context() as patch:
        patch.setattr(PromptMembers, "said", dies)
        with pytest.raises(KeyboardInterrupt):
            files("killed")
        assert asked == [20, 20]
        with pytest.raises(RunFolderError, match="holds an unfinished run; give --resume"):
            files("killed")
        again = files("killed", resume=True)
    assert asked == [20, 20, 20, 10]
    assert bytes_of(again) == bytes_of(whole)
    assert not again.checkpoints_folder.exists()


def test_a_run_with_labels_is_no_model_to_ask(files):
    run = files()
    with pytest.raises(RunFolderError, match=r"expected a run with trained members, and .* holds labels"):
        load(run.path)
    run.manifest_file.unlink()
    with pytest.raises(RunFolderError, match=r"unfinished; go on with: credibly label .*recipe\.yaml"):
        load(run.path)


def test_a_recipe_of_a_run_labels_again(files, tmp_path):
    first = files()
    again = label(first.recipe_file, tmp_path / "again")
    assert again.labels_file.read_bytes() == first.labels_file.read_bytes()


def test_an_old_run_is_replaced_whole(files):
    before = bytes_of(files(labelling__prior="estimate"))
    after = bytes_of(files(overwrite=True, labelling__examples=None))
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in ("labels.jsonl", "labelling.json", "recipe.yaml"))


def test_chunks_change_nothing_but_rounding(files, monkeypatch):
    whole = files("whole").load_predictions("members", "unlabelled")
    monkeypatch.setattr(asking, "CHUNK", 7)
    parts = files("parts").load_predictions("members", "unlabelled")
    np.testing.assert_allclose(parts.log_probs, whole.log_probs, atol=1e-5)


def test_a_finished_run_is_not_asked_again(files, monkeypatch):
    before = bytes_of(files())
    monkeypatch.setattr(PromptMembers, "said", None)
    assert bytes_of(files(resume=True)) == before


def test_other_settings_or_texts_do_not_go_on_with_a_run(files, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "correct", None)
    with pytest.raises(TypeError):
        files()
    with pytest.raises(RunFolderError, match="began with other settings of members"):
        files(resume=True, members__count=2)
    jsonl(tmp_path / "texts.jsonl", made_rows(ROWS, seed=3))
    with pytest.raises(RunFolderError, match="began with other data"):
        files(resume=True)


def test_words_that_the_model_never_says_are_an_error_and_no_label(files):
    with pytest.raises(InputError, match=r"hardly ever says 'bad', 'good', 'even'.*member 0 \(0\.\d+"):
        files(labelling__lowest_mass=0.9)


def test_what_cannot_be_is_refused_before_anything_is_written(files, tmp_path):
    for wrong, message in (
        ({"labelling.classes": ["bad"]}, "expected two classes or more"),
        ({"labelling.prior": {"bad": 0.5, "god": 0.5}}, "no class 'god' .did you mean 'good'"),
        ({"labelling.prior": {"bad": 0.5, "good": 0.5}}, "share above zero for each of the 3 classes"),
        ({"members.templates": ["so:"]}, "expected a column in braces"),
        ({"members.label_words": {"bad": "good"}}, "expected a word for every class"),
        ({"members.count": 4, "labelling.examples": None}, "at most 3 members, got 4"),
    ):
        with pytest.raises(InputError, match=message):
            files("refused", **{name.replace(".", "__"): value for name, value in wrong.items()})
    assert not (tmp_path / "refused").exists()
    with pytest.raises(InputError, match="got heads"):
        label("a.jsonl", tmp_path / "refused", {"labelling.classes": ["a", "b"], "members.source": "heads"})


def test_classes_that_begin_with_the_same_token_are_told_apart(files, tmp_path, standin):
    """ "plotter" and "plotted" differ in their last token alone."""
    run = files(labelling__classes=["plotter", "plotted"], labelling__examples=None, members__count=1)
    raw = run.load_predictions("members", "unlabelled").log_probs
    assert np.abs(raw[0, :, 0] - raw[0, :, 1]).min() > 1e-4


def test_a_fit_on_prompts_is_a_run_as_any_other(files, tmp_path, standin, no_plots):
    """Labelled rows make examples, and calibration and scores follow."""
    data = jsonl(tmp_path / "data.jsonl", made_rows(90))
    recipe = {
        "backbone.name": str(standin("llama", output_layer=True)),
        "backbone.precision": "fp32",
        "members.source": "prompts",
        "members.count": 3,
        "members.shots": 3,
        "members.templates": PROMPTS,
        "distil.enabled": False,
        "evaluation.resamples": 20,
    }
    run = fit(data, tmp_path / "fit", recipe)
    report = json.loads(run.report_json.read_text(encoding="utf-8"))
    assert {"single", "ensemble", "ensemble+temperature"} <= set(report["systems"])
    assert load(run.path).predict(["film good"])[0]["label"] in CLASSES


# The command


def test_the_command_says_what_it_found_and_where_the_labels_are(files, tmp_path, standin):
    files()
    arguments = [
        "label", str(tmp_path / "texts.jsonl"), "--classes", "bad, good,even",
        "--labeller", str(standin("llama", output_layer=True)), "--prompts", "2",
        "--describe", "tone of a film", "--prior", "bad=0.2,good=0.3,even=0.5",
        "--set", "members.templates=['it: {text} was:', '{text} so:']", "--set", "labelling.lowest_mass=0",
        "--output", str(tmp_path / "own"),
    ]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exception is None
    for words in (
        "50 texts, 2 prompts",
        "as the model says it",
        "without the labellers' bias",
        "for the class",
    ):
        assert words in shown.output
    assert "labels.jsonl" in shown.output
    assert len((tmp_path / "own" / "labels.jsonl").read_text().splitlines()) == ROWS
    again = CliRunner().invoke(app, [*arguments, "--resume", "--json"])
    assert json.loads(again.stdout) == label_summary(Run(tmp_path / "own"))
    refused = CliRunner().invoke(
        app, ["label", str(tmp_path / "texts.jsonl"), "--output", str(tmp_path / "x")]
    )
    assert isinstance(refused.exception, InputError)
    assert "--classes no,yes" in str(refused.exception)
