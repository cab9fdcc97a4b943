"""The recipe: every setting of a run, typed, read from and written to YAML.

An unknown key is refused with the nearest known one; all problems of a recipe are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from credibly.errors import RecipeError, listed
from credibly.parted import check_cut, columns_of
from credibly.problems import problem_of

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Limited = Literal["train", "validation", "calibration", "test", "unlabelled"]


class Settings(BaseModel):
    """Base of every block of the recipe: frozen, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)


def _text_columns(data: dict[str, Any]) -> list[str]:
    """Return the text columns where none are given: those of the template."""
    return columns_of(data["template"]) if data.get("template") else ["text"]


class DataSettings(Settings):
    """Where the texts come from and which columns mean what.

    A text that is longer than the model's limit loses its end. Made of a template or as a pair, it loses
    the end of one column, and keeps all else whole as long as that alone fits.
    """

    train: str = Field(description="a file, `reviews`, or `hub:OWNER/NAME`")
    template: str | None = Field(
        None, description="words around columns, such as `Question: {question} Context: {passage}`"
    )
    text: list[str] = Field(
        default_factory=_text_columns,
        description="text columns; several are joined by a line break; those of the template if there is one",
    )
    pair: bool = Field(False, description="the two text columns are the model's own sentence pair")
    cut: str | None = Field(
        None, description="the column of a template or pair that is cut first; the last if left out"
    )
    label: str | None = Field("label", description="label column: integers, names or booleans")
    probabilities: list[str] | None = Field(
        None, description="columns of class probabilities, one a class, named CLASS or PREFIX.CLASS"
    )
    targets: Literal["shares", "labels"] = Field(
        "shares", description="what is learned of class probabilities: all of them, or the likeliest class"
    )
    labels_from: str | None = Field(
        None, description="a folder that `label` left: its opinions of the texts in train are learned"
    )
    keep_share: float = Field(
        1.0, gt=0, le=1, description="share of these opinions, the surest of each class, that is learned"
    )
    keep_below: Positive | None = Field(
        None, description="total uncertainty, in nats, above which an opinion is not learned"
    )
    id: str | None = Field(None, description="id column; rows are numbered where there is none")
    group: str | None = Field(None, description="group column: rows of a group are never split apart")
    validation: str | None = Field(None, description="a further file, for curves and early stopping")
    calibration: str | None = Field(None, description="a further file; else cut from train")
    test: str | None = Field(None, description="a further file; else cut from train")
    unlabelled: str | None = Field(None, description="texts without labels, for distilling")
    shift: dict[str, str] = Field(default_factory=dict, description="files of other domains, by name")
    validation_share: float = Field(0.0, ge=0, lt=1, description="cut from train where there is no file")
    calibration_share: Share = 0.15
    test_share: Share = 0.2
    limit: dict[Limited, Count] = Field(
        default_factory=dict, description="at most so many rows of a set, each class in its share"
    )
    class_limit: dict[Limited, Count] = Field(
        default_factory=dict, description="at most so many rows of every class of a set"
    )

    @field_validator("text", mode="before")
    @classmethod
    def _one_column_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("template")
    @classmethod
    def _template_names_columns(cls, value: str | None) -> str | None:
        if value is not None:
            columns_of(value)
        return value

    @field_validator("text")
    @classmethod
    def _text_is_what_the_template_names(cls, value: list[str], info: ValidationInfo) -> list[str]:
        template = info.data.get("template")
        columns = value if template is None else columns_of(template)
        if sorted(columns) != sorted(value):
            raise RecipeError(
                f"expected the columns of the template ({listed(columns, 20)}), got {listed(value, 20)}; "
                "leave data.text out"
            )
        return columns

    @field_validator("pair")
    @classmethod
    def _two_columns_are_a_pair(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("template") is not None:
            raise RecipeError("expected a template or a pair, got both; leave one of them out")
        if value and len(info.data.get("text", ())) != 2:
            raise RecipeError(f"expected two text columns, got {listed(info.data.get('text', ()), 20)}")
        return value

    @field_validator("cut")
    @classmethod
    def _one_column_is_cut(cls, value: str | None, info: ValidationInfo) -> str | None:
        template, text = info.data.get("template"), info.data.get("text")
        if text and (template or info.data.get("pair")):
            check_cut(template, text, value or text[-1])
        elif value:
            raise RecipeError("expected a template or a pair of which to cut a column, got neither")
        return value

    @field_validator("keep_share", "keep_below")
    @classmethod
    def _opinions_are_kept(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value not in (None, 1) and info.data.get("labels_from") is None:
            raise RecipeError("expected data.labels_from beside it: opinions, of which some are kept")
        return value

    @property
    def cut_column(self) -> str | None:
        """The column that is cut first; None where a text is cut at its end."""
        return (self.cut or self.text[-1]) if self.template or self.pair else None


class BackboneSettings(Settings):
    """The pre-trained language model, and how texts go through it."""

    name: str = Field("minilm", description="a packaged model, a hub id, or a local folder")
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    max_tokens: Count | None = Field(
        None, description="longer texts are cut; the model's own limit if left out"
    )
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    token_budget: Count = Field(
        4096, description="tokens that run at once; a larger step is computed in parts"
    )


class OptimiserSettings(Settings):
    """How weights are trained."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: float = Field(0.0, ge=0)
    warmup_share: float = Field(0.0, ge=0, lt=1, description="share of the steps with a rising rate")
    warmup_steps: Count | None = Field(None, description="number of steps with a rising rate, in its place")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    clip_norm: Positive | None = None
    accumulate: Count = Field(1, description="batches whose gradients are added up for one step")
    patience: Count | None = Field(
        None, description="epochs without a better held-out loss after which a member stops; its best is kept"
    )
    validations: Count = Field(4, description="checks on held-out rows in an epoch")
    validation_batches: Count = Field(8, description="batches of a check; an epoch's last sees all rows")


def _over_defaults(cls: type[Settings], value: object) -> object:
    """Lay the keys that are given over the block's own defaults, so that one can be set alone."""
    default = cls.model_fields["optimiser"].default
    return {**default.model_dump(), **value} if isinstance(value, dict) else value


class HeadsSettings(Settings):
    """M heads on frozen embeddings, trained as one batched product."""

    source: Literal["heads"] = "heads"
    count: Count = Field(10, description="number of members, M")
    hidden: list[Count] = Field([256], description="widths of the hidden layers; [] is a linear head")
    dropout: float = Field(0.1, ge=0, lt=1)
    bootstrap: bool = Field(False, description="each member trains on its own resample of the rows")
    class_weights: Literal["none", "balanced"] = "none"
    optimiser: OptimiserSettings = OptimiserSettings(
        epochs=10, batch_size=64, learning_rate=1e-3, weight_decay=0.01, schedule="cosine"
    )

    _optimiser_defaults = field_validator("optimiser", mode="before")(_over_defaults)


class LaplaceSettings(Settings):
    """M draws of a linear head on frozen embeddings from its last-layer Laplace approximation."""

    source: Literal["laplace"] = "laplace"
    count: Count = Field(10, description="number of members, M")
    hessian: Literal["auto", "full", "kron"] = Field("auto", description="auto: full where the head is small")
    prior_precision: Positive | None = Field(None, description="by the marginal likelihood if left out")
    class_weights: Literal["none", "balanced"] = "none"


TUNING = OptimiserSettings(
    epochs=3,
    batch_size=32,
    learning_rate=2e-4,
    weight_decay=0.01,
    warmup_share=0.1,
    schedule="linear",
    clip_norm=1.0,
)


ATTENTION_DROPOUT = (
    "of attention weights; processors' fused attention knows none: with it long texts take half as long again"
)


class TunedSettings(Settings):
    """What all sources have in common that tune the language model itself."""

    source: str
    count: Count = Field(5, description="number of members, M")
    head: Literal["linear", "label_words"] = Field(
        "linear", description="starts at random, or from the model's own output rows for the label words"
    )
    label_words: dict[str, str] = Field(
        default_factory=dict,
        description="the word behind the prompt that says a class, by class; its name if left out",
    )
    bootstrap: bool = Field(False, description="each member trains on its own resample of the rows")
    class_weights: Literal["none", "balanced"] = "none"
    optimiser: OptimiserSettings = TUNING

    _optimiser_defaults = field_validator("optimiser", mode="before")(_over_defaults)

    @field_validator("label_words")
    @classmethod
    def _words_are_for_their_head(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if value and info.data.get("head") == "linear":
            raise RecipeError("a linear head says no words; set members.head to label_words, or leave it out")
        return value

    @property
    def words(self) -> dict[str, str] | None:
        """Words by class, empty for the classes' names; None where the head starts at random."""
        return self.label_words if self.head == "label_words" else None


class TopBlocksSettings(TunedSettings):
    """M members that each tune the last blocks and a head over one frozen trunk."""

    source: Literal["top_blocks"] = "top_blocks"
    blocks: Count = Field(2, description="blocks that are tuned")
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1, description=ATTENTION_DROPOUT)


class FullSettings(TunedSettings):
    """M members that each tune the whole model."""

    source: Literal["full"] = "full"
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1, description=ATTENTION_DROPOUT)


class DropoutSettings(TunedSettings):
    """M fixed dropout masks of one tuned network (MC dropout)."""

    source: Literal["dropout"] = "dropout"
    blocks: Count | None = Field(2, description="blocks that are tuned and masked; null for the whole model")
    dropout: float = Field(0.1, gt=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1, description=ATTENTION_DROPOUT)
    bootstrap: Literal[False] = Field(False, description="all members are one network, with one set of rows")


class LoraSettings(TunedSettings):
    """M LoRA adapters over one frozen base, trained in one pass; keys are named as PEFT names them."""

    source: Literal["lora"] = "lora"
    r: Count = Field(8, description="rank of every update")
    lora_alpha: Count = 16
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="names that an adapted layer's name ends with"
    )
    blocks: Count | None = Field(None, description="adapt only so many blocks from the top; all if left out")
    load_in_4bit: bool = Field(False, description="hold the frozen base's blocks in four bits, as QLoRA does")
    group: Count = Field(10, description="members that are trained in one pass")
    optimiser: OptimiserSettings = OptimiserSettings(
        epochs=3,
        batch_size=16,
        learning_rate=5e-4,
        weight_decay=0.01,
        warmup_share=0.1,
        schedule="linear",
        clip_norm=1.0,
    )


