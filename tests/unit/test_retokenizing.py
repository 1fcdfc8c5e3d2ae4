"""A model with new tokens, drafted for in the old ones: same text, and drafts that are of use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from test_extended_model import make_model  # noqa: E402
from test_generator_indexes import Reciting  # noqa: E402
from tiny_models import peer_greedy  # noqa: E402
from vocabularies import ROWS, learn, make_tokenizer, saved  # noqa: E402

from tasc import (  # noqa: E402
    Generator,
    NgramDrafter,
    TaskIndex,
    TokenDraft,
    extend_checkpoint,
)
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer  # noqa: E402
from tasc.drafting import protocol  # noqa: E402
from tasc.drafting.protocol import Drafter  # noqa: E402
from tasc.drafting.retokenizing import RetokenizingDrafter  # noqa: E402
from tasc.errors import TokenizerMismatchError  # noqa: E402

SAID = ROWS[3]["output"]


class Folder:
    """A tiny extended checkpoint, and an index of the task's outputs in old and in new tokens."""

    def __init__(self, folder: Path) -> None:
        tokenizer = make_tokenizer("byte-level")
        base = saved(tokenizer, folder / "base")
        make_model("llama-tied").save_pretrained(base)
        extended = extend_checkpoint(base, learn(tokenizer, folder / "task.plan"), folder / "extended")
        self.model = transformers.AutoModelForCausalLM.from_pretrained(extended).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(extended)
        self.task: TaskTokenizer = load_tokenizer(extended)
        assert self.task.plan is not None
        self.plan = self.task.plan
        self.indexes: dict[str, Any] = {"none": None}
        for name, source in (("old", base), ("new", extended)):
            store = TokenStore.build(ROWS, source, folder / f"{name}.store")
            self.indexes[name] = TaskIndex.build(store, folder / f"{name}.tasc")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("segmenting"))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("index", ["none", "old", "new"])
def test_text_is_plain_decoding_s(made: Folder, index: str, batch_size: int) -> None:
    prompts = [made.task.encode(f"row {number} of {row['output']}").tolist() for number, row in enumerate(ROWS[:5])]
    expected = [peer_greedy(made.model, prompt, 20, eos_token_id=made.task.eos_id) for prompt in prompts]
    generator = Generator(made.model, made.tokenizer, index=made.indexes[index], batch_size=batch_size, costs=0.02)
    answers = generator.generate(prompts=prompts, max_tokens=20, eos=made.task.eos_id)
    assert [answer.ids for answer in answers] == expected
    assert answers.stats.drafter_errors == 0


@pytest.mark.parametrize("index", ["old", "new"])
def test_what_the_index_knows_takes_few_steps(made: Folder, index: str) -> None:
    cycle = [*made.task.encode_outputs([SAID])[0], made.task.eos_id]
    assert max(cycle) >= made.plan.base_vocab_size
    prompt = made.task.encode("which flight?").tolist()
    model = Reciting(made.model, [*cycle[-(len(prompt) - 1) % len(cycle) :], *cycle][: len(cycle)])
    generator = Generator(model, made.tokenizer, index=made.indexes[index], costs=0.001, probe=False)
    answer = generator.generate(prompts=[prompt], max_tokens=64, eos=made.task.eos_id)[0]
    assert answer.text == SAID
    assert answer.finish_reason == "eos"
    assert answer.stats.drafter_errors == 0
    assert answer.stats.accepted > 0


class Fixed(Drafter, protocol.Request):
    """Drafts the same base tokens whenever it is asked, and remembers what it is told."""

    name = "fixed"

    def __init__(self, ids: list[int], probs: list[float]) -> None:
        self.ids, self.probs = ids, probs
        self.updates: list[list[int]] = []
        self.asked: list[tuple[int, Any]] = []
        self.served: list[Any] = []

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Fixed:
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        self.asked.append((max_tokens, costs))
        count = len(self.ids)
        return TokenDraft(
            np.array(self.ids, np.uint32), np.array(self.probs, np.float32), np.arange(count, dtype=np.uint8) % 5
        )

    def update(self, ids: Any) -> None:
        self.updates.append(list(ids))

    def serve(self, rows: Any) -> None:
        self.served += [(text, list(ids)) for text, ids in rows]


