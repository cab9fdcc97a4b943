"""`credibly push` and `credibly pull`: a run to a repository with its model card, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from credibly import workflows
from credibly.cli.console import output, print_json, set_log, shown_progress
from credibly.cli.options import Json, Overwrite, Quiet, RunFolder, Verbose

Repository = Annotated[
    str, typer.Argument(help="OWNER/NAME on the hub, or a folder as ./FOLDER.", metavar="REPOSITORY")
]


def push(
    run: RunFolder,
    repository: Repository,
    public: Annotated[bool, typer.Option("--public", help="Let all see it; else it is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, made where there is none.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    with_texts: Annotated[
        bool,
        typer.Option("--with-texts", help="Push also the ten texts of the report, and examples in prompts."),
    ] = False,
    with_reference: Annotated[
        bool,
        typer.Option(
            "--with-reference",
            help="Push also what `shift` needs: embeddings of training texts, which tell of these texts.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and write the card to look at; send nothing.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Publish a run, ensemble and student, with its model card; texts and the ids of rows stay here."""
    set_log(verbose, quiet)
    wishes = workflows.Wishes(with_texts, with_reference)
    with shown_progress(quiet) as stages:
        content = workflows.push(run, repository, wishes, public, revision, message, dry_run, stages)
    print_json(content) if as_json else _print(content)


def pull(
    repository: Repository,
    output_folder: Annotated[
        Path | None, typer.Option("--output", help="The run folder; runs/NAME by default.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a published run; every file is checked, and nothing in it can run code."""
    set_log(verbose, quiet)
    with shown_progress(quiet) as stages:
        run = workflows.pull(repository, output_folder, revision, overwrite, stages)
    if as_json:
        print_json({"repository": repository, "run": str(run.path), "files": run.manifest["files"]})
    else:
        output().print(
            f"{repository} is in {run.path}; ask it: credibly predict {run.path} FILE", soft_wrap=True
        )


def _print(content: dict[str, Any]) -> None:
    """Print the files of a publication, and where it is."""
    from credibly.report.words.numbers import cost, count  # brings SciPy, which `--help` does without

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    for name, size in content["files"].items():
        table.add_row(Text(name), count(size))
    console = output()
    console.print(table)
    total = f"{len(content['files'])} files, {cost('bytes', content['bytes'])}"
    if not content["sent"]:
        console.print(f"{total}, of which nothing was sent. The card: {content['card']}", soft_wrap=True)
        return
    seen = {True: ", private", False: ", public", None: ""}[content["private"]]
    console.print(f"{total}: {content['address']}{seen}", soft_wrap=True)
