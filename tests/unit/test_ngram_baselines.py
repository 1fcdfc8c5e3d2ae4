"""TASC-spec and N-Grammys as published: their counts, mixture and chains equal a slow reading of the papers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasc.errors import InputError
from tasc.evaluation.ngram_baselines import (
    ContextSuccessors,
    NGrammysDrafter,
    NgramSuccessors,
    TascPaperDrafter,
)
from tasc.evaluation.replay import ReplayRow, replay

TOKENS = st.integers(0, 3)
EOS = 3


def ngrams(documents: Sequence[Sequence[int]], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1))


def distribution(
    documents: Sequence[Sequence[int]], context: Sequence[int], n_max: int, p_min: int
) -> dict[int, float]:
    """Relative frequencies after the longest match: every n-gram is counted, pruned and compared."""
    for n in range(n_max, 0, -1):
        if n - 1 > len(context):
            continue
        end = tuple(context[len(context) - (n - 1) :])
        found = {gram[-1]: c for gram, c in ngrams(documents, n).items() if gram[:-1] == end and c >= p_min}
        if found:
            return {token: count / sum(found.values()) for token, count in found.items()}
    return {}


def slow_draft(
    documents: Sequence[Sequence[int]], seen: Sequence[int], n_max: int, p_min: int, share: float, gamma: int
) -> tuple[list[int], list[float]]:
    """γ tokens, each the argmax of the mixture over the whole vocabulary."""
    tokens: list[int] = []
    probs: list[float] = []
    while len(tokens) < gamma and EOS not in tokens:
        corpus = distribution(documents, [*seen, *tokens], n_max, p_min)
        prompt = distribution([seen], [*seen, *tokens], n_max, 1)
        mixed = {t: share * corpus.get(t, 0.0) + (1.0 - share) * prompt.get(t, 0.0) for t in sorted({*corpus, *prompt})}
        if not any(mixed.values()):
            break
        best = max(mixed, key=lambda token: mixed[token])  # the first of equals
        tokens.append(best)
        probs.append(mixed[best])
    return tokens, probs


@given(
    st.lists(st.lists(TOKENS, max_size=12), max_size=6),
    st.lists(TOKENS, max_size=12),
    st.lists(TOKENS, max_size=6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    st.integers(1, 6),
)
def test_the_drafter_agrees_with_a_slow_twin(
    documents: list[list[int]],
    prompt: list[int],
    output: list[int],
    n_max: int,
    p_min: int,
    share: float,
    gamma: int,
) -> None:
    counts = NgramSuccessors(documents, 4, p_min)
    request = TascPaperDrafter(counts, EOS, n_max=n_max, gamma=gamma, share=share).start(prompt)
    for at in range(len(output) + 1):
        tokens, probs = slow_draft(documents, [*prompt, *output[:at]], n_max, p_min, share, gamma)
        draft = request.draft(gamma)
        assert draft.tokens.tolist() == tokens
        assert draft.probs.tolist() == pytest.approx(probs)
        request.update(output[at : at + 1])


def test_counts_keep_apart_what_lies_in_different_documents() -> None:
    counts = NgramSuccessors([[1, 2], [3, 4]], 2)
    match = counts.longest_match(np.array([2], np.uint32).tobytes(), 2)
    assert match is not None and match[0] == 0  # 2 is followed by nothing: single tokens
    assert counts.best(match) == (1, 0.25)


def test_pruning_counts_what_is_left() -> None:
    documents = [[1, 2]] * 3 + [[1, 5]]
    context = np.array([1], np.uint32).tobytes()
    kept, pruned = (NgramSuccessors(documents, 2, p_min) for p_min in (1, 2))
    assert kept.best(kept.longest_match(context, 2) or (0, 0)) == (2, 0.75)
    assert pruned.best(pruned.longest_match(context, 2) or (0, 0)) == (2, 1.0)


def test_the_length_rule_cuts_where_more_does_not_pay() -> None:
    documents = [[1, 2, 4, 5, EOS]] * 8 + [[1, 2, 4, 6, EOS]] * 8
    drafter = TascPaperDrafter(NgramSuccessors(documents, 4), EOS, n_max=4, gamma=None, share=1.0)
    costs = [1.0 + c * np.arange(9) for c in (0.01, 0.3, 0.6)]
    assert [len(drafter.start([1]).draft(8, c).tokens) for c in costs] == [4, 2, 0]  # rate 2: 0.6 · 2 > 1


def test_the_length_rule_learns_that_its_drafts_are_wrong() -> None:
    drafter = TascPaperDrafter(NgramSuccessors([[1, 2, 1, 2, EOS]], 2), EOS, n_max=2, gamma=None, share=1.0)
    rows = [ReplayRow(np.array([1], np.uint32), np.array([7, 8, 7, 8, 9] * 20, np.uint32))]
    fixed = TascPaperDrafter(drafter.counts, EOS, n_max=2, gamma=4, share=1.0)
    assert replay(drafter, rows, cost=0.2).drafted < 50
    assert replay(fixed, rows, cost=0.2).drafted == 400


def scanned_chains(ids: list[int], successors: dict[int, list[int]], query: int, k: int, w: int) -> list[list[int]]:
    """N-Grammys' chains by a scan of the context."""
    found: list[list[int]] = []
    for start in range(len(ids) - query):
        if query and ids[start : start + query] == ids[len(ids) - query :]:
            window = ids[start + query : start + query + w]
            found.append(window[: window.index(EOS) + 1] if EOS in window else window)
    last = {tuple(window): place for place, window in enumerate(found)}
    ranked = sorted(last, key=lambda window: (-found.count(list(window)), -last[window]))
    chains = [list(window) for window in ranked]
    for first in successors.get(ids[-1], []) if ids else []:
        chain = [first]
        while len(chain) < w and chain[-1] != EOS and successors.get(chain[-1]):
            chain.append(successors[chain[-1]][0])
        if chain not in chains:
            chains.append(chain)
    return chains[:k]


