"""Steps of fixed shape say what steps of the shapes at hand say; here without CUDA.

What stands in for a CUDA graph is the list of tensor operations that a step is made of: recorded once, repeated over
the same memory, with no Python in between, and with outputs that the next step writes over.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_loop_parity import MAX_TOKENS, PROMPTS
from tiny_models import ARCHITECTURES, PromptLookup, Scripted, peer_greedy, random_prompts, tiny_model
from torch.fx.experimental.proxy_tensor import make_fx

import tasc.decoding.engine.cuda_graphs
import tasc.decoding.engine.steps
from tasc import EagleDrafter, Generator, ModelDrafter, NullDrafter
from tasc.decoding.engine.steps import StepRunner
from tasc.errors import InputError
from tasc.training.distill.new_head import new_head

CAPTURES: list[torch.fx.GraphModule] = []


def recording() -> tasc.decoding.engine.cuda_graphs.Capture:
    """Records the operations of a step on a CPU."""

    def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        nothing = torch.zeros(())  # it wants an argument
        recorded = make_fx(lambda _: run())(nothing)
        CAPTURES.append(recorded)
        made: list[torch.Tensor] = []

        def replay() -> torch.Tensor:
            fresh = recorded(nothing)
            if not made:
                made.append(fresh.clone())
            return made[0].copy_(fresh)

        return replay

    return capture


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What was captured; every model is captured meanwhile, wherever it is."""
    CAPTURES.clear()
    monkeypatch.setattr(tasc.decoding.engine.steps, "capture_for", lambda device: recording)
    return CAPTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_equals_transformers_generate(captures: list[Any], name: str, batch_size: int) -> None:
    model = tiny_model(name)
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    known = {tuple(prompt): output for prompt, output in zip(PROMPTS, expected, strict=True)}
    drafter = Scripted(known, miss=0.2, length=9)
    generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02, cuda_graphs=True)
    for prompts, outputs in ((PROMPTS, expected), (PROMPTS[::-1], expected[::-1])):
        made = generator.generate(prompts=prompts, max_tokens=MAX_TOKENS)
        assert [item.ids for item in made] == outputs
    assert captures


def test_eager_attention(captures: list[Any]) -> None:
    model = tiny_model("gemma3-window")
    model.set_attn_implementation("eager")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    generator = Generator(model, drafter=PromptLookup(), batch_size=3, costs=0.02, cuda_graphs=True)
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)] == expected
    assert captures


def test_growing_rows_and_prompts_past_the_longest_shape(captures: list[Any]) -> None:
    model = tiny_model("llama", positions=1024)
    prompts = [[(7 * i + j) % 250 + 1 for i in range(length)] for j, length in enumerate((30, 250, 600, 255))]
    expected = [peer_greedy(model, prompt, 8) for prompt in prompts]
    generator = Generator(model, drafter=NullDrafter(), batch_size=2, max_draft=3, cuda_graphs=True)
    for _ in range(2):
        for prompt, output in zip(prompts, expected, strict=True):
            assert generator.generate(prompts=[prompt], max_tokens=8)[0].ids == output
        assert [item.ids for item in generator.generate(prompts=prompts, max_tokens=8)] == expected
    assert captures


def test_sampled_output(captures: list[Any]) -> None:
    model = tiny_model("qwen2")
    options = {"max_tokens": MAX_TOKENS, "temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.2, "seed": 5}
    plain = Generator(model, drafter=NullDrafter(), cuda_graphs=False).generate(prompts=PROMPTS, **options)
    known = {tuple(prompt): item.ids for prompt, item in zip(PROMPTS, plain, strict=True)}
    generator = Generator(model, drafter=Scripted(known, miss=0.2), batch_size=3, costs=0.02, cuda_graphs=True)
    for _ in range(2):
        made = generator.generate(prompts=PROMPTS, **options)
        assert [item.ids for item in made] == [item.ids for item in plain]
    assert captures


def test_a_draft_model(captures: list[Any]) -> None:
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    drafter = ModelDrafter(tiny_model("llama"), length=3, cuda_graphs=True)
    generator = Generator(model, drafter=drafter, batch_size=3, costs=0.02, cuda_graphs=False)
    for _ in range(2):
        made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
        assert [item.ids for item in made] == expected
    assert made.stats.alpha > 0.99
    assert captures


def test_an_eagle_head_reads_the_same_states(captures: list[Any]) -> None:
    model = tiny_model("llama")
    torch.manual_seed(0)
    head, drafted = new_head(model, None), []
    for cuda_graphs in (False, True):
        drafter = EagleDrafter(head, length=3)
        propose = drafter.propose_batch
        seen: list[list[int]] = []

        def recorded(*given: Any, propose: Any = propose, seen: list[list[int]] = seen) -> Any:
            made = propose(*given)
            seen += [draft.tokens.tolist() for draft in made]
            return made

        drafter.propose_batch = recorded  # type: ignore[method-assign]
        generator = Generator(model, drafter=drafter, batch_size=3, costs=0.02, cuda_graphs=cuda_graphs)
        for _ in range(2):
            generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
        drafted.append(seen)
    assert captures and drafted[0] == drafted[1] and any(drafted[0])


def test_timing_steps_leaves_no_trace(captures: list[Any]) -> None:
    """The cost curve is measured in the rows in use, while the first request stands in them."""
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    shared = Generator(model, drafter=NullDrafter(), cuda_graphs=True)
    shared.generate(prompts=PROMPTS[:1], max_tokens=MAX_TOKENS)  # so that the second finds a prefix, drafted for first
    made = shared.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, drafter=PromptLookup())
    assert [item.ids for item in made] == expected
    assert made[0].stats.reused_tokens == len(PROMPTS[0]) - 1
    assert len(captures) >= 8


