"""Hydra: one network with one head a member, whose record has as many members, in plain transformers."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import standins
from credibly.cli.main import app
from credibly.distil import Network, dirichlet_targets, lesson, transfer_texts, tune_network
from credibly.records import Examples, Predictions
from credibly.settings import BackboneSettings, DistilSettings
from credibly.uncertainty.decompose import decompose
from credibly.workflows import distil, evaluate, export, load

pytestmark = pytest.mark.slow

CLASSES = ("bad", "even", "good")
TEXTS = ["a fine film", "a bad and dull one", "neither good nor bad"]


@pytest.fixture(scope="module")
def taught(fitted, tmp_path_factory):
    """Return a run with Hydra beside direct training."""
    settings = {"distil.optimiser.epochs": 6, "distil.controls": ["direct", "hydra"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("credibly.report.render_html", lambda content: "<html></html>")
        return distil(fitted.run, tmp_path_factory.mktemp("hydra") / "run", settings)


def test_its_record_has_a_member_for_each_of_the_ensembles(taught):
    own, members = (taught.load_predictions(name, "test") for name in ("hydra", "members"))
    assert own.shape == members.shape
    epistemic = decompose(own).epistemic
    assert (epistemic > 0).all()


@pytest.mark.parametrize("tune", ["top_blocks", "full"])
def test_each_head_comes_to_say_what_its_member_says(tune, standin, tmp_path):
    # Member 0 always says the class, member 1 the next one: their mean tells neither.
    labels = np.arange(24) % 3
    texts = tuple(standins.made_texts(labels, words=3))
    examples = Examples(tuple(map(str, range(24))), texts, CLASSES, labels)
    probs = 0.05 + 0.85 * np.eye(3)[np.stack([labels, (labels + 1) % 3])]
    targets = dirichlet_targets(Predictions.from_probs(probs, examples), 100.0)
    backbone = BackboneSettings(name=str(standin()), precision="fp32")
    steps = {"epochs": 12, "batch_size": 8, "learning_rate": 0.003}
    distil_settings = DistilSettings(tune=tune, dropout=0.0, optimiser=steps)
    taught = lesson("hydra", np.eye(3, dtype=np.float32)[labels], targets, distil_settings)
    transfer = transfer_texts(texts, backbone, distil_settings, CLASSES)
    network, _ = tune_network(
        transfer, taught.loss, backbone, distil_settings, CLASSES, 0, False, heads=taught.heads
    )
    record = network.predict(examples)
    assert (record.log_probs.argmax(axis=2) == probs.argmax(axis=2)).mean() > 0.9
    network.save(tmp_path / "hydra")
    again = Network.open(tmp_path / "hydra", backbone, emits_dirichlet=False).predict(examples)
    np.testing.assert_allclose(again.log_probs, record.log_probs, atol=1e-5)


def test_it_is_a_system_with_an_epistemic_part(taught, fitted, no_plots):
    content = json.loads(taught.report_json.read_text(encoding="utf-8"))
    for name in ("hydra", "hydra+temperature"):
        assert content["systems"][name]["mean_epistemic"]["value"] > 0
    assert content["systems"]["direct"]["mean_epistemic"]["value"] == 0
    assert "hydra+temperature" in content["gains_kept"]["systems"]
    assert set(content["agreements"]) == {"student", "hydra"}
    assert set(content["agreements"]["hydra"]) == {"total", "aleatoric", "epistemic"}
    assert set(evaluate(taught.path, fitted.test)["systems"]) == set(content["systems"])


def test_plain_transformers_load_it_and_its_config_says_what_it_is(taught):
    folder = taught.model_folder("hydra")
    plain, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    assert plain.config.credibly_heads == 3
    assert plain.config.id2label[0] == "head 0: bad"
    assert plain.config.id2label[8] == "head 2: good"
    with torch.no_grad():
        logits = [plain(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    by_hand = torch.stack(logits).view(3, 3, 3).log_softmax(dim=-1).exp().mean(dim=1)
    np.testing.assert_allclose(load(taught.path, "hydra").answer(TEXTS).probs, by_hand, atol=1e-5)


def test_other_networks_have_one_head_and_say_nothing_of_it(taught):
    config = json.loads((taught.model_folder("direct") / "config.json").read_text(encoding="utf-8"))
    assert "credibly_heads" not in config
    settings = BackboneSettings(precision="fp32")
    assert Network.open(taught.student_folder, settings, emits_dirichlet=True).heads == 1


def test_the_command_predicts_with_it(taught, fitted):
    command = ["predict", str(taught.path), str(fitted.test), "--system", "hydra+temperature"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == len(taught.load_predictions("hydra", "test").ids)
    for row in rows:
        assert row["epistemic"] > 0
        assert row["total"] == pytest.approx(row["aleatoric"] + row["epistemic"], abs=1e-9)


@pytest.mark.slow
def test_it_is_exported_with_all_its_heads(taught, tmp_path):
    exported = load(export(taught.path, "hydra+temperature", output=tmp_path / "export")["folder"])
    own = load(taught.path, "hydra+temperature")
    np.testing.assert_allclose(exported.members(TEXTS), own.members(TEXTS), atol=0.03)
    assert exported.members(TEXTS).shape == (3, 3, 3)
