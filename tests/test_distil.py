"""Distilling: targets by hand, a loss proven twice, and a student that plain transformers can load."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from scipy.special import softmax
from torch.distributions import Dirichlet, kl_divergence

import standins
from credibly.backbones.loading import load_classifier
from credibly.distil import DirichletTargets, Network, dirichlet_targets, transfer_texts, tune_network
from credibly.distil.lessons import student_loss
from credibly.distil.losses import reverse_kl
from credibly.distil.network import last_layer
from credibly.errors import InputError
from credibly.records import Examples, Predictions
from credibly.settings import BackboneSettings, DistilSettings
from credibly.training import HISTORY
from credibly.tuning import cross_entropy, target_loss
from credibly.uncertainty.calibration.calibrate import Temperature

CLASSES = ("bad", "good", "even")
LABELS = np.arange(45) % 3
TEXTS = standins.made_texts(LABELS, words=3)
TARGETS = np.eye(3, dtype=np.float32)[LABELS]


def record_of(probs):
    probs = np.asarray(probs, dtype=np.float64)
    _, N, C = probs.shape
    names = tuple(map(str, range(C)))
    examples = Examples(tuple(map(str, range(N))), ("x",) * N, names, np.zeros(N, dtype=int))
    return Predictions.from_probs(probs, examples)


# Targets


def test_dirichlet_targets_by_hand():
    # Members say (0.9, 0.1) and (0.7, 0.3). Their mean is (0.8, 0.2); ln of it less the mean ln:
    # 0.8 x (ln 0.8 - (ln 0.9 + ln 0.7) / 2) + 0.2 x (ln 0.2 - (ln 0.1 + ln 0.3) / 2) = 0.0350675.
    # (C - 1) / (2 x 0.0350675) = 14.258.
    targets = dirichlet_targets(record_of([[[0.9, 0.1]], [[0.7, 0.3]]]), 1000)
    np.testing.assert_allclose(targets.mean, [[0.8, 0.2]], atol=1e-6)
    np.testing.assert_allclose(targets.precision, [14.258], rtol=1e-3)
    assert targets.mean.dtype == targets.precision.dtype == np.float32


def test_members_that_agree_give_the_cap_and_no_more():
    agree, differ = [[0.6, 0.3, 0.1]] * 4, [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]] * 2
    probs = np.stack([agree, differ], axis=1)
    targets = dirichlet_targets(record_of(probs), 50)
    assert targets.precision[0] == 50
    assert 0 < targets.precision[1] < 10
    single = dirichlet_targets(record_of([[[0.2, 0.8]]]), 30)
    assert single.precision.tolist() == [30]


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(2, 5), st.floats(0.1, 20), st.floats(0.5, 1e4))
def test_targets_are_a_mean_and_a_capped_precision_whoever_comes_first(seed, M, C, scale, cap):
    logits = np.random.default_rng(seed).normal(size=(M, 6, C)) * scale
    probs = softmax(logits, axis=-1)
    targets = dirichlet_targets(record_of(probs), cap)
    np.testing.assert_allclose(targets.mean, probs.mean(axis=0), atol=1e-5)
    assert (targets.precision > 0).all()
    assert (targets.precision <= np.float32(cap) * (1 + 1e-6)).all()
    turned = dirichlet_targets(record_of(probs[::-1]), cap)
    np.testing.assert_allclose(turned.precision, targets.precision, rtol=1e-4)


@pytest.mark.parametrize("alpha", [[12.0, 6.0], [30.0, 50.0, 20.0], [200.0, 100.0, 50.0, 50.0]])
def test_the_precision_of_drawn_members_is_found_again(alpha):
    drawn = np.random.default_rng(0).dirichlet(alpha, size=(4000, 1))
    found = dirichlet_targets(record_of(drawn), 1e6).precision[0]
    assert found == pytest.approx(sum(alpha), rel=0.1)


# The loss

precisions = st.floats(0.5, 1000)
rows_of_z = st.lists(st.floats(-6, 8), min_size=3, max_size=3)


def double_loss(z, mean, precision):
    """Reverse KL to the proxy Dirichlet less what does not depend on z, by torch.distributions."""
    alpha, beta = torch.exp(z) + 1, mean * precision + 1
    return kl_divergence(Dirichlet(alpha), Dirichlet(beta)) / precision


@given(rows_of_z, rows_of_z, st.integers(0, 100), precisions)
def test_the_loss_is_the_reverse_kl_up_to_a_constant(first, second, seed, precision):
    mean = torch.from_numpy(np.random.default_rng(seed).dirichlet([1, 1, 1]))
    pair = torch.tensor([first, second], dtype=torch.float64)
    ours = [reverse_kl(z[None], mean[None].float(), torch.tensor([precision])).item() for z in pair]
    theirs = [double_loss(z, mean, precision).item() for z in pair]
    assert ours[0] - ours[1] == pytest.approx(theirs[0] - theirs[1], abs=2e-3, rel=1e-3)


def test_the_loss_is_the_published_one_by_sampling():
    z = torch.tensor([[0.5, -1.0, 2.0], [3.0, 1.0, -2.0]])
    mean, precision = torch.tensor([[0.2, 0.1, 0.7], [0.5, 0.3, 0.2]]), torch.tensor([8.0, 40.0])
    alpha = torch.exp(z.double()) + 1
    torch.manual_seed(0)
    expected_log = Dirichlet(alpha).sample((400_000,)).log().mean(dim=0)
    to_uniform = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))
    published = (-(mean * expected_log).sum(dim=-1) + to_uniform / precision).mean()
    assert reverse_kl(z, mean, precision).item() == pytest.approx(published.item(), abs=5e-3)


@given(st.integers(0, 1000), st.integers(2, 6), precisions)
@settings_of_hypothesis(max_examples=20)
def test_the_loss_is_least_where_exp_z_is_mean_times_precision(seed, C, precision):
    mean = torch.from_numpy(np.random.default_rng(seed).dirichlet([2.0] * C)).float()[None]
    target = torch.log(mean * precision)
    z = torch.zeros(1, C, requires_grad=True)
    search = torch.optim.LBFGS([z], max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = double_loss(z.double(), mean.double(), precision).sum()
        loss.backward()
        return loss

    search.step(closure)
    # Found with the second implementation, in double precision; ours agrees that it is the minimum.
    torch.testing.assert_close(torch.exp(z), torch.exp(target), rtol=0.05, atol=0.05)
    at = target.clone().requires_grad_()
    lowest = reverse_kl(at, mean, torch.tensor([precision]))
    lowest.backward()
    assert at.grad.abs().max() < 2e-3
    for step in (0.3, -0.3):
        for c in range(C):
            moved = target.clone()
            moved[0, c] += step
            assert reverse_kl(moved, mean, torch.tensor([precision])) > lowest - 1e-5


@given(rows_of_z, st.integers(0, 100), precisions)
def test_gradients_are_those_of_double_precision(row, seed, precision):
    mean = torch.from_numpy(np.random.default_rng(seed).dirichlet([1, 1, 1]))[None]
    ours = torch.tensor([row], dtype=torch.float32, requires_grad=True)
    theirs = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    reverse_kl(ours, mean.float(), torch.tensor([precision])).backward()
    double_loss(theirs, mean, precision).sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("z", [[100.0, -100.0], [-1e4, -1e4], [1e4, 1e4], [0.0, 88.0], [-88.0, 19.9]])
@pytest.mark.parametrize("precision", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("mean", [[0.5, 0.5], [1.0, 0.0], [1e-6, 1 - 1e-6]])
def test_extreme_logits_give_finite_loss_and_gradient(z, precision, mean):
    given_z = torch.tensor([z], requires_grad=True)
    loss = reverse_kl(given_z, torch.tensor([mean]), torch.tensor([precision]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(given_z.grad).all()


def test_the_loss_is_a_mean_over_rows():
    z, mean = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.full((4, 3), 1 / 3)
    precision = torch.tensor([1.0, 5.0, 20.0, 100.0])
    each = [reverse_kl(z[i : i + 1], mean[i : i + 1], precision[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(reverse_kl(z, mean, precision), torch.stack(each).mean())


def test_cross_entropy_is_torchs():
    generator = torch.Generator().manual_seed(0)
    z, targets = torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator)
    targets /= targets.sum(dim=1, keepdim=True)
    torch.testing.assert_close(cross_entropy(z, targets), torch.nn.functional.cross_entropy(z, targets))
    assert cross_entropy(z.bfloat16(), targets).dtype == torch.float32


def test_losses_take_the_targets_of_their_rows():
    rows, z = torch.tensor([4, 0, 7]), torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    targets = DirichletTargets(
        softmax(np.random.default_rng(0).normal(size=(9, 3)), axis=1).astype(np.float32),
        np.arange(1, 10, dtype=np.float32),
    )
    labels = TARGETS[:9].copy()
    labels[7] = 0
    opinion = reverse_kl(z, torch.from_numpy(targets.mean[rows]), torch.from_numpy(targets.precision[rows]))
    truth = cross_entropy(z, torch.from_numpy(labels[rows]))
    torch.testing.assert_close(target_loss(labels)(z, rows), truth)
    torch.testing.assert_close(student_loss(targets)(z, rows), opinion)
    torch.testing.assert_close(student_loss(targets, labels)(z, rows), opinion)
    torch.testing.assert_close(student_loss(targets, labels, 0.25)(z, rows), 0.75 * opinion + 0.25 * truth)
    torch.testing.assert_close(student_loss(targets, None, 0.25)(z, rows), opinion)


# Tuning


def backbone_of(folder, **changed):
    return BackboneSettings(**{"name": str(folder), "precision": "fp32", **changed})


def distil_of(**changed):
    optimiser = {"epochs": 2, "batch_size": 10, "learning_rate": 3e-3, "warmup_share": 0.0}
    return DistilSettings(**{"blocks": 1, "dropout": 0.0, "optimiser": optimiser, **changed})


def prepared(folder, **changed):
    distil, backbone = distil_of(**changed), backbone_of(folder)
    return transfer_texts(TEXTS, backbone, distil, CLASSES), backbone, distil


def tuned(folder, loss, seed=0, dirichlet=False, rows=None, **changed):
    transfer, backbone, distil = prepared(folder, **changed)
    return tune_network(transfer, loss, backbone, distil, CLASSES, seed, dirichlet, rows)


def watching(loss, seen):
    def watched(z, rows):
        seen.append((rows.tolist(), z.detach().clone()))
        return loss(z, rows)

    return watched


def opinions(precision=20.0):
    mean = 0.8 * TARGETS + 0.2 / 3
    return DirichletTargets(mean, np.full(len(LABELS), precision, dtype=np.float32))


def weights_of(network):
    return {name: tensor.clone() for name, tensor in network.classifier.model.state_dict().items()}


def test_networks_of_one_seed_start_alike_and_see_the_same_texts_in_the_same_order(standin):
    direct, student = [], []
    tuned(standin(), watching(target_loss(TARGETS), direct), dropout=0.3)
    tuned(standin(), watching(student_loss(opinions()), student), dirichlet=True, dropout=0.3)
    assert [rows for rows, _ in direct] == [rows for rows, _ in student]
    torch.testing.assert_close(direct[0][1], student[0][1], atol=0, rtol=0)
    assert (direct[-1][1] - student[-1][1]).abs().max() > 1e-3
    other = []
    tuned(standin(), watching(target_loss(TARGETS), other), seed=1)
    assert [rows for rows, _ in other] != [rows for rows, _ in direct]


def test_every_epoch_shows_every_text_once(standin):
    seen = []
    _, history = tuned(standin(), watching(target_loss(TARGETS), seen))
    assert len(seen) == 10
    for epoch in range(2):
        rows = [row for batch, _ in seen[5 * epoch : 5 * epoch + 5] for row in batch]
        assert sorted(rows) == list(range(45))
    assert history.records[-1].step == 10
    assert history.records[-1].epoch == 2.0


def test_a_network_of_some_rows_takes_as_many_steps_going_round_them(standin):
    seen, rows = [], np.array([3, 14, 15, 9, 26, 5, 35, 8, 40, 7, 11, 2])
    _, history = tuned(standin(), watching(target_loss(TARGETS), seen), rows=rows)
    assert history.records[-1].step == 10
    shown = np.bincount([row for batch, _ in seen for row in batch], minlength=45)
    assert set(np.flatnonzero(shown)) == set(rows.tolist())
    assert shown[rows].max() - shown[rows].min() <= 1


@pytest.mark.parametrize("tune", ["top_blocks", "full"])
@pytest.mark.parametrize("dirichlet", [False, True])
def test_a_network_learns_its_targets(standin, tune, dirichlet):
    loss = student_loss(opinions()) if dirichlet else target_loss(TARGETS)
    optimiser = {"epochs": 12, "batch_size": 10, "learning_rate": 5e-3}
    network, history = tuned(standin(), loss, dirichlet=dirichlet, tune=tune, optimiser=optimiser)
    z = network.logits(TEXTS)
    assert (z.argmax(axis=1) == LABELS).mean() > 0.95
    assert history.records[-1].loss < history.records[0].loss
    if dirichlet:
        # exp(z) comes to stand for the targets' precision of 20.
        assert 10 < np.median(np.exp(z).sum(axis=1)) < 40


@pytest.mark.parametrize("tune", ["top_blocks", "full"])
def test_only_the_top_blocks_move_unless_all_are_asked_for(standin, tune):
    before = weights_of(
        tuned(standin(), target_loss(TARGETS), tune=tune, optimiser={"learning_rate": 1e-30})[0]
    )
    after = weights_of(tuned(standin(), target_loss(TARGETS), tune=tune)[0])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    low = {name for name in before if ".embeddings.word" in name or ".layer.0." in name}
    assert low
    assert (low <= changed) if tune == "full" else not (low & changed)
    assert {"classifier.weight", "classifier.bias"} <= changed


def test_tuning_repeats_exactly_and_disturbs_no_one(standin):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = (weights_of(tuned(standin(), target_loss(TARGETS), dropout=0.3)[0]) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_dropout_is_drawn_from_the_seed(standin):
    def after(seed, dropout, others=0):
        seen = []
        torch.manual_seed(others)
        tuned(standin(), watching(target_loss(TARGETS), seen), seed=seed, dropout=dropout)
        return seen[0][1]

    torch.testing.assert_close(after(0, 0.3), after(0, 0.3, others=99), atol=0, rtol=0)
    assert (after(0, 0.3) - after(0, 0.0)).abs().max() > 1e-3


def test_tuned_networks_are_whole_again_and_ready_to_predict(standin):
    network, _ = tuned(standin(), target_loss(TARGETS))
    model = network.classifier.model
    assert not any(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    logits = network.logits(TEXTS)
    order = np.random.default_rng(0).permutation(45)
    np.testing.assert_allclose(network.logits([TEXTS[i] for i in order]), logits[order], atol=1e-5)
    assert network.logits([]).shape == (0, 3)


# The student as a folder


@pytest.fixture(scope="module")
def students(standin):
    """Return a function that gives a tuned student of an architecture and its history."""
    made = {}

    def student(architecture="bert"):
        if architecture not in made:
            made[architecture] = tuned(standin(architecture), student_loss(opinions()), dirichlet=True)
        return made[architecture]

    return student


FOLDED = Temperature(1.7, 0.9)


def plain_logits(folder):
    """What anyone gets who loads the folder with transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        return model(**batch).logits.numpy(), model.config


