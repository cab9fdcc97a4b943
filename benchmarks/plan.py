"""How far the time that `credibly fit --plan` tells is from the time that it takes.

Of heads nearly all the time goes by in embedding, which a second fit finds done; they are left out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Result, load, say, write
from credibly.settings import Recipe, parse_recipe
from credibly.workflows import fit, plan

NAME = "plan"
ROWS = 1500
ONCE = {"epochs": 1}
SOURCES: dict[str, dict[str, Any]] = {
    "top_blocks": {"source": "top_blocks", "count": 2, "optimiser": ONCE},
    "full": {"source": "full", "count": 2, "optimiser": ONCE},
    "lora": {"source": "lora", "count": 4, "group": 4, "optimiser": ONCE},
}
ROUNDS = 2


def recipe_of(members: dict[str, Any]) -> Recipe:
    """Return a recipe that trains members on some rated reviews, and no student."""
    return parse_recipe(
        {
            "data": {"train": "reviews", "limit": {"train": ROWS, "calibration": 200, "test": 200}},
            "members": members,
            "distil": {"enabled": False},
            "evaluation": {"resamples": 2},
        }
    )


def planned_and_taken(recipe: Recipe) -> tuple[float, float]:
    """Return the seconds of preparing and training the members: as planned, and as measured."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        seconds = plan(recipe, folder)["groups"][0]["seconds"]
        run = fit(recipe, folder)
        costs = run.read_json(run.costs_file)["members"]
    return seconds["preparing"] + seconds["training"], costs["training_seconds"]


def main() -> None:
    """Plan and fit each source in turns; the worst ratio, whichever way it errs, is judged."""
    load_before = load()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SOURCES}
    for _ in range(ROUNDS):
        for name, members in SOURCES.items():
            found[name].append(planned_and_taken(recipe_of(members)))
            say(f"{name}: planned {found[name][-1][0]:.1f} s, took {found[name][-1][1]:.1f} s")
    ratios = {name: median(planned / taken for planned, taken in pairs) for name, pairs in found.items()}
    result = Result(
        name=NAME,
        what="the time of a fit, planned / taken or taken / planned, of the member source with the worst",
        ratio=max(max(ratio, 1 / ratio) for ratio in ratios.values()),
        unit="seconds",
        sides={
            f"{name} {side}": [pair[place] for pair in pairs]
            for name, pairs in found.items()
            for place, side in enumerate(("planned", "taken"))
        },
        at_most=2.0,
        figures={"rows": ROWS, "planned_over_taken": ratios},
    )
    write(result, load_before)


if __name__ == "__main__":
    main()
