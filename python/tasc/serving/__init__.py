"""What an engine that serves many requests needs beside drafts; every adapter of such an engine is made of these.

`Settings` (what to serve) → `Tasks` of `TaskDrafts` (an index: requests, reloading, learning) → `Batch` (the requests
running, found by their tokens, drafted for at its present load, `StepTimes`) → `Metrics`. See docs/adapters.md.
"""

from tasc.serving.batch import Batch, Running
from tasc.serving.metrics import Metrics
from tasc.serving.settings import Settings
from tasc.serving.step_times import StepTimes
from tasc.serving.task_drafts import TaskDrafts
from tasc.serving.tasks import Tasks

__all__ = ["Batch", "Metrics", "Running", "Settings", "StepTimes", "TaskDrafts", "Tasks"]
