"""What an engine that serves many requests needs beside drafts; every adapter of such an engine is made of these.

`Settings` (what to serve) → `Tasks` of `TaskDrafts` (an index: requests, reloading, learning) → `RequestTracker` (the requests
running, found by their tokens, drafted for at its present load, `StepTimes`) → `Metrics`. See docs/how-to/serving.md.
"""

from tasc.drafting.step_times import StepTimes
from tasc.serving.metrics import Metrics
from tasc.serving.settings import Settings
from tasc.serving.task_drafts import TaskDrafts
from tasc.serving.tasks import Tasks
from tasc.serving.tracker import RequestTracker, TrackedRequest

__all__ = ["RequestTracker", "Metrics", "TrackedRequest", "Settings", "StepTimes", "TaskDrafts", "Tasks"]
