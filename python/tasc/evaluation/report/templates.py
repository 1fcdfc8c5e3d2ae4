"""Templates of the pages."""

from __future__ import annotations

from typing import Any

from tasc.errors import MissingExtraError


def templates() -> Any:
    """Return the jinja2 environment of the pages: values are escaped, and a missing value is an error."""
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
