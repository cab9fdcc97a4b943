"""Any saved predictions into one network that keeps their doubt."""

from credibly.distil.augment import made_texts
from credibly.distil.lessons import Lesson, lesson
from credibly.distil.network import Network
from credibly.distil.self_training import anchored
from credibly.distil.targets import DirichletTargets, dirichlet_targets
from credibly.distil.tuning import transfer_texts, tune_network

__all__ = [
    "DirichletTargets",
    "Lesson",
    "Network",
    "anchored",
    "dirichlet_targets",
    "lesson",
    "made_texts",
    "transfer_texts",
    "tune_network",
]
