"""Tokenizers of each kind that can be extended, trained on a few lines, and plans for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tasc import MergePlan, learn_vocabulary
from tasc.data import TokenStore

ROWS = [
    {"output": text}
    for city in ("boston", "san francisco", "montréal", "東京", "köln")
    for number in range(6)
    for text in (
        f'{{"intent": "flight", "slots": {{"toloc.city_name": "{city}", "flight_number": "{number}"}}}}',
        f"fly to {city} 🙂🙃\n  at {number}:30 — it's d'accord\n\n",
        f"SELECT  DISTINCT\tflight_{number} FROM flights WHERE city = '{city}' ;",
    )
] * 2
FRAGMENTS = sorted({row["output"][a:b] for row in ROWS for a, b in ((0, 20), (5, 40), (13, 60), (9, 11), (0, 200))})
SPECIAL = ["<|endoftext|>", "<|im_end|>"]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KINDS = ("byte-level", "ignore-merges", "marked", "marked-prepend")


def make_tokenizer(kind: str, vocab_size: int = 330) -> Tokenizer:
    """A trained BPE tokenizer; `<|im_end|>` ends outputs. One added token lies outside its `model.vocab`."""
    marked = kind in ("marked", "marked-prepend")
    tokenizer = Tokenizer(models.BPE(byte_fallback=marked, ignore_merges=kind == "ignore-merges", unk_token=None))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(SPECIAL)
    if marked:
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = [letter for letter in map(chr, range(32, 127)) if letter != "~"]
        vocab_size += 256
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    elif kind == "ignore-merges":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([row["output"] for row in ROWS if "東" not in row["output"]], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    if marked:
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    if kind == "marked-prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    elif marked:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_tokens(["[tool]"])
    return tokenizer


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    """A folder that `AutoTokenizer` loads."""
    import transformers

    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)
    return folder


def learn(tokenizer: Any, path: Path, size: int = 60, **options: Any) -> MergePlan:
    """A plan over `ROWS`."""
    return learn_vocabulary(ROWS, tokenizer, path, size=size, min_count=2, min_documents=2, held_out=0.0, **options)


def plain_plan(tokenizer: Any, path: Path, size: int = 60, **options: Any) -> MergePlan:
    """The same with nothing left out that a tokenizer could not hold."""
    store = TokenStore.build(ROWS, tokenizer, path.with_suffix(".store"))
    return MergePlan.learn(store, path, size=size, min_count=2, min_documents=2, held_out=0.0, **options)
