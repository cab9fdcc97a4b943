"""Small data files and recipes for tests of whole runs on a stand-in model."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import standins
from credibly.runs import Run

CLASSES = ("bad", "good", "even")

QUICK = {
    "backbone.precision": "fp32",
    "members.count": 3,
    "members.hidden": [16],
    "members.optimiser.epochs": 15,
    "members.optimiser.batch_size": 16,
    "members.optimiser.learning_rate": 0.01,
    "distil.blocks": 1,
    "distil.optimiser.epochs": 4,
    "distil.optimiser.batch_size": 16,
    "distil.optimiser.learning_rate": 0.005,
    "evaluation.resamples": 20,
}
"""Recipe values with which a stand-in's run takes a second or two."""


def made_rows(count: int, seed: int = 0, C: int = 3, noise: float = 0.1, **more: object) -> list[dict]:
    """Return rows with text and label; one in ten texts says another class than its label."""
    labels = np.arange(count) % C
    texts = standins.made_texts(labels, seed, words=3, noise=noise)
    return [
        {"text": f"{text} {seed}", "label": CLASSES[label], **more}
        for text, label in zip(texts, labels, strict=True)
    ]


def jsonl(file: Path, rows: list[dict]) -> Path:
    """Write rows as JSON Lines."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(content, encoding="utf-8")
    return file


def quick(model: Path, **changed: object) -> dict[str, object]:
    """Return quick recipe values for a stand-in; dots in names are written as two underscores."""
    given: Mapping[str, object] = {name.replace("__", "."): value for name, value in changed.items()}
    return {"backbone.name": str(model), **QUICK, **given}


LABELLED_ROWS = 90


def labelled(folder: Path, model: Path):
    """Return a finished run of `label` by three prompts of a causal stand-in."""
    from credibly.workflows import label

    texts = [{"text": row["text"]} for row in made_rows(LABELLED_ROWS)]
    settings = {
        "backbone.name": str(model),
        "backbone.precision": "fp32",
        "members.count": 3,
        "members.templates": ["so: {text} was:", "{text} is", "the film {text}:"],
        "labelling.classes": list(CLASSES),
        "labelling.lowest_mass": 0,
        # Every class gets its third of the labels, whatever a random model says.
        "labelling.prior": dict.fromkeys(CLASSES, 1 / 3),
    }
    return label(jsonl(folder / "texts.jsonl", texts), folder / "run", settings)


def predictions_in(run: Path) -> dict[str, bytes]:
    """Return every predictions file of a run by its name."""
    folder = run / "predictions"
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))
    }


def next_words(folder: Path, texts: Sequence[str], words: Sequence[str], capped: bool = True) -> np.ndarray:
    """Return what a language model says of the next word among these, (N, C) log-probabilities.

    Text by text, unpadded; without its soft cap where it has one and `capped` is false.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if not capped:
        model.config.final_logit_softcapping = None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Transformers' own class for Qwen 2 reads the stand-in's words letter by letter: the first counts.
    tokens = [tokenizer(f": {word}", add_special_tokens=False)["input_ids"][1] for word in words]
    with torch.no_grad():
        last = [model(**tokenizer(text, return_tensors="pt")).logits[0, -1, tokens] for text in texts]
    return torch.stack(last).log_softmax(dim=-1).numpy()


@dataclass(frozen=True)
class Fitted:
    """A finished run with the files that it was made from.

    Args:
        folder: of the files.
        run: the run's folder.
        test: the test file, with ids.
        stages: the names of the stages that it went through.
        report: as `fit` left it.
    """

    folder: Path
    run: Path
    test: Path
    stages: list[str]
    report: dict[str, Any]


def fitted(folder: Path, model: Path) -> Fitted:
    """Make the files, fit a run on them and return both."""
    from credibly.workflows import fit

    def with_ids(name: str, count: int, seed: int) -> Path:
        rows = made_rows(count, seed)
        for number, row in enumerate(rows):
            row["id"] = f"{name}/{number} é"
        return jsonl(folder / f"{name}.jsonl", rows)

    files = {name: with_ids(name, count, seed) for name, count, seed in (
        ("train", 160, 0), ("test", 60, 1), ("unlabelled", 40, 2), ("tweets", 45, 3), ("papers", 30, 4),
    )}  # fmt: skip
    jsonl(files["papers"], [{"text": row["text"], "id": f"p{n}"} for n, row in enumerate(made_rows(30, 4))])
    stages: list[str] = []

    def noted(name: str) -> Callable[[int, int], None]:
        stages.append(name)
        return lambda done, total: None

    settings = quick(
        model,
        data__id="id",
        data__test=str(files["test"]),
        data__unlabelled=str(files["unlabelled"]),
        data__shift={"tweets": str(files["tweets"]), "papers": str(files["papers"])},
    )
    run = fit(files["train"], folder / "run", settings, stages=noted)
    report = json.loads(run.report_json.read_text(encoding="utf-8"))
    return Fitted(folder, run.path, files["test"], stages, report)


def label_lines(run: Run) -> list[dict]:
    """Return labels.jsonl of a run of `label`, one dictionary a text."""
    return [json.loads(line) for line in run.labels_file.read_text(encoding="utf-8").splitlines()]


def label_summary(run: Run) -> dict:
    """Return labelling.json of a run of `label`."""
    return json.loads(run.labelling_file.read_text(encoding="utf-8"))