class AdaptersSettings(Settings):
    """LoRA adapters trained elsewhere, with their heads, as PEFT saves them; nothing of them is trained."""

    source: Literal["adapters"] = "adapters"
    adapters: list[str] = Field(min_length=1, description="folders or hub ids, one a member")
    base: str | None = Field(None, description="the backbone's name in the adapters' configs, if another")
    classes: list[str] | None = Field(
        None, description="classes in the order of the adapters' logits; the run's order if left out"
    )

    @property
    def count(self) -> int:
        """Number of members, M."""
        return len(self.adapters)


class PromptsSettings(Settings):
    """M prompts of one causal language model, which says the classes' words; nothing is trained."""

    source: Literal["prompts"] = "prompts"
    count: Count = Field(5, description="number of members, M")
    description: str | None = Field(
        None, description="what is asked, in a line: WHAT of WHICH TEXT, such as `sentiment of a film review`"
    )
    templates: list[str] = Field(
        default_factory=list,
        description="prompts in place of the default ones: {text} once, and the answer at the end",
    )
    label_words: dict[str, str] = Field(
        default_factory=dict, description="the word that says a class, by class; its name if left out"
    )
    shots: int = Field(8, ge=0, description="examples in a prompt at most, in each member's own order")
    chat: bool = Field(False, description="whether to ask by the model's chat template")
    warm_up: Count = Field(256, description="training texts on which a prompt's bias is found")


