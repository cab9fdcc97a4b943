"""The runtime: an exported run answers without torch or transformers, and refuses what is damaged."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import credibly
import standins
from console import BLOCKED, command  # noqa: F401
from credibly import workflows
from credibly.data import load_splits
from credibly.encoding import encoded
from credibly.errors import InputError, RunFolderError
from credibly.export import choosing
from credibly.export.parity import Parity
from credibly.parted import filled, paired
from credibly.records import unlabelled
from credibly.runs import Run
from credibly.runtime import GraphFile
from credibly.runtime.model import Runtime
from credibly.runtime.tokenizer import PlainTokenizer
from credibly.uncertainty.decompose import decompose
from credibly.workflows.answering.opening import open_source

TEXTS = [*standins.made_texts(np.arange(30) % 3, seed=9, words=20), "good", "dull " * 200]
STUDENT, ENSEMBLE = "student+temperature", "ensemble+temperature"


@pytest.fixture(scope="module")
def runtime(exported):
    return Runtime.open(exported / "export")


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported / "export", tmp_path / "export")


# Texts


def byte_level():
    """A tokenizer that reads any script, byte by byte, trained on a few words of several."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=alphabet
    )
    inner.train_from_iterator(
        ["the film was good", "фильм был хорош", "映画は良かった", "كان الفيلم جيدا"], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=64
    )


TRAINED = {
    "wordpiece": standins.tokenizer(),
    "roberta": standins.tokenizer(architecture="roberta"),
    "causal": standins.tokenizer(causal=True),
    "bytes": byte_level(),
}
TRAINED["causal"].pad_token = TRAINED["causal"].eos_token


def plain(name, **changed):
    """The runtime's tokenizer, from the file that the trained one writes."""
    own = TRAINED[name]
    known = (own.unk_token_id, own.eos_token_id, own.pad_token_id)
    settings = GraphFile(
        file="",
        tokenizer="",
        max_tokens=64,
        padding_id=own.pad_token_id,
        unknown_id=next(index for index in known if index is not None),
        tells_pairs_apart="token_type_ids" in own.model_input_names,
        **changed,
    )
    return PlainTokenizer(Tokenizer.from_str(own.backend_tokenizer.to_str()), settings)


PLAIN = {name: plain(name) for name in TRAINED}
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
words = st.lists(st.sampled_from(standins.WORDS), max_size=40).map(" ".join)
SCRIPTS = [
    "Das war großartig – wirklich!",
    "c’était génial 🎬🍿",
    "это был хороший фильм",
    "映画は良かった。",
    "电影很好看",
    "كان الفيلم جيدا",
    "फ़िल्म अच्छी थी",
    "ภาพยนตร์ดีมาก",
    "영화가 좋았다",
    "τὸ φιλμ ἦν καλόν",
    "a\u0301 b\u200d c\ufeff",
    "tab\tand\nline\r\nends\x00",
    "👩\u200d👩\u200d👧 family",
    "ﬁne ligature ½ ①",
    "good " * 100,
    " ",
    "",
]


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("max_tokens", [3, 8, 64])
def test_texts_of_all_scripts_have_the_ids_of_the_trained_tokenizer(name, max_tokens):
    assert encoded(PLAIN[name], SCRIPTS, max_tokens) == encoded(TRAINED[name], SCRIPTS, max_tokens)


@pytest.mark.parametrize("name", TRAINED)
@given(texts=st.lists(anything | words, min_size=1, max_size=4), max_tokens=st.integers(3, 64))
def test_any_text_has_the_ids_of_the_trained_tokenizer(name, texts, max_tokens):
    assert encoded(PLAIN[name], texts, max_tokens) == encoded(TRAINED[name], texts, max_tokens)


@pytest.mark.parametrize("name", ["wordpiece", "roberta", "bytes"])
@given(first=anything | words, second=anything | words, cut=st.booleans(), max_tokens=st.integers(5, 40))
def test_templates_and_pairs_have_the_ids_of_the_trained_tokenizer(name, first, second, cut, max_tokens):
    texts = [
        paired(first, second, cut_first=cut),
        filled("so {a} with {b} of", {"a": first, "b": second}, "a" if cut else "b"),
    ]
    assert encoded(PLAIN[name], texts, max_tokens) == encoded(TRAINED[name], texts, max_tokens)


def test_texts_that_lose_their_beginning_lose_the_same(monkeypatch):
    monkeypatch.setattr(TRAINED["wordpiece"], "truncation_side", "left")
    found = encoded(plain("wordpiece", truncation_side="left"), TEXTS, 8)
    assert found == encoded(TRAINED["wordpiece"], TEXTS, 8)
    assert found != encoded(PLAIN["wordpiece"], TEXTS, 8)


