"""Any saved predictions into one network that keeps their doubt."""

from credibly.distil.network import Network
from credibly.distil.targets import DirichletTargets, dirichlet_targets
from credibly.distil.tuning import TransferSet, tune_network

__all__ = ["DirichletTargets", "Network", "TransferSet", "dirichlet_targets", "tune_network"]
