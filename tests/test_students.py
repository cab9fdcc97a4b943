"""A labeller's opinions are learned in place of labels, and tell which texts to label by hand next."""

import csv
import json
import logging
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from credibly import workflows
from credibly.cli.main import app
from credibly.data import load_splits, read_examples
from credibly.data.opinions import read_opinions, surest_rows
from credibly.errors import DataError, InputError, RecipeError, RunFolderError
from credibly.settings import DataSettings, Recipe
from credibly.workflows import fit, label, load, make_recipe, plan, suggest
from workshop import CLASSES, LABELLED_ROWS, Fitted, jsonl, made_rows, quick


@pytest.fixture
def settings(labels):
    """Return a function that gives the data settings which learn from the run."""

    def given(**changed):
        return make_recipe(None, {"data.labels_from": str(labels.path)}).data.model_copy(update=changed)

    return given


def lines_of(run):
    return [json.loads(line) for line in run.labels_file.read_text(encoding="utf-8").splitlines()]


def judged(folder):
    return str(jsonl(folder / "test.jsonl", made_rows(30, seed=5)))


def pool_rows(count):
    """Return rows to choose from, with the ids that the fitted run reads."""
    return [{**row, "id": f"é {number}"} for number, row in enumerate(made_rows(count, 9))]


# Opinions


def test_opinions_are_the_lines_that_were_written(labels):
    opinions, lines = read_opinions(labels.path), lines_of(labels)
    assert opinions.examples.class_names == CLASSES
    assert opinions.examples.texts == tuple(row["text"] for row in made_rows(LABELLED_ROWS))
    for row, line in enumerate(lines):
        assert opinions.examples.ids[row] == line["id"]
        assert CLASSES[opinions.examples.labels[row]] == line["label"]
        assert opinions.examples.label_probs[row].tolist() == pytest.approx(
            list(line["probabilities"].values())
        )
        assert opinions.total[row] == line["total"]
        assert opinions.epistemic[row] == line["epistemic"]


def test_the_same_texts_may_come_from_another_file_with_labels_that_are_not_read(labels, tmp_path):
    copy = jsonl(tmp_path / "copy.jsonl", [{**row, "label": "nonsense"} for row in made_rows(LABELLED_ROWS)])
    again = read_opinions(labels.path, DataSettings(train=str(copy)))
    assert again.examples.fingerprint() == read_opinions(labels.path).examples.fingerprint()


def test_other_texts_or_another_order_are_refused(labels, tmp_path):
    rows = made_rows(LABELLED_ROWS)
    others = made_rows(LABELLED_ROWS, seed=1)
    for name, wrong in (("fewer", rows[:-1]), ("turned", rows[::-1]), ("others", others)):
        file = jsonl(tmp_path / f"{name}.jsonl", wrong)
        with pytest.raises(DataError, match=f"{name}.jsonl: expected the texts that .* has labelled"):
            read_opinions(labels.path, DataSettings(train=str(file)))


def test_damaged_labels_are_refused(labels, tmp_path):
    copy = shutil.copytree(labels.path, tmp_path / "copy")
    (copy / "labels.jsonl").write_text((copy / "labels.jsonl").read_text().replace("bad", "good"))
    with pytest.raises(RunFolderError, match="damaged"):
        read_opinions(copy)


def test_the_surest_of_every_class_are_kept():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    total = np.array([0.4, 0.1, 0.3, 0.2, 0.9, 0.8, 1.0])
    assert surest_rows(labels, total, 0.5).tolist() == [1, 3, 5, 6]
    assert surest_rows(labels, total, 1.0).tolist() == list(range(7))
    assert surest_rows(labels, total, 1.0, below=0.8).tolist() == [0, 1, 2, 3, 5]
    assert surest_rows(labels, total, 0.5, below=0.15).tolist() == [1]


# Splits


def test_train_holds_opinions_and_no_test_set_is_cut(labels, settings):
    splits = load_splits(settings(validation_share=0.1))
    opinions = read_opinions(labels.path).examples
    place = {name: row for row, name in enumerate(opinions.ids)}
    assert splits.test is None
    assert len(splits.train) + len(splits.calibration) + len(splits.validation) == LABELLED_ROWS
    for part in (splits.train, splits.calibration, splits.validation):
        rows = [place[name] for name in part.ids]
        np.testing.assert_allclose(part.label_probs, opinions.label_probs[rows], rtol=1e-12)
    assert any("not to the truth" in note for note in splits.notes)
    assert any("there is no report" in note for note in splits.notes)


