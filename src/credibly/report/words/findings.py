"""What the figures say, in plain words, claiming only what an interval bears out.

Read from report.json alone. A finding is a claim, a full stop, and the figures that bear it out. A
difference whose interval holds zero is called equal within the interval, whatever its sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from credibly.report.figures.comparisons import best_form
from credibly.report.figures.curves import at_coverage
from credibly.report.figures.types import Figure, Report
from credibly.report.words.cheaper import cheaper_ways
from credibly.report.words.claims import (
    MARKS,
    Finding,
    Mark,
    change,
    changes_of,
    compare,
    in_hundredths,
    judged,
)
from credibly.report.words.dependence import what_groups_mean
from credibly.report.words.learning import what_more_brings
from credibly.report.words.numbers import count, difference, number, with_interval
from credibly.report.words.text import capital, listed_words
from credibly.report.words.unknown import fixed_in_words
from credibly.report.words.verdicts import Verdict, verdict
from credibly.uncertainty.calibration.sampling_error import TemperatureError
from credibly.uncertainty.systems import bare_name

REJECTED_BELOW = 0.01
"""A calibration test with a p-value below this rejects calibration."""
DOUBTED_BELOW = 0.05
SLICES_SAID = 3
"""The page has a table of all slices."""
WEAKLY_BELOW = 0.7
"""Uncertainty tells domains apart only weakly where the AUROC may be under this."""
CONFIDENCE_ERROR = 0.01
"""A temperature is not known well enough where its error moves confidence by this much or more."""
FEWEST_MISTAKES = 5
"""Of fewer, resamples hold the same ones, and no interval says what others would be like."""
HARDLY = 0.05
"""Members hardly disagree where epistemic is surely under this share of total uncertainty."""


def findings(report: Report) -> list[Finding]:
    """Return what the report's own figures bear out, the weightiest first."""
    parts = (
        what_groups_mean, _training, _ensemble, _disagreement, _temperature, _choice, _calibration,
        _calibration_rows, _slices, _student, _gain, cheaper_ways, _agreement, _abstention, what_more_brings,
        _people, _shift,
    )  # fmt: skip
    return [finding for part in parts for finding in part(report)]


def headline(report: Report) -> str:
    """Return the verdict on the shipped system in one or two sentences."""
    name, rows = report["shipped"], count(_labelled(report))
    scores = report["systems"][name]
    if scores["accuracy"]["value"] is None:
        rows = count(report["rows"]["test"])
        return f"{name} has answered {rows} test texts of unknown label; only its uncertainty is reported."
    right = f"{name} answers {with_interval('accuracy', scores['accuracy'])} of {rows} test texts correctly"
    rejecting = _rejecting(report["calibration_tests"].get(name, {}), REJECTED_BELOW)
    error = f"debiased calibration error {with_interval('ece_debiased', scores['ece_debiased'])}"
    if rejecting:
        return f"{right}, but its probabilities do not hold: {error}, rejected by {listed_words(rejecting)}."
    return f"{right}, and its probabilities hold as far as these rows can tell: {error}."


def _training(report: Report) -> Iterator[Finding]:
    """Say what training brought where members started from a model's zero-shot answers."""
    names = [best_form(report["systems"], name) for name in ("ensemble", "zero_shot")]
    compared = compare(report, f"{names[0]}", f"{names[1]}")
    outcome = verdict("nll", compared["nll"]) if compared else None
    if compared is None or outcome is None:
        return
    claim = {
        "better": "Training beats the untrained model's label words.",
        "equal": "Training equals the untrained model's label words within the interval.",
        "worse": "Training is worse than the untrained model's label words.",
    }[outcome]
    yield Finding(MARKS[outcome], claim, f"From {names[1]} to {names[0]}: {changes_of(compared)}")


