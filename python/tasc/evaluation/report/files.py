"""Templates in, whole files out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from tasc.errors import MissingExtraError


def templates() -> Any:
    """The jinja2 environment of the pages: what is shown is escaped, and nothing may be missing."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the report", "report") from error
    return Environment(
        loader=PackageLoader("tasc.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def written(page: str, path: str | os.PathLike[str]) -> Path:
    """Writes a page; one that is there is replaced whole, or not at all. Returns `path`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would follow the rename
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target
