"""What a model's generation config asks for is done: outputs equal those of `generate`, whatever is drafted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_adapter_transformers_law import law
from test_drawn_drafts_law import Branches
from tiny_models import EOS, PromptLookup, Scripted, peer_greedy, random_prompts, tiny_model

from tasc import Generator, ModelDrafter, NullDrafter
from tasc.errors import InputError

VOCAB = 61
MAX_TOKENS = 14
PROMPTS = [[7], *random_prompts(2, seed=5, vocab=VOCAB)]  # some fields treat a prompt of one token otherwise
MODEL = tiny_model("llama", vocab=VOCAB)
DEFAULTS = MODEL.generation_config
PLAIN = [peer_greedy(MODEL, prompt, MAX_TOKENS) for prompt in PROMPTS]
SLOW = settings(
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LIKELY = {token for output in PLAIN for token in output}
ids = st.sampled_from(sorted(LIKELY))  # whose fields change the output
others = st.sampled_from(sorted(set(range(VOCAB)) - LIKELY))  # may be forced while those are suppressed
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "suppress_tokens": st.lists(ids, min_size=1, max_size=6),
    "begin_suppress_tokens": st.lists(ids, min_size=1, max_size=12),
    "no_repeat_ngram_size": st.integers(1, 3),
    "bad_words_ids": st.lists(st.lists(ids, min_size=1, max_size=2), min_size=1, max_size=9),
    "min_new_tokens": st.integers(1, MAX_TOKENS),
    "min_length": st.integers(1, 30),
    "forced_bos_token_id": others,
    "forced_eos_token_id": others,
    "sequence_bias": st.lists(
        st.tuples(st.lists(ids, min_size=1, max_size=2), st.floats(-9, 9)).map(list), min_size=1, max_size=9
    ),
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 9), st.floats(1.01, 1.5)),
    "remove_invalid_values": st.just(True),
    "renormalize_logits": st.just(True),
    "repetition_penalty": st.floats(1.05, 2.0),
    "encoder_repetition_penalty": st.floats(1.05, 2.0),
    "encoder_no_repeat_ngram_size": st.integers(1, 2),
    "guidance_scale": st.floats(0.5, 3.0),
    "watermarking_config": st.sampled_from([{"bias": 3.0}, {"bias": 3.0, "seeding_scheme": "selfhash"}]),
    "eos_token_id": st.lists(ids, min_size=1, max_size=4),
    # read when sampling
    "top_h": st.floats(0.3, 0.9),
    "typical_p": st.floats(0.3, 0.9),
    "epsilon_cutoff": st.floats(0.01, 0.1),
    "eta_cutoff": st.floats(0.01, 0.1),
}
configs = st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in sorted(names)})
)


@pytest.fixture(autouse=True)
def own_config() -> Any:
    """The model's own generation config after each test."""
    yield
    MODEL.generation_config = DEFAULTS


def configured(config: dict[str, Any]) -> Any:
    """The model with these fields in its generation config."""
    fields = DEFAULTS.to_dict() | config
    MODEL.generation_config = type(DEFAULTS)(**fields)
    return MODEL


def drafters(outputs: list[list[int]]) -> list[Any]:
    known = {tuple(prompt): output for prompt, output in zip(PROMPTS, outputs, strict=True)}
    return [
        NullDrafter(),
        Scripted(known, length=40),
        Scripted(known, miss=0.3),
        Scripted(known, miss=1.0),
        PromptLookup(),
    ]


