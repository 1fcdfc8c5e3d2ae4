"""TASC-ft: a task vocabulary, and a fine-tuned model that uses it. Source: arXiv 2602.24174."""

from tasc.ft.options import TuneOptions
from tasc.ft.tune import Tuned, tune

__all__ = ["TuneOptions", "Tuned", "tune"]
