"""`Generator`: a model that answers prompts faster, with the same text."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, overload
from weakref import WeakKeyDictionary, finalize

import numpy as np
import torch
from numpy.typing import NDArray

from tasc._core import TaskIndex
from tasc.checks import of_kind, whole_number, wrong
from tasc.data.chat import system_text
from tasc.data.ids import as_ids
from tasc.data.prompt_notes import PromptDefaults, with_template
from tasc.decoding.detokenize import IncrementalDetokenizer, decode, special_tokens
from tasc.decoding.draft_model.hybrid import HybridDrafter
from tasc.decoding.engine.compile import CompiledModules
from tasc.decoding.engine.prepacked_linear import PackWeights, PrepackedLinears
from tasc.decoding.engine.probe import probed_target
from tasc.decoding.engine.target import Mode, Target, evaluating
from tasc.decoding.grammar import Grammar, Grammars, GrammarState
from tasc.decoding.jobs import Job
from tasc.decoding.loop import Loop
from tasc.decoding.processors import check_generation_config, logits_processors
from tasc.decoding.prompts import Input, Prompt, known_inputs, prompt_ids
from tasc.decoding.sampling import Sampler, Sampling, before_warpers
from tasc.decoding.scheduler import Call, ModelLock, Scheduler
from tasc.decoding.stats import Stats
from tasc.decoding.submitted import GenerationFuture, Piece, RequestOptions
from tasc.drafting.costs import CostCurve, GivenCosts
from tasc.drafting.defaults import MAX_DRAFT, MAX_SALTS, MEMORY_BYTES
from tasc.drafting.prompt_input import PromptInputFinder, Template, chat_delimiters
from tasc.drafting.protocol import Drafter, NullDrafter, SafeDrafter, checked_drafter, salt_digest, served_log
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError, NoTokenError, PromptError, QueueFullError

if TYPE_CHECKING:
    from tasc.data import TaskTokenizer
    from tasc.decoding.draft_model.drafter import ModelDrafter

_MAX_REQUESTS = 256
_MAX_DRAFTERS = 256  # drafters given to calls whose throttles and prompt templates are remembered

Stream = Callable[[int, list[int], str], None]
"""Called with (index of the request, new ids, new text)."""

Finished: TypeAlias = "Callable[[int, Generation], None]"
"""Called with (index of the request, its output)."""

InputTemplate: TypeAlias = "tuple[str, str] | tuple[Sequence[int], Sequence[int]]"
"""What stands before and after the input in a prompt, as text or ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Output of one prompt.

    Attributes:
        ids: Output ids. An EOS that ended it is the last; with a stop string, the last is the token that completed it.
        text: Their text without special tokens, cut before the stop string; "" without a tokenizer.
        finish_reason: "eos" (also if the EOS completes a stop string), "stop" (a stop string) or "length" (max_tokens
            or the model's context).
        stats: Counts of this request.
        first_difference: Where the ids first differ from plain decoding's; None if nowhere or not checked.
    """

    ids: list[int]
    text: str
    finish_reason: str
    stats: Stats
    first_difference: int | None = None


_model_locks: WeakKeyDictionary[Any, ModelLock] = WeakKeyDictionary()
"""One generator at a time runs a model: it changes the model's layers, for a time."""


class Generations(Sequence[Generation]):
    """A sequence of `Generation`, one per prompt in order.

    Attributes:
        stats: The sum of their counts.
        wall_seconds: Time of the call.
    """

    def __init__(self, items: Sequence[Generation], wall_seconds: float) -> None:
        self._items = tuple(items)
        self.wall_seconds = wall_seconds
        self.stats = Stats()
        for item in items:
            self.stats.add(item.stats)

    @overload
    def __getitem__(self, at: int) -> Generation: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Generation]: ...

    def __getitem__(self, at: int | slice) -> Generation | Sequence[Generation]:
        """Return one generation, or a tuple of several."""
        return self._items[at]

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self._items)


