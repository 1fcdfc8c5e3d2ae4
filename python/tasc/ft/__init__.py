"""TASC-ft (arXiv 2602.24174): a task's frequent n-grams become tokens, and a fine-tuned model says them.

`learn_vocabulary` (outputs → plan) → `extend_checkpoint` (plan + model → a checkpoint with new, untrained rows) →
`tune` (rows → a checkpoint that says them).
"""

from tasc._core import MergePlan
from tasc.ft.options import TuneOptions
from tasc.ft.surgery import extend_checkpoint, extend_model
from tasc.ft.tune import Tuned, tune
from tasc.ft.vocabulary import extend_tokenizer, learn_vocabulary

__all__ = [
    "MergePlan",
    "TuneOptions",
    "Tuned",
    "extend_checkpoint",
    "extend_model",
    "extend_tokenizer",
    "learn_vocabulary",
    "tune",
]
