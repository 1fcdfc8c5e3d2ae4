"""The HTML pages that `tasc bench`, the demo, `tasc replay`, `tasc eval` and `tasc check` write: one file each, nothing
fetched.

`render` takes the dictionary described in `tasc.evaluation.report.schema`, `render_replay` what `tasc replay --json`
prints, `render_evaluation` what `tasc eval --json` writes, `render_check` the summary of `tasc check`. Needs
``tasc-lm[report]``.
"""

from tasc.evaluation.report.check import render_check
from tasc.evaluation.report.evaluation import render_evaluation
from tasc.evaluation.report.page import render
from tasc.evaluation.report.replay import render_replay

__all__ = ["render", "render_check", "render_evaluation", "render_replay"]