@pytest.mark.parametrize("architecture", standins.ARCHITECTURES)
def test_plain_transformers_give_the_calibrated_student(students, architecture, tmp_path):
    network, history = students(architecture)
    raw = network.logits(TEXTS)
    network.save(tmp_path / "student", history, FOLDED)
    z, config = plain_logits(tmp_path / "student")
    np.testing.assert_allclose(z, raw / 1.7 + 0.9, atol=1e-5)
    np.testing.assert_allclose(softmax(z, axis=1), softmax(raw / 1.7, axis=1), atol=1e-5)
    assert config.id2label == dict(enumerate(CLASSES))
    assert config.label2id == {name: index for index, name in enumerate(CLASSES)}
    assert config.problem_type == "single_label_classification"


@pytest.mark.parametrize("architecture", standins.ARCHITECTURES)
def test_an_opened_student_gives_its_raw_logits_back(students, architecture, tmp_path):
    network, history = students(architecture)
    network.save(tmp_path / "student", history, FOLDED)
    backbone = network.classifier
    settings = BackboneSettings(name="unused", precision="fp32")
    opened = Network.open(tmp_path / "student", settings, emits_dirichlet=True, folded=FOLDED)
    np.testing.assert_allclose(opened.logits(TEXTS), network.logits(TEXTS), atol=2e-5)
    unaware = Network.open(tmp_path / "student", settings, emits_dirichlet=True)
    np.testing.assert_allclose(unaware.logits(TEXTS), network.logits(TEXTS) / 1.7 + 0.9, atol=1e-5)
    assert opened.parameters == network.parameters == sum(p.numel() for p in backbone.model.parameters())