def test_prompts_are_prefilled_together(captures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    argmax = StepRunner.argmax

    def counted(self: StepRunner, first_row: int, tokens: Any, *rest: Any) -> Any:
        passes.append(len(tokens))
        return argmax(self, first_row, tokens, *rest)

    monkeypatch.setattr(StepRunner, "argmax", counted)
    model = tiny_model("qwen2")
    head = random_prompts(1, seed=9)[0] * 3
    prompts = [head + prompt for prompt in random_prompts(9)]
    expected = [peer_greedy(model, prompt, 4) for prompt in prompts]
    known = {tuple(prompt): output for prompt, output in zip(prompts, expected, strict=True)}
    for graphs in (False, True):
        passes.clear()
        generator = Generator(model, drafter=Scripted(known), batch_size=8, costs=0.0, cuda_graphs=graphs)
        made = generator.generate(prompts=prompts, max_tokens=4)
        assert [item.ids for item in made] == expected
        assert [item.stats.steps for item in made] == [1] * 9
        # what all begin with is computed once: the first prompt goes first, alone; its row is free after the step
        assert [item.stats.reused_tokens >= len(head) for item in made] == [False] + [True] * 8
        assert passes == [1, 7, 1]
    for lengths, expected in (
        ([70, 70, 70], [1, 1, 1]),  # more tokens than a CPU gains from more of
        ([60, 60, 60], [3]),
        ([60, 45, 60], [3]),
        ([60, 2, 2], [1, 2]),  # padding would take longer than a pass of its own
    ):
        passes.clear()
        apart = [[number + 1] * length for number, length in enumerate(lengths)]
        Generator(model, drafter=NullDrafter(), batch_size=3).generate(prompts=apart, max_tokens=1)
        assert passes == expected, lengths


def test_a_model_that_cannot_be_captured_is_run_directly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def waiting() -> tasc.decoding.engine.cuda_graphs.Capture:
        def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
            run()
            raise RuntimeError("operation not permitted when stream is capturing")

        return capture

    monkeypatch.setattr(tasc.decoding.engine.steps, "capture_for", lambda device: waiting)
    model = tiny_model("llama")
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    generator = Generator(model, drafter=PromptLookup(), batch_size=3)
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)] == expected
    assert caplog.text.count("LlamaForCausalLM cannot be captured") == 1
    with pytest.raises(InputError, match="LlamaForCausalLM cannot be captured: operation not permitted"):
        Generator(model, drafter=PromptLookup(), cuda_graphs=True).generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)


def test_graphs_need_a_cuda_device() -> None:
    with pytest.raises(InputError, match="cuda_graphs=True, but the model is on cpu"):
        Generator(tiny_model("llama"), cuda_graphs=True)
    with pytest.raises(InputError, match="cuda_graphs=True"):
        ModelDrafter(tiny_model("llama"), cuda_graphs=True)


def test_memory_is_given_back_with_the_generator(captures: list[Any]) -> None:
    generator = Generator(tiny_model("llama"), drafter=NullDrafter(), cuda_graphs=True)
    generator.generate(prompts=PROMPTS, max_tokens=4)
    cache = weakref.ref(generator._loop._cache)
    gc.disable()
    try:
        del generator
        assert cache() is None
    finally:
        gc.enable()
