"""The probe: the way of running a model whose text is the model's own, and what it costs."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import VOCAB, PromptLookup, Scripted, peer_greedy, random_prompts

from tasc import Generator
from tasc.adapters.transformers import TascGenerate, patch
from tasc.decoding.engine import probe
from tasc.decoding.engine.model_cache import cache_argument
from tasc.decoding.engine.target import Drive, Target
from tasc.decoding.engine.twin import make_twin
from tasc.errors import InputError

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
CACHE = cache_argument(transformers.LlamaForCausalLM)
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}


def longrope(model_class: Callable[..., Any]) -> Any:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 6.0], "original_max_position_embeddings": 48}
    return model_class(
        **SIZES, max_position_embeddings=256, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **factors}
    )


CONFIGS: dict[str, tuple[str, Callable[[], Any]]] = {
    "llama": ("batched", lambda: transformers.LlamaConfig(**SIZES)),
    "gemma3": ("batched", lambda: transformers.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=6)),
    "gpt_neo": ("single", lambda: transformers.GPTNeoConfig(
        vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, window_size=6, max_position_embeddings=256,
        attention_types=[[["global", "local"], 1]], bos_token_id=0, eos_token_id=0)),
    "bloom": ("single", lambda: transformers.BloomConfig(
        vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, pad_token_id=0)),
    "phi3": ("batched", lambda: longrope(lambda **o: transformers.Phi3Config(
        **o, original_max_position_embeddings=48))),
    "llama-longrope": ("batched", lambda: longrope(transformers.LlamaConfig)),
    "lfm2": ("single", lambda: transformers.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"])),
    "mamba2": ("single", lambda: transformers.Mamba2Config(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=1,
        chunk_size=8, bos_token_id=0, eos_token_id=0, pad_token_id=0)),
    "falcon_h1": ("single", lambda: transformers.FalconH1Config(
        **SIZES, **MAMBA, mamba_d_ssm=64, mamba_chunk_size=8)),
    "granite-attention": ("batched", lambda: transformers.GraniteMoeHybridConfig(
        **SIZES, **MAMBA, shared_intermediate_size=64, layer_types=["attention"] * 2, num_local_experts=0,
        num_experts_per_tok=0)),
    "rwkv": ("single", lambda: transformers.RwkvConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=64,
        bos_token_id=0, eos_token_id=0, pad_token_id=0)),
    "mamba": ("undrafted", lambda: transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=8, bos_token_id=0, eos_token_id=0,
        pad_token_id=0)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASC_CACHE", str(tmp_path))
    return tmp_path


def random_model(config: Any, seed: int = 0) -> Any:
    """A model whose greedy texts wander."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.2 / weight.shape[-1] ** 0.5)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    return model


def texts(model: Any, prompts: Sequence[list[int]], **options: Any) -> list[list[int]]:
    with Generator(model, **options) as generator:
        return [item.ids for item in generator.generate(prompts=prompts, max_tokens=24, eos=())]


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_text_is_the_models_own(kind: str) -> None:
    mode, config = CONFIGS[kind]
    model = random_model(config())
    head = random_prompts(1, seed=9)[0][:1] * 3 + list(range(5, 25))
    prompts = [*random_prompts(4), list(range(1, 31)), [*head, 7, 8], [*head, 9], [*head, 11, 12, 13]]
    wanted = [peer_greedy(model, prompt, 24) for prompt in prompts]
    outputs = {tuple(prompt): want for prompt, want in zip(prompts, wanted, strict=True)}
    assert texts(model, prompts, batch_size=3, max_draft=0) == wanted
    for miss in (0.0, 0.3):
        for batch_size in (1, 3):
            generator = Generator(model, drafter=Scripted(outputs, miss), batch_size=batch_size, costs=0.0)
            made = generator.generate(prompts=prompts, max_tokens=24, eos=(), check_plain=True)
            assert [item.ids for item in made] == wanted
            assert (generator.mode, made.stats.mode, made.stats.divergences) == (mode, mode, 0)
            assert made.stats.tau is not None
            assert made.stats.tau == 1 if mode == "undrafted" else made.stats.tau > 2
    if mode == "single":
        assert made.stats.reused_tokens > 0  # the last two prompts begin as the one before


