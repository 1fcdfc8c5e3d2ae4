"""The probe: which way of running a model gives the model's own text.

Nothing about a model is taken from a list of names. A shrunken twin of the model decodes with `generate`; then the
ways to run it are tried in the order of their speed, and the first whose logits agree is taken:

1. batched: requests of a batch in one pass, over a `RowCache`.
2. single: one request per pass, over the model's own cache.
3. undrafted: as single, one token at a time.

Each is tried as the verify loop uses it: several tokens onto a filled cache, a draft taken back, a row beside a longer
one, a short prompt after a long one with the same prefix. If rotary factors change at a length, a twin whose factors
change after a few tokens tells how `generate` crosses it. What is found is kept on disk by class, configuration and
version of transformers. The model itself runs three short passes: eight tokens in one pass and in two.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

from tasc.decoding.engine.model_cache import cache_argument
from tasc.decoding.engine.replaced_linear import mixing_layer, rounding_layer
from tasc.decoding.engine.target import Drive, Mode, Target, evaluating, unwrapped
from tasc.decoding.engine.twin import make_twin, quiet_transformers, rope_switch, shrunken
from tasc.drafting.defaults import MAX_DRAFT
from tasc.errors import InputError
from tasc.files import atomic_path, read_json
from tasc.models import cache_root

_log = logging.getLogger(__name__)

_PROMPT, _NEW, _FEW = 20, 100, 40  # tokens; the last is for the model itself
_SWITCH = _PROMPT + 6  # tokens at which a twin's rotary factors change
_FAR = 1000  # tokens; longer than any reference
_TOLERANCE = 1e-3  # of the logits' spread, in fp32 on a CPU: rounding is below it, another sum is above it
_LOW_TOLERANCE = 0.1  # elsewhere
_ROUNDS = "%s rounds its inputs, and a draft can then decide between two almost equal logits, as in bf16"

_known: WeakKeyDictionary[Any, Drive | str] = WeakKeyDictionary()  # or why there is none


def probed_target(model: Any, probe: bool = True) -> Target:
    """Return a target that runs a model in the fastest way that gives its own text.

    Args:
        model: A causal language model.
        probe: False: do not run anything; take the way that fits the kinds of layers. The text may be another one then.

    Raises:
        InputError: As `find_drive`.
    """
    return Target(model, find_drive(model) if probe else _drives(unwrapped(model))[0][0])


def find_drive(model: Any) -> Drive:
    """Return the fastest way to run a model that gives its own text; a warning says what it restricts.

    Raises:
        InputError: No way gives the model's own text, or it is an encoder-decoder.
    """
    model = unwrapped(model)
    if model not in _known:
        try:
            with evaluating(model), torch.inference_mode():
                found = _known[model] = _found(model)
                rounding = rounding_layer(model) if found.mode != "undrafted" else None
            if found.reason:
                _log.warning("%s %s", type(model).__name__, found.reason)
            if rounding is not None:
                _log.warning(
                    "%s may give another text than its own generate: %s", type(model).__name__, _ROUNDS % rounding
                )
        except InputError as error:
            _known[model] = str(error)
            raise
    drive = _known[model]
    if isinstance(drive, str):
        raise InputError(drive)
    return drive


def _found(model: Any) -> Drive:
    """Return the way to run a model, from the disk, from a twin or from the model itself."""
    path = cache_root() / "probes" / f"{_key(model)}.json"
    drive = _read(path)
    if drive is None:
        drive = _of_twin(model) or _examined(model, _FEW)
        _write(path, drive)
    mixing = mixing_layer(model)
    if mixing is not None:
        reason = f"what {mixing} gives for a token depends on the other tokens of a pass"
        return replace(drive, mode="undrafted", reason=_restriction("undrafted", reason))
    if drive.mode != "undrafted" and not _agrees(model, drive):
        return _examined(model, _FEW)
    return drive


def _of_twin(model: Any) -> Drive | None:
    """Return the way to run a model's twin; None without a twin that can be checked."""
    switch = rope_switch(model.config.get_text_config())
    twin = make_twin(model, None if switch is None else max(switch, _FAR))
    if twin is None:
        return None
    try:
        drive = _examined(twin, _NEW)
    except _CannotCheck:
        return None
    return drive if switch is None else _with_switch(drive, model, switch)


