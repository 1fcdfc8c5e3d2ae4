"""What fine-tuning (`tasc.ft`) and distillation (`tasc.spec.distill`) share of training.

Rows → `Example`s (`examples.py`) → batches in a fixed order → transformers' `Trainer` in a `WorkFolder` that a stopped
run goes on from (`work.py`), at rates that rise and fall (`schedule.py`).
"""

from tasc.train.examples import IGNORED, Collator, Example, make_examples, short_enough, shuffled_batches
from tasc.train.schedule import LEAST_RATE, dtype_of, share_of_rate
from tasc.train.work import TrainProgress, WorkFolder, fit, processes, trainer_arguments

__all__ = [
    "IGNORED",
    "LEAST_RATE",
    "Collator",
    "Example",
    "TrainProgress",
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
