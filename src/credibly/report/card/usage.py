"""How to use a model, on its card: code that runs as it stands, by transformers, PEFT and Credibly."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from credibly.report.card.metadata import has_student, hub_name
from credibly.report.figures.types import Report
from credibly.uncertainty.systems import CALIBRATED

ADAPTERS = ("lora", "adapters")
WHOLE = ("full",)
"""Members that transformers loads by themselves."""

PLAIN = """```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForSequenceClassification.from_pretrained({model}).eval()
texts = ["A film to remember.", "I have seen worse."]
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
probabilities = logits.softmax(-1)
for row in probabilities:
    print(model.config.id2label[int(row.argmax())], float(row.max()))
```"""

DOUBT = """The logits are log-concentrations of a Dirichlet, so that they also say, in nats, how much of the
doubt lies in the text (aleatoric) and how much in the model that has not seen enough of its like (epistemic):

```python
alpha = logits.double().exp()
mean = alpha / alpha.sum(-1, keepdim=True)
total = -(mean * mean.log()).sum(-1)
aleatoric = (mean * ((alpha.sum(-1, keepdim=True) + 1).digamma() - (alpha + 1).digamma())).sum(-1)
epistemic = total - aleatoric
```"""

MEMBER = """One member by PEFT; the others stand beside it:

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained({base}, num_labels={classes})
member = PeftModel.from_pretrained(base, {model}, subfolder="members/{seed}").eval()
```"""

WHOLE_MEMBER = """One member by transformers; the others stand beside it:

```python
from transformers import AutoModelForSequenceClassification

member = AutoModelForSequenceClassification.from_pretrained({model}, subfolder="members/{seed}").eval()
```"""

CREDIBLY = """With Credibly (`pip install "credibly[train]"`): the ensemble too, promises, and a service:

```shell
credibly pull {repository} --output {folder}
credibly predict {folder} new.csv
```

```python
import credibly

for answer in credibly.load({python_folder}).predict({inputs}):
    print(answer["label"], answer["probability"], answer["epistemic"])
```"""


def usage(report: Report, repository: str, name: str) -> str:
    """Return how to use the model: code blocks with a sentence each."""
    recipe = report["recipe"]
    members, folder = recipe.get("members", {}), f"runs/{name}"
    base = recipe.get("backbone", {}).get("name", "")
    values = {
        "model": json.dumps(repository, ensure_ascii=False),
        "base": json.dumps(hub_name(base) or base, ensure_ascii=False),
        "classes": len(report["classes"]),
        "seed": recipe.get("seed", 0),
        "repository": shlex.quote(repository),
        "folder": shlex.quote(folder),
        "python_folder": json.dumps(folder, ensure_ascii=False),
        "inputs": _inputs(recipe.get("data", {})),
    }
    blocks = []
    if has_student(report):
        blocks += ["With transformers alone:", PLAIN.format(**values), _probabilities(report)]
        blocks += [*_columns(recipe.get("data", {})), DOUBT]
    if members.get("source") in ADAPTERS:
        blocks.append(MEMBER.format(**values))
    if members.get("source") in WHOLE:
        blocks.append(WHOLE_MEMBER.format(**values))
    return "\n\n".join([*blocks, CREDIBLY.format(**values)])


def folded(report: Report) -> bool:
    """Return whether the student's weights hold the calibrator with which it answers.

    Its temperature goes into its last layer; other calibrators map its probabilities afterwards.
    """
    student = f"student{CALIBRATED}"
    chosen = report.get("choices", {}).get("student", {}).get("system", student)
    return chosen == student and student in report["calibrators"]


def _probabilities(report: Report) -> str:
    """Say whether plain softmax gives the calibrated probabilities."""
    if folded(report):
        return (
            "These probabilities are the calibrated ones, as the tables below have them: the temperature is "
            "folded into the last layer."
        )
    chosen = report.get("choices", {}).get("student", {}).get("system")
    if chosen == "student":
        return (
            "These probabilities are **not** those of `student`, as which it answers below: the last layer "
            "holds a temperature, which was found not to help. Credibly takes it off."
        )
    if chosen and f"student{CALIBRATED}" in report["calibrators"]:
        return (
            f"These probabilities are **not** those of `{chosen}`, as which it answers below: they have a "
            "temperature alone, and that calibrator cannot be folded into a layer. Credibly applies it."
        )
    return "These probabilities are **not** calibrated."


def _columns(data: Mapping[str, Any]) -> list[str]:
    """Say how a text is put together, where it is not one column as it stands."""
    if data.get("pair"):
        return [f"It reads pairs: give the columns {_named(data)} as `tokenizer(first, second, …)`."]
    if data.get("template"):
        return [f"It reads {_named(data)} put together by the template that stands below: do the same first."]
    if len(data.get("text") or []) > 1:
        return [f"It reads {_named(data)} in one text, each on a line: do the same first."]
    return []


def _named(data: Mapping[str, Any]) -> str:
    return ", ".join(f"“{name}”" for name in data["text"])


def _inputs(data: Mapping[str, Any]) -> str:
    """Return the example's inputs: texts, or a row where the model reads several columns."""
    columns = data.get("text") or []
    if len(columns) < 2 and not data.get("template"):
        return '["A film to remember.", "I have seen worse."]'
    return json.dumps([{name: f"some {name}" for name in columns}], ensure_ascii=False)
