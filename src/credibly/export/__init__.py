"""Export: a system as ONNX graphs, at the fastest precision that answers the same."""

from credibly.export.choosing import Rows
from credibly.export.folder import System, write_export
from credibly.export.networks import EXPORTED, ClassLogits, Source, member_sources

__all__ = ["EXPORTED", "ClassLogits", "Rows", "Source", "System", "member_sources", "write_export"]