Trained = HeadsSettings | TopBlocksSettings | FullSettings | DropoutSettings | LaplaceSettings | LoraSettings
OneSource = Trained | AdaptersSettings | PromptsSettings


class Part(Settings):
    """Some members of a mixed ensemble, on a backbone of their own where one is given."""

    backbone: BackboneSettings | None = None
    members: Annotated[OneSource, Field(discriminator="source")]


class MixedSettings(Settings):
    """Members of different sources, or on different backbones."""

    source: Literal["mixed"] = "mixed"
    parts: list[Part] = Field(min_length=1)

    @property
    def count(self) -> int:
        """Number of members, M."""
        return sum(part.members.count for part in self.parts)


class DistilSettings(Settings):
    """The student and its controls: one shape, one set of texts, one number of steps for all."""

    enabled: bool = True
    tune: Literal["top_blocks", "full"] = "top_blocks"
    blocks: Count = Field(2, description="blocks that are tuned where tune is top_blocks")
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1, description=ATTENTION_DROPOUT)
    label_share: float = Field(
        0.0, ge=0, le=1, description="weight of the true labels beside the ensemble's opinion, where known"
    )
    highest_precision: Positive = Field(1000.0, description="cap on the target Dirichlet's precision")
    controls: list[Literal["direct", "soft_labels"]] = Field(
        default_factory=lambda: ["direct", "soft_labels"]  # type: ignore[arg-type]
    )
    optimiser: OptimiserSettings = TUNING

    _optimiser_defaults = field_validator("optimiser", mode="before")(_over_defaults)


