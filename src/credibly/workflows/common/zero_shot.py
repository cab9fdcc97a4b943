"""Zero-shot: what label words answer before any training, as a system beside the tuned members."""

from __future__ import annotations

from collections.abc import Sequence

from credibly.backbones import load_classifier
from credibly.distil import Network
from credibly.members import lora
from credibly.passes import Group, groups_of
from credibly.settings import LoraSettings, Recipe, TunedSettings

ZERO_SHOT = "zero_shot"


def starting_from_words(recipe: Recipe) -> list[Group]:
    """Return the groups of members that start from label words."""
    return [
        group
        for group in groups_of(recipe)
        if isinstance(group.settings, TunedSettings) and group.settings.words is not None
    ]


def zero_shot_network(recipe: Recipe, class_names: Sequence[str]) -> Network:
    """Return the untrained network that members start from; of a mixed ensemble, the first group's.

    Raises:
        AssetError: the model is not there.
        InputError: its label words do not fit.
    """
    first = starting_from_words(recipe)[0]
    if isinstance(first.settings, LoraSettings):
        # As it is held for training: what several devices share, or four bits, may be too large otherwise.
        classifier = lora.untrained(first.backbone, class_names, first.settings)
    else:
        classifier = load_classifier(first.backbone, class_names, 0.0, seed=0, words=first.settings.words)
    return Network(classifier, emits_dirichlet=False)
