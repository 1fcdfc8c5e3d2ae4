"""EAGLE heads: the loop's text stays the target's, drafts are those of a slow twin, runs of training resume."""

from __future__ import annotations

import copy
import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import safetensors.torch  # noqa: E402
from drafts import HELD_OUT, ROWS, folder, tiny  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_drawn_drafts_law import PROMPT, Branches, V  # noqa: E402
from tiny_models import EOS, VOCAB, PromptLookup, Scripted, peer_greedy, random_prompts, tiny_model  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from tasc import Generator, HybridDrafter  # noqa: E402
from tasc.cli import app  # noqa: E402
from tasc.decoding.draft_model.eagle import LlamaForCausalLMEagle3, head_config, load_head  # noqa: E402
from tasc.decoding.draft_model.eagle_drafter import EagleDrafter  # noqa: E402
from tasc.decoding.draft_model.loading import load_draft  # noqa: E402
from tasc.decoding.draft_model.vocabulary import DraftHead  # noqa: E402
from tasc.decoding.sampling import Sampling  # noqa: E402
from tasc.drafting.protocol import RequestParams  # noqa: E402
from tasc.errors import InputError  # noqa: E402
from tasc.models import load_checkpoint  # noqa: E402
from tasc.training.distill import CachedHiddenStates, DistillOptions, acceptance, distill  # noqa: E402
from tasc.training.distill.new_head import new_head, warn_unless_run  # noqa: E402
from tasc.training.distill.teacher import batches, draft_batch, draft_logits  # noqa: E402
from tasc.training.examples import Example  # noqa: E402

MAX_TOKENS = 14
PROMPTS = random_prompts(5)
SOME = [token for token in range(VOCAB) if token % 3 != 1]
QUICK = DistillOptions(steps=8, batch_size=4, precision="fp32", save_every=2, learning_rate=1e-2)


