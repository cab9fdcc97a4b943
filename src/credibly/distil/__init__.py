"""Any saved predictions into one network that keeps their doubt."""

from credibly.distil.network import Network
from credibly.distil.targets import DirichletTargets, dirichlet_targets
from credibly.distil.tuning import transfer_texts, tune_network

__all__ = ["DirichletTargets", "Network", "dirichlet_targets", "transfer_texts", "tune_network"]
