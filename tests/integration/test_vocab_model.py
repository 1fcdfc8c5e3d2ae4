"""SmolLM2 with new tokens: an ordinary checkpoint that still says what it said."""

from pathlib import Path

import pytest

from tasc import models
from tasc.data import load_tokenizer

SLOTS = '"slots": [{"name": "hour", "value": "%d"}, {"name": "day", "value": "%s"}]'
ROWS = [
    {"output": '{"intent": "set_alarm", ' + SLOTS % (hour, day) + "}"}
    for hour in range(1, 13)
    for day in ("monday", "friday", "sunday")
]


@pytest.mark.model
def test_smollm2_with_new_tokens(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasc import extend_checkpoint, learn_vocabulary

    source = models.smollm2()
    plan = learn_vocabulary(ROWS, source, tmp_path / "task.plan", size=20)
    folder = extend_checkpoint(source, plan, tmp_path / "extended")
    base, model = (AutoModelForCausalLM.from_pretrained(path) for path in (source, folder))
    table = model.model.embed_tokens.weight
    assert model.lm_head.weight is table
    assert table.shape[0] == model.config.vocab_size == 49152 + len(plan)
    assert torch.equal(table[:49152], base.model.embed_tokens.weight)

    tokenizer, task = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(model(**prompt).logits[..., :49152], base(**prompt).logits)
    output = ROWS[0]["output"]
    (ids,) = task.encode_outputs([output])
    assert len(ids) < len(task.encode(output)) / 2
    assert tokenizer.decode(ids) == output
    labels = torch.tensor([ids])
    model(input_ids=labels, labels=labels).loss.backward()
    new = sorted({i for i in ids if i >= 49152})
    assert new and (table.grad[new].abs().sum(1) > 0).all()
