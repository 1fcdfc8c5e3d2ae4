"""`generate` of transformers with tasc's drafts: the same call, the same text, fewer passes of the model.

Two ways in. `TascGenerate` goes into one call as `custom_generate=`; `patch` makes every `generate` of a model draft
for as long as it lasts. Both run transformers' own assisted decoding with `TascCandidateGenerator` as its candidates,
so logits processors, sampling, EOS lists and the returned value are transformers' own.
"""

from __future__ import annotations

import inspect
import logging
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from typing import TYPE_CHECKING, Any

from tasc.adapters.transformers_candidates import PLAIN_ENDS, ModelPolicy, TascCandidateGenerator
from tasc.adapters.transformers_processors import InOrderProcessors, may_keep_state
from tasc.decoding.engine.probe import find_drive
from tasc.decoding.processors import mode_refusal
from tasc.drafting.costs import GivenCosts
from tasc.drafting.defaults import MAX_DRAFT
from tasc.errors import InputError, MissingExtraError
from tasc.serving.tasks import TaskDrafts

try:
    from transformers import DynamicCache, GenerationMixin
except ImportError as error:
    raise MissingExtraError("tasc.adapters.transformers", "hf") from error

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.drafting.protocol import Drafter

__all__ = ["TascCandidateGenerator", "TascGenerate", "patch"]

_log = logging.getLogger(__name__)