@settings(SLOW, max_examples=10)
@given(configs, st.one_of(st.none(), st.floats(0.5, 2.0)), st.one_of(st.none(), st.lists(ids, max_size=3)))
def test_greedy_output_equals_generate(config: dict[str, Any], penalty: float | None, eos: list[int] | None) -> None:
    if eos == []:
        config.pop("exponential_decay_length_penalty", None)  # `generate` fails without an EOS
    model = configured(config)
    given_ends = {} if eos is None else {"eos_token_id": eos or None}
    given_penalty = {} if penalty is None else {"repetition_penalty": penalty}
    expected = [peer_greedy(model, prompt, MAX_TOKENS, **given_ends, **given_penalty) for prompt in PROMPTS]
    for drafter in drafters(expected):
        for batch_size in (1, 3):
            generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.0)
            made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, repetition_penalty=penalty, eos=eos)
            assert [item.ids for item in made] == expected, (type(drafter), batch_size)


@settings(SLOW, max_examples=8)
@given(configs, st.integers(0, 99), st.floats(0.3, 1.5))
def test_equal_seeds_give_equal_output_drafted_or_not(config: dict[str, Any], seed: int, temperature: float) -> None:
    model = configured(config)
    options = {"max_tokens": MAX_TOKENS, "temperature": temperature, "seed": seed, "top_p": 0.95}
    plain = Generator(model, drafter=NullDrafter()).generate(prompts=PROMPTS, **options)
    expected = [item.ids for item in plain]
    for drafter in drafters(expected)[1:]:
        for batch_size in (1, 3):
            made = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.0).generate(
                prompts=PROMPTS, **options
            )
            assert [item.ids for item in made] == expected, (type(drafter), batch_size)


def test_fields_that_are_not_set_have_the_defaults_of_generate() -> None:
    model = tiny_model("llama")
    model.generation_config = transformers.GenerationConfig(pad_token_id=EOS, eos_token_id=EOS, guidance_scale=1.7)
    assert model.generation_config.use_cache is None
    expected = [peer_greedy(model, prompt, 12) for prompt in PROMPTS]
    made = Generator(model, costs=0.0).generate(prompts=PROMPTS, max_tokens=12, check_plain=True)
    assert [item.ids for item in made] == expected
    assert made.stats.divergences == 0


@pytest.mark.parametrize("kind", ["fixed", "drawn"])
@pytest.mark.parametrize(
    "config",
    [
        {"suppress_tokens": [2], "eos_token_id": [1], "min_new_tokens": 2},
        {"no_repeat_ngram_size": 2, "typical_p": 0.95, "renormalize_logits": True},
        {"top_h": 0.95, "epsilon_cutoff": 0.02, "sequence_bias": [[[3, 0], 1.0], [[0], -2.0]], "guidance_scale": 1.2},
        {"do_sample": False, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.9},  # the call's own count
    ],
    ids=lambda config: "+".join(config),
)
def test_the_law_is_that_of_generate(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], kind: str) -> None:
    model = tiny_model("llama", vocab=4, spread=0.25)
    for name, value in config.items():
        setattr(model.generation_config, name, value)
    prompt, options = [2, 1, 3], {"temperature": 0.8, "top_k": 3}

    def sample() -> tuple[int, ...]:
        inputs, given = torch.tensor([prompt]), {"top_p": 1.0, "min_p": 0.0, **options}
        out = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=3, do_sample=True, **given)
        return tuple(out[0, len(prompt) :].tolist())

    expected = law(sample, monkeypatch)
    branches, found = Branches(), {}
    monkeypatch.setattr("tasc.decoding.sampling.quantile", lambda weights, uniform: branches.take(weights))
    monkeypatch.setattr("tasc.decoding.sampling.accept_or_replace", lambda x, p, q, uniform: branches.replace(x, p, q))
    while True:
        drafter: Any = Scripted({tuple(prompt): [3, 0, 3]})
        if kind == "drawn":
            drafter = ModelDrafter(tiny_model("gpt2", vocab=4, seed=3, spread=0.3), length=2, pack_weights=False)
        generator = Generator(model, drafter=drafter, costs=0.0, pack_weights=False)
        made = generator.generate(prompts=[prompt], max_tokens=3, **options)  # type: ignore[arg-type]
        found[tuple(made[0].ids)] = found.get(tuple(made[0].ids), 0.0) + branches.chance
        if not branches.next_run():
            break
    assert len(expected) > 3 and sum(expected.values()) == pytest.approx(1)
    assert {key: value for key, value in found.items() if value > 0} == pytest.approx(expected, abs=1e-5)


