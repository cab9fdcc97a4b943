"""`credibly serve` under 32 closed-loop clients against the runtime alone, on the same exported run.

With 32 texts a request, throughput is judged; with one text a request, latency: the 32 texts in flight are
then one batch, and an answer may take three times as long as such a batch takes by itself. (At 32 texts a
request 1,024 are in flight, and no service could answer faster than 32 batches take.)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Result, load, say, write, write_skipped

NAME = "service"
WHAT = "texts a second of the service at 32 texts a request, 32 clients / of the runtime alone"
CLIENTS, BATCH = 32, 32
SECONDS = int(os.environ.get("CREDIBLY_BENCHMARK_SECONDS", "60"))
RUN = Path(os.environ.get("CREDIBLY_BENCHMARK_RUN", ROOT / "runs" / "demo"))
TEXTS = 4096
LIMIT = 256
"""Texts that may wait where refusals are looked at: a quarter of what the clients have in flight."""


def main() -> None:
    """Measure the runtime, the service and the runtime again."""
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        if reason := lacking():
            write_skipped(NAME, WHAT, reason)
            return
        texts = write_texts(Path(scratch))
        bare = [measured_runtime(texts)]
        many, single = measured_service(texts, BATCH), measured_service(texts, 1)
        bare.append(measured_runtime(texts))
        refusals = measured_service(
            texts, BATCH, "--max-queue", str(LIMIT), "--max-texts", str(LIMIT), seconds=10
        )
    write(result(bare, many, single, refusals), load_before)


def result(
    bare: list[dict[str, float]], many: dict[str, Any], single: dict[str, Any], refusals: dict[str, Any]
) -> Result:
    """Return the ratio, and whether all else that is demanded holds."""
    rates = [one["texts_per_second"] for one in bare]
    batch = median(one["batch_milliseconds"] for one in bare)
    demands = {
        "no_errors": set(many["statuses"]) | set(single["statuses"]) == {"200"},
        "answers_whole": not any(one["wrong_answers"] for one in (many, single, refusals)),
        "median_at_most_3_batches": single["milliseconds"]["median"] <= 3 * batch,
        "p99_at_most_5_medians": all(
            one["milliseconds"]["p99"] <= 5 * one["milliseconds"]["median"] for one in (many, single)
        ),
        "refusals_right": set(refusals["statuses"]) == {"200", "429"}
        and not refusals["refused_without_advice"],
    }
    return Result(
        name=NAME,
        what=WHAT,
        ratio=many["texts_per_second"] / median(rates),
        unit="texts per second",
        sides={"service": [many["texts_per_second"]], "runtime": rates},
        at_least=0.8,
        holds=all(demands.values()),
        figures={
            "demands": demands,
            "seconds": SECONDS,
            "batch_of_32_milliseconds": batch,
            "texts_32_a_request": many,
            "text_1_a_request": single,
            "beyond_the_limit": refusals,
        },
    )


def lacking() -> str | None:
    """Return why the benchmark cannot run, or None."""
    if not (RUN / "export").is_dir():
        return f"no exported run at {RUN}: credibly demo, then credibly export {RUN}"
    return None


def write_texts(folder: Path) -> Path:
    """Write the texts that both sides answer: test rows of the packaged reviews."""
    from credibly.data.reviews import load_reviews

    texts = load_reviews().test.texts
    file = folder / "texts.json"
    file.write_text(json.dumps((texts * (TEXTS // len(texts) + 1))[:TEXTS]), encoding="utf-8")
    return file


ALONE = """
import json, sys, time
from pathlib import Path
from statistics import median
from credibly.runtime.model import Runtime
runtime = Runtime.open(Path(sys.argv[1], "export"))
texts, size, span = json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]), float(sys.argv[4])
batches = [texts[start : start + size] for start in range(0, len(texts) - size + 1, size)]
for batch in batches[:8]:
    runtime.predictions(batch)
seconds, began = [], time.perf_counter()
while time.perf_counter() - began < span:
    start = time.perf_counter()
    runtime.predictions(batches[len(seconds) % len(batches)])
    seconds.append(time.perf_counter() - start)
print(json.dumps({"texts_per_second": size * len(seconds) / sum(seconds),
                  "batch_milliseconds": 1000 * median(seconds)}))
"""


def measured_runtime(texts: Path) -> dict[str, float]:
    """Return what the runtime does by itself, 32 texts at a time, in a process of its own."""
    found = printed(["-c", ALONE, str(RUN), str(texts), str(BATCH), str(SECONDS / 2)])
    say(f"runtime alone: {found['texts_per_second']:.0f} texts/s, {found['batch_milliseconds']:.1f} ms each")
    return found


def measured_service(texts: Path, size: int, *options: str, seconds: int = SECONDS) -> dict[str, Any]:
    """Return what the clients see of a service, and both sides' share of the processor."""
    with service(*options) as (child, address):
        before = processor_seconds(child.pid)
        load_options = [address, str(texts), str(CLIENTS), str(size), str(seconds)]
        found = printed(["-m", "benchmarks.service_load", *load_options])
        spent = processor_seconds(child.pid) - before
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found["clients_share_of_processor"] = found.pop("processor_seconds") / cores
    found["service_share_of_processor"] = spent / (seconds + 1) / cores
    say(f"service, {size} a request: {found['texts_per_second']:.0f} texts/s, {found['milliseconds']}")
    return found


@contextmanager
def service(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a running `credibly serve` and its address."""
    program = "from credibly.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(RUN / "export"), "--port", "0", *options]
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as log:
        child = subprocess.Popen(command, stderr=log, text=True)
        try:
            yield child, address_in(Path(log.name), child)
        finally:
            child.terminate()
            child.wait(60)


def address_in(log: Path, child: subprocess.Popen[str]) -> str:
    """Wait until the service says where it listens, and return that."""
    while child.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"address"' in line:
                return str(json.loads(line)["address"])
        time.sleep(0.1)
    raise RuntimeError(f"the service ended: {log.read_text(encoding='utf-8')}")


def printed(arguments: list[str]) -> dict[str, Any]:
    """Run a Python program and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
