"""Grammars: outputs that are JSON of a schema, or match a regular expression or a context-free grammar.

The library llguidance tells which tokens a grammar allows after an output's tokens. A grammar constrains the text and
not its tokens: every token whose text may follow is allowed, the new tokens of a task vocabulary too. An EOS is allowed
where the text may end, and nowhere else.

Drafts are constrained before they are verified (`GrammarState.constrain`). The target's logits are masked at the
positions that verification asks for, in order, so a state only ever moves forward (`GrammarState.choose`, and
`GrammarState.__call__` as a logits processor of a `Sampler`).
"""

from __future__ import annotations

import json
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch

from tasc.checks import of_kind, wrong
from tasc.decoding.jobs import CheckedDraft
from tasc.decoding.verify import NO_TOKEN, argmax
from tasc.drafting.policy import DraftThrottle
from tasc.drafting.protocol import SOURCES, Costs
from tasc.errors import InputError, import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tasc.data import TaskTokenizer

T = TypeVar("T")

GRAMMAR = SOURCES.index("grammar")
"""Source code of drafted tokens that a grammar forces."""

_MAX_GRAMMARS = 64  # compiled grammars that a generator keeps
_MAX_TEXT = 1 << 20  # characters of a grammar
_MIN_STACK, _STACK_PER_CHARACTER = 16 << 20, 512  # bytes: rules that name each other in a chain take 420
_starting = threading.Lock()  # the size of a stack is set for all threads that start
_START = '%llguidance {"no_forcing": true}\nstart: @output'  # no forcing: forced text may be any tokens


@dataclass(frozen=True, slots=True)
class Grammar:
    """The texts that an output may have. Make one with `json_schema`, `regex` or `ebnf`.

    Attributes:
        kind: Kind of the grammar.
        text: The grammar.
        drafts: Whether text that the grammar forces is drafted. It changes the speed, never the output.

    Examples:
        >>> Grammar.regex("[0-9]{4}-[0-9]{2}").kind
        'regex'
    """

    kind: Literal["json_schema", "regex", "ebnf"]
    text: str
    drafts: bool = True

    @classmethod
    def json_schema(
        cls,
        schema: str | Mapping[str, Any],
        *,
        separators: tuple[str, str] | None = (", ", ": "),
        drafts: bool = True,
    ) -> Grammar:
        """Allow the JSON values of a schema.

        Args:
            schema: JSON schema, as text or as an object. Properties come in the order in which the schema has them.
            separators: Text between items and text after keys, as `json.dumps` has it. Without a choice of white
                space more text is forced, and no output fills up with white space. None: any white space.
            drafts: See the attributes.

        Raises:
            InputError: The schema is no JSON object, or the separators are not JSON's.
        """
        try:
            parsed = json.loads(schema if isinstance(schema, str) else json.dumps(schema))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the JSON schema cannot be read: {error}") from error
        if not isinstance(parsed, dict):
            raise wrong("the JSON schema", parsed, "a JSON object, such as {'type': 'object'}")
        if separators is not None:
            if [one.strip(" \t\r\n") for one in separators] != [",", ":"]:
                raise wrong("separators", separators, 'a comma and a colon with white space, such as (", ", ": ")')
            names = ("item_separator", "key_separator")
            parsed["x-guidance"] = {"whitespace_flexible": False, **dict(zip(names, separators, strict=True))}
        return cls("json_schema", json.dumps(parsed), drafts)

    @classmethod
    def regex(cls, pattern: str, *, drafts: bool = True) -> Grammar:
        """Allow the texts that a regular expression matches as a whole.

        Args:
            pattern: In the syntax of Rust's `regex` package: no look-around and no references to groups.
            drafts: See the attributes.
        """
        of_kind("pattern", pattern, str)
        return cls("regex", pattern, drafts)

    @classmethod
    def ebnf(cls, text: str, *, drafts: bool = True) -> Grammar:
        """Allow the texts of a context-free grammar.

        Args:
            text: Rules as llama.cpp's GBNF (`root ::= …`) or as Lark (`start: …`).
            drafts: See the attributes.
        """
        of_kind("text", text, str)
        return cls("ebnf", text, drafts)


