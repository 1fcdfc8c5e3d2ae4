"""What an engine that serves many requests needs beside drafts; every adapter of such an engine is made of these.

`Settings` (what to serve) → `Tasks` (which index and salt a request belongs to, by its `RequestFields` and prompt) of
`TaskDrafts` (an index: requests, reloading, learning) → `RequestTracker` (the running requests, found by name or by
their tokens, and drafted for at the engine's present load) → `Metrics`.
"""

from tasc.serving.metrics import Metrics
from tasc.serving.routing import RequestFields, Tasks
from tasc.serving.settings import Settings
from tasc.serving.tasks import TaskDrafts
from tasc.serving.tracker import RequestTracker, TrackedRequest

__all__ = ["Metrics", "RequestFields", "RequestTracker", "Settings", "TaskDrafts", "Tasks", "TrackedRequest"]
