"""The folder of an exported model: graphs, tokenizers, and what is said of them in `export.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from credibly.export.choosing import Rows, Tried, differing, fastest, largest_weight, try_all
from credibly.export.graphs import write_float
from credibly.export.networks import Source
from credibly.export.parity import Parity
from credibly.export.rounding import FULL
from credibly.progress import Stages
from credibly.records import Examples, Predictions
from credibly.runs import CALIBRATION_ROWS, EXPORT_FILE, predictions_bytes, sha256, write_json
from credibly.runtime import Columns, Contents, Folded, GraphFile
from credibly.runtime.graph import Graph, Logits
from credibly.runtime.model import Runtime
from credibly.uncertainty.calibration.calibrators import Calibrator
from credibly.uncertainty.systems import Answer, answers

PACKAGES = ("credibly", "torch", "transformers", "onnx", "onnxruntime", "tokenizers")


@dataclass(frozen=True)
class System:
    """What is exported, as the runtime will know it.

    Args:
        name: of the system.
        names: of all systems that can answer by the same logits, it among them.
        class_names: C names.
        is_dirichlet: whether the logits are log-concentrations.
        columns: that make a text.
        folded: the calibration that the logits hold.
        calibrators: the run's for these systems, on raw records.
    """

    name: str
    names: Sequence[str]
    class_names: Sequence[str]
    is_dirichlet: bool
    columns: Columns
    folded: Folded
    calibrators: Mapping[str, Calibrator]

    def answer(self, logits: Logits, examples: Examples) -> Answer:
        """Return what is said by these logits, (M, N, C), calibrated as the system is: what its users see."""
        raw = self.folded.raw(logits)
        if self.is_dirichlet:
            record = Predictions.from_log_concentrations(raw[0], examples)
        else:
            record = Predictions.from_logits(raw, examples)
        return answers(self.name, record, self.calibrators)[0]


def write_export(
    folder: Path,
    system: System,
    sources: Iterable[Source],
    rows: Rows,
    calibration: Examples | None,
    stages: Stages,
) -> Contents:
    """Write an exported system into a folder that is there and empty, and return what it says of itself.

    Args:
        folder: where to.
        system: what it is.
        sources: its networks, one after the other; most systems have one.
        rows: texts on which precisions are fitted and judged.
        calibration: rows whose answers are kept, for promises; None where there are none.
        stages: told of progress.

    Raises:
        InputError: an architecture cannot be exported, or none of its graphs answers as it does.
    """
    written = [
        _write_graph(folder, source, system, number, rows, stages) for number, source in enumerate(sources)
    ]
    contents = Contents(
        system=system.name,
        systems=list(system.names),
        classes=list(system.class_names),
        is_dirichlet=system.is_dirichlet,
        columns=system.columns,
        calibration=system.folded,
        calibrators={name: dict(each.as_json()) for name, each in system.calibrators.items()},
        graphs=[one.graph for one in written],
        precision="+".join(dict.fromkeys(one.best.precision for one in written)),
        parity=_parity(system, written, rows.held_out).as_json(),
        tried=[row for one in written for row in one.tried],
        packages={name: version(name) for name in PACKAGES},
    )
    contents = _with_sums(folder, contents)
    if calibration is not None:
        record = Runtime.open(folder).raw_predictions(calibration)
        (folder / CALIBRATION_ROWS).write_bytes(predictions_bytes(record))
        contents = _with_sums(folder, contents)
    return contents


@dataclass(frozen=True)
class _Written:
    """A graph in the folder, its precision, all that were tried, and the network's own logits, (M, N, C)."""

    graph: GraphFile
    best: Tried
    tried: list[dict[str, Any]]
    own: Logits


def _write_graph(
    folder: Path, source: Source, system: System, number: int, rows: Rows, stages: Stages
) -> _Written:
    """Write one network's graph at the fastest precision that answers as it does, and its tokenizer."""
    ending = f"-{number}" if number else ""
    settings = described(source, system, f"model{ending}.onnx", f"tokenizer{ending}.json")
    source.tokenizer.backend_tokenizer.save(str(folder / settings.tokenizer))
    progress = stages(f"exporting {settings.file.removesuffix('.onnx')}")
    write_float(source, folder / settings.file, settings.tells_pairs_apart)
    model, graph = onnx.load(folder / settings.file), Graph.open(folder, settings)
    own = source.logits(graph.tokens(rows.held_out.texts))
    tried = try_all(own, model, graph, system.answer, rows, progress)
    best = fastest(tried)
    onnx.save(best.model, folder / settings.file)
    needs = best.precision != "float" and largest_weight() == FULL
    table = [{"graph": settings.file, "chosen": one is best, **one.as_json()} for one in tried]
    slim = replace(best, model=onnx.ModelProto())
    return _Written(settings.model_copy(update={"needs_vnni": needs}), slim, table, own)


def _parity(system: System, written: Sequence[_Written], held_out: Examples) -> Parity:
    """Return how near the graphs come together to the networks together: what the system's users see.

    Raises:
        InputError: they do not answer the same.
    """
    networks, graphs = (
        system.answer(np.concatenate(logits), held_out)
        for logits in ([one.own for one in written], [one.best.logits for one in written])
    )
    parity = Parity.between(networks, graphs)
    if not parity.passed:
        raise differing(parity)
    return parity


def described(source: Source, system: System, file: str, tokenizer: str) -> GraphFile:
    """Return how a network's graph reads texts."""
    own = source.tokenizer
    known = (own.unk_token_id, own.eos_token_id, own.pad_token_id, 0)
    return GraphFile(
        file=file,
        tokenizer=tokenizer,
        members=source.members,
        max_tokens=source.max_tokens,
        padding_id=source.padding_id,
        unknown_id=next(int(index) for index in known if index is not None),
        truncation_side=own.truncation_side,
        tells_pairs_apart=system.columns.pair and source.tells_pairs_apart,
    )


def _with_sums(folder: Path, contents: Contents) -> Contents:
    """Write `export.json` with the sha256 of all other files, and return what it holds."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != EXPORT_FILE)
    contents = contents.model_copy(update={"files": {file.name: sha256(file) for file in files}})
    write_json(folder / EXPORT_FILE, contents.model_dump(mode="json"))
    return contents
