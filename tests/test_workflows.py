"""Whole runs on a stand-in: what they leave, how they answer, and that nothing stops or spoils them."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import credibly.report
import workshop
from credibly.data import load_splits
from credibly.errors import InputError, RunFolderError
from credibly.parted import paired
from credibly.runs import Run, sha256
from credibly.settings import load_recipe
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.systems import answers, source_of
from credibly.workflows import evaluate, fit, load, predict_file, report
from credibly.workflows.answering import predicting
from workshop import CLASSES, jsonl, made_rows, quick

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
SHIFT_METRICS = {
    "accuracy", "f1_macro", "precision_macro", "recall_macro", "nll", "brier", "ece", "ece_debiased", "aurc",
    "auroc", "average_precision", "error_auroc", "mean_total", "mean_aleatoric", "mean_epistemic",
    "mean_variance", "nll_raters", "spearman_raters", "ood_auroc", "ood_auroc_epistemic",
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
        assert all(set(system) == SHIFT_METRICS for system in shifted.values())
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
