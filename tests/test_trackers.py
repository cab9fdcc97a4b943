"""Experiment trackers: each training is a run of its own there, and is told what its history holds."""

import json

import pytest
from accelerate import tracking

from credibly.errors import CrediblyError, MissingExtraError, RecipeError
from credibly.runs import Run
from credibly.training import HISTORY, trackers
from credibly.workflows import fit, make_recipe
from workshop import jsonl, made_rows, quick

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")


class Told(tracking.GeneralTracker):
    """Stands in for a tracker and notes what it is told."""

    requires_logging_directory = False
    made = ()

    def __init__(self, *places, **named):
        self.places, self.named = tuple(map(str, places)), named
        self.started, self.settings, self.figures, self.finished = False, None, [], 0

    @property
    def tracker(self):
        return self

    def start(self):
        assert all(other.finished for other in type(self).made), "an earlier run goes on"
        self.started = True
        type(self).made += (self,)

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step=None, **more):
        assert self.started
        assert not self.finished
        self.figures.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def installed(monkeypatch):
    """Put a stand-in in the place of every tracker and return them by name."""
    kinds = {name: type("Told" + name, (Told,), {"name": name}) for name in NAMES}
    monkeypatch.setattr(trackers, "find_spec", lambda name: name in NAMES or None)
    for name, kind in kinds.items():
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, kind)
    return kinds


def fitted_with(folder, model, names, **changed):
    data = jsonl(folder / "a.jsonl", made_rows(60))
    few = {"members.optimiser.epochs": 2, "distil.optimiser.epochs": 1, "evaluation.resamples": 2, **changed}
    return fit(data, folder / "my run", {**quick(model), **few, "trackers": list(names)})


def history_in(folder):
    return [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_each_training_is_a_run_that_is_told_its_history(installed, standin, no_plots, tmp_path):
    run = fitted_with(tmp_path, standin(), NAMES)
    logs = str(run.path / "logs")
    assert [told.places for told in installed["tensorboard"].made] == [
        (name, logs) for name in ("members-0-2", "direct", "soft_labels", "student")
    ]
    assert [told.named for told in installed["mlflow"].made] == [
        {"run_name": name} for name in ("members-0-2", "direct", "soft_labels", "student")
    ]
    for name in ("wandb", "trackio"):
        assert {told.places for told in installed[name].made} == {("my run",)}
        assert installed[name].made[-1].named == {"name": "student"}
        assert installed[name].made[0].settings["members"]["count"] == 3
    for kind in installed.values():
        members, *_, student = kind.made
        assert [told.finished for told in kind.made] == [1] * 4
        expected = [(record["step"], record) for record in history_in(run.student_folder)]
        assert student.figures == expected
        for seed in range(3):
            own = [
                {name.removesuffix(f"/{seed}"): value for name, value in values.items()}
                for _, values in members.figures
                if f"loss/{seed}" in values
            ]
            assert own == history_in(run.member_folder(seed))
            assert {"loss", "gradient_norm", "learning_rate", "epoch", "seconds"} <= set(own[0])


@pytest.mark.slow
def test_one_member_alone_has_figures_of_plain_names(installed, standin, no_plots, tmp_path):
    changed = {"members.source": "full", "members.count": 2, "distil.enabled": False}
    changed["data.validation_share"] = 0.2
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    settings = {key: value for key, value in quick(standin()).items() if key != "members.hidden"}
    run = fit(
        data, tmp_path / "run", {**settings, **changed, "members.optimiser.epochs": 1, "trackers": ["wandb"]}
    )
    one, other = installed["wandb"].made
    assert [told.named["name"] for told in (one, other)] == ["member-0", "member-1"]
    assert [values for _, values in other.figures] == history_in(run.member_folder(1))
    last = other.figures[-1][1]
    assert {"validation_loss", "validation_accuracy", "tokens_per_second"} <= set(last)


def test_a_run_is_closed_where_training_fails(installed, standin, tmp_path):
    with pytest.raises(CrediblyError, match="no longer finite"):
        fitted_with(tmp_path, standin(), ["trackio"], **{"members.optimiser.learning_rate": 1e30})
    assert [told.finished for told in installed["trackio"].made] == [1]


def test_what_is_not_installed_is_told_before_anything_begins(standin, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "credibly\[tensorboard,wandb\]"'):
        fitted_with(tmp_path, standin(), ["tensorboard", "wandb"])
    assert not (tmp_path / "my run").exists()


def test_a_tracker_that_cannot_start_is_told_and_the_others_are_closed(
    installed, standin, tmp_path, monkeypatch
):
    def refused(self):
        raise PermissionError("nobody is logged in")

    monkeypatch.setattr(installed["wandb"], "start", refused)
    with pytest.raises(CrediblyError, match=r"wandb cannot start \(nobody is logged in\)"):
        fitted_with(tmp_path, standin(), ["mlflow", "wandb"])
    assert [told.finished for told in installed["mlflow"].made] == [1]


def test_an_unknown_tracker_is_told_with_those_that_are_known():
    with pytest.raises(RecipeError, match=r"trackers.0: .*'tensorboard', 'wandb', 'mlflow' or 'trackio'"):
        make_recipe("a.csv", {"trackers": ["tensorbord"]})


def test_logs_go_when_a_run_is_replaced(tmp_path):
    run = Run(tmp_path / "run")
    run.logs_folder.mkdir(parents=True)
    run.begin(make_recipe("a.csv"))
    assert not run.logs_folder.exists()
