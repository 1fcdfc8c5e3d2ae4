"""Distillation of draft models: AdaSPEC (arXiv 2510.19779) and DistillSpec (arXiv 2310.08461).

`distill` (`run.py`) runs all steps. A teacher computes the target's logits for rows (`teacher.py`). Stages of training
(`trainer.py`) minimise a loss (`losses.py`) on some of the tokens (`token_selection.py`). The draft model is given, or
is cut from the target (`draft_init.py`). `acceptance.py` measures the acceptance rate.
"""

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    from tasc.errors import MissingExtraError

    raise MissingExtraError("distillation", "ft") from error

from tasc.training.distill.acceptance import acceptance, difference, target_outputs
from tasc.training.distill.draft_init import check_same_tokens, cut_draft, save_draft
from tasc.training.distill.losses import LOSSES, forward_kl, jsd, reverse_kl, tvd
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.run import Distilled, distill
from tasc.training.distill.teacher import CachedHiddenStates, OnlineTeacher
from tasc.training.distill.token_selection import all_tokens, random_tokens, select_tokens

__all__ = [
    "LOSSES",
    "DistillOptions",
    "Distilled",
    "CachedHiddenStates",
    "OnlineTeacher",
    "acceptance",
    "all_tokens",
    "check_same_tokens",
    "cut_draft",
    "difference",
    "distill",
    "forward_kl",
    "jsd",
    "random_tokens",
    "reverse_kl",
    "save_draft",
    "select_tokens",
    "target_outputs",
    "tvd",
]
