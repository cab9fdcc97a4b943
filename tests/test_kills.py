"""A fit that is killed again and again, at moments nobody chose, ends as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from credibly.runs import Run

KILLS = 30
SOURCES = {
    "lora": {"group": 2, "optimiser": {"epochs": 6, "batch_size": 8}},
    "snapshots": {"blocks": 1, "optimiser": {"epochs": 2, "batch_size": 8}},
    "top_blocks": {"blocks": 1, "optimiser": {"epochs": 4, "batch_size": 8}},
}


def fit_command(data, model, output, source):
    """Return the command that fits three members and a student, on one thread."""
    settings = {
        "backbone.name": str(model),
        "members": {"source": source, "count": 3, **SOURCES[source]},
        "distil.blocks": 1,
        "distil.controls": [],
        "distil.optimiser.epochs": 2,
        "evaluation.resamples": 20,
    }
    code = (
        "import json, sys; from credibly.workflows import fit; "
        "fit(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), resume=True)"
    )
    return [sys.executable, "-c", code, str(data), str(output), json.dumps(settings)]


def run_to_end(command, environment):
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)


def weights_of(run):
    """Return the bytes of every weight file and stored prediction."""
    return {
        file.relative_to(run).as_posix(): file.read_bytes() for file in sorted(run.rglob("*.safetensors"))
    }


@pytest.mark.slow
@pytest.mark.parametrize("source", list(SOURCES))
def test_a_fit_killed_at_random_moments_ends_with_the_same_members(standin, tmp_path, source):
    data = tmp_path / "rows.jsonl"
    draw = random.Random(3)
    words = {"good": ["warm", "funny", "bright"], "bad": ["dull", "slow", "empty"]}
    rows = [
        {"text": f"the film was {draw.choice(words[label])} {number}", "label": label}
        for number, label in enumerate(["good", "bad"] * 60)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    began = time.monotonic()
    whole = tmp_path / "whole"
    run_to_end(fit_command(data, standin(), whole, source), environment)
    seconds = time.monotonic() - began

    kills = runs = 0
    while kills < KILLS // len(SOURCES):
        output = tmp_path / f"killed {runs}"
        command = fit_command(data, standin(), output, source)
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            child.wait(draw.uniform(0.2, 0.9) * seconds)
            runs += 1  # it has come to its end: the next kills are another's
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    run_to_end(command, environment)
    for output in tmp_path.glob("killed *"):
        assert Run(output).finished
        assert weights_of(output) == weights_of(whole)
        assert not (output / "checkpoints").exists()
