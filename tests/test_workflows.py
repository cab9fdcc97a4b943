"""Whole runs on a stand-in: what they leave, how they answer, and that nothing stops or spoils them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import credibly.report
import workshop
from credibly.data import load_splits
from credibly.errors import AssetError, CrediblyError, InputError, RunFolderError
from credibly.parted import paired
from credibly.progress import silent
from credibly.runs import Run, sha256
from credibly.settings import load_recipe
from credibly.uncertainty.calibrate import Temperature
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.systems import answers, source_of
from credibly.workflows import evaluate, fit, fitting, load, predict_file, predicting, report
from workshop import CLASSES, jsonl, made_rows, predictions_in, quick

SYSTEMS = [
    "single", "ensemble", "ensemble+temperature", "majority_vote", "direct", "direct+temperature",
    "soft_labels", "soft_labels+temperature", "student", "student+temperature",
]  # fmt: skip
METRICS = {
    "accuracy", "f1_macro", "precision_macro", "recall_macro", "nll", "brier", "ece", "ece_debiased",
    "ece_equal_mass", "ece_classwise", "smooth_ece", "brier_reliability", "brier_resolution",
    "brier_uncertainty", "brier_within_bins", "aurc", "eaurc", "augrc", "auroc", "average_precision",
    "risk_at_80", "risk_at_90", "coverage_at_1", "coverage_at_5", "error_auroc", "mean_total",
    "mean_aleatoric", "mean_epistemic", "mean_variance", "nll_raters", "kl_raters", "spearman_raters",
}  # fmt: skip
COSTS = {"seconds", "parameters", "bytes", "rows_per_second"}
ANSWERING = ["majority_vote", "mean_logits", "mean_logits+temperature", *SYSTEMS[1:3], *SYSTEMS[4:]]


def texts_in(file):
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def report_in(run):
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


# What a run leaves


def test_the_stages_of_a_run(fitted):
    networks = [
        f"{verb} {name}"
        for name in ("direct", "soft_labels", "student")
        for verb in ("tuning", "predicting with")
    ]
    assert fitted.stages == [
        "embedding train",
        "training 3 heads",
        "predicting with the members",
        "running the frozen trunk",
        *networks,
        "embedding a reference",
        "scoring with intervals",
    ]


def test_the_files_of_a_run(fitted):
    model = {"config.json", "history.jsonl", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    scored = ["calibration", "papers", "test", "tweets"]
    expected = {
        "recipe.yaml",
        "calibration.json",
        "costs.json",
        "report.json",
        "report.html",
        "manifest.json",
        "shift/reference.safetensors",
    }
    expected |= {
        f"members/{seed}/{name}" for seed in (0, 1, 2) for name in ("history.jsonl", "model.safetensors")
    }
    expected |= {
        f"{folder}/{name}" for folder in ("models/direct", "models/soft_labels", "student") for name in model
    }
    expected |= {f"predictions/members/{split}.safetensors" for split in [*scored, "train", "unlabelled"]}
    expected |= {
        f"predictions/{name}/{split}.safetensors"
        for name in ("direct", "soft_labels", "student")
        for split in scored
    }
    assert {str(file.relative_to(fitted.run)) for file in fitted.run.rglob("*") if file.is_file()} == expected
    manifest = Run(fitted.run).manifest
    assert set(manifest["files"]) == expected - {"manifest.json"}
    assert all(sha256(fitted.run / name) == digest for name, digest in manifest["files"].items())
    assert manifest["seeds"] == [0, 1, 2]
    assert set(manifest["fingerprints"]) == {"train", "calibration", "test", "unlabelled", "tweets", "papers"}
    assert manifest["packages"]["torch"] == torch.__version__


def test_the_recipe_is_kept_as_resolved(fitted):
    recipe = load_recipe(fitted.run / "recipe.yaml")
    assert recipe.resolved.precision == recipe.backbone.precision == "fp32"
    assert recipe.resolved.threads == torch.get_num_threads()
    splits = load_splits(recipe.data, recipe.seed, recipe.members.count)
    assert recipe.resolved.fingerprints == {name: part.fingerprint() for name, part in splits.named().items()}


def test_predictions_stand_on_the_rows_of_their_files_in_order(fitted):
    rows = [json.loads(line) for line in fitted.test.read_text(encoding="utf-8").splitlines()]
    for system in ("members", "direct", "soft_labels", "student"):
        stored = Run(fitted.run).load_predictions(system, "test")
        assert stored.ids == tuple(row["id"] for row in rows)
        assert stored.class_names == ("bad", "even", "good")
        assert [stored.class_names[label] for label in stored.labels] == [row["label"] for row in rows]
        assert (stored.concentrations is not None) == (system == "student")
        assert stored.shape == (3 if system == "members" else 1, 60, 3)
    assert (Run(fitted.run).load_predictions("student", "papers").labels == -1).all()


def test_members_and_student_have_learned(fitted):
    systems = fitted.report["systems"]
    assert systems["ensemble"]["accuracy"]["value"] > 0.75
    assert systems["student"]["accuracy"]["value"] > 0.6
    for name in ("ensemble+temperature", "student+temperature", "direct+temperature"):
        assert systems[name]["nll"]["value"] < np.log(3)


def test_the_report_has_the_shape_agreed(fitted):
    content = fitted.report
    json.dumps(content, allow_nan=False)
    assert [name for name in content["systems"] if name in SYSTEMS] == SYSTEMS
    for system in content["systems"].values():
        assert set(system) == METRICS | COSTS | {"classes"}
        assert set(system["classes"]) == set(CLASSES)
        for measured in (system[name] for name in METRICS | COSTS):
            assert {"value", "low", "high"} <= set(measured) <= {"value", "low", "high", "spread"}
        for each in system["classes"].values():
            assert set(each) == {"precision", "recall"}
    assert set(content["shift"]) == {"tweets", "papers"}
    for shifted in content["shift"].values():
        assert [name for name in shifted if name in SYSTEMS] == SYSTEMS
        assert all("ood_auroc" in system for system in shifted.values())
    assert content["shift"]["papers"]["student"]["accuracy"]["value"] is None
    assert content["shift"]["papers"]["student"]["ood_auroc"]["value"] is not None
    assert content["shift"]["tweets"]["student"]["accuracy"]["value"] is not None
    assert content["systems"]["single"]["nll"]["spread"] > 0
    assert content["systems"]["ensemble"]["nll_raters"]["value"] is None


def test_figures_follow_from_the_stored_predictions(fitted):
    run = Run(fitted.run)
    members, student = run.load_predictions("members", "test"), run.load_predictions("student", "test")
    probs = np.exp(members.log_probs.astype(float))
    truth = np.arange(60), members.labels
    systems = fitted.report["systems"]
    figure = {
        name: {metric: system[metric]["value"] for metric in METRICS} for name, system in systems.items()
    }
    single = [(one.argmax(axis=1) == members.labels).mean() for one in probs]
    assert figure["single"]["accuracy"] == pytest.approx(np.mean(single))
    assert figure["ensemble"]["nll"] == pytest.approx(-np.log(probs.mean(axis=0)[truth]).mean(), rel=1e-5)
    assert figure["student"]["nll"] == pytest.approx(-student.log_probs[0][truth].mean(), rel=1e-5)
    assert figure["ensemble"]["mean_epistemic"] == pytest.approx(
        decompose(members).epistemic.mean(), rel=1e-6
    )


def test_every_system_has_its_costs(fitted):
    systems, members = fitted.report["systems"], 3
    for name, system in systems.items():
        assert all(system[cost]["value"] > 0 for cost in COSTS), name
    parameters = {name: system["parameters"]["value"] for name, system in systems.items()}
    backbone = (members * parameters["single"] - parameters["ensemble"]) / (members - 1)
    head = 32 * 16 + 16 + 16 * 3 + 3
    assert parameters["single"] - backbone == head
    weights = {name: folder / "model.safetensors" for name, folder in (
        ("student", fitted.run / "student"), ("direct", fitted.run / "models" / "direct"),
    )}  # fmt: skip
    for name, file in weights.items():
        assert systems[name]["bytes"]["value"] == file.stat().st_size
    assert parameters["student"] == parameters["direct"] == parameters["student+temperature"]
    assert systems["single"]["seconds"]["value"] < systems["ensemble"]["seconds"]["value"]


def test_the_student_is_calibrated_to_the_ensembles_doubt(fitted):
    run = Run(fitted.run)
    content = json.loads((fitted.run / "calibration.json").read_text(encoding="utf-8"))
    assert set(content) == {
        "ensemble+temperature", "mean_logits+temperature", "direct+temperature", "soft_labels+temperature",
        "student", "student+temperature",
    }  # fmt: skip
    assert content["student"]["temperature"] == 1.0
    wanted = decompose(run.load_predictions("members", "calibration")).epistemic.mean()
    for name in ("student", "student+temperature"):
        fitted_to = Temperature.from_json(content[name])
        found = decompose(fitted_to.apply(run.load_predictions("student", "calibration"))).epistemic.mean()
        assert found == pytest.approx(wanted, rel=1e-4)


def test_the_page_is_whole_and_of_this_run(fitted):
    page = (fitted.run / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert "student+temperature" in page
    assert "tweets" in page


# Answers


def plain_probs(folder, texts):
    """What transformers alone answers."""
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    with torch.inference_mode():
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return model(**batch).logits.softmax(dim=-1).numpy(), model.config.id2label


def test_the_student_answers_as_plain_transformers_do(fitted):
    texts = texts_in(fitted.test)
    expected, names = plain_probs(fitted.run / "student", texts)
    predictor = load(fitted.run)
    assert predictor.system == "student+temperature"
    assert dict(enumerate(predictor.class_names)) == names
    np.testing.assert_allclose(predictor.answer(texts).probs, expected, atol=1e-5)


@pytest.mark.parametrize("system", ANSWERING)
def test_fresh_answers_are_those_of_the_stored_predictions(fitted, system):
    run = Run(fitted.run)
    stored = run.load_predictions(source_of(system), "test")
    calibrations = json.loads(run.calibration_file.read_text(encoding="utf-8"))
    calibrators = {name: Temperature.from_json(values) for name, values in calibrations.items()}
    expected = answers(system, stored, calibrators)[0]
    found = load(fitted.run, system).answer(texts_in(fitted.test))
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)
    for part in ("total", "aleatoric", "epistemic"):
        values = getattr(found.uncertainty, part), getattr(expected.uncertainty, part)
        np.testing.assert_allclose(*values, atol=2e-5)


@pytest.mark.parametrize("system", ANSWERING)
def test_an_answer_adds_up(fitted, system):
    for row in load(fitted.run, system).predict(texts_in(fitted.test)[:20]):
        assert list(row) == ["label", "probability", "probabilities", "total", "aleatoric", "epistemic"]
        assert set(row["probabilities"]) == set(CLASSES)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert row["probability"] == row["probabilities"][row["label"]]
        assert row["total"] == pytest.approx(row["aleatoric"] + row["epistemic"], abs=1e-9)
        assert 0 <= row["epistemic"] <= row["total"] <= np.log(3) + 1e-9


def test_a_run_without_student_answers_with_the_calibrated_ensemble(tmp_path, standin, no_plots):
    data = jsonl(tmp_path / "a.jsonl", made_rows(90))
    run = fit(data, tmp_path / "run", quick(standin(), distil__enabled=False))
    assert not (run.path / "student").exists()
    assert not (run.path / "models").exists()
    assert load(run.path).system == "ensemble+temperature"
    assert [name for name in report_in(run.path)["systems"] if name in SYSTEMS] == SYSTEMS[:4]
    with pytest.raises(
        InputError, match=r"no system 'student'.* it has majority_vote, .*ensemble\+temperature$"
    ):
        load(run.path, "student")


def test_an_unknown_system_is_told_with_the_nearest(fitted):
    with pytest.raises(InputError, match=r"no system 'studnet' \(did you mean 'student'\?\); it has "):
        load(fitted.run, "studnet")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ("one text", r"got one text; give \[text\]"),
        (["a", "", "b", " \n"], "see positions 1, 3"),
        (["a", None], "see positions 1"),
        ([3], "see positions 0"),
    ],
)
def test_what_is_no_list_of_texts_is_told(fitted, texts, told):
    with pytest.raises(InputError, match=told):
        load(fitted.run).predict(texts)


def test_no_texts_have_no_answers(fitted):
    assert load(fitted.run).predict([]) == []
    assert load(fitted.run, "ensemble").predict([]) == []


def test_a_file_is_answered_in_its_order_whatever_the_batches(fitted, monkeypatch):
    predictor = load(fitted.run)
    whole = list(predict_file(predictor, fitted.test))
    monkeypatch.setattr(predicting, "BATCH_ROWS", 7)
    parts = list(predict_file(predictor, fitted.test))
    rows = [json.loads(line) for line in fitted.test.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in whole] == [row["id"] for row in parts] == [row["id"] for row in rows]
    direct = predictor.predict([row["text"] for row in rows])
    for one, other, expected in zip(whole, parts, direct, strict=True):
        assert one["label"] == other["label"] == expected["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        assert one["probability"] == pytest.approx(expected["probability"], abs=1e-9)


def test_answers_come_before_the_file_is_read_to_its_end(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "BATCH_ROWS", 2)
    rows = [{"text": f"film {n}", "id": "same"} for n in range(4)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    with file.open("a", encoding="utf-8") as handle:
        handle.write('{"text": "", "id": "same"}\n')
    told = predict_file(load(fitted.run), file)
    assert [next(told)["id"] for _ in range(4)] == ["same"] * 4
    with pytest.raises(InputError, match=r"a.jsonl:5: .*'text' is empty"):
        next(told)


def test_text_columns_are_kept_on_request(fitted):
    row = next(predict_file(load(fitted.run), fitted.test, keep_text=True))
    assert row["text"] == texts_in(fitted.test)[0]
    assert "text" not in next(predict_file(load(fitted.run), fitted.test))


@pytest.mark.slow
def test_pairs_make_a_run_that_answers_on_rows(tmp_path, standin, no_plots):
    def rows(count, seed=0):
        return [
            {"first": row["text"], "second": "so" if n % 2 else "so " * 80, "label": row["label"]}
            for n, row in enumerate(made_rows(count, seed))
        ]

    data = jsonl(tmp_path / "a.jsonl", rows(90))
    settings = quick(standin(), data__text=["first", "second"], data__pair=True, distil__controls=["direct"])
    run = fit(data, tmp_path / "run", settings)
    notes = report_in(run.path)["notes"]
    counts = [re.match("[a-z]+: ([0-9]+) of .* cut in column 'second'$", note) for note in notes]
    assert sum(int(found[1]) for found in counts if found) == 45
    new = rows(12, seed=1)
    file = jsonl(tmp_path / "new.jsonl", new)
    for system in ("ensemble", "student"):
        predictor = load(run.path, system)
        direct = predictor.predict(new)
        assert predictor.predict([paired(row["first"], row["second"]) for row in new]) == direct
        for read, answer in zip(predict_file(predictor, file), direct, strict=True):
            assert read["probabilities"] == answer["probabilities"]
        # The two texts the other way round are other texts.
        turned = predictor.predict([{"first": row["second"], "second": row["first"]} for row in new[1::2]])
        assert turned != direct[1::2]
        with pytest.raises(
            InputError, match=r"expected rows, such as {'first': \.\.\., 'second': \.\.\.}, got a text"
        ):
            predictor.predict(["good film"])
        with pytest.raises(InputError, match="text 1: column 'second' is missing"):
            predictor.predict([new[0], {"first": "good"}])
    student = run.path / "student"
    tokenizer = AutoTokenizer.from_pretrained(student)
    columns = [[row[name] for row in new] for name in ("first", "second")]
    inputs = tokenizer(*columns, truncation="only_second", padding=True, return_tensors="pt")
    assert "token_type_ids" in inputs
    with torch.no_grad():
        logits = AutoModelForSequenceClassification.from_pretrained(student).eval()(**inputs).logits
    answers = [list(one["probabilities"].values()) for one in load(run.path).predict(new)]
    np.testing.assert_allclose(logits.softmax(dim=-1).numpy(), answers, atol=1e-5)
    noted = evaluate(run.path, jsonl(tmp_path / "more.jsonl", rows(30, seed=2)))["notes"]
    assert noted == ["test: 15 of 30 texts were longer than 64 tokens and were cut in column 'second'"]


def test_rows_are_answered_as_their_texts_are(fitted):
    predictor = load(fitted.run)
    assert predictor.predict([{"text": "good film"}, "bad"]) == predictor.predict(["good film", "bad"])


def test_a_model_without_pairs_is_told_before_anything_is_trained(tmp_path, standin):
    data = jsonl(tmp_path / "a.jsonl", [{**row, "second": "so"} for row in made_rows(30)])
    settings = quick(standin("llama"), data__text=["text", "second"], data__pair=True)
    with pytest.raises(InputError, match="the model knows no sentence pairs"):
        fit(data, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed", [{"data__template": "{text}"}, {"data__pair": True, "data__text": ["a", "b"]}]
)
def test_the_packaged_reviews_take_no_template(tmp_path, standin, changed):
    with pytest.raises(InputError, match="the packaged reviews have one text a row"):
        fit("reviews", tmp_path / "run", quick(standin(), **changed))


@pytest.mark.parametrize(
    ("system", "file"), [(None, "student/model.safetensors"), ("ensemble", "members/1/model.safetensors")]
)
def test_a_damaged_weight_file_is_told_by_name(fitted, tmp_path, system, file):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(fitted.run, run)
    content = bytearray((run / file).read_bytes())
    content[-1] ^= 1
    (run / file).write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"{file} is damaged: its sha256 .*--overwrite"):
        load(run, system)


# Evaluating further files


def test_evaluating_the_test_rows_gives_the_runs_own_figures(fitted, no_plots):
    found = evaluate(fitted.run, fitted.test)
    assert list(found["systems"]) == list(fitted.report["systems"])
    for name, system in fitted.report["systems"].items():
        for metric in METRICS:
            for part in ("value", "low", "high"):
                expected = system[metric][part]
                assert found["systems"][name][metric][part] == pytest.approx(expected, abs=1e-4), (
                    name,
                    metric,
                )
    assert found["rows"]["test"] == 60
    assert found["shift"] == {}


def test_evaluating_leaves_the_run_as_it_was(fitted, tmp_path, no_plots):
    before = {file: file.read_bytes() for file in fitted.run.rglob("*") if file.is_file()}
    evaluate(fitted.run, fitted.test, html=tmp_path / "page.html")
    assert {file: file.read_bytes() for file in fitted.run.rglob("*") if file.is_file()} == before
    assert (tmp_path / "page.html").is_file()


def test_an_unknown_label_at_evaluation_is_told(fitted, tmp_path):
    rows = [*made_rows(4), {"text": "film", "label": "godo"}]
    file = jsonl(tmp_path / "a.jsonl", [{**row, "id": str(n)} for n, row in enumerate(rows)])
    with pytest.raises(
        InputError, match=r"a.jsonl:5: .*unknown label 'godo' \(did you mean 'good'\?\).*bad, even, good"
    ):
        evaluate(fitted.run, file)


def test_other_columns_can_be_named_at_evaluation(fitted, tmp_path, no_plots):
    rows = [json.loads(line) for line in fitted.test.read_text(encoding="utf-8").splitlines()]
    renamed = [{"review": row["text"], "stars": row["label"]} for row in rows]
    file = jsonl(tmp_path / "a.jsonl", renamed)
    found = evaluate(fitted.run, file, {"text": ["review"], "label": "stars", "id": None})
    expected = fitted.report["systems"]["student"]["nll"]["value"]
    assert found["systems"]["student"]["nll"]["value"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_report_is_given_and_its_page_rendered_anew(fitted):
    page = fitted.run / "report.html"
    content = page.read_text(encoding="utf-8")
    page.unlink()
    assert report(fitted.run) == fitted.report
    assert page.read_text(encoding="utf-8") == content


def test_a_damaged_report_is_told(fitted, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(fitted.run, run)
    (run / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"report.json is damaged"):
        report(run)


# Other data and other recipes


def binary(folder):
    rows = [{"text": row["text"], "label": n % 2} for n, row in enumerate(made_rows(110, C=2))]
    return jsonl(folder / "a.jsonl", rows), {}, ("0", "1")


def rated(folder):
    rows = made_rows(110, C=2)
    for row in rows:
        good = 0.9 if row.pop("label") == "good" else 0.2
        row |= {"share.bad": 1 - good, "share.good": good}
    settings = {"data.label": None, "data.probabilities": ["share.bad", "share.good"]}
    return jsonl(folder / "a.jsonl", rows), settings, ("bad", "good")


def table(folder):
    lines = [
        "review\tstars\tproduct",
        *(f"{row['text']}\t{row['label']}\t{n // 2}" for n, row in enumerate(made_rows(110))),
    ]
    (folder / "a.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"data.text": "review", "data.label": "stars", "data.group": "product"}
    return folder / "a.tsv", settings, ("bad", "even", "good")


@pytest.mark.slow
@pytest.mark.parametrize("data", [binary, rated, table])
def test_all_kinds_of_labels_make_a_run(tmp_path, standin, no_plots, data):
    file, settings, names = data(tmp_path)
    run = fit(file, tmp_path / "run", {**quick(standin()), **settings})
    content, members = report_in(run.path), run.load_predictions("members", "test")
    assert content["classes"] == list(names)
    assert members.class_names == names
    assert [name for name in content["systems"] if name in SYSTEMS] == SYSTEMS
    assert (members.label_probs is not None) == (data is rated)
    assert (content["systems"]["student"]["nll_raters"]["value"] is not None) == (data is rated)
    assert content["systems"]["ensemble"]["accuracy"]["value"] > 0.6
    assert set(load(run.path).predict(["good film"])[0]["probabilities"]) == set(names)
    assert any("cut by" in note for note in content["notes"])


@pytest.mark.slow
def test_label_probabilities_teach_members_and_networks(tmp_path, standin, no_plots):
    file, settings, _ = rated(tmp_path)
    run = fit(file, tmp_path / "run", {**quick(standin(), **{"distil.label_share": 0.5}), **settings})
    for system in ("members", "direct", "student"):
        stored = run.load_predictions(system, "test")
        good = np.exp(stored.log_probs)[:, :, 1].mean(axis=0)
        # Raters say 0.9 at most: what learns from their shares is not surer than they are.
        assert good[stored.labels == 1].mean() == pytest.approx(0.85, abs=0.12)
        assert good[stored.labels == 0].mean() == pytest.approx(0.25, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"members__bootstrap": True, "members__class_weights": "balanced", "members__count": 1},
        {"backbone__precision": "bf16", "backbone__max_tokens": 8, "members__hidden": []},
        {"distil__tune": "full", "distil__controls": []},
        {"distil__label_share": 1.0, "distil__controls": ["soft_labels"], "backbone__pooling": "cls"},
    ],
)
def test_every_setting_of_a_recipe_makes_a_run(tmp_path, standin, no_plots, changed):
    run = fit(jsonl(tmp_path / "a.jsonl", made_rows(90)), tmp_path / "run", quick(standin(), **changed))
    systems = report_in(run.path)["systems"]
    controls = changed.get("distil__controls", ["direct", "soft_labels"])
    assert {name for name in ("direct", "soft_labels", "student") if name in systems} == {
        *controls,
        "student",
    }
    assert systems["ensemble"]["accuracy"]["value"] > 0.5
    assert len(run.manifest["seeds"]) == changed.get("members__count", 3)
    fresh = load(run.path, "student").answer(load_splits(run.recipe.data, 0).test.texts).probs
    stored = np.exp(run.load_predictions("student", "test").log_probs[0])
    np.testing.assert_allclose(fresh, stored, atol=1e-5)


def test_each_network_minimises_its_own_loss_on_train_and_unlabelled_texts(fitted):
    run = Run(fitted.run)
    recipe = run.recipe
    splits = load_splits(recipe.data, recipe.seed, recipe.members.count)
    work = fitting.Work(run, recipe, splits, silent)
    members = [np.exp(run.load_predictions("members", part).log_probs) for part in ("train", "unlabelled")]
    mean = torch.from_numpy(np.concatenate(members, axis=1).mean(axis=0))
    labels = torch.tensor(splits.train.labels)
    train, last = len(splits.train), len(splits.train) + len(splits.unlabelled) - 1
    rows = torch.tensor([0, 7, train - 1, train, last])
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.cross_entropy(z, mean[rows])
    torch.testing.assert_close(fitting._loss(work, "soft_labels")(z, rows), soft, atol=1e-5, rtol=0)
    known = torch.nn.functional.cross_entropy(z[:3], labels[rows[:3]])
    torch.testing.assert_close(fitting._loss(work, "direct")(z[:3], rows[:3]), known, atol=1e-5, rtol=0)
    # The student's loss is least where softmax(z) is the members' mean.
    student = fitting._loss(work, "student")
    target = torch.log(mean[rows]) + 3
    precisions = torch.linspace(-4, 6, 60)
    best = min(student(target + shift, rows).item() for shift in precisions)
    wrong = torch.log(mean[rows].roll(1, dims=0)) + 3
    assert best < min(student(wrong + shift, rows).item() for shift in precisions)


@pytest.mark.slow
def test_a_student_of_labels_alone_is_the_direct_network(tmp_path, standin, no_plots):
    """Same start, texts, order and steps: with all weight on the labels nothing is left to differ."""
    data = jsonl(tmp_path / "a.jsonl", made_rows(90))
    runs = [
        fit(data, tmp_path / str(share), quick(standin(), distil__label_share=share)) for share in (1.0, 0.5)
    ]
    for run, equal in zip(runs, (True, False), strict=True):
        direct, student = (run.load_predictions(name, "test").log_probs for name in ("direct", "student"))
        assert np.allclose(direct, student, atol=1e-4) == equal
    soft = runs[0].load_predictions("soft_labels", "test").log_probs
    assert np.abs(soft - runs[0].load_predictions("direct", "test").log_probs).max() > 0.01


@pytest.mark.slow
def test_class_weights_and_bootstrap_change_the_members(tmp_path, standin, no_plots):
    data = jsonl(tmp_path / "a.jsonl", made_rows(90)[:75])
    changes = ({}, {"members__bootstrap": True}, {"seed": 5}, {"members__dropout": 0.5})
    found = set()
    for number, changed in enumerate(changes):
        run = fit(data, tmp_path / str(number), quick(standin(), distil__enabled=False, **changed))
        found.add(run.load_predictions("members", "test").log_probs.tobytes())
    assert len(found) == 4


@pytest.mark.slow
def test_a_run_from_a_recipe_file_is_the_run_from_settings(tmp_path, standin, no_plots, fitted):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    first = fit(data, tmp_path / "first", quick(standin(), distil__enabled=False))
    second = fit(first.recipe_file, tmp_path / "second")
    third = fit(first.recipe, tmp_path / "third", {"evaluation.resamples": 5})
    assert predictions_in(first.path) == predictions_in(second.path) == predictions_in(third.path)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes(fitted, tmp_path, no_plots):
    again = fit(fitted.run / "recipe.yaml", tmp_path / "run")
    assert predictions_in(again.path) == predictions_in(fitted.run)
    for name in ("calibration.json", "student/model.safetensors", "members/0/model.safetensors"):
        assert (again.path / name).read_bytes() == (fitted.run / name).read_bytes()


# Interrupted and resumed

SMALL = {
    "members__optimiser__epochs": 2,
    "distil__optimiser__epochs": 1,
    "evaluation__resamples": 2,
    "distil__controls": ["direct"],
}
STAGES = [
    "embedding train", "training 3 heads", "predicting with the members", "running the frozen trunk",
    "tuning direct", "predicting with direct", "tuning student",
    "predicting with student", "embedding a reference", "scoring with intervals",
]  # fmt: skip
FEW = ("training 3 heads", "tuning student")
"""Where the fast part stops a run; it is also stopped at every file in turn."""


def small(folder, model):
    """Return what to call `fit` with, but for the output."""
    data = jsonl(folder / "a.jsonl", made_rows(60))
    unlabelled = jsonl(folder / "u.jsonl", [{"text": row["text"]} for row in made_rows(12, 5)])
    return data, quick(model, **SMALL, data__unlabelled=str(unlabelled))


@pytest.fixture(scope="module")
def uninterrupted(standin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    source, settings = small(folder, standin())
    told = []

    def stages(name):
        told.append(name)
        return lambda done, total: None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credibly.report, "render_html", lambda content: "<html></html>")
        run = fit(source, folder / "whole", settings, stages=stages)
    assert told == STAGES
    return source, settings, run.path


def stopping_at(stage):
    def stages(name):
        if name == stage:
            raise KeyboardInterrupt
        return lambda done, total: None

    return stages


def same_run(first, second):
    assert predictions_in(first) == predictions_in(second)
    for name in (
        "calibration.json",
        "shift/reference.safetensors",
        "student/model.safetensors",
        "members/2/model.safetensors",
    ):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    reports = [report_in(folder) for folder in (first, second)]
    values = [
        {name: {m: system[m] for m in METRICS} for name, system in content["systems"].items()}
        for content in reports
    ]
    assert values[0] == values[1]
    for system in reports[0]["systems"].values():
        assert all(system[cost]["value"] > 0 for cost in COSTS)


@pytest.mark.parametrize(
    "stage", [stage if stage in FEW else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES]
)
def test_a_run_stopped_at_any_stage_goes_on_to_the_same_end(uninterrupted, tmp_path, no_plots, stage):
    source, settings, whole = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at(stage))
    assert not Run(tmp_path / "run").finished
    with pytest.raises(RunFolderError, match="an unfinished run; give --resume"):
        fit(source, tmp_path / "run", settings)
    run = fit(source, tmp_path / "run", settings, resume=True)
    assert run.finished
    same_run(run.path, whole)


@pytest.mark.slow
def test_a_run_stopped_at_every_file_in_turn_goes_on_to_the_same_end(
    uninterrupted, tmp_path, no_plots, monkeypatch
):
    """Each try is stopped one file later than the last, so every file is once the one not written."""
    source, settings, whole = uninterrupted
    real, tried, stops = Path.replace, set(), 0

    def stopping(path, target):
        # Costs are written again and again, each time with more figures.
        costs = json.loads(path.read_text(encoding="utf-8")) if target.name == "costs.json" else {}
        written = (target, json.dumps({name: sorted(figures) for name, figures in costs.items()}))
        if written not in tried:
            tried.add(written)
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", stopping)
    while True:
        try:
            run = fit(source, tmp_path / "run", settings, resume=True)
            break
        except KeyboardInterrupt:
            stops += 1
    # Both networks' folders, of five files each, are moved as one; costs are written three times; the
    # manifest is not among its own files. Members and networks leave a checkpoint an epoch.
    recipe = Run(whole).recipe
    epochs = recipe.members.optimiser.epochs + 2 * recipe.distil.optimiser.epochs
    assert stops == len(Run(whole).manifest["files"]) - 2 * 4 + 2 + 1 + epochs
    same_run(run.path, whole)
    assert list(run.path.rglob(".*")) == []


def test_a_full_disk_stops_a_run_that_then_goes_on(uninterrupted, tmp_path, no_plots, monkeypatch):
    source, settings, whole = uninterrupted
    real = Path.write_bytes

    def full(path, content):
        if "student" in str(path):
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CrediblyError, match=r"no room on the disk for .*student.*--resume"):
        fit(source, tmp_path / "run", settings)
    monkeypatch.setattr(Path, "write_bytes", real)
    same_run(fit(source, tmp_path / "run", settings, resume=True).path, whole)


def test_a_run_is_not_resumed_with_another_recipe(uninterrupted, tmp_path):
    source, settings, _ = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at("embedding train"))
    with pytest.raises(
        RunFolderError, match=r"began with other settings of members, seed; go on with: credibly fit"
    ):
        fit(source, tmp_path / "run", {**settings, "seed": 3, "members.count": 2}, resume=True)


def test_a_run_is_not_resumed_with_changed_data(tmp_path, standin, no_plots):
    source, settings = small(tmp_path, standin())
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at("tuning direct"))
    jsonl(source, made_rows(60)[:-1])
    with pytest.raises(
        RunFolderError, match="began with other data than the files hold now; give --overwrite"
    ):
        fit(source, tmp_path / "run", settings, resume=True)
    jsonl(source, made_rows(60))
    assert fit(source, tmp_path / "run", settings, resume=True).finished


def test_a_resumed_run_goes_on_with_the_precision_and_threads_it_began_with(
    uninterrupted, tmp_path, no_plots
):
    source, settings, whole = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at("tuning direct"))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        run = fit(source, tmp_path / "run", {**settings, "backbone.precision": "bf16"}, resume=True)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)
    same_run(run.path, whole)


def test_a_finished_run_is_reused_and_not_trained_again(uninterrupted):
    source, settings, whole = uninterrupted
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*")}

    def stages(name):
        raise AssertionError(f"began with {name}")

    assert fit(source, whole, settings, resume=True, stages=stages).path == whole
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*")} == before
    with pytest.raises(RunFolderError, match="other settings of evaluation"):
        fit(source, whole, {**settings, "evaluation.resamples": 3}, resume=True)


def test_a_new_run_is_begun_where_there_is_none_to_resume(uninterrupted, tmp_path, no_plots):
    source, settings, whole = uninterrupted
    same_run(fit(source, tmp_path / "run", settings, resume=True).path, whole)


# An existing run


@pytest.fixture
def old(tmp_path, uninterrupted):
    import shutil

    shutil.copytree(uninterrupted[2], tmp_path / "old")
    return tmp_path / "old"


def content_of(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"data.train": "nowhere.jsonl"}, InputError),
        ({"data.label": "lable"}, InputError),
        ({"members.count": 1000}, InputError),
        ({"member.count": 1}, InputError),
        ({"backbone.name": "minilmm"}, AssetError),
        ({"backbone.name": "/nowhere/model"}, AssetError),
        ({"distil.blocks": 9}, InputError),
    ],
)
def test_an_old_run_stays_whole_where_the_new_one_cannot_begin(uninterrupted, old, wrong, error):
    source, settings, _ = uninterrupted
    before = content_of(old)
    with pytest.raises(error):
        fit(source, old, {**settings, **wrong}, overwrite=True)
    assert content_of(old) == before


def test_too_many_blocks_are_told_before_anything_is_trained(uninterrupted, tmp_path):
    source, settings, _ = uninterrupted
    with pytest.raises(
        InputError, match=r"expected distil.blocks from 1 to 3, .* got 9; tune fewer, or the whole"
    ):
        fit(source, tmp_path / "run", {**settings, "distil.blocks": 9})
    assert not (tmp_path / "run").exists()


def test_an_old_run_is_replaced_where_asked(uninterrupted, old, no_plots):
    source, settings, _ = uninterrupted
    (old / "notes.txt").write_text("mine", encoding="utf-8")
    run = fit(source, old, {**settings, "distil.enabled": False, "seed": 9}, overwrite=True)
    assert not (old / "student").exists()
    assert not (old / "predictions" / "student").exists()
    assert (old / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert sorted(folder.name for folder in run.members_folder.iterdir()) == ["10", "11", "9"]
    assert run.finished


@pytest.mark.parametrize("broken", ["a.csv", "run"])
def test_a_folder_that_is_no_run_is_left_alone(uninterrupted, tmp_path, broken):
    source, settings, _ = uninterrupted
    folder = tmp_path / broken
    folder.mkdir()
    (folder / "thesis.txt").write_text("years", encoding="utf-8")
    for asked in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunFolderError, match="is not a run folder"):
            fit(source, folder, settings, **asked)
    assert content_of(folder) == {folder / "thesis.txt": b"years"}


@pytest.mark.slow
def test_the_python_interface_in_five_lines(tmp_path, standin, no_plots):
    data = jsonl(tmp_path / "reviews.jsonl", made_rows(90))
    run = credibly.fit(data, tmp_path / "run", quick(standin(), distil__optimiser__epochs=12))
    answer = credibly.load(run.path).predict(["a great and lovely film"])[0]
    scores = credibly.evaluate(run.path, data)["systems"]
    assert answer["label"] == "good"
    assert scores["student"]["accuracy"]["value"] > 0.6


def test_workshop_texts_do_not_leak_between_files():
    texts = {row["text"] for seed in range(6) for row in workshop.made_rows(100, seed)}
    assert len(texts) == 600
