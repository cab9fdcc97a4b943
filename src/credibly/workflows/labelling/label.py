"""Label: language models are asked in several ways what class each text is of; a run folder comes out.

Raw opinions are stored as the members' record; the labellers' bias is found and taken off afterwards, from
the record alone, so that other corrections need no model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from credibly.data.labelling import shown_examples, texts_to_label
from credibly.data.strata import Strata
from credibly.errors import InputError, did_you_mean, listed
from credibly.members import LABELLERS, Said, TrainingData
from credibly.members.opinions import Bias
from credibly.passes import groups_of, member_seeds
from credibly.progress import Progress, Stages, silent
from credibly.records import Examples, Predictions, normalised_log_probs
from credibly.runs import Run, steady, write_bytes, write_json, write_text
from credibly.settings import LabellingSettings, Recipe, recipe_values
from credibly.uncertainty.dawid_skene import check_labellers
from credibly.uncertainty.label_shift import (
    CONTENT_FREE,
    Corrections,
    batch_bias,
    checked_prior,
    content_free_bias,
    correct,
    share_between,
)
from credibly.uncertainty.systems import Answer, answers
from credibly.workflows.common.provenance import (
    check_same_recipe,
    facts_of,
    goes_on,
    resolved_before,
    resolved_here,
)
from credibly.workflows.common.recipes import RECIPE_SUFFIXES, make_recipe
from credibly.workflows.labelling.panel import Combined, Panel
from credibly.workflows.labelling.votes import answers_given, check_votes, vote_notes, voting

log = logging.getLogger(__name__)

CHUNK = 512
"""Texts that are asked about and stored together; a stopped run loses one chunk at most."""
FEW_TEXTS = 32
"""The mean over fewer texts says little of a prompt's bias."""
MUCH = 0.05
"""Of what labellers say, where it goes with the length of the text."""
BY_LENGTH = "batch_by_length"
SYSTEM, SPLIT = "members", "unlabelled"
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """What the steps of labelling share."""

    run: Run
    recipe: Recipe
    labelling: LabellingSettings
    texts: Examples
    examples: Examples | None
    notes: Sequence[str]
    stages: Stages


def label(
    source: Recipe | str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stages: Stages = silent,
) -> Run:
    """Label a file's texts by prompts or other labellers, without any training, and leave a finished run.

    Args:
        source: a data file, a recipe with a block `labelling`, or the path of one.
        output: the run folder.
        settings: recipe values by dotted key, such as ``{"labelling.classes": ["bad", "good"]}``.
        resume: go on with an unfinished run; the recipe must be the one it began with.
        overwrite: replace an existing run.
        stages: told of progress.

    Raises:
        InputError: recipe, data, run folder or model cannot be used, or it hardly says any class's word.
        AssetError: the model cannot be had.
    """
    run = Run.claim(output, resume, overwrite)
    recipe = labelling_recipe(source, settings)
    if resume and run.finished:
        check_same_recipe(run, recipe)
        return run
    job = _job(run, recipe, stages, resume)
    panel = Panel.of(job.recipe, _shown(job), stages)
    if not goes_on(run, resume):
        run.begin(job.recipe)
    with run.alone():
        return _carry_out(job, panel)


def _carry_out(job: Job, panel: Panel) -> Run:
    """Ask, take off the bias, combine, and leave a finished run."""
    run = job.run
    panel.save(run)
    said = _asked(job, panel)
    raw = Predictions(
        log_probs=normalised_log_probs(said.log_probs),
        ids=job.texts.ids,
        class_names=job.texts.class_names,
        provenance={"members": panel.name},
    )
    run.save_predictions(SYSTEM, SPLIT, raw)
    bias = _bias(job, panel, raw)
    corrections = correct(raw, bias.of(job.texts.texts), _prior_of(job.labelling))
    combined = Combined.of(corrections)
    write_json(run.labelling_file, _summary(job, said, bias, corrections, combined))
    answer = combined.answer(job.labelling.combine)
    write_text(run.labels_file, "".join(f"{line}\n" for line in label_lines(answer)))
    run.remove_checkpoints()
    run.finish(facts_of(run.recipe))
    return run


