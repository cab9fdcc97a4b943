"""The recipe: every setting of a run, typed, read from and written to YAML.

An unknown key is refused with the nearest known one; all problems of a recipe are told at once.
"""

from credibly.settings.data import DataSettings
from credibly.settings.members import (
    AdaptersSettings,
    BackboneSettings,
    DropoutSettings,
    FullSettings,
    HeadsSettings,
    LaplaceSettings,
    LoraSettings,
    MixedSettings,
    OptimiserSettings,
    PromptsSettings,
    TopBlocksSettings,
    TunedSettings,
)
from credibly.settings.recipe import (
    CONTROLS,
    AugmentSettings,
    CalibrationSettings,
    DistilSettings,
    EvaluationSettings,
    LabellingSettings,
    Recipe,
    ResolvedSettings,
    load_recipe,
    parse_recipe,
    recipe_text,
    recipe_values,
    with_columns,
)

__all__ = [
    "CONTROLS",
    "AdaptersSettings",
    "AugmentSettings",
    "BackboneSettings",
    "CalibrationSettings",
    "DataSettings",
    "DistilSettings",
    "DropoutSettings",
    "EvaluationSettings",
    "FullSettings",
    "HeadsSettings",
    "LabellingSettings",
    "LaplaceSettings",
    "LoraSettings",
    "MixedSettings",
    "OptimiserSettings",
    "PromptsSettings",
    "Recipe",
    "ResolvedSettings",
    "TopBlocksSettings",
    "TunedSettings",
    "load_recipe",
    "parse_recipe",
    "recipe_text",
    "recipe_values",
    "with_columns",
]
