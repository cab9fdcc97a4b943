"""What the page's template is given: its drawings, and its tables and sentences by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from credibly.report.figures.curves import at_coverage
from credibly.report.figures.learning import METRICS
from credibly.report.figures.metrics import COST_METRICS, MAIN_METRICS, SHIFT_METRICS
from credibly.report.figures.types import Report
from credibly.report.page import abstaining_plots, plots
from credibly.report.page.drawing import Drawing
from credibly.report.tables.calibration import calibration_table, slices_table
from credibly.report.tables.cells import Column, Row, Table, plain_cell
from credibly.report.tables.each_member import members_table
from credibly.report.tables.families import family
from credibly.report.tables.kept import TITLE, kept_table, no_gain, over_seeds
from credibly.report.tables.promises import abstention_table, by_groups, sets_table
from credibly.report.tables.settings import flattened
from credibly.report.tables.systems import (
    by_class_table,
    classes_table,
    comparisons_table,
    costs_table,
    main_table,
    shift_summary,
    systems_table,
)
from credibly.report.tables.unknown import unknown_table
from credibly.report.words.claims import MARK_SIGNS, MARK_WORDS
from credibly.report.words.findings import findings
from credibly.report.words.metrics import METRIC_WORDS, SCORE_WORDS
from credibly.report.words.numbers import UNDEFINED, bracket, count, number, with_interval
from credibly.report.words.text import listed_words
from credibly.report.words.verdicts import against_shipped
from credibly.uncertainty.decompose import KINDS
from credibly.uncertainty.systems import bare_name, chosen_form

CLASS_FIGURES = ("precision", "recall")
COVERAGES = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
HISTORY_COLUMNS = ("loss", "validation_loss", "validation_accuracy", "gradient_norm", "learning_rate")


def parts(report: Report) -> dict[str, Any]:
    """Return everything the template reads beside the report, its style sheet and its drawings."""
    return {
        **_head(report),
        **_system_tables(report),
        **_calibration(report),
        **_abstaining(report),
        **_domains(report),
        **_texts(report),
        **_rest(report),
    }


def drawings(report: Report) -> dict[str, Drawing]:
    """Return every plot of the page, by name, in the order of the page."""
    curves = report["curves"]
    drawn = {
        f"reliability {name}": plots.reliability_plot(systems, len(report["classes"]))
        for name, systems in _reliable(report).items()
    }
    abstaining = _abstaining_systems(report)
    if abstaining:
        drawn["risk coverage"] = plots.risk_coverage_plot(
            {name: curves["risk_coverage"][name] for name in abstaining}
        )
    rejected, sets = _rejection(report), curves.get("set_sizes")
    if any(rejected.values()):
        drawn["rejection"] = abstaining_plots.rejection_plot(report["shipped"], rejected)
    if sets:
        drawn["set sizes"] = abstaining_plots.set_sizes_plot(report["promises"]["system"], sets)
    for kind in KINDS:
        drawn[f"uncertainty {kind}"] = plots.uncertainty_plot(kind, curves["uncertainty"])
    for column in _history_columns(report):
        holding = {name: columns for name, columns in report["histories"].items() if column in columns}
        drawn[f"history {column}"] = plots.history_plot(holding, column)
    for metric in METRICS if curves.get("learning") else ():
        drawn[f"learning {metric}"] = plots.learning_plot(curves["learning"], metric)
    return drawn


def _head(report: Report) -> dict[str, Any]:
    members = f"{report['members']} members" if report["members"] > 1 else "1 member"
    confidence = f"{100 * report['evaluation']['confidence']:g}"
    facts = (
        f"{members} · {len(report['classes'])} classes · {count(report['rows']['test'])} test texts · "
        f"{confidence} % confidence intervals"
    )
    return {
        "facts": facts,
        "percent_confidence": confidence,
        "tiles": _tiles(report),
        "contents": _contents(report),
        "findings": [(finding.mark, finding.claim, finding.evidence) for finding in findings(report)],
        "mark_signs": MARK_SIGNS,
        "mark_words": MARK_WORDS,
    }


def _tiles(report: Report) -> list[dict[str, str]]:
    """Return the shipped system's four or five figures that a hurried reader wants."""
    scores = report["systems"][report["shipped"]]
    tiles = [
        _tile("Right answers", "accuracy", scores["accuracy"], ""),
        _tile("Calibration error (debiased)", "ece_debiased", scores["ece_debiased"], ""),
        _tile("NLL, nats", "nll", scores["nll"], ""),
    ]
    half = at_coverage(report["curves"]["risk_coverage"].get(report["shipped"], []), 0.5)
    if half:
        tiles.append(_tile("Wrong in the most certain half", "accuracy", {**half, "value": half["risk"]}, ""))
    ensemble = report["systems"].get("ensemble")
    if report["members"] > 1 and ensemble and ensemble["mean_total"]["value"]:
        share = ensemble["mean_epistemic"]["value"] / ensemble["mean_total"]["value"]
        below = f"of the uncertainty; {number('mean_epistemic', ensemble['mean_epistemic']['value'])} nats"
        tiles.append({"label": "Members' disagreement", "figure": f"{100 * share:.1f} %", "below": below})
    return [tile for tile in tiles if tile["figure"] != UNDEFINED]


