"""Ten LoRA members on BoolQ at their own lengths, against the usual script: padded to 512, fp32, in turn.

smollm2, rank 8 on queries and values. Each side runs in a process of its own, which tells its peak memory.
Both train on the same rows, batch size and steps; the seconds a step are the median of those after the first
two, and the script's are for ten members, of which one is trained. The mean training NLL of those steps may
differ by noise only. Beside that: the memory of ten members ready to predict, against ten copies.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.data import missing, rows_of
from benchmarks.measure import ROOT, Result, alternate, load, write, write_skipped
from benchmarks.peft_loop import Loop, Texts
from credibly.members import lora
from credibly.members.common import TrainingData
from credibly.progress import silent
from credibly.settings import BackboneSettings, LoraSettings, OptimiserSettings
from credibly.training import Monitor

NAME = "lora_boolq"
WHAT = "seconds a step of ten LoRA members on BoolQ, smollm2: padded to 512, fp32, in turn / one pass"
BACKBONE, MAX_TOKENS = "smollm2", 512
TOKEN_BUDGET = 2048
"""Tokens that one pass holds at once: as many as the script's padded batch."""
MEMBERS, BATCH, STEPS, WARM = 10, 4, 8, 2
ROUNDS = 2
LARGEST_SURPRISE = 3.0
SETTINGS = LoraSettings(
    count=MEMBERS,
    group=MEMBERS,
    lora_alpha=32,
    target_modules=["q_proj", "v_proj"],
    optimiser=OptimiserSettings(
        epochs=1, batch_size=BATCH, learning_rate=2e-4, weight_decay=0.01, schedule="constant", clip_norm=1.0
    ),
)


def main() -> None:
    """Run both sides in processes of their own, in turns."""
    load_before = load()
    if load_texts() is None:
        write_skipped(NAME, WHAT, missing("boolq_train"))
        return
    told: dict[str, list[dict[str, Any]]] = {"script": [], "one_pass": []}

    def side(name: str) -> Callable[[], float]:
        return lambda: told[name].append(in_process(name)) or told[name][-1]["seconds_a_step"]

    seconds = alternate({name: side(name) for name in told}, ROUNDS)
    ready = {name: in_process(f"ready_{name}")["bytes"] for name in ("copies", "one_pass")}
    memory = {name: median(one["peak_bytes"] for one in runs) for name, runs in told.items()}
    nll = {name: [own for one in runs for own in one["nll"]] for name, runs in told.items()}
    spread = float(np.std(nll["one_pass"], ddof=1))
    error = spread * np.sqrt(sum(1 / len(own) for own in nll.values()))
    surprise = float(abs(np.mean(nll["script"]) - np.mean(nll["one_pass"])) / error)
    write(
        Result(
            name=NAME,
            what=WHAT,
            ratio=median(seconds["script"]) / median(seconds["one_pass"]),
            unit="seconds a step of ten members",
            sides=seconds,
            at_least=8,
            holds=memory["one_pass"] <= memory["script"]
            and ready["one_pass"] <= ready["copies"] / 5
            and surprise < LARGEST_SURPRISE,
            figures={
                "aim": 10,
                "rows": BATCH * STEPS,
                "tokens_mean": told["one_pass"][0]["tokens_mean"],
                "steps_timed": STEPS - WARM,
                "script_members_timed": 1,
                "peak_training_bytes": memory,
                "bytes_ready_to_predict": ready,
                "ready_share_of_copies": ready["one_pass"] / ready["copies"],
                "training_nll": {name: float(np.mean(own)) for name, own in nll.items()},
                "nll_difference_in_standard_errors": surprise,
            },
        ),
        load_before,
    )


def load_texts() -> Texts | None:
    """Return as many questions with their passages as the steps take; None where they are not there."""
    rows = rows_of("boolq_train", BATCH * STEPS)
    if rows is None:
        return None
    texts = tuple(f"Question: {row['question']} Context: {row['passage']}" for row in rows)
    return Texts(texts, tuple(int(row["label"]) for row in rows), 2)


def in_process(part: str) -> dict[str, Any]:
    """Run one part in a process of its own and return what it tells."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{NAME}", part],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def script(data: Texts) -> dict[str, Any]:
    """Train one member as the usual script does."""
    way = Loop(BACKBONE, SETTINGS, torch.float32, MAX_TOKENS, MAX_TOKENS)
    member = way.member(data, seed=0)
    seconds = member.train(data)
    return {
        "seconds_a_step": MEMBERS * median(seconds[WARM:]),
        "nll": [member.nll(data)],
        "peak_bytes": peak(),
    }


def one_pass(data: Texts) -> dict[str, Any]:
    """Train ten members in one pass."""
    targets = np.eye(data.classes, dtype=np.float32)[list(data.labels)]
    material = lora.prepare(
        TrainingData(data.texts, targets, ("no", "yes")),
        BackboneSettings(name=BACKBONE, max_tokens=MAX_TOKENS, token_budget=TOKEN_BUDGET),
        SETTINGS,
        silent,
    )
    times: list[float] = []
    monitor = Monitor(progress=lambda done, total: times.append(time.perf_counter()))
    members, _ = lora.fit(material, SETTINGS, range(MEMBERS), monitor)
    peak_bytes = peak()
    log_probs = members.log_probs(data.texts)
    return {
        "seconds_a_step": float(np.mean(np.diff(times[-(STEPS - WARM) - 1 :]))),
        "nll": [-float(own[np.arange(len(data.labels)), list(data.labels)].mean()) for own in log_probs],
        "peak_bytes": peak_bytes,
        "tokens_mean": float(material.texts.tokens.lengths.mean()),
    }


def ready_one_pass(data: Texts) -> dict[str, Any]:
    """Return the memory that ten members over one base take up."""
    before = resident()
    backbone = BackboneSettings(name=BACKBONE, max_tokens=MAX_TOKENS)
    members = lora.build(backbone, SETTINGS, ("no", "yes"), range(MEMBERS))
    assert members.count == MEMBERS
    return {"bytes": resident() - before}


def ready_copies(data: Texts) -> dict[str, Any]:
    """Return the memory that ten copies take up, one a member, in float32."""
    before = resident()
    way = Loop(BACKBONE, SETTINGS, torch.float32, MAX_TOKENS, MAX_TOKENS)
    members = [way.member(data, seed).model for seed in range(MEMBERS)]
    # Touched, so that weights which are mapped from the file are read.
    assert all(torch.isfinite(own.sum()) for member in members for own in member.parameters())
    return {"bytes": resident() - before}


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def resident() -> int:
    """Return the memory that this process holds, in bytes."""
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        parts = (script, one_pass, ready_one_pass, ready_copies)
        chosen = {part.__name__: part for part in parts}[sys.argv[1]]
        texts = load_texts()
        assert texts
        print(json.dumps(chosen(texts)))
    else:
        main()
