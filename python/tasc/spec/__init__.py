"""TASC-spec: drafts from a task's past outputs, verified losslessly by the target model.

`TaskIndex` (a task's n-grams) and the running context → `NgramDrafter` → `Generator` (verify loop) → tokens, `Stats`.
Nothing here loads torch before a `Generator` is asked for.
"""

from tasc._core import ContextIndex, NgramDrafter, NgramRequest, TaskIndex
from tasc.spec.drafter import SOURCES, Draft, Drafter, NullDrafter, Request, TokenDraft

__all__ = [
    "SOURCES",
    "ContextIndex",
    "Draft",
    "Drafter",
    "NgramDrafter",
    "NgramRequest",
    "NullDrafter",
    "Request",
    "TaskIndex",
    "TokenDraft",
]
