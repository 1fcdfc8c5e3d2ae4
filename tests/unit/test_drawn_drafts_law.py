"""Drafts drawn from a distribution of their own: the output still follows the target's law, exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sampling_law import Uniforms
from tiny_models import Scripted, random_prompts, tiny_model

from tasc import Generator, HybridDrafter, ModelDrafter, NullDrafter
from tasc.decoding.draft_model.vocabulary import set_draft_vocabulary
from tasc.decoding.sampling import Sampler, Sampling
from tasc.decoding.verify import accept_or_replace, verify

V = 4
PROMPT = [2, 1]
DRAFTED = 2
WARPERS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.7, repetition_penalty=1.6),
    Sampling(temperature=1.3, top_k=2),
    Sampling(temperature=1.0, top_p=0.7, min_p=0.05),
]


class Table:
    """A language model by heart: fp32 logits per history, and what sampling options make of them."""

    def __init__(self, seed: int, sampling: Sampling) -> None:
        self._rng = np.random.default_rng(seed)
        self._sampling = sampling
        self._logits: dict[tuple[int, ...], torch.Tensor] = {}

    def logits(self, output: Sequence[int]) -> torch.Tensor:
        key = tuple(output)
        if key not in self._logits:
            self._logits[key] = torch.tensor(2 * self._rng.standard_normal(V), dtype=torch.float32)
        return self._logits[key]

    def law(self, output: Sequence[int]) -> list[float]:
        """Probabilities of the next token, in float64."""
        scores = self.logits(output)[None]
        for process in self._sampling.processors():
            scores = process(torch.tensor([PROMPT + list(output)]), scores)
        weights = np.exp(scores[0].double().numpy() - float(scores.max()))
        return (weights / weights.sum()).tolist()  # type: ignore[no-any-return]


def cells(drafted: int | None, p: list[float], q: list[float] | None) -> list[tuple[int, float, float]]:
    """Which token each piece of the unit interval must bring: (token, from, to)."""
    if drafted is None or q is None:
        edges = np.concatenate([[0.0], np.cumsum(p)])
        return [(token, edges[token], edges[token + 1]) for token in range(V)]
    accepted = min(1.0, p[drafted] / q[drafted])
    rest = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    edges = np.concatenate([[0.0], np.cumsum(rest)]) / (sum(rest) or 1.0)
    edges = accepted + (1.0 - accepted) * edges
    return [(drafted, 0.0, accepted), *((token, edges[token], edges[token + 1]) for token in range(V))]


def verifications(
    target: Table, draft: tuple[int, ...], laws: Sequence[list[float] | None], emitted: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], list[tuple[float, float]]]]:
    """All ways that a verification can go: emitted tokens, and the interval of each of its uniforms."""
    at = len(emitted)
    inside = at < len(draft)
    for token, low, high in cells(draft[at] if inside else None, target.law(emitted), laws[at] if inside else None):
        if high <= low:
            continue
        if inside and token == draft[at]:
            for whole, spans in verifications(target, draft, laws, (*emitted, token)):
                yield whole, [(low, high), *spans]
        else:
            yield (*emitted, token), [(low, high)]


@pytest.mark.parametrize("fixed", [(), (0,), (1,)], ids=["drawn", "fixed-drawn", "drawn-fixed"])
@pytest.mark.parametrize("sampling", WARPERS, ids=str)
def test_a_step_s_law_is_the_targets(sampling: Sampling, fixed: tuple[int, ...]) -> None:
    """Every draw of the draft, and every cell of the uniforms, through the loop's own samplers and rule."""
    target, small = Table(1, sampling), Table(2, sampling)
    law: dict[tuple[int, ...], float] = dict.fromkeys(itertools.product(range(V), repeat=DRAFTED + 1), 0.0)
    empty = Sampler(sampling, PROMPT, 9, 0, 0, torch.device("cpu"))
    for draft in itertools.product(range(V), repeat=DRAFTED):
        chance, laws, dists = 1.0, [], []
        for at, token in enumerate(draft):
            if at in fixed:
                chance *= float(token == 3 - at)  # a point mass, whatever stands before
                laws.append(None)
                dists.append(None)
            else:
                draft_sampler = empty.draft_sampler()
                q = draft_sampler.probabilities(small.logits(draft[:at]), PROMPT + list(draft[:at]))
                laws.append(small.law(draft[:at]))
                np.testing.assert_allclose(q.numpy(), laws[-1], atol=1e-15)
                below = sum(laws[-1][:token])
                draft_sampler._uniform = Uniforms([below + 0.5 * laws[-1][token]])  # type: ignore[assignment]
                assert laws[-1][token] == 0 or draft_sampler.sample(q) == token
                chance *= laws[-1][token]
                dists.append(q)
        if chance == 0:
            continue
        logits = torch.stack([target.logits(draft[:at]) for at in range(DRAFTED + 1)])
        for emitted, spans in verifications(target, draft, laws):
            wide = min(high - low for low, high in spans) > 1e-9  # narrower ones are lost in rounding
            for share in (1e-6, 0.5, 1 - 1e-6) if wide else ():
                chooser = Sampler(sampling, PROMPT, 9, 0, 0, torch.device("cpu"))
                chooser._uniform = Uniforms([low + share * (high - low) for low, high in spans])  # type: ignore[assignment]
                assert verify(draft, chooser.choose_lazily(logits, len(PROMPT), draft, dists)) == list(emitted)
            volume = chance * math.prod(high - low for low, high in spans)
            for rest in itertools.product(range(V), repeat=DRAFTED + 1 - len(emitted)):
                whole = (*emitted, *rest)
                law[whole] += volume * math.prod(
                    target.law(whole[:at])[whole[at]] for at in range(len(emitted), DRAFTED + 1)
                )
    assert math.isclose(sum(law.values()), 1.0, abs_tol=1e-12)
    for whole, found in law.items():
        assert math.isclose(found, math.prod(target.law(whole[:at])[whole[at]] for at in range(3)), abs_tol=1e-12)


WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1)), min_size=6, max_size=6).filter(lambda w: sum(w) > 0.01)


@given(WEIGHTS, WEIGHTS)
def test_the_rule_s_law_to_the_last_digits(p_weights: list[float], q_weights: list[float]) -> None:
    """Σ_x q(x)·P(y | x) = p(y), the cells' widths being those that the function itself has."""
    p, q = (np.array(w) / sum(w) for w in (p_weights, q_weights))
    law = np.zeros(6)
    for drafted in np.flatnonzero(q):
        accepted = min(1.0, p[drafted] / q[drafted])
        law[drafted] += q[drafted] * accepted
        rest = np.maximum(p - q, 0)
        edges = accepted + (1 - accepted) * np.concatenate([[0], np.cumsum(rest)]) / max(rest.sum(), 1e-300)
        for token, (low, high) in enumerate(itertools.pairwise(edges)):
            if accepted < 1:
                law[token] += q[drafted] * (high - low)
            if high - low > 1e-9 and rest[token] > 1e-9:
                middle = (low + high) / 2
                assert accept_or_replace(int(drafted), torch.tensor(p), torch.tensor(q), middle) == token
        if accepted > 1e-9:
            assert accept_or_replace(int(drafted), torch.tensor(p), torch.tensor(q), accepted * 0.999999) == drafted
    np.testing.assert_allclose(law, p, atol=1e-12)


class Branches:
    """Stands in for chance: takes the branches in turn, run by run, and knows how likely each run was."""

    def __init__(self) -> None:
        self._plan: list[int] = []
        self._widths: list[int] = []
        self.chance = 1.0

    def take(self, weights: torch.Tensor) -> int:
        probs = (weights / weights.sum()).tolist()
        options = [token for token, prob in enumerate(probs) if prob > 1e-12]
        at = len(self._widths)
        self._widths.append(len(options))
        if at == len(self._plan):
            self._plan.append(0)
        token = options[self._plan[at]]
        self.chance *= probs[token]
        return token

    def replace(self, drafted: int, p: torch.Tensor, q: torch.Tensor) -> int:
        accepted = min(1.0, float(p[drafted] / q[drafted]))
        rest = (p - q).clamp(min=0)
        weights = (1 - accepted) * rest / max(float(rest.sum()), 1e-300)
        weights[drafted] += accepted
        return self.take(weights)

    def next_run(self) -> bool:
        """Goes to the next leaf; false after the last."""
        while self._plan and self._plan[-1] + 1 == self._widths[len(self._plan) - 1]:
            self._plan.pop()
        self._widths, self.chance = [], 1.0
        if self._plan:
            self._plan[-1] += 1
        return bool(self._plan)