def labelling_recipe(source: Recipe | str | Path, settings: Mapping[str, object] | None = None) -> Recipe:
    """Return a recipe that labels.

    Raises:
        RecipeError: it is wrong.
        InputError: it names no classes, other members than labellers, too few of these to be weighed, or
            shares of other classes.
    """
    recipe = make_recipe(source, {**_usual(source), "distil.enabled": False, **(settings or {})})
    if recipe.labelling is None:
        raise InputError(
            "expected the names of two classes or more, got none; name them, for example: --classes no,yes"
        )
    for group in groups_of(recipe):
        if group.settings.source not in LABELLERS:
            raise InputError(
                f"expected members.source {listed(LABELLERS)}, or mixed of these, got {group.settings.source}"
            )
    if recipe.labelling.combine == "dawid_skene":
        check_labellers(recipe.members.count)
    _prior_of(recipe.labelling)
    return _without_shifts(recipe) if any(voting(recipe)) else recipe


def _without_shifts(recipe: Recipe) -> Recipe:
    """Return a recipe of which some members vote: no bias is looked for where all of them do.

    Raises:
        InputError: classes are to be given shares, which votes cannot be moved to.
    """
    labelling = recipe.labelling
    assert labelling is not None
    if labelling.prior is not None:
        raise InputError(
            "sampled answers are votes, which no shift moves to given class shares; leave out "
            "labelling.prior (--prior), or ask by prompts"
        )
    if not all(voting(recipe)):
        return recipe
    return recipe.model_copy(update={"labelling": labelling.model_copy(update={"bias": "none"})})


def _usual(source: Recipe | str | Path) -> dict[str, object]:
    """Return prompts as the labellers, where a source names none."""
    if isinstance(source, Recipe):
        return {}
    members = recipe_values(Path(source)).get("members") if Path(source).suffix in RECIPE_SUFFIXES else None
    return {} if isinstance(members, dict) and "source" in members else {"members.source": "prompts"}


def _prior_of(labelling: LabellingSettings) -> FloatArray | str | None:
    """Return class shares in the order of the classes, "estimate", or None for equal ones."""
    prior, classes = labelling.prior, labelling.classes
    if not isinstance(prior, dict):
        return prior
    for name in prior:
        if name not in classes:
            raise InputError(f"labelling.prior: there is no class '{name}'{did_you_mean(name, classes)}")
    return checked_prior([prior.get(name, 0.0) for name in classes], len(classes))


def _job(run: Run, recipe: Recipe, stages: Stages, resume: bool) -> Job:
    """Read the texts and examples; nothing is written yet."""
    labelling = recipe.labelling
    assert labelling is not None
    unweighted = recipe.data.model_copy(update={"weight": None})
    texts, notes = texts_to_label(unweighted, labelling.classes, recipe.seed)
    examples = None
    if labelling.examples is not None:
        asked = texts if _shows(recipe) else None
        examples, more = shown_examples(labelling.examples, recipe.data, texts.class_names, asked)
        notes += more
    for note in notes:
        log.info(note)
    fingerprints = {SPLIT: texts.fingerprint()} | (
        {"examples": examples.fingerprint()} if examples is not None else {}
    )
    return Job(run, _resolved(run, recipe, fingerprints, resume), labelling, texts, examples, notes, stages)


def _resolved(run: Run, recipe: Recipe, fingerprints: Mapping[str, str], resume: bool) -> Recipe:
    """Return the resolved recipe: the one that an unfinished run began with, where it goes on."""
    if not goes_on(run, resume):
        return resolved_here(recipe, fingerprints)
    check_same_recipe(run, recipe)
    resolved_before(run, fingerprints)
    return run.recipe


def _shown(job: Job) -> TrainingData:
    """Return the examples that prompts show."""
    shown = job.examples
    return TrainingData(
        texts=() if shown is None else shown.texts,
        targets=np.zeros((0, len(job.texts.class_names)), np.float32) if shown is None else shown.targets(),
        class_names=job.texts.class_names,
    )


def _asked(job: Job, panel: Panel) -> Said:
    """Return what the labellers say of all texts."""
    told, parts = job.stages(f"asking {panel.kinds}"), list[Said]()
    for start in range(0, len(job.texts), CHUNK):
        parts.append(_chunk(job, panel, start, told))
        if start == 0:
            _check_mass(job, panel, parts[0])
            check_votes(job.recipe, parts[0])
    return Said(np.concatenate([part.log_probs for part in parts], axis=1), sum(part.cut for part in parts))


