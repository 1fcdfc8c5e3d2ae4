"""Trains the demo's LoRA adapter: SmolLM2-135M-Instruct learns the assistant task in half an hour on one core.

    python examples/demo/train_adapter.py --out examples/demo/adapter

One pass over generated rows, loss on the JSON alone, bfloat16 arithmetic under float32 adapter weights. Only the upper
layers are adapted: nothing flows back through the lower ones, and the file stays small. The learning rate falls with
whichever runs out first, rows or minutes, so that a slow machine still ends with a finished adapter.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import assistant
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc.models import merge_adapter, smollm2

ADAPTED_LAYERS = range(10, 30)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SAVE_EVERY = 100  # steps


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one row; the loss counts from `start` on."""

    ids: list[int]
    start: int


def examples(rows: list[dict[str, str]], tokenizer) -> list[Example]:
    """Rows as the chat that the model will see, the answer closed by the end-of-turn token."""
    made = []
    for row in rows:
        turns = [{"role": "system", "content": assistant.SYSTEM}, {"role": "user", "content": row["input"]}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        made.append(Example(prompt + answer, len(prompt)))
    return made


def batches(data: list[Example], size: int, rng: random.Random) -> list[list[Example]]:
    """Shuffled batches of rows of about the same length, so that little is spent on padding."""
    order = rng.sample(data, len(data))
    window = 32 * size
    sorted_parts = [sorted(order[i : i + window], key=lambda e: len(e.ids)) for i in range(0, len(order), window)]
    made = [part[i : i + size] for part in sorted_parts for i in range(0, len(part), size)]
    rng.shuffle(made)
    return made


def answer_logits(model, batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at the answers' positions alone, (N, V), and the ids they should predict, (N,)."""
    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    counted = torch.zeros_like(ids, dtype=torch.bool)
    for i, example in enumerate(batch):
        length = len(example.ids)
        ids[i, :length] = torch.tensor(example.ids)
        mask[i, :length] = 1
        counted[i, example.start - 1 : length - 1] = True  # the position before a token predicts it
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state  # (B, T, d)
    return model.lm_head(hidden[counted]).float(), ids.roll(-1, dims=1)[counted]


def adapted(model, rank: int) -> PeftModel:
    """`model` with a fresh adapter on its upper layers."""
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=LINEAR,
        layers_to_transform=list(ADAPTED_LAYERS),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def train(model, todo: list[list[Example]], out: Path, *, minutes: float, rate: float) -> None:
    """One pass over `todo`, or what fits in `minutes`; the adapter in `out` is renewed every `SAVE_EVERY` steps."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, betas=(0.9, 0.98))
    started = time.monotonic()
    running = None
    for step, batch in enumerate(todo):
        done = max(step / len(todo), (time.monotonic() - started) / (60 * minutes))
        if done >= 1:
            break
        warm = min(1.0, (step + 1) / 20)
        optimizer.param_groups[0]["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        logits, expected = answer_logits(model.base_model.model, batch)
        loss = torch.nn.functional.cross_entropy(logits, expected)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % 10 == 0:
            print(f"step {step}/{len(todo)}  loss {running:.4f}  {time.monotonic() - started:.0f} s", flush=True)
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            save(model, out)
    save(model, out)


def save(model: PeftModel, out: Path) -> None:
    """Writes the adapter with float16 weights."""
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    file = out / "adapter_model.safetensors"
    save_file({name: weight.to(torch.float16) for name, weight in load_file(file).items()}, file, {"format": "pt"})
    settings = json.loads((out / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    (out / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def exact(model, data: list[Example]) -> int:
    """Number of answers that greedy decoding reproduces exactly: each token is the most likely after those before."""
    right = 0
    for example in data:
        logits, expected = answer_logits(model, [example])
        right += bool((logits.argmax(-1) == expected).all())
    return right


def main() -> None:
    """Trains, saves, and scores on held-out rows in float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=7000)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--resume", type=int, default=0, help="go on with the adapter in --out after so many steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test-rows", type=int, default=100)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    base = smollm2()
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = assistant.rows(options.rows, options.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    if options.resume:
        model = PeftModel.from_pretrained(model, options.out, is_trainable=True)
    else:
        model = adapted(model, options.rank)
    model.print_trainable_parameters()
    data = examples([row for row in rows if row["split"] == "train"], tokenizer)
    todo = batches(data, options.batch_size, random.Random(options.seed))[options.resume :]
    train(model, todo, options.out, minutes=options.minutes, rate=options.rate)
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(base, options.out)).eval()
    held_out = examples([row for row in rows if row["split"] == "test"][: options.test_rows], tokenizer)
    print(f"exact match on {len(held_out)} held-out rows: {exact(merged, held_out)}")


if __name__ == "__main__":
    main()
