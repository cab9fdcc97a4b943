"""`credibly label`: texts labelled without training, by a model that is asked in several ways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from credibly import workflows
from credibly.cli.console import output, print_json, set_log, shown_progress
from credibly.cli.options import (
    IdColumn,
    Json,
    OutputFolder,
    Overwrite,
    Quiet,
    Resume,
    Settings,
    TextColumns,
    Verbose,
    assigned,
    given,
    names,
    pairs,
    value_of,
)
from credibly.errors import InputError

LABELLER = "smollm2"
"""The language model that labels where none is named."""


def label(
    source: Annotated[str, typer.Argument(help="A data file, or a recipe (.yaml).", metavar="FILE")],
    classes: Annotated[str | None, typer.Option(help="The classes' names: no,yes.")] = None,
    member_source: Annotated[
        Literal["prompts", "samples", "similarity", "entailment"] | None,
        typer.Option(
            "--source",
            help="prompts or samples of a causal model, similarity of embeddings, or entailment (NLI model).",
        ),
    ] = None,
    labeller: Annotated[
        str | None, typer.Option(help="The model that is asked: packaged name, hub id or local folder.")
    ] = None,
    examples: Annotated[
        str | None, typer.Option(help="File with a few texts and their labels (columns `text`, `label`).")
    ] = None,
    prompt_count: Annotated[
        int | None, typer.Option("--prompts", help="Number of prompts, or of wordings of the classes.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Sampled answers a text, in place of prompts: each is a vote.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="At which answers are sampled, or by which cosines are divided.")
    ] = None,
    describe: Annotated[
        str | None, typer.Option(help="What is asked, in a line: 'sentiment of a film review'.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="Share of each class: spam=0.13,ham=0.87; or `estimate`.")
    ] = None,
    text: TextColumns = None,
    id_column: IdColumn = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    assignments: Settings = None,
    output_folder: OutputFolder = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Label texts without training: a model is asked in several ways; labels.jsonl comes out."""
    set_log(verbose, quiet)
    if samples is not None and (prompt_count is not None or member_source not in (None, "samples")):
        raise InputError("expected --samples alone, got --prompts or another --source beside it")
    settings = given({
        "labelling.classes": None if classes is None else names(classes),
        "labelling.examples": examples, "labelling.prior": shares_in(prior),
        "members.source": "samples" if samples is not None else member_source, "backbone.name": labeller,
        "members.count": prompt_count if samples is None else samples, "members.description": describe,
        "members.temperature": temperature,
        "data.text": text, "data.id": id_column, "seed": seed,
    })  # fmt: skip
    settings |= assigned(assignments)
    if (model := labeller_of(source, settings)) is not None:
        settings["backbone.name"] = model
    folder = output_folder or Path("runs") / Path(source).stem
    with shown_progress(quiet) as stages:
        run = workflows.label(source, folder, settings, resume, overwrite, stages)
    content = run.read_json(run.labelling_file)
    if as_json:
        print_json(content)
        return
    from credibly.cli.label_table import print_labelling

    print_labelling(content, output())
    output().print(f"\nLabels: {run.labels_file}", soft_wrap=True)


def labeller_of(source: str, settings: dict[str, Any]) -> str | None:
    """Return the model that labels where none is named; None where the recipe's will do."""
    kind = settings.get("members.source", "prompts")
    if source.endswith((".yaml", ".yml")) or "backbone.name" in settings or kind == "similarity":
        return None
    if kind == "entailment":
        raise InputError(
            "expected the NLI model that labels, which is not packaged: --labeller HUB_ID, or a local folder"
        )
    return LABELLER


def shares_in(text: str | None) -> dict[str, Any] | str | None:
    """Return class shares as a recipe has them, or the one word that is given in their place."""
    if text is None or "=" not in text:
        return text
    return {
        name.strip(): value_of("labelling.prior", share)
        for name, share in pairs(names(text), "--prior CLASS=SHARE,CLASS=SHARE").items()
    }
