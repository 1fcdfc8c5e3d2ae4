"""Files of results: JSON and HTML pages."""

import json
from pathlib import Path
from typing import Any

from tasc.cli.console import err
from tasc.cli.generate import written_whole


def write_results(results: dict[str, Any], json_file: Path | None, html: Path | None, renderer: str) -> None:
    """Write results to the files that are named, with a note on standard error for each.

    Args:
        results: JSON values.
        json_file: JSON file to write.
        html: HTML page to write.
        renderer: Function of `tasc.evaluation.report` that makes the page.
    """
    if json_file is not None:
        with written_whole(json_file) as sink:
            sink.write(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        err.print(f"results: {json_file}", highlight=False, soft_wrap=True)
    if html is not None:
        from tasc.evaluation import report

        getattr(report, renderer)(results, html)
        err.print(f"report: {html}", highlight=False, soft_wrap=True)
