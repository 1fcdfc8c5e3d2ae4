"""What tasc would bring on a task, from its past rows: `tasc check`.

`check_rows` needs no model: it splits the rows, replays drafts on the held-out ones and returns a `CheckResult`.
"""

from tasc.evaluation.check.result import CheckResult
from tasc.evaluation.check.rows import RowSplit, split_rows
from tasc.evaluation.check.run import check_rows

__all__ = ["CheckResult", "RowSplit", "check_rows", "split_rows"]
