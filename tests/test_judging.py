"""The report for saved predictions: the same figures as for members that were trained here."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from credibly.errors import DataError, InputError
from credibly.records import Examples, Predictions
from credibly.runs import write_text
from credibly.settings import EvaluationSettings
from credibly.uncertainty.scoring.intervals import score
from credibly.uncertainty.systems import answers
from credibly.workflows import evaluate_predictions

pytestmark = pytest.mark.slow

QUICK = EvaluationSettings(resamples=20)
N, M = 900, 3


def made(seed=0, sharpness=2.0):
    """Members' probabilities, (M, N, 2), too sure of themselves by a factor in their logits, and labels."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 1.5, N)
    labels = (random.random(N) < 1 / (1 + np.exp(-z))).astype(int)
    logits = sharpness * (z + random.normal(0, 0.3, (M, N)))
    positive = 1 / (1 + np.exp(-logits))
    return np.stack([1 - positive, positive], axis=-1), labels


def table(folder, probs, labels, **more):
    rows = [
        {"id": f"t{row}", "member": member, "label": ["no", "yes"][labels[row]]}
        | {f"probability.{name}": probs[member, row, place] for place, name in enumerate(["no", "yes"])}
        | {name: values[row] for name, values in more.items()}
        for member in range(len(probs))
        for row in range(N)
    ]
    pd.DataFrame(rows).to_csv(folder / "p.csv", index=False)
    return folder / "p.csv"


def test_figures_are_those_of_the_record(tmp_path, no_plots):
    probs, labels = made()
    report = evaluate_predictions(table(tmp_path, probs, labels), evaluation=QUICK)
    ids = tuple(f"t{row}" for row in range(N))
    record = Predictions.from_probs(probs, Examples(ids, ids, ("no", "yes"), labels))
    for system in ("single", "ensemble", "majority_vote"):
        expected = score(answers(system, record, {}), resamples=20)
        for metric in ("accuracy", "nll", "ece_debiased", "aurc", "mean_epistemic"):
            found = report["systems"][system][metric]
            assert found == pytest.approx(expected[metric].as_json(), abs=1e-5)
    assert report["members"] == M
    assert any("the texts are not in the file" in note for note in report["notes"])


def test_a_file_that_is_its_own_calibration_set_is_cross_fitted_and_said_so(tmp_path, no_plots):
    probs, labels = made()
    report = evaluate_predictions(table(tmp_path, probs, labels), evaluation=QUICK)
    mended, raw = report["systems"]["cross_fitted_temperature"], report["systems"]["ensemble"]
    assert mended["nll"]["value"] < raw["nll"]["value"] - 0.02
    assert mended["ece_debiased"]["value"] < raw["ece_debiased"]["value"] / 2
    assert mended["accuracy"]["value"] == pytest.approx(raw["accuracy"]["value"], abs=0.01)
    assert any("the other four" in note for note in report["notes"])


@pytest.mark.parametrize("kind", ["entropy_temperature", "vector", "dirichlet", "isotonic"])
def test_another_calibrator_can_be_cross_fitted(tmp_path, no_plots, kind):
    probs, labels = made()
    report = evaluate_predictions(table(tmp_path, probs[:1], labels), evaluation=QUICK, calibrator=kind)
    mended, raw = report["systems"][f"cross_fitted_{kind}"], report["systems"]["ensemble"]
    assert mended["nll"]["value"] < raw["nll"]["value"] - 0.02
    assert "cross_fitted_temperature" not in report["systems"]
    assert any(f"{kind} calibrator that was fitted on the other four" in note for note in report["notes"])


@pytest.mark.slow
def test_auto_cross_fits_its_choice_and_says_what_it_left_out(tmp_path, no_plots):
    probs, labels = made()
    report = evaluate_predictions(table(tmp_path, probs[:1], labels), evaluation=QUICK, calibrator="auto")
    assert report["systems"]["cross_fitted_auto"]["ece_debiased"]["value"] < 0.03
    assert any(
        note.startswith("calibrator identity: NLL ") and "left out" in note for note in report["notes"]
    )
    assert any(note.startswith("calibrator temperature: ") and "taken" in note for note in report["notes"])
    assert any("chosen and fitted on the other four" in note for note in report["notes"])


def test_where_nothing_helps_auto_shows_nothing_and_says_so(tmp_path, no_plots):
    probs, labels = made(sharpness=1.0)
    report = evaluate_predictions(table(tmp_path, probs[:1], labels), evaluation=QUICK, calibrator="auto")
    assert not any(name.startswith("cross_fitted") for name in report["systems"])
    assert "no calibrator lowers the NLL beyond noise, so none is shown" in report["notes"]


def test_too_few_rows_to_cross_fit_are_told_where_it_was_asked_for(tmp_path, no_plots):
    probs, labels = made()
    file = table(tmp_path, probs[:1], labels)
    pd.read_csv(file).head(60).to_csv(file, index=False)
    with pytest.raises(
        InputError, match="expected 100 labelled rows or more to cross-fit a calibrator, got 60"
    ):
        evaluate_predictions(file, evaluation=QUICK, calibrator="vector")
    assert "cross_fitted_temperature" not in evaluate_predictions(file, evaluation=QUICK)["systems"]


