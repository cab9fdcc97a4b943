"""A plan tells beforehand what a fit takes, from the model's structure alone, and what to change."""

import json
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from transformers import AutoModelForCausalLM

import standins
from credibly.backbones import BlockCut, load_backbone, load_classifier
from credibly.backbones.attention import attention_for_gradient
from credibly.backbones.footprint import GAPS, tuned_needs
from credibly.backbones.outline import Texts, outline
from credibly.batching import pad, padded_length, tokenise
from credibly.data import load_splits
from credibly.errors import AssetError, InputError
from credibly.members import SOURCES, TrainingData, lora
from credibly.members.common import count_weights
from credibly.settings import (
    BackboneSettings,
    DropoutSettings,
    FullSettings,
    HeadsSettings,
    LaplaceSettings,
    LoraSettings,
    SnapshotsSettings,
    TopBlocksSettings,
)
from credibly.settings.dotted import with_values
from credibly.workflows import fit, make_recipe, plan
from credibly.workflows.common.contents import folder_bytes
from credibly.workflows.planning import check_room, machine
from credibly.workflows.planning.changes import SHORTEST, as_options
from credibly.workflows.planning.machine import Room, Speed
from credibly.workflows.planning.planner import Planner
from credibly.workflows.planning.plans import MARGIN
from workshop import CLASSES, jsonl, made_rows, quick

LABELS = np.arange(30) % 3
TEXTS = tuple(standins.made_texts(LABELS, seed=4, words=20))
DATA = TrainingData(TEXTS, np.eye(3, dtype=np.float32)[LABELS], CLASSES)
SETTINGS = {
    "heads": HeadsSettings(count=3, hidden=[8, 5], optimiser={"epochs": 2}),
    "top_blocks": TopBlocksSettings(count=3, blocks=1, optimiser={"epochs": 2, "batch_size": 7}),
    "snapshots": SnapshotsSettings(count=3, blocks=1, optimiser={"epochs": 2, "batch_size": 7}),
    "dropout": DropoutSettings(count=3, blocks=1, optimiser={"epochs": 2, "batch_size": 7}),
    "laplace": LaplaceSettings(count=3),
    "full": FullSettings(count=3, optimiser={"epochs": 2, "batch_size": 7, "accumulate": 3}),
    "lora": LoraSettings(count=3, group=2, r=4, blocks=2, optimiser={"epochs": 2, "batch_size": 8}),
}
QUICKLY = ("bert", "gpt2")
ARCHITECTURES = (*standins.ARCHITECTURES, *standins.FURTHER_ENCODERS, *standins.DECODERS)
every_architecture = pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=() if name in QUICKLY else pytest.mark.slow) for name in ARCHITECTURES],
)
PLENTY = Room(memory=1 << 40, device=1 << 40, output=1 << 40, cache=1 << 40)


def backbone_of(folder, precision="fp32", **changed):
    return BackboneSettings(name=str(folder), precision=precision, **changed)


@pytest.fixture(autouse=True)
def measured_quickly(monkeypatch):
    """Spare the time it takes to measure the machine well."""
    monkeypatch.setattr(machine, "MEASURED_SECONDS", 0.01)
    monkeypatch.setattr(machine, "SIDE", 64)


def texts_of(own):
    lengths = tokenise(own.tokenizer, TEXTS, own.max_tokens).lengths
    return Texts(lengths, padded_length(int(lengths.max()), own.max_tokens))


def needs_of(own, backbone, source):
    return SOURCES[source].needs(own, texts_of(own), backbone, SETTINGS[source])


# What the model's structure says, against the loaded model