def _chunk(job: Job, panel: Panel, start: int, told: Progress) -> Said:
    """Return what the labellers say of the texts from this one on; what is stored is not asked again."""
    file = job.run.checkpoints_folder / "labels" / f"{start:09d}.safetensors"
    texts = job.texts.texts[start : start + CHUNK]
    before, total = panel.count * start, panel.count * len(job.texts)
    if not file.is_file():
        said = panel.said(texts, lambda done, _: told(before + done, total))
        arrays = {"log_probs": said.log_probs, "cut": np.array([said.cut])}
        write_bytes(file, steady(save(arrays)))
    stored = load_file(file)
    told(before + panel.count * len(texts), total)
    return Said(stored["log_probs"], int(stored["cut"][0]))


def _check_mass(job: Job, panel: Panel, said: Said) -> None:
    """Raise InputError where a prompt's words hold almost nothing of what the model might say."""
    mass, weak, words = np.median(said.mass, axis=1), list[str](), dict[str, None]()
    for place, (seed, own) in enumerate(zip(member_seeds(job.recipe), panel.words, strict=True)):
        if own and mass[place] < job.labelling.lowest_mass:
            weak.append(f"member {seed} ({mass[place]:.2g})")
            words |= dict.fromkeys(own)
    if weak:
        raise InputError(
            f"the model hardly ever says {listed(map(repr, words))}: for half of the texts "
            f"all of them together have a probability below {job.labelling.lowest_mass:g}, by "
            f"{listed(weak, 10)}; give words that answer the question (members.label_words), a "
            "description or examples, take another model, or lower labelling.lowest_mass"
        )


def _bias(job: Job, panel: Panel, raw: Predictions) -> Bias:
    """Find the labellers' bias as the recipe says."""
    method, texts = job.labelling.bias, job.texts.texts
    strata = Strata.of(texts) if method == BY_LENGTH else Strata()
    values = np.zeros((raw.shape[0], strata.count, raw.shape[2]))
    if method.startswith("batch"):
        values = batch_bias(raw.log_probs, strata.places(texts))
    elif method == "content_free":
        values = content_free_bias(normalised_log_probs(panel.said(CONTENT_FREE).log_probs))[:, None]
    return Bias(np.where(voting(job.recipe)[:, None, None], 0.0, values), strata)


def _summary(
    job: Job, said: Said, bias: Bias, corrections: Corrections, combined: Combined
) -> dict[str, Any]:
    """Return labelling.json: what was found and assumed, and the records side by side."""
    names = job.texts.class_names
    found = {name: answers("ensemble", record, {})[0] for name, record in corrections.systems.items()}
    asked = [group.settings.source == "prompts" for group in groups_of(job.recipe) for _ in group.seeds]

    def by_class(values: FloatArray) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    def figures(own: Answer, before: Answer) -> dict[str, Any]:
        return {
            "shares": by_class(np.bincount(own.predicted, minlength=len(names)) / max(1, len(own.ids))),
            "changed": float((own.predicted != before.predicted).mean()),
            "mean_total": float(own.uncertainty.total.mean()),
            "mean_aleatoric": float(own.uncertainty.aleatoric.mean()),
            "mean_epistemic": float(own.uncertainty.epistemic.mean()),
        }

    return {
        "texts": len(job.texts),
        "cut": said.cut,
        "members": corrections.raw.shape[0],
        "mass": float(np.median(said.mass[asked])) if any(asked) else None,
        "answers": answers_given(job.recipe, said),
        "bias": {
            "method": job.labelling.bias,
            "by_member": [by_class(own) for own in bias.of(job.texts.texts).mean(axis=1)],
            "longest": list(bias.strata.edges),
            "by_length": [[by_class(row) for row in own] for own in bias.values],
            "taken_off": [[by_class(row) for row in own] for own in bias.values - corrections.moved[:, None]],
        },
        "assumed_shares": by_class(
            np.full(len(names), 1 / len(names)) if corrections.prior is None else corrections.prior
        ),
        "estimated_shares": by_class(corrections.estimated),
        "systems": {name: figures(own, found["raw"]) for name, own in found.items()},
        "combine": job.labelling.combine,
        "combined": {rule: figures(own, found["raw"]) for rule, own in combined.answers.items()},
        "combined_differ": combined.differ,
        "labellers": _labellers(job, combined, by_class),
        "examples": list(job.examples.texts) if job.examples is not None and _shows(job.recipe) else [],
        "notes": [*job.notes, *_findings(job, said, corrections)],
    }