def test_a_text_that_is_no_unicode_is_refused(runtime):
    with pytest.raises(InputError, match="valid Unicode"):
        runtime.logits(["good \ud800"])


# Answers


def test_a_runtime_says_what_it_is(runtime):
    assert (runtime.name, runtime.classes) == (STUDENT, ("bad", "even", "good"))
    assert runtime.is_dirichlet
    assert runtime.max_tokens == standins.POSITIONS
    assert runtime.count == 1


def test_the_record_is_that_of_the_network(exported, runtime):
    network = open_source(Run.open(exported), "student")
    examples = unlabelled(TEXTS, runtime.classes)
    expected, found = network.predict(examples), runtime.raw_predictions(examples)
    np.testing.assert_allclose(np.exp(found.log_probs), np.exp(expected.log_probs), atol=0.03)
    difference = np.log(found.concentrations) - np.log(expected.concentrations)
    assert np.abs(difference).mean() < 0.1


def test_predictions_are_calibrated(exported, runtime):
    answer = workflows.load(exported, runtime="onnx").answer(TEXTS)
    record = runtime.predictions(TEXTS)
    assert record.shape == (1, len(TEXTS), 3)
    np.testing.assert_allclose(np.exp(record.log_probs[0]), answer.probs, atol=1e-5)
    parts = decompose(record)
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(getattr(parts, name), getattr(answer.uncertainty, name), atol=1e-5)
    np.testing.assert_allclose(
        runtime.logits(TEXTS), np.log(record.concentrations), atol=1e-5, err_msg="log-concentrations"
    )


def test_what_is_said_of_a_text_does_not_depend_on_those_beside_it(runtime):
    together = runtime.logits(TEXTS)
    alone = np.concatenate([runtime.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_threads_change_nothing(exported, runtime):
    one, three = (Runtime.open(exported / "export", threads=count) for count in (1, 3))
    np.testing.assert_allclose(one.logits(TEXTS * 20), three.logits(TEXTS * 20), atol=1e-4)


def test_no_texts_have_no_logits(runtime):
    assert runtime.logits([]).shape == (0, 3)
    assert runtime.predictions([]).shape == (1, 0, 3)


def test_members_are_those_of_the_run(exported, runtime):
    members = Runtime.open(runtime.members_folder)
    examples = unlabelled(TEXTS, runtime.classes)
    expected = open_source(Run.open(exported), "members").predict(examples)
    found = members.raw_predictions(examples)
    assert members.count == 3
    assert not members.is_dirichlet
    assert members.logits(TEXTS).shape == (3, len(TEXTS), 3)
    np.testing.assert_allclose(np.exp(found.log_probs), np.exp(expected.log_probs), atol=0.03)


@pytest.mark.parametrize("system", [STUDENT, "student", ENSEMBLE, "ensemble", "mean_logits", "majority_vote"])
def test_an_export_answers_as_every_system_that_reads_its_logits(exported, system):
    expected = workflows.load(exported, system, runtime="torch").answer(TEXTS)
    found = workflows.load(exported, system, runtime="onnx").answer(TEXTS)
    close = np.abs(found.probs - expected.probs).max(axis=1) < 0.03
    # A vote of three moves by thirds where a member's two likeliest classes are all but equal.
    assert close.mean() >= (0.9 if system == "majority_vote" else 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("system", [STUDENT, "ensemble"])
def test_an_export_on_integers_keeps_through_the_runtime_what_its_parity_says(
    exported, tmp_path, monkeypatch, system
):
    """On the very texts by which parity was judged; of what was tried and passed the last is taken."""
    run = Run(shutil.copytree(exported, tmp_path / "run"))
    tries = itertools.count(1)
    monkeypatch.setattr(choosing, "rate", lambda graph, tokens: float(next(tries)))
    content = workflows.export(run.path, members=True, overwrite=True)
    whole = content if system == STUDENT else content["members"]
    assert whole["precision"] in ("int8", "mixed")
    texts = load_splits(run.recipe.data, run.recipe.seed, run.recipe.members.count).calibration.texts
    torch_says, runtime_says = (
        workflows.load(run.path, system, runtime=engine).answer(texts) for engine in ("torch", "onnx")
    )
    parity = Parity.between(torch_says, runtime_says)
    assert parity.equal_labels >= 0.99
    assert parity.within >= 0.99


def test_an_export_has_only_what_was_exported(exported):
    with pytest.raises(InputError, match=r"the export has no system 'direct'.*it has student"):
        workflows.load(exported, "direct", runtime="onnx")


def test_promises_are_fitted_on_what_the_export_itself_answers(exported, copied):
    wanted = workflows.Wanted(coverage=0.5, sets=0.8)
    for place in (exported, copied):
        predictor = workflows.load(place, wanted=wanted, runtime="onnx")
        rows = predictor.predict(TEXTS)
        assert {"answered", "reason", "set"} <= set(rows[0])
    record = predictor.record(unlabelled(TEXTS, predictor.class_names))
    bare = workflows.load(copied, "student", runtime="onnx").answer(TEXTS)
    np.testing.assert_allclose(np.exp(record.log_probs[0]), bare.probs, atol=1e-5)
    answered = bare.uncertainty.total <= predictor.promises.abstention.threshold
    assert [row["answered"] for row in rows] == answered.tolist()


def test_torch_answers_where_it_is_installed_and_a_folder_alone_by_onnx(exported, copied):
    network = workflows.load(exported).record.__self__
    assert type(network).__name__ == "Network"
    assert isinstance(workflows.load(copied).record.__self__, Runtime)
    with pytest.raises(RunFolderError, match="leave --runtime out"):
        workflows.load(copied, runtime="torch")


def test_the_service_runs_on_the_export_where_it_has_the_system(exported, fitted):
    from credibly.workflows.answering.loading import engine_of

    assert engine_of(exported, None, "auto") == engine_of(exported, ENSEMBLE, "auto") == "onnx"
    assert engine_of(exported, "direct", "auto") == "auto"
    assert engine_of(exported, None, "torch") == "torch"
    assert engine_of(fitted.run, None, "auto") == "auto"


# Without torch


def without_torch(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(credibly.__file__).parents[1])}
    call = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_predict_needs_no_torch_on_an_exported_run(exported, fitted):
    options = ("predict", exported, fitted.test, "--coverage", "0.5", "--sets", "0.8")
    done = without_torch(*options)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    predictor = workflows.load(exported, wanted=workflows.Wanted(coverage=0.5, sets=0.8), runtime="onnx")
    expected = list(workflows.predict_file(predictor, fitted.test))
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-4)
        assert row["epistemic"] == pytest.approx(other["epistemic"], abs=1e-4)


@pytest.mark.slow
def test_predict_without_torch_on_a_run_that_was_not_exported_says_what_mends_it(fitted):
    done = without_torch("predict", fitted.run, fitted.test)
    assert done.returncode == 1
    assert 'pip install "credibly[train]"' in done.stderr
    assert "Traceback" not in done.stderr


# Bad input


def test_a_graph_cut_short_is_refused(copied):
    file = copied / "model.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunFolderError, match=r"model\.onnx is damaged: its sha256 .* credibly export RUN"):
        Runtime.open(copied)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "calibration.safetensors"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name} is missing"):
        Runtime.open(copied)