def head_of(target: Any, ids: list[int] | None = None, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return new_head(target, ids)


def attentive(head: Any) -> Any:
    """The head, with drafts that depend on all that it has read."""
    with torch.no_grad():
        for weight in head.midlayer.self_attn.parameters():
            weight.mul_(30.0)
    return head


def states_of(target: Any, tokens: list[int]) -> Any:
    """(L, d) what the target's output head reads."""
    with torch.inference_mode():
        return target.model(torch.tensor([tokens])).last_hidden_state[0]


@torch.inference_mode()
def slow_logits(head: Any, target: Any, verified: list[int], drafted: list[int]) -> Any:
    """Logits behind verified and drafted tokens, one token at a time with formulas written out."""
    config, layer = head.config, head.midlayer
    size, heads, groups = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    states = list(states_of(target, verified)[:-1])
    keys: list[Any] = []
    values: list[Any] = []

    def norm(weight: Any, x: Any) -> Any:
        return weight * x / (x.square().mean() + config.rms_norm_eps).sqrt()

    def rotated(x: Any, position: int) -> Any:
        half = size // 2
        angles = position * 10000.0 ** (-torch.arange(half) / half)
        left, right = x[:, :half], x[:, half:]
        return torch.cat([left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()], 1)

    tokens = verified + drafted
    for position, token in enumerate(tokens[1:]):
        state = states[position]
        embedded = norm(layer.input_layernorm.weight, target.get_input_embeddings().weight[token])
        both = torch.cat([embedded, norm(layer.hidden_norm.weight, state)])
        attention = layer.self_attn
        query = rotated((attention.q_proj.weight @ both).view(heads, size), position)
        keys.append(rotated((attention.k_proj.weight @ both).view(groups, size), position))
        values.append((attention.v_proj.weight @ both).view(groups, size))
        mixed = []
        for number in range(heads):
            group = number // (heads // groups)
            weights = torch.stack([query[number] @ key[group] for key in keys]).div(math.sqrt(size)).softmax(0)
            mixed.append(sum(w * value[group] for w, value in zip(weights, values, strict=True)))
        hidden = state + attention.o_proj.weight @ torch.cat(mixed)
        inner = norm(layer.post_attention_layernorm.weight, hidden)
        mlp = layer.mlp
        gated = torch.nn.functional.silu(mlp.gate_proj.weight @ inner) * (mlp.up_proj.weight @ inner)
        made = norm(head.norm.weight, hidden + mlp.down_proj.weight @ gated)
        if position + 1 >= len(states):
            states.append(made)
    return head.lm_head.weight @ made


def slow_draft(head: Any, target: Any, tokens: list[int], length: int) -> list[int]:
    drafted: list[int] = []
    ids = head.config.draft_vocabulary
    for _ in range(length):
        best = int(slow_logits(head, target, tokens, drafted).argmax())
        drafted.append(best if ids is None else ids[best])
    return drafted


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3-window"])
def test_output_is_plain_decoding_s(architecture: str) -> None:
    """Prompts of unequal length, of one token, in rows that are given on, and prompts whose beginning rows know."""
    target = tiny_model(architecture)
    prompts = [*PROMPTS, [5]]
    expected = [peer_greedy(target, prompt, MAX_TOKENS) for prompt in prompts]
    for ids in (None, SOME):
        head = head_of(target, ids)
        for length, batch_size in ((None, 1), (4, 3)):
            drafter = EagleDrafter(head, length=length, step_cost=0.05)
            generator = Generator(target, drafter=drafter, batch_size=batch_size, costs=0.02)
            for order in (1, -1):
                made = generator.generate(prompts=prompts[::order], max_tokens=MAX_TOKENS)
                assert [item.ids for item in made] == expected[::order]
                assert made.stats.drafter_errors == 0 and made.stats.drafted > 0
                assert set(made.stats.drafted_by) == {"model"}
            assert drafter.rows.num_rows <= batch_size


@pytest.mark.parametrize("ids", [None, SOME], ids=["all ids", "some ids"])
def test_drafts_are_those_of_the_slow_twin(ids: Any) -> None:
    """Several requests at once, whose drafts are accepted in part, in rows that are taken over."""
    target = tiny_model("llama")
    head = head_of(target, ids)
    drafter, rng = EagleDrafter(head, length=3), torch.Generator().manual_seed(3)
    for prompts in (PROMPTS[:3], [PROMPTS[0] + [7, 8], PROMPTS[3]]):
        texts = [list(prompt) for prompt in prompts]
        requests = [drafter.start(text) for text in texts]
        for _ in range(4):
            for request, text in zip(requests, texts, strict=True):
                request.read_states(states_of(target, text)[:-1])
            drafts = [draft.tokens.tolist() for draft in drafter.propose_batch(requests, 3)]
            assert drafts == [slow_draft(head, target, text, 3) if len(text) > 1 else [] for text in texts]
            for request, text, draft in zip(requests, texts, drafts, strict=True):
                accepted = int(torch.randint(0, 4, (1,), generator=rng))
                emitted = [*draft[:accepted], (draft[accepted] + 1) % VOCAB if accepted < len(draft) else 9]
                request.update(emitted)
                text += emitted
        requests.clear()


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.lists(st.integers(1, 3), min_size=1, max_size=5)),
        st.tuples(st.just("drop"), st.integers(0, 9)),
        st.tuples(st.just("step"), st.integers(1, 15), st.integers(1, 3), st.integers(0, 3)),
    ),
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(MOVES)
def test_rows_hold_what_their_requests_have(moves: list[Any]) -> None:
    """Requests come, draft in any company and go, and every draft is the slow twin's."""
    target = tiny_model("llama", vocab=5)
    head = head_of(target)
    drafter = EagleDrafter(head, length=3)
    running: list[tuple[Any, list[int]]] = []
    for kind, *values in moves:
        if kind == "start" and len(running) < 4:
            running.append((drafter.start(values[0]), list(values[0])))
        elif kind == "drop" and running:
            del running[values[0] % len(running)]
        elif kind == "step":
            which, length, accepted = values
            chosen = [one for place, one in enumerate(running) if which >> place & 1]
            for request, text in chosen:
                request.read_states(states_of(target, text)[:-1])
            drafts = drafter.propose_batch([request for request, _ in chosen], length)
            for (request, text), draft in zip(chosen, drafts, strict=True):
                drafted = draft.tokens.tolist()
                assert drafted == (slow_draft(head, target, text, length) if len(text) > 1 else [])
                emitted = [*drafted[:accepted], 4]
                request.update(emitted)
                text += emitted


