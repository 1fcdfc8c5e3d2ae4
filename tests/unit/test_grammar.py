"""Outputs under a grammar: those of plain decoding with masked logits, in the grammar, drafted or not."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from extended import NEW, tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import EOS, VOCAB, Scripted, byte_tokenizer, random_prompts, tiny_model
from tokenizers import Tokenizer

from tasc import Generator, Grammar, NgramDrafter, NullDrafter
from tasc.cli.generate import read_grammar
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.decoding.grammar import GRAMMAR, CompiledGrammar, Grammars, GrammarState
from tasc.decoding.jobs import CheckedDraft
from tasc.decoding.sampling import Sampler, Sampling
from tasc.decoding.verify import NO_TOKEN, quantile, verify
from tasc.errors import InputError, MissingExtraError, NoTokenError

llguidance = pytest.importorskip("llguidance")

TOKENIZER = byte_tokenizer()
SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["flight", "fare"]},
        "cities": {"type": "array", "items": {"enum": ["boston", "baltimore", "köln"]}, "minItems": 1, "maxItems": 2},
        "seats": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["intent", "cities", "seats"],
    "additionalProperties": False,
}  # fmt: skip
GRAMMARS = [
    Grammar.json_schema(SCHEMA),
    Grammar.regex("[a-c]{3,9}|(xyz){4}"),
    Grammar.ebnf('root ::= "say " word (", " word)? "."\nword ::= "yes" | "no" | [0-9] [0-9]'),
    Grammar.ebnf('start: "<" NAME ">" "</b>"\nNAME: /[a-z]{2,4}/'),
]
PROMPTS = random_prompts(len(GRAMMARS) + 1)
MAX_TOKENS = 90


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def expected(model: Any) -> list[list[int]]:
    return [twin(model, prompt, grammar) for prompt, grammar in zip(PROMPTS, [*GRAMMARS, None], strict=True)]


def matcher(tokenizer: Any, grammar: Grammar) -> Any:
    """llguidance's matcher of a grammar that leaves the tokens of forced text to the model."""
    rules = {"json_schema": json.loads(grammar.text)} if grammar.kind == "json_schema" else {
        "lark_grammar": llguidance.grammar_from("ebnf", grammar.text) if grammar.kind == "ebnf"
        else f"start: /{grammar.text}/"
    }  # fmt: skip
    start = {"lark_grammar": '%llguidance {"no_forcing": true}\nstart: @output'}
    own = llguidance.LLTokenizer(tokenizer.backend_tokenizer.to_str(), eos_token=EOS)
    made = llguidance.LLMatcher(own, json.dumps({"grammars": [start, {**rules, "name": "output"}]}))
    assert not made.is_error(), made.get_error()
    return made


def twin(
    model: Any,
    prompt: Sequence[int],
    grammar: Grammar | None,
    sampling: Sampling | None = None,
    seed: tuple[int, int] = (0, 0),
    tokenizer: Any = TOKENIZER,
) -> list[int]:
    """Slow plain decoding: the model over the whole text for each token, the library's mask, then argmax or a draw."""
    allowed = None if grammar is None else matcher(tokenizer, grammar)
    draw = np.random.Generator(np.random.Philox(key=np.array(seed, dtype=np.uint64))).random
    output: list[int] = []
    while len(output) < MAX_TOKENS and output[-1:] != [EOS]:
        ids = torch.tensor([[*prompt, *output]])
        with torch.inference_mode():
            scores = model(ids).logits[:, -1].float()
        if sampling is not None and sampling.repetition_penalty != 1.0:
            scores = sampling.processors()[0](ids, scores)
        if allowed is not None:
            mask = np.unpackbits(np.frombuffer(allowed.compute_bitmask(), np.uint8), bitorder="little")
            scores = scores.masked_fill(torch.tensor(mask[: scores.shape[1]] == 0), -torch.inf)
        if sampling is None:
            output.append(int(scores.argmax()))
        else:
            for process in sampling.processors()[sampling.repetition_penalty != 1.0 :]:
                scores = process(ids, scores)
            output.append(quantile(torch.softmax(scores[0].double(), -1), draw()))
        if allowed is not None:
            assert allowed.consume_token(output[-1])
    return output