class Generator:
    """Generates with a model. Drafts come from an index, or from any `Drafter`.

    The model's generation config counts as in `generate`, except for options of the call and for lengths
    (docs/verify.md, "The generation config").

    A generator keeps its KV cache, its drafters and their learned state between calls. Any number of threads may use
    it: their requests run in one batch, `batch_size` at once, and take turns for the rows that become free. `generate`
    waits for its outputs; `submit` returns a future, `stream` an asynchronous iterator. Generators of one model take
    turns. Nothing else may use the model meanwhile.

    Args:
        model: A `transformers` causal language model, in its place and type.
        tokenizer: Its tokenizer; None where all prompts are ids and no text is wanted.
        index: `TaskIndex`, or its path, that drafts are made from. Drafts also use the running context, and the
            request's input where the index holds inputs. None: the context alone. For a model with new tokens
            (`tasc.vocab`) the index may be made with the tokenizer before the extension. A path's file is read into
            memory, up to 256 MiB, and may then be written over; a larger one is mapped, as `TaskIndex.open` does it.
        drafter: A `Drafter` instead of an index, such as a `ModelDrafter`.
        draft: A draft model that continues where n-grams are not confident (`HybridDrafter`).
        max_draft: Longest draft; None: 64. Drafts are shorter where a longer one does not pay.
        batch_size: Most requests at once.
        costs: Cost of verifying drafted tokens: a slope c for 1 + c·k, an array [k], or a `CostCurve`; None:
            measured before the first draft (about a second for a small model), then followed.
        pack_weights: Whether the model's linear layers use a rearranged copy of their weights, which makes
            verification on a CPU much cheaper and takes as much memory as the weights; None: if the model is on the
            CPU in fp32 and the copy takes at most 1 GiB. The model itself stays as it is. "int8": the copy holds
            weights rounded to int8, which makes every step on a CPU faster. It changes the text: outputs are those
            of the rounded model, drafted or not, except where two logits are equal to about 0.02.
        cuda_graphs: Whether steps on a CUDA device are captured as CUDA graphs, over a cache that has room for the
            longest request of a call; None: if the model can be captured.
        compile: Whether the model's norms, MLPs and rotary embeddings are compiled, on a CUDA device: steps of a small
            model then take a third less time, the first ones some seconds more.
        input_template: What stands before and after the input in prompts that are strings or ids; None: the marks
            of the tokenizer's chat template, and what all prompts so far begin and end with (see
            `tasc.drafting.prompt_input.PromptInputFinder`). It decides how well drafts fit, never what comes out.
        served: Whether outputs that ended with an EOS are added to their index's drafter, so that later requests draft
            from them: True keeps them, durably, in the log beside the index (`served_log`), a path in that log, for the
            generator's own index alone. The log holds inputs and outputs. If another process writes to it, a log beside
            it is taken (`served_logs`). `tasc index compact` merges them all.
        max_requests: Most requests that `submit` and `stream` take at once, those that wait included.
        probe: Whether a small random model of the same class is run first, to find the way of running the model that
            gives its own text (see `tasc.decoding.engine.probe`); once per class and configuration, kept on disk.
            False: the way that fits the kinds of layers is taken, and the text may be another one.

    Raises:
        InputError: The model cannot be driven this way, its generation config asks for beam search or the like, or an
            option is out of its range.
        TokenizerMismatchError: The index or the draft model was made with another tokenizer.

    Examples:
        >>> generator = Generator(model, tokenizer, index="task.tasc")          # doctest: +SKIP
        >>> generator.generate(["book a table for two"], max_tokens=64)[0].text  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        index: Any = None,
        drafter: Drafter | None = None,
        draft: ModelDrafter | None = None,
        max_draft: int | None = None,
        batch_size: int = 1,
        costs: float | Sequence[float] | NDArray[np.float64] | CostCurve | None = None,
        pack_weights: PackWeights = None,
        cuda_graphs: bool | None = None,
        compile: bool = False,
        input_template: InputTemplate | None = None,
        served: bool | str | PathLike[str] = False,
        max_requests: int = _MAX_REQUESTS,
        probe: bool = True,
    ) -> None:
        if index is not None and drafter is not None:
            raise InputError("give index= or drafter=, not both")
        if draft is not None and drafter is not None:
            raise InputError("give draft= (beside n-grams) or drafter= (alone), not both")
        max_draft = whole_number("max_draft", MAX_DRAFT if max_draft is None else max_draft, 0)
        batch_size = whole_number("batch_size", batch_size, 1)
        if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "decode")):
            raise wrong("tokenizer", tokenizer, "a transformers tokenizer, as AutoTokenizer.from_pretrained loads it")
        if input_template is not None and not _is_template(input_template):
            raise wrong("input_template", input_template, "a pair (before, after) of strings or of id lists")
        if not isinstance(served, (bool, str, PathLike)):
            raise wrong("served", served, "True, False or a path")
        max_requests = whole_number("max_requests", max_requests, 1)
        of_kind("probe", probe, bool)
        self._target = probed_target(model, probe)
        check_generation_config(self._target.model)
        self._max_draft = 0 if self.mode == "undrafted" else max_draft
        self._prepacked = PrepackedLinears(self._target.model, pack_weights)
        self._compiled = CompiledModules(self._target.model, compile)
        self._tokenizer = tokenizer
        self._input_template = input_template
        self._served = served
        self._finders: WeakKeyDictionary[SafeDrafter, PromptInputFinder | None] = WeakKeyDictionary()
        self._safe: Any = lru_cache(_MAX_DRAFTERS)(SafeDrafter)
        self._drafters: dict[tuple[int | str, str | None], tuple[Any, SafeDrafter]] = {}
        self._draft = draft
        self._index, self._makes_drafters = index, drafter is None
        self._default = self._drafter(index) if drafter is None else self._checked(drafter)
        self._tokenizer = with_template(tokenizer, self._default.index)
        curve = costs if costs is None or isinstance(costs, CostCurve) else GivenCosts(costs)
        self._loop = Loop(self._target, batch_size, self._max_draft, curve, cuda_graphs)
        model_lock = _model_locks.setdefault(self._target.model, ModelLock())
        self._session = partial(_session, model_lock, self._target, self._prepacked, self._compiled)
        self._scheduler = Scheduler(self._loop, self._session, model_lock, max_requests)
        self._max_requests = max_requests
        finalize(self, self._scheduler.close)

    @property
    def mode(self) -> Mode:
        """How the model is run: "batched", "single" (one request at a time) or "undrafted" (token by token)."""
        return self._target.drive.mode

    def close(self) -> None:
        """Cancel submitted requests, and release the drafters and their logs, so another process may write to the logs.

        A generator is a context manager. At the end it waits for submitted requests, and closes; after an error it
        closes at once. A closed generator decodes plainly.
        """
        self._scheduler.close()
        self._default = SafeDrafter(NullDrafter())
        self._drafters.clear()
        self._safe.cache_clear()

    def __enter__(self) -> Generator:
        """Return the generator."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for submitted requests, unless an error ends the block, and close."""
        try:
            if kind is None:
                self._scheduler.wait()
        finally:
            self.close()

    def generate(
        self,
        inputs: Sequence[Input] | None = None,
        *,
        prompts: Sequence[Prompt] | None = None,
        system: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        positions: Sequence[int] | None = None,
        eos: int | Sequence[int] | None = None,
        stop: str | Sequence[str] = (),
        grammar: Grammar | Sequence[Grammar | None] | None = None,
        stream: Stream | None = None,
        finished: Finished | None = None,
        index: Any = None,
        salt: str | Sequence[str | None] | None = None,
        drafter: Drafter | None = None,
        check_plain: bool = False,
    ) -> Generations:
        """Answer prompts.

        Args:
            inputs: User texts, put into the tokenizer's chat template (without one: text and newline); or rows, as
                `tasc.data.read_rows` gives them: conversations `{"messages": […], "tools": […]}`, whose answer is left
                out, or `{"input": text}`.
            prompts: Instead of `inputs`: raw strings, id sequences or lists of messages. Drafts take the last user
                message for the input; in strings and ids it is found (see `input_template` of `Generator`).
            system: System message for `inputs`; "" for none. None: the one that the model was tuned with (`tasc tune`),
                or else the index was built with. A different one is named in a warning.
            max_tokens: Most output tokens per prompt; the model's context may end an output earlier.
            temperature: 0 is greedy; see `Sampling` for this and the next three, which act above 0. The generation
                config has no say in these four.
            top_p: Mass kept.
            top_k: Tokens kept.
            min_p: Relative probability kept.
            repetition_penalty: None: the model's generation config.
            seed: Equal seeds give equal output for the same prompts, drafted or not; with a draft model that is equal
                in distribution only. None: a fresh one.
            positions: Position of each prompt in a list that several calls share. The seed and the position alone
                decide a prompt's random numbers, whatever the batch size. None: its index in this call.
            eos: Ids that end an output; None: those of the generation config and the tokenizer; () for none.
            stop: Strings that end an output, not part of its text. A stop string that contains a special token's text
                is looked for in the text with special tokens.
            grammar: What the outputs may be: one `Grammar` for all, or a list with one (or None) per prompt. The
                output is that of plain decoding with the same grammar, and text that the grammar forces is drafted.
                An output that ends with "eos" is in the grammar; "stop" and "length" may cut one short.
            stream: Called as tokens come: (index of the prompt, new ids, new text). The texts joined are the text;
                none ends within a character. Not called for the ids that plain checking decodes.
            finished: Called as outputs end, in the order in which they end: (index of the prompt, its `Generation`
                without the plain check). Both are called in the present thread, and may use the generator.
            index: Instead of the generator's: one `TaskIndex` (or path) for all, or a list with one (or None, the
                generator's) per prompt.
            salt: A text, or a list with one (or None) per prompt. Requests of a salt draft with a drafter of their
                own over the index: what it learns, and its log `INDEX.served.DIGEST`, serve this salt alone. DIGEST is
                `salt_digest(salt)`; a file `INDEX.DIGEST` is used instead of the index. None: the shared drafter.
            drafter: Instead of the generator's, for this call.
            check_plain: Decode plainly too, each prompt alone over the model's own cache, and count the
                requests whose ids differ in `stats.divergences`.

        Returns:
            One `Generation` per prompt, in order; `.stats` is their sum.

        Raises:
            InputError: An option is out of its range; says which.
            PromptError: A prompt cannot be used; says which. No prompt has been answered then.
            NoTokenError: The logits of a prompt are NaN, or leave no token. Its `finished` holds the outputs of the
                prompts that ended before.
            TokenizerMismatchError: An index or a draft model was made with another tokenizer.
            MissingExtraError: `grammar` needs llguidance, which is not installed.
        """
        for name, function in (("stream", stream), ("finished", finished)):
            if function is not None and not callable(function):
                raise wrong(name, function, "a function")
        events: deque[Callable[[], None]] = deque()  # callbacks for this thread

        def put(event: Callable[[], None]) -> None:
            events.append(event)
            call.wake.set()

        def dispatch() -> None:
            while events:
                events.popleft()()

        emit = None if stream is None else lambda *new: put(partial(stream, *new))
        make, drafters = self._requests(
            inputs, prompts, positions, system=system, max_tokens=max_tokens, temperature=temperature, top_p=top_p,
            top_k=top_k, min_p=min_p, repetition_penalty=repetition_penalty, seed=seed, eos=eos, stop=stop,
            grammar=grammar, streams=stream is not None, index=index, salt=salt, drafter=drafter,
        )  # fmt: skip
        jobs = [make(number, each, emit) for number, each in enumerate(drafters)]
        call = Call(
            jobs,
            job_ended=None if finished is None else lambda job: put(lambda: finished(job.index, self._generation(job))),
            all_ended=self._all_ended,
        )
        begin = time.perf_counter()
        try:
            self._scheduler.run(call, dispatch)
        except NoTokenError as error:
            error.finished = {job.index: self._generation(job) for job in jobs if job.finish_reason is not None}
            raise
        wall = time.perf_counter() - begin
        done = [self._generation(job) for job in jobs]
        if check_plain:
            plain = [make(number, None, None) for number in range(len(jobs))]
            with self._session():
                for each in plain:
                    self._plain_loop.run([each])
            done = [_compared(item, job.output) for item, job in zip(done, plain, strict=True)]
        return Generations(done, wall)

    def submit(
        self,
        input: str | None = None,
        *,
        prompt: Prompt | None = None,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> GenerationFuture:
        """Answer a prompt in a thread of the generator's own, beside the requests of other callers.

        The request joins the running batch at the next step. The output is that of `generate` for this prompt alone,
        with the same options (docs/verify.md, "Several callers").

        Args:
            input: User text, put into the tokenizer's chat template.
            prompt: Instead of `input`: a raw string, ids or a list of messages.
            timeout: Seconds to wait for a place where `max_requests` requests have not ended; None: no limit; 0: do not
                wait.
            **options: As for `generate`: see `RequestOptions`.

        Returns:
            The future of the output. `cancel()` stops the request. What it raises is this request's alone.

        Raises:
            InputError: An option is out of its range; says which.
            PromptError: The prompt cannot be used; says why.
            QueueFullError: There was no place in time.

        Examples:
            >>> with Generator(model, tokenizer, batch_size=8) as generator:        # doctest: +SKIP
            ...     futures = [generator.submit(text) for text in texts]
            ...     outputs = [future.result().text for future in futures]
        """
        job = self._request(input, prompt, None, options)
        place = self._scheduler.ask()
        try:
            if not place.done():
                self._scheduler.refuse_worker()
            place.result(timeout)
            return self._submitted(job)
        except BaseException as error:
            raise self._no_place(place, error) from None

    async def stream(
        self,
        input: str | None = None,
        *,
        prompt: Prompt | None = None,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[Piece]:
        """Answer a prompt as `submit` does, piece by piece; the event loop goes on meanwhile.

        A reader that is slower than the model gets longer pieces. To stop the request, cancel the task that reads, or
        close the iterator (`aclose`).

        Args:
            input: See `submit`.
            prompt: See `submit`.
            timeout: See `submit`.
            **options: See `submit`.

        Yields:
            Pieces of the output as they come; the last one has the whole `Generation`.

        Raises:
            InputError: As `submit`, with the first piece.
            NoTokenError: The logits are NaN, or leave no token.
            QueueFullError: There was no place in time.

        Examples:
            >>> async for piece in generator.stream("book a table for two"):       # doctest: +SKIP
            ...     print(piece.text, end="", flush=True)
        """
        arrived: asyncio.Queue[tuple[list[int], str] | None] = asyncio.Queue()
        event_loop = asyncio.get_running_loop()

        def put(item: tuple[list[int], str] | None) -> None:
            with suppress(RuntimeError):  # the event loop has been closed
                event_loop.call_soon_threadsafe(arrived.put_nowait, item)

        job = self._request(input, prompt, lambda _, ids, text: put((ids, text)), options)
        place = self._scheduler.ask()
        try:
            if not place.done():
                await asyncio.wait_for(asyncio.wrap_future(place), timeout)
            future = self._submitted(job)
        except BaseException as error:
            raise self._no_place(place, error) from None
        future.add_done_callback(lambda _: put(None))
        try:
            while True:
                items = [await arrived.get()]
                while not arrived.empty():
                    items.append(arrived.get_nowait())
                new = [item for item in items if item is not None]
                ids, text = [token for piece in new for token in piece[0]], "".join(piece[1] for piece in new)
                if None in items:
                    yield Piece(ids=ids, text=text, generation=future.result())
                    return
                yield Piece(ids=ids, text=text)
        finally:
            future.cancel()

    def _request(self, input: str | None, prompt: Prompt | None, emit: Stream | None, options: RequestOptions) -> Job:
        """Return the job of a submitted request."""
        if prompt is not None and input is not None:
            raise InputError("give input or prompt=, not both")
        if unknown := options.keys() - RequestOptions.__annotations__.keys():
            known = ", ".join(RequestOptions.__annotations__)
            raise TypeError(f"submit and stream have no option {min(unknown)!r}; they have {known}")
        others: Any = dict(options)
        position = others.pop("position", 0)
        inputs, prompts = (None, [prompt]) if input is None and prompt is not None else ([input], None)
        make, [drafter] = self._requests(inputs, prompts, [position], streams=emit is not None, **others)
        return make(0, drafter, emit)

    def _submitted(self, job: Job) -> GenerationFuture:
        return GenerationFuture(self._scheduler, job, self._generation, self._all_ended)

    def _no_place(self, place: Future[None], error: BaseException) -> BaseException:
        """Return the error of a request that was not submitted, and give its place back."""
        self._scheduler.give_back(place)
        if isinstance(error, TimeoutError):
            return QueueFullError(
                f"{self._max_requests} submitted requests have not ended, the most that this generator takes; wait for "
                "some, give a longer timeout=, or a larger max_requests= to Generator"
            )
        return error

    def _requests(
        self,
        inputs: Any,
        prompts: Any,
        positions: Sequence[int] | None,
        *,
        streams: bool,
        system: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        eos: int | Sequence[int] | None = None,
        stop: str | Sequence[str] = (),
        grammar: Grammar | Sequence[Grammar | None] | None = None,
        index: Any = None,
        salt: str | Sequence[str | None] | None = None,
        drafter: Drafter | None = None,
    ) -> tuple[Callable[[int, SafeDrafter | None, Stream | None], Job], list[SafeDrafter | None]]:
        """Check the options of requests; return what makes the job of a prompt, and the drafter of each prompt."""
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=self._penalty(repetition_penalty),
        )  # fmt: skip
        stop = (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, (list, tuple, set, frozenset)) or not all(isinstance(one, str) for one in stop):
            raise wrong("stop", stop, "a string or a list of strings")
        if "" in stop:
            raise InputError("stop holds an empty string, which would end every output; remove it")
        if self._tokenizer is None and (stop or streams):
            raise InputError("stop= and stream= need text; give a tokenizer to Generator(model, tokenizer)")
        max_tokens = whole_number("max_tokens", max_tokens, 1)
        check_generation_config(self._target.model)
        rows = self._prompt_ids(inputs, prompts, system)
        numbers = range(len(rows)) if positions is None else _whole_numbers("positions", positions)
        if len(numbers) != len(rows):
            raise InputError(f"positions= lists {len(numbers)} positions for {len(rows)} prompts; give one per prompt")
        salts = [salt] * len(rows) if isinstance(salt, str | None) else salt
        grammars = _per_prompt("grammar", grammar, Grammar, len(rows))
        with self._scheduler.preparing:
            drafters = self._drafters_for(len(rows), index, salt, drafter)
            texts = self._inputs(rows, known_inputs(inputs, prompts), drafters)
        seed = secrets.randbits(63) if seed is None else whole_number("seed", seed)
        ends = self._target.eos_ids(self._tokenizer) if eos is None else frozenset(_whole_numbers("eos", eos))
        special = special_tokens(self._tokenizer) if stop else {}

        def job(number: int, drafter: SafeDrafter | None, emit: Stream | None) -> Job:
            prompt = rows[number]
            room = self._room(number, prompt, max_tokens)
            sampler, device = None, self._target.device
            processors = logits_processors(self._target.model, sampling, prompt, room, ends, device)
            state = self._grammar_state(grammars[number], len(prompt), ends)
            if state is not None and (processors or sampling.temperature > 0):
                processors = before_warpers(processors, state)
            if processors or sampling.temperature > 0:
                sampler = Sampler(sampling, prompt, room, seed, numbers[number], device, processors)
            return Job(
                index=number, tokens=list(prompt), num_prompt=len(prompt), max_tokens=room, eos=ends,
                rope_switch=self._target.drive.rope_switch,
                drafter=drafter, input_text=texts[number], salt=salts[number], sampler=sampler, grammar=state,
                emit=emit,
                stats=Stats(requests=1, mode=self.mode),
                detokenizer=IncrementalDetokenizer(self._tokenizer, stop, special) if stop or emit else None,
            )  # fmt: skip

        return job, drafters

    def check(
        self,
        inputs: Sequence[Input] | None = None,
        *,
        prompts: Sequence[Prompt] | None = None,
        system: str | None = None,
    ) -> None:
        """Check prompts as `generate` does, without answering them.

        Raises:
            InputError: As `generate`.
            PromptError: A prompt cannot be used; says which.
        """
        for number, row in enumerate(self._prompt_ids(inputs, prompts, system)):
            self._room(number, row, 1)

    @property
    def system(self) -> str | None:
        """System message of `inputs` by default: what the model was tuned with, or else the index was built with."""
        return self._prompts.system

    def _prompt_ids(
        self, inputs: Sequence[Input] | None, prompts: Sequence[Prompt] | None, system: str | None
    ) -> list[list[int]]:
        if prompts is not None or inputs is None or not isinstance(system, str | None):
            return prompt_ids(self._tokenizer, inputs, prompts, system)
        system = self._prompts.choose(system)
        rows = prompt_ids(self._tokenizer, inputs, prompts, system)
        for one in inputs:
            if not isinstance(one, str) and one.get("messages"):
                self._prompts.compare(system_text(one) or system)
        return rows

    @cached_property
    def _prompts(self) -> PromptDefaults:
        model = str(getattr(self._target.model.config, "name_or_path", ""))
        return PromptDefaults.of(model, self._tokenizer, self._default.index)

    def _generation(self, job: Job) -> Generation:
        assert job.finish_reason is not None
        if self._tokenizer is None:
            text = ""
        elif job.detokenizer is not None:
            job.detokenizer.finish()
            text = job.detokenizer.text
        else:
            text = decode(self._tokenizer, job.output)
        return Generation(ids=job.output, text=text, finish_reason=job.finish_reason, stats=job.stats)

    def _room(self, number: int, prompt: list[int], max_tokens: int) -> int:
        """Return the number of output tokens that fit, and check the prompt's ids."""
        worst = max(prompt)
        if worst >= self._target.vocab_size:
            raise PromptError(
                number,
                f"holds id {worst}, but the model's vocabulary has {self._target.vocab_size} ids; "
                "is it the tokenizer of this model?",
            )
        limit = self._target.max_length
        if limit is None:
            return max_tokens
        if len(prompt) >= limit:
            raise PromptError(number, f"has {len(prompt)} tokens, but the model's context holds {limit}; shorten it")
        return min(max_tokens, limit - len(prompt))

    def _penalty(self, given: float | None) -> float:
        if given is not None:
            return given
        config = getattr(self._target.model, "generation_config", None)
        return float(getattr(config, "repetition_penalty", None) or 1.0)

    def _drafters_for(
        self, count: int, index: Any, salt: str | Sequence[str | None] | None, drafter: Drafter | None
    ) -> list[SafeDrafter | None]:
        """Return one drafter per prompt; None decodes plainly."""
        salts = [salt] * count if isinstance(salt, str | None) else salt
        if not isinstance(salts, (list, tuple)) or not all(isinstance(one, str | None) for one in salts):
            raise wrong("salt", salt, "a string, or a list of strings and None")
        if len(salts) != count:
            raise InputError(f"salt= lists {len(salts)} salts for {count} prompts; give one per prompt, or one")
        if drafter is not None:
            if index is not None or any(one is not None for one in salts):
                raise InputError(f"give {'salt' if index is None else 'index'}= or drafter=, not both")
            chosen = [self._checked(drafter)] * count
        else:
            indexes = list(index) if isinstance(index, (list, tuple)) else [index] * count
            if len(indexes) != count:
                raise InputError(
                    f"index= lists {len(indexes)} indexes for {count} prompts; give one per prompt, or one"
                )
            chosen = [self._chosen(*pair) for pair in zip(indexes, salts, strict=True)]
            salted = [key for key in self._drafters if key[1] is not None]
            for oldest in salted[:-MAX_SALTS]:
                del self._drafters[oldest]
        return [None if isinstance(one.drafter, NullDrafter) or self._max_draft == 0 else one for one in chosen]

    def _chosen(self, index: Any, salt: str | None) -> SafeDrafter:
        """Return the drafter of an index (None: the generator's) and a salt."""
        if index is None and (salt is None or isinstance(self._default.drafter, NullDrafter)):
            return self._default
        if index is None and not self._makes_drafters:
            raise InputError("salt= needs an index, but this generator was given drafter=; give index= beside salt=")
        return self._drafter(self._index if index is None else index, None if salt is None else salt_digest(salt))

    def _checked(self, drafter: Drafter) -> SafeDrafter:
        """Return a guarded drafter that accepts the target's vocabulary."""
        safe: SafeDrafter = self._safe(checked_drafter(drafter))
        return self._fitting(safe)

    def _fitting(self, drafter: SafeDrafter) -> SafeDrafter:
        """Return a drafter that fits the target.

        Raises:
            InputError: It has another vocabulary, or reads states that the target's cache does not keep.
        """
        if drafter.reads_states and not self._target.is_batched:
            raise InputError(
                f"drafter {drafter.name!r} reads the target's states, and {type(self._target.model).__name__} "
                f"{self._target.drive.reason or 'runs one request at a time'}; give a draft model that reads tokens"
            )
        drafter.check_vocabulary(self._target.vocab_size, self._tokenizer)
        return drafter

    def _drafter(self, index: Any, digest: str | None = None) -> SafeDrafter:
        """Return the drafter of an index, and of a salt. It is made once and learns as long as the generator lives, or
        until many other salts have been used.
        """
        key = _key(index), digest
        if key not in self._drafters:
            opened = (
                TaskIndex.open(Path(index), memory_bytes=MEMORY_BYTES) if isinstance(index, (str, PathLike)) else index
            )
            if not isinstance(opened, TaskIndex | None):
                raise wrong("index", index, "a TaskIndex or the path of one")
            self._drafters[key] = (index, self._over(opened, digest, key[0] == _key(self._index)))
        self._drafters[key] = self._drafters.pop(key)  # the most recently used is the last
        return self._drafters[key][1]

    def _over(self, index: TaskIndex | None, digest: str | None, own: bool) -> SafeDrafter:
        """Make a drafter over an index, the generator's own or another, and the draft model behind it, if any."""
        log = self._log_of(index, digest, own)
        if index is not None and digest is not None and (salted := Path(f"{index.path}.{digest}")).exists():
            index = TaskIndex.open(salted, memory_bytes=MEMORY_BYTES)
        known = self._tokenizer is not None and (index is not None or getattr(self._tokenizer, "is_fast", False))
        ngram = ngram_drafter(index, self._task_tokenizer if known else None, served=log)
        return self._fitting(SafeDrafter(ngram if self._draft is None else HybridDrafter(ngram, self._draft)))

    def _log_of(self, index: TaskIndex | None, digest: str | None, own: bool) -> Path | None:
        """Return the path of the log of online rows of an index and a salt; None: they are not kept."""
        if index is None or self._served is False:
            return None
        if self._served is True or not own:
            return served_log(index, digest)
        return Path(self._served if digest is None else f"{self._served}.{digest}")

    @property
    def _all_ended(self) -> Callable[[Sequence[Job]], None] | None:
        if self._served is False:
            return None
        config = getattr(self._target.model, "generation_config", None)
        forces_eos = getattr(config, "forced_eos_token_id", None) is not None
        return partial(_keep_served, forces_eos=forces_eos)

    @cached_property
    def _plain_loop(self) -> Loop:
        """Loop that runs one request at a time, token by token, over the model's own cache."""
        drive = replace(self._target.drive, mode="undrafted")
        return Loop(Target(self._target.model, drive), num_rows=1, max_draft=0)

    @cached_property
    def _task_tokenizer(self) -> TaskTokenizer:
        from tasc.data import load_tokenizer

        return load_tokenizer(self._tokenizer)

    @cached_property
    def _grammars(self) -> Grammars:
        if self._tokenizer is None:
            raise InputError("grammar= needs text; give a tokenizer to Generator(model, tokenizer)")
        return Grammars(self._task_tokenizer, self._target.vocab_size)

    def _grammar_state(self, grammar: Grammar | None, num_prompt: int, eos: frozenset[int]) -> GrammarState | None:
        if grammar is None:
            return None
        with self._scheduler.preparing:  # no fork meanwhile, and one thread at a time
            return self._grammars.start(grammar, num_prompt, eos)

    def _inputs(
        self, rows: Sequence[list[int]], known: list[str | None], drafters: Sequence[SafeDrafter | None]
    ) -> list[str | None]:
        """Return the input text of each prompt; find it where it is unknown and the drafter can use it."""
        groups: dict[SafeDrafter, list[int]] = {}
        for number, drafter in enumerate(drafters):
            if known[number] is None and drafter is not None:
                groups.setdefault(drafter, []).append(number)
        for drafter, group in groups.items():
            finder = self._finder(drafter)
            if finder is not None:
                for number, text in zip(group, finder.find([rows[n] for n in group], drafter.index), strict=True):
                    known[number] = text
        return known

    def _finder(self, drafter: SafeDrafter) -> PromptInputFinder | None:
        """Return the finder of inputs for a drafter; None if the drafter does not use them."""
        if drafter not in self._finders:
            index = drafter.index
            reads = self._tokenizer is not None and index is not None and index.info()["inputs"] > 0
            self._finders[drafter] = self._new_finder() if reads else None
        return self._finders[drafter]

    def _new_finder(self) -> PromptInputFinder:
        if self._input_template is None:
            return PromptInputFinder(self._task_tokenizer, delimiters=chat_delimiters(self._tokenizer))
        before, after = self._input_template
        if isinstance(before, str) and isinstance(after, str):
            render = self._tokenizer
            return PromptInputFinder(
                self._task_tokenizer,
                Template.rendered(lambda text: render(f"{before}{text}{after}")["input_ids"]),
            )
        return PromptInputFinder(
            self._task_tokenizer, Template(tuple(as_ids(before).tolist()), tuple(as_ids(after).tolist()))
        )


_CALL_OPTIONS = {
    "prompts", "system", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed",
    "positions", "eos", "stop", "grammar", "stream", "finished", "salt", "check_plain",
}  # fmt: skip
"""Options of `Generator.generate`; all others are the generator's own."""


def generate(model: Any, tokenizer: Any, inputs: Sequence[Input] | None = None, **options: Any) -> Generations:
    """Answer prompts once: `Generator(model, tokenizer, …).generate(inputs, …)` in one call.

    Args:
        model: See `Generator`.
        tokenizer: See `Generator`.
        inputs: See `Generator.generate`.
        **options: Options of `Generator` (index, max_draft, batch_size, …) and of `Generator.generate` (max_tokens, …).
            `index` may also be a list with one index per prompt.
    """
    call = {name: options.pop(name) for name in _CALL_OPTIONS & options.keys()}
    if isinstance(options.get("index"), (list, tuple)):
        call["index"] = options.pop("index")
    with Generator(model, tokenizer, **options) as generator:
        return generator.generate(inputs, **call)


@contextmanager
def _session(lock: ModelLock, target: Target, prepacked: PrepackedLinears, compiled: CompiledModules) -> Iterator[None]:
    """Wait for the model, and make it ready for steps inside the `with` block.

    Autocast, which is a thread's own, is off: the text must not depend on the thread that runs the loop.
    """
    plain = torch.autocast(target.device.type, enabled=False)
    with lock, plain, evaluating(target.model), prepacked.applied(), compiled.applied():
        yield


def _keep_served(jobs: Sequence[Job], *, forces_eos: bool) -> None:
    """Add the outputs that ended with an EOS to the drafters that drafted for them.

    Args:
        jobs: Jobs that have ended.
        forces_eos: Whether the last token of an output of the greatest length is an EOS whatever the model says. Such
            an output is cut off, and is not added.
    """
    rows: dict[SafeDrafter, list[Job]] = {}
    for job in jobs:
        is_cut = forces_eos and len(job.output) == job.max_tokens
        if job.finish_reason == "eos" and job.drafter is not None and not is_cut:
            rows.setdefault(job.drafter, []).append(job)
    for drafter, done in rows.items():
        drafter.serve([(job.input_text, job.output) for job in done])


def _key(index: Any) -> int | str:
    """Return what an index is known by: its path, or its identity."""
    return str(index) if isinstance(index, (str, PathLike)) else id(index)


def _compared(item: Generation, plain: list[int]) -> Generation:
    """Return the generation with its divergence from plain decoding counted."""
    item.stats.divergences = int(item.ids != plain)
    if item.ids == plain:
        return item
    pairs = enumerate(zip(item.ids, plain, strict=False))
    first = next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(item.ids), len(plain)))
    return replace(item, first_difference=first)


def _per_prompt(name: str, value: Any, kind: type, count: int) -> list[Any]:
    """Return an option that is given for all prompts, or per prompt, as a list of objects of a kind and None."""
    values = [value] * count if value is None or isinstance(value, kind) else value
    if not isinstance(values, (list, tuple)) or not all(one is None or isinstance(one, kind) for one in values):
        raise wrong(name, value, f"a {kind.__name__}, or a list of {kind.__name__} and None")
    if len(values) != count:
        raise InputError(f"{name}= lists {len(values)} values for {count} prompts; give one per prompt, or one")
    return list(values)


def _is_template(value: Any) -> bool:
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    return is_pair and all(isinstance(part, (str, list, tuple)) for part in value)


def _whole_numbers(name: str, values: int | Sequence[int]) -> list[int]:
    """Return one whole number ≥ 0, or several, as a list."""
    try:
        listed: list[Any] = [values] if isinstance(values, str) else list(values)  # type: ignore[arg-type]
    except TypeError:  # one number
        listed = [values]
    return [whole_number(name, value, 0) for value in listed]
