"""What fine-tuning (`tasc.vocab`) and distillation (`tasc.training.distill`) share of training.

Rows → `Example`s (`examples.py`) → batches in a fixed order → transformers' `Trainer` in a `WorkFolder` that a stopped
run goes on from (`work.py`), at rates that rise and fall (`schedule.py`).
"""

from tasc.training.examples import IGNORED, Collator, Example, make_examples, short_enough, shuffled_batches
from tasc.training.schedule import LEAST_RATE, dtype_of, share_of_rate
from tasc.training.work_dir import WorkFolder, fit, processes, trainer_arguments

__all__ = [
    "IGNORED",
    "LEAST_RATE",
    "Collator",
    "Example",
    "WorkFolder",
    "dtype_of",
    "fit",
    "make_examples",
    "processes",
    "share_of_rate",
    "short_enough",
    "shuffled_batches",
    "trainer_arguments",
]