def test_only_train_is_chosen_by_how_sure_the_labeller_is(labels, settings):
    whole, half = load_splits(settings()), load_splits(settings(keep_share=0.5))
    assert half.calibration.ids == whole.calibration.ids
    assert set(half.train.ids) < set(whole.train.ids)
    total = {line["id"]: line["total"] for line in lines_of(labels)}
    for place in set(whole.train.labels.tolist()):
        own = [
            name for name, found in zip(whole.train.ids, whole.train.labels, strict=True) if found == place
        ]
        kept = set(own) & set(half.train.ids)
        assert len(kept) == max(1, round(len(own) / 2))
        assert max(total[name] for name in kept) <= min(total[name] for name in set(own) - kept)
    assert any("surest" in note for note in half.notes)


def test_a_threshold_leaves_out_what_is_less_sure(labels, settings):
    total = {line["id"]: line["total"] for line in lines_of(labels)}
    whole = load_splits(settings()).train
    doubts = np.array([total[name] for name in whole.ids])
    # Of the class that is surest last, one opinion is left.
    threshold = max(doubts[whole.labels == place].min() for place in set(whole.labels.tolist()))
    kept = load_splits(settings(keep_below=float(threshold))).train
    assert kept.ids == tuple(np.array(whole.ids)[doubts <= threshold].tolist())
    assert set(kept.labels) == set(whole.labels)
    assert len(kept) < len(whole)
    with pytest.raises(DataError, match=r"sure enough for data.keep_below 0.001 .nats.; raise it"):
        load_splits(settings(keep_below=0.001))


def test_true_labels_calibrate_and_judge_where_they_are_given(settings, tmp_path):
    true = jsonl(tmp_path / "true.jsonl", made_rows(30, seed=6))
    splits = load_splits(settings(calibration=str(true), test=judged(tmp_path)))
    assert splits.calibration.label_probs is None
    assert splits.test.labels.tolist() == [row % 3 for row in range(30)]
    assert len(splits.train) == LABELLED_ROWS
    assert not any("truth" in note for note in splits.notes)


def test_the_likeliest_class_alone_can_be_learned(settings):
    splits = load_splits(settings(targets="labels"))
    assert splits.train.label_probs is None
    assert splits.calibration.label_probs is not None


def test_opinions_are_kept_only_where_there_are_any():
    for key, value in (("keep_share", 0.5), ("keep_below", 0.2)):
        with pytest.raises(RecipeError, match=rf"data\.{key}.*expected data\.labels_from"):
            make_recipe("a.jsonl", {f"data.{key}": value})
    with pytest.raises(InputError, match="--labels-from RUN"):
        make_recipe(None)


def test_a_recipe_without_a_file_reads_what_was_labelled(labels, fitted):
    recipe = make_recipe(None, {"data.labels_from": str(labels.path), "data.keep_share": 0.7})
    assert recipe.data.train == labels.recipe.data.train
    assert recipe.data.text == labels.recipe.data.text
    with pytest.raises(RunFolderError, match="expected a run with labels"):
        make_recipe(None, {"data.labels_from": str(fitted.run)})


# Students


@pytest.mark.slow
def test_a_student_is_trained_without_a_label_and_says_whose_opinion_it_holds(
    labels, tmp_path, standin, caplog
):
    settings = quick(standin(), data__labels_from=str(labels.path), data__keep_share=0.7)
    with caplog.at_level(logging.WARNING, logger="credibly"):
        run = fit(None, tmp_path / "run", settings | {"distil.controls": []})
    assert "not to the truth" in caplog.text
    assert "there is no report" in caplog.text
    assert not run.report_json.exists()
    assert run.recipe.data.labels_from == str(labels.path)
    assert load(run.path).predict(["film good"])[0]["label"] in CLASSES
    splits = load_splits(run.recipe.data)
    stored = run.load_predictions("members", "train")
    assert stored.ids == splits.train.ids
    # The members have learned what the labeller thinks, above what its commonest class would give.
    learned = np.exp(stored.log_probs).mean(axis=0).argmax(axis=1)
    share = np.bincount(splits.train.labels).max() / len(splits.train)
    assert (learned == splits.train.labels).mean() > share


@pytest.mark.slow
def test_figures_are_of_true_labels_where_a_test_file_is_given(labels, tmp_path, standin, no_plots):
    settings = quick(standin(), data__test=judged(tmp_path), distil__enabled=False)
    arguments = ["fit", "--labels-from", str(labels.path), "--output", str(tmp_path / "run"), "--json"]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exception is None
    report = json.loads(shown.stdout)
    known = np.array([row["label"] for row in made_rows(30, seed=5)])
    answers = [
        line["label"] for line in load(tmp_path / "run").predict([r["text"] for r in made_rows(30, 5)])
    ]
    assert report["systems"]["ensemble+temperature"]["accuracy"]["value"] == pytest.approx(
        (known == answers).mean()
    )
    assert any("not to the truth" in note for note in report["notes"])


