"""The HTML page that `tasc bench` and the demo write: one file, plots inside, nothing fetched.

`render` takes the dictionary described in `tasc.report.schema`. Needs ``tasc[report]``.
"""

from tasc.report.page import render

__all__ = ["render"]