def test_a_head_drafts_behind_n_grams() -> None:
    target = tiny_model("llama")
    head = head_of(target)
    expected = [peer_greedy(target, prompt, MAX_TOKENS) for prompt in PROMPTS]
    drafter = EagleDrafter(head, step_cost=0.0)
    made = Generator(target, drafter=HybridDrafter(PromptLookup(), drafter), batch_size=2, costs=0.0).generate(
        prompts=PROMPTS, max_tokens=MAX_TOKENS
    )
    assert [item.ids for item in made] == expected
    assert made.stats.drafter_errors == 0 and made.stats.drafted_by["model"] > 0
    known, text = [3, 4], PROMPTS[0]
    request = drafter.start(text)
    request.configure(RequestParams(vocab_size=VOCAB))
    request.read_states(states_of(target, text)[:-1])
    request.begin(Scripted({tuple(text): known}).start(text).draft(2), 5)
    request.keep_prefix(2)
    with torch.inference_mode():
        drafter.rows.place([request])
        found = drafter.rows.step([request])[0]
    torch.testing.assert_close(found, slow_logits(head, target, text, known), atol=1e-4, rtol=1e-4)


def test_a_prefix_that_another_request_has_run_is_drafted_from() -> None:
    target = tiny_model("llama")
    head = head_of(target)
    prompt = [*range(3, 40)]
    generator = Generator(target, drafter=EagleDrafter(head, length=3), costs=0.0)
    first, again = (generator.generate(prompts=[prompt], max_tokens=9, eos=())[0] for _ in range(2))
    assert first.ids == again.ids == peer_greedy(target, prompt, 9, eos_token_id=None)
    assert again.stats.reused_tokens == len(prompt) - 1 and again.stats.drafted == first.stats.drafted + 3


class Noted(EagleDrafter):
    """Notes the tokens of its drafts."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.drafts: list[list[int]] = []

    def propose_batch(self, *given: Any) -> Any:
        made = super().propose_batch(*given)
        self.drafts += [draft.tokens.tolist() for draft in made]
        return made


def test_drafts_follow_an_adapter_that_is_switched() -> None:
    """The head's keys and values of a prefix come from states of the target; with another adapter, they are others."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(tiny_model("llama"), config, adapter_name="one")
    tuned.add_adapter("two", config)
    prompt = [*range(3, 40)]
    head = attentive(head_of(tuned.get_base_model()))
    used = Noted(head, length=3)
    generator = Generator(tuned, drafter=used, costs=0.0)
    seen = []
    for switch in (
        lambda: tuned.set_adapter("one"),
        lambda: tuned.set_adapter("two"),
        tuned.base_model.disable_adapter_layers,
    ):
        switch()
        fresh = Noted(head, length=3)
        expected = peer_greedy(tuned, prompt, 5, eos_token_id=None)
        for drafter, by in ((used, generator), (fresh, Generator(tuned, drafter=fresh, costs=0.0))):
            drafter.drafts.clear()
            assert by.generate(prompts=[prompt], max_tokens=5, eos=())[0].ids == expected
        assert used.drafts == fresh.drafts
        seen.append(list(used.drafts))
    assert seen[0] != seen[1] != seen[2]