def _ensemble(report: Report) -> Iterator[Finding]:
    if report["members"] == 1:
        yield Finding(
            "noted",
            "There is one member only.",
            "An ensemble of one is that member, so nothing can be said of disagreement.",
        )
        return
    compared = compare(report, "ensemble", "single")
    outcome = verdict("nll", compared["nll"]) if compared else None
    if compared is None or outcome is None:
        return
    claim = {
        "better": "The ensemble beats a single member.",
        "equal": "The ensemble equals a single member within the interval.",
        "worse": "The ensemble is worse than a single member.",
    }[outcome]
    to = f", at {with_interval('nll', report['systems']['ensemble']['nll'])}"
    evidence = f"With {report['members']} members, {changes_of(compared, to)}"
    yield Finding(MARKS[outcome], claim, evidence)


def _disagreement(report: Report) -> Iterator[Finding]:
    scores = report["systems"].get("ensemble")
    if report["members"] == 1 or not scores or not scores["mean_total"]["value"]:
        return
    doubt, total = scores["mean_epistemic"], scores["mean_total"]["value"]
    highest = doubt["value"] if doubt["high"] is None else doubt["high"]
    claim = (
        "The members hardly disagree."
        if highest < HARDLY * total
        else "The members disagree with one another."
    )
    evidence = (
        "Their mean epistemic uncertainty (mutual information) is "
        f"{with_interval('mean_epistemic', doubt)} nats, "
        f"{100 * doubt['value'] / total:.1f} % of the mean total of {number('mean_total', total)} nats."
    )
    yield Finding("noted", claim, evidence)


def _temperature(report: Report) -> Iterator[Finding]:
    compared = compare(report, "ensemble+temperature", "ensemble")
    outcome = verdict("nll", compared["nll"]) if compared else None
    if compared is None or outcome is None:
        return
    claim = {
        "better": "Temperature improves the ensemble's probabilities.",
        "equal": "Temperature leaves the ensemble's probabilities equal within the interval.",
        "worse": "Temperature makes the ensemble's probabilities worse.",
    }[outcome]
    fitted = report["calibrators"].get("ensemble+temperature", {}).get("temperature")
    with_it = "" if fitted is None else f"With T = {fitted:.2f}, "
    evidence = (
        f"{with_it}{change('nll', compared['nll'])} and {change('ece_debiased', compared['ece_debiased'])}."
    )
    yield Finding(MARKS[outcome], claim, capital(evidence))


def _choice(report: Report) -> Iterator[Finding]:
    """Say what came of the shipped system's calibrator where more than a temperature was asked for."""
    shipped, bare = report["shipped"], bare_name(report["shipped"])
    choice = report.get("choices", {}).get(bare)
    if choice is None:
        return
    tried = [f"{own['kind']} {own['nll']:.4f}" for own in choice["candidates"] if own["nll"] is not None]
    said = f"Cross-validated NLL on the calibration texts: {', '.join(tried)}." if tried else ""
    compared = compare(report, shipped, bare)
    outcome = verdict("nll", compared["nll"]) if compared else None
    if shipped == bare:
        yield Finding("noted", f"No calibrator was found to help {bare}: it is left as it is.", said)
    elif compared and outcome:
        claim = {
            "better": f"{shipped} has better probabilities than {bare}.",
            "equal": f"{shipped} has probabilities equal to those of {bare} within the interval.",
            "worse": f"{shipped} has worse probabilities than {bare}.",
        }[outcome]
        changes = f"{change('nll', compared['nll'])} and {change('ece_debiased', compared['ece_debiased'])}."
        yield Finding(MARKS[outcome], claim, f"On the test texts {changes} {said}".rstrip())


def _calibration(report: Report) -> Iterator[Finding]:
    name = report["shipped"]
    scores, tests = report["systems"][name], report["calibration_tests"].get(name)
    if not tests or scores["ece_debiased"]["value"] is None or scores["ece"]["value"] is None:
        return
    rejecting, doubting = _rejecting(tests, REJECTED_BELOW), _rejecting(tests, DOUBTED_BELOW)
    rows = count(_labelled(report))
    evidence = (
        f"Its debiased ECE is {with_interval('ece_debiased', scores['ece_debiased'])}; its plain ECE is "
        f"{number('ece', scores['ece']['value'])}, where a perfectly calibrated model shows "
        f"{number('ece', tests['ece_perfect_mean'])} on these rows "
        f"(95th percentile {number('ece', tests['ece_perfect_p95'])}). "
        f"{_tests_said(tests, rejecting)}"
    )
    if rejecting:
        yield Finding("bad", f"{name} is not calibrated.", evidence + _other_maps(report))
    elif doubting:
        yield Finding("equal", f"{name} passes as calibrated, though narrowly.", evidence)
    else:
        yield Finding("good", f"{name} is calibrated as far as {rows} rows can tell.", evidence)


