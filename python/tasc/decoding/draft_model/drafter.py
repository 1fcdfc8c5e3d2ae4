"""Drafts of a smaller language model with the same vocabulary, for all requests of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasc.checks import number, whole_number
from tasc.data.ids import common_prefix_length
from tasc.decoding.draft_model.cache import DraftRows, Row
from tasc.decoding.draft_model.controller import DraftLengthController, Round, clock
from tasc.decoding.draft_model.vocabulary import DraftHead
from tasc.decoding.engine.compile import CompiledModules
from tasc.decoding.engine.prepacked_linear import PackWeights, PrepackedLinears
from tasc.decoding.engine.probe import probed_target
from tasc.decoding.engine.target import Target, evaluating
from tasc.drafting.costs import GivenCosts
from tasc.drafting.protocol import SOURCES, Costs, Draft, Drafter, Request, RequestParams, TokenDraft, TokenIds
from tasc.errors import InputError, TokenizerMismatchError

_SOURCE = SOURCES.index("model")


class ModelDrafter(Drafter):
    """Drafts with a small model: its most probable tokens at temperature 0, its samples above.

    The drafter keeps the model's keys and values in cache rows of its own, one per running request. At temperature
    0 the output is that of plain decoding; above it, it follows the same distribution (`verify.py`). It drafts for
    one call at a time.

    Args:
        model: Any causal language model that `Target` takes, with the target's vocabulary, in its place and type. Its
            weights must stay as they are while requests run. With a draft vocabulary (`vocabulary.py`), it drafts ids
            of that alone.
        length: Fixed length of every draft; shorter only at `max_tokens` or a drafted EOS, and never paused. None: as
            many tokens as are expected to pay (`controller.py`).
        name: The name in reports.
        tokenizer: The model's, where known: another one than the target's is refused, and matrices padded to another
            height are taken if it is the same.
        step_cost: Cost of one pass of the model in plain steps of the target, for `length=None`; None: measured.
        pack_weights: As for `Generator`.
        cuda_graphs: As for `Generator`.
        compile: As for `Generator`.

    Raises:
        InputError: The model cannot be driven this way, or an option is out of its range.

    Examples:
        >>> drafter = ModelDrafter(small_model)                                # doctest: +SKIP
        >>> generator = Generator(model, tokenizer, drafter=drafter)           # doctest: +SKIP
    """

    reads_states = False

    def __init__(
        self,
        model: Any,
        *,
        length: int | None = None,
        name: str = "model",
        tokenizer: Any = None,
        step_cost: float | None = None,
        pack_weights: PackWeights = None,
        cuda_graphs: bool | None = None,
        compile: bool = False,
    ) -> None:
        if length is not None and whole_number("length", length) < 1:
            raise InputError(f"length is {length}; it must be at least 1, or None for drafts as long as they pay")
        if step_cost is not None and not number("step_cost", step_cost) >= 0:
            raise InputError(f"step_cost is {step_cost}; it must be ≥ 0, or None to measure it")
        self.name = name
        self.length = length
        self.fixed_length = length is not None
        self.controller = DraftLengthController(step_cost)
        self.target = self._target(model)
        self.rows = self._new_rows(cuda_graphs, not compile)
        self._head = DraftHead(self.target.model)
        self._prepacked = PrepackedLinears(self.target.model, pack_weights)
        self._compiled = CompiledModules(self.target.model, compile)
        self._tokenizer = tokenizer
        self._round: Round | None = None
        self._checked: tuple[int, Any] | None = None  # the target that was last found to fit, since hashing takes time

    def _target(self, model: Any) -> Target:
        return probed_target(model)

    def _new_rows(self, cuda_graphs: bool | None, plain: bool) -> DraftRows:
        return DraftRows(self.target, cuda_graphs, plain)

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Refuse a target of another vocabulary.

        Args:
            vocab_size: Rows of the target's embeddings.
            tokenizer: The target's, where known.

        Raises:
            TokenizerMismatchError: The two tokenizers differ.
            InputError: The two models have different numbers of ids, and it is not known whether they mean the same.
        """
        own = self.target.vocab_size
        if self._checked is not None and self._checked[0] == vocab_size and self._checked[1] is tokenizer:
            return
        if self._tokenizer is not None and tokenizer is not None:
            from tasc.data import load_tokenizer

            ours, theirs = (load_tokenizer(one).fingerprint for one in (self._tokenizer, tokenizer))
            if ours != theirs:
                raise TokenizerMismatchError(
                    f"the draft model's tokenizer is {ours[:16]}…, the target's is {theirs[:16]}…; "
                    "take a draft model made for this target's tokenizer"
                )
        elif own != vocab_size:
            raise InputError(
                f"the draft model has {own} ids, the target {vocab_size}; take a draft model with the target's "
                "vocabulary, or, if only the padding of the matrices differs, give the tokenizers of both"
            )
        self._checked = (vocab_size, tokenizer)

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> ModelRequest:
        """Start a request; the input is not used."""
        return ModelRequest(self, [int(token) for token in prompt_ids])

    def propose_batch(
        self, requests: Sequence[ModelRequest], max_tokens: int, costs: Costs | None = None
    ) -> list[Draft]:
        """Draft for several requests, one pass of the model per token for all of them."""
        return self.extend(requests, [TokenDraft() for _ in requests], max_tokens, costs)

    @torch.inference_mode()
    def extend(
        self,
        requests: Sequence[ModelRequest],
        prefixes: Sequence[Draft],
        max_tokens: int,
        costs: Costs | None = None,
    ) -> list[Draft]:
        """Append the model's tokens to other drafts, or to a prefix of them, where that is expected to pay.

        Args:
            requests: n requests.
            prefixes: (n,) drafts of fixed tokens, which the model reads in one pass; may be empty.
            max_tokens: Most tokens to draft, those of the prefixes included.
            costs: As for `Request.draft`.
        """
        if self._round is not None:
            self._round.close()
        curve = (GivenCosts() if costs is None else GivenCosts(costs)).costs(max_tokens)
        rests = self.length is None and self.controller.should_skip()
        open_to = [
            request for request, prefix in zip(requests, prefixes, strict=True) if request.begin(prefix, max_tokens)
        ]
        going = [] if rests else [request for request in open_to if self._begins(request, curve)]
        if open_to and not going and not rests and self.controller.should_probe():
            for request in open_to:
                request.keep_prefix(len(request.given), forced=True)
            going = open_to
        try:
            passes = self._run(going, curve) if going else 0.0
        except BaseException:
            self.rows.free(requests)
            raise
        drafts = [request.made() for request in requests]
        self._round = self._new_round(requests, drafts, passes * self.controller.step_cost, curve)
        return drafts

    def _new_round(
        self, requests: Sequence[ModelRequest], drafts: Sequence[Draft], drafting: float, curve: Costs
    ) -> Round:
        """Start the round of these drafts; `drafting` is the cost of the model's passes."""
        longest = min(max((len(draft.tokens) for draft in drafts), default=0), len(curve) - 1)
        without = min(max((request.num_kept for request in requests), default=0), longest)
        is_prefill = not all(request.has_output for request in requests)
        made = Round(self.controller, float(curve[longest]), float(curve[without]), drafting, is_prefill)
        for request in requests:
            request.round = made
        return made

    def _begins(self, request: ModelRequest, curve: Costs) -> bool:
        """Decide whether the model drafts for a request, and how much of its prefix is kept."""
        if self.length is not None:
            return True
        feed = self._feed_cost(request, curve)
        ends = bool(request.given) and request.given[-1] in request.params.eos
        kept, goes = self.controller.split(request.probs, curve[: request.most + 1], feed, not ends)
        if goes:
            request.keep_prefix(kept)
        return goes

    def _feed_cost(self, request: ModelRequest, curve: Costs) -> float:
        """Return the cost of reading what the model has not read and the prefix, in passes over one token."""
        return float(curve[min(request.unread + len(request.given), len(curve)) - 1])

    def _run(self, going: Sequence[ModelRequest], curve: Costs) -> float:
        """Draft token by token. Returns the cost of the passes in passes over one token."""
        with (
            evaluating(self.target.model),
            self._head.applied(),
            self._prepacked.applied(),
            self._compiled.applied(),
        ):
            self.rows.place(going)
            passes = 0.0
            while going:
                begin = clock()
                unread = max(request.unread for request in going)
                going = [
                    request
                    for request, (peak, choice) in zip(going, self._choices(going), strict=True)
                    if self._take(request, peak, choice, curve)
                ]
                passes += float(curve[min(unread, len(curve)) - 1])
                if unread <= 2:
                    self.controller.record_time(draft=clock() - begin)
        return passes

    def _choices(self, requests: Sequence[ModelRequest]) -> list[tuple[float, int | Tensor]]:
        """Return per request the greatest probability, and the most probable token or (V,) probabilities to sample."""
        logits, vocab_size = self.rows.step(requests), requests[0].params.vocab_size
        samplers = [request.params.sampler for request in requests]
        is_greedy = all(sampler is None for sampler in samplers)
        ids = self._head.ids if is_greedy and self._head.max_id < (vocab_size or self.target.vocab_size) else None
        if ids is None:
            logits = _fitted(self._head.spread(logits), vocab_size)
        if is_greedy:
            peaks, tokens = torch.softmax(logits.float(), dim=-1).max(-1)
            return list(zip(peaks.tolist(), (tokens if ids is None else ids[tokens]).tolist(), strict=True))
        choices: list[tuple[float, int | Tensor]] = []
        for request, sampler, row in zip(requests, samplers, logits, strict=True):
            probs = row.float().softmax(-1) if sampler is None else sampler.probabilities(row, request.tokens)
            choices.append((float(probs.max()), probs if request.drawn else int(probs.argmax())))
        return choices

    def _take(self, request: ModelRequest, peak: float, choice: int | Tensor, curve: Costs) -> bool:
        """Draft a request's next token if it pays. Returns whether to continue.

        A drawn token must stay in its draft, see `TokenDraft`.
        """
        costs, drafted = curve[: request.most + 1], request.num_drafted
        chance = self.controller.calibrated(peak, request.drawn)
        must = self.length is not None or request.forced
        if not must and not self.controller.pays(chance, request.survival, drafted, costs):
            return False
        request.add(peak, chance, choice)
        if request.num_drafted == request.most or request.tokens[-1] in request.params.eos:
            return False
        if self.length is not None:
            return True
        return self.controller.pays(self.controller.alpha, request.survival, drafted + 1, costs, 1.0)


