"""The exceptions of tasc. Each message names the value, the limit and the fix."""

from __future__ import annotations

import importlib
from typing import Any


class TascError(Exception):
    """Base class of all exceptions of tasc."""

    __slots__ = ()  # without a layout of its own, so that it can become a base of the core's `PanicException`


class InputError(TascError, ValueError):
    """An argument that cannot be used."""


class PromptError(InputError):
    """A prompt that cannot be used.

    Attributes:
        number: Index of the prompt in the call.
        reason: Reason, a clause whose subject is the prompt.
    """

    def __init__(self, number: int, reason: str) -> None:
        """See the attributes."""
        super().__init__(f"prompt {number} {reason}")
        self.number = number
        self.reason = reason


class QueueFullError(TascError):
    """A `Generator` has as many submitted requests as it takes."""


class CorpusError(TascError, ValueError):
    """Rows that cannot be read, or none at all."""


class FormatError(TascError, ValueError):
    """A file that is damaged, cut short, of another kind or of another major version."""


class TaskIndexError(TascError):
    """An index that cannot be built."""


class InternalError(TascError):
    """A bug in tasc: the compiled core panicked. Whatever the call was to change may be half changed."""

    __slots__ = ()  # as in TascError


class TokenizerMismatchError(TascError, ValueError):
    """Two different tokenizers where one is needed."""


class NoTokenError(TascError, ArithmeticError):
    """Logits that allow no next token: NaN, or −inf everywhere.

    Attributes:
        number: Index of the prompt in the call.
        reason: Reason, a clause whose subject is the prompt.
        finished: Outputs that ended before, each a `Generation` by the index of its prompt.
    """

    def __init__(self, number: int, output_tokens: int, grammar_error: str | None = None) -> None:
        """`number`: see the attributes; `output_tokens`: number of the prompt's output tokens so far.

        NaN at a drafted token may spread to the positions before it, so with drafts the number may be smaller.
        `grammar_error`: why the grammar no longer tells which tokens it allows, a clause; None: it does.
        """
        self.number = number
        self.reason = f"has no next token after {output_tokens} output tokens: " + (
            "its logits are NaN, or −inf everywhere. float16 may have overflowed (load the model in bfloat16 or "
            "float32), the checkpoint may be damaged, or the model's generation_config may suppress every token, or "
            "every one that grammar= allows"
            if grammar_error is None
            else grammar_error
        )
        self.finished: dict[int, Any] = {}
        super().__init__(f"prompt {number} {self.reason}")


class MissingExtraError(TascError, ImportError):
    """A feature whose optional packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        """`feature` in words; `extra` as in `tasc-lm[extra]`, the name of the distribution."""
        super().__init__(
            f"{feature} needs the packages of tasc-lm[{extra}]: run pip install '.[{extra}]' in a checkout of tasc, "
            f"or pip install 'WHEEL[{extra}]' with a wheel of tasc-lm"
        )


def import_optional(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Raises:
        MissingExtraError: The package is not installed; `extra` installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module}, which is needed here,", extra) from error