def drafters(outputs: dict[tuple[int, ...], list[int]]) -> dict[str, Any]:
    return {
        "plain": NullDrafter(),
        "mixed": Scripted(outputs, miss=0.3, length=20),
        "never": Scripted(outputs, miss=1.0),
        "ngram": NgramDrafter(None),
    }


def in_grammar(text: str, grammar: Grammar) -> bool:
    if grammar.kind == "json_schema":
        return fits(json.loads(text), json.loads(grammar.text)) and text == json.dumps(
            json.loads(text), ensure_ascii=False
        )
    forms = {GRAMMARS[2].text: r"say (yes|no|\d\d)(, (yes|no|\d\d))?\.", GRAMMARS[3].text: "<[a-z]{2,4}></b>"}
    return re.fullmatch(forms.get(grammar.text, grammar.text), text) is not None


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value has a schema of the kinds that these tests use."""
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if kind == "object":
        names = schema["properties"]
        return list(value) == list(names) and all(fits(value[name], names[name]) for name in names)
    if kind == "array":
        is_long = schema.get("minItems", 0) <= len(value) <= schema["maxItems"]
        return is_long and all(fits(item, schema["items"]) for item in value)
    if kind == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    if kind == "string":
        return isinstance(value, str) and re.fullmatch(schema["pattern"], value) is not None
    return isinstance(value, bool)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_equals_masked_plain_decoding_in_mixed_batches(model: Any, expected: list[list[int]], batch_size: int) -> None:
    grammars = [*GRAMMARS, None]
    known = {tuple(prompt): output for prompt, output in zip(PROMPTS, expected, strict=True)}
    for name, drafter in drafters(known).items():
        generator = Generator(model, TOKENIZER, drafter=drafter, batch_size=batch_size, costs=0.02)
        made = generator.generate(prompts=PROMPTS, grammar=grammars, max_tokens=MAX_TOKENS)
        assert [item.ids for item in made] == expected, name
        for item, grammar in zip(made, GRAMMARS, strict=False):
            assert item.finish_reason == "eos"
            assert in_grammar(item.text, grammar), item.text


OPTIONS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 1.5, "top_k": 2},  # without the mask before it, it would leave forbidden tokens alone
    {"temperature": 0.8, "top_p": 0.5, "repetition_penalty": 1.5},
    {"repetition_penalty": 1.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_samples_the_masked_law_with_the_same_seed(model: Any, options: dict[str, Any]) -> None:
    sampling = Sampling(**options)
    grammars = [*GRAMMARS, None]
    expected = [
        twin(model, prompt, grammar, sampling if options.get("temperature") else None, (7, number))
        for number, (prompt, grammar) in enumerate(zip(PROMPTS, grammars, strict=True))
    ] if options.get("temperature") else None  # fmt: skip
    plain = Generator(model, TOKENIZER, drafter=NullDrafter())
    unforced = [None if one is None else Grammar(one.kind, one.text, drafts=False) for one in grammars]
    alone = [item.ids for item in plain.generate(
        prompts=PROMPTS, grammar=unforced, max_tokens=MAX_TOKENS, seed=7, **options)]  # fmt: skip
    assert expected is None or alone == expected
    known = {tuple(prompt): output for prompt, output in zip(PROMPTS, alone, strict=True)}
    for name in ("mixed", "plain"):
        generator = Generator(model, TOKENIZER, drafter=drafters(known)[name], batch_size=3, costs=0.02)
        made = generator.generate(prompts=PROMPTS, grammar=grammars, max_tokens=MAX_TOKENS, seed=7, **options)
        assert [item.ids for item in made] == alone, name
        assert all(in_grammar(item.text, grammar) for item, grammar in zip(made, GRAMMARS, strict=False))


words = st.text(st.sampled_from('abé"\\ '), max_size=4)
values = st.recursive(
    st.one_of(
        st.builds(lambda some: {"enum": some}, st.lists(words | st.integers(-9, 9), min_size=1, max_size=3)),
        st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
                  st.integers(-50, 50), st.integers(0, 60)),
        st.just({"type": "boolean"}),
        st.just({"type": "string", "pattern": "^[a-c]{0,3}$"}),  # without anchors it is searched for
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
        st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": list(fields),
                            "additionalProperties": False},
            st.dictionaries(words, inner, max_size=3),
        ),
    ),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(values, st.integers(0, 3), st.sampled_from([{}, {"temperature": 1.2}]), st.integers(0, 99))
def test_random_schemas_are_never_broken(schema: Any, model_seed: int, options: Any, seed: int) -> None:
    model = tiny_model("llama", seed=model_seed)
    grammar, prompts = Grammar.json_schema(schema), random_prompts(1, seed)
    sampling = Sampling(**options) if options else None
    expected = [twin(model, prompt, grammar, sampling, (seed, k)) for k, prompt in enumerate(prompts)]
    known = {tuple(prompt): output for prompt, output in zip(prompts, expected, strict=True)}
    for drafter in (NullDrafter(), Scripted(known, miss=0.2, length=20)):
        generator = Generator(model, TOKENIZER, drafter=drafter, batch_size=2, costs=0.02)
        made = generator.generate(prompts=prompts, grammar=grammar, max_tokens=MAX_TOKENS, seed=seed, **options)
        assert [item.ids for item in made] == expected
        for item in made:
            assert item.finish_reason == "length" or fits(json.loads(item.text), schema)


def test_forced_text_is_drafted_and_costs_no_steps(model: Any) -> None:
    generator = Generator(model, TOKENIZER, drafter=NullDrafter(), costs=0.0)
    [made] = generator.generate(prompts=PROMPTS[:1], grammar=Grammar.regex("all of this"))
    assert (made.text, made.finish_reason, made.stats.steps) == ("all of this", "eos", 1)
    assert made.stats.accepted_by == {"grammar": len("all of this")}
    assert made.ids[-1] == EOS
    assert made.stats.tokens == len(made.ids)
    [made] = generator.generate(prompts=PROMPTS[:1], grammar=Grammar.regex("all of this", drafts=False))
    assert (made.text, made.stats.steps, made.stats.drafted) == ("all of this", len("all of this"), 0)
    [made] = generator.generate(prompts=PROMPTS[:1], grammar=Grammar.regex("all of this"), max_tokens=5)
    assert (made.text, made.finish_reason, made.stats.drafted) == ("all o", "length", 4)
    none = Generator(model, TOKENIZER, max_draft=0).generate(prompts=PROMPTS[:1], grammar=Grammar.regex("abc"))
    assert none.stats.drafted == 0


def test_forced_text_comes_behind_the_draft_where_the_grammar_forbids_it(model: Any) -> None:
    [prompt] = PROMPTS[:1]
    ab, junk = TOKENIZER("ab")["input_ids"], TOKENIZER("Z")["input_ids"]
    generator = Generator(model, TOKENIZER, drafter=Scripted({tuple(prompt): [*ab, *junk]}, length=3), costs=0.0)
    [made] = generator.generate(prompts=[prompt], grammar=Grammar.regex("abcdef"))
    assert (made.text, made.stats.steps) == ("abcdef", 1)
    assert made.stats.drafted_by == made.stats.accepted_by == {"task": 2, "grammar": 4}


def states(tokenizer: Any = TOKENIZER, vocab_size: int = VOCAB) -> Grammars:
    return Grammars(tokenizer if isinstance(tokenizer, TaskTokenizer) else load_tokenizer(tokenizer), vocab_size)


def drawn(tokens: list[int], q: torch.Tensor) -> CheckedDraft:
    return CheckedDraft(tokens, [0] * len(tokens), [1.0] * len(tokens), [q] * len(tokens))


def test_a_draft_is_cut_before_what_is_forbidden_and_before_an_eos() -> None:
    a, x = TOKENIZER("ax")["input_ids"]
    state = states().start(Grammar.regex("a{1,3}"), 0, frozenset([EOS]))
    for tokens, kept in (([EOS], 0), ([a, EOS], 1), ([a, a, x, a], 2), ([a, a, a, a], 3), ([a, a, a, EOS], 3)):
        draft = CheckedDraft(tokens, [0] * len(tokens), [1.0] * len(tokens))
        assert state.constrain(draft, [], 64).count_without(GRAMMAR) == kept


def test_forbidden_drawn_tokens_leave_the_law_as_it_is() -> None:
    """Each token that q may draw, forbidden or not, weighted with q, and a grid of uniform numbers: p comes out."""
    a, b, x, y = TOKENIZER("abxy")["input_ids"]
    logits, q = torch.full((2, VOCAB), -8.0), torch.zeros(VOCAB, dtype=torch.float64)
    logits[:, [a, b, x, y]] = torch.tensor([0.3, 1.0, 2.0, 0.5])
    q[[a, b, x]] = torch.tensor([0.5, 0.1, 0.4], dtype=torch.float64)
    law = torch.softmax(logits[0, [a, b]].double(), -1)
    grammars, steps, seen = states(), 400, dict.fromkeys((a, b), 0.0)
    for token in (a, b, x):
        state = grammars.start(Grammar.regex("[ab]"), 1, frozenset([EOS]))
        draft = state.constrain(drawn([token], q), [5], 64)
        assert draft.tokens[:1] == [token]
        for step in range(steps):
            state = grammars.start(Grammar.regex("[ab]"), 1, frozenset([EOS]))
            sampler = Sampler(Sampling(temperature=1.0), [5], 9, 0, 0, torch.device("cpu"), [state])
            sampler._uniform = iter([(step + 0.5) / steps]).__next__  # type: ignore[assignment]
            emitted = sampler.choose_lazily(logits, 1, draft.tokens, draft.dists)(0)
            seen[emitted] += float(q[token]) / steps
    assert seen[a] == pytest.approx(float(law[0]), abs=2 / steps)
    assert seen[b] == pytest.approx(float(law[1]), abs=2 / steps)


def test_a_drawn_eos_that_is_accepted_ends_the_output() -> None:
    a, q = TOKENIZER("a")["input_ids"][0], torch.zeros(VOCAB, dtype=torch.float64)
    q[[a, EOS]] = 0.5
    state = states().start(Grammar.regex("a"), 1, frozenset([EOS]))
    draft = state.constrain(drawn([a, EOS], q), [5], 64)
    assert draft.tokens == [a, EOS]
    sampler = Sampler(Sampling(temperature=1.0), [5], 9, 0, 0, torch.device("cpu"), [state])
    sampler._uniform = lambda: 0.0  # type: ignore[assignment]
    emitted = verify(draft.tokens, sampler.choose_lazily(torch.zeros(3, VOCAB), 1, draft.tokens, draft.dists))
    assert emitted[:2] == [a, EOS]
    assert NO_TOKEN not in emitted


@pytest.mark.parametrize("others", [(EOS,), ()])
def test_any_eos_ends_where_the_text_may_and_nowhere_else(model: Any, others: tuple[int, ...]) -> None:
    """With several of them the model chooses; one that the tokenizer has for a letter is no letter then."""
    [letter] = TOKENIZER("b")["input_ids"]
    for drafts in (False, True):
        generator = Generator(model, TOKENIZER, drafter=NullDrafter(), costs=0.0)
        grammar = Grammar.regex("[a-d]{5}(xy|e)?", drafts=drafts)
        made = generator.generate(prompts=PROMPTS, grammar=grammar, eos=(*others, letter), max_tokens=20)
        for item in made:
            assert item.ids[-1] in (*others, letter)
            assert re.fullmatch("[acd]{5}(xy|e)?", TOKENIZER.decode(item.ids[:-1]))


def test_the_new_tokens_of_a_task_vocabulary_are_text() -> None:
    _, _, extended, ours = tokenizers()
    model = tiny_model("llama", vocab=VOCAB + len(NEW) + 3)  # more ids than the tokenizer has
    grammar = Grammar.json_schema({
        "type": "object", "properties": {"to": {"enum": ["abc", "from ab", "bcbc"]}},
        "required": ["to"], "additionalProperties": False,
    })  # fmt: skip
    model.generation_config.sequence_bias = {(VOCAB + k,): 60.0 for k in range(len(NEW) + 3)}
    generator = Generator(model, extended, drafter=NullDrafter(), costs=0.0)
    made = generator.generate(prompts=PROMPTS, grammar=grammar, max_tokens=MAX_TOKENS, check_plain=True)
    assert made.stats.divergences == 0
    assert sum(token >= VOCAB for item in made for token in item.ids) >= 2 * len(PROMPTS)
    assert all(item.finish_reason == "eos" and set(json.loads(item.text)) == {"to"} for item in made)
    state = states(ours, VOCAB + len(NEW)).start(grammar, 0, frozenset([EOS]))
    [brace] = ours.encode("{").tolist()
    new = VOCAB + NEW.index('"to": ')
    assert state.constrain(CheckedDraft(), [], 64).tokens == [brace, new]  # the quotation mark is left open


@pytest.mark.parametrize("accepted, fewest, most", [(0.0, 5, 20), (1.0, 100, 100)])
def test_forced_text_has_an_account_of_its_own(accepted: float, fewest: int, most: int) -> None:
    state, costs = states().start(Grammar.regex("(abc){40}"), 0, frozenset([EOS])), 1.0 + 0.1 * np.arange(65)
    drafted = 0
    for _ in range(100):
        draft = state.constrain(CheckedDraft(), [], 64)
        drafted += bool(draft.tokens)
        state.record(draft, int(accepted * len(draft.tokens)), costs)
    assert fewest <= drafted <= most


def test_forced_text_that_the_model_writes_in_other_tokens_is_drafted_rarely(tokenizer: Tokenizer) -> None:
    """The tokenizer merges letters, and the model writes each of its own."""
    size = tokenizer.get_vocab_size()
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    model = tiny_model("llama", vocab=size)
    merged = [number for text, number in tokenizer.get_vocab().items() if len(text) > 1 and text[0] != "<"]
    model.generation_config.sequence_bias = {(number,): -60.0 for number in merged}
    drafted = []
    for costs in (0.0, 0.5):
        generator = Generator(model, own, drafter=NullDrafter(), costs=costs)
        grammar = Grammar.regex('(\\{"intent": "flight", "from": "boston"\\}){6}')
        [made] = generator.generate(prompts=PROMPTS[:1], grammar=grammar, max_tokens=240)
        assert made.text == '{"intent": "flight", "from": "boston"}' * 6
        assert len(made.ids) > 200  # in letters
        drafted.append(made.stats.drafted_by["grammar"])
    assert 0 < drafted[1] < drafted[0] / 3, drafted


def test_streams_and_submitted_requests(model: Any, expected: list[list[int]]) -> None:
    with Generator(model, TOKENIZER, batch_size=2, costs=0.02) as generator:
        futures = [
            generator.submit(prompt=prompt, grammar=grammar, max_tokens=MAX_TOKENS)
            for prompt, grammar in zip(PROMPTS, GRAMMARS, strict=False)
        ]
        assert [future.result(600).ids for future in futures] == expected[: len(GRAMMARS)]

        async def read() -> list[Any]:
            pieces = generator.stream(prompt=PROMPTS[0], grammar=GRAMMARS[0], max_tokens=MAX_TOKENS)
            return [piece async for piece in pieces]

        pieces = asyncio.run(read())
        assert [token for piece in pieces for token in piece.ids] == expected[0]
        assert "".join(piece.text for piece in pieces) == pieces[-1].generation.text
        [stopped] = generator.generate(prompts=PROMPTS[:1], grammar=GRAMMARS[0], stop='"cities', max_tokens=MAX_TOKENS)
        assert stopped.finish_reason == "stop"
        assert json.loads(stopped.text.rstrip(", ") + "}").keys() == {"intent"}


def test_weights_that_change_between_steps_leave_the_grammar_where_it_is(model: Any, expected: list[list[int]]) -> None:
    """A cache that is dropped computes all tokens again; the grammar must not go over them again."""
    generator = Generator(model, TOKENIZER, drafter=NullDrafter(), costs=0.02)
    seen: list[int] = []

    def forget(_: int, ids: list[int], __: str) -> None:
        seen.extend(ids)
        with torch.inference_mode():
            generator._loop._forget()

    [made] = generator.generate(prompts=PROMPTS[:1], grammar=GRAMMARS[0], max_tokens=MAX_TOKENS, stream=forget)
    assert made.ids == seen == expected[0]


ERRORS = [
    ({"grammar": "[0-9]"}, "grammar is '[0-9]'; it must be a Grammar"),
    ({"grammar": [GRAMMARS[0]]}, "grammar= lists 1 values for 2 prompts"),
    ({"grammar": GRAMMARS[0], "eos": ()}, "grammar= needs an EOS"),
    ({"grammar": Grammar.regex("(ab")}, "the regular expression cannot be used: "),
    ({"grammar": Grammar.regex("(?=a)b")}, "look-around"),
    ({"grammar": Grammar.ebnf("root :=")}, "the grammar cannot be read: "),
    ({"grammar": Grammar.json_schema({"type": "array", "uniqueItems": True})}, "the JSON schema cannot be used: "),
    ({"grammar": Grammar.json_schema({"type": "strin"})}, "Invalid type: strin"),
]


@pytest.mark.parametrize(("options", "said"), ERRORS)
def test_what_cannot_be_used_is_named_in_one_line(model: Any, options: dict[str, Any], said: str) -> None:
    generator = Generator(model, TOKENIZER, drafter=NullDrafter())
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        generator.generate(prompts=PROMPTS[:2], **options)
    assert "\n" not in str(caught.value)


def test_other_errors(model: Any, monkeypatch: Any) -> None:
    with pytest.raises(InputError, match="give a tokenizer"):
        Generator(model, drafter=NullDrafter()).generate(prompts=PROMPTS[:1], grammar=GRAMMARS[0])
    for wrong in ("[1]", "{", "3"):
        with pytest.raises(InputError, match="JSON schema"):
            Grammar.json_schema(wrong)
    with pytest.raises(InputError, match="separators"):
        Grammar.json_schema({}, separators=(";", ":"))
    [x] = TOKENIZER("x")["input_ids"]
    generator = Generator(model, TOKENIZER, drafter=NullDrafter())
    with pytest.raises(NoTokenError):  # the only letter that the grammar allows ends outputs
        generator.generate(prompts=PROMPTS[:1], grammar=Grammar.regex("x"), eos=(x,))
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"tasc-lm\[grammar\]"):
        Generator(model, TOKENIZER).generate(prompts=PROMPTS[:1], grammar=GRAMMARS[0])


MANY_STATES = Grammar.regex("([ab]*a[ab]{8}){2}")


def with_states(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let a grammar's outputs need at most so many states together."""
    limits = llguidance.LLParserLimits(max_lexer_states=most)
    monkeypatch.setattr(llguidance, "LLMatcher", functools.partial(llguidance.LLMatcher, limits=limits))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}])
