"""Peak memory of `credibly predict` on 100,000 rows against 10,000: it must not grow with the file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.measure import Result, alternate, load, say, write, write_skipped

NAME = "memory"
WHAT = "peak memory of `credibly predict` on 100,000 rows / on 10,000 rows"
FEW, MANY = 10_000, 100_000
ROUNDS = 2
TRAIN_ROWS = 400
WORDS = {
    "good": ["warm", "funny", "bright", "lovely", "clever", "moving", "fresh", "tender", "superb"],
    "bad": ["dull", "slow", "empty", "clumsy", "tired", "hollow", "stale", "noisy", "awful"],
    "any": ["the", "film", "plot", "music", "cast", "scene", "story", "ending", "camera", "so", "very"],
}


def main() -> None:
    """Fit a small run with a student, then predict files of both sizes in turns."""
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if reason := fit(folder):
            write_skipped(NAME, WHAT, reason)
            return
        for rows in (FEW, MANY):
            write_rows(folder / f"{rows}.jsonl", rows)
        seconds: dict[str, list[float]] = {str(FEW): [], str(MANY): []}
        peaks = alternate(
            {name: lambda name=name: predict(folder, name, seconds[name]) for name in seconds}, ROUNDS
        )
    result = Result(
        name=NAME,
        what=WHAT,
        ratio=median(peaks[str(MANY)]) / median(peaks[str(FEW)]),
        unit="MiB",
        sides={f"{name} rows": runs for name, runs in peaks.items()},
        at_most=1.1,
        figures={
            "rows_per_second": {name: int(name) / median(runs) for name, runs in seconds.items()},
            "system": "student+temperature",
        },
    )
    write(result, load_before)


def fit(folder: Path) -> str | None:
    """Fit a run on made texts; return why it cannot be, or None."""
    write_rows(folder / "train.jsonl", TRAIN_ROWS)
    settings = ["distil.optimiser.epochs=1", "distil.controls=[]", "evaluation.resamples=20"]
    options = [part for setting in settings for part in ("--set", setting)]
    command = [
        *credibly("fit"),
        str(folder / "train.jsonl"),
        "--output",
        str(folder / "run"),
        "--epochs",
        "2",
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode and "is not in the cache" in done.stderr:
        return done.stderr.strip()
    if done.returncode:
        raise RuntimeError(f"fitting failed: {done.stderr}")
    say(f"fitted a run on {TRAIN_ROWS} rows")
    return None


def predict(folder: Path, name: str, seconds: list[float]) -> float:
    """Predict one file in a process of its own, note its seconds, and return its peak memory in MiB."""
    answers = folder / "answers.jsonl"
    began = time.perf_counter()
    with answers.open("wb") as output:
        child = subprocess.Popen(
            [*credibly("predict"), str(folder / "run"), str(folder / f"{name}.jsonl")], stdout=output
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds.append(time.perf_counter() - began)
    with answers.open("rb") as lines:
        answered = sum(1 for _ in lines)
    if child.returncode or answered != int(name):
        raise RuntimeError(f"predict ended with {child.returncode} after {answered} of {name} rows")
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def credibly(verb: str) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-c", "from credibly.cli import main; main()", verb]


def write_rows(file: Path, rows: int) -> None:
    """Write made texts of 4 to 12 words with labels, the same mix of lengths whatever their number."""
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            label = ("bad", "good")[number % 2]
            words = [*draw.choices(WORDS["any"], k=draw.randint(3, 11)), draw.choice(WORDS[label])]
            # The number keeps the texts apart: equal ones would be dropped as leaks between the splits.
            row = {"id": str(number), "text": f"{' '.join(words)} {number}", "label": label}
            lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
