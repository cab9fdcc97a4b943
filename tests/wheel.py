"""Build the wheel and use it from elsewhere, without torch: bare, then with the extra that runs exports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import standins
import workshop
from credibly import workflows

PROJECT = Path(__file__).parent.parent
PROGRAM = """
import sys, credibly, numpy as np
from credibly import Examples, Predictions, decompose
from credibly.uncertainty.calibration.calibrate import Temperature
examples = Examples(("a", "b"), ("x", "y"), ("no", "yes"), np.array([0, 1]))
record = Predictions.from_probs([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.3, 0.7]]], examples)
assert decompose(Temperature.fit(record).apply(record)).epistemic.min() >= 0
assert "torch" not in sys.modules
assert "site-packages" in credibly.__file__, credibly.__file__
"""


WITHOUT_TORCH = """
import importlib.util
heavy = ("torch", "transformers", "onnx", "sklearn", "pandas")
assert not [name for name in heavy if importlib.util.find_spec(name)]
from credibly.workflows import load
texts = ["warm funny bright", "dull"]
assert load("run").predict(texts) == load("run/export").predict(texts)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT)
        (wheel,) = folder.glob("*.whl")
        venv.create(folder / "venv", with_pip=True)
        binaries = folder / "venv" / "bin"
        call(binaries / "pip", "install", "--quiet", "-c", PROJECT / "constraints.txt", wheel)
        call(binaries / "python", "-c", PROGRAM, cwd=folder)
        call(binaries / "credibly", "--version", cwd=folder)
        call(binaries / "credibly", "--help", cwd=folder)
        call(binaries / "credibly", "doctor", "--json", cwd=folder)
        texts = exported_run(folder)
        call(binaries / "pip", "install", "--quiet", "-c", PROJECT / "constraints.txt", f"{wheel}[serve]")
        call(binaries / "python", "-c", WITHOUT_TORCH, cwd=folder)
        call(binaries / "credibly", "predict", folder / "run" / "export", texts, cwd=folder)
    sys.stdout.write("the wheel works from elsewhere, without torch\n")


def exported_run(folder: Path) -> Path:
    """Leave an exported run of a stand-in in a folder; return a file of texts."""
    os.environ["CREDIBLY_HOME"] = str(folder / "home")
    made = workshop.fitted(folder, standins.save_model(folder / "model"))
    made.run.rename(folder / "run")
    workflows.export(folder / "run")
    return made.test


def call(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