def test_states_that_the_target_computes_again_are_read_again() -> None:
    """As when a text grows beyond a RoPE switch: the loop shows no states for a step, and then others of all tokens."""
    target = tiny_model("llama")
    head = attentive(head_of(target))
    other = copy.deepcopy(target)
    with torch.no_grad():
        other.model.layers[0].self_attn.v_proj.weight.mul_(-1.0)
    drafter, text = EagleDrafter(head, length=3), [*range(3, 20)]
    request = drafter.start(text)
    for now, states in ((target, None), (other, torch.empty(0, 0)), (other, None)):
        request.read_states(states_of(now, text)[:-1] if states is None else states)
        draft = request.draft(3).tokens.tolist()
        assert draft == (slow_draft(head, now, text, 3) if states is None else [])
        emitted = [*draft[:1], 9]
        request.update(emitted)
        text = text + emitted
    assert slow_draft(head, target, text[:-2], 3) != slow_draft(head, other, text[:-2], 3)


def test_states_are_kept_from_the_first_job_that_reads_them() -> None:
    target = tiny_model("llama")
    drafter = EagleDrafter(head_of(target), length=3)
    generator = Generator(target, drafter=PromptLookup(), costs=0.0)
    prompt = [*range(3, 40)]
    plain = generator.generate(prompts=[prompt], max_tokens=9)[0].ids
    made = generator.generate(prompts=[[*prompt, 7]], max_tokens=9, drafter=drafter)
    assert made[0].stats.reused_tokens == 0 and made.stats.drafted > 0
    assert made[0].ids == peer_greedy(target, [*prompt, 7], 9)
    assert generator.generate(prompts=[prompt], max_tokens=9)[0].ids == plain


@pytest.mark.parametrize("kind", ["head", "head over some ids", "combined", "head of windows"])
def test_the_loop_s_law_is_the_targets(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """All that chance can do to four tokens, draws of the head included; windows of 5 tokens end within them."""
    target = tiny_model("gemma3-window" if "windows" in kind else "llama", vocab=V, spread=0.2)
    prompt = PROMPT + [3, 1] * ("windows" in kind)
    head = head_of(target, [0, 3] if "some ids" in kind else None, seed=3)
    options: dict[str, Any] = {"temperature": 1.0, "top_k": 2}
    branches, law, drafted = Branches(), {}, 0
    monkeypatch.setattr("tasc.decoding.sampling.quantile", lambda weights, uniform: branches.take(weights))
    monkeypatch.setattr("tasc.decoding.sampling.accept_or_replace", lambda x, p, q, uniform: branches.replace(x, p, q))
    while True:
        drafter: Any = EagleDrafter(head, length=2)
        if kind == "combined":
            drafter = HybridDrafter(Scripted({tuple(prompt): [3] * 4}, length=1), EagleDrafter(head, step_cost=0.0))
        generator = Generator(target, drafter=drafter, costs=0.0, pack_weights=False)
        made = generator.generate(prompts=[prompt], max_tokens=4, eos=(), **options)
        law[tuple(made[0].ids)] = law.get(tuple(made[0].ids), 0.0) + branches.chance
        drafted += made.stats.drafted_by["model"]
        if not branches.next_run():
            break
    assert drafted > 0
    processors = Sampling(**options).processors()
    for output in itertools.product(range(V), repeat=4):
        expected = 1.0
        for at, token in enumerate(output):
            ids = torch.tensor([prompt + list(output[:at])])
            with torch.inference_mode():
                scores = target(ids).logits[:, -1].float()
            for process in processors:
                scores = process(ids, scores)
            expected *= float(torch.softmax(scores[0].double(), -1)[token])
        assert math.isclose(law.get(output, 0.0), expected, abs_tol=1e-6)


def examples_of(target: Any, lengths: list[tuple[int, int]]) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for prompt, completion in lengths:
        ids = torch.randint(2, target.config.vocab_size, (prompt + completion,), generator=generator).tolist()
        found.append(Example(ids[:prompt], ids[prompt:], prompt + completion))
    return found


@pytest.mark.parametrize("ids", [None, SOME], ids=["all ids", "some ids"])
@torch.no_grad()
def test_a_batch_of_training_computes_what_drafting_computes(ids: Any, tmp_path: Path) -> None:
    """Rows of unequal length, padded on both sides: every step's logits are those of the slow twin's drafts."""
    target = tiny_model("llama")
    head, rows = head_of(target, ids), examples_of(target, [(4, 5), (7, 3), (5, 6)])
    teacher = CachedHiddenStates.compute(target, rows, tmp_path / "states", whole=True)
    chosen, batch, sizes = next(batches(head, rows))
    found = draft_logits(head, draft_batch(head, teacher, chosen, batch, 3))
    for step, logits in enumerate(found):
        for row, part in zip(chosen, torch.split(logits, sizes), strict=True):
            tokens = rows[row].prompt + rows[row].completion
            for at in range(len(rows[row].prompt) - 1, len(tokens) - 1):
                verified, drafted = tokens[: at + 1 - step], tokens[at + 1 - step : at + 1]
                expected = slow_logits(head, target, verified, drafted)
                place = at - len(rows[row].prompt) + 1
                torch.testing.assert_close(part[place], expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 4])
