"""`credibly distil`: another student, and other controls, of a finished run's members."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from credibly import workflows
from credibly.cli.console import set_log, show_report, shown_progress
from credibly.cli.options import Json, Overwrite, Quiet, Verbose, assigned, given, names
from credibly.settings import CONTROLS, SOUPS


def distil(
    run: Annotated[
        Path, typer.Argument(help="A finished run, of fit or label; it is left as it is.", metavar="RUN")
    ],
    output_folder: Annotated[
        Path | None, typer.Option("--output", help="The new run's folder; RUN-distilled by default.")
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            help="Networks to hold the student against: all, none, or some of "
            f"{','.join((*CONTROLS, *SOUPS))}; soups are means of the members' weights."
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="What the student starts from: packaged model, hub id or local folder.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Students to train, for the spread over seeds; the first is kept.")
    ] = None,
    unlabelled: Annotated[str | None, typer.Option(help="File of texts for distilling.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Of a run of label: calibration file with true labels.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Of a run of label: test file with true labels.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any recipe key below distil, as KEY=VALUE; may be given again."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an unfinished run, or add controls and seeds to a run."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Distil a finished run's members anew, without training them again; a run of its own comes out."""
    set_log(verbose, quiet)
    settings = given({
        "distil.controls": None if controls is None else _controls(controls),
        "distil.backbone.name": backbone, "distil.seeds": seeds, "data.unlabelled": unlabelled,
        "data.calibration": calibration, "data.test": test,
    })  # fmt: skip
    settings |= assigned(assignments)
    with shown_progress(quiet) as stages:
        made = workflows.distil(run, output_folder, settings, resume, overwrite, stages)
    show_report(made.path, as_json)


def _controls(text: str) -> list[str] | str:
    """Return the controls that are named, "all" as it is, or none."""
    return text if text == "all" else [] if text == "none" else names(text)
