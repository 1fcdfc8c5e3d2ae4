"""How far llama.cpp's logits move when several tokens are computed in one pass, and which greedy tokens change.

    python benches/python/llama_cpp_rounding.py MODEL.gguf MESSAGES.txt [--system TEXT] [--tokens 96] [--together 8]
        [--threads 1] [-o OUT.json]

MESSAGES.txt has a user message per line. Each is answered one token at a time. Then the same tokens are computed again,
`--together` per pass, as a decoder does that tests drafts. No draft is involved: what changes is rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.files import write_json


def prompt_of(llm: Any, message: str, system: str | None) -> list[int]:
    """The ids of a message, by the chat template of the file."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = llm.metadata["tokenizer.chat_template"]
    bos, eos = (llm._model.token_get_text(token) if token >= 0 else "" for token in (llm.token_bos(), llm.token_eos()))
    messages = [{"role": "system", "content": system}] if system else []
    formatter = Jinja2ChatFormatter(template=template, eos_token=eos, bos_token=bos)
    prompt: str = formatter(messages=[*messages, {"role": "user", "content": message}]).prompt
    ids: list[int] = llm.tokenize(prompt.encode(), add_bos=False, special=True)
    return ids


def logits(llm: Any, prompt: list[int], output: list[int], together: int) -> NDArray[np.float32]:
    """Logits of the positions that choose the output, (tokens of output, vocabulary), `together` tokens per pass."""
    llm.reset()
    llm.eval(prompt)
    for begin in range(0, len(output) - 1, together):
        llm.eval(output[begin : min(begin + together, len(output) - 1)])
    return np.array(llm.scores[len(prompt) - 1 : len(prompt) - 1 + len(output)])


def answer(llm: Any, prompt: list[int], tokens: int) -> list[int]:
    """The greedy output, computed one token at a time, with its end token."""
    output: list[int] = []
    for token in llm.generate(prompt, temp=0.0):
        output.append(token)
        if token == llm.token_eos() or len(output) == tokens:
            break
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("messages", type=Path)
    parser.add_argument("--system")
    parser.add_argument("--tokens", type=int, default=96, help="most tokens per output")
    parser.add_argument("--together", type=int, default=8, help="tokens per pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    from llama_cpp import Llama

    threads = {"n_threads": args.threads, "n_threads_batch": args.threads}
    llm: Any = Llama(str(args.gguf), n_ctx=2048, logits_all=True, verbose=False, **threads)
    total, largest, changed = 0, 0.0, []
    for message in filter(None, args.messages.read_text(encoding="utf-8").splitlines()):
        prompt = prompt_of(llm, message, args.system)
        output = answer(llm, prompt, args.tokens)
        single, several = (logits(llm, prompt, output, size) for size in (1, args.together))
        total += len(output)
        largest = max(largest, float(np.abs(single - several).max()))
        for at in np.flatnonzero(single.argmax(axis=1) != several.argmax(axis=1)):
            two = np.sort(single[at])[-2:]
            changed.append({"message": message, "position": int(at), "gap": float(two[1] - two[0])})
    print(
        f"{total} tokens, {args.together} per pass: logits differ by up to {largest:.2f}; {len(changed)} tokens change"
    )
    for one in changed:
        print(f"  token {one['position']} of {one['message']!r}: the best logits are {one['gap']:.2f} apart")
    if args.output:
        facts = {"tokens": total, "together": args.together, "largest_difference": largest, "changed": changed}
        write_json(args.output, facts)


if __name__ == "__main__":
    main()
