"""Predict: a finished run answers on texts, with label, probabilities and uncertainty."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from credibly.backbones.reading import Reader, count_cut
from credibly.data import InputRow, Row, input_row, stream_texts
from credibly.distil import Network
from credibly.ensemble import Ensemble
from credibly.errors import InputError, did_you_mean, listed
from credibly.parted import PartedText
from credibly.records import UNKNOWN, Examples, Predictions
from credibly.runs import Run
from credibly.settings import DataSettings
from credibly.uncertainty.calibrate import Temperature
from credibly.uncertainty.calibrators import Calibrator
from credibly.uncertainty.numerics import FloatArray, probs_of
from credibly.uncertainty.systems import Answer, answers, forms_of, shipped_system, source_of
from credibly.workflows.contents import calibration_in, class_names_of, network_systems, tuned_systems
from credibly.workflows.lengths import cut_sentence
from credibly.workflows.promises import Promises, Wanted
from credibly.workflows.zero_shot import ZERO_SHOT, zero_shot_network

BATCH_ROWS = 2048
Given = str | Mapping[str, object]
"""A text, or a row with the columns that make one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictor:
    """A system of a finished run, ready to answer.

    Args:
        system: its name, for example "student+temperature".
        class_names: C names.
        record: gives the raw record of examples.
        calibrators: the run's, by system.
        data: the run's columns, for reading files and rows.
        readers: the models that read the texts.
        promises: what decides which texts are answered, and gives sets of classes.
    """

    system: str
    class_names: tuple[str, ...]
    record: Callable[[Examples], Predictions]
    calibrators: Mapping[str, Calibrator]
    data: DataSettings
    readers: Sequence[Reader] = ()
    promises: Promises = field(default_factory=Promises)

    def answer(self, texts: Sequence[Given]) -> Answer:
        """Return probabilities, (N, C), and uncertainty, (N,) each, for N texts.

        Args:
            texts: strings, or rows with the run's text columns, which a template or pair needs.

        Raises:
            InputError: a text is not a string or is empty, or a row lacks a column.
        """
        return self._answer(self._record(texts))

    def _answer(self, predictions: Predictions) -> Answer:
        return answers(self.system, predictions, self.calibrators)[0]

    def _record(self, texts: Sequence[Given]) -> Predictions:
        """Return the raw record of texts."""
        whole = self.read(texts)
        ids = tuple(str(index) for index in range(len(whole)))
        examples = Examples(ids, whole, self.class_names, np.full(len(whole), UNKNOWN))
        return self.record(examples)

    def read(self, texts: Sequence[Given]) -> tuple[str, ...]:
        """Return texts as the model reads them: rows put together as the run's own were.

        Raises:
            InputError: as `answer`.
        """
        if isinstance(texts, str | Mapping):
            raise InputError("expected a list of texts, got one text; give [text]")
        data = self.data.model_copy(update={"id": None})
        whole = [
            input_row(Row(f"text {index}", dict(text)), data, "").text if isinstance(text, Mapping) else text
            for index, text in enumerate(texts)
        ]
        wrong = [index for index, text in enumerate(whole) if not isinstance(text, str) or not text.strip()]
        if wrong:
            raise InputError(f"expected texts that are not empty; see positions {listed(wrong)}")
        if data.cut_column and not all(isinstance(text, PartedText) for text in whole):
            raise InputError(
                "the run reads columns together: expected rows, such as "
                f"{{{listed((f'{name!r}: ...' for name in data.text), 20)}}}, got a text"
            )
        return tuple(whole)

    def predict(self, texts: Sequence[Given]) -> list[dict[str, Any]]:
        """Return one dictionary a text: label, probability, probabilities, total, aleatoric, epistemic.

        Uncertainties are in nats; probabilities are by class name. With promises also `answered`, `reason`
        and `set`; the label of a text that is not answered is None.

        Args:
            texts: as for `answer`.

        Raises:
            InputError: as `answer`.
        """
        record = self._record(texts)
        answer = self._answer(record)
        parts = answer.uncertainty
        columns = (
            self.promises.kept(self.system, answer, record, self.calibrators),
            answer.predicted,
            answer.probs,
            parts.total,
            parts.aleatoric,
            parts.epistemic,
        )
        return [
            {
                "label": self.class_names[label] if kept.get("answered", True) else None,
                "probability": float(probs[label]),
                "probabilities": {name: float(p) for name, p in zip(self.class_names, probs, strict=True)},
                "total": float(total),
                "aleatoric": float(aleatoric),
                "epistemic": float(epistemic),
                **kept,
            }
            for kept, label, probs, total, aleatoric, epistemic in zip(*columns, strict=True)
        ]

    def members(self, texts: Sequence[Given]) -> FloatArray:
        """Return what each member says: probabilities, (M, N, C), after the system's temperature.

        Args:
            texts: as for `answer`.

        Raises:
            InputError: as `answer`.
        """
        calibrator = self.calibrators.get(self.system, Temperature())
        return probs_of(calibrator.apply(self._record(texts)).log_probs)


