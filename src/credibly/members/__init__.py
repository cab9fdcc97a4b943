"""Member sources: one file each, with the same names in the same order."""

from credibly.members import adapters, dropout, full, heads, laplace, lora, prompts, top_blocks
from credibly.members.common import Members, Source, TrainingData

SOURCES: dict[str, Source] = {
    "heads": heads,
    "top_blocks": top_blocks,
    "full": full,
    "dropout": dropout,
    "laplace": laplace,
    "lora": lora,
    "adapters": adapters,
    "prompts": prompts,
}
"""A new source is a file and a row here."""

__all__ = ["SOURCES", "Members", "Source", "TrainingData"]
