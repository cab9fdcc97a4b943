"""The whole report for 100,000 rows of ten members and six classes: within a minute and two gigabytes.

Saved predictions as an NPZ file, scored in a process of its own: three systems and the cross-fitted one,
every metric with 1,000 resamples, slices, curves and the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure import Result, load, say, write

NAME = "report"
ROWS, MEMBERS, CLASSES, ROUNDS = 100_000, 10, 6, 2
MOST_SECONDS, MOST_BYTES = 60, 2e9


def main() -> None:
    """Score one file some times, and judge the seconds and the memory that it took."""
    load_before = load()
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "predictions.npz"
        write_predictions(file)
        for number in range(ROUNDS):
            spent, peak = scored(file)
            say(f"round {number + 1} of {ROUNDS}: {spent:.1f} s, {peak / 1e9:.2f} GB")
            seconds.append(spent)
            peaks.append(peak)
    write(
        Result(
            name=NAME,
            what=f"seconds for the report on {ROWS:,} rows x {MEMBERS} members x {CLASSES} classes / 60",
            ratio=median(seconds) / MOST_SECONDS,
            unit="seconds",
            sides={"report": seconds},
            at_most=1,
            holds=max(peaks) <= MOST_BYTES,
            figures={"peak_bytes": peaks, "most_bytes": MOST_BYTES, "resamples": 1000},
        ),
        load_before,
    )


def write_predictions(file: Path) -> None:
    """Write members that differ a little and are somewhat too sure of themselves."""
    random = np.random.default_rng(0)
    z = random.normal(0, 2, (ROWS, CLASSES))
    labels = (z + random.gumbel(size=z.shape)).argmax(axis=1)
    logits = 1.3 * (z + random.normal(0, 0.5, (MEMBERS, ROWS, CLASSES)))
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    np.savez(file, probabilities=probabilities.astype(np.float32), labels=labels)


def scored(file: Path) -> tuple[float, float]:
    """Score a file in a process of its own; return its seconds and its peak memory in bytes."""
    program = "from credibly.cli import main; main()"
    page = file.with_suffix(".html")
    command = [
        sys.executable,
        "-c",
        program,
        "evaluate",
        "--predictions",
        str(file),
        "--html",
        str(page),
        "-q",
    ]
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    spent = time.perf_counter() - began
    if child.returncode or not page.is_file():
        raise RuntimeError(f"evaluate ended with {child.returncode}")
    # Linux counts in KiB, macOS in bytes.
    return spent, float(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    main()