def test_the_command_says_what_comes_next_where_there_is_no_report(labels, tmp_path, standin):
    settings = quick(standin(), distil__enabled=False, members__count=2)
    arguments = ["fit", "--labels-from", str(labels.path), "--output", str(tmp_path / "run")]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exception is None
    assert f"credibly evaluate {tmp_path / 'run'} FILE" in shown.stdout
    again = CliRunner().invoke(app, [*arguments, "--resume", "--json"])
    assert json.loads(again.stdout) == {"run": str(tmp_path / "run"), "report": None}
    refused = CliRunner().invoke(app, ["fit", "--set", "members.count=2"])
    assert refused.exit_code == 2
    assert "--labels-from RUN" in refused.output


@pytest.mark.slow
def test_a_student_of_opinions_is_planned_without_a_test_set(labels, tmp_path, standin):
    content = plan(None, tmp_path / "run", quick(standin(), data__labels_from=str(labels.path)))
    assert content["advice"] is None


# Suggestions


def test_suggested_texts_are_read_back_once_they_are_filled_in(fitted: Fitted, tmp_path):
    file = tmp_path / "to_label.csv"
    pool = jsonl(tmp_path / "pool.jsonl", pool_rows(40))
    arguments = ["suggest", str(fitted.run), str(pool), "--count", "12", "--output", str(file)]
    assert CliRunner().invoke(app, arguments).exception is None
    with file.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len({row["id"] for row in rows}) == 12
    names = ["id", "text", "label", "predicted", "probability", "total", "aleatoric", "epistemic"]
    assert list(rows[0]) == names
    assert {row["label"] for row in rows} == {""}
    settings = DataSettings(train=str(file), id="id")
    with pytest.raises(DataError, match="has no label"):
        read_examples(file, settings)
    known = {row["id"]: row for row in pool_rows(40)}
    filled = tmp_path / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, names)
        writer.writeheader()
        writer.writerows({**row, "label": known[row["id"]]["label"]} for row in rows)
    examples = read_examples(filled, settings, CLASSES)
    assert examples.ids == tuple(row["id"] for row in rows)
    assert examples.texts == tuple(known[name]["text"] for name in examples.ids)
    assert [CLASSES[place] for place in examples.labels] == [known[name]["label"] for name in examples.ids]
    printed = CliRunner().invoke(app, arguments[:-2])
    assert printed.stdout.splitlines() == file.read_text(encoding="utf-8").splitlines()


def test_labels_filled_in_by_hand_are_not_overwritten(fitted: Fitted, tmp_path, monkeypatch):
    file, pool = tmp_path / "to_label.csv", jsonl(tmp_path / "pool.jsonl", pool_rows(12))
    file.write_text("id,text,label\n1,Fine.,good\n", encoding="utf-8")
    arguments = ["suggest", str(fitted.run), str(pool), "--count", "2", "--output", str(file)]
    with monkeypatch.context() as patch:
        patch.setattr(workflows, "suggest", lambda *given: pytest.fail("work began"), raising=False)
        refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError)
    assert refused.exception.exit_code == 2
    assert "or --overwrite to replace it" in str(refused.exception)
    assert file.read_text(encoding="utf-8").endswith(",good\n")
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exception is None
    with file.open(encoding="utf-8", newline="") as handle:
        assert [row["label"] for row in csv.DictReader(handle)] == ["", ""]


def test_suggested_are_those_of_which_the_run_is_least_sure(fitted: Fitted, tmp_path):
    pool = pool_rows(40)
    file = jsonl(tmp_path / "pool.jsonl", pool)
    for system in (None, "ensemble"):
        answers = load(fitted.run, system).predict([row["text"] for row in pool])
        for by, part in (("entropy", "total"), ("bald", "epistemic")):
            found = suggest(fitted.run, file, 5, by, system=system)
            expected = sorted((answer[part] for answer in answers), reverse=True)[:5]
            assert [row[part] for row in found] == pytest.approx(expected)


def test_a_text_within_an_object_is_suggested_under_its_whole_name(fitted: Fitted, tmp_path):
    rows = [{"id": row["id"], "review": {"body": row["text"]}} for row in pool_rows(12)]
    found = suggest(fitted.run, jsonl(tmp_path / "a.jsonl", rows), 3, "bald", {"text": ["review.body"]})
    known = {row["id"]: row["text"] for row in pool_rows(12)}
    assert [row["review.body"] for row in found] == [known[row["id"]] for row in found]


