"""Run every benchmark, or one: `python -m benchmarks [NAME]` or `python benchmarks/run.py --only NAME`.

Each runs in a process of its own, prints as it goes and writes `benchmarks/results/NAME.json`; the table
at the end is read from those files. One that takes hours runs where it is asked for by name alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "heads",
    "embedding",
    "intervals",
    "scores",
    "report",
    "memory",
    "demo",
    "lora_sst2",
    "lora_boolq",
    "top_blocks",
    "top_blocks_prediction",
    "lora_parameters",
    "trainer",
    "export",
    "plan",
    "service",
    "labelling",
)
LONG = ("kept",)
"""Those that take hours."""


def main() -> None:
    """Run what is asked for, print the table, and exit with 1 where a benchmark fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=(*NAMES, *LONG), help="run this one only")
    parser.add_argument("--only", choices=(*NAMES, *LONG), help="the same")
    given = parser.parse_args()
    only = given.name or given.only
    rows = [run(only)] if only else [*map(run, NAMES), *map(left_out, LONG)]
    print_table(rows)
    sys.exit(any(row["verdict"] in ("FAILED", "ERROR") for row in rows))


def run(name: str) -> dict[str, Any]:
    """Run one benchmark in a process of its own and return its row of the table."""
    print(f"== {name}", flush=True)
    file = ROOT / "benchmarks" / "results" / f"{name}.json"
    file.unlink(missing_ok=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=False)
    seconds = time.perf_counter() - began
    return row_of(name, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None, seconds)


def left_out(name: str) -> dict[str, Any]:
    """Return the row of a benchmark that takes hours; what it found before stays in its file."""
    return row_of(name, {"skipped": f"takes hours: make bench ONLY={name} DATA=FOLDER"}, 0.0)


def row_of(name: str, content: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
    """Return a benchmark's row: its ratio, bound, verdict and seconds."""
    row: dict[str, Any] = {"name": name, "ratio": "-", "bound": "-", "seconds": f"{seconds:.0f}"}
    if content is None:
        return {**row, "verdict": "ERROR", "what": "stopped before it wrote a result"}
    if "skipped" in content:
        return {**row, "verdict": "skipped", "what": content["skipped"]}
    at_least = "at_least" in content
    bound = f"{'>=' if at_least else '<='} {content['at_least' if at_least else 'at_most']:g}"
    verdict = "passed" if content["passed"] else "FAILED"
    ratio = f"{content['ratio']:.3g}"
    return {**row, "ratio": ratio, "bound": bound, "verdict": verdict, "what": content["what"]}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows in columns."""
    columns = ("name", "ratio", "bound", "verdict", "seconds", "what")
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    widths = {column: max(len(line[column]) for line in lines) for column in columns}
    for line in lines:
        print("  ".join(line[column].ljust(widths[column]) for column in columns).rstrip())


if __name__ == "__main__":
    main()
