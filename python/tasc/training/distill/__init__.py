"""Distillation of draft models: AdaSPEC (arXiv 2510.19779) and DistillSpec (arXiv 2310.08461).

`distill` (`run.py`) runs all steps. A teacher computes the target's logits for rows (`teacher.py`). Stages of training
(`trainer.py`) minimise a loss (`losses.py`) on some of the tokens (`token_selection.py`, `moving_reference.py`). The
draft model is given, or is cut from the target (`draft_init.py`), or is new and narrow (`narrow_draft.py`), or is an
EAGLE head (`new_head.py`). `acceptance.py` measures the acceptance rate.
"""

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    from tasc.errors import MissingExtraError

    raise MissingExtraError("distillation", "ft") from error

from tasc.training.distill.acceptance import acceptance, difference, target_outputs
from tasc.training.distill.draft_init import cut_draft
from tasc.training.distill.narrow_draft import DraftSize, narrow_draft
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.run import distill
from tasc.training.distill.teacher import CachedHiddenStates, OnlineTeacher

__all__ = [
    "CachedHiddenStates",
    "DistillOptions",
    "DraftSize",
    "OnlineTeacher",
    "acceptance",
    "cut_draft",
    "difference",
    "distill",
    "narrow_draft",
    "target_outputs",
]