@pytest.mark.parametrize("architecture", standins.ARCHITECTURES)
def test_half_precision_neither_rounds_logits_nor_loses_a_folded_calibration(
    students, architecture, tmp_path
):
    network, _ = students(architecture)
    network.save(tmp_path / "student", calibration=FOLDED)
    settings = BackboneSettings(name="unused", precision="bf16")
    network.save(tmp_path / "raw")
    rough = Network.open(tmp_path / "raw", settings, emits_dirichlet=True)
    opened = Network.open(tmp_path / "student", settings, emits_dirichlet=True, folded=FOLDED)
    exact, found = network.logits(TEXTS), rough.logits(TEXTS)
    np.testing.assert_allclose(opened.logits(TEXTS), found, atol=1e-4)
    np.testing.assert_allclose(found, exact, atol=0.3)
    assert np.abs(found - exact).max() > 1e-4
    assert len(np.unique(found)) > 0.9 * len(np.unique(exact))
    assert not any(module._forward_hooks for module in rough.classifier.model.modules())


def test_saving_leaves_the_network_as_it_is(students, tmp_path):
    network, history = students()
    before, raw = weights_of(network), network.logits(TEXTS)
    network.save(tmp_path / "student", history, FOLDED)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(network).items())
    np.testing.assert_array_equal(network.logits(TEXTS), raw)