@pytest.mark.parametrize("by", ["diverse", "bald", "entropy"])
def test_the_files_order_and_its_repeats_have_no_say(fitted: Fitted, tmp_path, by):
    rows = pool_rows(40)
    first = suggest(fitted.run, jsonl(tmp_path / "a.jsonl", rows), 10, by)
    second = suggest(fitted.run, jsonl(tmp_path / "b.jsonl", [*rows[::-1], *rows]), 10, by)
    assert [row["text"] for row in first] == [row["text"] for row in second]
    assert len({row["text"] for row in second}) == 10


def test_texts_that_have_a_label_already_are_not_suggested_again(fitted: Fitted, tmp_path):
    file = jsonl(tmp_path / "pool.jsonl", pool_rows(30))
    first = suggest(fitted.run, file, 10)
    done = jsonl(tmp_path / "done.jsonl", first)
    rest = suggest(fitted.run, file, 30, without=[done])
    assert len(rest) == len({row["text"] for row in pool_rows(30)}) - 10
    assert not {row["text"] for row in first} & {row["text"] for row in rest}
    with pytest.raises(InputError, match="no text is left"):
        suggest(fitted.run, file, without=[file])


@pytest.mark.parametrize("by", ["diverse", "bald", "entropy"])
def test_a_run_of_labels_suggests_of_its_own_texts_by_its_record(labels, by):
    lines = {line["id"]: line for line in lines_of(labels)}
    found = suggest(labels.path, count=8, by=by)
    assert len({row["id"] for row in found}) == 8
    for row in found:
        line = lines[row["id"]]
        assert (row["predicted"], row["total"], row["epistemic"]) == (
            line["label"],
            line["total"],
            line["epistemic"],
        )
        assert row["probability"] == max(line["probabilities"].values())
    if by != "diverse":
        part = {"bald": "epistemic", "entropy": "total"}[by]
        highest = sorted((line[part] for line in lines.values()), reverse=True)[:8]
        assert [row[part] for row in found] == highest


def test_texts_that_prompts_show_with_their_labels_are_not_suggested(labels, tmp_path):
    rows = made_rows(LABELLED_ROWS)[:12]
    texts, few = (jsonl(tmp_path / f"{name}.jsonl", own) for name, own in (("t", rows), ("few", rows[:2])))
    recipe = labels.recipe.model_dump(mode="json", exclude={"resolved"})
    recipe["data"]["train"], recipe["labelling"]["examples"] = str(texts), str(few)
    shown = label(Recipe.model_validate(recipe), tmp_path / "run")
    found = suggest(shown.path, count=12, by="entropy")
    assert {row["text"] for row in found} == {row["text"] for row in rows[2:]}


def test_a_run_that_labelled_some_rows_of_a_file_suggests_those_with_their_own_opinions(labels, tmp_path):
    recipe = labels.recipe.model_dump(mode="json", exclude={"resolved"})
    recipe["data"]["limit"] = {"train": 10}
    limited = label(Recipe.model_validate(recipe), tmp_path / "run")
    texts = [row["text"] for row in made_rows(LABELLED_ROWS)]
    lines = {line["id"]: line for line in lines_of(limited)}
    copy = jsonl(tmp_path / "copy.jsonl", [{"text": text} for text in texts])
    for file in (None, copy):
        found = suggest(limited.path, file, count=LABELLED_ROWS, by="entropy")
        assert len(found) == len(lines) == 10
        for row in found:
            number = int(row["id"].rpartition("-")[2])
            assert row["text"] == texts[number - 1]
            assert row["total"] == lines[f"texts-{number:06d}"]["total"]


def test_suggestions_that_cannot_be_are_refused(labels, fitted: Fitted, tmp_path):
    other = jsonl(tmp_path / "other.jsonl", pool_rows(10))
    for wrong, error, message in (
        ({"path": fitted.run}, InputError, "expected a file of texts to choose from"),
        ({"path": labels.path, "file": other}, DataError, "expected the texts that"),
        ({"path": labels.path, "system": "student"}, InputError, "no systems"),
        ({"path": fitted.run, "file": other, "system": "studnt"}, InputError, "no system 'studnt'"),
        ({"path": fitted.run, "file": other, "count": 0}, InputError, "1 text or more"),
        ({"path": tmp_path / "none", "file": other}, RunFolderError, "expected a run folder"),
    ):
        with pytest.raises(error, match=message):
            suggest(**wrong)
