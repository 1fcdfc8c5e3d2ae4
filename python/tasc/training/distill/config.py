"""The config file of `tasc distill`: TOML, one key per setting, checked before anything runs."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from tasc.errors import InputError
from tasc.training.distill.options import DistillOptions
from tasc.training.options import allowed, fits


@dataclass(frozen=True, kw_only=True)
class DistillConfig(DistillOptions):
    """`DistillOptions` and the settings of a run that are not part of them."""

    outputs: Literal["given", "target"] = "given"
    """given: learn from the outputs of the rows; target: learn from the target's own greedy outputs."""
    adapter: str | None = None
    """Folder of a PEFT adapter, merged into the target first."""
    reference: str | None = None
    """Folder of an already distilled reference."""
    system: str | None = None
    """System message before each input."""
    eos: str | int | None = None
    """Token that ends an output, as text or id; by default the tokenizer's."""
    limit: int | None = None
    """Number of rows to learn from, the first ones; by default all."""
    validation_rows: int = 100
    """Number of validation rows."""
    max_output: int = 256
    """Longest output of the target, in tokens."""
    length: int = 5
    """Tokens per draft when acceptance is measured."""
    baseline: bool = True
    """Distil also on all tokens with the same compute (DistillSpec), and compare."""

    def __post_init__(self) -> None:
        """Check the values. Raises InputError that names the setting."""
        super().__post_init__()
        self._check_counts("validation_rows", "max_output", "length")
        self._check_positive("limit")

    @classmethod
    def read(cls, file: Path | None, **given: Any) -> DistillConfig:
        """Read the settings of a TOML file; `given` settings that are not None take precedence, `steps` over `epochs`.

        Raises:
            InputError: No TOML, an unknown key, or a value of a wrong type or range.
        """
        found: dict[str, Any] = {}
        if file is not None:
            try:
                found = tomllib.loads(file.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise InputError(f"{file} is not TOML: {error}") from error
        types = get_type_hints(cls)
        for key, value in found.items():
            if key not in types:
                raise InputError(f"{file}: unknown key {key} = {value!r}; allowed keys: {', '.join(sorted(types))}")
            if not fits(value, types[key]):
                raise InputError(f"{file}: {key} = {value!r}; allowed: {allowed(types[key])}")
        given = {key: value for key, value in given.items() if value is not None}
        if "steps" in given:
            found.pop("epochs", None)
        return cls(**found | given)

    def options(self) -> DistillOptions:
        """Return the part that `tasc.training.distill.distill` takes as options."""
        return DistillOptions(**{field.name: getattr(self, field.name) for field in fields(DistillOptions)})

    def to_toml(self) -> str:
        """Return the settings as TOML that `read` accepts; a setting without a value is a comment."""
        types = get_type_hints(type(self))
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            unset = f"# {field.name} =   # {allowed(types[field.name])}"
            lines.append(unset if value is None else f"{field.name} = {json.dumps(value)}")
        return "\n".join(lines) + "\n"