class Grammars:
    """The grammars of a generator's requests, compiled for its tokenizer.

    Args:
        tokenizer: Tokenizer of the target.
        vocab_size: Ids of the target, V.

    Raises:
        MissingExtraError: llguidance is not installed.
        InputError: llguidance cannot use the tokenizer.
    """

    def __init__(self, tokenizer: TaskTokenizer, vocab_size: int) -> None:
        self._library = import_optional("llguidance", "grammar")
        self._task_tokenizer, self._vocab_size = tokenizer, vocab_size
        size = max(vocab_size, tokenizer.vocab_size)
        try:
            self._tokenizer = self._library.LLTokenizer(
                tokenizer.tokenizer.to_str(), n_vocab=size, eos_token=tokenizer.eos_id
            )
        except Exception as error:  # the library's own kinds
            raise InputError(f"grammar= cannot be used with the tokenizer {tokenizer.name}: {_line(error)}") from error
        self._compiled = lru_cache(_MAX_GRAMMARS)(self._compile)

    def start(self, grammar: Grammar, num_prompt: int, eos: frozenset[int]) -> GrammarState:
        """Return the state of a new output.

        Args:
            grammar: Its grammar.
            num_prompt: Number of its prompt's tokens.
            eos: Ids that end it.

        Raises:
            InputError: The grammar has an error, or a part that is not supported; or there is no EOS.
        """
        ends = frozenset(token for token in eos if token < self._vocab_size)
        if not ends:
            raise InputError("grammar= needs an EOS, which ends an output where the grammar does; name one with eos=")
        plan = self._task_tokenizer.plan
        segment = None if plan is None else lambda ids: self._task_tokenizer.segment([ids])[0]
        own_eos = frozenset(self._tokenizer.eos_tokens)
        compiled = self._compiled(grammar)
        return GrammarState(compiled, ends, own_eos, num_prompt, self._vocab_size, grammar.drafts, segment)

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        if len(grammar.text) > _MAX_TEXT:
            raise InputError(f"the grammar has {len(grammar.text)} characters; it may have {_MAX_TEXT}")
        try:
            rules = self._rules(grammar)
            whole = json.dumps({"grammars": [{"lark_grammar": _START}, {**rules, "name": "output"}]})
        except (ValueError, RecursionError) as error:
            raise InputError(f"the grammar cannot be read: {_line(error)}") from error
        compiled = CompiledGrammar(
            lambda: _with_stack(len(grammar.text), lambda: self._library.LLMatcher(self._tokenizer, whole, log_level=0))
        )
        if compiled.matcher.is_error():
            kind = {"json_schema": "JSON schema", "regex": "regular expression", "ebnf": "grammar"}[grammar.kind]
            raise InputError(f"the {kind} cannot be used: {_line(compiled.matcher.get_error())}")
        return compiled

    def _rules(self, grammar: Grammar) -> dict[str, Any]:
        """Return a grammar as llguidance takes it."""
        if grammar.kind == "json_schema":
            return {"json_schema": json.loads(grammar.text)}
        made = self._library.grammar_from(grammar.kind, grammar.text)
        return {"lark_grammar": made} if grammar.kind == "ebnf" else json.loads(made)["grammars"][0]


class CompiledGrammar:
    """llguidance's matcher of a grammar, at the beginning of an output.

    Its copies share the states of one lexer, which llguidance counts. Once they are too many, all copies are in error.

    Args:
        compile: Compiles the grammar.
    """

    def __init__(self, compile: Callable[[], Any]) -> None:
        self._compile = compile
        self.renew()

    def renew(self) -> None:
        """Compile it again, without the states of earlier outputs."""
        self.matcher = self._compile()


