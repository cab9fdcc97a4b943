"""The one training loop: for a single network, and for M members stacked along a first axis."""

from credibly.training.checkpoint import Checkpoints
from credibly.training.history import HISTORY, History, StepRecord
from credibly.training.loop import LOGGED_STEPS, train
from credibly.training.optimiser import gradient_norms, rate_factor
from credibly.training.streams import from_batch, stream
from credibly.training.task import UNWATCHED, HeldOut, Log, Monitor, Task
from credibly.training.trackers import Trackers

__all__ = [
    "HISTORY",
    "LOGGED_STEPS",
    "UNWATCHED",
    "Checkpoints",
    "HeldOut",
    "History",
    "Log",
    "Monitor",
    "StepRecord",
    "Task",
    "Trackers",
    "from_batch",
    "gradient_norms",
    "rate_factor",
    "stream",
    "train",
]
