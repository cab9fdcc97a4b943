"""`credibly demo` with its assets in the cache and nothing else: no embeddings, no run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Result, load, say, seconds_of, write, write_skipped
from credibly.assets import cache_folder, fetch
from credibly.errors import AssetError

NAME = "demo"
WHAT = "seconds of `credibly demo` with assets cached and no embeddings / 300"
SECONDS_ALLOWED = 300
SHOWN = ("accuracy", "nll", "ece_debiased")


def main() -> None:
    """Run the demo once in a fresh cache that holds only the assets."""
    load_before = load()
    try:
        for asset in ("minilm", "reviews"):
            fetch(asset)
    except AssetError as error:
        write_skipped(NAME, WHAT, str(error))
        return
    with tempfile.TemporaryDirectory() as scratch:
        home, run = Path(scratch, "home"), Path(scratch, "run")
        home.mkdir()
        (home / "assets").symlink_to(cache_folder() / "assets", target_is_directory=True)
        seconds = seconds_of(lambda: demo(home, run))
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    say(f"{seconds:.0f} seconds")
    systems = {
        name: {metric: figures[metric]["value"] for metric in SHOWN}
        for name, figures in report["systems"].items()
    }
    result = Result(
        name=NAME,
        what=WHAT,
        ratio=seconds / SECONDS_ALLOWED,
        unit="seconds",
        sides={"demo": [seconds]},
        at_most=1.0,
        figures={"runs": "one: what it takes is far above the noise", "systems": systems},
    )
    write(result, load_before)


def demo(home: Path, run: Path) -> None:
    """Run the command; where it fails its output is shown and CalledProcessError raised."""
    command = [sys.executable, "-c", "from credibly.cli import main; main()", "demo", "--output", str(run)]
    subprocess.run(
        [*command, "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "CREDIBLY_HOME": str(home)},
    )


if __name__ == "__main__":
    main()