def _drives(model: Any) -> tuple[list[Drive], str]:
    """Return the ways that a model's code allows, the fastest first, and why batches are not among them.

    Raises:
        InputError: There is none.
    """
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError(f"{name} is an encoder-decoder; tasc drafts for decoder-only models (AutoModelForCausalLM)")
    if not cache_argument(model):
        raise InputError(f"{name} keeps no cache of past tokens, which drafts need; call model.generate instead")
    alone = [Drive(mode="single"), Drive(mode="single", crops=False), Drive(mode="undrafted")]
    config = model.config.get_text_config(decoder=True)
    if config._attn_implementation not in ("sdpa", "eager"):
        return alone, f"attn_implementation={config._attn_implementation!r} takes no mask per request; 'sdpa' does"
    try:
        layers = DynamicCache(config=config).layers
    except Exception as error:  # of a configuration of another shape
        return alone, f"no cache can be made from its configuration ({type(error).__name__})"
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers):
        return alone, "its recurrent layers take no padding"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return alone, "it places tokens by itself"
    return [Drive(), *alone], ""


@dataclass(slots=True)
class _Reference:
    """What `generate` gives: tokens, and logits before each new one.

    Attributes:
        tokens: (prompt + new) ids.
        num_prompt: Prompt ids among them.
        logits: (new, V); entry i follows the first `num_prompt + i` tokens.
        tolerance: Greatest difference that counts as rounding.
    """

    tokens: list[int]
    num_prompt: int
    logits: Tensor
    tolerance: float

    def check(self, made: Tensor, end: int) -> None:
        """Compare (k, V) logits after the last tokens of a pass; the row then holds `end` tokens.

        Raises:
            _Differs: They differ by more than rounding.
        """
        last = end - self.num_prompt + 1
        wanted = self.logits[max(0, last - made.shape[0]) : last]
        made = made[-len(wanted) :].float()
        difference = float((made - wanted).abs().max() / wanted.std())
        if not difference <= self.tolerance:
            raise _Differs(difference)


class _CannotCheck(InputError):
    """A model whose own `generate` fails."""


class _Differs(Exception):
    """Logits that differ from those of `generate`, by a part of their spread."""

    def __init__(self, difference: float) -> None:
        super().__init__(f"logits differ by {difference:.2g} of their spread")


def _examined(model: Any, num_tokens: int) -> Drive:
    """Return the first way of running a model that gives the logits of `generate` for so many tokens.

    Raises:
        InputError: None does.
    """
    name = type(model).__name__
    drives, reason = _drives(model)
    try:
        reference = _reference(model, num_tokens)
    except Exception as error:
        failed = f"its own generate raises {type(error).__name__} under torch.inference_mode; try it there to see why"
        raise _CannotCheck(f"{name} cannot be checked: {failed}") from error
    checks = {"batched": _check_batched, "single": _check_single, "undrafted": _check_undrafted}
    failure: Exception | None = None
    for drive in drives:
        failure = _failure(lambda drive=drive: checks[drive.mode](Target(model, drive), reference))  # type: ignore[misc]
        if failure is None:
            return replace(drive, reason=_restriction(drive.mode, reason))
        _log.debug("%s cannot be run as %s", name, drive, exc_info=failure)
        reason = _reason(failure, drive.mode)
    raise InputError(
        f"{name} does not give the text of its own generate in the verify loop ({reason}); call model.generate instead"
    ) from failure


def _restriction(mode: Mode, reason: str) -> str:
    """Return what a mode restricts and why, after the model's name."""
    if mode == "single":
        return f"runs one request at a time: {reason}"
    return f"runs token by token, without drafts, which would change its text: {reason}" if mode == "undrafted" else ""


def _failure(check: Callable[[], None]) -> Exception | None:
    try:
        check()
    except Exception as error:  # whatever a model's code raises
        return error
    return None


