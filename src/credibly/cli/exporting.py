"""`credibly export`: a system as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from credibly import workflows
from credibly.cli.console import output, print_json, set_log, shown_progress
from credibly.cli.options import Json, Quiet, RunFolder, Verbose


def export(
    run: RunFolder,
    system: Annotated[
        str | None, typer.Option(help="Which system is exported; the calibrated student by default.")
    ] = None,
    members: Annotated[bool, typer.Option("--members", help="Export the ensemble too, beside it.")] = False,
    output_folder: Annotated[
        Path | None, typer.Option("--output", help="The folder; export/ in the run's own by default.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="Texts to try precisions on, where the run's own data are not there any more."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's student as ONNX, at the fastest precision that answers the same; it needs no torch."""
    set_log(verbose, quiet)
    with shown_progress(quiet) as stages:
        content = workflows.export(run, system, members, output_folder, texts, overwrite, stages)
    if as_json:
        print_json(content)
    else:
        from credibly.cli.export_table import print_export

        print_export(content, output())
