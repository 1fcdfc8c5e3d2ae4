"""Draft models: greedy output stays plain decoding's, rows hold what they should, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, EOS, VOCAB, PromptLookup, byte_tokenizer, peer_greedy, random_prompts, tiny_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tasc import Generator, ModelDrafter, TokenDraft
from tasc.drafting.protocol import RequestParams
from tasc.errors import InputError, TokenizerMismatchError

MAX_TOKENS = 14
PROMPTS = random_prompts(5)


def near(model: Any, noise: float = 0.02) -> Any:
    """A model of the same kind whose tokens are often, not always, those of `model`."""
    made = tiny_model({"LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2"}[type(model).__name__])
    made.load_state_dict(model.state_dict())
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in made.parameters():
            weight += noise * torch.randn_like(weight)
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_output_is_plain_decoding_s(architecture: str) -> None:
    """Prompts of unequal length, in rows that are given on, and prompts that rows know the beginning of."""
    model = tiny_model(architecture)
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    for draft in (tiny_model(architecture), tiny_model("gpt2", seed=1)):
        for length, batch_size in ((None, 1), (4, 3)):
            drafter = ModelDrafter(draft, length=length, step_cost=0.1)
            generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02)
            made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
            assert [item.ids for item in made] == expected
            assert made.stats.drafter_errors == 0
            assert made.stats.drafted > 0
            assert set(made.stats.drafted_by) == {"model"}
            again = generator.generate(prompts=PROMPTS[::-1], max_tokens=MAX_TOKENS)
            assert [item.ids for item in again] == expected[::-1]
            assert drafter.rows.num_rows <= batch_size


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_that_drafts_for_itself_is_always_right(batch_size: int) -> None:
    model = tiny_model("llama")
    drafter = ModelDrafter(tiny_model("llama"), length=3)
    made = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.0, max_draft=3).generate(
        prompts=PROMPTS, max_tokens=17, eos=()
    )
    assert made.stats.alpha == 1.0
    for item in made:
        assert len(item.ids) == 17
        assert item.stats.steps == 5  # 4 + 4 + 4 + 4 + 1, the first with the prompt
        assert dict(item.stats.drafted_at) == {0: 4, 1: 4, 2: 4}


def test_a_model_that_is_often_right_is_told_so() -> None:
    model = tiny_model("llama")
    made = Generator(model, drafter=ModelDrafter(near(model), length=4), costs=0.0).generate(
        prompts=PROMPTS, max_tokens=40, eos=()
    )
    assert made.stats.alpha is not None
    assert 0.1 < made.stats.alpha < 1.0
    assert [item.ids for item in made] == [peer_greedy(model, p, 40, eos_token_id=None) for p in PROMPTS]


def test_fixed_length_is_not_paused_and_stops_at_an_eos() -> None:
    model, never = tiny_model("llama"), tiny_model("gpt2", seed=1)
    made = Generator(model, drafter=ModelDrafter(never, length=2), costs=5.0, max_draft=2).generate(
        prompts=PROMPTS[:1], max_tokens=60, eos=()
    )
    assert made.stats.throttled_steps == 0
    assert made.stats.drafted >= 2 * (made.stats.steps - 2)
    output = peer_greedy(model, PROMPTS[0], 10)
    ends = output[4]
    drafter = ModelDrafter(tiny_model("llama"), length=8)
    item = Generator(model, drafter=drafter, costs=0.0).generate(prompts=PROMPTS[:1], max_tokens=10, eos=ends)[0]
    assert item.ids == output[: output.index(ends) + 1]
    assert item.finish_reason == "eos"
    assert item.stats.drafted == item.stats.accepted == len(item.ids)


def test_repetition_penalty_shapes_greedy_drafts() -> None:
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS, repetition_penalty=1.6) for prompt in PROMPTS]
    generator = Generator(model, drafter=ModelDrafter(tiny_model("llama"), length=3), batch_size=2, costs=0.0)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, repetition_penalty=1.6)
    assert [item.ids for item in made] == expected
    assert made.stats.alpha == 1.0


def test_a_failing_model_leaves_plain_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    drafter = ModelDrafter(tiny_model("gpt2", seed=1), length=2)
    calls = iter(range(100))
    step = drafter.target.step

    def failing(*args: Any) -> Any:
        if next(calls) == 5:
            raise RuntimeError("no memory")
        return step(*args)

    monkeypatch.setattr(drafter.target, "step", failing)
    generator = Generator(model, drafter=drafter, batch_size=2, costs=0.0)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    assert made.stats.drafter_errors in (1, 2)
    assert drafter.rows.num_rows <= 2


def test_a_prompt_that_the_draft_model_cannot_hold_is_decoded_plainly() -> None:
    model = tiny_model("llama")
    prompt = random_prompts(1, seed=4)[0] * 20
    drafter = ModelDrafter(tiny_model("gpt2", seed=1, positions=40), length=3)
    made = Generator(model, drafter=drafter, costs=0.0).generate(prompts=[prompt[:60], prompt[:36]], max_tokens=12)
    assert [item.ids for item in made] == [peer_greedy(model, prompt[:n], 12) for n in (60, 36)]
    assert made.stats.drafter_errors == 0
    assert made[0].stats.drafted == 0
    assert made[1].stats.drafted > 0


def test_drafts_that_do_not_pay_stop_and_those_that_pay_again_come_back() -> None:
    drafter = ModelDrafter(tiny_model("llama", positions=4096), step_cost=0.3)
    request = drafter.start([5, 6, 7])
    lengths = []
    for _ in range(80):
        drafted = request.draft(8, np.ones(9)).tokens.tolist()
        lengths.append(len(drafted))
        request.update([1 + (drafted[0] % 5 if drafted else 0)])  # never what was drafted
    assert lengths[0] > 0
    assert sum(lengths[40:]) < 8
    while True:  # the next try
        drafted = request.draft(8, np.ones(9)).tokens.tolist()
        if drafted:
            break
        request.update([3])
    for _ in range(150):
        lengths.append(len(drafted))
        request.update([*drafted, 3])
        drafted = request.draft(8, np.ones(9)).tokens.tolist()
    assert min(lengths[-20:]) > 2


def test_dear_passes_make_short_drafts() -> None:
    lengths = {}
    for cost in (0.0, 0.3, 3.0):
        drafter = ModelDrafter(tiny_model("llama"), step_cost=cost)
        request = drafter.start([5, 6, 7])
        total = 0
        for _ in range(40):
            drafted = request.draft(16, 1.0 + 0.02 * np.arange(17)).tokens.tolist()
            total += len(drafted)
            request.update([*drafted[:3], 9])
        lengths[cost] = total
    assert lengths[0.0] > lengths[0.3] > lengths[3.0]


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1]


PROMPT = st.lists(st.integers(1, 3), min_size=1, max_size=6)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("start"), PROMPT),
        st.tuples(st.just("drop"), st.integers(0, 9)),
        st.tuples(st.just("step"), st.integers(1, 31), st.integers(1, 4), st.integers(0, 4)),
        st.tuples(st.just("silent"), st.integers(1, 31)),
    ),
    max_size=14,
)
DRAFT = tiny_model("llama", seed=9)


class Crowd:
    """Running requests, whose every pass is compared with a fresh one over all tokens."""

    def __init__(self) -> None:
        self.drafter = ModelDrafter(DRAFT, length=4)
        self.running: list[Any] = []
        self.passes = 0
        step = self.drafter.rows.step

        def checked(owners: Any) -> torch.Tensor:
            logits = step(owners)
            for owner, row in zip(owners, logits, strict=True):
                torch.testing.assert_close(row, logits_of(DRAFT, owner.tokens), atol=1e-3, rtol=0)
            self.passes += 1
            return logits

        self.drafter.rows.step = checked  # type: ignore[method-assign]

    def start(self, prompt: list[int]) -> None:
        self.running.append(self.drafter.start(prompt))

    def drop(self, place: int) -> None:
        if self.running:
            del self.running[place % len(self.running)]

    def silent(self, mask: int) -> None:
        """A step without drafts."""
        for request in self._chosen(mask):
            request.update([2])

    def step(self, mask: int, length: int, accepted: int) -> None:
        chosen = self._chosen(mask)
        before = [list(request.tokens) for request in chosen]
        drafts = self.drafter.propose_batch(chosen, length, np.ones(5))
        for request, ids, draft in zip(chosen, before, drafts, strict=True):
            tokens = draft.tokens.tolist()
            assert len(tokens) == length
            emitted = [*tokens[:accepted], 1 + mask % 6]
            request.update(emitted)
            assert request.tokens == ids + emitted

    def _chosen(self, mask: int) -> list[Any]:
        return [request for place, request in enumerate(self.running) if mask >> place % 5 & 1]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(MOVES)
@example(
    [
        *[("start", [1, 2, 3, k]) for k in (1, 2, 3)],
        ("step", 7, 3, 2),
        ("drop", 1),
        ("step", 3, 3, 1),
        ("step", 3, 2, 2),
    ]
)
@example([*[("start", [k]) for k in (1, 2, 3)], ("step", 7, 3, 3), ("step", 5, 2, 0), ("silent", 2), ("step", 7, 4, 9)])
@example(
    [("start", [1, 2]), ("step", 1, 4, 0), ("silent", 1), ("step", 1, 2, 1)]
)  # two new tokens behind a wrong draft
def test_rows_hold_what_their_requests_have_said(moves: list[tuple[Any, ...]]) -> None:
    """After any sequence of starts, drafts, verifications and drops."""
    crowd, most = Crowd(), 1
    for name, *values in moves:
        getattr(crowd, name)(*values)
        most = max(most, len(crowd.running))
    assert crowd.drafter.rows.num_rows <= most


def test_the_longest_known_prefix_is_not_read_again() -> None:
    drafter = ModelDrafter(tiny_model("gpt2", seed=9), length=1)
    read: list[int] = []
    step = drafter.target.step
    drafter.target.step = lambda c, f, tokens, s, k: (read.append(sum(map(len, tokens))), step(c, f, tokens, s, k))[1]  # type: ignore[method-assign]
    first = drafter.start([3, 1, 4, 1, 5])
    first.draft(1)
    second = drafter.start([3, 1, 4, 2])
    second.draft(1)
    del first, second
    third = drafter.start([3, 1, 4, 1, 6])
    third.draft(1)
    assert read == [5, 1, 1]
    assert drafter.rows.num_rows == 2


def test_other_vocabularies_are_refused() -> None:
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    small = ModelDrafter(tiny_model("llama", vocab=100))
    with pytest.raises(InputError, match="the draft model has 100 ids, the target 257; take a draft model with"):
        Generator(model, drafter=small)
    with pytest.raises(InputError, match="the draft model has 100 ids"):
        Generator(model).generate(prompts=PROMPTS, drafter=small)
    word = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1}, unk_token="a"))
    stranger = ModelDrafter(tiny_model("llama"), tokenizer=PreTrainedTokenizerFast(tokenizer_object=word))
    with pytest.raises(TokenizerMismatchError, match=r"the draft model's tokenizer is .*, the target's is"):
        Generator(model, tokenizer, drafter=stranger)
    Generator(model, tokenizer, drafter=ModelDrafter(tiny_model("llama"), tokenizer=tokenizer))
    for bad in ({"length": 0}, {"step_cost": -1.0}):
        with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
            ModelDrafter(tiny_model("llama"), **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("padded", [VOCAB + 7, VOCAB - 40])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_matrices_padded_otherwise_are_taken_with_the_same_tokenizer(padded: int, temperature: float) -> None:
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    drafter = ModelDrafter(tiny_model("llama", vocab=padded), length=3, tokenizer=tokenizer)
    prompts = random_prompts(3, vocab=200)  # ids that both read
    made = Generator(model, tokenizer, drafter=drafter, costs=0.0, batch_size=2).generate(
        prompts=prompts, max_tokens=MAX_TOKENS, temperature=temperature, seed=1
    )
    assert made.stats.drafter_errors == made.stats.out_of_vocab_tokens == 0
    assert made.stats.drafted > 0
    if temperature == 0:
        assert [item.ids for item in made] == [peer_greedy(model, prompt, MAX_TOKENS) for prompt in prompts]


def test_a_draft_behind_another() -> None:
    """The head's tokens stand first; the model goes on as after any text."""
    model = tiny_model("llama")
    drafter = ModelDrafter(model, step_cost=0.0)
    output = peer_greedy(model, [5, 6, 7], 12)
    request = drafter.start([5, 6, 7])
    head = TokenDraft(np.array(output[:2], np.uint32), np.array([0.99, 0.98], np.float32), np.zeros(2, np.uint8))
    (draft,) = drafter.extend([request], [head], 6, np.ones(7))
    assert draft.tokens.tolist() == output[: len(draft.tokens)]
    assert len(draft.tokens) > 2
    assert draft.sources.tolist() == [0, 0] + [5] * (len(draft.tokens) - 2)
    request.update(output[: len(draft.tokens) + 1])
    assert request.tokens == [5, 6, 7, *output[: len(draft.tokens) + 1]]
    ended = TokenDraft(np.array([4, EOS], np.uint32), np.ones(2, np.float32), np.zeros(2, np.uint8))
    request.configure(RequestParams(eos=frozenset([EOS])))
    assert drafter.extend([request], [ended], 6, np.ones(7))[0] is ended


def test_training_mode_is_put_back() -> None:
    draft = tiny_model("gpt2", seed=1).train()
    Generator(tiny_model("llama"), drafter=ModelDrafter(draft, length=2)).generate(prompts=[[1, 2]], max_tokens=4)
    assert draft.training


def test_two_drafters_of_a_generator_do_not_disturb_each_other() -> None:
    model = tiny_model("llama")
    generator = Generator(model, drafter=ModelDrafter(tiny_model("llama"), length=2), costs=0.0)
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    for drafter in (None, PromptLookup(), None):
        made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, drafter=drafter)
        assert [item.ids for item in made] == expected


def test_calls_that_were_stopped_leave_their_rows_though_their_errors_are_kept() -> None:
    drafter = ModelDrafter(tiny_model("llama"), length=3)
    generator = Generator(tiny_model("llama"), byte_tokenizer(), drafter=drafter, batch_size=3, costs=0.02)

    def stop(number: int, ids: list[int], text: str) -> None:
        raise KeyboardInterrupt

    kept = []
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt) as stopped:
            generator.generate(prompts=PROMPTS[:3], max_tokens=40, eos=(), stream=stop)
        kept.append(stopped)
    assert drafter.rows.num_rows == 3