def load(path: str | Path, system: str | None = None, wanted: Wanted | None = None) -> Predictor:
    """Return a finished run's predictor.

    Args:
        path: the run folder.
        system: one of the run's systems; the student where there is one, else the ensemble, each
            calibrated as the run chose.
        wanted: what is to be promised of the answers.

    Raises:
        RunFolderError: the run is unfinished, damaged or of another format.
        InputError: the run has no such system, or too few calibration rows for a promise.
    """
    run = Run.open(path)
    known = systems_of(run)
    system = system or known[-1]
    if system not in known:
        raise InputError(
            f"the run has no system '{system}'{did_you_mean(system, known)}; it has {listed(known, 20)}"
        )
    promises = Promises.of(run, system, wanted or Wanted())
    source = open_source(run, source_of(system))
    return Predictor(
        system=system,
        class_names=class_names_of(run),
        record=source.predict,
        calibrators=calibration_in(run).calibrators,
        data=run.recipe.data,
        readers=source.readers,
        promises=promises,
    )


def systems_of(run: Run) -> list[str]:
    """Return the systems of a run that can answer, the one to ship last."""
    tuned = tuned_systems(run.recipe)
    untrained = [name for name in network_systems(run.recipe) if name not in tuned]
    bare = [*untrained, "majority_vote", "mean_logits", "ensemble", *tuned]
    calibration = calibration_in(run)
    forms = [form for name in bare for form in forms_of(name, calibration.calibrators)]
    shipped = shipped_system(forms, calibration.choices)
    return [*(form for form in forms if form != shipped), shipped]


def open_source(run: Run, source: str) -> Network | Ensemble:
    """Return a source, whose `predict` gives the raw record of examples, as the run stores it.

    Raises:
        RunFolderError: a weight file is missing or damaged.
    """
    settings = run.recipe.backbone
    if source == "members":
        return Ensemble.open(run, run.recipe, class_names_of(run))
    if source == ZERO_SHOT:
        return zero_shot_network(run.recipe, class_names_of(run))
    folder = run.model_folder(source)
    run.check(folder / "model.safetensors")
    student = source == "student"
    folded = calibration_in(run).folded if student else Temperature()
    return Network.open(folder, settings, emits_dirichlet=student, folded=folded)


def predict_file(
    predictor: Predictor, source: str | Path, data: DataSettings | None = None, keep_text: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield one answer a text of a file, in its order and in constant memory.

    At the end the log is told how many texts were cut, if any.

    Args:
        predictor: of a run.
        source: a file, or ``-`` for standard input.
        data: columns, where they differ from the run's.
        keep_text: whether to pass the text columns on.

    Raises:
        DataError: a row cannot be used; answers before it have been yielded.
    """
    data = data or predictor.data
    total = cut = 0
    try:
        for rows in stream_texts(source, data, BATCH_ROWS):
            texts = [row.text for row in rows]
            answers = predictor.predict(texts)
            total, cut = total + len(texts), cut + count_cut(predictor.readers, texts)
            for row, answer in zip(rows, answers, strict=True):
                yield _with_input(row, answer, data, keep_text)
    finally:
        if cut:
            log.warning(cut_sentence(cut, total, predictor.readers, data))


def answer_lines(rows: Iterator[dict[str, Any]], form: Literal["jsonl", "csv"]) -> Iterator[str]:
    """Yield answers as text lines without their ends: JSON objects, or CSV with a header."""
    if form == "jsonl":
        for row in rows:
            yield json.dumps(row, ensure_ascii=False)
        return
    header: list[str] = []
    for row in rows:
        flat = _flat(row)
        if not header:
            header = list(flat)
            yield _csv_line(header)
        yield _csv_line([flat[name] for name in header])


def _with_input(row: InputRow, answer: dict[str, Any], data: DataSettings, keep_text: bool) -> dict[str, Any]:
    kept = {name: row.columns[name] for name in data.text} if keep_text else {}
    return {"id": row.id, **answer, **kept}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with a column ``probability.CLASS`` for each class."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "probabilities":
            flat |= {f"probability.{label}": probability for label, probability in value.items()}
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return flat


def _csv_line(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    # Before Python 3.13 a line break in a cell is quoted only if the line's own end holds it.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n")
