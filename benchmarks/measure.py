"""What the benchmarks share: both sides run in turns, medians with quartiles, one JSON file each.

Sides take turns (A B A B ...), so that whatever else the machine does falls on both alike. A result
says where and when it was measured; `load_before` tells whether the machine was quiet.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

Side = Callable[[], float]
"""Runs one side once and returns its figure: seconds, a rate, bytes."""


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Args:
        name: of the file, `benchmarks/NAME.py`.
        what: is compared, in a sentence.
        ratio: the figure that is judged.
        unit: of the sides' figures.
        sides: every run of each side, by the side's name.
        at_least: what the ratio must reach.
        at_most: what the ratio must not pass.
        holds: whether everything else that the benchmark demands is so.
        share_of_limit: the share of a physical limit that was measured beside it.
        limit: what the limit is, with its figure.
        figures: whatever else was measured.
    """

    name: str
    what: str
    ratio: float
    unit: str
    sides: Mapping[str, Sequence[float]]
    at_least: float | None = None
    at_most: float | None = None
    holds: bool = True
    share_of_limit: float | None = None
    limit: Mapping[str, Any] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the ratio is within its bound and all else holds."""
        enough = self.at_least is None or self.ratio >= self.at_least
        little = self.at_most is None or self.ratio <= self.at_most
        return enough and little and self.holds

    def as_json(self) -> dict[str, Any]:
        """Return the result as its file holds it, without what was not measured."""
        content = {
            "name": self.name,
            "what": self.what,
            "ratio": self.ratio,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "passed": self.passed,
            "unit": self.unit,
            "sides": {name: spread(runs) for name, runs in self.sides.items()},
            "share_of_limit": self.share_of_limit,
            "limit": self.limit,
            "figures": dict(self.figures),
        }
        return {key: value for key, value in content.items() if value is not None}


def alternate(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """Run every side once a round, in turns, and return all figures by side."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            figures[name].append(side())
            say(f"round {number + 1} of {rounds}: {name} {figures[name][-1]:.4g}")
    return figures


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that work takes by the wall clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(runs: Sequence[float]) -> dict[str, Any]:
    """Return median, quartiles and number of runs; one run is its own quartiles."""
    low, _, high = quantiles(runs, n=4, method="inclusive") if len(runs) > 1 else (runs[0],) * 3
    return {
        "median": rounded(median(runs)),
        "low_quartile": rounded(low),
        "high_quartile": rounded(high),
        "runs": len(runs),
    }


def write(result: Result, load_before: float) -> None:
    """Write a result's file."""
    _write(result.name, {**result.as_json(), **surroundings(load_before)})


def write_skipped(name: str, what: str, reason: str) -> None:
    """Write that a benchmark could not run here, and why; it has no ratio."""
    _write(name, {"name": name, "what": what, "skipped": reason, **surroundings(load())})


def surroundings(load_before: float) -> dict[str, Any]:
    """Return machine, date and commit."""
    return {
        "machine": machine(),
        "load_before": rounded(load_before),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


LOW_PRECISION = {"avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"}
"""Of a processor's instructions those that decide how fast products of bf16 and 8-bit integers are.

With tiles (amx) a plain product is several times as fast as without, and all between the products is not.
"""


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, versions, precision."""
    import torch

    from credibly.backbones import resolve_precision
    from credibly.backbones.placement import best_device

    device = best_device()
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": sorted(LOW_PRECISION & set(_processor_says("flags").split())),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "precision": resolve_precision("auto", device),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
    }


def load() -> float:
    """Return how many processes wanted a core over the last minute; zero where that is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def rounded(value: Any) -> Any:
    """Return numbers with five significant digits, through mappings and lists."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _write(name: str, content: Mapping[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded(content), indent=2, allow_nan=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _processor() -> str:
    return _processor_says("model name") or platform.processor() or platform.machine()


def _processor_says(field: str) -> str:
    """Return what Linux says of the first core; nothing elsewhere."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _commit() -> str | None:
    try:
        shown = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()