@every_architecture
def test_weights_and_limits_are_told_as_the_loaded_models_have_them(standin, architecture):
    backbone = backbone_of(standin(architecture), "bf16")
    own, classifier = outline(backbone, CLASSES), load_classifier(backbone, CLASSES, 0.1, 0)
    encoder = load_backbone(backbone)
    assert {one.device.type for one in own.classifier.parameters()} == {"meta"}
    assert (own.max_tokens, own.precision) == (classifier.max_tokens, classifier.precision)
    assert own.precision == encoder.precision
    whole = count_weights(classifier.model.parameters())
    needs = needs_of(own, backbone, "full")
    assert (needs.parameters, needs.trainable) == (whole, whole)
    BlockCut(classifier.model, SETTINGS["top_blocks"].blocks)
    above = count_weights(one for one in classifier.model.parameters() if one.requires_grad)
    needs = needs_of(own, backbone, "top_blocks")
    assert (needs.parameters, needs.trainable) == (whole, above)
    adapters = lora.build(backbone, SETTINGS["lora"], CLASSES, [1, 2])
    needs = needs_of(own, backbone, "snapshots")
    assert (needs.parameters, needs.trainable, needs.cycles) == (whole, above, 3)
    needs = needs_of(own, backbone, "lora")
    assert needs.trainable == adapters.member_parameters
    assert needs.parameters == adapters.shared_parameters + adapters.member_parameters
    needs = needs_of(own, backbone, "dropout")
    assert (needs.parameters, needs.trainable, needs.one_network) == (whole, above, True)
    needs = needs_of(own, backbone, "laplace")
    assert needs.trainable == 33 * 3
    needs = needs_of(own, backbone, "heads")
    assert needs.trainable == (32 * 8 + 8) + (8 * 5 + 5) + (5 * 3 + 3)
    assert needs.parameters == count_weights(encoder.model.parameters()) + needs.trainable


@every_architecture
def test_a_step_keeps_about_what_the_formula_says(standin, architecture):
    for precision, dropout in product(("fp32", "bf16"), (0.0, 0.1)):
        backbone = backbone_of(standin(architecture), precision)
        own, classifier = (
            outline(backbone, CLASSES),
            load_classifier(backbone, CLASSES, dropout, 0, attention_dropout=dropout),
        )
        tokens = tokenise(classifier.tokenizer, TEXTS, classifier.max_tokens)
        batch = pad(tokens, np.argsort(-tokens.lengths)[:12])
        said = own.kept(Texts(tokens.lengths, batch.input_ids.shape[1]).batch(12, 10**6), 3, dropout, dropout)
        found = bytes_kept(classifier, batch)
        assert 0.6 * found < said < 1.5 * found


def bytes_kept(classifier, batch):
    """Count what torch keeps for a backward pass, weights aside."""
    model = classifier.model.train()
    weights = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor
        return tensor

    longest = batch.input_ids.shape[1]
    attention = attention_for_gradient(classifier.device, classifier.precision, longest)
    saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with saving, classifier.autocast(), attention:
        # The result must live on while it is counted, or what it keeps makes room for others.
        logits = model(**batch.inputs()).logits
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) if logits.numel() else 0


