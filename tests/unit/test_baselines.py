"""The peers behind the drafter protocol draft what their authors' code drafts."""

import gc
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasc.errors import InputError
from tasc.evaluation.baselines import (
    BaselineMissingError,
    PromptLookupDrafter,
    SuffixDecodingDrafter,
    suffix_decoding_installed,
    suffix_depth,
)


def scanned_lookup(context: list[int], max_ngram: int, max_tokens: int) -> list[int]:
    """Prompt lookup as a scan from the left, the longest n-gram first."""
    for n in range(max_ngram, 0, -1):
        for start in range(len(context) - n):
            if n <= len(context) and context[start : start + n] == context[-n:]:
                return context[start + n : start + n + max_tokens]
    return []


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=10), st.integers(0, 6))
def test_prompt_lookup_agrees_with_a_scan(prompt: list[int], output: list[int], max_tokens: int) -> None:
    request = PromptLookupDrafter(3).start(prompt)
    for at in range(len(output) + 1):
        expected = scanned_lookup(prompt + output[:at], 3, max_tokens)
        assert request.draft(max_tokens).tokens.tolist() == expected
        request.update(output[at : at + 1])


def test_prompt_lookup_agrees_with_transformers() -> None:
    torch = pytest.importorskip("torch")
    candidates = pytest.importorskip("transformers.generation.candidate_generator")
    theirs = candidates.PromptLookupCandidateGenerator(num_output_tokens=5, max_matching_ngram_size=3, max_length=1000)
    rng = np.random.default_rng(0)
    for _ in range(50):
        context = rng.integers(0, 5, size=20).tolist()
        ids, _ = theirs.get_candidates(torch.tensor([context]))
        assert PromptLookupDrafter(3).start(context).draft(5).tokens.tolist() == ids[0, 20:].tolist()


def test_propose_batch_is_one_draft_per_request() -> None:
    drafter = PromptLookupDrafter()
    requests = [drafter.start(p) for p in ([1, 2, 1], [3, 4])]
    assert [d.tokens.tolist() for d in drafter.propose_batch(requests, 4)] == [[2, 1], []]


def test_prompt_lookup_needs_an_ngram() -> None:
    with pytest.raises(InputError, match="max_ngram is 0"):
        PromptLookupDrafter(0)


def test_the_tree_is_deeper_than_the_draft() -> None:
    assert [suffix_depth(k) for k in (1, 16, 17, 64)] == [24, 24, 49, 96]


OUTPUTS = [[1, 2, 3, 4, 5, 6, 99]] * 3 + [[7, 8, 9, 99]]


def suffix(factor: float = 4.0, outputs: Sequence[Sequence[int]] = OUTPUTS) -> SuffixDecodingDrafter:
    pytest.importorskip("arctic_inference.suffix_decoding")
    return SuffixDecodingDrafter(outputs, factor=factor)


def test_suffix_decoding_continues_the_warmed_outputs() -> None:
    request = suffix().start([50, 51])
    request.update([1, 2])
    draft = request.draft(4)
    assert draft.tokens.tolist() == [3, 4, 5, 6]
    assert draft.probs.tolist() == pytest.approx([3 / 4, 1, 1, 1])  # the request's own 1 2 is counted too
    assert request.draft(0).tokens.tolist() == []


def test_the_factor_bounds_the_draft_by_the_match() -> None:
    assert [len(suffix(f).start([50, 1]).draft(4).tokens) for f in (1.0, 2.0, 16.0)] == [1, 2, 4]


def test_suffix_decoding_probabilities_are_of_one_token() -> None:
    request = suffix(16.0, [[1, 2, 3], [1, 2, 4], [1, 2, 3], [1, 5, 6]]).start([9])
    request.update([1])
    draft = request.draft(2)
    assert draft.tokens.tolist() == [2, 3]
    assert draft.probs.tolist() == pytest.approx([3 / 5, 2 / 3])


def test_suffix_decoding_forgets_a_dropped_request() -> None:
    drafter = suffix()
    before = len(drafter.cache.cached_requests)
    request = drafter.start([50])
    request.update([60, 61, 62])
    assert len(drafter.cache.cached_requests) == before + 1
    del request
    gc.collect()
    assert len(drafter.cache.cached_requests) == before
    assert not drafter.cache.active_requests
    after = drafter.start([50])
    after.update([60])
    assert after.draft(4).tokens.tolist() == []


def test_suffix_decoding_runs_many_requests_at_once() -> None:
    drafter = suffix(16.0)
    requests = [drafter.start([50]), drafter.start([51])]
    requests[0].update([1])
    requests[1].update([7])
    assert [d.tokens.tolist()[:2] for d in drafter.propose_batch(requests, 3)] == [[2, 3], [8, 9]]


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arctic_inference.suffix_decoding", None)
    with pytest.raises(BaselineMissingError, match=r"pip install .*arctic-inference"):
        SuffixDecodingDrafter([])


def test_installed_says_whether_it_can_be_made() -> None:
    if suffix_decoding_installed():
        assert SuffixDecodingDrafter([]).name == "suffix-1"
    else:
        with pytest.raises(BaselineMissingError):
            SuffixDecodingDrafter([])