class TascGenerate:
    """A decoding loop for `model.generate(…, custom_generate=…)` that drafts from a task's index.

    Make one and keep it: it learns from every request. Any number of models with one tokenizer may use it.

    Args:
        index: The task's `TaskIndex`, or its path; None: each request's own context alone.
        tokenizer: The model's tokenizer; None: prompts are not searched for their input.
        drafter: A `Drafter` instead of an index.
        max_draft: Longest draft.
        costs: Cost of verifying drafted tokens: a slope c for 1 + c·k, or an array [k]; None: measured on each model
            before its first draft (about a second for a small model), then followed.
        learn: Whether outputs that ended with an EOS are added to the drafter, and kept in the log beside the index.
        **options: Of `tasc.serving.TaskDrafts`, such as `served_bytes`, `log_bytes` and `log_days`.

    Raises:
        InputError: An option is out of its range.
        TokenizerMismatchError: The index was made with another tokenizer.

    Examples:
        >>> tasc_generate = TascGenerate("task.tasc", tokenizer)                                 # doctest: +SKIP
        >>> model.generate(**inputs, max_new_tokens=128, custom_generate=tasc_generate)          # doctest: +SKIP
        >>> model.generate(**inputs, custom_generate=tasc_generate, tasc_input="book a table")   # doctest: +SKIP
    """

    def __init__(
        self,
        index: TaskIndex | str | PathLike[str] | None = None,
        tokenizer: Any = None,
        *,
        drafter: Drafter | None = None,
        max_draft: int = MAX_DRAFT,
        costs: float | Sequence[float] | None = None,
        learn: bool = False,
        **options: Any,
    ) -> None:
        if max_draft < 1:
            raise InputError(f"max_draft is {max_draft}; it must be at least 1")
        if costs is not None:
            GivenCosts(costs)
        self.drafts = TaskDrafts(index, tokenizer, drafter=drafter, learn=learn, **options)
        self._max_draft, self._costs = max_draft, costs
        self._policies: weakref.WeakKeyDictionary[Any, ModelPolicy] = weakref.WeakKeyDictionary()  # by model
        self._warned: set[str] = set()

    def __call__(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,
        streamer: Any = None,
        tasc_input: str | None = None,
        tasc_salt: str | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Decode one sequence; called by `generate`, which prepares all arguments but two.

        `tasc_input` is the request's input as text; without it the prompt is searched for the input. `tasc_salt` is
        the request's salt: it drafts with the salt's own drafter, which learns from this salt's requests alone.

        Raises:
            InputError: Assisted decoding cannot do this call (several sequences, beams, …); names the alternative.
        """
        refusal = _refusal(model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)
        if refusal is not None:
            raise InputError(refusal)
        streamer = _dropped_streamer() if streamer is None else streamer
        return self._decode(
            model, input_ids, logits_processor, stopping_criteria, generation_config, tasc_input, tasc_salt,
            synced_gpus=synced_gpus, streamer=streamer, **model_kwargs,
        )  # fmt: skip

    def sample(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **rest: Any,
    ) -> Any:
        """Replace the model's own `_sample`. Where drafts cannot be used, decode plainly and warn once."""
        given = (model, input_ids, logits_processor, stopping_criteria, generation_config)
        refusal = _refusal(*given, rest)
        if refusal is None:
            return self._decode(*given, None, None, **rest)
        if refusal not in self._warned:
            self._warned.add(refusal)
            _log.warning("decoding without drafts: %s", refusal)
        return _own_class(model)._sample(*given, **rest)

    def _decode(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        tasc_input: str | None,
        tasc_salt: str | None,
        **rest: Any,
    ) -> Any:
        if model not in self._policies:
            self._policies[model] = ModelPolicy(self._costs, model=model, max_draft=self._max_draft)
        if may_keep_state(logits_processor):
            logits_processor = InOrderProcessors(logits_processor, generation_config.do_sample)
        eos = generation_config._eos_token_tensor
        candidates = TascCandidateGenerator(
            self.drafts if tasc_salt is None else self.drafts.salted(tasc_salt),
            model_policy=self._policies[model],
            max_draft=self._max_draft,
            max_length=generation_config.max_length,
            vocab_size=model.config.get_text_config().vocab_size,
            eos=[] if eos is None else eos.flatten().tolist(),
            forces_eos=generation_config.forced_eos_token_id is not None,
            stopping_criteria=stopping_criteria,
            input_text=tasc_input,
        )
        return type(model)._assisted_decoding(
            _Assisted(model, candidates),
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **rest,
        )


@contextmanager
def patch(
    model: Any,
    index: TascGenerate | TaskIndex | str | PathLike[str] | None = None,
    tokenizer: Any = None,
    **options: Any,
) -> Iterator[TascGenerate]:
    """Makes a model's `generate` draft with tasc while the context is open.

    tasc drafts for greedy decoding and sampling of one sequence. All other calls run as before; where drafts cannot be
    used, a warning says so. Patches nest: the innermost counts.

    Args:
        model: A transformers model, or a PEFT model around one.
        index: A `TascGenerate`, or what it takes as `index`.
        tokenizer: As in `TascGenerate`.
        **options: Of `TascGenerate`.

    Raises:
        InputError: The model has no `generate` of transformers, or as `TascGenerate`.
        TokenizerMismatchError: As `TascGenerate`.

    Examples:
        >>> with patch(model, "task.tasc", tokenizer):  # doctest: +SKIP
        ...     model.generate(**inputs, max_new_tokens=128)
    """
    if isinstance(index, TascGenerate):
        if tokenizer is not None or options:
            raise InputError("a TascGenerate has its tokenizer and options already; give them where it is made")
        tasc_generate = index
    else:
        tasc_generate = TascGenerate(index, tokenizer, **options)
    target = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(target, GenerationMixin):
        raise InputError(f"{type(model).__name__} has no generate of transformers; give an AutoModelForCausalLM")
    with suppress(InputError):
        find_drive(target)  # before its generate drafts
    previous = type(target)
    target.__class__ = _drafting(_own_class(target), tasc_generate)
    try:
        yield tasc_generate
    finally:
        target.__class__ = previous


def _drafting(own: Any, tasc_generate: TascGenerate) -> type:
    """Return a subclass of a model's class that samples with drafts; greedy decoding is the same method."""
    sample = lambda self, *args, **kwargs: tasc_generate.sample(self, *args, **kwargs)  # noqa: E731
    body = {"_sample": sample, "_tasc_own": own, "__module__": own.__module__, "__qualname__": own.__qualname__}
    return type(own.__name__, (own,), body)


def _own_class(model: Any) -> Any:
    """Return a model's class outside of `patch`."""
    return getattr(type(model), "_tasc_own", type(model))


class _Assisted:
    """Wrapper of a model whose candidates come from tasc. The model itself is not changed."""

    def __init__(self, model: Any, candidates: TascCandidateGenerator) -> None:
        self._model, self._candidates = model, candidates

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _get_candidate_generator(self, **_: Any) -> TascCandidateGenerator:
        return self._candidates


def _refusal(
    model: Any,
    input_ids: Any,
    logits_processor: Any,
    stopping_criteria: Any,
    config: Any,
    model_kwargs: dict[str, Any],
) -> str | None:
    """Return why assisted decoding cannot do a call and what to do instead; None if it can."""
    own = _own_class(model)
    if own._sample is not GenerationMixin._sample:
        return f"{own.__name__} has a decoding loop of its own, which cannot be drafted for"
    if input_ids.shape[0] > 1:
        return (
            f"{input_ids.shape[0]} sequences at once, but transformers' assisted decoding takes one; call generate per "
            "sequence, or use tasc.Generator(batch_size=…), which drafts for batches"
        )
    other_mode = mode_refusal(config)
    if other_mode is not None:
        return other_mode
    if model.config.is_encoder_decoder or model._is_stateful:
        return f"{own.__name__} is an encoder-decoder or has a recurrent state; drafts need attention over a cache"
    try:
        drive = find_drive(model)
    except InputError as error:
        return str(error)
    if drive.mode == "undrafted":
        return f"{own.__name__} {drive.reason}"
    limit = drive.rope_switch if drive.max_length is None else drive.max_length
    if limit is not None and input_ids.shape[1] <= limit < config.max_length:
        return (
            f"{own.__name__} takes other rotary factors above {limit} tokens, and this call may reach "
            f"{config.max_length}; lower max_new_tokens, or use tasc.Generator, which drafts on both sides"
        )
    if model_kwargs.get("inputs_embeds") is not None or input_ids.shape[1] == 0:
        return "a prompt of embeddings has no ids to draft from; give input_ids"
    cache = model_kwargs.get("cache", model_kwargs.get("past_key_values"))  # the latter before transformers 5.24
    if not model_kwargs.get("use_cache") or type(cache) is not DynamicCache or cache.get_seq_length() > 0:
        held = "no cache" if cache is None else f"another or a filled one ({type(cache).__name__})"
        return f"drafts need an empty DynamicCache, which is transformers' default; this call brings {held}"
    gives_scores = config.return_dict_in_generate and config.output_scores
    if gives_scores and any(not isinstance(end, PLAIN_ENDS) for end in stopping_criteria):
        return "stopping criteria that may read scores cannot be asked about a draft; leave output_scores out"
    if gives_scores and config.do_sample and may_keep_state(logits_processor):
        return "sampling with logits processors that may keep a state returns no scores; leave output_scores out"
    return None


def _dropped_streamer() -> Any:
    """Find the streamer of the calling `generate` in its stack frame.

    transformers passes the prompt to the streamer, and no streamer to a `custom_generate` function (seen up to 5.24).
    Without this, a streamer would get the prompt, no token and no end.
    """
    code = inspect.unwrap(GenerationMixin.generate).__code__
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else frame.f_locals["streamer"]