def test_bytes_are_those_worked_by_hand(standin, monkeypatch):
    torch_threads(monkeypatch, 1)
    own = outline(backbone_of(standin("bert")), CLASSES)
    P, texts = own.parameters, Texts(np.array([4, 10, 10]), 10)
    # A block of 32 wide: four products of 32 and those of 64 and 32 make 224 numbers; 3 x 32 go in to three
    # of them; the activation makes 64. With dropout two masks of 32 more, and three matrices of 4 heads.
    plain, dropped, pairs = 4 * 384, 4 * 448, 3 * 4 * 4
    assert own.kept(texts, 2, dropout=0.0) == 2 * 24 * plain
    assert own.kept(texts, 2, dropout=0.1) == 2 * 24 * dropped
    assert own.kept(texts, 2, 0.1, attention_dropout=0.1) == 2 * (24 * dropped + (16 + 100 + 100) * pairs)
    settings = FullSettings(dropout=0.0, optimiser={"batch_size": 2, "patience": 1})
    needs = tuned_needs(own, texts, 25, settings, None, networks=3)
    assert asdict(needs.memory) == {
        "base": 0, "trainable": 4 * P, "gradients": 4 * P, "moments": 8 * P, "best": 4 * P,
        "activations": round(GAPS * (3 + 1) * 20 * plain), "texts": 0, "loading": 4 * P,
        # A block holds its input and output of 32 and the widest result, of 64, twice.
        "prediction": 3 * 4 * P + 25 * 4 * (2 * 32 + 2 * 64),
    }  # fmt: skip
    # Forward two operations a weight and token, and attention's two products; three times that in training.
    weights = 4 * 32 * 32 + 2 * 32 * 64
    forward = 3 * (2 * weights * 24 + 2 * 2 * 32 * 216)
    assert needs.training.operations == 3 * forward * 3 * settings.optimiser.epochs
    needs = tuned_needs(own, texts, 25, settings, 1, networks=3)
    assert (needs.memory.base, needs.memory.texts) == (4 * (P - needs.trainable), 24 * 32 * 4)
    assert needs.preparing.operations == 2 * forward // 3


def torch_threads(monkeypatch, number):
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)


# What the plan says, against the run


def accumulated(source):
    """Return what makes two batches a step, of sources that take steps."""
    return {} if source == "laplace" else {"optimiser.accumulate": 2}


@pytest.mark.slow
@pytest.mark.parametrize("source", SETTINGS)
def test_steps_passes_and_bytes_are_those_of_the_run(standin, tmp_path, source, no_plots):
    file = jsonl(tmp_path / "rows.jsonl", made_rows(90))
    block = with_values(SETTINGS[source].model_dump(), {"count": 3, **accumulated(source)})
    settings = {
        **quick(standin()),
        "members": block,
        "distil.controls": ["direct"],
        "distil.optimiser.epochs": 2,
        "evaluation.resamples": 5,
    }
    settings = {key: value for key, value in settings.items() if not key.startswith("members.")}
    said = plan(file, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
    totals = {}

    def stages(name):
        return lambda done, total: totals.update({name: (done, total)})

    run = fit(file, tmp_path / "run", settings, stages=stages)
    (group,), student = said["groups"], said["student"]
    trained = [steps for name, steps in totals.items() if name.startswith("training")]
    assert trained == [(group["steps"], group["steps"])] * group["passes"] * (group["steps"] > 0)
    assert (group["steps"] == 0) == (source == "laplace")
    assert group["passes"] == {"heads": 1, "lora": 2, "dropout": 1, "laplace": 1, "snapshots": 1}.get(
        source, 3
    )
    tuned = [steps for name, steps in totals.items() if name.startswith("tuning")]
    assert tuned == [(student["steps"], student["steps"])] * student["networks"]
    costs = json.loads(run.costs_file.read_text(encoding="utf-8"))
    if source == "dropout":
        assert group["parameters"] == costs["members"]["shared_parameters"]
    else:
        assert group["trainable_parameters"] == costs["members"]["member_parameters"]
    assert student["parameters"] == costs["student"]["parameters"]
    texts = load_splits(run.recipe.data).train.texts
    classifier = load_classifier(run.recipe.backbone, CLASSES, 0.0, 0)
    assert group["tokens_per_epoch"] == int(tokenise(classifier.tokenizer, texts, 64).lengths.sum())
    # Names and shapes stand in the files, too.
    found = {name: folder_bytes(run.path / name) for name in ("members", "predictions", "shift")}
    found["networks"] = folder_bytes(run.student_folder) + folder_bytes(run.models_folder)
    for name, size in found.items():
        assert said["disk_bytes"][name] <= size <= said["disk_bytes"][name] + 40_000


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])  # the first ties its output layer
def test_label_words_take_the_reading_of_an_output_layer_and_no_further_weights(
    standin, tmp_path, architecture
):
    folder = standin(architecture, output_layer=True)
    planner, recipe = planner_of(folder, tmp_path, "lora")
    plain = planner.plan(recipe)
    words = planner.plan(make_recipe(recipe, {"members.head": "label_words"}))
    before, after = plain.parts[0].needs, words.parts[0].needs
    language_model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    own = words.parts[0].outline
    assert own.encoder_parameters + own.output_layer == count_weights(language_model.parameters())
    assert after.memory.loading >= 4 * count_weights(language_model.parameters())
    assert replace(after.memory, loading=before.memory.loading) == before.memory
    assert (after.parameters, after.trainable) == (before.parameters, before.trainable)
    judged = len(planner.splits.calibration) + len(planner.splits.test)
    assert words.disk["predictions"] - plain.disk["predictions"] == 4 * 3 * judged