def _other_maps(report: Report) -> str:
    """Say what might do where a run's one temperature does not, and nothing else was tried."""
    if report.get("choices") or not report.get("temperature_error"):
        return ""
    return " A map that bends may do what one temperature cannot: credibly calibrate RUN looks for one."


def _calibration_rows(report: Report) -> Iterator[Finding]:
    """Say so where the calibration texts are too few for the shipped system's temperature."""
    stored = report.get("temperature_error")
    if not stored or stored["confidence_error"] < CONFIDENCE_ERROR:
        return
    error = TemperatureError(**stored)
    low, high = error.interval(report["evaluation"]["confidence"])
    yield Finding(
        "noted",
        "More calibration texts would make the probabilities surer.",
        f"{count(error.rows)} of them leave the temperature at {error.temperature:.2f} "
        f"[{low:.2f}, {high:.2f}]. Its error alone moves confidence by {100 * error.confidence_error:.1f} "
        f"points on average; about {count(_rounded_up(error.rows_for(CONFIDENCE_ERROR)))} texts would bring "
        f"that down to {100 * CONFIDENCE_ERROR:.0f}.",
    )


def _rounded_up(rows: int) -> int:
    """Return a number with two digits that count.

    >>> _rounded_up(1234), _rounded_up(96), _rounded_up(2000)
    (1300, 96, 2000)
    """
    unit = int(10 ** max(0, len(str(rows)) - 2))
    return -(-rows // unit) * unit


def _slices(report: Report) -> Iterator[Finding]:
    """Yield where the shipped system is surer, or less sure, than it is right; nothing where nowhere."""
    failing = [own for own in report.get("slices", []) if own["adjusted_p"] < DOUBTED_BELOW]
    if not failing:
        return
    said = [
        f"{own['kind']} {own['name']}, {count(own['rows'])} texts: {_off_by(own['gap'])} "
        f"({_p_value(own['adjusted_p'])})"
        for own in sorted(failing, key=lambda own: float(own["adjusted_p"]))[:SLICES_SAID]
    ]
    evidence = f"{capital('; '.join(said))}. The p-values are corrected for {len(report['slices'])} slices."
    yield Finding("bad", f"{report['shipped']} is not calibrated everywhere.", evidence)


def _off_by(gap: Figure) -> str:
    """Say how far confidence lies above accuracy, or below."""
    value, low, high = (gap[end] for end in ("value", "low", "high"))
    if value is not None and value < 0 and low is not None and high is not None:
        gap, words = {"value": -value, "low": -high, "high": -low}, "not sure enough"
    else:
        words = "too sure"
    return f"{words} by {with_interval('accuracy', gap).replace(' %', ' points')}"


_TESTS = {"consistency_p": "the consistency test", "spiegelhalter_p": "Spiegelhalter's test"}


def _rejecting(tests: Mapping[str, Any], level: float) -> list[str]:
    """Return the words for the calibration tests that reject at this level."""
    return [
        f"{words} ({_p_value(tests[key])})"
        for key, words in _TESTS.items()
        if tests.get(key) is not None and tests[key] < level
    ]


def _tests_said(tests: Mapping[str, Any], rejecting: list[str]) -> str:
    if rejecting:
        verb = "reject" if len(rejecting) > 1 else "rejects"
        return f"{capital(listed_words(rejecting))} {verb} calibration at 1 %."
    said = [
        f"{words} ({_p_value(tests[key])})" for key, words in _TESTS.items() if tests.get(key) is not None
    ]
    if not said:
        return "No test could be made."
    return f"{capital(listed_words(said))} {'do' if len(said) > 1 else 'does'} not reject calibration at 1 %."


def _p_value(value: float) -> str:
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def _student(report: Report) -> Iterator[Finding]:
    student = best_form(report["systems"], "student")
    if student is None:
        return
    for other, words in (("ensemble", "the ensemble"), ("direct", "the same network trained directly")):
        against = best_form(report["systems"], other)
        claims: dict[Verdict, str] = {
            "better": f"The student is better than {words}.",
            "equal": f"The student equals {words} within the interval.",
            "worse": f"The student is worse than {words}.",
        }
        if against and (found := judged(report, student, against, claims)):
            yield found


def _gain(report: Report) -> Iterator[Finding]:
    kept = report["nll_gain_kept"]
    if kept is None:
        return
    gain = f"{difference('nll', kept['gain']).removeprefix('+')}"
    if kept["value"] is None:
        outcome = verdict("accuracy", kept["gain"])  # a gain: higher is better
        why = (
            "is not beyond its interval"
            if outcome == "equal"
            else "is a loss"
            if outcome == "worse"
            else "is too uncertain"
        )
        yield Finding(
            "noted",
            "How much of the ensemble's gain the student keeps cannot be judged.",
            f"The ensemble's own gain in NLL over direct training, both with temperature, {why}: {gain}.",
        )
        return
    share = f"{100 * kept['value']:.0f} % [{100 * kept['low']:.0f}, {100 * kept['high']:.0f}]"
    mark: Mark = "good" if kept["low"] > 0 else "bad" if kept["high"] < 0 else "equal"
    yield Finding(
        mark,
        _kept_claim(kept),
        f"Of the ensemble's NLL gain over direct training ({gain}, both with temperature) it keeps {share}.",
    )


def _kept_claim(kept: Figure) -> str:
    if kept["high"] < 0:
        return "The student keeps none of what the ensemble gains."
    if kept["low"] <= 0:
        return "That the student keeps any of the ensemble's gain is not borne out."
    if kept["low"] > 1:
        return "The student keeps all that the ensemble gains, and more."
    if kept["high"] >= 1:
        return "The student keeps what the ensemble gains, within the interval."
    return "The student keeps part of what the ensemble gains."


def _agreement(report: Report) -> Iterator[Finding]:
    agreement = report["agreement"] or {}
    doubt = agreement.get("epistemic")
    if doubt is None or doubt["low"] is None:
        return
    mark, claim = _following(doubt)
    parts = [
        f"{in_hundredths(figure)} for {kind}"
        for kind, figure in agreement.items()
        if figure["low"] is not None
    ]
    yield Finding(
        mark,
        claim,
        f"Rank correlation with the ensemble's on the test texts: {listed_words(parts)} uncertainty."
        + _of_halves(report),
    )


def _of_halves(report: Report) -> str:
    """Say how far halves of the ensemble agree, to hold the student against; empty where they cannot tell."""
    figure = report.get("agreement_of_halves", {}).get("epistemic")
    if figure is None or figure["low"] is None:
        return ""
    members = count(report["members"])
    return (
        f" Halves of the {members} members agree with one another on epistemic uncertainty by "
        f"{in_hundredths(figure)}, carried over to {members} members."
    )


def _following(doubt: Figure) -> tuple[Mark, str]:
    if doubt["low"] <= 0:
        if doubt["high"] <= 0:
            return "bad", "The student's epistemic uncertainty does not follow the ensemble's."
        return "bad", "That the student's epistemic uncertainty follows the ensemble's is not borne out."
    if doubt["high"] < 0.5:
        return "bad", "The student's epistemic uncertainty follows the ensemble's only weakly."
    if doubt["low"] >= 0.8:
        return "good", "The student's epistemic uncertainty follows the ensemble's closely."
    return "noted", "The student's epistemic uncertainty follows the ensemble's in part."


def _abstention(report: Report) -> Iterator[Finding]:
    name = report["shipped"]
    ranking = report["systems"][name]["error_auroc"]
    points = report["curves"]["risk_coverage"].get(name, [])
    half = at_coverage(points, 0.5)
    wrong = round(points[-1]["risk"] * _labelled(report)) if points else 0
    if ranking["low"] is None or half is None or wrong < FEWEST_MISTAKES:
        return
    knows = ranking["low"] > 0.5
    if knows:
        claim = "Its uncertainty points at its mistakes."
    elif ranking["high"] < 0.5:
        claim = "Its uncertainty does not point at its mistakes."
    else:
        claim = "That its uncertainty points at its mistakes is not borne out."
    evidence = (
        "Total uncertainty ranks a mistake above a right answer with AUROC "
        f"{with_interval('error_auroc', ranking)}. Of the most certain "
        f"{100 * half['coverage']:.0f} % of the texts {_risk(half)} are answered wrongly, "
        f"of all {_risk(points[-1])}."
    )
    yield Finding("good" if knows else "bad", claim, evidence)


def _labelled(report: Report) -> int:
    """Return how many test texts have a label; reports of earlier versions do not tell them from all."""
    return int(report.get("rows_labelled", report["rows"]["test"]))


def _risk(point: Mapping[str, float]) -> str:
    return with_interval("accuracy", {**point, "value": point["risk"]})


def _people(report: Report) -> Iterator[Finding]:
    name = report["shipped"]
    rank = report["systems"][name]["spearman_raters"]
    if rank["low"] is None:
        return
    claim = {
        True: "Where people disagree, it is less sure.",
        False: "That it is less sure where people disagree is not borne out.",
    }[rank["low"] > 0]
    evidence = (
        f"Rank correlation of its aleatoric uncertainty with the raters' own disagreement: "
        f"{with_interval('spearman_raters', rank)}."
    )
    yield Finding("good" if rank["low"] > 0 else "bad", claim, evidence)


def _shift(report: Report) -> Iterator[Finding]:
    for domain, systems in report["shift"].items():
        scores, changes = systems.get(report["shipped"]), report["shift_changes"].get(domain)
        if scores is None or changes is None:
            continue
        outcomes = {metric: verdict(metric, changes[metric]) for metric in ("accuracy", "ece_debiased")}
        mark, claim = _shift_claim(domain, outcomes["accuracy"], outcomes["ece_debiased"])
        parts = [
            f"{change(metric, changes[metric])}, at {with_interval(metric, scores[metric])}"
            for metric, outcome in outcomes.items()
            if outcome is not None
        ]
        against = ["Against the test texts " + " and ".join(parts) + "."] if parts else []
        evidence = " ".join([*against, *_noticed(scores["ood_auroc"]), *fixed_in_words(report, domain)])
        yield Finding(mark, claim, evidence, topic="shift")


def _shift_claim(domain: str, accuracy: Verdict | None, calibration: Verdict | None) -> tuple[Mark, str]:
    if accuracy is None:
        return "noted", f"On {domain} there are no labels to judge by."
    right = {
        "better": "more often right",
        "equal": "as often right within the interval",
        "worse": "less often right",
    }[accuracy]
    if calibration is None:
        return MARKS[accuracy], f"On {domain} it is {right}."
    held = {
        "better": "better calibrated",
        "equal": "as well calibrated within the interval",
        "worse": "worse calibrated",
    }[calibration]
    joined = "and" if "equal" in (accuracy, calibration) or accuracy == calibration else "but"
    marks = {MARKS[accuracy], MARKS[calibration]}
    return (
        "bad" if "bad" in marks else "good" if "good" in marks else "equal"
    ), f"On {domain} it is {right} {joined} {held}."


def _noticed(figure: Figure) -> list[str]:
    if figure["low"] is None:
        return []
    if figure["high"] < 0.5:
        said = "is lower on these texts than on the test texts"
    elif figure["low"] <= 0.5:
        said = "is not shown to tell these texts from the test texts"
    else:
        weakly = " only weakly" if figure["low"] < WEAKLY_BELOW else ""
        said = f"tells these texts from the test texts{weakly}"
    return [f"Total uncertainty {said} (AUROC {with_interval('ood_auroc', figure)})."]
