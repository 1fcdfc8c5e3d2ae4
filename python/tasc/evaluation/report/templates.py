"""Pages from templates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasc.errors import import_optional
from tasc.evaluation.explain import visible
from tasc.files import write_text
from tasc.printable import printable


def write_page(path: str | os.PathLike[str], template: str, **values: Any) -> Path:
    """Write a template's page atomically: values and their control characters are escaped, missing values are errors.

    Raises:
        MissingExtraError: Without ``tasc-lm[report]``.
    """
    jinja2 = import_optional("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasc.evaluation.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "visible": visible}
    return write_text(path, environment.get_template(template).render(**values))


def _figure(value: float | None, form: str, scale: float = 1.0) -> str:
    """Format a number, or return a dash for None."""
    return "\N{EN DASH}" if value is None else form.format(value * scale)