class ModelRequest(Request):
    """Running request of a `ModelDrafter`."""

    def __init__(self, drafter: ModelDrafter, prompt: list[int]) -> None:
        self.tokens = prompt  # prompt, output, and after `_known` what is drafted
        self.row: Row | None = None
        self.params = RequestParams()
        self.round: Round | None = None
        self._drafter = drafter
        self._known = self._begin = len(prompt)
        self._readable = max(prompt, default=0) < drafter.target.vocab_size and bool(prompt)
        self._clear(TokenDraft())

    def configure(self, params: RequestParams) -> None:
        """Take the request's parameters."""
        self.params = params

    def read_states(self, states: Tensor) -> None:
        """Ignore the target's states."""

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        """Propose the next tokens."""
        return self._drafter.propose_batch([self], max_tokens, costs)[0]

    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification emitted. Keys and values of the accepted ones stay."""
        emitted = [int(token) for token in ids]
        accepted = common_prefix_length(self.tokens[self._known :], emitted)
        for place, peak in enumerate(self._peaks, self._kept):
            if place <= accepted and place < len(emitted):
                self._drafter.controller.record_token(peak, self.drawn, place < accepted)
        if self.round is not None:
            self.round.report(len(emitted), max(0, accepted - self._kept) if self._peaks else 0)
            self.round = None
        self._forget(accepted)
        self.tokens.extend(emitted[accepted:])
        self._known = len(self.tokens)
        self._readable = self._readable and max(emitted, default=0) < self._drafter.target.vocab_size
        self._clear(TokenDraft())

    @property
    def has_output(self) -> bool:
        """Whether at least one step was verified."""
        return self._known > self._begin

    @property
    def verified(self) -> int:
        """Number of prompt and output tokens."""
        return self._known

    @property
    def num_drafted(self) -> int:
        """Tokens drafted so far in this round."""
        return len(self.tokens) - self._known

    @property
    def num_kept(self) -> int:
        """Tokens of the n-gram prefix among them; all of the prefix if the model adds nothing."""
        return self._kept

    @property
    def unread(self) -> int:
        """Number of tokens that the next pass reads."""
        return max(1, len(self.tokens) - (self.row.length if self.row is not None else 0))

    @property
    def drawn(self) -> bool:
        """Whether tokens are sampled from the model's distribution."""
        return self.params.sampler is not None and self.params.sampler.is_random

    def begin(self, prefix: Draft, max_tokens: int) -> bool:
        """Begin a draft after a prefix. Returns whether the model can extend it."""
        self._forget(0)
        self._clear(prefix)
        most = max_tokens if self._drafter.length is None else min(max_tokens, self._drafter.length)
        if self.params.max_tokens is not None:
            most = min(most, self.params.max_tokens - (self._known - self._begin) - 1)
        reach = self._drafter.target.max_length
        self.most = most if reach is None else min(most, reach - self._known + 1)
        inner = any(token in self.params.eos for token in self.given[:-1])
        readable = self._readable and max(self.given, default=0) < self._drafter.target.vocab_size
        return readable and not inner and len(self.given) < self.most

    def keep_prefix(self, count: int, forced: bool = False) -> None:
        """Put the prefix's first `count` tokens into the draft; `forced`: the model adds at least one token."""
        self._kept, self.forced = count, forced
        self.tokens.extend(self.given[:count])
        self.survival = float(np.prod(self.probs[:count]))
        del self.probs[count:]

    def add(self, peak: float, chance: float, choice: int | Tensor) -> None:
        """Append one token of the model to the draft."""
        if isinstance(choice, int):
            self.tokens.append(choice)
            self._dists.append(None)
        else:
            assert self.params.sampler is not None
            self.tokens.append(self.params.sampler.sample(choice))
            self._dists.append(choice)
        self._peaks.append(peak)
        self.probs.append(chance)
        self.survival *= chance
        self.forced = False

    def made(self) -> Draft:
        """Return the draft; the unchanged prefix if the model added nothing."""
        if not self._peaks:
            self._forget(0)
            self._kept = len(self.given)
            return self._prefix
        sources = [*np.asarray(self._prefix.sources)[: self._kept].tolist(), *[_SOURCE] * len(self._peaks)]
        return TokenDraft(
            np.array(self.tokens[self._known :], np.uint32),
            np.array(self.probs, np.float32),
            np.array(sources, np.uint8),
            [None] * self._kept + self._dists if self.drawn else (),
        )

    def _clear(self, prefix: Draft) -> None:
        self._prefix = prefix
        self.given: list[int] = np.asarray(prefix.tokens).tolist()
        self.probs: list[float] = np.asarray(prefix.probs).tolist()
        self.most, self.survival, self.forced = 0, 1.0, False
        self._kept = 0
        self._peaks: list[float] = []
        self._dists: list[Tensor | None] = []

    def _forget(self, accepted: int) -> None:
        """Drop drafted tokens except the first `accepted` ones."""
        del self.tokens[self._known + accepted :]
        if self.row is not None:
            self._drafter.rows.cut(self.row, len(self.tokens))


def _fitted(logits: Tensor, vocab_size: int | None) -> Tensor:
    """Return (n, V) logits over the target's ids: padding is cut off, missing ids get probability 0."""
    if vocab_size is None or logits.shape[-1] == vocab_size:
        return logits
    missing = vocab_size - logits.shape[-1]
    if missing < 0:
        return logits[..., :vocab_size]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
