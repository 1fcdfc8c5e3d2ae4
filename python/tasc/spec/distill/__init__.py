"""AdaSPEC and DistillSpec: a small draft model that says what a target would say (arXiv 2510.19779, 2310.08461)."""

from tasc.spec.distill.losses import LOSSES, forward_kl, jsd, reverse_kl, tvd
from tasc.spec.distill.select import all_tokens, random_tokens, select_tokens

__all__ = [
    "LOSSES",
    "all_tokens",
    "forward_kl",
    "jsd",
    "random_tokens",
    "reverse_kl",
    "select_tokens",
    "tvd",
]
