"""The command line: parsing, printing, exit codes."""

from credibly.cli.main import main

__all__ = ["main"]
