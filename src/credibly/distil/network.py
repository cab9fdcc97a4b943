"""A tuned network: predicts, saves itself as an ordinary sequence-classification model, loads again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from credibly.backbones.loading import Classifier, open_classifier
from credibly.backbones.probing import last_layer
from credibly.backbones.quiet import quietly
from credibly.batching import padded_batches, tokenise
from credibly.records import Examples, Predictions
from credibly.runs import replacing
from credibly.settings import BackboneSettings
from credibly.training import HISTORY, History
from credibly.tuning import class_logits
from credibly.uncertainty.calibration.calibrate import Temperature

AS_IT_IS = Temperature()
HEADS = "credibly_heads"
"""The config's key for how many answers a network gives of a text, where it is more than one."""


@dataclass(frozen=True)
class Network:
    """A sequence-classification network, the student or one of its controls.

    Args:
        classifier: model and tokenizer.
        emits_dirichlet: whether exp(z) are concentrations (the student), or softmax(z) is all that is
            meant (a control).
        folded: the calibration that the stored weights already hold: z = raw z / T + c.
    """

    classifier: Classifier
    emits_dirichlet: bool
    folded: Temperature = AS_IT_IS

    @property
    def heads(self) -> int:
        """How many answers it gives of a text: M for Hydra, whose config names M x C classes; else 1."""
        return int(getattr(self.classifier.model.config, HEADS, 1))

    @property
    def readers(self) -> tuple[Classifier]:
        """The one model that reads the texts."""
        return (self.classifier,)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return raw logits, float32, (N, C), as they were before any calibration was folded in.

        Of a network with M heads (N, M x C), head after head.
        """
        tokens = tokenise(self.classifier.tokenizer, texts, self.classifier.max_tokens)
        batches = padded_batches(tokens, self.classifier.token_budget)
        stored = class_logits(self.classifier, batches, len(texts))
        return np.asarray((stored - self.folded.offset) * self.folded.temperature, dtype=np.float32)

    def predict(self, examples: Examples, **provenance: str) -> Predictions:
        """Return the record of the raw network: with concentrations where it emits a Dirichlet.

        A network with M heads gives M members.
        """
        z = self.logits(examples.texts)
        if self.heads > 1:
            apart = z.reshape(len(z), self.heads, -1).transpose(1, 0, 2)
            return Predictions.from_logits(apart, examples, **provenance)
        record = Predictions.from_log_concentrations if self.emits_dirichlet else Predictions.from_logits
        return record(z, examples, **provenance)

    def save(self, folder: Path, history: History | None = None, calibration: Temperature = AS_IT_IS) -> None:
        """Write model, tokenizer and history as one folder; the network stays as it is.

        Args:
            folder: replaced whole.
            history: of the training.
            calibration: folded into the last layer: z / T + c, or z / T where `held` says so.
        """
        model = self.classifier.model
        prefix = last_layer(model, len(self.classifier.class_names))
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        calibration = held(self.classifier, calibration)
        state[f"{prefix}.weight"] /= calibration.temperature
        if (bias := state.get(f"{prefix}.bias")) is not None:
            state[f"{prefix}.bias"] = bias / calibration.temperature + calibration.offset
        with replacing(folder) as temporary, quietly():
            model.save_pretrained(temporary, state_dict=state)
            self.classifier.tokenizer.save_pretrained(temporary)
            (temporary / HISTORY).write_text((history or History()).as_lines(), encoding="utf-8")

    @classmethod
    def of(cls, classifier: Classifier, emits_dirichlet: bool, heads: int = 1) -> Network:
        """Return a network of a classifier that gives M x C logits, and let its config say so."""
        if heads > 1:
            setattr(classifier.model.config, HEADS, heads)
        return cls(classifier, emits_dirichlet)

    @classmethod
    def open(
        cls,
        folder: Path,
        settings: BackboneSettings,
        emits_dirichlet: bool,
        folded: Temperature = AS_IT_IS,
    ) -> Network:
        """Load a saved network, given the calibration that was folded into it.

        Raises:
            AssetError: the folder holds no model, or a damaged one.
        """
        classifier = open_classifier(folder, settings)
        return cls(classifier, emits_dirichlet, held(classifier, folded))

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.classifier.model.parameters())


def held(classifier: Classifier, calibration: Temperature) -> Temperature:
    """Return what a classifier's last layer can hold of z / T + c: z / T without a bias.

    Language models have none there. Their probabilities are the same without c; how sure they are, only
    what stores c beside them can tell.
    """
    layer = classifier.model.get_submodule(last_layer(classifier.model, len(classifier.class_names)))
    return calibration if layer.bias is not None else replace(calibration, offset=0.0)
