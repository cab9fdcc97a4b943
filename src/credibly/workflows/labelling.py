"""Label: a language model is asked in several ways what class each text is of; a run folder comes out.

Raw opinions are stored as the members' record; the prompts' bias is found and taken off afterwards, from the
record alone, so that other corrections need no model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from credibly.backbones import resolve_precision
from credibly.backbones.loading import best_device
from credibly.data.labelling import shown_examples, texts_to_label
from credibly.errors import InputError, RunFolderError, did_you_mean, listed
from credibly.members import TrainingData, prompts
from credibly.members.prompts import PromptMembers, Said
from credibly.passes import member_seeds
from credibly.progress import Progress, Stages, silent
from credibly.records import Examples, Predictions, normalised_log_probs
from credibly.runs import Run, replacing, steady, write_bytes, write_json, write_text
from credibly.settings import LabellingSettings, PromptsSettings, Recipe, ResolvedSettings
from credibly.uncertainty.label_shift import (
    CONTENT_FREE,
    BatchBias,
    Corrections,
    checked_prior,
    content_free_bias,
    correct,
)
from credibly.uncertainty.systems import Answer, answers
from credibly.workflows.fitting import comparable, facts_of
from credibly.workflows.recipes import make_recipe

log = logging.getLogger(__name__)

CHUNK = 512
"""Texts that are asked about and stored together; a stopped run loses one chunk at most."""
FEW_TEXTS = 32
"""The mean over fewer texts says little of a prompt's bias."""
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

    @property
    def members(self) -> PromptsSettings:
        """The prompts' settings."""
        assert isinstance(self.recipe.members, PromptsSettings)
        return self.recipe.members


def label(
    source: Recipe | str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stages: Stages = silent,
) -> Run:
    """Label a file's texts by prompts, without any training, and leave a finished run.

    Args:
        source: a data file, a recipe with a block `labelling`, or the path of one.
        output: the run folder.
        settings: recipe values by dotted key, such as ``{"labelling.classes": ["bad", "good"]}``.
        resume: go on with an unfinished run; the recipe must be the one it began with.
        overwrite: replace an existing run.
        stages: told of progress.

    Raises:
        InputError: recipe, data or run folder cannot be used, or the model hardly says any class's word.
        AssetError: the model cannot be had.
    """
    run = Run.claim(output, resume, overwrite)
    recipe = labelling_recipe(source, settings)
    if resume and run.finished:
        _check_same(run, recipe)
        return run
    job = _job(run, recipe, stages, resume)
    members = _members(job)
    if not _goes_on(run, resume):
        run.begin(job.recipe)
    _store(job, members)
    said = _asked(job, members)
    raw = Predictions(
        log_probs=normalised_log_probs(said.log_probs),
        ids=job.texts.ids,
        class_names=job.texts.class_names,
        provenance={"members": f"{members.count} prompts on {recipe.backbone.name}"},
    )
    run.save_predictions(SYSTEM, SPLIT, raw)
    corrections = _corrections(job, members, raw)
    write_json(run.labelling_file, _summary(job, said, corrections))
    answer = answers("ensemble", corrections.final, {})[0]
    write_text(run.labels_file, "".join(f"{line}\n" for line in label_lines(answer)))
    run.remove_checkpoints()
    run.finish(facts_of(run.recipe))
    return run


def labelling_recipe(source: Recipe | str | Path, settings: Mapping[str, object] | None = None) -> Recipe:
    """Return a recipe that labels.

    Raises:
        RecipeError: it is wrong.
        InputError: it names no classes, other members than prompts, or shares of other classes.
    """
    recipe = make_recipe(source, {"members.source": "prompts", "distil.enabled": False, **(settings or {})})
    if recipe.labelling is None:
        raise InputError(
            "expected the names of two classes or more, got none; name them, for example: --classes no,yes"
        )
    if not isinstance(recipe.members, PromptsSettings):
        raise InputError(f"expected members.source prompts, got {recipe.members.source}")
    _prior_of(recipe.labelling)
    return recipe


