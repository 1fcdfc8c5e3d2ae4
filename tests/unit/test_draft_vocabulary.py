"""Draft vocabularies: q is 0 outside, the text stays the target's, and checkpoints are ordinary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_model_drafter import near  # noqa: E402
from tiny_models import EOS, VOCAB, PromptLookup, peer_greedy, random_prompts, tiny_model  # noqa: E402

from tasc import Generator, HybridDrafter, ModelDrafter, NgramDrafter  # noqa: E402
from tasc.decoding.draft_model.plain_llama import PlainLlama  # noqa: E402
from tasc.decoding.draft_model.vocabulary import (  # noqa: E402
    DraftHead,
    cut_head,
    draft_vocabulary,
    expand_head,
    set_draft_vocabulary,
)
from tasc.decoding.engine.target import Target  # noqa: E402
from tasc.decoding.sampling import Sampler, Sampling  # noqa: E402
from tasc.drafting.protocol import RequestParams  # noqa: E402
from tasc.errors import InputError  # noqa: E402

PROMPTS = random_prompts(4)
IDS = sorted({EOS, *range(0, VOCAB, 3), *peer_greedy(tiny_model("llama"), PROMPTS[0], 8)})


def with_vocabulary(model: Any, ids: list[int] = IDS) -> Any:
    set_draft_vocabulary(model, ids)
    return model


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@torch.no_grad()
def test_a_checkpoint_is_an_ordinary_one_that_drafts_its_own_ids(name: str, tmp_path: Path) -> None:
    model = with_vocabulary(tiny_model(name))
    inputs = torch.tensor([PROMPTS[1]])
    wanted = model(inputs).logits[..., IDS]
    cut_head(model)
    assert torch.equal(model(inputs).logits, wanted)
    model.get_output_embeddings().weight += 0.01  # as training does
    wanted = model(inputs).logits
    expand_head(model)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert draft_vocabulary(loaded) == IDS
    whole = loaded.get_output_embeddings()
    logits = loaded(inputs).logits
    assert logits.shape[-1] == VOCAB
    torch.testing.assert_close(logits[..., IDS], wanted)
    assert set(logits.argmax(-1).flatten().tolist()) <= set(IDS)
    head = DraftHead(loaded)
    with head.applied():
        torch.testing.assert_close(loaded(inputs).logits, wanted)
    assert loaded.get_output_embeddings() is whole


@torch.no_grad()
def test_a_head_that_has_changed_is_cut_anew() -> None:
    model = with_vocabulary(tiny_model("llama"))
    head, inputs = DraftHead(model), torch.tensor([PROMPTS[1]])
    for _ in range(2):
        with head.applied():
            found = model(inputs).logits
        torch.testing.assert_close(found, model(inputs).logits[..., IDS])
        model.get_output_embeddings().weight *= 2.0


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("small", ["llama", "gpt2"])
def test_greedy_output_is_plain_decoding_s(small: str, batch_size: int) -> None:
    model = tiny_model("llama")
    draft = with_vocabulary(near(model) if small == "llama" else tiny_model("gpt2", seed=1))
    expected = [peer_greedy(model, prompt, 14) for prompt in PROMPTS]
    for drafter in (
        ModelDrafter(draft, length=3),
        ModelDrafter(draft, step_cost=0.1),
        HybridDrafter(PromptLookup(), ModelDrafter(draft, step_cost=0.1)),
        HybridDrafter(NgramDrafter(None), ModelDrafter(draft, step_cost=0.1)),
    ):
        made = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02).generate(
            prompts=PROMPTS, max_tokens=14
        )
        assert [item.ids for item in made] == expected
        assert made.stats.drafter_errors == 0
        assert made.stats.drafted_by["model"] > 0


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.7, 1.5]),
    st.sampled_from([1.0, 1.8]),
    st.sampled_from([None, 1, 5]),
)
def test_q_is_0_outside_and_the_model_s_own_inside(
    ids: set[int], temperature: float, penalty: float, top_k: Any
) -> None:
    model = tiny_model("llama", seed=3)
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, top_k=top_k)
    processors = sampling.processors()
    request = ModelDrafter(with_vocabulary(model, sorted(ids)), length=3).start([5, 6, 7])
    sampler = Sampler(sampling, [5, 6, 7], 9, 1, 0, torch.device("cpu")).draft_sampler()
    is_plain = temperature == 0 and penalty == 1
    request.configure(RequestParams(vocab_size=VOCAB, sampler=None if is_plain else sampler))
    draft = request.draft(3)
    tokens = draft.tokens.tolist()
    assert set(tokens) <= ids
    for at, token in enumerate(tokens):
        history = torch.tensor([[5, 6, 7, *tokens[:at]]])
        with torch.inference_mode():
            scores = model(history).logits[:, -1]
        outside = torch.ones(VOCAB, dtype=torch.bool)
        outside[sorted(ids)] = False
        scores = scores.masked_fill(outside, -torch.inf)
        for process in processors:
            scores = process(history, scores)
        if temperature == 0:
            assert float(scores.max() - scores[0, token]) < 1e-4
        else:
            q = draft.dists[at]
            assert q is not None and float(q[outside].sum()) == 0.0
            torch.testing.assert_close(q, scores[0].double().softmax(-1), atol=1e-5, rtol=0)


def test_ids_that_the_target_lacks_are_not_drafted() -> None:
    drafter = ModelDrafter(with_vocabulary(tiny_model("llama"), [3, 200, 250]), length=4)
    request = drafter.start([5, 6, 7])
    request.configure(RequestParams(vocab_size=100))
    assert set(request.draft(4).tokens.tolist()) == {3}


@pytest.mark.parametrize("ids", [[], [3, 3], [5, 2], [-1, 2], [1, VOCAB], [1.0], "all"])
def test_what_is_no_vocabulary_is_refused(ids: Any) -> None:
    model = tiny_model("llama")
    model.config.draft_vocabulary = ids
    with pytest.raises(InputError, match="draft_vocabulary in the draft model's config is not a list of ascending ids"):
        ModelDrafter(model)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}},
        {"attention_bias": True, "mlp_bias": True, "head_dim": 12, "num_key_value_heads": 4},
    ],
    ids=str,
)
@torch.inference_mode()
def test_the_plain_pass_computes_the_model_s_function(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **{
            "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4, **options,
        }
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        weight += 0.05 * torch.randn_like(weight)
    target = Target(model)
    assert PlainLlama.fits(target)
    plain, cache = PlainLlama(target), target.new_cache(2)
    tokens = [(7 * k + 3) % 99 for k in range(300)]
    for start, end in ((0, 5), (5, 6), (6, 9), (9, 10), (10, 299), (299, 300), (4, 7), (7, 8)):
        found = plain.logits(cache, 1, tokens[start:end], start)
        torch.testing.assert_close(found, model(torch.tensor([tokens[:end]])).logits[0, -1], atol=1e-3, rtol=1e-3)


def test_the_plain_pass_is_left_where_it_may_differ() -> None:
    assert PlainLlama.fits(Target(tiny_model("llama")))
    assert not PlainLlama.fits(Target(tiny_model("qwen2")))
    longer = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        rope_parameters=longer,
    )  # fmt: skip
    assert not PlainLlama.fits(Target(transformers.LlamaForCausalLM(config)))
