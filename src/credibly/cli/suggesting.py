"""`credibly suggest`: texts to label by hand next, as a CSV to fill in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from credibly import workflows
from credibly.cli.console import output, set_log, shown_progress
from credibly.cli.options import IdColumn, Quiet, TextColumns, Verbose, given
from credibly.errors import InputError
from credibly.runs import write_text


def suggest(
    run: Annotated[Path, typer.Argument(help="A folder of `fit` or `label`.", metavar="RUN")],
    source: Annotated[
        str | None,
        typer.Argument(help="Texts to choose from; not needed for a folder of `label`.", metavar="FILE"),
    ] = None,
    count: Annotated[int, typer.Option(help="How many texts.")] = 20,
    by: Annotated[
        Literal["diverse", "bald", "entropy"],
        typer.Option(
            help="Uncertain and unlike each other; where members disagree; or where the answer is uncertain."
        ),
    ] = "diverse",
    without: Annotated[
        list[str] | None, typer.Option(help="File of texts that have a label; may be given again.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Whose answers count; the student by default.")] = None,
    text: TextColumns = None,
    id_column: IdColumn = None,
    file: Annotated[Path | None, typer.Option("--output", help="CSV to write; else it is printed.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing CSV.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say which texts to label by hand next: a CSV with an empty label column, which `fit` reads back."""
    set_log(verbose, quiet)
    if file is not None and file.exists() and not overwrite:
        raise InputError(
            f"expected a new file to write to, and {file} exists: labels may have been filled in by hand; "
            "give another --output, or --overwrite to replace it"
        )
    settings = given({"text": text, "id": id_column})
    with shown_progress(quiet) as stages:
        rows = workflows.suggest(run, source, count, by, settings, system, without or (), stages)
    lines = "".join(f"{line}\n" for line in workflows.answer_lines(iter(rows), "csv"))
    if file is None:
        sys.stdout.write(lines)
        return
    write_text(file, lines)
    output().print(f"{len(rows)} texts to label: {file}", soft_wrap=True)
