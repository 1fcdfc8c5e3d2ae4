"""What tasc would bring on a task, from its past rows: `tasc check`.

`check_rows` needs no model: it splits the rows, replays drafts on the held-out ones and returns a `CheckResult`.
`check_index` compares an index with the last requests and returns a `DriftResult`.
"""

from tasc.evaluation.check.drift import DriftResult, check_index
from tasc.evaluation.check.result import CheckResult
from tasc.evaluation.check.rows import RowSplit, split_rows
from tasc.evaluation.check.run import check_rows

__all__ = ["CheckResult", "DriftResult", "RowSplit", "check_index", "check_rows", "split_rows"]