def changed(folder, **values):
    file = folder / "export.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_another_format_version_is_refused(copied):
    changed(copied, format_version=2)
    with pytest.raises(RunFolderError, match="export format 2; this version of credibly reads format 1"):
        Runtime.open(copied)


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_description_is_refused(copied, content):
    (copied / "export.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunFolderError, match="damaged"):
        Runtime.open(copied)


@pytest.mark.parametrize("values", [{"graphs": []}, {"classes": 3}, {"unknown": 1}])
def test_a_description_of_something_else_is_refused(copied, values):
    changed(copied, **values)
    with pytest.raises(RunFolderError, match=r"export\.json is damaged \(1 problems\)"):
        Runtime.open(copied)


def test_a_file_that_is_no_graph_is_refused(copied):
    from credibly.runs import sha256

    (copied / "model.onnx").write_bytes(b"no graph")
    files = json.loads((copied / "export.json").read_text(encoding="utf-8"))["files"]
    changed(copied, files={**files, "model.onnx": sha256(copied / "model.onnx")})
    with pytest.raises(RunFolderError, match="cannot be run"):
        Runtime.open(copied)


def test_a_run_that_was_not_exported_is_told(fitted):
    with pytest.raises(RunFolderError, match="credibly export"):
        workflows.load(fitted.run, runtime="onnx")


def test_integers_for_newer_processors_are_warned_of_on_older_ones(copied, monkeypatch, caplog):
    graphs = json.loads((copied / "export.json").read_text(encoding="utf-8"))["graphs"]
    for needs, old, warned in ((True, True, True), (True, False, False), (False, True, False)):
        changed(copied, graphs=[{**graphs[0], "needs_vnni": needs}])
        monkeypatch.setattr("credibly.runtime.graph.multiplies_integers", lambda old=old: not old)
        caplog.clear()
        with caplog.at_level("WARNING", "credibly.runtime.graph"):
            Runtime.open(copied)
        assert ("VNNI" in caplog.text) == warned