def _tile(label: str, metric: str, figure: Mapping[str, Any], below: str) -> dict[str, str]:
    return {
        "label": label,
        "figure": number(metric, figure["value"]),
        "below": below or bracket(metric, figure),
    }


def _contents(report: Report) -> list[tuple[str, str]]:
    sections = (
        ("findings", "Findings", True),
        ("systems", "Systems", True),
        ("calibration", "Calibration", bool(_reliable(report))),
        ("abstaining", "Abstaining", bool(_abstaining_systems(report))),
        ("domains", "Other domains" if report["shift"] else "Uncertainty", True),
        ("texts", "Ten texts", bool(report["texts"])),
        ("classes", "By class", True),
        ("costs", "Costs", costs_table(report["systems"], "") is not None),
        ("training", "Training", bool(_history_columns(report))),
        ("data", "Data", True),
        ("words", "How to read", True),
    )
    return [(anchor, name) for anchor, name, there in sections if there]


def _system_tables(report: Report) -> dict[str, Any]:
    systems, shipped = report["systems"], report["shipped"]
    rest = [
        name
        for name in METRIC_WORDS
        if name not in MAIN_METRICS + CLASS_FIGURES and not name.startswith("ood_")
    ]
    doubt = [name for name in rest if name.startswith("mean_") or name.endswith("_raters")]
    held = [name for name in rest if name.startswith(("ece", "smooth", "brier"))]
    abstaining = [name for name in rest if name.startswith(("eaurc", "augrc", "risk_at", "coverage_at"))]
    groups = (
        ("Classification", [name for name in rest if name not in (*doubt, *held, *abstaining)]),
        ("Calibration", held),
        ("Abstaining", abstaining),
        ("Uncertainty, in nats, and people's opinions where they are known", doubt),
    )
    tables = [(title, systems_table(systems, names, shipped, report["leaders"])) for title, names in groups]
    return {
        "main_table": main_table(report),
        "members_table": members_table(report),
        "systems_judged": any(against_shipped(report).values()),
        "further_tables": [(title, table) for title, table in tables if table.columns],
        "comparisons": comparisons_table(report),
        "kept_table": kept_table(report),
        "kept_title": TITLE,
        "no_gain": no_gain(report),
        "over_seeds": over_seeds(report),
        "class_table": classes_table(systems, shipped, report["classes"]),
        "by_class_tables": [
            (
                f"{METRIC_WORDS[metric].label} by class",
                by_class_table(systems, metric, shipped, report["classes"]),
            )
            for metric in reversed(CLASS_FIGURES)
        ],
        "costs": costs_table(systems, shipped),
    }


def _reliable(report: Report) -> dict[str, dict[str, Any]]:
    """Return the systems with reliability bins by the name without calibrator: before it, and as chosen."""
    families: dict[str, dict[str, Any]] = {}
    for name, bins in report["curves"]["reliability"].items():
        bare = bare_name(name)
        if bins and name in (bare, _settled(report, bare)):
            families.setdefault(bare, {})[name] = bins
    return families


def _settled(report: Report, bare: str) -> str | None:
    """Return the form in which a system answers."""
    return chosen_form(bare, report["systems"], report.get("choices"))


def _calibration(report: Report) -> dict[str, Any]:
    figures = []
    for bare, systems in _reliable(report).items():
        signs = ["○", "●"][-len(systems) :]
        eces = [
            f"{sign} {name}: ECE {with_interval('ece_debiased', report['systems'][name]['ece_debiased'])}"
            for sign, name in zip(signs, systems, strict=True)
        ]
        spoken = [
            f"{name}: "
            + ", ".join(
                f"{100 * bin['confidence']:.0f} % sure, {100 * bin['accuracy']:.0f} % right" for bin in bins
            )
            for name, bins in systems.items()
        ]
        figures.append((bare, eces, "Reliability. " + "; ".join(spoken)))
    return {
        "reliability": figures,
        "calibration_table": calibration_table(report),
        "slices_table": slices_table(report),
    }


