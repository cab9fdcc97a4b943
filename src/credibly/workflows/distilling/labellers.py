"""Labellers as the members of a run: what they said of the texts is stored already, and is distilled."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

from credibly.errors import InputError, listed
from credibly.members.opinions import Bias, rewrite_bias
from credibly.passes import groups_of, member_seeds
from credibly.runs import Run, replacing
from credibly.settings import CONTROLS, BackboneSettings, Recipe
from credibly.uncertainty.label_shift import without_bias
from credibly.workflows.common.recipes import make_recipe
from credibly.workflows.labelling.labelled import shifts_of
from credibly.workflows.steps.work import Work

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
        known = replace(said, labels=part.labels, label_probs=part.label_probs, groups=part.group_numbers())
        work.run.save_predictions("members", split, known)
