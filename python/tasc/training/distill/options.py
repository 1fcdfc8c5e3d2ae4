"""Options of distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError
from tasc.training.options import TrainingOptions

NEW_VOCABULARY = 8192
"""Most ids of a new draft's vocabulary by default."""

MIN_TEMPERATURE = 0.01
"""Least temperature: logits that are divided by less may be infinite in float16, and have one likely token each."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainingOptions):
    """Options of distillation. The same options and rows give the same draft on the same machine.

    Any `loss` goes with any `select`. AdaSPEC (arXiv 2510.19779) is `forward_kl` with `adaspec`; DistillSpec
    (arXiv 2310.08461) is `forward_kl` with `all`.
    """

    loss: Literal["forward_kl", "reverse_kl", "jsd", "tvd", "nla", "lk"] = "forward_kl"
    """Loss of each token; see `tasc.training.distill.losses`."""
    select: Literal["adaspec", "moving", "random", "all"] = "all"
    """Tokens of a batch to train on. `all` gave the highest acceptance for the same compute in our measurements
    (docs/distillation.md)."""
    temperature: float = 1.0
    """Temperature at which the target will be sampled: losses, on-policy samples and α_exp use both models'
    distributions at this temperature, 0.01 or more."""
    k: float = 0.4
    """Share of the tokens that `adaspec`, `moving` and `random` keep, in (0, 1]."""
    steps: int = 300
    """Optimizer steps of the stage that makes the draft."""
    epochs: float | None = None
    """Passes over the rows, in place of `steps`."""
    patience: int = 0
    """Early stopping: a stage ends after this many checkpoints in a row without a higher α_exp on the validation rows,
    and the weights of its best checkpoint are kept. 0: all steps are trained, and the last weights are kept."""
    reference_steps: int | None = None
    """Optimizer steps of the reference, which is trained on all tokens with KL(p ‖ q); None: as many as the draft's."""
    init_from: Literal["draft", "reference"] = "draft"
    """Initial weights of the last stage: the given draft (the paper) or the reference. An untrained draft, such as a
    fresh cut, learns nothing from `tvd`: its gradient is 0 where two distributions do not overlap."""
    vocabulary: int | None = None
    """Most ids of the draft vocabulary: the special tokens, and the ids that most tokens of the rows' outputs have. 0:
    all ids of the target. None: 8192 for a new draft (narrow, or an EAGLE head), else all."""
    trainable: Literal["blocks", "all"] = "blocks"
    """`blocks`: embeddings and head stay the target's own, so they can be shared in memory; `all`: every weight."""
    learning_rate: float = 1e-3
    """Highest rate."""
    on_policy: float = 0.0
    """Share of the batches whose outputs the draft itself samples (`tasc.training.distill.on_policy`), from 0 to 1. The
    target then runs on every batch, whatever `keep_states` says."""
    keep_states: bool = True
    """Run the target once over the rows and cache its last hidden states, which an EAGLE head needs; otherwise run it
    on every batch."""

    def __post_init__(self) -> None:
        """Check the values. Raises InputError that names the option."""
        super().__post_init__()
        self._check_counts("steps")
        self._check_positive("epochs", "reference_steps", "learning_rate")
        if not MIN_TEMPERATURE <= self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature}: give a finite number of at least {MIN_TEMPERATURE}")
        if self.patience < 0:
            raise InputError(f"patience={self.patience}: a number of checkpoints, or 0 for no early stopping")
        if self.vocabulary is not None and self.vocabulary < 0:
            raise InputError(f"vocabulary={self.vocabulary}: the most ids of a draft vocabulary, or 0 for all")
        if not 0 < self.k <= 1:
            raise InputError(f"k={self.k}: a share of the tokens, above 0 and at most 1")
        if not 0 <= self.on_policy <= 1:
            raise InputError(f"on_policy={self.on_policy}: a share of the batches, from 0 to 1")
        if self.on_policy and self.select == "adaspec":
            raise InputError(
                f"on_policy={self.on_policy}: adaspec knows its reference's losses on the rows' outputs alone; take "
                "select = moving, random or all, or on_policy = 0"
            )

    @property
    def caches_states(self) -> bool:
        """Whether the target's states are cached."""
        return self.keep_states and not self.on_policy

    @property
    def needs_reference(self) -> bool:
        """Whether a reference is distilled first."""
        return self.select == "adaspec" or self.init_from == "reference"

    @property
    def is_distillspec(self) -> bool:
        """Whether this is the baseline itself."""
        return (self.loss, self.select, self.init_from, self.on_policy) == ("forward_kl", "all", "draft", 0.0)