def test_alpha_by_teacher_forcing_is_the_loops_exactly(length: int, tmp_path: Path) -> None:
    target = tiny_model("llama", spread=0.3)
    head = head_of(target, SOME)
    outputs = [Example(p, peer_greedy(target, p, 20), len(p) + 20) for p in PROMPTS if len(p) > 1]
    teacher = CachedHiddenStates.compute(target, outputs, tmp_path / "states", whole=True)
    trained(head, teacher, outputs)
    drafter = EagleDrafter(head, length=length)
    made = Generator(target, drafter=drafter, max_draft=length, costs=0.0, batch_size=3).generate(
        prompts=[e.prompt for e in outputs], max_tokens=20
    )
    assert made.stats.alpha is not None and 0.1 < made.stats.alpha < 1.0
    found = acceptance(head, outputs, frozenset({EOS}), teacher=teacher, length=length, max_tokens=20)
    for number, item in enumerate(made):
        counts = (found.accepted[number], found.tested[number], found.tokens[number], found.steps[number])
        assert counts == (item.stats.accepted, item.stats.tested, item.stats.tokens, item.stats.steps)


def trained(head: Any, teacher: Any, rows: list[Example]) -> None:
    """Train a head on rows by heart until it is often right."""
    optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
    chosen, batch, _ = next(batches(head, rows))
    ids = DraftHead(head).ids
    for _ in range(25):
        target = teacher.over(ids, chosen, batch).logits
        found = draft_logits(head, draft_batch(head, teacher, chosen, batch, 2))
        loss = sum(torch.nn.functional.cross_entropy(logits, target.argmax(-1)) for logits in found)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, spread=0.3)
    return folder(tmp_path_factory.mktemp("target") / "model", model)


