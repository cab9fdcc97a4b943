"""How many LoRA members are trained in one pass, where the recipe leaves it to the room that there is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from credibly.errors import AssetError, RunFolderError
from credibly.members.lora import WEIGHTS
from credibly.passes import even_sizes, groups_of, passes_of
from credibly.progress import silent
from credibly.runs import Run
from credibly.workflows import fit, make_recipe
from credibly.workflows.distilling.distil import distilled_recipe
from credibly.workflows.fitting.beginning import begin
from credibly.workflows.planning.machine import Room
from credibly.workflows.planning.plans import MARGIN, ROOMY
from test_plans import PLENTY, planner_of
from workshop import predictions_in

M = 9
OPEN = {"members.group": "auto", "distil.enabled": False, "backbone.token_budget": 16}


def with_memory(size):
    return replace(PLENTY, memory=int(size), device=int(size))


@pytest.fixture
def planned(standin, tmp_path):
    """A planner, an open recipe, and the peak of memory by members in a pass."""
    planner, recipe = planner_of(standin(), tmp_path, "lora")
    recipe = make_recipe(recipe, OPEN)
    peaks = {size: planner.plan(make_recipe(recipe, {"members.group": size})).peak for size in even_sizes(M)}
    return planner, recipe, peaks


@given(members=some.integers(1, 80), processes=some.integers(1, 9))
def test_even_sizes_are_the_smallest_for_their_number_of_passes(members, processes):
    sizes = even_sizes(members, processes)
    passes = [-(-members // size) for size in sizes]
    assert sizes[-1] == 1
    assert passes == sorted(set(passes))
    assert sizes[0] == -(-members // min(processes, members))
    assert all(
        -(-members // (size - 1)) > number for size, number in zip(sizes, passes, strict=True) if size > 1
    )


def test_members_are_trained_in_the_fewest_passes_for_which_there_is_room(planned):
    planner, recipe, peaks = planned
    for share in (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.2, 1.3):
        planner.room = with_memory(share * peaks[M])
        plan = planner.plan(recipe)
        (part,) = plan.parts
        fitting = [size for size in peaks if peaks[size] <= ROOMY["memory"] * planner.room.memory]
        assert part.group == max(fitting, default=min(peaks, key=peaks.get))
        assert plan.peak == peaks[part.group]
        assert bool(plan.problems) == (min(peaks.values()) > MARGIN * planner.room.memory)
        assert (", for " in part.sized) == (part.group < M)


def test_what_the_recipe_says_is_done_whatever_there_is(planned):
    planner, recipe, peaks = planned
    planner.room = with_memory(0.5 * peaks[M])
    plan = planner.plan(make_recipe(recipe, {"members.group": M}))
    assert (plan.parts[0].group, plan.parts[0].sized) == (M, None)
    assert plan.problems


def test_where_fewer_take_more_as_many_as_take_least_are_trained_in_a_pass(planned):
    """The longest text has 10 tokens: of one member four rows go through at once, of three one each."""
    planner, recipe, _ = planned
    recipe = make_recipe(recipe, {"members.count": 3, "members.r": 1, "backbone.token_budget": 40})
    peaks = {size: planner.plan(make_recipe(recipe, {"members.group": size})).peak for size in (1, 3)}
    assert peaks[1] > 1.05 * peaks[3]
    planner.room = with_memory(peaks[3] / 1.05)
    assert planner.plan(recipe).parts[0].group == 3


def test_every_process_has_a_pass(planned):
    planner, recipe, _ = planned
    (part,) = planner.plan(make_recipe(recipe, {"processes": 4})).parts
    assert (part.group, part.passes, part.together) == (3, 3, 3)


def test_a_run_that_goes_on_keeps_what_it_began_with(planned, tmp_path, monkeypatch):
    planner, recipe, peaks = planned
    folder, splits = tmp_path / "run", planner.splits
    monkeypatch.setattr(Room, "here", lambda output: with_memory(0.6 * peaks[M]))
    began = begin(Run.claim(folder), recipe, splits, silent).recipe
    assert (began.members.group, began.resolved.groups) == ("auto", {"members": 3})
    monkeypatch.setattr(Room, "here", lambda output: PLENTY)
    for again in (recipe, make_recipe(folder / "recipe.yaml")):
        work = begin(Run.claim(folder, resume=True), again, splits, silent, resume=True)
        assert work.recipe == began
        (group,) = groups_of(work.recipe)
        assert [each.seeds for each in passes_of(work.run, work.recipe, group)] == [
            (0, 1, 2), (3, 4, 5), (6, 7, 8),
        ]  # fmt: skip
    other = make_recipe(recipe, {"members.group": 4})
    with pytest.raises(RunFolderError, match="other settings of members"):
        begin(Run.claim(folder, resume=True), other, splits, silent, resume=True)
    anew = begin(Run.claim(tmp_path / "anew"), began, splits, silent).recipe
    assert anew.resolved.groups == {"members": M}
    distilled = begin(
        Run.claim(tmp_path / "distilled"), distilled_recipe(began, {}), splits, silent, trained=False
    ).recipe
    assert distilled.resolved.groups == {"members": 3}


def test_a_run_that_began_with_a_number_goes_on_with_it_without_being_asked_to(
    planned, tmp_path, monkeypatch
):
    """As LoRA runs of earlier versions did, whose recipes all hold one."""
    planner, recipe, _ = planned
    monkeypatch.setattr(Room, "here", lambda output: PLENTY)
    numbered = make_recipe(recipe, {"members.group": 4})
    began = begin(Run.claim(tmp_path / "run"), numbered, planner.splits, silent).recipe
    work = begin(Run.claim(tmp_path / "run", resume=True), recipe, planner.splits, silent, resume=True)
    assert work.recipe == began
    assert work.recipe.members.group == 4
    other = make_recipe(recipe, {"members.r": 3})
    with pytest.raises(RunFolderError, match="other settings of members"):
        begin(Run.claim(tmp_path / "run", resume=True), other, planner.splits, silent, resume=True)


def test_each_part_of_a_mixed_ensemble_has_its_own(planned, tmp_path, monkeypatch):
    planner, recipe, _ = planned
    heads = {"source": "heads", "count": 1, "hidden": [8], "optimiser": {"batch_size": 1}}
    large, small = {"source": "lora", "count": 5, "r": 16}, {"source": "lora", "count": 4, "r": 1}
    parts = [{"members": own} for own in (heads, large, small, {**small, "group": 3})]
    mixed = make_recipe(recipe, {"members": {"source": "mixed", "parts": parts}})
    room = with_memory(0.8 * planner.plan(mixed).peak)
    monkeypatch.setattr(Room, "here", lambda output: room)
    began = begin(Run.claim(tmp_path / "run"), mixed, planner.splits, silent).recipe
    assert began.resolved.groups == {"members.parts.1.members": 3, "members.parts.2.members": 4}
    assert [getattr(group.settings, "group", None) for group in groups_of(began)] == [None, 3, 4, 3]


def test_a_model_that_cannot_be_planned_is_trained_ten_members_at_a_time(planned, tmp_path, monkeypatch):
    def unknown(*arguments):
        raise AssetError("no config")

    planner, recipe, _ = planned
    monkeypatch.setattr("credibly.workflows.planning.planner.outline", unknown)
    work = begin(
        Run.claim(tmp_path / "run"), make_recipe(recipe, {"members.count": 12}), planner.splits, silent
    )
    (group,) = groups_of(work.recipe)
    assert [len(each.seeds) for each in passes_of(work.run, work.recipe, group)] == [10, 2]
    resolved = work.recipe.resolved.model_copy(update={"groups": {"members": 5}})
    elsewhere = work.recipe.model_copy(update={"resolved": resolved})
    anew = begin(Run.claim(tmp_path / "anew"), elsewhere, planner.splits, silent).recipe
    assert anew.resolved.groups == {}


@pytest.mark.slow
def test_members_are_those_of_a_run_that_was_given_the_number(planned, tmp_path, monkeypatch, no_plots):
    planner, recipe, _ = planned
    recipe = make_recipe(recipe, {"members.count": 4, "evaluation.resamples": 5, "processes": 1})
    peak = planner.plan(make_recipe(recipe, {"members.group": 4})).peak
    monkeypatch.setattr(Room, "here", lambda output: with_memory(peak))
    chosen = fit(recipe, tmp_path / "chosen")
    assert chosen.recipe.resolved.groups == {"members": 2}
    given = fit(make_recipe(recipe, {"members.group": 2}), tmp_path / "given")
    for seed in range(4):
        one, other = ((run.member_folder(seed) / WEIGHTS).read_bytes() for run in (chosen, given))
        assert one == other
    assert predictions_in(chosen.path) == predictions_in(given.path)
