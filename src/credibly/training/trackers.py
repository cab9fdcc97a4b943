"""Experiment trackers: TensorBoard, Weights & Biases, MLflow and Trackio, through accelerate.

https://huggingface.co/docs/accelerate/usage_guides/tracking
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from credibly.errors import CrediblyError, MissingExtraError, listed
from credibly.runs import Run
from credibly.settings import Recipe
from credibly.training.history import StepRecord
from credibly.training.task import Log


@dataclass(frozen=True)
class Trackers:
    """The trackers that a run's trainings are told to.

    Each training is a run of its own there, since the steps of a run may only rise. Where it trains several
    members, a figure is called by its name and the member's seed, such as ``loss/42``.

    Args:
        names: of the trackers, each of a package of that name.
        project: what the runs stand under.
        folder: where TensorBoard's files go; the others have places of their own.
        settings: kept with each run; TensorBoard's lies beside the recipe already.
    """

    names: Sequence[str]
    project: str
    folder: Path
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run, recipe: Recipe) -> Trackers:
        """Return the trackers that a recipe names."""
        settings = recipe.model_dump(mode="json")
        return cls(recipe.trackers, run.path.resolve().name, run.logs_folder, settings)

    def check(self) -> None:
        """Raise MissingExtraError where a tracker is not installed."""
        if missing := [name for name in self.names if find_spec(name) is None]:
            raise MissingExtraError(
                f"the trackers {listed(missing)} are not installed: "
                f'pip install "credibly[{",".join(missing)}]", or leave them out of the recipe'
            )

    @contextmanager
    def told(self, training: str, seeds: Sequence[int] = ()) -> Iterator[Log | None]:
        """Give what is to be called with every record of a training; None where there is no tracker.

        Args:
            training: the run's name.
            seeds: of the members, where it trains several.

        Raises:
            CrediblyError: a tracker cannot start, for example because it does not know who is logged in.
        """
        started: list[Any] = []

        def log(member: int, record: StepRecord) -> None:
            place = f"/{seeds[member]}" if len(seeds) > 1 else ""
            figures = {f"{name}{place}": value for name, value in record.as_json().items()}
            for tracker in started:
                tracker.log(figures, step=record.step)

        with ExitStack() as ends:
            for name in self.names:
                started.append(self._started(name, training))
                ends.callback(started[-1].finish)
            yield log if started else None

    def _started(self, name: str, training: str) -> Any:
        """Return a tracker with a run begun."""
        from accelerate import PartialState, tracking  # takes a while, and most runs have no tracker

        PartialState()  # without it the trackers refuse to log
        kind = tracking.LOGGER_TYPE_TO_CLASS[name]
        try:
            match name:
                case "tensorboard":
                    tracker = kind(training, self.folder)
                case "mlflow":
                    tracker = kind(self.project, run_name=training)
                case _:
                    tracker = kind(self.project, name=training)
            tracker.start()
            if name != "tensorboard":
                tracker.store_init_configuration(dict(self.settings))
        except Exception as error:  # each has errors of its own
            raise CrediblyError(
                f"the tracker {name} cannot start ({error}); set it up, or leave it out of the recipe"
            ) from error
        return tracker