def test_a_draft_is_segmented_and_its_probabilities_multiplied(made: Folder) -> None:
    old = [*made.task.encode(SAID).tolist(), made.task.eos_id]
    probs = np.linspace(0.99, 0.5, len(old)).astype(np.float32)
    request = RetokenizingDrafter(Fixed(old, probs.tolist()), made.plan).start([1])
    draft = request.draft(64)
    assert draft.tokens.tolist() == made.plan.segment(old).tolist()
    at = 0
    for token, prob, source in zip(draft.tokens.tolist(), draft.probs, draft.sources, strict=True):
        parts = len(made.plan.expand([token]))
        assert prob == pytest.approx(float(np.prod(probs[at : at + parts])), rel=1e-5)
        assert source == at % 5
        at += parts
    assert at == len(old)
    assert request.draft(2).tokens.tolist() == draft.tokens.tolist()[:2]


def test_a_tail_that_may_be_written_otherwise_is_left_out(made: Folder) -> None:
    expansion = made.plan.expansion(
        int(np.argmax([len(made.plan.expansion(k)) for k in range(len(made.plan))]))
    ).tolist()
    eos = made.task.eos_id
    assert eos is not None
    cut = [eos, *expansion[:-1]]
    draft = RetokenizingDrafter(Fixed(cut, [0.9] * len(cut)), made.plan).start([1]).draft(64)
    assert draft.tokens.tolist() == [eos]
    alone = RetokenizingDrafter(Fixed(cut[1:], [0.9] * len(cut[1:])), made.plan).start([1]).draft(64)
    assert made.plan.expand(alone.tokens).tolist() == cut[1:]
    nothing = RetokenizingDrafter(Fixed([], []), made.plan).start([1]).draft(64)
    assert len(nothing.tokens) == 0


def test_the_drafter_inside_hears_base_tokens_and_costs_of_base_tokens(made: Folder) -> None:
    inner = Fixed([], [])
    drafter = RetokenizingDrafter(inner, made.plan)
    request = drafter.start([1])
    before = drafter.base_per_new
    assert before > 1
    costs = 1 + 0.1 * np.arange(9)
    request.draft(8, costs)
    most, by_old = inner.asked[0]
    assert most == int(np.ceil(8 * before))
    assert by_old[0] == 1
    np.testing.assert_allclose(by_old, 1 + 0.1 * np.arange(most + 1) / before)
    new = made.plan.base_vocab_size
    request.update([new, 5])
    assert inner.updates == [[*made.plan.expansion(0).tolist(), 5]]
    drafter.serve([("x", [new, 5])])
    assert inner.served == [("x", [*made.plan.expansion(0).tolist(), 5])]


def test_an_index_of_a_third_tokenizer_is_refused(made: Folder, tmp_path: Path) -> None:
    other = make_tokenizer("byte-level", vocab_size=380)
    store = TokenStore.build(ROWS, other, tmp_path / "other.store", eos="<|im_end|>")
    index = TaskIndex.build(store, tmp_path / "other.tasc")
    with pytest.raises(TokenizerMismatchError):
        Generator(made.model, made.tokenizer, index=index)


def test_served_rows_reach_an_index_of_base_tokens(made: Folder) -> None:
    cycle = [*made.task.encode_outputs([SAID])[0], made.task.eos_id]
    prompt = made.task.encode("which flight?").tolist()
    model = Reciting(made.model, [*cycle[-(len(prompt) - 1) % len(cycle) :], *cycle][: len(cycle)])
    with Generator(model, made.tokenizer, index=made.indexes["old"], costs=0.02, served=True, probe=False) as generator:
        generator.generate(prompts=[prompt], max_tokens=64, eos=made.task.eos_id)
        drafter: Any = generator._default.drafter
        assert isinstance(drafter, RetokenizingDrafter)
        assert isinstance(drafter.drafter, NgramDrafter)
        assert drafter.drafter.num_served == 1