def _prior_of(labelling: LabellingSettings) -> FloatArray | str | None:
    """Return class shares in the order of the classes, "estimate", or None for equal ones."""
    prior, classes = labelling.prior, labelling.classes
    if not isinstance(prior, dict):
        return prior
    for name in prior:
        if name not in classes:
            raise InputError(f"labelling.prior: there is no class '{name}'{did_you_mean(name, classes)}")
    return checked_prior([prior.get(name, 0.0) for name in classes], len(classes))


def _goes_on(run: Run, resume: bool) -> bool:
    return resume and run.recipe_file.is_file()


def _job(run: Run, recipe: Recipe, stages: Stages, resume: bool) -> Job:
    """Read the texts and examples; nothing is written yet."""
    labelling = recipe.labelling
    assert labelling is not None
    texts, notes = texts_to_label(recipe.data, labelling.classes)
    examples = None
    if labelling.examples is not None:
        examples, more = shown_examples(labelling.examples, recipe.data, texts.class_names, texts)
        notes += more
    for note in notes:
        log.info(note)
    fingerprints = {SPLIT: texts.fingerprint()} | (
        {"examples": examples.fingerprint()} if examples is not None else {}
    )
    return Job(run, _resolved(run, recipe, fingerprints, resume), labelling, texts, examples, notes, stages)


def _resolved(run: Run, recipe: Recipe, fingerprints: Mapping[str, str], resume: bool) -> Recipe:
    """Return the resolved recipe: the one that an unfinished run began with, where it goes on."""
    if _goes_on(run, resume):
        _check_same(run, recipe)
        resolved = run.recipe.resolved
        if resolved is None or resolved.fingerprints != fingerprints:
            raise RunFolderError(
                f"{run.path} began with other texts than the files hold now; give --overwrite"
            )
        torch.set_num_threads(resolved.threads)
        return run.recipe
    device = best_device()
    precision = resolve_precision(recipe.backbone.precision, device)
    resolved = ResolvedSettings(
        precision=precision,
        threads=torch.get_num_threads(),
        device=device.type,
        fingerprints=dict(fingerprints),
    )
    backbone = recipe.backbone.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"resolved": resolved, "backbone": backbone})


def _check_same(run: Run, recipe: Recipe) -> None:
    """Raise RunFolderError where a recipe is another than the run began with."""
    began, now = comparable(run.recipe), comparable(recipe)
    different = sorted(key for key in began if began[key] != now[key])
    if different:
        raise RunFolderError(
            f"{run.path} began with other settings of {', '.join(different)}; go on with those it began with "
            "(its recipe.yaml shows them), or give --overwrite"
        )


def _members(job: Job) -> PromptMembers:
    """Make the prompts."""
    shown = job.examples
    data = TrainingData(
        texts=() if shown is None else shown.texts,
        targets=np.zeros((0, len(job.texts.class_names)), np.float32) if shown is None else shown.targets(),
        class_names=job.texts.class_names,
    )
    pool = prompts.prepare(data, job.recipe.backbone, job.members, job.stages)
    return prompts.prompts_of(pool, job.members, member_seeds(job.recipe))


def _store(job: Job, members: PromptMembers) -> None:
    """Write the prompts."""
    for member, seed in enumerate(member_seeds(job.recipe)):
        with replacing(job.run.member_folder(seed)) as folder:
            folder.mkdir()
            members.save(member, folder)


def _asked(job: Job, members: PromptMembers) -> Said:
    """Return what the prompts say of all texts."""
    told, parts = job.stages(f"asking {members.count} prompts"), list[Said]()
    for start in range(0, len(job.texts), CHUNK):
        parts.append(_chunk(job, members, start, told))
        if start == 0:
            _check_mass(job, members, parts[0])
    return Said(np.concatenate([part.log_probs for part in parts], axis=1), sum(part.cut for part in parts))


def _chunk(job: Job, members: PromptMembers, start: int, told: Progress) -> Said:
    """Return what the prompts say of the texts from this one on; what is stored is not asked again."""
    file = job.run.checkpoints_folder / "labels" / f"{start:09d}.safetensors"
    texts = job.texts.texts[start : start + CHUNK]
    before, total = members.count * start, members.count * len(job.texts)
    if not file.is_file():
        said = members.said(texts, lambda done, _: told(before + done, total))
        arrays = {"log_probs": said.log_probs, "cut": np.array([said.cut])}
        write_bytes(file, steady(save(arrays)))
    stored = load_file(file)
    told(before + members.count * len(texts), total)
    return Said(stored["log_probs"], int(stored["cut"][0]))