@pytest.mark.parametrize("source", ["heads", "lora"])
def test_soups_and_hydra_take_room_on_disk_and_no_steps(standin, tmp_path, source):
    planner, recipe = planner_of(standin(), tmp_path, source)
    plain, more = (
        planner.plan(make_recipe(recipe, {"distil.controls": [*recipe.distil.controls, *controls]}))
        for controls in ([], ["soup", "greedy_soup"])
    )
    needs = plain.parts[0].needs
    one = needs.trainable if source == "heads" else needs.parameters
    assert more.disk["networks"] - plain.disk["networks"] == 2 * 4 * one
    judged = len(planner.splits.calibration) + len(planner.splits.test)
    assert more.disk["predictions"] - plain.disk["predictions"] == 2 * 4 * 3 * judged
    assert more.parts[-1].passes == plain.parts[-1].passes
    hydra = planner.plan(make_recipe(recipe, {"distil.controls": [*recipe.distil.controls, "hydra"]}))
    answers = recipe.members.count * judged
    assert hydra.disk["predictions"] - plain.disk["predictions"] == 4 * 3 * answers


def test_a_learning_curve_takes_time_by_its_shares_and_answers_for_each(standin, tmp_path, monkeypatch):
    planner, recipe = planner_of(standin(), tmp_path, "lora")
    monkeypatch.setattr(Speed, "seconds", lambda speed, work: work.operations)
    plain, curved = (
        planner.plan(make_recipe(recipe, {"evaluation.learning_curve": shares}))
        for shares in ([], [0.25, 0.5])
    )
    before, after = plain.as_json(), curved.as_json()
    assert after["groups"][0]["seconds"]["training"] == 1.75 * before["groups"][0]["seconds"]["training"] > 0
    assert after["student"] == before["student"]
    judged = len(planner.splits.calibration) + len(planner.splits.test)
    assert curved.disk["predictions"] - plain.disk["predictions"] == 2 * 4 * 3 * judged * recipe.members.count
    assert curved.disk["members"] == plain.disk["members"]
    # A part's members lie beside those of the run until they have answered.
    assert curved.disk["checkpoints"] - plain.disk["checkpoints"] == plain.disk["members"]
    assert curved.run_bytes - plain.run_bytes == (
        plain.disk["members"] + curved.disk["predictions"] - plain.disk["predictions"]
    )


def test_snapshots_keep_a_checkpoint_of_every_cycle(standin, tmp_path):
    planner, recipe = planner_of(standin(), tmp_path, "snapshots")
    recipe = make_recipe(recipe, {"distil.enabled": False})
    planned = planner.plan(recipe)
    one = planned.parts[0].needs.memory.checkpoint
    assert planned.disk["checkpoints"] == (recipe.members.count + 1) * one
    parallel = planner_of(standin(), tmp_path, "top_blocks")[1]
    assert planner.plan(make_recipe(parallel, {"distil.enabled": False})).disk["checkpoints"] == 2 * one


