"""Rows that a file names, to be removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from tasc.data import Row, TaskTokenizer
from tasc.data.chat import encode_outputs, render_rows
from tasc.data.rows import located_rows, understood_rows
from tasc.errors import CorpusError

AskedRow: TypeAlias = tuple[str | None, NDArray[Any]]
"""(input or None, (T,) ids of the output)"""


class NamedRows:
    """Rows that a file names.

    Args:
        file: File of rows; None: no rows.
        tokenizer: Tokenizer of the index.
        fields: `input_field` and `output_field` of `read_rows`.

    Raises:
        CorpusError: A line names no rows.
    """

    def __init__(self, file: Path | None, tokenizer: TaskTokenizer, **fields: Any) -> None:
        self.keys: set[str] = set()
        self._tokenizer = tokenizer
        self._inputs: set[str] = set()  # of rows with any output
        self._outputs: set[str] = set()  # of rows with any input
        self._pairs: dict[str, set[str]] = {}  # output → inputs
        rows = () if file is None else located_rows(file)
        for where, row in understood_rows(rows, None, needs_output=False, **fields):
            self._add(where, row)
        wanted = [*self._outputs, *self._pairs]
        ends = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        self._by_ids: dict[tuple[int, ...], set[str]] = {}
        for ids, output in zip(tokenizer.encode_outputs(wanted), wanted, strict=True):
            for end in ([], ends):
                self._by_ids.setdefault((*ids, *end), set()).add(output)

    def _add(self, where: str, row: Row) -> None:
        if row.get("messages") and row.get("output") is not None:
            row = {**row, "output": self._rendered(where, row)}
        given = {name: row.get(name) for name in ("input", "output", "key")}
        texts = {name: value for name, value in given.items() if value is not None}
        are_text = all(isinstance(text, str) for text in texts.values())
        if not texts or not are_text or ("key" in texts and len(texts) > 1):
            raise CorpusError(
                f"{where}: names no rows; give an `input`, an `output` or both, or a `key` alone, each as text"
            )
        match texts:
            case {"key": key}:
                self.keys.add(key)
            case {"input": given_input, "output": output}:
                self._pairs.setdefault(output, set()).add(given_input)
            case {"input": given_input}:
                self._inputs.add(given_input)
            case {"output": output}:
                self._outputs.add(output)

    def _rendered(self, where: str, row: Row) -> str:
        """Return the output of a row with `messages` as an index of it holds it, without its end token."""
        try:
            [ids] = encode_outputs(self._tokenizer, list(render_rows(self._tokenizer.chat_template, [row])))
        except CorpusError as error:
            raise CorpusError(f"{where}: {error}") from error
        ids = ids[:-1] if ids and ids[-1] in self._tokenizer.end_ids else ids
        text: str = self._tokenizer.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def picker(
        self, *, has_inputs: bool, find_input: Callable[[str], str | None]
    ) -> Callable[[list[AskedRow]], list[bool]]:
        """Return a function that says of each of some rows, (input, (T,) ids of the output), whether it is named.

        Args:
            has_inputs: Whether the index knows inputs. Otherwise a line with an input and an output names all rows
                with this output and no input.
            find_input: Finds the input in a whole prompt, as `TaskIndex.find_input`; a line may hold the prompt.
        """

        def with_found(texts: set[str]) -> set[str]:
            return texts.union(found for text in texts if (found := find_input(text)) is not None)

        inputs = with_found(self._inputs)
        pairs = {output: with_found(texts) for output, texts in self._pairs.items()}

        def is_named(text: str | None, outputs: set[str]) -> bool:
            if text in inputs or outputs & self._outputs:
                return True
            paired = [pairs[output] for output in outputs if output in pairs]
            return any((text or "") in texts or (text is None and not has_inputs) for texts in paired)

        def picks(rows: list[AskedRow]) -> list[bool]:
            outputs = self._named_outputs([ids.tolist() for _, ids in rows])
            return [is_named(text, found) for (text, _), found in zip(rows, outputs, strict=True)]

        return picks

    def _named_outputs(self, rows: list[list[int]]) -> list[set[str]]:
        """Return the named outputs that each row's ids stand for: as tasc tokenises them, or as a model wrote them."""
        if not self._by_ids:
            return [set() for _ in rows]
        found = [set(self._by_ids.get(tuple(ids), ())) for ids in rows]
        eos = self._tokenizer.eos_id
        bare = [ids[:-1] if ids and ids[-1] == eos else ids for ids in rows]
        for skip in (False, True):
            texts = self._tokenizer.tokenizer.decode_batch(bare, skip_special_tokens=skip)
            for names, text in zip(found, texts, strict=True):
                if text in self._outputs or text in self._pairs:
                    names.add(text)
        return found
