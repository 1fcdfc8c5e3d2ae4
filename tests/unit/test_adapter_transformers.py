"""`generate` of transformers with tasc's drafts says what `generate` without them says."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
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

from tasc import TaskIndex
from tasc.adapters.transformers import TascCandidateGenerator, TascGenerate, patch
from tasc.data import TokenStore, load_tokenizer
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft, salt_digest, served_log
from tasc.errors import InputError, TokenizerMismatchError

PROMPTS = random_prompts(3, seed=3)


def ours(drafter: Any, **options: Any) -> TascGenerate:
    return TascGenerate(drafter=drafter, costs=0.0, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_output_is_that_of_generate(name: str) -> None:
    model = tiny_model(name)
    for prompt in PROMPTS:
        expected = peer_greedy(model, prompt, 40)
        for drafter in (Scripted({tuple(prompt): expected}, miss) for miss in (0.0, 0.3, 1.0)):
            with_drafts = ours(drafter, max_draft=7)
            assert peer_greedy(model, prompt, 40, custom_generate=with_drafts) == expected
            with patch(model, with_drafts):
                assert peer_greedy(model, prompt, 40) == expected
        assert peer_greedy(model, prompt, 40, custom_generate=ours(PromptLookup())) == expected


def test_drafts_are_used_and_told_what_became_of_them() -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    expected = peer_greedy(model, prompt, 40)
    drafter = Scripted({tuple(prompt): expected}, length=7)
    peer_greedy(model, prompt, 40, custom_generate=ours(drafter))
    [request] = drafter.requests
    assert [token for part in request.updates for token in part] == expected
    assert len(request.updates) == -(-len(expected) // 8)  # 7 drafted and the model's own


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 30},
        {"suppress_tokens": [5, 9]},
        {"guidance_scale": 1.5},
        {"eos_token_id": [17, 50, 90, 130, 200]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_generate_keep_working(options: dict[str, Any]) -> None:
    model = tiny_model("llama")
    for prompt in PROMPTS:
        expected = peer_greedy(model, prompt, 40, **options)
        drafter = Scripted({tuple(prompt): expected}, 0.2)
        assert peer_greedy(model, prompt, 40, custom_generate=ours(drafter), **options) == expected
        with patch(model, drafter=drafter, costs=0.0):
            assert peer_greedy(model, prompt, 40, **options) == expected


def test_a_custom_processor_sees_every_history() -> None:
    def shift(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.roll(int(ids.sum()) % 7, dims=-1)

    model, prompt = tiny_model("gpt2"), PROMPTS[0]
    options = {"logits_processor": transformers.LogitsProcessorList([shift])}
    expected = peer_greedy(model, prompt, 30, **options)
    drafter = Scripted({tuple(prompt): expected}, 0.2)
    assert peer_greedy(model, prompt, 30, custom_generate=ours(drafter), **options) == expected


class Counting(transformers.LogitsProcessor):
    """Shifts the scores by the number of its calls; keeps the ids of each."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += input_ids.tolist()
        return scores.roll(len(self.calls) % 5, dims=-1)


@pytest.mark.parametrize("miss", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "top_k": 1}], ids=["greedy", "sampled"])
def test_a_processor_with_a_state_is_called_as_without_drafts(options: dict[str, Any], miss: float) -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    ids = torch.tensor([prompt])

    def made(**more: Any) -> tuple[list[int], list[list[int]]]:
        counting = Counting()
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=30,
            logits_processor=transformers.LogitsProcessorList([counting]), **options, **more,
        )  # fmt: skip
        return out[0, len(prompt) :].tolist(), counting.calls

    expected = made()
    drafter = Scripted({tuple(prompt): expected[0]}, miss)
    assert made(custom_generate=ours(drafter)) == expected
    with patch(model, drafter=drafter, costs=0.0):
        assert made() == expected
    assert miss or max(map(len, drafter.requests[0].updates)) == 8


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9])
def test_max_length_ends_within_a_draft(most: int) -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    long = peer_greedy(model, prompt, 40)
    for options in ({"max_new_tokens": most}, {"max_length": len(prompt) + most}):
        drafter = Scripted({tuple(prompt): long})
        out = model.generate(torch.tensor([prompt]), do_sample=False, custom_generate=ours(drafter), **options)
        assert out[0, len(prompt) :].tolist() == long[:most]