def test_limited_sets_and_every_part_of_a_mixed_ensemble_are_planned(standin, tmp_path):
    file = jsonl(tmp_path / "rows.jsonl", made_rows(90))
    parts = [
        {"members": SETTINGS["heads"].model_dump()},
        {"backbone": {"name": str(standin("gpt2"))}, "members": SETTINGS["full"].model_dump()},
    ]
    settings = {"backbone.name": str(standin()), "members": {"source": "mixed", "parts": parts}}
    said = plan(file, tmp_path / "run", {**settings, "data.limit.train": 20, "distil.enabled": False})
    assert said["student"] is None
    assert [part["source"] for part in said["groups"]] == ["heads", "full"]
    assert [Path(part["backbone"]).name for part in said["groups"]] == ["bert", "gpt2"]
    assert said["groups"][1]["steps"] == 2  # 20 rows in batches of 7, three times two, three to a step
    assert said["disk_bytes"]["members"] == 4 * 3 * sum(
        part["trainable_parameters"] for part in said["groups"]
    )


# What does not fit


def planner_of(folder, tmp_path, source, room=PLENTY):
    file = jsonl(tmp_path / "rows.jsonl", made_rows(60))
    recipe = make_recipe(file, {"backbone.name": str(folder), "members": SETTINGS[source].model_dump()})
    recipe = make_recipe(recipe, {"distil.controls": [], "members.count": 9})
    return Planner(load_splits(recipe.data), room), recipe


def smaller(room, share, peak):
    return replace(room, memory=int(share * peak), device=int(share * peak))


@pytest.fixture(scope="module")
def planners(standin, tmp_path_factory):
    """A planner and a recipe by source."""
    return {source: planner_of(standin(), tmp_path_factory.mktemp("planned"), source) for source in SETTINGS}


@hypothesis.settings(max_examples=12)
@given(source=some.sampled_from(sorted(SETTINGS)), share=some.floats(0.01, 1.2))
def test_the_smallest_change_fits_and_nothing_of_it_can_be_left_out(planners, source, share):
    planner, recipe = planners[source]
    planner.room = PLENTY
    planner.room = smaller(PLENTY, share, planner.plan(recipe).peak)
    found = planner.smallest_change(recipe)
    if found is None:
        # Then heads without a student do not fit either.
        least = {"members": {"source": "heads", "count": 9, "optimiser": {"batch_size": 1}}}
        least |= {"distil.enabled": False, "backbone.max_tokens": 16, "backbone.token_budget": 16}
        assert planner.plan(make_recipe(recipe, least)).problems
        return
    change, after = found
    assert after.problems == []
    assert after.peak <= MARGIN * planner.room.memory
    assert planner.plan(make_recipe(recipe, change)).peak == after.peak
    for key in change:
        fewer = {name: value for name, value in change.items() if name != key}
        assert planner.plan(make_recipe(recipe, fewer)).problems


@pytest.mark.parametrize("source", ["top_blocks", "full", "lora"])
def test_fewer_tokens_at_once_are_the_first_change(planners, source):
    planner, recipe = planners[source]
    recipe = make_recipe(recipe, {"distil.enabled": False, "members.optimiser.batch_size": 64})
    planner.room = PLENTY
    planner.room = smaller(PLENTY, 0.8, planner.plan(recipe).peak)
    change, _ = planner.smallest_change(recipe)
    assert list(change) == ["backbone.token_budget"]


@hypothesis.settings(max_examples=8)
@given(share=some.floats(0.3, 1.0))
def test_a_smaller_group_comes_next_and_is_the_largest_that_fits(planners, share):
    planner, recipe = planners["lora"]
    fewest = {"backbone.token_budget": SHORTEST}
    recipe = make_recipe(recipe, {"members.group": 9, "distil.enabled": False, **fewest})
    planner.room = PLENTY
    peaks = {
        group: planner.plan(make_recipe(recipe, {"members.group": group})).peak for group in range(1, 10)
    }
    planner.room = smaller(PLENTY, share, peaks[9])
    fitting = [group for group, peak in peaks.items() if peak <= MARGIN * planner.room.memory]
    found = planner.smallest_change(recipe)
    if fitting:
        assert found[0] == ({} if max(fitting) == 9 else {"members.group": max(fitting)})
    elif found:
        assert set(found[0]) - {"members.group"}


