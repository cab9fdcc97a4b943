"""The recipes that distil an ensemble beside its controls, and what is pooled over their runs."""

from pathlib import Path

import numpy as np
import pytest

from credibly.records import Interval
from credibly.report.figures.kept import DIRECT, ENSEMBLE, Gain
from credibly.runs import Run
from credibly.settings import load_recipe
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.workflows import fit
from standins import made_texts
from workshop import jsonl

LENGTH = 100
"""Of texts, all alike: a few are as long as those of any file."""
ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes" / "students").glob("*.yaml"))


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import kept

    return kept


@pytest.fixture
def found(kept):
    """Return a function that makes a run's gains: of each network the figure, then those of resamples."""

    def of(**gains):
        def gain(own):
            return Gain(Interval(own[0], min(own[1:]), max(own[1:])), np.array(own[1:]))

        named = {name.replace("_T", "+temperature"): gain(own) for name, own in gains.items()}
        return kept.Found(named, {}, {})

    return of


def test_shares_are_pooled_as_sums_of_gains(kept, found):
    runs = [
        found(ensemble_T=[0.3, 0.2, 0.4], student_T=[0.06, 0.1, 0.04]),
        found(ensemble_T=[0.1, 0.1, 0.1], student_T=[0.05, 0.05, 0.05]),
    ]
    share = kept.pooled(runs, kept.STUDENT, 0.5)
    assert share.value == pytest.approx(0.11 / 0.4)
    assert (share.low, share.high) == pytest.approx((0.09 / 0.5, 0.15 / 0.3))


@pytest.mark.parametrize(("low", "counts"), [(0.01, True), (0.0, False), (-0.1, False)])
def test_a_data_set_counts_where_the_ensemble_gains_beyond_its_interval(found, low, counts):
    assert found(ensemble_T=[0.1, low, 0.2]).counts is counts


@pytest.mark.parametrize(("others", "holds"), [((0.4, 0.3), True), ((0.5, 0.3), False), ((0.3, 0.6), False)])
def test_the_student_is_to_keep_more_than_every_control(kept, others, holds):
    shares = dict(zip((kept.STUDENT, *kept.CONTROLS), (0.5, 0.1, *others), strict=True))
    assert kept.beats_controls({name: {"value": value} for name, value in shares.items()}) is holds


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_what_it_needs(kept, path):
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(name in header for name in kept.needed(path))
    assert f"recipes/students/{path.name}" in (ROOT / "README.md").read_text()
    controls = {f"{name}+temperature" for name in load_recipe(path).distil.controls}
    assert controls == {DIRECT, *kept.CONTROLS}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_its_gains_are_found(kept, path, standin, no_plots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = [number % 2 for number in range(120)]
    for name in kept.needed(path):
        texts = zip(made_texts(labels), labels, strict=True)
        rows = [
            {"text": f"{text} {name} ".ljust(LENGTH, "."), "label_name": ("ham", "spam")[label]}
            for text, label in texts
        ]
        jsonl(Path(name), rows)
    tiny = {
        "backbone.name": str(standin("mpnet")),
        "distil.backbone.name": str(standin()),
        "evaluation.resamples": 5,
    }
    members = load_recipe(path).members
    if members.source == "mixed":
        one_block = {"blocks": 1, "count": 2}
        tiny["members.parts"] = [
            {"backbone": {"name": str(standin(kind))}, "members": {**part.members.model_dump(), **one_block}}
            for kind, part in zip(("mpnet", "bert", "llama"), members.parts, strict=True)
        ]
    seeds = 2 if path == RECIPES[0] else 1
    run = fit(path, tmp_path / "run", {**tiny, "distil.seeds": seeds})
    found = kept.found_in(Run(run.path), Resampling(resamples=5))
    report = found.report
    losses = {name: own["nll"]["value"] for name, own in report["systems"].items()}
    if seeds > 1:
        losses[kept.STUDENT] = report["student_seeds"]["figures"]["nll"]["value"]
    for name in (ENSEMBLE, kept.STUDENT, *kept.CONTROLS):
        assert found.gains[name].figure.value == pytest.approx(losses[DIRECT] - losses[name])
    content = kept.figures({path.stem: found}, 0.95)
    assert content["data_sets"] == 1
    assert content["by_data_set"][path.stem]["students"] == seeds
    assert set(content["by_data_set"][path.stem]["ood_auroc"]) == set(load_recipe(path).data.shift)