@pytest.mark.parametrize("kind", ["model", "combined", "model over some ids", "combined over some ids"])
@pytest.mark.parametrize(
    "options", [{"temperature": 1.0, "top_k": 2}, {"temperature": 0.8, "top_k": 2, "repetition_penalty": 1.5}], ids=str
)
def test_the_loop_s_law_is_the_targets(monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any]) -> None:
    """All that chance can do to three tokens, draws of the draft model included."""
    model, small = tiny_model("llama", vocab=V, spread=0.2), tiny_model("gpt2", vocab=V, seed=3, spread=0.3)
    if "some ids" in kind:
        set_draft_vocabulary(small, [0, 3])
    branches, law, drafted = Branches(), {}, 0
    monkeypatch.setattr("tasc.decoding.sampling.quantile", lambda weights, uniform: branches.take(weights))
    monkeypatch.setattr("tasc.decoding.sampling.accept_or_replace", lambda x, p, q, uniform: branches.replace(x, p, q))
    while True:
        drafter: Any = ModelDrafter(small, length=2, pack_weights=False)
        if kind.startswith("combined"):
            head = Scripted({tuple(PROMPT): [3, 3, 3]}, length=1)
            drafter = HybridDrafter(head, ModelDrafter(small, step_cost=0.0, pack_weights=False))
        generator = Generator(model, drafter=drafter, costs=0.0, pack_weights=False)
        made = generator.generate(prompts=[PROMPT], max_tokens=3, eos=(), **options)
        law[tuple(made[0].ids)] = law.get(tuple(made[0].ids), 0.0) + branches.chance
        drafted += made.stats.drafted_by["model"]
        if not branches.next_run():
            break
    assert drafted > 0
    assert math.isclose(sum(law.values()), 1.0, abs_tol=1e-9)
    processors = Sampling(**options).processors()
    for output in itertools.product(range(V), repeat=3):
        expected = 1.0
        for at, token in enumerate(output):
            ids = torch.tensor([PROMPT + list(output[:at])])
            with torch.inference_mode():
                scores = model(ids).logits[:, -1].float()
            for process in processors:
                scores = process(ids, scores)
            expected *= float(torch.softmax(scores[0].double(), -1)[token])
        assert math.isclose(law.get(output, 0.0), expected, abs_tol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_equal_seeds_and_lengths_give_equal_output(batch_size: int) -> None:
    model, small = tiny_model("qwen2"), tiny_model("qwen2", seed=4)
    prompts = random_prompts(4, seed=3)

    def outputs(seed: int) -> list[list[int]]:
        generator = Generator(model, drafter=ModelDrafter(small, length=2), batch_size=batch_size, costs=0.0)
        made = generator.generate(prompts=prompts, max_tokens=9, temperature=1.2, seed=seed)
        assert made.stats.accepted < made.stats.drafted
        return [item.ids for item in made]

    assert outputs(7) == outputs(7)
    assert outputs(7) != outputs(8)


def test_the_target_s_own_draws_are_accepted_always() -> None:
    model = tiny_model("llama")
    made = Generator(model, drafter=ModelDrafter(tiny_model("llama"), length=3), costs=0.0, max_draft=3).generate(
        prompts=random_prompts(2), max_tokens=13, temperature=1.0, top_p=0.9, seed=3, eos=()
    )
    assert made.stats.alpha == 1.0
    assert all(item.stats.steps == 4 for item in made)


def test_proposals_take_none_of_the_target_s_numbers() -> None:
    """A draft model that cannot draft leaves the very output of plain sampling."""
    model = tiny_model("llama")
    options: dict[str, Any] = {"prompts": random_prompts(3), "max_tokens": 10, "temperature": 1.0, "seed": 5}
    plain = Generator(model, drafter=NullDrafter()).generate(**options)
    silent = ModelDrafter(tiny_model("gpt2", seed=1, positions=1), length=2)
    made = Generator(model, drafter=silent, costs=0.0).generate(**options)
    assert [item.ids for item in made] == [item.ids for item in plain]
    alone, disturbed = (Sampler(Sampling(temperature=1.0), [1], 4, 5, 0, torch.device("cpu")) for _ in range(2))
    draft_sampler = disturbed.draft_sampler()
    theirs = [draft_sampler._uniform() for _ in range(50)]
    ours = [disturbed._uniform() for _ in range(50)]
    assert ours == [alone._uniform() for _ in range(50)]
    assert not set(ours) & set(theirs)
