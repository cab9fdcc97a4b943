"""Build the wheel and use it from elsewhere, with the base dependencies alone: no torch, no source tree."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PROGRAM = """
import sys, credibly, numpy as np
from credibly import Examples, Predictions, decompose
from credibly.uncertainty.calibrate import Temperature
examples = Examples(("a", "b"), ("x", "y"), ("no", "yes"), np.array([0, 1]))
record = Predictions.from_probs([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.3, 0.7]]], examples)
assert decompose(Temperature.fit(record).apply(record)).epistemic.min() >= 0
assert "torch" not in sys.modules
assert "site-packages" in credibly.__file__, credibly.__file__
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
    sys.stdout.write("the wheel works from elsewhere, without torch\n")


def call(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
