"""Fits the general mixture weights on generated tasks and prints the table of rust/tasc-core/src/draft/general.rs.

    python benches/python/fit_general_weights.py [--tokenizer DIR] [--check DATA.jsonl.gz ...]

One weight vector per state, maximum likelihood with L2 towards a common vector. Each task counts alike. `--check`
prints the likelihood on rows {input, output, split} that took no part.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from generated_tasks import KINDS, rows

from tasc._core import NgramDrafter, TaskIndex, build_index
