"""What one small model keeps of an ensemble's gain over training it on labels alone, over data sets.

Each recipe of `recipes/students` trains an ensemble, a student and the controls with the same texts, steps
and tuning. A data set counts where the ensemble's gain in NLL over `direct+temperature` lies beyond its
interval; what a network keeps is its own gains over these sets, added up, as a share of the ensemble's;
NLL and accuracy of students of several seeds are means over these. Runs stand under `runs/students`:
finished ones are used as they are, so that hours of training are not lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import VARIABLE
from benchmarks.measure import ROOT, Result, load, rounded, say, write, write_skipped
from credibly.records import Interval, Predictions
from credibly.report.figures.comparisons import Paired, share
from credibly.report.figures.kept import DIRECT, ENSEMBLE, Gain, gain_of
from credibly.report.figures.scoring import scored_systems
from credibly.report.figures.systems import answered, answered_by_students
from credibly.runs import Run
from credibly.settings import load_recipe
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.systems import CALIBRATED
from credibly.workflows import fit
from credibly.workflows.common.contents import calibration_in, further_students, network_systems
from credibly.workflows.evaluating.runs import scored_predictions

NAME = "kept"
WHAT = "share of the ensemble's gain in NLL over direct training that the student keeps, over data sets"
RECIPES, RUNS = ROOT / "recipes" / "students", ROOT / "runs" / "students"
STUDENT = "student+temperature"
CONTROLS = ("label_smoothing+temperature", "soft_labels+temperature", "soft_labels_t4+temperature")
AT_LEAST = 0.5


@dataclass(frozen=True)
class Found:
    """One data set's run.

    Args:
        gains: over direct training, of the ensemble, the student and the controls.
        systems: their figures, and those of direct training.
        report: the run's report.
    """

    gains: Mapping[str, Gain]
    systems: Mapping[str, Any]
    report: Mapping[str, Any]

    @property
    def counts(self) -> bool:
        """Whether the ensemble's gain lies beyond its interval."""
        low = self.gains[ENSEMBLE].figure.low
        return low is not None and low > 0


def found_in(run: Run, resampling: Resampling) -> Found:
    """Return the gains in NLL of a finished run, on its test texts."""

    def stored(sources: Iterable[str]) -> dict[str, dict[str, Predictions]]:
        return {source: scored_predictions(run, source) for source in sources}

    calibrators = calibration_in(run).calibrators
    on_test = answered(stored(["members", *network_systems(run.recipe)]), "test", calibrators)
    further = answered_by_students(stored(further_students(run.recipe)), CALIBRATED, calibrators)
    chosen = {name: on_test[name] for name in (DIRECT, ENSEMBLE, *CONTROLS)}
    chosen[STUDENT] = (*on_test[STUDENT], *chain(*further.get("test", {}).values()))
    systems, sampled = scored_systems(chosen, {}, resampling)
    paired = Paired(chosen, systems, sampled, resampling)
    names = (ENSEMBLE, STUDENT, *CONTROLS)
    gains = {name: gain for name in names if (gain := gain_of(paired, name, "nll"))}
    return Found(gains, systems, run.read_json(run.report_json))


def pooled(found: Sequence[Found], name: str, confidence: float) -> Interval:
    """Return a network's gains, added up over data sets that count, as a share of the ensemble's."""
    found = [each for each in found if each.counts]
    if not found:
        return Interval(None)
    own, ensemble = ([each.gains[system] for each in found] for system in (name, ENSEMBLE))
    values = [sum(gain.figure.value or 0.0 for gain in gains) for gains in (own, ensemble)]
    samples = [np.sum([gain.samples for gain in gains], axis=0) for gains in (own, ensemble)]
    return share(values[0] / values[1], samples[0], samples[1], confidence)


def figures(found: Mapping[str, Found], confidence: float) -> dict[str, Any]:
    """Return the pooled shares, and for each data set gains and how the student's doubt follows."""
    networks = (STUDENT, *CONTROLS)
    return {
        "data_sets": len(found),
        "that_count": sum(each.counts for each in found.values()),
        "pooled_share": {name: pooled(list(found.values()), name, confidence).as_json() for name in networks},
        "by_data_set": {
            data_set: {
                "counts": each.counts,
                **{
                    metric: {name: each.systems[name][metric] for name in (DIRECT, *each.gains)}
                    for metric in ("nll", "accuracy")
                },
                "gains": {name: gain.figure.as_json() for name, gain in each.gains.items()},
                "share": {name: pooled([each], name, confidence).as_json() for name in networks},
                "students": (each.report["student_seeds"] or {"count": 1})["count"],
                "spearman": (each.report["student_seeds"] or each.report)["agreement"],
                "spearman_of_halves": each.report.get("agreement_of_halves"),
                "ood_auroc": _told_apart(each.report),
            }
            for data_set, each in found.items()
        },
    }


def beats_controls(kept: Mapping[str, Any]) -> bool:
    """Return whether the student keeps more than every control."""
    return all(kept[STUDENT]["value"] > kept[name]["value"] for name in CONTROLS)


def _told_apart(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return how well total uncertainty tells each shift set's texts from the test texts."""
    return {
        split: {name: systems[name]["ood_auroc"] for name in (DIRECT, ENSEMBLE, STUDENT)}
        for split, systems in report["shift"].items()
    }


def needed(recipe: Path) -> list[str]:
    """Return the data files that a recipe needs."""
    data = load_recipe(recipe).data
    cut = (data.train, data.validation, data.calibration, data.test)
    files = (*cut, data.unlabelled, data.calibration_like, *data.shift.values())
    return list(dict.fromkeys(name for name in files if name))


def main() -> None:
    """Fit every recipe whose data are there, and pool what the students keep."""
    load_before, folder = load(), os.environ.get(VARIABLE)
    recipes = [
        recipe
        for recipe in sorted(RECIPES.glob("*.yaml"))
        if folder and all((Path(folder) / name).is_file() for name in needed(recipe))
    ]
    if not folder or not recipes:
        write_skipped(NAME, WHAT, "needs the data that recipes/students name: make bench DATA=FOLDER")
        return
    os.chdir(folder)  # recipes name their files alone
    found = {}
    for seed, recipe in enumerate(recipes):
        output = RUNS / recipe.stem
        run = fit(recipe, output, resume=output.is_dir())
        found[recipe.stem] = found_in(run, Resampling(seed=seed))
        say(f"{recipe.stem}: {found[recipe.stem].gains[STUDENT].figure}")
    content = figures(found, Resampling().confidence)
    if not content["that_count"]:
        write_skipped(NAME, WHAT, "no ensemble gains on direct training beyond its interval")
        return
    kept = content["pooled_share"]
    write(
        Result(
            name=NAME,
            what=WHAT,
            ratio=kept[STUDENT]["value"],
            unit="nats of NLL below direct training, a data set each",
            sides={
                name: [each.gains[name].figure.value or 0.0 for each in found.values() if each.counts]
                for name in (ENSEMBLE, STUDENT)
            },
            at_least=AT_LEAST,
            holds=beats_controls(kept),
            figures=rounded(content),
        ),
        load_before,
    )


if __name__ == "__main__":
    main()
