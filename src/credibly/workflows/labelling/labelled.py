"""What `label` left: labellers whose bias can be taken off again, and as systems that are judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from credibly.data.strata import Strata
from credibly.errors import RunFolderError
from credibly.members.opinions import Bias
from credibly.records import Predictions
from credibly.runs import Run
from credibly.settings import Recipe
from credibly.uncertainty.label_shift import without_bias
from credibly.workflows.common.contents import class_names_of

BIASED = "with_bias"
"""What labellers are called, in a report, whose bias was not taken off."""


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


def mean_notes(recipe: Recipe, used: str) -> list[str]:
    """Return what is to be said where labels.jsonl holds something else than the mean that is `used`.

    Args:
        recipe: of the run that `label` left.
        used: what the labellers' mean is: judged, learned.
    """
    if recipe.labelling is None or recipe.labelling.combine == "mean":
        return []
    return [
        f"{used} is the mean of the labellers; labels.jsonl weighs their votes ({recipe.labelling.combine})"
    ]