def test_a_group_on_which_the_probabilities_fail_is_found(tmp_path, no_plots):
    probs, labels = made(sharpness=1.0)
    groups = np.where(np.arange(N) < 100, "strange", "usual")
    labels = np.where(groups == "strange", 1 - labels, labels)
    report = evaluate_predictions(table(tmp_path, probs, labels, group=groups), evaluation=QUICK)
    named = {own["name"]: own for own in report["slices"] if own["kind"] == "group"}
    assert named["strange"]["adjusted_p"] < 0.001
    assert named["strange"]["gap"]["low"] > 0.2
    assert any("group strange, 100 texts: too sure by" in finding.lower() for finding in report["findings"])


def test_a_page_is_written_on_request_and_rows_without_labels_are_told(tmp_path, no_plots):
    probs, labels = made()
    file = table(tmp_path, probs, labels)
    frame = pd.read_csv(file)
    frame.loc[frame["id"].isin(["t1", "t2"]), "label"] = None
    frame.to_csv(file, index=False)
    report = evaluate_predictions(file, html=tmp_path / "page.html", evaluation=QUICK)
    assert (tmp_path / "page.html").is_file()
    assert "2 of 900 rows have no label" in report["notes"]
    frame["label"] = None
    frame.to_csv(file, index=False)
    with pytest.raises(DataError, match="expected rows with a true label, got 0 of 900; name its column"):
        evaluate_predictions(file, evaluation=QUICK)


def test_a_page_never_takes_a_folders_place(tmp_path):
    file = table(tmp_path, *made())
    with pytest.raises(InputError, match="expected a file to write to, got the folder"):
        evaluate_predictions(file, html=tmp_path, evaluation=QUICK)
    assert file.is_file()
    with pytest.raises(InputError, match="expected a file to write to"):
        write_text(tmp_path, "page")
    assert file.is_file()


def test_no_model_and_no_torch_are_needed(tmp_path):
    file = table(tmp_path, *made())
    program = (
        "import sys\n"
        "sys.modules.update(torch=None, transformers=None)\n"
        "from credibly.settings import EvaluationSettings\n"
        "from credibly.workflows import evaluate_predictions\n"
        "print(evaluate_predictions(sys.argv[1], evaluation=EvaluationSettings(resamples=2))['members'])"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_texts_that_come_again_tell_nothing_more(tmp_path, no_plots):
    """Each of 100 texts four times over: as rows they would narrow every interval to half."""
    probs, labels = made()
    once = np.arange(N) < 100
    few = probs[:, once], labels[once]
    texts = [f"A text of its own, number {row}." for row in range(N)]
    rows = np.concatenate([np.arange(100)] * 4)
    alone, copied = (
        evaluate_predictions(file, evaluation=EvaluationSettings(resamples=400), calibrator="temperature")
        for file in (
            frame(tmp_path / "once.csv", *few, texts[:100]),
            frame(tmp_path / "copied.csv", few[0][:, rows], few[1][rows], [texts[row] for row in rows]),
        )
    )
    widths = [
        np.ptp([report["systems"]["ensemble"]["nll"][end] for end in ("low", "high")])
        for report in (alone, copied)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert alone["dependence"] is None
    assert copied["dependence"]["groups"] == 100
    assert any(finding.startswith("Equal texts, and texts that") for finding in copied["findings"])
    assert not any(own["kind"] == "group" for own in copied["slices"])


def frame(path, probs, labels, texts):
    rows = [
        {"id": f"t{row}", "member": member, "text": texts[row], "label": ["no", "yes"][labels[row]]}
        | {f"probability.{name}": probs[member, row, place] for place, name in enumerate(["no", "yes"])}
        for member in range(len(probs))
        for row in range(len(labels))
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_rows_without_a_label_are_not_counted_as_judged(tmp_path, no_plots):
    probs, labels = made()
    path = table(tmp_path, probs, labels)
    rows = pd.read_csv(path)
    rows["label"] = rows["label"].where(rows["id"].isin([f"t{row}" for row in range(30)]))
    rows.to_csv(path, index=False)
    report = evaluate_predictions(path, evaluation=QUICK)
    assert (report["rows"]["test"], report["rows_labelled"]) == (N, 30)
    assert " of 30 test texts correctly" in report["headline"]
    assert not any(f"{N} rows can tell" in finding for finding in report["findings"])


def test_a_handful_of_mistakes_among_the_labelled_rows_bears_no_finding(tmp_path, no_plots):
    probs, labels = made()
    wrong = np.flatnonzero(probs.mean(axis=0).argmax(axis=-1) != labels)
    right = np.flatnonzero(probs.mean(axis=0).argmax(axis=-1) == labels)
    known = {f"t{row}" for row in (*wrong[:3], *right[:20])}
    path = table(tmp_path, probs, labels)
    rows = pd.read_csv(path)
    rows["label"] = rows["label"].where(rows["id"].isin(known))
    rows.to_csv(path, index=False)
    report = evaluate_predictions(path, evaluation=QUICK)
    assert report["systems"]["ensemble"]["error_auroc"]["low"] is not None
    assert not any("points at its mistakes" in finding for finding in report["findings"])