class CalibrationSettings(Settings):
    """What makes probabilities hold, fitted on the calibration split; a temperature is fitted in any case."""

    method: Literal["temperature", "vector", "dirichlet", "isotonic", "auto"] = Field(
        "temperature", description="auto takes the simplest that cross-validated NLL bears out, if any"
    )
    on: Literal["members", "mean"] = Field(
        "members", description="every member alike, or their mean, which leaves no epistemic part"
    )


class LabellingSettings(Settings):
    """What `label` asks of texts without labels, and what is done about the prompts' bias."""

    classes: list[str] = Field(description="the classes' names; two or more")
    examples: str | None = Field(None, description="a file of texts with labels that prompts show")
    bias: Literal["batch", "content_free", "none"] = Field(
        "batch", description="found over all texts, or on inputs that say nothing; none to leave it in"
    )
    prior: dict[str, Annotated[float, Field(gt=0)]] | Literal["estimate"] | None = Field(
        None, description="share of each class, given or estimated; equal shares if left out"
    )
    lowest_mass: float = Field(
        0.00001, ge=0, lt=1, description="share of what the model might say that the classes' words must hold"
    )


class EvaluationSettings(Settings):
    """How figures and their confidence intervals are computed."""

    resamples: Count = 1000
    confidence: Share = 0.95


class ResolvedSettings(Settings):
    """What was chosen at a run's start, so that a resumed run repeats it."""

    precision: Literal["bf16", "fp32"]
    threads: Count
    device: str
    fingerprints: dict[str, str] = Field(default_factory=dict, description="sha256 of each split's rows")
    learning_rates: dict[int, Positive] = Field(
        default_factory=dict, description="of members, by seed, that were trained again with another rate"
    )


class Recipe(Settings):
    """Every setting of a run."""

    data: DataSettings
    backbone: BackboneSettings = BackboneSettings()
    members: Annotated[OneSource | MixedSettings, Field(discriminator="source")] = HeadsSettings()
    distil: DistilSettings = DistilSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    labelling: LabellingSettings | None = Field(None, description="of runs that `label` makes")
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list, description="told of every training while it goes on"
    )
    processes: Literal["auto"] | Count = Field(
        "auto", description="that train members side by side; auto: one a GPU, and one where there is none"
    )
    seed: Annotated[int, Field(ge=0)] = 0
    resolved: ResolvedSettings | None = None

    @property
    def other_rates(self) -> dict[int, float]:
        """Learning rates, by seed, of members that are trained again with another than the recipe's."""
        return self.resolved.learning_rates if self.resolved else {}

    @field_validator("members", mode="before")
    @classmethod
    def _heads_unless_named(cls, value: object) -> object:
        return {"source": "heads", **value} if isinstance(value, dict) else value


def parse_recipe(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check nested values and return the recipe with every default filled in.

    Raises:
        RecipeError: naming every unknown key (with the nearest known one) and every value that does
            not fit.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = [problem_of(dict(item), Recipe) for item in error.errors()]
        raise RecipeError(f"{where}: " + "; ".join(problems)) from None


def recipe_values(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file, unchecked.

    Raises:
        RecipeError: the file is missing, not YAML, or holds no keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"expected a recipe at {path}; there is no such file") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: expected a YAML file in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        RecipeError: the file is missing, not YAML, or not a recipe.
    """
    return parse_recipe(recipe_values(path), str(path))


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def with_columns(data: DataSettings, changed: Mapping[str, object]) -> DataSettings:
    """Return data settings with some changed, checked anew.

    Raises:
        RecipeError: the columns do not go together.
    """
    return parse_recipe({"data": {**data.model_dump(), **changed}}, "columns").data if changed else data