def _labellers(
    job: Job, combined: Combined, by_class: Callable[[FloatArray], dict[str, float]]
) -> list[dict[str, Any]]:
    """Return what each labeller is, and what the votes tell of it where they are enough to be weighed."""
    kinds = [group.name.partition(" ")[2] for group in groups_of(job.recipe) for _ in group.seeds]
    rows = [{"seed": seed, "kind": kind} for seed, kind in zip(member_seeds(job.recipe), kinds, strict=True)]
    if combined.weighed is None:
        return rows
    names, found = job.texts.class_names, combined.weighed
    told = zip(rows, found.accuracies, found.confusion, strict=True)
    return [
        {
            **row,
            "accuracy": float(accuracy),
            "confusion": {name: by_class(own) for name, own in zip(names, confusion, strict=True)},
        }
        for row, accuracy, confusion in told
    ]


def _findings(job: Job, said: Said, corrections: Corrections) -> Iterator[str]:
    """Yield what is to be said of the labels."""
    if said.cut:
        yield f"{said.cut:,} of {len(job.texts):,} texts were too long for a model and were cut at their end"
    if job.examples is not None and not _shows(job.recipe):
        yield "the examples are not looked at: prompts alone show any"
    yield from vote_notes(job.recipe, said)
    if job.labelling.combine == "dawid_skene":
        yield (
            "the probabilities weigh the labellers' votes by the error rates that their agreement shows "
            "(Dawid and Skene), as if they erred independently: labellers of a kind do not quite, and then "
            "they are too sure; total, aleatoric and epistemic are of the labellers' own probabilities"
        )
    if job.labelling.bias == "none" and not all(voting(job.recipe)):
        yield "the labellers' bias towards some classes is left in"
    if job.labelling.bias == BY_LENGTH:
        yield (
            "the labellers' bias is taken off on the assumption that no class is much rarer than the others, "
            f"nor longer: by {Strata.of(job.texts.texts).count} ranges of lengths"
        )
    if job.labelling.bias == "batch":
        yield (
            "the labellers' bias is taken off on the assumption that no class is much rarer than the others"
        )
        yield from _by_length(job, corrections)
    if job.labelling.bias.startswith("batch") and len(job.texts) < FEW_TEXTS:
        yield (
            f"{len(job.texts)} texts are few to find the bias on; with fewer than {FEW_TEXTS} consider "
            "labelling.bias: content_free"
        )
    equal = 1 / len(job.texts.class_names)
    if corrections.prior is None and corrections.estimated.min() < equal / 2 and not any(voting(job.recipe)):
        shares = listed(
            f"{name} {share:.0%}"
            for name, share in zip(job.texts.class_names, corrections.estimated, strict=True)
        )
        yield (
            f"the answers themselves suggest other class shares ({shares}): where you know them give them as "
            "prior (labelling.prior, --prior), or take these with estimate; labels of rare classes are "
            "otherwise too many"
        )


def _shows(recipe: Recipe) -> bool:
    """Return whether any labeller is shown examples."""
    return any(getattr(group.settings, "shots", 0) for group in groups_of(recipe))


def _by_length(job: Job, corrections: Corrections) -> Iterator[str]:
    """Say where what prompts say goes with the length of the text, as the bias may."""
    asked, strata = [not own for own in voting(job.recipe)], Strata.of(job.texts.texts)
    if not any(asked) or strata.count == 1:
        return
    share = share_between(corrections.raw.log_probs[asked], strata.places(job.texts.texts))
    if share > MUCH:
        yield (
            f"what the labellers say goes with the length of the text, which explains {share:.0%} of it: if "
            f"no class is longer than the others that is bias too; take it off with "
            f"--set labelling.bias={BY_LENGTH}"
        )


def label_lines(answer: Answer) -> Iterator[str]:
    """Yield one JSON object a text, in the texts' order."""
    parts = answer.uncertainty
    rows = zip(answer.ids, answer.predicted, answer.probs, parts.total, parts.aleatoric, parts.epistemic,
               strict=True)  # fmt: skip
    for name, predicted, probs, total, aleatoric, epistemic in rows:
        yield json.dumps(
            {
                "id": name,
                "label": answer.class_names[predicted],
                "probabilities": dict(zip(answer.class_names, map(float, probs), strict=True)),
                "total": float(total),
                "aleatoric": float(aleatoric),
                "epistemic": float(epistemic),
            },
            ensure_ascii=False,
        )
