"""Where outputs end, and what text comes when."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EOS, PromptLookup, Scripted, byte_tokenizer, random_prompts, tiny_model
from tokenizers import Tokenizer, decoders, models

from tasc import Generator, NullDrafter
from tasc.decoding.detokenize import IncrementalDetokenizer, decode, special_tokens

TOKENIZER = byte_tokenizer()
MARKED = byte_tokenizer()  # with two special tokens more
MARKED.add_special_tokens({"extra_special_tokens": ["<|end|>", "<|tool|>"]})
END, TOOL = MARKED.convert_tokens_to_ids(["<|end|>", "<|tool|>"])
PROMPTS = random_prompts(5, seed=1)
MAX_TOKENS = 20


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def plain(model: Any) -> list[list[int]]:
    made = Generator(model, TOKENIZER, drafter=NullDrafter()).generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, eos=())
    return [item.ids for item in made]


def oracle(plain: list[list[int]], length: int = 64) -> Scripted:
    return Scripted({tuple(prompt): ids for prompt, ids in zip(PROMPTS, plain, strict=True)}, length=length)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("at", [0, 3, 9])
def test_eos_inside_a_draft(model: Any, plain: list[list[int]], batch_size: int, at: int) -> None:
    eos = plain[0][at]
    for drafter in (NullDrafter(), oracle(plain), oracle(plain, 4), PromptLookup()):
        generator = Generator(model, TOKENIZER, drafter=drafter, batch_size=batch_size, costs=0.0)
        made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, eos=[eos, 999])
        for item, ids in zip(made, plain, strict=True):
            if eos in ids:
                assert item.ids == ids[: ids.index(eos) + 1]
                assert item.finish_reason == "eos"
            else:
                assert (item.ids, item.finish_reason) == (ids, "length")


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_max_tokens_inside_a_draft(model: Any, plain: list[list[int]], max_tokens: int) -> None:
    drafter = oracle(plain)
    made = Generator(model, TOKENIZER, drafter=drafter, costs=0.0).generate(
        prompts=PROMPTS, max_tokens=max_tokens, eos=()
    )
    assert [item.ids for item in made] == [ids[:max_tokens] for ids in plain]
    assert made.stats.steps == len(PROMPTS)
    assert made.stats.drafted == len(PROMPTS) * (max_tokens - 1)


def test_stop_strings_inside_drafts(model: Any) -> None:
    tokenizer = TOKENIZER
    text = "say: {ab} and then STOP here or there"
    prompt = tokenizer("x")["input_ids"]
    ids = tokenizer(text)["input_ids"]
    forced = Forced(model, len(prompt), ids)
    known = {tuple(prompt): ids}
    cases: list[tuple[Any, str, str]] = [
        ("STOP", "say: {ab} and then ", "STOP"),
        (["} a", "zz"], "say: {ab", "} a"),
        ("ss", text, ""),
    ]
    for stop, kept, taken in cases:
        for drafter in (NullDrafter(), Scripted(known, length=64), Scripted(known, miss=0.3)):
            pieces: list[str] = []
            made = Generator(forced, tokenizer, drafter=drafter, costs=0.0, probe=False).generate(
                prompts=[prompt],
                max_tokens=len(ids),
                stop=stop,
                stream=lambda _, __, piece, to=pieces: to.append(piece),  # type: ignore[misc]
            )[0]
            assert made.text == kept
            assert made.ids == ids[: len(kept + taken)]
            assert made.finish_reason == ("stop" if taken else "length")
            assert "".join(pieces) == made.text


@pytest.mark.parametrize(
    ("stop", "kept", "finish_reason"),
    [
        ("<|end|>", "ab\nc", "stop"),
        (["zz", "\nc<|end|>"], "ab", "stop"),
        ("<|end|>de", "ab\nc", "stop"),
        ("<|tool|>c", "ab\ncde<", "length"),
        ("<|tool|><|tool|>", "ab", "stop"),
        ("l|><|tool|>", "ab", "stop"),
        ("b\n", "a", "stop"),
        ("c", "ab\n", "stop"),
        ("<eos>", "ab\ncde", "eos"),
        ("e<eos>", "ab\ncd", "eos"),
        ("cd", "ab\n", "stop"),
    ],
)
def test_stop_strings_with_special_tokens(stop: Any, kept: str, finish_reason: str) -> None:
    tokenizer = MARKED
    text = "ab<|tool|><|tool|>\nc<|end|>de<eos><"
    prompt, ids = tokenizer("x")["input_ids"], tokenizer(text)["input_ids"]
    forced = Forced(tiny_model("llama", vocab=len(tokenizer)), len(prompt), ids)
    known = {tuple(prompt): ids}
    for drafter in (NullDrafter(), Scripted(known, length=64), Scripted(known, miss=0.3)):
        pieces: list[str] = []
        made = Generator(forced, tokenizer, drafter=drafter, costs=0.0, probe=False).generate(
            prompts=[prompt],
            max_tokens=len(ids),
            stop=stop,
            eos=None if finish_reason == "eos" else (),
            stream=lambda _, __, piece, to=pieces: to.append(piece),  # type: ignore[misc]
        )[0]
        assert (made.text, made.finish_reason) == (kept, finish_reason)
        assert "".join(pieces) == kept


class Forced:
    """A model that says the given ids, whatever it computes."""

    def __init__(self, model: Any, num_prompt: int, ids: list[int]) -> None:
        self._model, self._num_prompt, self._ids = model, num_prompt, ids

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **options: Any) -> Any:
        output = self._model(**options)
        positions = options["position_ids"][0, -output.logits.shape[1] :].tolist()
        for row, position in enumerate(positions):
            output.logits[0, row, self._ids[min(position - self._num_prompt + 1, len(self._ids) - 1)]] = 1e4
        return output


@pytest.mark.parametrize("batch_size", [1, 3])
def test_streamed_pieces_join_to_the_text(model: Any, plain: list[list[int]], batch_size: int) -> None:
    ids: dict[int, list[int]] = {}
    text: dict[int, str] = {}

    def stream(index: int, new: list[int], piece: str) -> None:
        ids.setdefault(index, []).extend(new)
        text[index] = text.get(index, "") + piece

    generator = Generator(model, TOKENIZER, drafter=oracle(plain, 3), batch_size=batch_size, costs=0.0)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, eos=(), stream=stream)
    for number, item in enumerate(made):
        assert ids[number] == item.ids
        assert text[number] == item.text == decode(TOKENIZER, item.ids)


@given(st.text(max_size=30), st.data())
def test_stream_never_splits_a_character(text: str, data: Any) -> None:
    ids = TOKENIZER(text)["input_ids"]
    stream = IncrementalDetokenizer(TOKENIZER)
    pieces = []
    while ids:
        count = data.draw(st.integers(1, len(ids)))
        assert stream.add(ids[:count]) == count
        ids = ids[count:]
        pieces.append(stream.release())
        assert text.startswith("".join(pieces))
    pieces.append(stream.finish())
    assert "".join(pieces) == text == stream.text


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=2), st.data())
def test_stop_string_against_find(text: str, stop: list[str], data: Any) -> None:
    ids = TOKENIZER(text)["input_ids"]
    ends = [text.find(one) + len(one) for one in stop if one in text]
    stream = IncrementalDetokenizer(TOKENIZER, stop)
    taken, pieces = 0, []
    while taken < len(ids) and not stream.stopped:
        count = data.draw(st.integers(1, len(ids) - taken))
        taken += stream.add(ids[taken : taken + count])
        pieces.append(stream.release())
    pieces.append(stream.finish())
    assert stream.stopped == bool(ends)
    assert taken == (min(ends) if ends else len(ids))
    starts = [text[:taken].find(one) for one in stop if one in text[:taken]]
    assert stream.text == "".join(pieces) == text[: min(starts) if starts else None]


SPECIAL = {EOS: "<eos>", END: "<|end|>", TOOL: "<|tool|>"}
PARTS = st.sampled_from(["a", "b", "é", "<eos>", "<|end|>", "<|tool|>"])


def stopped_text(ids: list[int], stop: list[str]) -> tuple[int, str]:
    """Number of ids up to the one that completes a stop string, and the text before it: the slow way."""
    for count in range(1, len(ids) + 1):
        full, shown = (MARKED.decode(ids[:count], skip_special_tokens=skip) for skip in (False, True))
        texts = []
        for one in stop:
            where = full if any(text in one for text in SPECIAL.values()) else shown
            if one in where:
                texts.append(where[: where.index(one)])
        for special in SPECIAL.values():
            texts = [text.replace(special, "") for text in texts]
        if texts:
            return count, min(texts, key=len)
    return len(ids), decode(MARKED, ids)


@given(
    st.lists(PARTS, max_size=12),
    st.lists(st.lists(PARTS, min_size=1, max_size=3).map("".join), min_size=1, max_size=2),
    st.data(),
)
def test_stop_strings_with_special_tokens_against_find(text: list[str], stop: list[str], data: Any) -> None:
    ids = MARKED("".join(text))["input_ids"]
    stream = IncrementalDetokenizer(MARKED, stop, special_tokens(MARKED))
    taken, pieces = 0, []
    while taken < len(ids) and not stream.stopped:
        count = data.draw(st.integers(1, len(ids) - taken))
        taken += stream.add(ids[taken : taken + count])
        pieces.append(stream.release())
    pieces.append(stream.finish())
    assert (taken, stream.text) == stopped_text(ids, stop)
    assert "".join(pieces) == stream.text


@pytest.mark.parametrize("stop", ["<|tool|>", "<|end|>", "<|end|>\ufffda"])
def test_a_special_token_within_a_character(stop: str) -> None:
    first, second, last = TOKENIZER("éa")["input_ids"]
    ids = [first, END, second, last, TOOL]
    stream = IncrementalDetokenizer(MARKED, [stop], special_tokens(MARKED))
    assert (stream.add(ids), stream.text) == stopped_text(ids, [stop])


def test_special_tokens_that_are_written_out_stop() -> None:
    ids = [token for letter in "a<|end|>b" for token in TOKENIZER(letter)["input_ids"]]
    assert END not in ids
    stream = IncrementalDetokenizer(MARKED, ["<|end|>"], special_tokens(MARKED))
    assert (stream.add(ids), stream.text, stream.stopped) == (len(ids) - 1, "a", True)


def test_a_leading_space_after_special_tokens_stays() -> None:
    words = Tokenizer(models.WordLevel({"▁hi": 0, "▁there": 1}, unk_token="▁hi"))
    words.decoder = decoders.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", bos_token="<bos>")
    hi, there = 0, 1
    ids = [hi, tokenizer.bos_token_id, tokenizer.bos_token_id, there, tokenizer.eos_token_id]
    stream = IncrementalDetokenizer(tokenizer, ["<eos>"], special_tokens(tokenizer))
    assert (stream.add(ids), stream.text) == (5, "hi there")


def test_eos_is_not_text(model: Any, plain: list[list[int]]) -> None:
    assert decode(TOKENIZER, [*TOKENIZER("hi")["input_ids"], EOS]) == "hi"