@pytest.mark.parametrize("kind", ["phi3", "llama-longrope", "gpt_neo", "lfm2", "mamba2", "mamba"])
def test_submitted_requests_have_the_text_of_each_alone(kind: str) -> None:
    model = random_model(CONFIGS[kind][1]())
    head = list(range(5, 45))  # some outputs pass the switch of a long RoPE
    prompts = [head * (number % 2) + prompt for number, prompt in enumerate(random_prompts(8, seed=3))]
    options: list[dict[str, Any]] = [
        {"max_tokens": 1 + 5 * number % 24, "eos": (), "temperature": number % 3 * 0.6, "seed": number}
        for number in range(len(prompts))
    ]
    plain = Generator(model, max_draft=0)
    wanted = [plain.generate(prompts=[p], **each)[0].ids for p, each in zip(prompts, options, strict=True)]
    with Generator(model, drafter=PromptLookup(), costs=0.0, batch_size=3) as generator:
        for _ in range(3):  # rows are used again
            futures = [generator.submit(prompt=p, **each) for p, each in zip(prompts, options, strict=True)]
            generator.submit(prompt=prompts[1], **options[1]).cancel()
            assert [future.result(60).ids for future in futures] == wanted


@pytest.mark.parametrize("kind", ["lfm2", "falcon_h1", "bloom"])
def test_ends_inside_drafts(kind: str) -> None:
    model = random_model(CONFIGS[kind][1]())
    prompts = [*random_prompts(4), *random_prompts(4)]  # each row is used again after an end
    wanted = [peer_greedy(model, prompt, 24) for prompt in prompts]
    outputs = {tuple(prompt): want for prompt, want in zip(prompts, wanted, strict=True)}
    ends = {want[9] for want in wanted}
    cut = [want[: next(at for at, token in enumerate(want) if token in ends) + 1] for want in wanted]
    generator = Generator(model, drafter=Scripted(outputs, 0.1), batch_size=2, costs=0.0)
    made = generator.generate(prompts=prompts, max_tokens=24, eos=sorted(ends))
    assert [item.ids for item in made] == cut


@pytest.mark.parametrize("kind", ["mamba2", "lfm2", "llama"])
def test_changed_weights_end_shared_prefixes(kind: str) -> None:
    model = random_model(CONFIGS[kind][1]())
    head = list(range(1, 25))
    generator = Generator(model, max_draft=0)
    for seed in (0, 1):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05 * seed * torch.randn_like(weight))
        prompts = [[*head, 30 + at] for at in range(4)]
        made = generator.generate(prompts=prompts, max_tokens=12, eos=())
        assert [item.ids for item in made] == [peer_greedy(model, prompt, 12) for prompt in prompts]
        assert made.stats.reused_tokens > 0


def test_a_sparse_index_is_found_however_long_it_is() -> None:
    sizes = {**SIZES, "num_key_value_heads": 4}
    config = transformers.DeepseekV32Config(
        **sizes, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        index_head_dim=8, index_n_heads=2, index_topk=80, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, moe_intermediate_size=32, first_k_dense_replace=1,
    )  # fmt: skip
    model = random_model(config)
    prompt = random_prompts(1)[0] * 10
    assert Generator(model, max_draft=0).mode == "undrafted"
    assert texts(model, [prompt[:120]]) == [peer_greedy(model, prompt[:120], 24)]


def test_adapters_that_change_the_prompt_are_refused() -> None:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(random_model(transformers.LlamaConfig(**SIZES)), config)
    with pytest.raises(InputError, match=r"the adapter 'default' .*changes the prompt"):
        Generator(model)


def test_seeds_give_the_same_sample_drafted_or_not() -> None:
    model = random_model(CONFIGS["falcon_h1"][1]())
    prompts = random_prompts(3)
    options: dict[str, Any] = {"prompts": prompts, "max_tokens": 20, "temperature": 0.8, "seed": 3, "eos": ()}
    plain = [item.ids for item in Generator(model, max_draft=0).generate(**options)]
    drafter = Scripted({tuple(p): out for p, out in zip(prompts, plain, strict=True)}, 0.3)
    made = Generator(model, drafter=drafter, costs=0.0, batch_size=2).generate(**options)
    assert [item.ids for item in made] == plain
    assert made.stats.accepted > 0


@pytest.mark.parametrize("kind", ["phi3", "llama-longrope"])
def test_a_switch_of_rotary_factors(kind: str) -> None:
    model = random_model(CONFIGS[kind][1]())
    rng = random.Random(0)
    short, long, head = ([rng.randrange(1, VOCAB) for _ in range(n)] for n in (30, 60, 20))
    prompts = [short, long, head + long, head + short[:5], head + long[:50], head + short[:7]]
    wanted = [peer_greedy(model, prompt, 24) for prompt in prompts]
    outputs = {tuple(prompt): want for prompt, want in zip(prompts, wanted, strict=True)}
    for batch_size in (1, 2, 3):
        generator = Generator(model, drafter=Scripted(outputs, 0.1, length=12), batch_size=batch_size, costs=0.0)
        made = generator.generate(prompts=prompts, max_tokens=24, eos=())
        assert [item.ids for item in made] == wanted
    assert generator.mode == "batched"
    assert made.stats.tau is not None
    assert made.stats.tau > 2


