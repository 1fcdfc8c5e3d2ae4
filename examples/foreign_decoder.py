"""Use of an index by any other decoder: open, start, then draft, verify and update until the end.

    python examples/foreign_decoder.py

Tokens are bytes here, and the "model" is a function that knows what it wants to say. With a real decoder `forward` is
one pass over the draft, and the tokenizer is the model's. Neither torch nor transformers is needed.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasc import NgramDrafter, TaskIndex
from tasc.data import TokenStore, load_tokenizer

ROOMS = ("kitchen", "garden", "attic", "hall", "cellar", "garage")
EOS = "<eos>"


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token."""
    letters = [EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: id for id, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def answer(text: str) -> str:
    """Output of the model."""
    _, state, _, room = text.split()
    return json.dumps({"room": room, "light": state})


def main() -> None:
    """Build an index of past rows, then decode two requests with it."""
    tokenizer = load_tokenizer(byte_tokenizer(), eos=EOS)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        past = [f"turn {'off' if n % 2 else 'on'} the {room}" for n, room in enumerate(ROOMS)]
        rows.write_text("".join(json.dumps({"input": text, "output": answer(text)}) + "\n" for text in past))
        store = TokenStore.build([rows], tokenizer, Path(folder, "rows.store"))
        TaskIndex.build(store, Path(folder, "task.tasc"), tokenizer=tokenizer)

        index = TaskIndex.open(Path(folder, "task.tasc"))  # a decoder begins here
        drafter = NgramDrafter(index, tokenizer=tokenizer)
        costs = 1 + 0.02 * np.arange(33)  # of verifying k drafted tokens, in plain steps: measure yours
        for text in ("turn on the garden", "turn off the veranda"):
            wanted = [*tokenizer.encode(answer(text)).tolist(), tokenizer.eos_id]
            request = drafter.start(tokenizer.encode(text), text)
            output: list[int] = []
            steps = 0
            while not output or output[-1] != tokenizer.eos_id:
                draft = request.draft(32, costs).tokens.tolist()
                own = wanted[len(output) : len(output) + len(draft) + 1]  # one pass: the model's own tokens
                right = next((n for n, (a, b) in enumerate(zip(draft, own, strict=False)) if a != b), len(draft))
                emitted = own[: right + 1]  # what was accepted, and the model's own token after it
                request.update(emitted)
                output += emitted
                steps += 1
            assert output == wanted
            print(f"{text:22} {tokenizer.decode(output):40} {len(output)} tokens in {steps} steps")


if __name__ == "__main__":
    main()
