"""Load: a run's predictor, by torch or by ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from credibly.errors import InputError, RunFolderError, did_you_mean, listed
from credibly.records import Predictions
from credibly.runs import CALIBRATION_ROWS, EXPORT_FILE, Run, read_predictions
from credibly.runtime import MEMBERS_FOLDER, read_contents
from credibly.uncertainty.calibration.calibrators import Calibrator, calibrator_from_json
from credibly.workflows import imported
from credibly.workflows.answering.predicting import Predictor
from credibly.workflows.answering.promises import Promises, Wanted, check_promises

if TYPE_CHECKING:
    from credibly.runtime.model import Runtime

Engine = Literal["auto", "torch", "onnx"]


def load(
    path: str | Path, system: str | None = None, wanted: Wanted | None = None, runtime: Engine = "auto"
) -> Predictor:
    """Return a finished run's predictor.

    Args:
        path: the run folder, or that of an export alone.
        system: one of the run's systems; the student where there is one, else the ensemble, each
            calibrated as the run chose. Of an export the one that was exported.
        wanted: what is to be promised of the answers.
        runtime: torch, or ONNX Runtime for the run's export; if left out torch where it is installed.

    Raises:
        RunFolderError: the run is unfinished, damaged, of another format or was not exported.
        InputError: the run has no such system, or too few calibration rows for a promise.
        MissingExtraError: torch is not installed, or ONNX Runtime is not.
    """
    folder = export_folder(Path(path))
    alone = has_export(Path(path))
    if runtime == "onnx" or (runtime == "auto" and has_export(folder) and (alone or not has_torch())):
        return open_export(folder, system, wanted or Wanted())
    if alone:
        raise RunFolderError(f"{path} is an export, which torch cannot run; leave --runtime out")
    opened: Predictor = imported("credibly.workflows.answering.opening").open_run(
        Run.open(path), system, wanted or Wanted()
    )
    return opened


def open_export(folder: Path, system: str | None, wanted: Wanted) -> Predictor:
    """Return the predictor of an exported system, or of the members beside it, without torch.

    Raises:
        RunFolderError: there is no export, it is damaged, or its format version is another.
        InputError: no such system was exported, or too few calibration rows for a promise.
        MissingExtraError: ONNX Runtime is not installed.
    """
    reading = imported("credibly.runtime.model")
    if not has_export(folder):
        raise RunFolderError(
            f"expected an exported run at {folder.parent}; export it where torch is installed: "
            f"credibly export {folder.parent}"
        )
    place_of = _exported(folder)
    system = check_known(system or next(iter(place_of)), list(place_of), "the export")
    opened: Runtime = reading.Runtime.open(place_of[system])
    calibrators = {name: calibrator_from_json(values) for name, values in opened.contents.calibrators.items()}
    return Predictor(
        system=system,
        class_names=opened.classes,
        record=opened.raw_predictions,
        calibrators=calibrators,
        data=opened.contents.columns.data,
        readers=opened.graphs,
        promises=_promises(opened, system, calibrators, wanted),
        calibration=lambda: _calibration_of(opened),
    )


def _promises(
    opened: Runtime, system: str, calibrators: Mapping[str, Calibrator], wanted: Wanted
) -> Promises:
    """Fit what is wanted on what the exported graph itself answers on the calibration rows."""
    if wanted.nothing:
        return Promises()
    stored = _calibration_of(opened)
    if stored is None:
        raise InputError(
            "the export holds no answers on calibration rows, on which a promise is fitted; export it again "
            "where the run's data are, without --texts"
        )
    check_promises(wanted, opened.contents.columns, stored)
    return Promises.fit(stored, system, calibrators, wanted)


def _calibration_of(opened: Runtime) -> Predictions | None:
    held = CALIBRATION_ROWS in opened.contents.files
    return read_predictions(opened.folder / CALIBRATION_ROWS) if held else None


def engine_of(path: str | Path, system: str | None, wanted: Engine) -> Engine:
    """Return what a service runs on: the export where it has the system, if nothing else is wanted."""
    folder = export_folder(Path(path))
    if wanted != "auto" or not has_export(folder):
        return wanted
    return "onnx" if system is None or system in _exported(folder) else wanted


def _exported(folder: Path) -> dict[str, Path]:
    """Return the folder of each system that was exported, the one to ship first."""
    places = [place for place in (folder, folder / MEMBERS_FOLDER) if has_export(place)]
    return {name: place for place in places for name in read_contents(place).systems}


def export_folder(path: Path) -> Path:
    """Return the folder of a run's export: the path itself where it is an export."""
    return path if has_export(path) else Run(path).export_folder


def has_export(folder: Path) -> bool:
    """Return whether a folder holds an exported model."""
    return (folder / EXPORT_FILE).is_file()


def has_torch() -> bool:
    """Return whether torch and transformers are installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))
    except ImportError:
        return False


def check_known(system: str, known: Sequence[str], holder: str) -> str:
    """Return a system's name, or raise InputError where its holder has no such system."""
    if system not in known:
        raise InputError(
            f"{holder} has no system '{system}'{did_you_mean(system, known)}; it has {listed(known, 20)}"
        )
    return system