def test_no_switch_where_factors_stay() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 48}
    model = random_model(transformers.LlamaConfig(**SIZES, max_position_embeddings=192, rope_parameters=yarn))
    assert probe.probed_target(model).drive == Drive()


def test_the_result_is_kept_on_disk(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS["gpt_neo"][1]
    found = probe.probed_target(random_model(config())).drive
    monkeypatch.setattr(probe, "make_twin", lambda *_: pytest.fail("probed twice"))
    assert probe.probed_target(random_model(config(), seed=1)).drive == found
    monkeypatch.undo()
    monkeypatch.setenv("TASC_CACHE", str(cache_folder))
    (file,) = (cache_folder / "probes").iterdir()
    file.write_text("{")
    assert probe.probed_target(random_model(config(), seed=2)).drive == found
    assert file.read_text() != "{"


def test_another_window_is_another_model(cache_folder: Path) -> None:
    for window in (6, 64, None):
        config = transformers.MistralConfig(**SIZES, sliding_window=window)
        assert probe.probed_target(random_model(config)).drive == Drive()
    assert 1 <= len(list((cache_folder / "probes").iterdir())) <= 3


def test_without_a_probe_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(CONFIGS["lfm2"][1]())
    monkeypatch.setattr(model.model, "forward", lambda *_, **__: pytest.fail("the model ran"))
    assert Generator(model, probe=False).mode == "single"


def test_plain_checking_is_independent_of_the_batch() -> None:
    model = random_model(CONFIGS["gpt_neo"][1]())
    generator = Generator(model, max_draft=0, batch_size=3, probe=False)  # in batches, which change its text
    assert generator.generate(prompts=random_prompts(6), max_tokens=20, eos=(), check_plain=True).stats.divergences


class Changed(transformers.LlamaForCausalLM):
    """A model that changes the logits of a pass."""

    def forward(self, *args: Any, **options: Any) -> Any:
        output = super().forward(*args, **options)
        output.logits = output.logits + self.change(options["input_ids"], options.get(CACHE), output.logits)
        return output

    forward.__signature__ = inspect.signature(transformers.LlamaForCausalLM.forward)  # type: ignore[attr-defined]

    def change(self, ids: Any, cache: Any, logits: Any) -> Any:
        raise NotImplementedError


class CountsTokens(Changed):
    """Its logits depend on the number of tokens of a pass."""

    def change(self, ids: Any, cache: Any, logits: Any) -> Any:
        past = cache is not None and cache.get_seq_length() > ids.shape[1]
        return past * ids.shape[1] * torch.linspace(0, 9, logits.shape[-1])


class CountsRows(Changed):
    """Its logits depend on the number of rows of a pass."""

    def change(self, ids: Any, cache: Any, logits: Any) -> Any:
        return ids.shape[0] * torch.linspace(0, 9, logits.shape[-1])


class Forgets(Changed):
    """It differs from run to run."""

    def change(self, ids: Any, cache: Any, logits: Any) -> Any:
        return torch.randn_like(logits)


@pytest.mark.parametrize("kind", ["phi3", "llama-longrope"])
def test_transformers_own_loop_at_a_switch_of_rotary_factors(kind: str) -> None:
    model = random_model(CONFIGS[kind][1]())
    for repeats, crosses in ((2, False), (7, True), (15, False)):
        prompt = [5, 60, 7, 80] * repeats
        wanted = peer_greedy(model, prompt, 24)
        with patch(model, TascGenerate(costs=0.0)):
            assert peer_greedy(model, prompt, 24) == wanted
        if crosses:
            with pytest.raises(InputError, match="takes other rotary factors above 48 tokens"):
                peer_greedy(model, prompt, 24, custom_generate=TascGenerate(costs=0.0))
        else:
            assert peer_greedy(model, prompt, 24, custom_generate=TascGenerate(costs=0.0)) == wanted


def test_transformers_own_loop_where_drafts_change_the_text() -> None:
    model = CountsTokens(transformers.LlamaConfig(**SIZES)).eval()
    with pytest.raises(InputError, match="CountsTokens runs token by token, without drafts"):
        peer_greedy(model, [1, 2, 3], 8, custom_generate=TascGenerate(costs=0.0))


@pytest.mark.parametrize(("model_class", "mode"), [(CountsTokens, "undrafted"), (CountsRows, "single")])
def test_classes_that_nobody_listed(model_class: Any, mode: str) -> None:
    model = model_class(transformers.LlamaConfig(**SIZES)).eval()
    assert Generator(model).mode == mode


def test_a_class_that_has_no_text_of_its_own() -> None:
    model = Forgets(transformers.LlamaConfig(**SIZES)).eval()
    with pytest.raises(InputError, match="Forgets does not give the text of its own generate") as error:
        Generator(model)
    assert "\n" not in str(error.value)


def test_a_model_that_differs_from_its_twin(caplog: pytest.LogCaptureFixture) -> None:
    """The class passes; this one object has a forward pass of its own."""
    model = random_model(transformers.LlamaConfig(**SIZES))
    own = model.forward
    ramp = torch.linspace(0, 99, VOCAB)

    def forward(input_ids: Any = None, **options: Any) -> Any:
        past = options.get(CACHE) is not None and options[CACHE].get_seq_length() > 0
        output = own(input_ids=input_ids, **options)
        output.logits = output.logits + past * input_ids.shape[1] * ramp
        return output

    forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    model.forward = forward
    assert Generator(model).mode == "undrafted"
    assert "differs from its twin" in caplog.text


def test_models_without_a_cache_are_refused() -> None:
    openai = transformers.OpenAIGPTConfig(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4)
    with pytest.raises(InputError, match="OpenAIGPTLMHeadModel keeps no cache"):
        Generator(random_model(openai))
    both_ways = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    with pytest.raises(InputError, match="BertLMHeadModel does not give the text of its own generate"):
        Generator(random_model(both_ways))


def test_a_refusal_is_a_line_of_ours_with_its_cause() -> None:
    cpmant = transformers.CpmAntConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, dim_head=8, dim_ff=64
    )
    model = random_model(cpmant)
    refused = "^CpmAntForCausalLM does not give the text of its own generate in the verify loop "
    line = refused + r"\(its forward pass raises RuntimeError on single tokens\); call model.generate "
    with pytest.raises(InputError, match=line) as caught:
        Generator(model)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(InputError, match=line):  # known by now
        Generator(model)


