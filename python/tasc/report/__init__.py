"""The HTML pages that `tasc bench`, the demo and `tasc replay` write: one file each, nothing fetched.

`render` takes the dictionary described in `tasc.report.schema`, `render_replay` what `tasc replay --json` prints. Needs
``tasc[report]``.
"""

from tasc.report.page import render
from tasc.report.replay import render_replay

__all__ = ["render", "render_replay"]
