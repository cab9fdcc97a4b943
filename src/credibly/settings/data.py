"""Which data, and how they are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from credibly.errors import RecipeError, listed
from credibly.parted import check_cut, columns_of
from credibly.settings.base import Count, Limited, Positive, Settings, Share


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
    row_weights: Literal["equal", "certainty"] = Field(
        "equal", description="certainty: a row counts the less, the less sure its class probabilities are"
    )
    weight: str | None = Field(
        None, description="weight column: how much a row counts in training, in relation to the others"
    )
    id: str | None = Field(None, description="id column; rows are numbered where there is none")
    group: str | None = Field(None, description="group column: rows of a group are never split apart")
    validation: str | None = Field(None, description="a further file, for curves and early stopping")
    calibration: str | None = Field(None, description="a further file; else cut from train")
    calibration_like: str | None = Field(
        None,
        description="texts as they are to come: calibration texts are drawn that are as long as these",
    )
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

    @property
    def calibrated_by_opinions(self) -> bool:
        """Whether the calibration split holds a labeller's opinions in place of true labels."""
        return self.labels_from is not None and self.calibration is None

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

    @field_validator("row_weights")
    @classmethod
    def _certainty_is_of_shares(cls, value: str, info: ValidationInfo) -> str:
        if value == "certainty" and info.data.get("targets") == "labels":
            raise RecipeError("expected data.targets: shares beside it, since labels alone are all as sure")
        return value

    @property
    def cut_column(self) -> str | None:
        """The column that is cut first; None where a text is cut at its end."""
        return (self.cut or self.text[-1]) if self.template or self.pair else None
