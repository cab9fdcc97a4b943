"""An exported model: ONNX graphs and their tokenizers in a folder, run without torch or transformers."""

from credibly.runtime.contents import (
    FORMAT_VERSION,
    MEMBERS_FOLDER,
    Columns,
    Contents,
    Folded,
    GraphFile,
    read_contents,
)
from credibly.runtime.graph import Graph
from credibly.runtime.model import Runtime
from credibly.runtime.tokenizer import PlainTokenizer

__all__ = [
    "FORMAT_VERSION",
    "MEMBERS_FOLDER",
    "Columns",
    "Contents",
    "Folded",
    "Graph",
    "GraphFile",
    "PlainTokenizer",
    "Runtime",
    "read_contents",
]
