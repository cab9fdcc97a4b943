"""What a transformer block holds of a token while it runs, counted by the widths of its layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from credibly.backbones.blocks import blocks_of, features


@dataclass(frozen=True)
class BlockSize:
    """What a transformer block does with a token, in numbers.

    Args:
        products: multiplications a token: the weights of its linear layers.
        outputs: widths of all linear layers' results together.
        activated: widths of what the activation makes, and of what a gate multiplies it by.
        python_norms: widths of all norms that are written in Python, with no kernel of their own.
        heads: of attention.
        wide: the widths that lie together at once without a gradient: input, output and the widest result.
    """

    products: int
    outputs: int
    activated: int
    python_norms: int
    heads: int
    wide: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> BlockSize:
        """Count a model's last block."""
        block = blocks_of(model)[-1]
        config = model.config.get_text_config()
        linear = [module for module in block.modules() if isinstance(module, nn.Linear | Conv1D)]
        shapes = [features(module) for module in linear]
        inner = max(inputs for inputs, _ in shapes)
        # A feed-forward part's first products are as wide as its last one's input, or twice with a gate.
        activated = sum(outputs for _, outputs in shapes if outputs in (inner, 2 * inner))
        in_python = any(isinstance(module, NewGELUActivation) for module in block.modules())
        return cls(
            products=sum(inputs * outputs for inputs, outputs in shapes),
            outputs=sum(outputs for _, outputs in shapes),
            activated=activated * (4 if in_python else 1),
            python_norms=sum(_norm_width(module) for module in block.modules()),
            heads=int(config.num_attention_heads),
            wide=2 * int(config.hidden_size) + 2 * max(outputs for _, outputs in shapes),
        )

    def kept_bytes(self, width: int, element: int, mixed: bool, masked: bool) -> int:
        """Return the bytes a token that a step keeps for its backward pass, attention matrices aside.

        Korthikanti et al. (2022), https://arxiv.org/abs/2205.05198, equation 1, count s b h (34 + 5 a s / h)
        bytes a block: 34 h a token, of which 16 h are numbers of two bytes and 2 h are masks of one, and
        5 a s for attention. Their 16 h are, for a block of any widths: the result of every product (9 h),
        what enters attention, its output layer and the feed-forward part (3 h), and what the activation makes
        (4 h). Here masks are as wide as numbers, since torch keeps them so on processors; under autocast
        the two sums of the residual stream are kept in single precision too; and norms written in
        Python keep two numbers of single precision more.

        Args:
            width: H.
            element: bytes of a number.
            mixed: whether autocast keeps a residual stream of single precision.
            masked: whether dropout's two masks are kept.
        """
        numbers = self.outputs + 3 * width + self.activated + (2 * width if masked else 0)
        return element * numbers + (8 * width if mixed else 0) + 8 * self.python_norms


def _norm_width(module: nn.Module) -> int:
    """Return the width of a norm that is written in Python, 0 of any other module."""
    own = list(module.parameters(recurse=False))
    norm = len(own) == 1 and own[0].dim() == 1 and not isinstance(module, nn.LayerNorm)
    return int(own[0].numel()) if norm else 0
