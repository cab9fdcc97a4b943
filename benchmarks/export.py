"""The exported student against the same student in torch: rows a second, memory, size of the artefact.

Each side is given the same requests of 32 texts, or of one, in an order that knows nothing of their lengths,
as a service would be: tokenising is in the time, loading is not. Torch pads a request to its longest text
and runs it on all cores; the runtime does with it what it does with any. Every measurement is a process of
its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Result, load, say, write, write_skipped

NAME = "export"
WHAT = "rows a second of the exported student / of torch fp32, requests of 32 texts"
RUN = Path(os.environ.get("CREDIBLY_BENCHMARK_RUN", ROOT / "runs" / "demo"))
ROUNDS = 5
MEGABYTES_ALLOWED = 40
MEMORY_ALLOWED = 1 / 3

MEASURING = """
import json, sys, time
texts = json.load(open(sys.argv[2], encoding="utf-8"))

def rate(answer, requests):
    for request in requests[:3]:
        answer(request)
    began = time.perf_counter()
    for request in requests:
        answer(request)
    return sum(map(len, requests)) / (time.perf_counter() - began)

def measure(answer):
    many = [texts[start : start + 32] for start in range(0, len(texts), 32)]
    print(json.dumps({"32": rate(answer, many), "1": rate(answer, [[text] for text in texts[:256]])}))
"""
TORCH = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, precision = sys.argv[1], getattr(torch, sys.argv[3])
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=precision).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)

def answer(request):
    with torch.inference_mode():
        inputs = tokenizer(request, padding=True, truncation=True, max_length=256, return_tensors="pt")
        return model(**inputs).logits.float().numpy()

measure(answer)
"""
ONNX = """
from credibly.runtime.model import Runtime

measure(Runtime.open(sys.argv[1]).logits)
"""


def main() -> None:
    """Export the run's student, then measure the three sides in turns."""
    load_before = load()
    if not (RUN / "student" / "model.safetensors").is_file():
        write_skipped(NAME, WHAT, f"needs a run with a student at {RUN}: credibly demo --output {RUN}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, texts = Path(scratch, "export"), Path(scratch, "texts.json")
        write_texts(texts)
        exported = export(folder)
        sides = {
            "onnx": [ONNX, folder, texts],
            "torch_fp32": [TORCH, RUN / "student", texts, "float32"],
            "torch_bf16": [TORCH, RUN / "student", texts, "bfloat16"],
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(ROUNDS):
            for name, (program, *arguments) in sides.items():
                runs[name].append(measured(program, *arguments))
                say(f"round {number + 1} of {ROUNDS}: {name} {runs[name][-1]}")
        size = sum((folder / name).stat().st_size for name in ("model.onnx", "tokenizer.json"))
    write(result(runs, exported, size), load_before)


def result(runs: dict[str, list[dict[str, float]]], exported: dict[str, Any], size: int) -> Result:
    """Return the ratio, and whether all else that is demanded holds."""
    found = {
        name: {figure: median(run[figure] for run in own) for figure in own[0]} for name, own in runs.items()
    }
    ours, fp32, bf16 = found["onnx"], found["torch_fp32"], found["torch_bf16"]
    demands = {
        "passes_parity": exported["parity"]["passed"],
        "faster_than_bf16": ours["32"] > bf16["32"],
        "memory_at_most_a_third": ours["peak_mib"] <= MEMORY_ALLOWED * fp32["peak_mib"],
        "at_most_40_megabytes": size <= MEGABYTES_ALLOWED * 1e6,
    }
    return Result(
        name=NAME,
        what=WHAT,
        ratio=ours["32"] / fp32["32"],
        unit="rows a second",
        sides={name: [run["32"] for run in own] for name, own in runs.items()},
        at_least=3.0,
        holds=all(demands.values()),
        figures={
            "demands": demands,
            "one_text_a_request": {name: own["1"] for name, own in found.items()},
            "ratio_to_bf16": ours["32"] / bf16["32"],
            "ratio_of_one_text": ours["1"] / fp32["1"],
            "peak_mib": {name: own["peak_mib"] for name, own in found.items()},
            "megabytes": size / 1e6,
            "precision": exported["precision"],
            "parity": exported["parity"],
            "tried": [
                {name: row[name] for name in ("precision", "rows_per_core_second", "passed")}
                for row in exported["tried"]
            ],
        },
    )


def write_texts(file: Path) -> None:
    """Write the texts of the run's test set, in their own order."""
    from credibly.data import load_splits
    from credibly.runs import Run

    recipe = Run.open(RUN).recipe
    test = load_splits(recipe.data, recipe.seed, recipe.members.count).test
    assert test is not None
    file.write_text(json.dumps(list(test.texts[:2048])), encoding="utf-8")


def export(folder: Path) -> dict[str, Any]:
    """Export the run's student and return what export.json holds."""
    call = [sys.executable, "-c", "from credibly.cli import main; main()", "export", str(RUN)]
    done = subprocess.run(
        [*call, "--output", str(folder), "--json", "--quiet"], check=True, stdout=subprocess.PIPE, text=True
    )
    content: dict[str, Any] = json.loads(done.stdout)
    say(f"exported as {content['precision']}")
    return content


def measured(program: str, *arguments: object) -> dict[str, float]:
    """Run a program in a process of its own; return what it found, and its peak memory in MiB."""
    call = [sys.executable, "-c", MEASURING + program, *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(call, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        if child.returncode:
            raise RuntimeError(f"a measurement ended with {child.returncode}")
        found: dict[str, float] = json.loads(output.read())
    # Linux counts in KiB, macOS in bytes.
    return {**found, "peak_mib": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)}


if __name__ == "__main__":
    main()