def _reason(failure: Exception, mode: Mode) -> str:
    """Return what a failed check of a mode says of a model: a clause."""
    if isinstance(failure, (_Differs, InputError)):
        return str(failure)
    inputs = {"batched": "batches", "single": "drafts", "undrafted": "single tokens"}[mode]
    return f"its forward pass raises {type(failure).__name__} on {inputs}"


def _agrees(model: Any, drive: Drive) -> bool:
    failure = _failure(lambda: _check_two_passes(Target(model, drive)))
    if failure is not None:
        _log.warning("%s differs from its twin: %s", type(model).__name__, _reason(failure, drive.mode))
    return failure is None


def _reference(model: Any, num_tokens: int) -> _Reference:
    vocab = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(1, min(vocab, 1000), (1, _PROMPT), generator=generator)
    with _plain_generation(model), quiet_transformers():
        output = model.generate(
            prompt.to(model.device),
            attention_mask=torch.ones_like(prompt).to(model.device),
            max_new_tokens=num_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack([step[0].float() for step in output.logits])
    return _Reference(output.sequences[0].tolist(), _PROMPT, logits, _tolerance(model))


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Let a model's `generate` decode plainly to the end inside the `with` block."""
    config = model.generation_config
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = config


def _tolerance(model: Any) -> float:
    is_exact = model.dtype == torch.float32 and model.device.type == "cpu" and rounding_layer(model) is None
    return _TOLERANCE if is_exact else _LOW_TOLERANCE


def _junk(tokens: Sequence[int], count: int) -> list[int]:
    """Tokens for a wrong draft."""
    return [token - 1 if token > 1 else token + 1 for token in tokens[:count]]


def _passes(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Passes from one position to another: a short draft and one longer than the longest, in turn."""
    for width in cycle((9, MAX_DRAFT + 6)):
        if start == end:
            return
        yield start, min(start + width, end)
        start = min(start + width, end)


def _check_batched(target: Target, reference: _Reference) -> None:
    seq, n = reference.tokens, reference.num_prompt
    cache = target.new_cache(3)
    other = _junk(seq[::-1], len(seq))
    long = n + 6

    def step(tokens: Sequence[int], start: int, keep: int, beside: Sequence[int], beside_start: int) -> Tensor:
        return target.step(cache, 0, [beside, tokens], [beside_start, start], keep)[1]

    reference.check(step(seq[: n + 3], 0, 4, other[:long], 0), n + 3)  # a prompt and its draft beside a longer row
    reference.check(step([seq[n + 3], *_junk(seq, 5)], n + 3, 6, other[long:][:2], long)[:1], n + 4)
    reference.check(step(seq[n + 4 : n + 9], n + 4, 5, other[long + 2 :][:8], long + 2), n + 9)  # the draft taken back
    cache.copy_row(1, 2, n - 4)
    reference.check(target.step(cache, 2, [seq[n - 4 : n + 1]], [n - 4], 2)[0], n + 1)  # a prefix used again
    reference.check(target.step(cache, 1, [seq[n + 9 : n + 12]], [n + 9], 3)[0], n + 12)
    reference.check(target.step(cache, 1, [[seq[n + 12]]], [n + 12], 1)[0], n + 13)
    for start, end in _passes(n + 13, len(seq) - 1):
        reference.check(target.step(cache, 1, [seq[start:end]], [start], end - start)[0], end)


def _check_single(target: Target, reference: _Reference) -> None:
    seq, n = reference.tokens, reference.num_prompt
    cache: Any = target.new_cache(2)
    reference.check(cache.step(0, seq[:n], 0, 1)[0], n)
    reference.check(cache.step(0, [seq[n], *_junk(seq, 4)], n, 5)[0, :1], n + 1)
    kept = cache.keep(0, n + 1)  # the draft taken back
    reference.check(cache.step(0, seq[kept : n + 6], kept, 5)[0], n + 6)
    kept = cache.keep(0, n + 6)
    reference.check(cache.step(0, seq[kept : n + 7], kept, 1)[0], n + 7)
    for start, end in _passes(n + 7, len(seq) - 1):
        reference.check(cache.step(0, seq[start:end], start, end - start)[0], end)
        cache.keep(0, end)
    cache.copy_row(0, 1, n - 3)
    reference.check(cache.step(1, seq[:n], 0, 1)[0], n)  # in two passes, with a copy between them
    kept = cache.copy_row(1, 0, n - 3)
    reference.check(cache.step(0, seq[kept : n + 2], kept, 1)[0], n + 2)  # the copy used again


def _check_undrafted(target: Target, reference: _Reference) -> None:
    seq, n = reference.tokens, reference.num_prompt
    cache: Any = target.new_cache(1)
    reference.check(cache.step(0, seq[:n], 0, 1)[0], n)
    for at in range(n, n + 8):
        reference.check(cache.step(0, [seq[at]], at, 1)[0], at + 1)


def _with_switch(drive: Drive, model: Any, length: int) -> Drive:
    """Return the way to run a model whose rotary factors may change above `length` tokens."""
    twin = make_twin(model, _SWITCH)
    reason = (
        f"runs texts of up to {length} tokens: its rotary factors change there, and longer texts are not known to be "
        "its own"
    )
    limited = replace(drive, reason=f"{drive.reason}; {reason}".lstrip("; "), max_length=length)
    if twin is None:
        return limited
    reference, end = _reference(twin, _FEW), _SWITCH + 4
    whole, shorter, longer = (0, end, end - _PROMPT), (0, _SWITCH, 1), (_SWITCH, end, 4)
    if _failure(lambda: _check_passes(twin, drive, reference, whole)) is None:
        return drive  # nothing changes there
    if _failure(lambda: _check_passes(twin, drive, reference, shorter, longer)) is None:
        return replace(drive, rope_switch=length)
    if _failure(lambda: _check_passes(twin, drive, reference, shorter, (0, end, 4))) is None:
        return replace(drive, rope_switch=length, recomputes=True)
    return limited


def _check_passes(model: Any, drive: Drive, reference: _Reference, *passes: tuple[int, int, int]) -> None:
    """Run passes over one row, each from a token to another; compare the logits of the last positions of each."""
    target = Target(model, drive)
    cache = target.new_cache(1)
    for start, end, keep in passes:
        reference.check(target.step(cache, 0, [reference.tokens[start:end]], [start], keep)[0], end)


def _check_two_passes(target: Target) -> None:
    """Compare eight tokens in one pass with the same tokens in two."""
    half = min(8, target.max_length or 8) // 2
    if half == 0:
        return
    tokens = [at % target.vocab_size for at in range(1, 2 * half + 1)]
    one, two = target.new_cache(1), target.new_cache(1)
    wanted = target.step(one, 0, [tokens], [0], half)[0].float()
    target.step(two, 0, [tokens[:half]], [0], 1)
    made = target.step(two, 0, [tokens[half:]], [half], half)[0].float()
    if not wanted.isfinite().all():
        return  # not a matter of how the model is run; the loop refuses such logits
    difference = float((made - wanted).norm() / (wanted - wanted.mean()).norm())
    if difference > _tolerance(target.model):
        raise _Differs(difference)


def _key(model: Any) -> str:
    """Return the name of a model's file: class, code version, shrunken configuration, attention implementation."""
    with quiet_transformers():
        config = shrunken(model.config, 1).to_json_string(use_diff=False)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    versions = f"{transformers.__version__} {torch.__version__} {_engine_digest()}"
    code = _source(type(model))
    parts = (kind, code, versions, model.config._attn_implementation, str(rope_switch(model.config)), config)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _source(kind: type) -> str:
    """Return the code of the module that defines a class; "" where it has no file."""
    try:
        return Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return ""


@cache
def _engine_digest() -> str:
    """Return a digest of this package's code: another engine is probed again."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(code).hexdigest()


def _read(path: Path) -> Drive | None:
    try:
        return Drive(**read_json(path))
    except (OSError, InputError, TypeError):
        return None  # not there, or not written by this version: it is probed again


def _write(path: Path, drive: Drive) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(drive)), encoding="utf-8")
    except OSError as error:
        _log.info("the probe's result is not kept: %s", error)
