"""Options of a distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError
from tasc.training.options import TrainingOptions

CHOICES = {
    "loss": ("forward_kl", "reverse_kl", "jsd", "tvd"),
    "select": ("adaspec", "random", "all"),
    "init_from": ("draft", "reference"),
    "trainable": ("blocks", "all"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of a distillation. Equal options and rows give the same draft on the same machine.

    Any `loss` goes with any `select`. AdaSPEC (arXiv 2510.19779) is `forward_kl` with `adaspec`; DistillSpec
    (arXiv 2310.08461) is `forward_kl` with `all`.
    """

    loss: Literal["forward_kl", "reverse_kl", "jsd", "tvd"] = "forward_kl"
    """Loss per token: see `tasc.training.distill.losses`."""
    select: Literal["adaspec", "random", "all"] = "all"
    """Tokens of a batch that the loss counts. `all` gave the highest acceptance for equal compute where it was measured
    (docs/distillation.md)."""
    k: float = 0.4
    """Share of the tokens that `adaspec` and `random` select, in (0, 1]."""
    steps: int = 300
    """Optimizer steps of the stage that trains the draft."""
    reference_steps: int | None = None
    """Optimizer steps of the reference, which is trained on all tokens with KL(p ‖ q); None: `steps`."""
    init_from: Literal["draft", "reference"] = "draft"
    """Initial model of the last stage: the given draft (as in the paper) or the reference. An untrained draft, such as
    a fresh cut, learns nothing from `tvd`: the gradient is 0 where two distributions do not overlap."""
    trainable: Literal["blocks", "all"] = "blocks"
    """`blocks`: embeddings and output head stay those of the target, to share its memory; `all`: every parameter."""
    batch_size: int = 16
    """Rows of a forward pass on one device."""
    accumulate: int = 1
    """Forward passes of an optimizer step. Tokens are selected within each pass."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    warmup: float = 0.05
    """Share of the optimizer steps in which the learning rate rises. It then falls along a cosine to 2 %."""
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the draft's arithmetic; trainable parameters are float32. auto: bf16 if the machine supports it."""
    keep_states: bool = True
    """Run the target once over the rows and store its last hidden states; otherwise run it on every batch."""
    max_tokens: int = 2048
    """Maximum length of a row, prompt and output together. Longer rows are skipped and counted."""
    save_every: int = 100
    """Steps between checkpoints to resume from."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values. Raise InputError that names the option."""
        for name in ("steps", "batch_size", "accumulate", "save_every", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")
        if self.reference_steps is not None and self.reference_steps < 1:
            raise InputError(f"reference_steps={self.reference_steps}: at least 1, or None")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate={self.learning_rate}: give a number above 0")
        if not 0 < self.k <= 1:
            raise InputError(f"k={self.k}: a share of the tokens, above 0 and at most 1")

    @property
    def needs_reference(self) -> bool:
        """Whether a reference is needed."""
        return self.select == "adaspec" or self.init_from == "reference"

    @property
    def is_distillspec(self) -> bool:
        """Whether these options are the baseline."""
        return (self.loss, self.select, self.init_from) == ("forward_kl", "all", "draft")