def test_an_output_whose_eos_was_forced_is_not_learnt() -> None:
    model, prompt = tiny_model("llama"), [5, 6, 7]
    model.generation_config.forced_eos_token_id = EOS
    learnt: list[list[int]] = []

    class Learning(Scripted):
        def serve(self, rows: Any) -> None:
            learnt.extend(list(ids) for _, ids in rows)

    plain = peer_greedy(model, prompt, 8)
    assert plain[-1] == EOS not in plain[:-1]
    drafter = Learning({tuple(prompt): plain})
    generator = Generator(model, drafter=drafter, costs=0.0, pack_weights=False, served=True)
    assert generator.generate(prompts=[prompt], max_tokens=8)[0].ids == plain
    assert learnt == []
    [made] = generator.generate(prompts=[prompt], max_tokens=8, eos=plain[3])
    assert learnt == [made.ids] == [plain[: plain.index(plain[3]) + 1]]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_beams", 3, "num_beams is 3, which asks for beam search.*set num_beams to 1"),
        ("penalty_alpha", 0.6, "penalty_alpha is 0.6, which asks for contrastive search.*set penalty_alpha to None"),
        ("dola_layers", "high", "dola_layers is high, which asks for dola"),
        ("force_words_ids", [[3]], r"force_words_ids is \[\[3\]\], which asks for constrained beam search"),
        ("token_healing", True, "token_healing is True"),
        ("cache_implementation", "quantized", "cache_implementation is 'quantized'"),
        ("assistant_ensemble_weight", 0.5, "assistant_ensemble_weight is 0.5"),
    ],
)
def test_what_is_not_decoded_token_by_token_is_refused_by_name(field: str, value: Any, said: str) -> None:
    model = tiny_model("llama")
    generator = Generator(model)
    setattr(model.generation_config, field, value)
    for call in (lambda: Generator(model), lambda: generator.generate(prompts=[[1, 2]])):
        with pytest.raises(InputError, match=f"in the model's generation_config, {said}"):
            call()


def test_a_field_that_transformers_refuses_is_named() -> None:
    model = tiny_model("llama")
    model.generation_config.no_repeat_ngram_size = 1.5
    with pytest.raises(InputError, match=r"generation_config cannot be applied.*ngram_size"):
        Generator(model).generate(prompts=[[1, 2]])


def test_other_ways_to_draft_change_nothing() -> None:
    model = tiny_model("llama")
    expected = peer_greedy(model, [1, 2, 3], MAX_TOKENS)
    model.generation_config.prompt_lookup_num_tokens = 4
    assert Generator(model).generate(prompts=[[1, 2, 3]], max_tokens=MAX_TOKENS)[0].ids == expected


def test_minimum_lengths_mean_the_ends_of_the_call() -> None:
    """An EOS of the call is suppressed too, and without an EOS nothing is."""
    model, prompt = tiny_model("llama"), [1, 2, 3]
    plain = peer_greedy(model, prompt, 40)
    model.generation_config.min_new_tokens, model.generation_config.min_length = 9, 99  # the former counts
    model.generation_config.exponential_decay_length_penalty = (12, 1.2)
    ended = {end: peer_greedy(model, prompt, 40, eos_token_id=end) for end in plain[:8]}
    end, expected = next((end, output) for end, output in ended.items() if 9 <= len(output) < 40)
    generator = Generator(model, drafter=Scripted({tuple(prompt): plain}), costs=0.0)
    assert generator.generate(prompts=[prompt], max_tokens=40, eos=end)[0].ids == expected
    assert generator.generate(prompts=[prompt], max_tokens=40, eos=())[0].ids == plain