@given(
    st.lists(TOKENS, max_size=20),
    st.dictionaries(TOKENS, st.lists(TOKENS, max_size=3, unique=True)),
    st.integers(0, 2),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_ngrammys_agrees_with_a_scan(
    ids: list[int], successors: dict[int, list[int]], query: int, k: int, w: int
) -> None:
    request = NGrammysDrafter(successors, EOS, query=query).start(ids[:5])
    request.update(ids[5:])
    expected = scanned_chains(ids, successors, query, k, w)
    assert request.chains(k, w) == expected
    assert request.draft(w).tokens.tolist() == next(iter(scanned_chains(ids, successors, query, 1, w)), [])


def test_top_successors_are_ranked_by_count() -> None:
    assert NgramSuccessors([[1, 2], [1, 4], [1, 4], [1, 0]], 2).top_successors(2) == {1: [4, 0]}


def test_a_context_matches_its_own_ngrams() -> None:
    context = ContextSuccessors(3)
    context.extend([1, 2, 1, 4])
    assert context.longest_match(np.array([9, 1], np.uint32).tobytes()) == {2: 1, 4: 1}
    assert context.longest_match(np.array([2, 1], np.uint32).tobytes()) == {4: 1}


@pytest.mark.parametrize(("n_max", "gamma", "share"), [(0, 4, 0.5), (3, 4, 0.5), (2, 0, 0.5), (2, 4, 1.5)])
def test_values_out_of_range_are_refused(n_max: int, gamma: int, share: float) -> None:
    with pytest.raises(InputError, match="n_max is"):
        TascPaperDrafter(NgramSuccessors([[1]], 2), 0, n_max=n_max, gamma=gamma, share=share)
    with pytest.raises(InputError, match="at least 1"):
        NgramSuccessors([[1]], 0)