def test_a_configuration_of_another_shape_runs_one_request_at_a_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(**_: Any) -> None:
        raise AttributeError("no num_hidden_layers")

    monkeypatch.setattr(probe, "DynamicCache", fails)
    assert Generator(random_model(transformers.LlamaConfig(**SIZES))).mode == "single"
    assert "no cache can be made from its configuration (AttributeError)" in caplog.text


def test_the_twin_of_repeated_kinds_of_layers_has_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {**SIZES, "num_key_value_heads": 1, "num_hidden_layers": 6}
    model = random_model(transformers.RecurrentGemmaConfig(**sizes, lru_width=32, attention_window_size=6))
    assert set(make_twin(model).config.layers_block_type) == set(model.config.layers_block_type)
    monkeypatch.setattr(model.model, "forward", lambda *_, **__: pytest.fail("the model itself ran"))
    with pytest.raises(InputError, match="RecurrentGemmaForCausalLM returns no cache"):
        Generator(model)


def test_a_limit_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    made = probe.make_twin
    monkeypatch.setattr(probe, "make_twin", lambda model, switch: made(model, switch) if switch == 1000 else None)
    generator = Generator(random_model(CONFIGS["phi3"][1]()), max_draft=0)
    assert "Phi3ForCausalLM runs texts of up to 48 tokens: its rotary factors change there" in caplog.text
    (made_text,) = generator.generate(prompts=[list(range(1, 41))], max_tokens=40, eos=())
    assert (len(made_text.ids), made_text.finish_reason) == (8, "length")


def test_an_attention_implementation_set_later_counts() -> None:
    model = random_model(CONFIGS["gemma3"][1]())
    prompts = random_prompts(3)
    wanted = [peer_greedy(model, prompt, 24) for prompt in prompts]
    outputs = {tuple(prompt): want for prompt, want in zip(prompts, wanted, strict=True)}
    generator = Generator(model, drafter=Scripted(outputs, 0.3), batch_size=3, costs=0.0)
    for implementation in ("sdpa", "eager", "sdpa"):
        model.set_attn_implementation(implementation)
        made = generator.generate(prompts=prompts, max_tokens=24, eos=(), check_plain=True)
        assert [item.ids for item in made] == wanted
        assert made.stats.divergences == 0


def test_context_lengths_by_other_names() -> None:
    mpt = transformers.MptConfig(vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=4, max_seq_len=32)
    model = random_model(mpt)
    (made,) = Generator(model).generate(prompts=[list(range(1, 21))], max_tokens=40, eos=())
    assert (len(made.ids), made.finish_reason) == (12, "length")


def test_twins_are_small() -> None:
    wide = {**SIZES, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "vocab_size": 5000}
    config = transformers.LlamaConfig(**{**wide, "num_attention_heads": 8, "num_key_value_heads": 4})
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    twin = make_twin(model)
    assert sum(weight.numel() for weight in twin.parameters()) < 200_000
    assert Target(twin).config.num_hidden_layers == 2
