"""Logits processors in assisted decoding, called as plain decoding calls them.

Assisted decoding calls the processors on every drafted position, also behind the first token that the model does not
choose. A processor that keeps a state between its calls (guidance, a SynthID watermark, most grammars) is spoilt by
that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasc.errors import MissingExtraError

try:
    import torch
    from transformers.generation import logits_process
except ImportError as error:
    raise MissingExtraError("tasc.adapters.transformers", "hf") from error

_STATELESS = {
    "MinLengthLogitsProcessor", "MinNewTokensLengthLogitsProcessor", "TemperatureLogitsWarper",
    "RepetitionPenaltyLogitsProcessor", "EncoderRepetitionPenaltyLogitsProcessor", "TopPLogitsWarper",
    "TopKLogitsWarper", "TopHLogitsWarper", "MinPLogitsWarper", "TypicalLogitsWarper", "EpsilonLogitsWarper",
    "EtaLogitsWarper", "NoRepeatNGramLogitsProcessor", "EncoderNoRepeatNGramLogitsProcessor",
    "SequenceBiasLogitsProcessor", "NoBadWordsLogitsProcessor", "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor", "InfNanRemoveLogitsProcessor", "ExponentialDecayLengthPenalty",
    "LogitNormalization", "SuppressTokensAtBeginLogitsProcessor", "SuppressTokensLogitsProcessor",
}  # fmt: skip
"""Classes of `transformers.generation.logits_process` whose result depends on their arguments alone."""


def may_keep_state(processors: Iterable[Any]) -> bool:
    """Whether a processor may keep a state between its calls: one of transformers' own that does, or any other."""
    kinds = {type(process) for process in processors}
    return any(kind.__module__ != logits_process.__name__ or kind.__name__ not in _STATELESS for kind in kinds)


class InOrderProcessors(logits_process.LogitsProcessorList):
    """Logits processors that are called once per output position, in order, with the ids that are in the output.

    The token of a position is chosen here, right after its processors. The next position is processed if its ids end
    with that token; else it lies behind a wrong drafted token, and its scores, which are of no use, stay as they are.

    Args:
        processors: The processors of `generate`.
        do_sample: Whether tokens are sampled. The processed scores then leave nothing but the sampled token: 0 for it
            and −inf for all others.
    """

    def __init__(self, processors: Iterable[Any], do_sample: bool) -> None:
        super().__init__(processors)
        self._do_sample = do_sample
        self._next: tuple[int, int] | None = None  # number of ids at the next position, and the last of them

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """(1, L) ids and (1, V) scores of the position after them → (1, V) scores."""
        if self._next not in (None, (input_ids.shape[1], int(input_ids[0, -1]))):
            return scores
        scores = super().__call__(input_ids, scores, **kwargs)
        if self._do_sample:
            token = torch.multinomial(scores.softmax(dim=-1), num_samples=1)
            scores = torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
        self._next = input_ids.shape[1] + 1, int(scores.argmax())
        return scores
