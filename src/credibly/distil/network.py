"""A tuned network: predicts, saves itself as an ordinary sequence-classification model, loads again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from credibly.backbones.loading import Classifier, open_classifier, quietly
from credibly.batching import padded_batches, tokenise
from credibly.errors import InputError
from credibly.records import Examples, Predictions
from credibly.runs import replacing
from credibly.settings import BackboneSettings
from credibly.training import HISTORY, StepRecord, history_lines
from credibly.uncertainty.calibrate import Temperature

AS_IT_IS = Temperature()


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

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return raw logits, float32, (N, C), as they were before any calibration was folded in."""
        stored = forward(self.classifier, texts)
        return np.asarray((stored - self.folded.offset) * self.folded.temperature, dtype=np.float32)

    def predict(self, examples: Examples, **provenance: str) -> Predictions:
        """Return the record of the raw network: with concentrations where it emits a Dirichlet."""
        z = self.logits(examples.texts)
        record = Predictions.from_log_concentrations if self.emits_dirichlet else Predictions.from_logits
        return record(z, examples, **provenance)

    def save(
        self, folder: Path, history: Sequence[StepRecord] = (), calibration: Temperature = AS_IT_IS
    ) -> None:
        """Write model, tokenizer and history as one folder; the network stays as it is.

        Args:
            folder: replaced whole.
            history: of the training.
            calibration: folded into the last layer: z / T + c.

        Raises:
            InputError: there is an offset to fold, and the architecture's last layer has no bias.
        """
        model = self.classifier.model
        prefix = last_layer(model, len(self.classifier.class_names))
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        bias = state.get(f"{prefix}.bias")
        if bias is None and calibration.offset:
            raise InputError(
                f"{type(model).__name__} has no bias to hold the student's precision; take an encoder"
            )
        state[f"{prefix}.weight"] /= calibration.temperature
        if bias is not None:
            state[f"{prefix}.bias"] = bias / calibration.temperature + calibration.offset
        with replacing(folder) as temporary, quietly():
            model.save_pretrained(temporary, state_dict=state)
            self.classifier.tokenizer.save_pretrained(temporary)
            (temporary / HISTORY).write_text(history_lines(history), encoding="utf-8")

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
        return cls(open_classifier(folder, settings), emits_dirichlet, folded)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.classifier.model.parameters())


def forward(classifier: Classifier, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the model's logits, float32, (N, C), texts batched by length."""
    tokens = tokenise(classifier.tokenizer, texts, classifier.max_tokens)
    logits = np.empty((len(texts), len(classifier.class_names)), dtype=np.float32)
    with torch.inference_mode(), classifier.autocast(), _exact_logits(classifier):
        for batch in padded_batches(tokens, classifier.token_budget):
            there = batch.to(classifier.device)
            output = classifier.model(input_ids=there.input_ids, attention_mask=there.attention_mask)
            logits[batch.indices] = output.logits.float().cpu().numpy()
    return logits


@contextmanager
def _exact_logits(classifier: Classifier) -> Iterator[None]:
    """Run the layer that gives the logits in single precision, whatever the rest runs in.

    bf16 would round a logit of 4 to steps of 0.03: hundreds of texts would share a few probabilities, and
    a folded calibration would not come out again exactly.
    """
    name = last_layer(classifier.model, len(classifier.class_names))
    layer = cast(nn.Linear, classifier.model.get_submodule(name))

    def again(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with torch.autocast(output.device.type, enabled=False):
            return nn.functional.linear(arguments[0].float(), layer.weight, layer.bias)

    handle = layer.register_forward_hook(again)
    try:
        yield
    finally:
        handle.remove()


def last_layer(model: nn.Module, classes: int) -> str:
    """Return the name of the linear layer that gives the logits: the last one with C outputs.

    Raises:
        InputError: there is none.
    """
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no linear layer with {classes} outputs to fold a calibration into"
        )
    return str(layers[-1])