def test_the_folder_holds_what_it_should_and_is_replaced_whole(students, tmp_path):
    network, history = students()
    for calibration in (FOLDED, Temperature()):
        network.save(tmp_path / "student", history, calibration)
    assert sorted(file.name for file in (tmp_path / "student").iterdir()) == [
        "config.json", HISTORY, "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    lines = (tmp_path / "student" / HISTORY).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))
    np.testing.assert_allclose(plain_logits(tmp_path / "student")[0], network.logits(TEXTS), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_saving_says_nothing(students, tmp_path, capfd):
    network, history = students()
    network.save(tmp_path / "student", history)
    assert capfd.readouterr() == ("", "")


def test_a_hugging_face_pipeline_serves_the_student(students, tmp_path):
    from transformers import pipeline

    network, _ = students()
    network.save(tmp_path / "student", calibration=FOLDED)
    serve = pipeline("text-classification", str(tmp_path / "student"), top_k=None)
    expected = softmax(network.logits(TEXTS[:4]) / 1.7, axis=1)
    for answer, probs in zip(serve(TEXTS[:4]), expected, strict=True):
        found = {item["label"]: item["score"] for item in answer}
        np.testing.assert_allclose([found[name] for name in CLASSES], probs, atol=1e-5)


def test_a_student_emits_a_dirichlet_and_a_control_does_not(students):
    network, _ = students()
    examples = Examples(tuple(map(str, range(45))), tuple(TEXTS), CLASSES, LABELS)
    predictions = network.predict(examples, source="student")
    z = network.logits(TEXTS)
    np.testing.assert_allclose(predictions.concentrations, np.exp(z), rtol=1e-5)
    np.testing.assert_allclose(np.exp(predictions.log_probs[0]), softmax(z, axis=1), atol=1e-6)
    assert predictions.provenance == {"source": "student"}
    np.testing.assert_array_equal(predictions.labels, LABELS)
    control = Network(network.classifier, emits_dirichlet=False).predict(examples)
    assert control.concentrations is None
    np.testing.assert_array_equal(control.log_probs, predictions.log_probs)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_last_layer_without_bias_holds_the_temperature_and_the_offset_stays_beside_it(
    standin, tmp_path, kind
):
    backbone = BackboneSettings(name=str(standin(kind)), precision="fp32")
    network = Network(load_classifier(backbone, CLASSES, dropout=0.0, seed=0), emits_dirichlet=True)
    assert network.classifier.model.score.bias is None
    raw = network.logits(TEXTS[:4])
    network.save(tmp_path / "student", calibration=FOLDED)
    opened = Network.open(tmp_path / "student", backbone, emits_dirichlet=True, folded=FOLDED)
    np.testing.assert_allclose(opened.logits(TEXTS[:4]), raw, rtol=1e-4, atol=1e-5)
    plain = Network.open(tmp_path / "student", backbone, emits_dirichlet=True).logits(TEXTS[:4])
    np.testing.assert_allclose(plain, raw / FOLDED.temperature, rtol=1e-4, atol=1e-5)


def test_a_model_without_a_layer_of_classes_is_refused(students):
    with pytest.raises(InputError, match="no linear layer with 17 outputs"):
        last_layer(students()[0].classifier.model, 17)
