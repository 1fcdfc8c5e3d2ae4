"""Moving reference: an exponential moving average of the draft's own weights, for `select="moving"`.

AdaSPEC's reference is trained first and then stays as it is. Its authors name a dynamic estimate of a token's
difficulty as their next step (arXiv 2510.19779). This reference moves with the draft and needs no training of its own.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from tasc.training.work_dir import checkpoint_folder

DECAY = 0.99
"""Weight of the old average in a step."""

_FILE = "moving_reference.safetensors"


class MovingReference(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Callback of a `Trainer` that follows its model and is stored with each checkpoint.

    After step t the average is r ← d·r + (1 − d)·w with w the trained weights and d = min(0.99, t / (t + 9)). So it
    forgets the untrained weights soon.

    Args:
        draft: The model. Weights that are not trained are shared with it.

    Attributes:
        model: The reference, in evaluation mode.
    """

    def __init__(self, draft: Any) -> None:
        self._draft = draft
        trained = {id(weight) for weight in draft.parameters() if weight.requires_grad}
        others = [*draft.parameters(), *draft.get_input_embeddings().parameters()]  # of a head, they are the target's
        shared = {id(weight): weight for weight in others if id(weight) not in trained}
        self.model = copy.deepcopy(draft, shared).eval()
        for weight in self._averages().values():
            weight.requires_grad_(False)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Load the reference of the checkpoint that the run resumes from."""
        if state.global_step:
            stored = load_file(checkpoint_folder(args.output_dir, state.global_step) / _FILE)
            for name, weight in self._averages().items():
                weight.copy_(stored[name])

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move towards the draft."""
        decay = min(DECAY, state.global_step / (state.global_step + 9))
        trained = dict(self._draft.named_parameters())
        for name, weight in self._averages().items():
            weight.lerp_(trained[name], 1 - decay)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the reference to the checkpoint, before `work_dir` renames it."""
        if state.is_world_process_zero:
            file = Path(args.output_dir, f"checkpoint-{state.global_step}", _FILE)
            save_file({name: weight.contiguous() for name, weight in self._averages().items()}, file)

    def _averages(self) -> dict[str, Tensor]:
        """Return the reference's own weights by name."""
        trained = {name for name, weight in self._draft.named_parameters() if weight.requires_grad}
        return {name: weight for name, weight in self.model.named_parameters() if name in trained}
