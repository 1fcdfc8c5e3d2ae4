"""Greedy output equals transformers' generate, token for token, whatever is drafted."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import (
    ARCHITECTURES,
    EOS,
    Misbehaving,
    PromptLookup,
    Scripted,
    byte_tokenizer,
    peer_greedy,
    random_prompts,
    tiny_model,
)

from tasc import Generator, NgramDrafter, NullDrafter

MAX_TOKENS = 20
PROMPTS = random_prompts(6)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def target(request: Any) -> tuple[Any, list[list[int]]]:
    model = tiny_model(request.param)
    return model, [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]


def drafters(outputs: list[list[int]]) -> dict[str, Any]:
    known = {tuple(prompt): output for prompt, output in zip(PROMPTS, outputs, strict=True)}
    return {
        "plain": NullDrafter(),
        "always": Scripted(known),
        "never": Scripted(known, miss=1.0),
        "mixed": Scripted(known, miss=0.3),
        "long": Scripted(known, miss=0.05, length=40),
        "lookup": PromptLookup(),
        "ngram": NgramDrafter(None),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_transformers_generate(target: Any, batch_size: int) -> None:
    model, expected = target
    for name, drafter in drafters(expected).items():
        generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02)
        made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
        assert [item.ids for item in made] == expected, name
        again = generator.generate(prompts=PROMPTS[::-1], max_tokens=MAX_TOKENS)  # on rows that hold other prompts
        assert [item.ids for item in again] == expected[::-1], name


def test_the_models_are_a_test(target: Any) -> None:
    _, expected = target
    assert len({token for output in expected for token in output}) > 20


@pytest.mark.parametrize("batch_size", [1, 3])
def test_repetition_penalty_equals_transformers(batch_size: int) -> None:
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS, repetition_penalty=1.6) for prompt in PROMPTS]
    assert expected != [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    for drafter in drafters(expected).values():
        generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02)
        made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, repetition_penalty=1.6)
        assert [item.ids for item in made] == expected


def test_generation_config_names_the_penalty() -> None:
    model = tiny_model("llama")
    model.generation_config.repetition_penalty = 1.6
    expected = peer_greedy(model, PROMPTS[0], MAX_TOKENS)
    generator = Generator(model, drafter=NullDrafter())
    assert generator.generate(prompts=PROMPTS[:1], max_tokens=MAX_TOKENS)[0].ids == expected
    off = generator.generate(prompts=PROMPTS[:1], max_tokens=MAX_TOKENS, repetition_penalty=1.0)[0].ids
    assert off != expected


def test_eager_attention() -> None:
    model = tiny_model("gemma3-window")
    model.set_attn_implementation("eager")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    generator = Generator(model, drafter=drafters(expected)["mixed"], batch_size=3, costs=0.02)
    assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)] == expected


def test_predicted_output_costs_one_pass() -> None:
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    generator = Generator(model, drafter=Scripted(drafters(expected)["always"].outputs, length=64), costs=0.0)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == expected
    assert [item.stats.steps for item in made] == [1] * len(PROMPTS)


def test_shared_prefix_is_computed_once() -> None:
    model = tiny_model("qwen2")
    shared = random_prompts(1, seed=9)[0] * 3
    prompts = [shared + prompt for prompt in PROMPTS]
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in prompts]
    for batch_size in (1, 3):
        generator = Generator(model, drafter=PromptLookup(), batch_size=batch_size, costs=0.02)
        made = generator.generate(prompts=prompts, max_tokens=MAX_TOKENS)
        assert [item.ids for item in made] == expected
        assert made[0].stats.reused_tokens == 0
        assert all(len(shared) <= item.stats.reused_tokens < len(shared) + 3 for item in made[1:])
        again = generator.generate(prompts=prompts[:1], max_tokens=MAX_TOKENS)
        assert again[0].ids == expected[0]
        assert again[0].stats.reused_tokens >= len(shared)


def test_the_same_prompt_again_still_runs_its_last_token() -> None:
    model = tiny_model("llama")
    generator = Generator(model, drafter=NullDrafter())
    made = generator.generate(prompts=[PROMPTS[1]] * 3, max_tokens=5)
    assert made[0].ids == made[1].ids == made[2].ids
    assert made[2].stats.reused_tokens == len(PROMPTS[1]) - 1


@pytest.mark.parametrize("how", ["start", "draft", "update", "huge", "vocab", "long"])
def test_a_bad_drafter_costs_speed_only(how: str) -> None:
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    generator = Generator(model, drafter=Misbehaving(how), batch_size=3, costs=0.02)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == expected
    assert (made.stats.drafter_errors > 0) == (how in ("start", "draft", "update"))
    assert (made.stats.out_of_vocab_tokens > 0) == (how in ("huge", "vocab"))


def test_context_limit_ends_an_output() -> None:
    model = tiny_model("gpt2", positions=24)
    prompt = PROMPTS[0][:10]
    expected = peer_greedy(model, prompt, 14)
    assert EOS not in expected
    known = {tuple(prompt): expected}
    for drafter in (NullDrafter(), Scripted(known, length=64), Scripted(known, miss=0.5)):
        made = Generator(model, drafter=drafter, costs=0.0).generate(prompts=[prompt], max_tokens=100)[0]
        assert made.ids == expected
        assert made.finish_reason == "length"


def test_check_plain_counts_divergences() -> None:
    model = tiny_model("llama")
    generator = Generator(model, byte_tokenizer(), drafter=PromptLookup(), batch_size=2, costs=0.02)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, check_plain=True)
    assert made.stats.divergences == 0
    assert all(item.first_difference is None for item in made)
    assert generator.generate(prompts=PROMPTS, max_tokens=3).stats.divergences is None