def _check_mass(job: Job, members: PromptMembers, said: Said) -> None:
    """Raise InputError where the prompts' words hold almost nothing of what the model might say."""
    mass = np.median(said.mass, axis=1)
    weak = [
        f"member {seed} ({held:.2g})"
        for seed, held in zip(member_seeds(job.recipe), mass, strict=True)
        if held < job.labelling.lowest_mass
    ]
    if weak:
        raise InputError(
            f"the model hardly ever says {listed(map(repr, members.frames[0].words))}: for half of the texts "
            f"all of them together have a probability below {job.labelling.lowest_mass:g}, by "
            f"{listed(weak, 10)}; give words that answer the question (members.label_words), a "
            "description or examples, take another model, or lower labelling.lowest_mass"
        )


def _corrections(job: Job, members: PromptMembers, raw: Predictions) -> Corrections:
    """Find the prompts' bias as the recipe says, and take it off."""
    method = job.labelling.bias
    bias = np.zeros((raw.shape[0], raw.shape[2]))
    if method == "batch":
        bias = BatchBias.of(raw.log_probs).bias
    elif method == "content_free":
        bias = content_free_bias(normalised_log_probs(members.said(CONTENT_FREE).log_probs))
    return correct(raw, bias, _prior_of(job.labelling))


def _summary(job: Job, said: Said, corrections: Corrections) -> dict[str, Any]:
    """Return labelling.json: what was found and assumed, and the records side by side."""
    names = job.texts.class_names
    found = {name: answers("ensemble", record, {})[0] for name, record in corrections.systems.items()}

    def by_class(values: FloatArray) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    return {
        "texts": len(job.texts),
        "cut": said.cut,
        "members": corrections.raw.shape[0],
        "mass": float(np.median(said.mass)),
        "bias": {"method": job.labelling.bias, "by_member": [by_class(own) for own in corrections.bias]},
        "assumed_shares": by_class(
            np.full(len(names), 1 / len(names)) if corrections.prior is None else corrections.prior
        ),
        "estimated_shares": by_class(corrections.estimated),
        "systems": {
            name: {
                "shares": by_class(np.bincount(own.predicted, minlength=len(names)) / max(1, len(own.ids))),
                "changed": float((own.predicted != found["raw"].predicted).mean()),
                "mean_total": float(own.uncertainty.total.mean()),
                "mean_aleatoric": float(own.uncertainty.aleatoric.mean()),
                "mean_epistemic": float(own.uncertainty.epistemic.mean()),
            }
            for name, own in found.items()
        },
        "notes": [*job.notes, *_findings(job, said, corrections)],
    }


def _findings(job: Job, said: Said, corrections: Corrections) -> Iterator[str]:
    """Yield what is to be said of the labels."""
    if said.cut:
        yield f"{said.cut:,} of {len(job.texts):,} texts were too long for a prompt and were cut at their end"
    if job.labelling.bias == "none":
        yield "the prompts' bias towards some classes is left in"
    if job.labelling.bias == "batch":
        yield "the prompts' bias is taken off on the assumption that no class is much rarer than the others"
        if len(job.texts) < FEW_TEXTS:
            yield (
                f"{len(job.texts)} texts are few to find the bias on; with fewer than {FEW_TEXTS} consider "
                "labelling.bias: content_free"
            )
    equal = 1 / len(job.texts.class_names)
    if corrections.prior is None and corrections.estimated.min() < equal / 2:
        shares = listed(
            f"{name} {share:.0%}"
            for name, share in zip(job.texts.class_names, corrections.estimated, strict=True)
        )
        yield (
            f"the answers themselves suggest other class shares ({shares}): where you know them give them as "
            "prior (labelling.prior, --prior), or take these with estimate; labels of rare classes are "
            "otherwise too many"
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
