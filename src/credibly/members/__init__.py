"""Member sources: one file each, with the same names in the same order."""

from credibly.members import (
    adapters,
    dropout,
    entailment,
    full,
    heads,
    laplace,
    lora,
    prompts,
    samples,
    similarity,
    snapshots,
    top_blocks,
)
from credibly.members.common import Members, Source, TrainingData
from credibly.members.opinions import Labellers, LabellerSource, Said

LABELLERS: dict[str, LabellerSource] = {
    "prompts": prompts,
    "samples": samples,
    "similarity": similarity,
    "entailment": entailment,
}
"""Sources of which nothing is trained: what `label` asks."""

SOURCES: dict[str, Source] = {
    "heads": heads,
    "top_blocks": top_blocks,
    "full": full,
    "snapshots": snapshots,
    "dropout": dropout,
    "laplace": laplace,
    "lora": lora,
    "adapters": adapters,
    **LABELLERS,
}
"""A new source is a file and a row here."""

__all__ = ["LABELLERS", "SOURCES", "LabellerSource", "Labellers", "Members", "Said", "Source", "TrainingData"]