def weights(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")


def stopped(what: str, at: int) -> Any:
    def bar(title: str) -> Any:
        def move(done: float, total: float) -> None:
            if title == what and done == at:
                raise KeyboardInterrupt

        return move

    return bar


@pytest.mark.parametrize("select", ["all", "adaspec", "moving"])
def test_a_head_learns_and_a_stopped_run_goes_on_as_if_it_had_not_been(
    select: Any, target: Path, tmp_path: Path
) -> None:
    options = replace(QUICK, select=select, vocabulary=40, steps=20)
    given: dict[str, Any] = {
        "options": options, "validation": HELD_OUT, "outputs": "target", "max_output": 12, "baseline": False,
        "length": 3,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        distill(target, "eagle", ROWS, tmp_path / "head", progress=stopped("distilling (draft)", 15), **given)
    made = distill(target, "eagle", ROWS, tmp_path / "head", **given)
    whole = distill(target, "eagle", ROWS, tmp_path / "whole", **given)
    assert made.metrics["stages"]["draft"]["resumed_at"] == 14
    before, after = weights(whole.path), weights(made.path)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    found = made.metrics["acceptance"]
    assert found == whole.metrics["acceptance"]
    if select == "all":  # of the other selections, the loss is that of other tokens in each step
        losses = [entry["loss"] for entry in made.metrics["stages"]["draft"]["curve"]]
        assert sum(losses[-3:]) < 0.8 * sum(losses[:3])  # of three batches each: all rows
        assert found["draft"]["alpha_exp"]["value"] > found["untrained"]["alpha_exp"]["value"]
    assert json.loads((made.path / "distill.json").read_text())["draft"] == "eagle"


def test_a_saved_head_has_the_layout_of_eagle_3(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and shapes that vLLM's Eagle3LlamaForCausalLM loads (`llama_eagle3.py`)."""
    monkeypatch.setattr(LlamaForCausalLMEagle3, "set_attn_implementation", None)  # it would warn of a head's attention
    made = distill(target, "eagle", ROWS, tmp_path / "head", options=replace(QUICK, vocabulary=40, steps=2))
    model = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    head, tokenizer = load_draft(str(made.path), model)
    config, ids = json.loads((made.path / "config.json").read_text()), head.config.draft_vocabulary
    assert config["architectures"] == ["LlamaForCausalLMEagle3"] and config["model_type"] == "llama"
    assert config["eagle_config"] == {"use_aux_hidden_state": False} and config["norm_output"] is True
    assert config["num_hidden_layers"] == 1 and config["draft_vocab_size"] == len(ids) <= 40
    width, rows, inner = 32, model.config.vocab_size, model.config.intermediate_size
    shapes = {
        "midlayer.self_attn.q_proj.weight": (width, 2 * width), "midlayer.self_attn.k_proj.weight": (16, 2 * width),
        "midlayer.self_attn.v_proj.weight": (16, 2 * width), "midlayer.self_attn.o_proj.weight": (width, width),
        "midlayer.hidden_norm.weight": (width,), "midlayer.input_layernorm.weight": (width,),
        "midlayer.post_attention_layernorm.weight": (width,), "midlayer.mlp.gate_proj.weight": (inner, width),
        "midlayer.mlp.up_proj.weight": (inner, width), "midlayer.mlp.down_proj.weight": (width, inner),
        "norm.weight": (width,), "lm_head.weight": (len(ids), width), "d2t": (len(ids),), "t2d": (rows,),
    }  # fmt: skip
    stored = weights(made.path)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == shapes
    assert (stored["d2t"] + torch.arange(len(ids))).tolist() == ids
    assert stored["t2d"].nonzero()[:, 0].tolist() == ids and stored["d2t"].dtype == torch.int64
    output = model.get_output_embeddings().weight
    assert torch.equal(stored["lm_head.weight"], output[ids]), "the output head stays the target's"
    assert len(tokenizer) > 0 and head.get_input_embeddings() is model.get_input_embeddings()
    assert all(torch.equal(stored[name], value) for name, value in head.state_dict().items())


def test_what_does_not_fit_is_refused_in_a_line(target: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    head = head_of(model)
    head.save_pretrained(tmp_path / "head")
    for other, has in ((tiny(hidden_size=64), "and 64"), (tiny(vocab=300, hidden_size=32), "300 and 32")):
        with pytest.raises(InputError, match=f"a width of 32, the target has .*{has}; give the head's own target"):
            load_head(tmp_path / "head", other)
    with pytest.raises(InputError, match=r"the EAGLE head is for a target with \d+ ids, the target has 257"):
        Generator(tiny_model("llama"), drafter=EagleDrafter(head))
    with pytest.raises(InputError, match=r"head is .*; it must be an EAGLE head"):
        EagleDrafter(model)
    with pytest.raises(InputError, match="holds no EAGLE head; distil one"):
        EagleDrafter.load(target, model)
    assert EagleDrafter.load(tmp_path / "head", model, length=2).length == 2
    with pytest.raises(InputError, match="learns from the target's cached states; distil it with keep_states=True"):
        distill(target, "eagle", ROWS, tmp_path / "made", options=replace(QUICK, keep_states=False))
    with pytest.raises(InputError, match="is an EAGLE head; give --draft eagle to make a new one"):
        distill(target, tmp_path / "head", ROWS, tmp_path / "made", options=QUICK)
    options = replace(QUICK, select="adaspec")
    for draft, reference in (("eagle", target), (2, tmp_path / "head")):
        with pytest.raises(InputError, match="a reference must be an EAGLE head if the draft is one"):
            distill(target, draft, ROWS, tmp_path / "made", options=options, reference=reference)
    outputs = examples_of(model, [(4, 3)])
    for teacher in (None, CachedHiddenStates.compute(model, outputs, tmp_path / "states")):
        with pytest.raises(InputError, match="reads the target's states of whole rows"):
            acceptance(head, outputs, frozenset({EOS}), teacher=teacher)
    capped = tiny_model("gemma3-window")
    capped.config.final_logit_softcapping = 0.01
    with pytest.raises(InputError, match="computes its logits from more than its last hidden states"):
        new_head(capped, None)
    assert not (tmp_path / "made").exists()


def damaged(whole: Path, copy: Path, **config: Any) -> Path:
    """A copy of a checkpoint with one weight less, or with other settings."""
    shutil.copytree(whole, copy)
    if config:
        settings = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(settings | config))
    else:
        kept = weights(copy)
        del kept[next(name for name in kept if "q_proj" in name)]
        safetensors.torch.save_file(kept, copy / "model.safetensors", {"format": "pt"})
    return copy


def test_a_checkpoint_that_is_not_whole_is_refused(target: Path, tmp_path: Path) -> None:
    """transformers gives missing weights random numbers, so the text would be another one."""
    model = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    transformers.AutoTokenizer.from_pretrained(target).save_pretrained(tmp_path / "head")
    head_of(model).save_pretrained(tmp_path / "head")
    lacks = (
        r"cannot load model '.*': the checkpoint lacks model\.[\w.]+ and \d+ other weights; .*an EAGLE head is no model"
    )
    for used in (lambda head: load_checkpoint(str(head)), lambda head: distill(head, 1, ROWS, tmp_path / "made")):
        with pytest.raises(InputError, match=lacks):
            used(tmp_path / "head")
    with pytest.raises(InputError, match=r"the checkpoint lacks midlayer\.self_attn\.q_proj\.weight; give a complete"):
        load_head(damaged(tmp_path / "head", tmp_path / "less"), model)
    with pytest.raises(InputError, match=r"the checkpoint lacks model\.layers\.0\.self_attn\.q_proj\.weight; give"):
        load_checkpoint(str(damaged(target, tmp_path / "less model")))
    inner = damaged(tmp_path / "head", tmp_path / "inner", eagle_config={"use_aux_hidden_state": True})
    with pytest.raises(InputError, match="reads states of the target's inner layers, which tasc does not keep"):
        load_head(inner, model)
    wide = damaged(target, tmp_path / "wide", intermediate_size=40)
    with pytest.raises(
        InputError, match=r"down_proj\.weight has the shape \(32, 24\) in the checkpoint, and \(32, 40\)"
    ):
        load_checkpoint(str(wide))
    for name in ("model.safetensors", "tokenizer.json"):
        cut = tmp_path / f"cut {name}"
        shutil.copytree(tmp_path / "head", cut)
        (cut / name).write_bytes((cut / name).read_bytes()[:-90])
        with pytest.raises(InputError, match=f"^cannot load model '{cut}': "):
            load_draft(str(cut), model)
    assert not (tmp_path / "made").exists()


def test_a_target_without_rows_is_refused() -> None:
    config = transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=32, state_size=4, num_hidden_layers=2, eos_token_id=EOS, pad_token_id=EOS
    )
    mamba = transformers.AutoModelForCausalLM.from_config(config).eval()
    torch.manual_seed(0)
    config = head_config(tiny_model("llama"), None)
    head = LlamaForCausalLMEagle3(config).read_target(mamba)
    with pytest.raises(InputError, match="drafter 'eagle' reads the target's states, and MambaForCausalLM"):
        Generator(mamba, drafter=EagleDrafter(head))
    with pytest.raises(InputError, match="MambaForCausalLM has no attention heads"):
        new_head(mamba, None)


def test_targets_whose_states_or_shapes_no_head_takes_are_refused_in_a_line() -> None:
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    opt = transformers.AutoModelForCausalLM.from_config(  # which runs an inner module of its base model
        transformers.OPTConfig(vocab_size=VOCAB, max_position_embeddings=64, word_embed_proj_dim=32, **sizes)
    )
    padded = tiny_model("llama")
    padded.set_output_embeddings(torch.nn.Linear(32, VOCAB + 7, bias=False))
    for model, what in ((opt, "does not show its last hidden states; cut"), (padded, "257 × 32 and .* 264 × 32; cut")):
        with pytest.raises(InputError, match=what):
            new_head(model.eval(), None)
    each = SimpleNamespace(num_attention_heads=4, intermediate_size=[48, 64])
    several = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: each), get_input_embeddings=lambda: torch.nn.Embedding(9, 32)
    )
    assert head_config(several, None).intermediate_size == 64


