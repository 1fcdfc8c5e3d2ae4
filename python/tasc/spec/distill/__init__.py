"""AdaSPEC and DistillSpec: a small draft model that says what a target would say (arXiv 2510.19779, 2310.08461).

Rows → what the target says to them (`teacher.py`) → stages of training (`stage.py`), each with a loss (`losses.py`) on
some of the tokens (`select.py`) → a draft model (`makers.py` cuts one from the target where there is none) → how often
it is accepted (`accept.py`). `distill` does all of it.
"""

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    from tasc.errors import MissingExtraError

    raise MissingExtraError("distillation", "ft") from error

from tasc.spec.distill.accept import acceptance, difference, target_outputs
from tasc.spec.distill.losses import LOSSES, forward_kl, jsd, reverse_kl, tvd
from tasc.spec.distill.makers import check_same_tokens, cut_draft, save_draft
from tasc.spec.distill.options import DistillOptions
from tasc.spec.distill.run import Distilled, distill
from tasc.spec.distill.select import all_tokens, random_tokens, select_tokens
from tasc.spec.distill.teacher import KeptStates, LiveTeacher

__all__ = [
    "LOSSES",
    "DistillOptions",
    "Distilled",
    "KeptStates",
    "LiveTeacher",
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