class GrammarState:
    """What a grammar allows after the tokens of one output.

    Args:
        compiled: The grammar.
        eos: Ids that end the output.
        own_eos: Ids that the matcher takes for an EOS; one that is not in `eos` is never allowed.
        num_prompt: Number of the prompt's tokens.
        vocab_size: Ids of the target, V.
        drafts: Whether forced text is drafted.
        segment: Puts the new tokens of a task vocabulary into base tokens; None: there are none.
    """

    def __init__(
        self,
        compiled: CompiledGrammar,
        eos: frozenset[int],
        own_eos: frozenset[int],
        num_prompt: int,
        vocab_size: int,
        drafts: bool,
        segment: Callable[[list[int]], list[int]] | None,
    ) -> None:
        self._compiled, self._matcher = compiled, compiled.matcher.deep_copy()
        self._eos, self._ends = eos, eos | own_eos
        self._known = num_prompt  # tokens of the prompt and the output that the matcher is behind
        self._text: list[int] = []  # those of the output, without an EOS
        self.error: str | None = None
        """Why no token is allowed, if the grammar no longer tells which: a clause."""
        self._vocab_size, self._drafts, self._segment = vocab_size, drafts, segment
        self._throttle = DraftThrottle()

    def constrain(self, draft: CheckedDraft, tokens: Sequence[int], longest: int) -> CheckedDraft:
        """Cut a draft before an EOS and before the first token that the grammar forbids; put forced text behind it.

        The target's own token behind the draft may be the EOS, so an EOS in it would save nothing. A token that was
        *drawn* stays as the last one: whether a draft holds it must not depend on which token it is. A forbidden one is
        always rejected, and its replacement comes from the distribution that makes up for it.

        Args:
            draft: The draft; it may be empty.
            tokens: Prompt and output so far.
            longest: Most tokens with the forced text.
        """
        self._take_all(tokens[self._known :])
        ahead = self._matcher.deep_copy()
        allowed: int = ahead.try_consume_tokens([*takewhile(self._is_text, draft.tokens)])
        if any(q is not None for q in draft.dists[allowed : allowed + 1]):
            return draft.cut(allowed + 1)
        room = longest - allowed
        may_draft = self._drafts and room > 0 and not self._throttle.should_skip()
        forced = self._forced(ahead)[:room] if may_draft else []
        return draft.cut(allowed).followed_by(forced, GRAMMAR)

    def record(self, draft: CheckedDraft, accepted: int, costs: Costs) -> None:
        """Account for the forced text of a draft: a model may write it in other tokens than the tokenizer does.

        Args:
            draft: The draft that was verified.
            accepted: Number of its tokens that were right.
            costs: (≥ K + 1,) cost of its first k tokens, in plain steps.
        """
        own = draft.count_without(GRAMMAR)
        if own < len(draft.tokens):
            self._throttle.record(max(accepted - own, 0), float(costs[len(draft.tokens)] - costs[own]))

    def choose(self, logits: Tensor, ids: Sequence[int]) -> Callable[[int], int]:
        """Return the greedy `choose` function of `verify`: the argmax of the logits of allowed tokens.

        The argmax of all logits is nearly always allowed, and then it is this one. So a mask is rarely needed.

        Args:
            logits: (K + 1, V) target logits after the output and after each drafted token.
            ids: (K + 1,) their argmax.
        """

        def choose(position: int) -> int:
            token = ids[position]
            if token != NO_TOKEN and not self._take(token):
                token = int(argmax(self._masked(logits[position])))
                if token != NO_TOKEN:
                    self._take(token)
            return token

        return choose

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Mask the scores of tokens that the grammar forbids, as a logits processor.

        Args:
            ids: (1, L) prompt and output.
            scores: (1, V) scores of the next token.
        """
        self._take_all(ids[0, self._known :].tolist())
        return self._masked(scores)

    def end(self, tokens: Sequence[int]) -> int | None:
        """Return the EOS if it is the only token that may follow the prompt and the output so far; else None."""
        self._take_all(tokens[self._known :])
        is_over = len(self._eos) == 1 and self._is_accepting() and self._matcher.is_stopped()
        return next(iter(self._eos)) if is_over else None

    def _take(self, token: int) -> bool:
        """Whether the grammar allows a token; go on behind it then."""
        if not self._is_text(token):
            return token in self._eos and self._is_accepting()
        if not self._without_error(lambda matcher: matcher.try_consume_tokens([token])):
            return False
        self._text.append(token)
        self._known += 1
        return True

    def _take_all(self, tokens: Sequence[int]) -> None:
        """Go on behind tokens that have been verified; behind an EOS the state stays as it is."""
        text = [*takewhile(self._is_text, tokens)]
        self._without_error(lambda matcher: matcher.consume_tokens(text))
        self._text += text
        self._known += len(tokens)

    def _without_error(self, ask: Callable[[Any], Any]) -> Any:
        """Ask the matcher; if it is in error then, ask one without the states of other outputs and of drafts."""
        answer = ask(self._matcher)
        if self._matcher.is_error() and self.error is None:
            self._compiled.renew()
            self._matcher = self._compiled.matcher.deep_copy()
            self._matcher.consume_tokens(self._text)
            answer = ask(self._matcher)
            self.error = _why(self._matcher.get_error()) if self._matcher.is_error() else None
        return answer

    def _is_accepting(self) -> bool:
        """Whether the text may end here."""
        return bool(self._without_error(lambda matcher: matcher.is_accepting()))

    def _is_text(self, token: int) -> bool:
        return token not in self._ends

    def _forced(self, matcher: Any) -> list[int]:
        """Return the tokens of the text that must follow, as the tokenizer writes it.

        The last token is left open where a longer one may begin with it: the text after the forced text decides.
        """
        if not matcher.compute_ff_bytes():
            return []
        ids: list[int] = matcher.compute_ff_tokens()
        return ids if self._segment is None else self._segment(ids)[:-1]

    def _masked(self, scores: Tensor) -> Tensor:
        """Return (…, V) scores with −inf at the tokens that the grammar forbids."""
        forbidden = torch.from_numpy(~self._mask()).to(scores.device)
        return scores.masked_fill(forbidden, -torch.inf)

    def _mask(self) -> NDArray[np.bool_]:
        """(V,) whether a token may follow."""
        packed = np.frombuffer(self._without_error(lambda matcher: matcher.compute_bitmask()), np.uint8)
        mask = np.unpackbits(packed, count=self._vocab_size, bitorder="little").view(np.bool_)
        mask[[token for token in self._ends if token < self._vocab_size]] = False
        if self._is_accepting():
            mask[list(self._eos)] = True
        return mask


def _with_stack(characters: int, work: Callable[[], T]) -> T:
    """Return what `work` returns, called in a thread whose stack suffices for a grammar of so many characters.

    llguidance calls itself for each rule that a rule names, and a stack that overflows would end the process.
    """
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    with _starting:
        before = threading.stack_size(_MIN_STACK + _STACK_PER_CHARACTER * characters)
        try:
            threading.Thread(target=run, name="tasc-grammar", daemon=True).start()
        finally:
            threading.stack_size(before)
    return found.result()


def _why(error: str) -> str:
    """Return a clause for a matcher's error."""
    if error.startswith("NoExtension"):
        return "its grammar allows no text that begins like this output"
    fix = "give a simpler grammar, such as one with shorter repetitions"
    return f"its grammar is too complex for this output ({_line(error)}); {fix}"


def _line(error: object) -> str:
    """Return a message of the library as one line, not too long, without its dump of a matcher's state."""
    message = str(error).partition("<state>")[0]
    return textwrap.shorten(" ".join(message.split()), 200, placeholder=" …")
