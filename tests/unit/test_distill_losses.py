"""Divergences beside float64 references written out by hand, and the selection beside a sort."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tasc.errors import InputError  # noqa: E402
from tasc.training.distill.losses import LOSSES, forward_kl, lk, nla, tvd  # noqa: E402
from tasc.training.distill.token_selection import all_tokens, random_tokens, select_tokens  # noqa: E402


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [w / math.fsum(weights) for w in weights]


def kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def reference(name: str, p: list[float], q: list[float]) -> float:
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    accepted = math.fsum(min(a, b) for a, b in zip(p, q, strict=True))
    weight = math.exp(-3 * accepted)
    return {
        "nla": lambda: -math.log(accepted),
        "lk": lambda: weight * kl(p, q) + (1 - weight) * (1 - accepted),
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "jsd": lambda: (kl(p, middle) + kl(q, middle)) / 2,
        "tvd": lambda: 1 - accepted,
    }[name]()


LOGITS = st.lists(st.tuples(st.floats(-12, 12), st.floats(-12, 12)), min_size=1, max_size=9)


@pytest.mark.parametrize("name", sorted(LOSSES))
@given(LOGITS)
@settings(max_examples=60, deadline=None)
def test_a_loss_is_its_definition(name: str, pairs: list[tuple[float, float]]) -> None:
    target, draft = ([pair[k] for pair in pairs] for k in (0, 1))
    found = LOSSES[name](torch.tensor([target], dtype=torch.float64), torch.tensor([draft], dtype=torch.float64))
    assert found.shape == (1,)
    assert found.item() == pytest.approx(reference(name, softmax(target), softmax(draft)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
@given(LOGITS, st.lists(st.floats(-12, 12), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_loss_over_a_draft_vocabulary_is_that_over_all_ids(
    name: str, pairs: list[tuple[float, float]], others: list[float]
) -> None:
    """q is 0 for the other ids; KL(p ‖ q), infinite then, is that of the restricted p by the mass inside."""
    target, draft = (torch.tensor([[pair[k] for pair in pairs]], dtype=torch.float64) for k in (0, 1))
    rest = torch.tensor(others, dtype=torch.float64).logsumexp(0)[None]
    p, q = softmax(target[0].tolist() + others), softmax(draft[0].tolist())
    inside = math.fsum(p[: len(q)])
    cross = inside * kl([a / inside for a in p[: len(q)]], q)
    accepted = math.fsum(map(min, p, q))
    weight = math.exp(-3 * accepted)
    expected = {
        "forward_kl": lambda: cross,
        "lk": lambda: weight * cross + (1 - weight) * (1 - accepted),
    }.get(name, lambda: reference(name, p, q + [0.0] * len(others)))()
    found = LOSSES[name](target, draft, rest)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    leaf = draft.clone().requires_grad_()
    if name not in ("lk", "tvd"):  # a weight without a gradient; a kink
        assert torch.autograd.gradcheck(lambda logits: LOSSES[name](target, logits, rest), leaf)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_is_at_least_float32(name: str, dtype: Any) -> None:
    torch.manual_seed(0)
    target, draft = (torch.randn(2, 3, 500, dtype=torch.float64).mul(5).to(dtype) for _ in range(2))
    found = LOSSES[name](target, draft)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), LOSSES[name](target.double(), draft.double()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_right_and_finite_for_tokens_that_never_come(name: str) -> None:
    torch.manual_seed(1)
    target, draft = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    if name != "lk":  # its weight has no gradient
        assert torch.autograd.gradcheck(lambda logits: LOSSES[name](target, logits), draft)
    target[:, 3] = -math.inf
    LOSSES[name](target, draft).sum().backward()
    assert torch.isfinite(draft.grad).all()


def gradient(loss: Any, target: Any, draft: Any) -> Any:
    leaf = draft.clone().requires_grad_()
    loss(target, leaf).sum().backward()
    return leaf.grad


def test_the_hybrid_learns_from_both_losses_by_a_weight_without_a_gradient() -> None:
    torch.manual_seed(2)
    target, draft = torch.randn(2, 50, 7, dtype=torch.float64).mul(3)
    weight = torch.exp(-3 * (1 - tvd(target, draft)))[:, None]
    wanted = weight * gradient(forward_kl, target, draft) + (1 - weight) * gradient(tvd, target, draft)
    torch.testing.assert_close(gradient(lk, target, draft), wanted)


def test_a_draft_that_is_never_accepted_learns_from_log_acceptance_and_not_from_total_variation() -> None:
    target, draft = torch.tensor([[0.0, 300.0, 0.0]]), torch.tensor([[300.0, 0.0, 0.0]])
    for loss in (nla, lk):
        assert gradient(loss, target, draft).abs().max() > 0.3
    assert gradient(tvd, target, draft).abs().max() < 1e-6


def test_other_widths_are_refused() -> None:
    with pytest.raises(InputError, match=r"widths: \(2, 5\) of the target, \(2, 6\) of the draft"):
        forward_kl(torch.zeros(2, 5), torch.zeros(2, 6))
    with pytest.raises(InputError, match="shapes"):
        tvd(torch.zeros(3, 5), torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"rest has shape \(2,\), the tokens have \(3,\)"):
        tvd(torch.zeros(3, 5), torch.zeros(3, 5), torch.zeros(2))


TOKENS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=1, max_size=30)


@given(TOKENS, st.integers(1, 100))
def test_selection_is_that_of_a_sort(tokens: list[tuple[int, int, bool]], percent: int) -> None:
    draft, ref, mask = (torch.tensor([token[k] for token in tokens]) for k in range(3))
    inside = [at for at, token in enumerate(tokens) if token[2]]
    count = math.ceil(Fraction(percent, 100) * len(inside))
    best = sorted(inside, key=lambda at: (-(tokens[at][0] - tokens[at][1]), at))[:count]
    found = select_tokens(draft.float(), ref.float(), percent / 100, mask)
    assert found.nonzero().flatten().tolist() == sorted(best)
    drawn = random_tokens(draft.float(), percent / 100, mask, generator=torch.Generator().manual_seed(percent))
    assert int(drawn.sum()) == count and not (drawn & ~mask).any()
    again = random_tokens(draft.float(), percent / 100, mask, generator=torch.Generator().manual_seed(percent))
    assert torch.equal(drawn, again)
    assert torch.equal(all_tokens(draft, mask), mask)


def test_infinite_differences_never_reach_behind_the_mask() -> None:
    low = torch.full((4,), -math.inf)
    mask = torch.tensor([False, True, True, False])
    assert torch.equal(select_tokens(low, torch.zeros(4), 1.0, mask), mask)


def test_any_shape_and_gradients_stay_out() -> None:
    loss = torch.tensor([[1.0, 5.0], [2.0, 4.0]], requires_grad=True)
    found = select_tokens(loss, torch.zeros(2, 2), 0.5)
    assert found.tolist() == [[False, True], [False, True]] and not found.requires_grad


def test_random_selection_is_even() -> None:
    torch.manual_seed(0)
    hits = sum(random_tokens(torch.zeros(20), 0.25).int() for _ in range(4000))
    assert hits.min() > 850 and hits.max() < 1150


@pytest.mark.parametrize("k", [0.0, -0.1, 1.01, math.nan])
def test_a_share_out_of_range_is_refused(k: float) -> None:
    with pytest.raises(InputError, match="share of the tokens"):
        select_tokens(torch.zeros(3), torch.zeros(3), k)


def test_losses_that_are_no_numbers_or_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="not a number"):
        select_tokens(torch.tensor([math.nan, 1.0]), torch.zeros(2), 0.5)
    with pytest.raises(InputError, match="the same are needed"):
        select_tokens(torch.zeros(3), torch.zeros(2), 0.5)
    with pytest.raises(InputError, match="a mask of shape"):
        select_tokens(torch.zeros(3), torch.zeros(3), 0.5, torch.ones(2, dtype=torch.bool))