def test_the_states_of_other_outputs_do_not_count(
    model: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def said(drafter: Any) -> list[list[int]]:
        generator = Generator(model, TOKENIZER, drafter=drafter, batch_size=2, costs=0.0)
        asked = {"prompts": PROMPTS * 2, "grammar": MANY_STATES, "max_tokens": 60, **options}
        return [one.ids for one in generator.generate(**asked)]

    plain = said(NullDrafter())
    script = {tuple(prompt): output for prompt, output in zip(PROMPTS, plain, strict=False)}
    with_states(monkeypatch, 100)
    for drafter in (NullDrafter(), Scripted(script, miss=0.3, length=20)):
        assert said(drafter) == plain


def test_an_end_is_allowed_though_the_states_of_others_are_too_many() -> None:
    class Worn:
        """A matcher behind a whole text, in error once it is asked for an end, unless it was compiled again."""

        def __init__(self, is_worn: bool) -> None:
            self.is_worn, self.asked = is_worn, False

        def deep_copy(self) -> Worn:
            return Worn(self.is_worn)

        def is_accepting(self) -> bool:
            self.asked = True
            return not self.is_worn

        def is_error(self) -> bool:
            return self.is_worn and self.asked

        def consume_tokens(self, tokens: list[int]) -> bool:
            return True

        def try_consume_tokens(self, tokens: list[int]) -> int:
            return 0

        def compute_bitmask(self) -> bytes:
            return bytes(VOCAB)

        def get_error(self) -> str:
            return "too many states"

    worn = iter([True, False])
    compiled = CompiledGrammar(lambda: Worn(next(worn)))
    state = GrammarState(compiled, frozenset([EOS]), frozenset(), 0, VOCAB, True, None)
    assert state.choose(torch.zeros(1, VOCAB), [EOS + 1])(0) == EOS and state.error is None


def test_an_output_that_needs_too_many_states_says_so(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_states(monkeypatch, 50)
    generator = Generator(model, TOKENIZER, drafter=NullDrafter())
    with pytest.raises(NoTokenError, match=r"its grammar is too complex for this output \(lexer error") as caught:
        generator.generate(prompts=PROMPTS[:2], grammar=[MANY_STATES, None], max_tokens=60)
    assert "\n" not in str(caught.value)
    [made] = generator.generate(prompts=PROMPTS[:1], grammar=GRAMMARS[2], max_tokens=MAX_TOKENS)
    assert made.finish_reason == "eos"


def chain(length: int) -> list[Grammar]:
    """Grammars in which each rule names the next one; the last one is the letter x."""
    rules = [f"a{k}: a{k + 1}" for k in range(length)]
    named = {f"a{k}": {"$ref": f"#/$defs/a{k + 1}"} for k in range(length)}
    named[f"a{length}"] = {"enum": ["x"]}
    return [
        Grammar.ebnf("\n".join(["start: a0", *rules, f'a{length}: "x"'])),
        Grammar.json_schema({"$defs": named, "$ref": "#/$defs/a0"}),
    ]


def test_rules_that_name_each_other_end_no_process() -> None:
    """llguidance calls itself for each of them, which 8 MiB of stack do not hold."""
    for grammar, text in zip(chain(8000), ("x", '"x"'), strict=True):
        state = states().start(grammar, 0, frozenset([EOS]))
        assert state.constrain(CheckedDraft(), [], 64).tokens == TOKENIZER(text)["input_ids"]


def test_grammars_that_are_too_deep_or_too_long() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    for schema in (deep, '{"items":' * 5000 + "{}" + "}" * 5000):
        with pytest.raises(InputError, match="JSON schema cannot be read") as caught:
            Grammar.json_schema(schema)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has 2000000 characters; it may have 1048576"):
        states().start(Grammar.regex("a" * 2_000_000), 0, frozenset([EOS]))


def test_a_grammar_that_allows_nothing_is_not_called_too_complex(model: Any) -> None:
    for grammar in (Grammar.regex(r"[^\s\S]"), Grammar.ebnf("root ::= root")):
        with pytest.raises(NoTokenError, match="after 0 output tokens: its grammar allows no text that begins like"):
            Generator(model, TOKENIZER, drafter=NullDrafter()).generate(prompts=PROMPTS[:1], grammar=grammar)


def test_the_command_line_takes_one_kind(tmp_path: Path) -> None:
    schema, rules = tmp_path / "schema.json", tmp_path / "rules.gbnf"
    schema.write_text(json.dumps(SCHEMA))
    rules.write_text(GRAMMARS[2].text)
    assert read_grammar(schema, None, None) == GRAMMARS[0]
    assert read_grammar(None, GRAMMARS[1].text, None) == GRAMMARS[1]
    assert read_grammar(None, None, rules) == GRAMMARS[2]
    assert read_grammar(None, None, None) is None
    with pytest.raises(InputError, match="give one of --json-schema, --regex and --grammar"):
        read_grammar(schema, "a", None)
    rules.write_bytes(b"\xff")
    with pytest.raises(InputError, match="no UTF-8 text"):
        read_grammar(None, None, rules)


def test_any_white_space_on_request(model: Any) -> None:
    strict = states().start(Grammar.json_schema(SCHEMA), 0, frozenset([EOS]))
    free = states().start(Grammar.json_schema(SCHEMA, separators=None), 0, frozenset([EOS]))
    spaced = CheckedDraft(TOKENIZER('{ "intent":"fare"')["input_ids"])
    assert strict.constrain(spaced, [], 64).tokens[:3] == TOKENIZER('{"i')["input_ids"]
    assert free.constrain(spaced, [], 64).tokens == spaced.tokens