class Ends(transformers.StoppingCriteria):
    """Ends behind the first of these tokens in the output."""

    def __init__(self, start: int, tokens: set[int]) -> None:
        self.start, self.tokens = start, tokens

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([bool(self.tokens & set(row[self.start :].tolist())) for row in input_ids])


def test_a_stopping_criterion_ends_within_a_draft() -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    long = peer_greedy(model, prompt, 40)
    for at in (0, 3, 7, 8, 20):
        criteria = transformers.StoppingCriteriaList([Ends(len(prompt), {long[at]})])
        expected = peer_greedy(model, prompt, 40, stopping_criteria=criteria)
        drafter = Scripted({tuple(prompt): long})
        assert peer_greedy(model, prompt, 40, stopping_criteria=criteria, custom_generate=ours(drafter)) == expected
        assert len(drafter.requests[0].updates) == -(-len(expected) // 8)


def test_stop_strings_end_within_a_draft() -> None:
    model, tokenizer, prompt = tiny_model("llama"), byte_tokenizer(), PROMPTS[1]
    long = peer_greedy(model, prompt, 40)
    text = tokenizer.convert_ids_to_tokens(long[12])
    stop = tokenizer.convert_tokens_to_string([text])
    expected = peer_greedy(model, prompt, 40, tokenizer=tokenizer, stop_strings=[stop])
    assert len(expected) < 40
    with patch(model, drafter=Scripted({tuple(prompt): long}), costs=0.0):
        assert peer_greedy(model, prompt, 40, tokenizer=tokenizer, stop_strings=[stop]) == expected
    criteria = transformers.StoppingCriteriaList([transformers.StopStringCriteria(tokenizer, [stop])])
    again = ours(Scripted({tuple(prompt): long}))
    assert peer_greedy(model, prompt, 40, stopping_criteria=criteria, custom_generate=again) == expected


class Heard(transformers.TextStreamer):
    """Keeps the texts, and whether the end was told."""

    def __init__(self) -> None:
        super().__init__(byte_tokenizer(), skip_prompt=True)
        self.texts: list[str] = []
        self.ended = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.texts.append(text)
        self.ended += stream_end


@pytest.mark.parametrize("route", ["custom_generate", "wrapped", "patch"])
def test_streamers_hear_the_whole_text(route: str) -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    plain, heard = Heard(), Heard()
    expected = peer_greedy(model, prompt, 40, streamer=plain)
    with_drafts = ours(Scripted({tuple(prompt): expected}, 0.1))
    if route == "patch":
        with patch(model, with_drafts):
            peer_greedy(model, prompt, 40, streamer=heard)
    else:
        loop = with_drafts if route == "custom_generate" else lambda *args, **kwargs: with_drafts(*args, **kwargs)
        peer_greedy(model, prompt, 40, streamer=heard, custom_generate=loop)
    assert "".join(heard.texts) == "".join(plain.texts) != ""
    assert heard.ended == plain.ended == 1


def test_the_dictionary_holds_what_generate_puts_into_it() -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": 20, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    plain = model.generate(ids, **options)
    drafter = Scripted({tuple(prompt): plain.sequences[0, len(prompt) :].tolist()}, 0.2)
    made = model.generate(ids, custom_generate=ours(drafter), **options)
    assert made.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(torch.stack(made.scores), torch.stack(plain.scores), atol=1e-4, rtol=1e-4)
    assert made.past_key_values.get_seq_length() == plain.past_key_values.get_seq_length()


def test_patch_leaves_the_model_as_it_was() -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    expected = peer_greedy(model, prompt, 20)
    own, outer, inner = (type(model), *(Scripted({tuple(prompt): expected}) for _ in range(2)))
    with patch(model, drafter=outer, costs=0.0):
        assert isinstance(model, own) and type(model).__name__ == own.__name__
        with patch(model, drafter=inner, costs=0.0), pytest.raises(KeyError):
            peer_greedy(model, prompt, 20)
            raise KeyError
        assert (len(outer.requests), len(inner.requests)) == (0, 1)
        peer_greedy(model, prompt, 20)
    assert type(model) is own and "generate" not in vars(model)
    assert peer_greedy(model, prompt, 20) == expected
    assert (len(outer.requests), len(inner.requests)) == (1, 1)


def test_patch_reaches_the_model_within_a_peft_model() -> None:
    peft = pytest.importorskip("peft")
    model, prompt = tiny_model("llama"), PROMPTS[1]
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    expected = peer_greedy(wrapped, prompt, 20)
    drafter = Scripted({tuple(prompt): expected})
    with patch(wrapped, drafter=drafter, costs=0.0):
        assert peer_greedy(wrapped, prompt, 20) == expected
    assert len(drafter.requests[0].updates) == 3


def batch(model: Any, **options: Any) -> list[list[int]]:
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, **options).tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"2 sequences at once.*Generator\(batch_size"),
        ({"num_return_sequences": 2, "do_sample": True}, "4 sequences at once"),
    ],
)
def test_a_batch_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        batch(tiny_model("llama"), custom_generate=ours(PromptLookup()), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 2}, "sequences at once|num_beams is 2"),
        ({"penalty_alpha": 0.6}, "penalty_alpha is 0.6, which asks for contrastive search"),
        ({"use_cache": False}, "no cache"),
        ({"cache_implementation": "static"}, "StaticCache"),
    ],
    ids=["beams", "contrastive", "no cache", "static"],
)
def test_what_cannot_be_drafted_for_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        peer_greedy(tiny_model("llama"), PROMPTS[0], 8, custom_generate=ours(PromptLookup()), **options)


