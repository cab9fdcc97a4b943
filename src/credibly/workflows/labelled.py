"""Labellers as the members of a run: what they said of the texts is stored already, and is distilled."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from credibly.data.strata import Strata
from credibly.errors import InputError, RunFolderError, listed
from credibly.members.opinions import Bias, rewrite_bias
from credibly.passes import groups_of, member_seeds
from credibly.records import Predictions
from credibly.runs import Run, replacing
from credibly.settings import CONTROLS, BackboneSettings, Recipe
from credibly.uncertainty.label_shift import without_bias
from credibly.workflows.contents import class_names_of
from credibly.workflows.recipes import make_recipe
from credibly.workflows.work import Work

BIASED = "with_bias"
"""What labellers are called, in a report, whose bias was not taken off."""
BLOCKS = ("data", "distil", "calibration", "evaluation")
"""What of a recipe can be set where the labellers are there already."""


def labelled_recipe(labelled: Run, settings: Mapping[str, object]) -> Recipe:
    """Return the recipe of a run that distils labellers.

    A student of a causal model or an inference model starts from an encoder, unless another backbone is
    given. There are no controls unless they are asked for: `direct` and `soft_labels` would learn the same.

    Raises:
        InputError: a setting of something that labelling has decided.
    """
    strange = [key for key in settings if key.partition(".")[0] not in BLOCKS or key == "data.labels_from"]
    if strange:
        raise InputError(
            f"expected settings of {listed(BLOCKS)}, since the texts are labelled already; got "
            f"{listed(strange)}; label again with other settings"
        )
    usual: dict[str, object] = {
        "labelling": None, "data.labels_from": str(labelled.path),
        "distil.enabled": True, "distil.controls": [],
    }  # fmt: skip
    began = labelled.recipe
    own = [group for group in groups_of(began) if group.backbone == began.backbone]
    if any(group.settings.source != "similarity" for group in own):
        usual["distil.backbone"] = BackboneSettings().model_dump()
    every = {"distil.controls": list(CONTROLS)} if settings.get("distil.controls") == "all" else {}
    return make_recipe(began, {**usual, **settings, **every})


def take_labellers(labelled: Run, work: Work) -> None:
    """Copy labellers and what they said, both without their bias, where they are not there yet."""
    run, shifts = work.run, shifts_of(labelled)
    if not run.members_folder.is_dir():
        labelled.check_folder(labelled.members_folder)
        with replacing(run.members_folder) as temporary:
            shutil.copytree(labelled.members_folder, temporary)
            for place, seed in enumerate(member_seeds(work.recipe)):
                rewrite_bias(temporary / str(seed), shifts.content(place))
    _take_opinions(labelled, work, shifts)


def shifts_of(labelled: Run) -> Bias:
    """Return all that labelling took off each member's log-probabilities.

    That is its bias, and what gives the classes their shares where these are known or estimated.

    Raises:
        RunFolderError: an earlier version has labelled.
    """
    names = class_names_of(labelled)
    found = labelled.read_json(labelled.check(labelled.labelling_file))["bias"]
    if "taken_off" not in found:
        raise RunFolderError(f"{labelled.path} was labelled by an earlier version of credibly; label again")
    values = np.array([[[row[name] for name in names] for row in own] for own in found["taken_off"]])
    return Bias(values, Strata(tuple(found["longest"])))


def judged_labellers(
    labelled: Run, raw: Predictions, texts: Sequence[str]
) -> dict[str, dict[str, Predictions]]:
    """Return labellers without their bias and, where they have any, with it, as systems on test texts.

    Args:
        labelled: the run that `label` left.
        raw: what they say of the texts.
        texts: N texts.
    """
    shifts = shifts_of(labelled)
    stored = {"members": {"test": without_bias(raw, shifts.of(texts))}}
    return stored | ({BIASED: {"test": raw}} if shifts.values.any() else {})


def judged_notes(recipe: Recipe) -> list[str]:
    """Return what is to be said where labels.jsonl holds something else than the mean that is judged."""
    if recipe.labelling is None or recipe.labelling.combine == "mean":
        return []
    return [
        f"judged is the mean of the labellers; labels.jsonl weighs their votes ({recipe.labelling.combine})"
    ]


def _take_opinions(labelled: Run, work: Work, shifts: Bias) -> None:
    """Store what was said of the sets that are cut from the labelled texts; others are asked about anew."""
    data, sets = work.recipe.data, work.splits.named()
    given = {"calibration": data.calibration, "validation": data.validation}
    record = labelled.load_predictions("members", "unlabelled")
    place = {name: row for row, name in enumerate(record.ids)}
    for split in ("train", "calibration", "validation"):
        if split not in sets or given.get(split) or work.run.predictions_file("members", split).is_file():
            continue
        part = sets[split]
        said = without_bias(record.take([place[name] for name in part.ids]), shifts.of(part.texts))
        known = replace(said, labels=part.labels, label_probs=part.label_probs)
        work.run.save_predictions("members", split, known)