def test_a_part_of_a_mixed_ensemble_is_changed_where_it_stands(standin, tmp_path):
    planner, recipe = planner_of(standin(), tmp_path, "lora")
    heads = {"source": "heads", "count": 1, "optimiser": {"batch_size": 1}}
    parts = [{"members": heads}, {"members": {"source": "lora", "count": 5}}]
    settings = {"members": {"source": "mixed", "parts": parts}, "distil.enabled": False}
    recipe = make_recipe(recipe, {**settings, "backbone.token_budget": SHORTEST})
    planner.room = smaller(PLENTY, 0.8, planner.plan(recipe).peak)
    change, after = planner.smallest_change(recipe)
    assert list(change) == ["members.parts.1.members.group"]
    assert after.problems == []


def test_a_disk_without_room_is_told_and_a_cache_without_room_is_not(standin, tmp_path):
    planner, recipe = planner_of(standin(), tmp_path, "full", replace(PLENTY, output=1 << 20, cache=0))
    (problem,) = planner.plan(recipe).problems
    assert "the run needs" in problem
    assert "of disk and 1.0 MB is free" in problem
    planner.room = replace(PLENTY, cache=0)
    assert planner.plan(recipe).problems == []


def test_a_fit_without_room_is_refused_and_goes_on_with_the_change_it_names(
    standin, tmp_path, monkeypatch, no_plots
):
    file = jsonl(tmp_path / "rows.jsonl", made_rows(60))
    settings = {key: value for key, value in quick(standin()).items() if not key.startswith("members.")}
    settings |= {
        "members": {"source": "lora", "count": 4, "optimiser": {"epochs": 1}},
        "distil.enabled": False,
        "evaluation.resamples": 5,
    }
    peak = plan(file, tmp_path / "run", settings)["peak_memory_bytes"]
    monkeypatch.setattr(Room, "here", lambda output: smaller(PLENTY, 0.6, peak))
    said = plan(file, tmp_path / "run", settings)
    assert not said["fits"]
    with pytest.raises(InputError, match=r"4 lora on .* needs .* of memory and .* is free") as refused:
        fit(file, tmp_path / "run", settings)
    assert refused.value.exit_code == 2
    assert as_options(said["change"]) in str(refused.value)
    assert not (tmp_path / "run").exists()
    assert fit(file, tmp_path / "run", settings | said["change"]).finished