def test_a_head_that_the_loop_does_not_run_is_made_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Recurrent layers take no padding, so the loop runs them one by one and keeps no states."""
    config = transformers.Lfm2Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"],
    )  # fmt: skip
    warn_unless_run(tiny_model("llama"))
    assert not caplog.messages
    warn_unless_run(transformers.AutoModelForCausalLM.from_config(config))
    assert "Lfm2ForCausalLM is run one request at a time in tasc's loop, which keeps no states" in caplog.messages[0]
    warned: list[Any] = []

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasc.training.distill.run.warn_unless_run", warned.append)
    monkeypatch.setattr("tasc.training.distill.run._Run._stage", stop)
    with pytest.raises(KeyboardInterrupt):
        distill(folder(tmp_path / "model", tiny()), "eagle", ROWS, tmp_path / "head", options=QUICK)
    assert len(warned) == 1


def test_a_head_is_made_measured_and_run_from_the_command_line(target: Path, tmp_path: Path) -> None:
    def tasc(*args: str | Path) -> Any:
        found = CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")
        assert found.exit_code == 0, found.output
        return found

    lines = [{**row, "split": "test" if n % 4 == 0 else "train"} for n, row in enumerate(ROWS)]
    rows, settings = tmp_path / "rows.jsonl", tmp_path / "settings.toml"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings.write_text('batch_size = 4\nprecision = "fp32"\nmax_output = 12\nvocabulary = 40\n')
    made = tasc(
        "distill", "--target", target, "--data", rows, "--split", "train", "--validation-split", "test", "--draft",
        "eagle", "--steps", "3", "--threads", "1", "--config", settings, "-o", tmp_path / "head",
    )  # fmt: skip
    assert "ids" in made.stdout and "α" in made.stdout
    texts = []
    for name, draft in (("plain", ()), ("drafted", ("--draft", tmp_path / "head"))):
        out = tmp_path / f"{name}.jsonl"
        tasc("generate", rows, "--model", target, *draft, "--max-tokens", "12", "-o", out)
        texts.append([json.loads(line)["output"] for line in out.read_text().splitlines()])
    assert texts[0] == texts[1] and len(texts[0]) == len(ROWS)
