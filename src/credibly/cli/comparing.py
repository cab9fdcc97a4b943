"""`credibly compare`: several systems on one data set and one split, and which of them to use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from credibly import workflows
from credibly.cli.console import output, print_json, set_log, shown_progress
from credibly.cli.options import Json, Quiet, Verbose, assigned


def compare(
    recipe: Annotated[
        Path,
        typer.Argument(help="A recipe with one block more: `systems`, by name, what each has of its own."),
    ],
    output_folder: Annotated[
        Path | None, typer.Option("--output", help="The folder; runs/NAME of the recipe's by default.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any recipe key, for all systems, as KEY=VALUE; may be given again."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Fit every system anew.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fit several systems, compare all they can answer by, and recommend one; a stopped one goes on."""
    set_log(verbose, quiet)
    folder = output_folder or Path("runs") / recipe.stem
    with shown_progress(quiet) as stages:
        content = workflows.compare(recipe, folder, assigned(assignments), overwrite, stages)
    if as_json:
        print_json(content)
        return
    from credibly.report.candidates.terminal import print_comparison

    print_comparison(content, output())
    output().print(f"\nComparison: {folder / 'comparison.html'}", soft_wrap=True)
