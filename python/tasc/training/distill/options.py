"""How to distil."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError

CHOICES = {
    "loss": ("forward_kl", "reverse_kl", "jsd", "tvd"),
    "select": ("adaspec", "random", "all"),
    "init_from": ("draft", "reference"),
    "trainable": ("blocks", "all"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """How to distil; the same options and rows give the same draft on the same machine.

    Any `loss` goes with any `select`. AdaSPEC (arXiv 2510.19779) is `forward_kl` with `adaspec`; DistillSpec
    (arXiv 2310.08461) is `forward_kl` with `all`.
    """

    loss: Literal["forward_kl", "reverse_kl", "jsd", "tvd"] = "forward_kl"
    """Of each token: see `tasc.training.distill.losses`."""
    select: Literal["adaspec", "random", "all"] = "all"
    """Which tokens of a batch count. `all` gave most acceptance for the same compute where it was measured
    (docs/distillation.md)."""
    k: float = 0.4
    """Share of the tokens that `adaspec` and `random` keep, in (0, 1]."""
    steps: int = 300
    """Optimizer steps of the stage that makes the draft."""
    reference_steps: int | None = None
    """Optimizer steps of the reference, which learns from all tokens by KL(p ‖ q); None: as many as `steps`."""
    init_from: Literal["draft", "reference"] = "draft"
    """Where the last stage begins: at the draft as it came (the paper), or at the reference. A draft that says nothing
    of use yet, such as a fresh cut, learns nothing from `tvd`, whose slope is 0 where two distributions do not meet."""
    trainable: Literal["blocks", "all"] = "blocks"
    """`blocks`: embeddings and head stay the target's own, so they can be shared in memory; `all`: every weight."""
    batch_size: int = 16
    """Rows of a forward pass on one device."""
    accumulate: int = 1
    """Forward passes of an optimizer step; tokens are chosen within each pass."""
    learning_rate: float = 1e-3
    """Highest rate."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises; it falls as a cosine to 2 % then."""
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the draft's arithmetic; weights that learn are float32 always. auto: bf16 where the machine has it."""
    keep_states: bool = True
    """Run the target once over the rows and keep its last hidden states; otherwise run it on every batch."""
    max_tokens: int = 2048
    """Rows longer than this, prompt and output together, are left out, and counted."""
    save_every: int = 100
    """Steps between checkpoints to resume from."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers. Raises InputError naming the option."""
        for name in ("steps", "batch_size", "accumulate", "save_every", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")
        if self.reference_steps is not None and self.reference_steps < 1:
            raise InputError(f"reference_steps={self.reference_steps}: at least 1, or None")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate={self.learning_rate}: give a number above 0")
        if not 0 < self.k <= 1:
            raise InputError(f"k={self.k}: a share of the tokens, above 0 and at most 1")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup}: a share of the steps, 0 to below 1")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)}")

    @property
    def needs_reference(self) -> bool:
        """Whether a reference is distilled first."""
        return self.select == "adaspec" or self.init_from == "reference"

    @property
    def is_distillspec(self) -> bool:
        """Whether this is the baseline itself."""
        return (self.loss, self.select, self.init_from) == ("forward_kl", "all", "draft")
