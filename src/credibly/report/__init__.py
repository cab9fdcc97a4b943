"""The report: one dictionary of figures (report.json), one HTML page, one table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from credibly.report.build import build_report
from credibly.report.page.html import render_html
from credibly.report.page.plot_files import write_plots
from credibly.report.terminal.report import print_report
from credibly.runs import Run, write_json, write_text

__all__ = ["build_report", "print_report", "render_html", "write_plots", "write_report"]


def write_report(run: Run, report: Mapping[str, Any]) -> None:
    """Write report.json and report.html into a run folder, each whole or not at all.

    Args:
        run: whose folder.
        report: as `build_report` returns it.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed; report.json is written all the same.
    """
    write_json(run.report_json, report)
    write_text(run.report_html, render_html(report))
