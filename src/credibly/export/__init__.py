"""Export: a system as ONNX graphs, at the fastest precision that answers the same."""

from credibly.export.choosing import Rows
from credibly.export.folder import System, write_export
from credibly.export.networks import ClassLogits, Source, member_sources

__all__ = ["ClassLogits", "Rows", "Source", "System", "member_sources", "write_export"]
