"""transformers 4 reads the checkpoints of tasc: the same logits and prompt ids as in version 5.

`TASC_TRANSFORMERS_4` names an interpreter that has transformers 4.57 and torch. Tried with 4.57.6. Attention is
computed plainly (`eager`): version 4 leaves out the soft cap of Gemma 2 otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from portable_models import CASES  # noqa: E402
from vocabularies import ROWS, learn, make_tokenizer, saved  # noqa: E402

from tasc import extend_checkpoint  # noqa: E402
from tasc.models import smollm2  # noqa: E402
from tasc.portable import make_portable  # noqa: E402

pytestmark = pytest.mark.engine
INTERPRETER = os.environ.get("TASC_TRANSFORMERS_4", "")
IDS = [[2 + (7 * k * k + 3 * k) % 250 for k in range(40)]]
MESSAGES = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "Flights to  Köln, 1234?"}]
TEXTS = ["Hello  world\n\n\tx = 1234", "<|im_start|>user\nhé<|im_end|>", ""]

READ = """
import json, sys
import torch, transformers
asked = json.load(sys.stdin)
assert transformers.__version__.startswith("4."), transformers.__version__
torch.set_num_threads(1)
answers = []
for one in asked:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        one["folder"], dtype=torch.float32, attn_implementation="eager"
    )
    found = {"stored": str(transformers.AutoConfig.from_pretrained(one["folder"]).dtype)}
    with torch.no_grad():
        found["logits"] = model(torch.tensor(one["ids"])).logits[0, -8:].tolist()
    if one["texts"]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(one["folder"])
        found["texts"] = [tokenizer(text)["input_ids"] for text in one["texts"]]
        found["inputs"] = list(tokenizer("a"))
        found["chat"] = tokenizer.apply_chat_template(one["messages"], add_generation_prompt=True)
        found["decoded"] = tokenizer.decode(one["ids"][0])
        found["special"] = sorted(tokenizer.all_special_tokens)
    answers.append(found)
print("ANSWER " + json.dumps(answers))
"""


def read_by_version_4(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not INTERPRETER:
        pytest.skip("TASC_TRANSFORMERS_4 names no interpreter")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [INTERPRETER, "-c", READ], input=json.dumps(asked), capture_output=True, text=True, env=environment, timeout=900
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stderr[-3000:]
    return list(json.loads(lines[-1].removeprefix("ANSWER ")))


def question(folder: Path, ids: list[list[int]], texts: list[str]) -> dict[str, Any]:
    return {"folder": str(folder), "ids": ids, "texts": texts, "messages": MESSAGES}


def read_here(one: dict[str, Any]) -> dict[str, Any]:
    """The same with the transformers of this environment."""
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        one["folder"], dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        logits = model(torch.tensor(one["ids"])).logits[0, -8:].tolist()
    found = {"stored": str(transformers.AutoConfig.from_pretrained(one["folder"]).dtype), "logits": logits}
    if one["texts"]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(one["folder"])
        chat = tokenizer.apply_chat_template(one["messages"], add_generation_prompt=True, return_dict=False)
        found |= {
            "texts": [tokenizer(text)["input_ids"] for text in one["texts"]],
            "inputs": list(tokenizer("a")),
            "chat": list(chat),
            "decoded": tokenizer.decode(one["ids"][0]),
            "special": sorted(tokenizer.all_special_tokens),
        }
    return found


def compare(asked: list[dict[str, Any]]) -> None:
    for one, there in zip(asked, read_by_version_4(asked), strict=True):
        here = read_here(one)
        logits = torch.tensor(here.pop("logits"))
        difference = (logits - torch.tensor(there.pop("logits"))).abs().max().item()
        print(f"{one['folder']}: logits differ by {difference:.2g} of {logits.abs().max():.2g}")
        assert difference <= 1e-5 * max(1.0, logits.abs().max().item()), one["folder"]
        assert there == here, one["folder"]


def test_tiny_models_of_several_types(tmp_path: Path) -> None:
    asked = []
    for name, (make, _) in CASES.items():
        torch.manual_seed(5)
        model = transformers.AutoModelForCausalLM.from_config(make(), dtype=torch.float32)
        model.save_pretrained(tmp_path / name)
        make_portable(tmp_path / name)
        asked.append(question(tmp_path / name, IDS, []))
    compare(asked)


def test_an_extended_tiny_model(tmp_path: Path) -> None:
    source = saved(make_tokenizer("byte-level"), tmp_path / "base")
    make, _ = CASES["llama"]
    config = make()
    config.vocab_size = len(transformers.AutoTokenizer.from_pretrained(source))
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(source)
    plan = learn(source, tmp_path / "task.plan")
    folder = extend_checkpoint(source, plan, tmp_path / "extended")
    before = (source / "config.json").read_bytes()
    new = [[plan.base_vocab_size + k for k in range(len(plan))][:40]]
    compare([question(folder, new, [*TEXTS, *(row["output"] for row in ROWS[:3])])])
    assert (source / "config.json").read_bytes() == before


@pytest.mark.model
def test_smollm2_extended(tmp_path: Path) -> None:
    """Version 4 computed with a RoPE base of 10,000 instead of 100,000."""
    source = smollm2()
    rows = [{"output": f'{{"name": "fromloc.city_name", "value": "city {k}"}}'} for k in range(40)]
    from tasc import learn_vocabulary

    plan = learn_vocabulary(rows, source, tmp_path / "task.plan", size=20, held_out=0.0)
    folder = extend_checkpoint(source, plan, tmp_path / "extended")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = list(tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False))
    new = [plan.base_vocab_size + k for k in range(len(plan))]
    compare([question(folder, [ids + new], TEXTS)])


@pytest.mark.parametrize("name", ["TASC_TUNED_CHECKPOINT"])
def test_a_given_checkpoint(name: str) -> None:
    """A checkpoint that `tasc tune` has written, where one is named."""
    if not (given := os.environ.get(name)):
        pytest.skip(f"{name} names no folder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(given)
    ids = list(tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False))
    compare([question(Path(given), [ids], TEXTS)])