def _families(report: Report, names: list[str]) -> list[str]:
    """Return one system a family, as it answers: temperature hardly moves a ranking."""
    return [name for name in names if name == _settled(report, bare_name(name))]


def _abstaining_systems(report: Report) -> list[str]:
    """Return the systems whose risk-coverage curves are drawn, the shipped one last."""
    curves = report["curves"]["risk_coverage"]
    names = [
        name
        for name in _families(report, [name for name in curves if curves[name]])
        if name != "majority_vote"
    ]
    return sorted(names, key=lambda name: name == report["shipped"])


def _rejection(report: Report) -> dict[str, list[dict[str, float]]]:
    """Return the points by kind of uncertainty; none in reports that are older than they."""
    points: dict[str, list[dict[str, float]]] = report["curves"].get("rejection", {})
    return points


def _abstaining(report: Report) -> dict[str, Any]:
    names = _abstaining_systems(report)
    rows, curves = [], report["curves"]["risk_coverage"]
    for name in names:
        points = [at_coverage(curves[name], coverage) for coverage in COVERAGES]
        cells = [plain_cell("accuracy", {**point, "value": point["risk"]}) for point in points if point]
        rows.append(Row(name, family(name), name == report["shipped"], tuple(cells)))
    columns = tuple(Column(f"{100 * coverage:.0f} %", "", "", "") for coverage in COVERAGES)
    spoken = "; ".join(f"{row.name} {row.cells[-1].main} % of all" for row in rows)
    return {
        "abstaining": names,
        "abstaining_spoken": f"Wrong answers by share of texts answered: {spoken}; more in the table",
        "abstaining_table": Table(columns, tuple(rows)),
        "rejection_spoken": abstaining_plots.rejection_spoken(_rejection(report)),
        "set_sizes_spoken": abstaining_plots.set_sizes_spoken(report["curves"].get("set_sizes", [])),
        "abstention_table": abstention_table(report),
        "by_groups": by_groups(report),
        "sets_table": sets_table(report),
    }


def _domains(report: Report) -> dict[str, Any]:
    domains = report["curves"]["uncertainty"]
    systems = list(dict.fromkeys(name for found in domains.values() for name in found))
    spoken = {
        kind: "; ".join(
            f"{domain}, {name}: median {number('mean_epistemic', found[name][kind]['0.5'])}"
            for domain, found in domains.items()
            for name in found
        )
        for kind in KINDS
    }
    tables = [
        (
            f"On {domain}, {count(report['rows'][domain])} texts",
            systems_table(scores, SHIFT_METRICS, report["shipped"]),
        )
        for domain, scores in report["shift"].items()
    ]
    return {
        "domain_systems": systems,
        "domains_spoken": spoken,
        "shift_summary": shift_summary(report),
        "unknown_table": unknown_table(report),
        "shift_tables": tables,
    }


def _texts(report: Report) -> dict[str, Any]:
    classes = report["classes"]
    answers = []
    for text in report["texts"]:
        probabilities = text["ensemble"]["probabilities"]
        answers.append(classes[probabilities.index(max(probabilities))])
    shown = report["texts_shown"]
    said = listed_words([name for name in (shown["ensemble"], shown["student"]) if name])
    calibrated = (
        " and the members with the same temperature" if shown["ensemble"].endswith("+temperature") else ""
    )
    return {"text_answers": answers, "texts_shown": f"Shown: {said}{calibrated}."}


def _history_columns(report: Report) -> list[str]:
    held = {name for columns in report["histories"].values() for name in columns}
    return [name for name in HISTORY_COLUMNS if name in held]


def _rest(report: Report) -> dict[str, Any]:
    rows = [f"{count(rows)} {split}" for split, rows in report["rows"].items()]
    evaluation = report["evaluation"]
    provenance = (
        f"Made by credibly {report['credibly_version']} from the stored predictions of run {report['run']}: "
        f"{count(evaluation['resamples'])} resamples, seed {evaluation['seed']}. "
        "Every figure on this page stands in report.json."
    )
    return {
        "training": _history_columns(report),
        "learned": METRICS if report["curves"].get("learning") else (),
        "training_systems": list(dict.fromkeys(name.partition("/")[0] for name in report["histories"])),
        "rows_said": f"Predictions are stored for {listed_words(rows)} texts.",
        "settings": flattened(report["recipe"]),
        "most_uncertain": math.log(len(report["classes"])),
        "metric_glossary": [
            (words.label, words.meaning)
            for name, words in METRIC_WORDS.items()
            if not name.startswith("mean_") and name not in CLASS_FIGURES + COST_METRICS
        ],
        "score_glossary": list(SCORE_WORDS.values()) if report["shift"] else [],
        "provenance": provenance,
    }