def test_scores_that_are_not_those_of_generate_are_refused_by_name() -> None:
    options = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 4, "guidance_scale": 1.5}
    model, ids = tiny_model("llama"), torch.tensor([PROMPTS[0]])
    with pytest.raises(InputError, match="returns no scores; leave output_scores out"):
        model.generate(ids, do_sample=True, custom_generate=ours(PromptLookup()), **options)
    plain = model.generate(ids, do_sample=False, **options)
    made = model.generate(ids, do_sample=False, custom_generate=ours(PromptLookup()), **options)
    torch.testing.assert_close(torch.stack(made.scores), torch.stack(plain.scores), atol=1e-4, rtol=1e-4)


def test_a_filled_cache_is_refused_by_name() -> None:
    model, ids = tiny_model("llama"), torch.tensor([PROMPTS[0]])
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    filled = {name: transformers.DynamicCache(config=model.config)}
    model(ids[:, :-1], **filled)
    with pytest.raises(InputError, match="another or a filled one"):
        model.generate(ids, **filled, max_new_tokens=4, custom_generate=ours(PromptLookup()))


def test_patch_decodes_plainly_what_cannot_be_drafted_for(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("llama")
    expected = batch(model, do_sample=False)
    beams = peer_greedy(model, PROMPTS[0], 9, num_beams=2)
    with caplog.at_level(logging.WARNING), patch(model, drafter=PromptLookup()):
        assert batch(model, do_sample=False) == batch(model, do_sample=False) == expected
        assert peer_greedy(model, PROMPTS[0], 9, num_beams=2) == beams
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["decoding without drafts"]


@pytest.mark.parametrize("how", ["start", "draft", "update", "huge", "long", "vocab"])
def test_a_drafter_that_fails_changes_nothing(how: str) -> None:
    model = tiny_model("llama")
    expected = peer_greedy(model, PROMPTS[1], 20)
    assert peer_greedy(model, PROMPTS[1], 20, custom_generate=ours(Misbehaving(how))) == expected


class Watched(Drafter, protocol.Request):
    """Drafts what does not come; keeps what it was asked and told."""

    name = "watched"

    def __init__(self, index: TaskIndex | None = None) -> None:
        self.index = index
        self.costs: list[Any] = []
        self.inputs: list[str | None] = []

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Watched:
        self.inputs.append(input_text)
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        self.costs.append(costs)
        return TokenDraft.of([7] * min(max_tokens, 8))

    def update(self, ids: Any) -> None:
        pass


def test_costs_reach_the_drafter_and_the_brake_holds_it() -> None:
    model, watched = tiny_model("llama"), Watched()
    peer_greedy(model, PROMPTS[1], 60, eos_token_id=None, custom_generate=TascGenerate(drafter=watched, costs=0.5))
    assert watched.costs[0].tolist() == (1 + 0.5 * np.arange(65)).tolist()
    assert len(watched.costs) < 12  # each loses four plain steps
    learnt = Watched()
    with_drafts = TascGenerate(drafter=learnt, max_draft=5)
    for _ in range(2):
        peer_greedy(model, PROMPTS[1], 6, custom_generate=with_drafts)
    assert len(learnt.costs[-1]) == 6 and learnt.costs[-1][0] == 1 and (np.diff(learnt.costs[-1]) >= 0).all()
    assert learnt.costs[-1].tolist() != learnt.costs[0].tolist()  # real steps were taken in


CITIES = ("boston", "denver", "dallas", "austin", "newark")
ROWS = [
    {"input": f"flights from {a} to {b}", "output": f'{{"from": "{a}", "to": "{b}"}}'}
    for a in CITIES
    for b in CITIES
    if a != b
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> TaskIndex:
    folder = tmp_path_factory.mktemp("task")
    rows, task = folder / "rows.jsonl", load_tokenizer(byte_tokenizer())
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    store = TokenStore.build([rows], task, folder / "rows.store")
    return TaskIndex.build(store, folder / "task.tasc", tokenizer=task)


def test_inputs_are_found_in_prompts_or_told(index: TaskIndex) -> None:
    model, tokenizer, watched = tiny_model("llama"), byte_tokenizer(), Watched(index)
    with_drafts = TascGenerate(drafter=watched, tokenizer=tokenizer, costs=0.0)
    for text in ("to austin", "from oakland", "list airlines"):
        ids = tokenizer(f"Q: {text}\nA:", return_tensors="pt")["input_ids"]
        model.generate(ids, max_new_tokens=1, custom_generate=with_drafts)
        model.generate(ids, max_new_tokens=1, custom_generate=with_drafts, tasc_input="told")
    assert watched.inputs == [None, "told", "from oakland", "told", "list airlines", "told"]


def test_an_index_drafts_by_path_or_opened(index: TaskIndex) -> None:
    tokenizer, model = byte_tokenizer(), tiny_model("llama")
    prompt = tokenizer("flights from boston to dallas\n")["input_ids"]
    expected = peer_greedy(model, prompt, 30)
    for given, tokens in ((index, tokenizer), (str(index.path), None), (Path(index.path), tokenizer), (None, None)):
        with_drafts = TascGenerate(given, tokens, costs=0.0)
        assert peer_greedy(model, prompt, 30, custom_generate=with_drafts) == expected
        ids = torch.tensor([tokenizer('{"from": "boston", "to": "')["input_ids"]])
        made, none = TascCandidateGenerator(with_drafts.drafts, max_draft=9).get_candidates(ids)
        assert none is None and made[:, : ids.shape[1]].tolist() == ids.tolist()


def test_the_input_leads_the_draft(index: TaskIndex) -> None:
    tokenizer = byte_tokenizer()
    drafts = TascGenerate(index, tokenizer).drafts
    ids = torch.tensor([tokenizer("flights from newark to austin\n")["input_ids"]])
    candidates = TascCandidateGenerator(drafts, input_text="flights from newark to austin", max_draft=40, eos=[EOS])
    made, _ = candidates.get_candidates(ids)
    said = tokenizer.decode(made[0, ids.shape[1] :])
    assert said and '{"from": "newark", "to": "austin"}'.startswith(said)


class Serving(Scripted):
    """Keeps the rows that it learns."""

    def __init__(self, outputs: dict[tuple[int, ...], list[int]]) -> None:
        super().__init__(outputs, 0.2)
        self.rows: list[tuple[str | None, list[int]]] = []

    def serve(self, rows: Any) -> None:
        self.rows += [(text, np.asarray(ids).tolist()) for text, ids in rows]


@pytest.mark.parametrize("route", ["custom_generate", "patch"])
def test_outputs_that_ended_are_learnt_and_no_others(route: str) -> None:
    model, prompt = tiny_model("llama"), PROMPTS[1]
    long = peer_greedy(model, prompt, 40)
    at = max(range(5, 30), key=lambda k: long.index(long[k]))  # a token that first comes late
    end, expected = long[at], long[: long.index(long[at]) + 1]
    drafter = Serving({tuple(prompt): long})
    with_drafts = ours(drafter, learn=True)

    def made(most: int = 40, **options: Any) -> list[int]:
        if route == "custom_generate":
            return peer_greedy(model, prompt, most, custom_generate=with_drafts, **options)
        with patch(model, with_drafts):
            return peer_greedy(model, prompt, most, **options)

    assert made(len(expected) - 1, eos_token_id=end) == expected[:-1]  # cut off
    assert made(4, eos_token_id=end, forced_eos_token_id=end) == [*expected[:3], end]  # cut off too
    criteria = transformers.StoppingCriteriaList([Ends(len(prompt), {long[3]})])
    assert made(stopping_criteria=criteria, eos_token_id=end) == long[: long.index(long[3]) + 1]
    assert made(20, eos_token_id=None) == long[:20]
    other = next(token for token in range(1, 257) if token not in long)
    assert made(eos_token_id=[end, other]) == expected
    with_drafts.drafts.close()
    assert drafter.rows == [(None, expected)]


def test_what_a_salt_has_taught_serves_this_salt(index: TaskIndex, tmp_path: Path) -> None:
    model, tokenizer, path = tiny_model("llama"), byte_tokenizer(), tmp_path / "task.tasc"
    path.write_bytes(Path(index.path).read_bytes())
    ids = torch.tensor([tokenizer("to newark")["input_ids"]])
    with_drafts = TascGenerate(path, tokenizer, costs=0.0, learn=True, log_days=30)
    drafts = with_drafts.drafts
    long = peer_greedy(model, ids[0].tolist(), 40)
    for salt in (None, "one"):
        out = model.generate(
            ids, max_new_tokens=40, do_sample=False, eos_token_id=long[-1], custom_generate=with_drafts, tasc_salt=salt
        )
        assert out[0, ids.shape[1] :].tolist() == long[: long.index(long[-1]) + 1]
    one, two = drafts.salted("one"), drafts.salted("two")
    drafts.close()
    assert [each.drafter.num_served for each in (drafts, one, two)] == [1, 1, 0]
    assert served_log(index_at := TaskIndex.open(path)).exists()
    assert served_log(index_at, salt_digest("one")).exists() and not served_log(index_at, salt_digest("two")).exists()


def test_another_tokenizer_is_refused(index: TaskIndex) -> None:
    other = byte_tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(TokenizerMismatchError, match=index.fingerprint[:16]):
        TascGenerate(index, other)
    with pytest.raises(TokenizerMismatchError), patch(tiny_model("llama"), index.path, other):
        pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TascGenerate(max_draft=0), "max_draft is 0"),
        (lambda: TascGenerate(costs=-1.0), "costs=-1.0"),
        (lambda: TascGenerate("task.tasc", drafter=PromptLookup()), "not both"),
        (lambda: patch(object(), drafter=PromptLookup()).__enter__(), "object has no generate"),
        (lambda: patch(tiny_model("llama"), TascGenerate(), costs=0.1).__enter__(), "options already"),
    ],
)
def test_bad_options_are_named(make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def test_without_transformers_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules |= {'torch': None, 'transformers': None}\n"
        "from tasc.errors import MissingExtraError\n"
        "try: import tasc.adapters.transformers\n"
        "except MissingExtraError as error: assert 'tasc-lm[hf]' in str(error)\n"
        "else: sys.exit('imported')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