@pytest.fixture
def with_gpus(standin, tmp_path, monkeypatch):
    """Return a function that gives a planner and a recipe of LoRA members where there are so many GPUs."""
    monkeypatch.setattr("credibly.backbones.outline.best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(machine.Speed, "measured", lambda precision, device: machine.Speed(1.0, 1.0))

    def made(each, source="lora", count=2, **changed):
        folder = standin("llama")
        room = replace(PLENTY, device=each, beside=(each,) * (count - 1))
        planner, recipe = planner_of(folder, tmp_path, source, room)
        least = {"distil.enabled": False, "members.count": 1, "backbone.token_budget": SHORTEST}
        least |= {"backbone.precision": "fp32"}
        return planner, make_recipe(recipe, least | changed)

    return made


def test_a_base_that_one_gpu_does_not_hold_is_shared_by_all_where_they_do_together(with_gpus):
    planner, recipe = with_gpus(PLENTY.device)
    (part,) = planner.plan(recipe).parts
    needed = planner.plan(recipe).held(part)["GPU memory"]
    least = {"members.optimiser.batch_size": 1, "backbone.max_tokens": SHORTEST}
    held = planner.plan(make_recipe(recipe, least))
    smallest = held.held(held.parts[0])["GPU memory"]
    room = int(0.8 * smallest / MARGIN)
    planner, recipe = with_gpus(room)
    (problem,) = planner.plan(recipe).problems
    assert "of GPU memory" in problem
    change, after = planner.smallest_change(recipe)
    assert change == {"backbone.device_map": "auto"}
    (part,) = after.parts
    assert (part.gpus, after.as_json()["groups"][0]["gpus"]) == (2, 2)
    assert after.held(part)["GPU memory"] == needed <= MARGIN * after.free_on_gpus(part)
    planner, recipe = with_gpus(room, count=1)
    assert "backbone.device_map" not in (planner.smallest_change(recipe) or [{}])[0]


def test_a_base_that_is_tuned_is_not_shared_and_that_of_adapters_in_its_place_is(with_gpus):
    planner, recipe = with_gpus(PLENTY.device, "full")
    lora_there = {"members": {"source": "lora", "count": 1, "group": 1}, "backbone.device_map": "auto"}
    plan_there = planner.plan(make_recipe(recipe, lora_there))
    planner, recipe = with_gpus(int(0.75 * plan_there.held(plan_there.parts[0])["GPU memory"]), "full")
    change, after = planner.smallest_change(recipe)
    assert after.problems == []
    assert change["members"]["source"] == "lora"
    assert change["backbone.device_map"] == "auto"


def test_gpus_take_whole_blocks_and_the_first_what_lies_outside_them(with_gpus):
    planner, recipe = with_gpus(PLENTY.device, **{"backbone.device_map": "auto"})
    plan_there = planner.plan(recipe)
    (part,) = plan_there.parts
    block = (plan_there.held(part)["GPU memory"] - part.outside_bytes) // part.outline.blocks
    for first, second, blocks in ((0.9, 1.9, 1), (1.0, 1.0, 2), (0.9, 0.9, 0), (3.5, 0.0, 3)):
        room = replace(
            PLENTY, device=part.outside_bytes + int(first * block), beside=(int(second * block) + 1,)
        )
        assert replace(plan_there, room=room).free_on_gpus(part) == part.outside_bytes + blocks * block


def test_what_is_not_known_is_never_refused(standin, tmp_path, monkeypatch):
    planner, recipe = planner_of(standin(), tmp_path, "full", replace(PLENTY, memory=None, device=None))
    assert planner.plan(recipe).problems == []
    monkeypatch.setattr(Room, "here", lambda output: Room(1, 1, 1, 1))
    with pytest.raises(InputError, match=r"does not fit.*take a smaller --backbone"):
        check_room(recipe, planner.splits, tmp_path)

    def unknown(*arguments):
        raise AssetError("no config")

    monkeypatch.setattr("credibly.workflows.planning.planner.outline", unknown)
    check_room(recipe, planner.splits, tmp_path)


def test_members_that_are_there_already_need_no_room(standin, tmp_path, monkeypatch):
    planner, recipe = planner_of(standin(), tmp_path, "full")
    recipe = make_recipe(recipe, {"members.count": 40})
    made = planner.plan(recipe)
    members, student = (made.held(part)["memory"] for part in made.parts)
    assert members > 1.5 * student
    monkeypatch.setattr(Room, "here", lambda output: smaller(PLENTY, 1.0, student))
    with pytest.raises(InputError, match=r"40 full on .* needs"):
        check_room(recipe, planner.splits, tmp_path)
    check_room(recipe, planner.splits, tmp_path, trained=False)
    monkeypatch.setattr(Room, "here", lambda output: smaller(PLENTY, 0.5, student))
    with pytest.raises(InputError, match=r"fit: the student on .* needs"):
        check_room(recipe, planner.splits, tmp_path, trained=False)


def test_a_change_is_said_as_the_command_line_takes_it():
    change = {"members": {"source": "lora", "count": 2}, "distil.blocks": 1}
    assert as_options(change) == ("""--set 'members={"source": "lora", "count": 2}' --set distil.blocks=1""")
