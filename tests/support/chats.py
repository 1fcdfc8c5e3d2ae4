"""Chat templates of three families, a small tokenizer for each, and conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tasc.data import TaskTokenizer, load_tokenizer

TEMPLATES = Path(__file__).parent / "templates"

SPECIAL = {
    "qwen3": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
    "smollm2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
}
"""Special tokens by template; the model of each stops at `STOP`."""

STOP = {"qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "smollm2": "<|im_end|>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "book",
            "description": "Book a flight.",
            "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
        },
    }
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "book", "arguments": '{"to": "Zürich"}'}}
USER = {"role": "user", "content": "To Zürich?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def template(name: str) -> str:
    """The Jinja text of a template."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def byte_level(name: str) -> Tokenizer:
    """Bytes, a few merges of line ends and letters, and the special tokens of a template, behind the others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("o", "n"), ("t", "h"), ("Ġ", "t")]
    tokenizer = Tokenizer(models.BPE({t: k for k, t in enumerate([*alphabet, *map("".join, merges)])}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL[name]])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return tokenizer


def transformers_tokenizer(name: str) -> Any:
    """A transformers tokenizer with a template."""
    import transformers

    named = {"bos_token": "<|begin_of_text|>"} if name == "llama3" else {}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(name), chat_template=template(name), eos_token=STOP[name], **named
    )


def task_tokenizer(name: str) -> TaskTokenizer:
    """The same tokenizer for rows."""
    return load_tokenizer(transformers_tokenizer(name))


def row(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row as `read_rows` gives it, with a conversation."""
    asked = [m["content"] for m in messages if m["role"] == "user"]
    return {"messages": list(messages), "input": asked[-1], "output": messages[-1].get("content") or "", **more}


def answer(content: str | None, **more: Any) -> dict[str, Any]:
    """A turn of the assistant."""
    return {"role": "assistant", "content": content, **more}
