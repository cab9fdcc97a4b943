"""Where the command line prints: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from credibly import workflows
from credibly.progress import Progress as Told
from credibly.progress import Stages, silent

NARROWEST = 100


def output(stderr: bool = False) -> Console:
    """Return the console of results; piped output is as wide as a table needs.

    Brackets and colons stand for themselves: file and class names are printed, and may hold `[red]` or `:x:`.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    return console


def set_log(verbose: bool, quiet: bool) -> None:
    """Send log lines to standard error: warnings, or all from `verbose`, or errors from `quiet`."""
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=verbose)
    root = logging.getLogger("credibly")
    root.handlers = [handler]
    root.setLevel(level)


def print_json(content: Any) -> None:
    """Print one JSON document on standard output and nothing else."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def show(content: dict[str, Any], page: Path | None, as_json: bool) -> None:
    """Print a report, as JSON or for people, and say where its page is."""
    from credibly.report import print_report

    if as_json:
        print_json(content)
        return
    console = output()
    print_report(content, console)
    if page is not None:
        console.print(f"\nReport: {page}", soft_wrap=True)


def show_report(run: Path, as_json: bool) -> None:
    """Print a finished run's report; without a test set there is none to print."""
    page = run / "report.html"
    if (run / "report.json").is_file():
        show(workflows.report(run), page, as_json)
    elif as_json:
        print_json({"run": str(run), "report": None})
    else:
        output().print(f"{run} is trained; score it: credibly evaluate {run} FILE", soft_wrap=True)


@contextmanager
def shown_progress(quiet: bool = False) -> Iterator[Stages]:
    """Yield stages that show a bar each on a terminal, and say nothing elsewhere."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _logged
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:

        def stage(name: str) -> Told:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def _logged(stage: str) -> Told:
    logging.getLogger("credibly").info(stage)
    return silent(stage)
