"""vLLM itself, on a CPU, with a small random model: the same text with tasc's drafts, offline and served.

Run by `make test-vllm`. TASC_SOAK_SECONDS (30) is how long the server is asked.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
torch = pytest.importorskip("torch")

from tokenizers import Tokenizer  # noqa: E402

from tasc import TaskIndex, extend_checkpoint, learn_vocabulary  # noqa: E402
from tasc.data import TokenStore, load_tokenizer  # noqa: E402

pytestmark = pytest.mark.engine

TASC = {"method": "custom_class", "model": "tasc.adapters.vllm.TascProposer", "num_speculative_tokens": 12}
SUFFIX = {"method": "suffix", "num_speculative_tokens": 12}
INPUTS = [f"flights from {a} to {b}" for a in ("boston", "denver", "dallas") for b in ("newark", "oakland")]
ENVIRONMENT = {
    **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip
SECONDS = float(os.environ.get("TASC_SOAK_SECONDS", "30"))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, eos_token_id=1, bos_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(f"Answer. {text}\n").ids for text in INPUTS]


@cache
def engines(*arguments: str) -> subprocess.Popen[str]:
    """The process that has imported vLLM and forks an engine per line; it ends with the tests."""
    command = [sys.executable, str(Path(__file__).with_name("vllm_engine.py")), *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(
    model: Path, prompts: list[list[int]], speculation: Any, index: Path | None, *arguments: str, **options: Any
) -> dict[str, Any]:
    """What an engine of its own says."""
    asked = {
        "model": str(model), "prompts": prompts, "speculation": speculation, "chunk": 16,
        "sampling": [{"temperature": 0.0}] * len(prompts),
        "environment": {} if index is None else {"TASC_INDEX": str(index)}, **options,
    }  # fmt: skip
    process = engines(*arguments)
    assert process.stdin is not None and process.stdout is not None
    print(json.dumps(asked), file=process.stdin, flush=True)
    reply = json.loads(process.stdout.readline())
    assert "answer" in reply, reply["error"]
    answer: dict[str, Any] = reply["answer"]
    return answer


@pytest.fixture(scope="module")
def plain(model: Path, prompts: list[list[int]]) -> list[list[int]]:
    return ask(model, prompts, None, None)["said"][0]  # type: ignore[no-any-return]


@pytest.fixture
def index(model: Path, plain: list[list[int]], tmp_path: Path) -> Path:
    """Of what the model says to half of the inputs."""
    return build(model, plain, tmp_path / "task.tasc", range(0, len(INPUTS), 2))


def build(model: Path, said: list[list[int]], path: Path, which: Any) -> Path:
    task = load_tokenizer(model)
    rows = [
        {"input": INPUTS[k], "output": task.tokenizer.decode([t for t in said[k] if t != 1], skip_special_tokens=False)}
        for k in which
    ]
    store = TokenStore.build(rows, task, path.with_suffix(".store"))
    TaskIndex.build(store, path, tokenizer=task)
    return path


def test_the_same_text_in_fewer_steps(
    model: Path, prompts: list[list[int]], plain: list[list[int]], index: Path
) -> None:
    """Six requests in four rows, prompts in chunks, twice: rows move, and requests are known by their tokens."""
    Path(f"{index}.json").write_text('{"learn": true, "cost": 0.02}')
    found = ask(model, prompts, TASC, index, times=2)
    assert found["said"] == [plain, plain]
    counted = found["metrics"]["indexes"]["task.tasc"]
    assert counted["requests"] == 2 * len(prompts)
    assert (
        sum(counted["accepted"].values()) > counted["tokens"] / 8
    )  # random text is not tokenised again as it was said
    assert counted["failures"] == 0


def test_the_second_runner_says_the_same_text(
    model: Path, prompts: list[list[int]], plain: list[list[int]], index: Path
) -> None:
    """Six requests in four rows, prompts in chunks; Triton's interpreter runs the runner's kernels."""
    Path(f"{index}.json").write_text('{"learn": true}')
    found = ask(model, prompts, TASC, index, "--second-runner")
    assert found["said"] == [plain]
    counted = found["metrics"]["indexes"]["task.tasc"]
    assert counted["requests"] == len(prompts)  # not those that vLLM makes up to warm itself up
    assert sum(counted["accepted"].values()) > counted["tokens"] / 8
    assert counted["failures"] == found["metrics"]["failed_steps"] == 0


def test_sampling_runs_and_ends(model: Path, prompts: list[list[int]], index: Path) -> None:
    sampling = [{"temperature": float(k % 2)} for k in range(len(prompts))]  # seeds fail on a CPU, drafts or not
    found = ask(model, prompts, TASC, index, sampling=sampling)
    assert all(0 < len(ids) <= 60 for ids in found["said"][0])


def test_suffix_through_the_plug_in(model: Path, prompts: list[list[int]], plain: list[list[int]], index: Path) -> None:
    found = ask(model, prompts, SUFFIX, index)
    assert found["said"] == [plain]
    counted = found["metrics"]["indexes"]["task.tasc"]
    assert (
        sum(counted["accepted"].values()) > counted["tokens"] / 8
    )  # random text is not tokenised again as it was said


def test_an_eagle_head_drafts(model: Path, prompts: list[list[int]], plain: list[list[int]], tmp_path: Path) -> None:
    """A head that knows the outputs by heart, over some ids, is loaded and its drafts are accepted."""
    from transformers import AutoModelForCausalLM

    from tasc.training.distill import CachedHiddenStates
    from tasc.training.distill.new_head import new_head
    from tasc.training.distill.teacher import batches, draft_batch, draft_logits
    from tasc.training.examples import Example

    target = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = [Example(p, said, len(p) + len(said)) for p, said in zip(prompts, plain, strict=True)]
    ids = sorted({1, *(token for said in plain for token in said)})
    torch.manual_seed(0)
    head = new_head(target, ids)
    teacher = CachedHiddenStates.compute(target, rows, tmp_path / "states", whole=True)
    chosen, batch, _ = next(batches(head, rows))
    wanted = torch.tensor([ids.index(token) for row in chosen for token in rows[row].completion])
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3)
    for _ in range(60):
        steps = draft_logits(head, draft_batch(head, teacher, chosen, batch, 3))
        loss = torch.stack([torch.nn.functional.cross_entropy(logits, wanted) for logits in steps]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = [(logits.argmax(-1) == wanted).float().mean().item() for logits in steps]
    assert min(right) > 0.9
    head.save_pretrained(tmp_path / "head")
    found = ask(
        model, prompts, {"method": "eagle3", "model": str(tmp_path / "head"), "num_speculative_tokens": 3}, None
    )
    assert found["said"] == [plain]
    assert found["steps"] < max(map(len, plain))  # without drafts, six requests in four rows take more steps than this


def lora(folder: Path, size: float) -> Path:
    """A LoRA adapter of the model with random weights; it changes nothing where their size is 0."""
    from safetensors.torch import save_file

    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    noise = torch.Generator().manual_seed(random.Random(folder.name).getrandbits(32))
    weights = {
        f"{name}.lora_A.weight": torch.ones(8, 128),
        f"{name}.lora_B.weight": size * torch.randn(128, 8, generator=noise),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_chooses_its_index(
    model: Path, prompts: list[list[int]], plain: list[list[int]], index: Path, tmp_path: Path
) -> None:
    """Of six requests two name an adapter that an index has, two another one, two none. No adapter changes the text."""
    folder = lora(tmp_path / "adapter", 0.0)
    listed = [{"path": index.name, "lora": "acme"}]
    index.with_name("all.json").write_text(json.dumps({"indexes": listed, "cost": 0.02}))
    adapters = [["acme", 1, str(folder)], ["other", 2, str(folder)], None] * 2
    found = ask(model, prompts, TASC, index.with_name("all.json"), adapters=adapters, chunk=64)
    assert found["said"] == [plain]
    assert {name: one["requests"] for name, one in found["metrics"]["indexes"].items()} == {
        "task.tasc": 2, "unknown": 2, "none": 2,
    }  # fmt: skip


def test_a_missing_index_is_said(model: Path, prompts: list[list[int]], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="where there is no file"):
        ask(model, prompts, TASC, tmp_path / "none.tasc")


@contextmanager
def served(model: Path, index: Path, settings: dict[str, Any], *options: str) -> Iterator[tuple[str, int]]:
    """`vllm serve` on loopback: its address, its process."""
    Path(f"{index}.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [  # what `vllm serve` runs; that command asks for a package named vllm, which the CPU build is not
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "24", "--enforce-eager",
        "--served-model-name", "small", "--speculative-config", json.dumps(TASC), *options,
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "TASC_INDEX": str(index)}
    output = index.with_name("server.log")
    with output.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 400
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                said = output.read_text()[-3000:]
                assert process.poll() is None and time.monotonic() < end, said
                time.sleep(1)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def server(model: Path, index: Path) -> Iterator[tuple[str, int]]:
    with served(model, index, {"learn": True, "metrics": "tasc.prom"}) as found:
        yield found


def test_served_to_24_at_once_while_the_index_is_replaced(
    model: Path, prompts: list[list[int]], plain: list[list[int]], index: Path, tmp_path: Path, server: tuple[str, int]
) -> None:
    address, process = server
    end = time.monotonic() + SECONDS

    def ask_until_the_end(seed: int) -> int:
        chosen, answered = random.Random(seed), 0
        while time.monotonic() < end:
            number = chosen.randrange(len(prompts))
            body = {"model": "small", "prompt": prompts[number], "max_tokens": 60, "temperature": 0.0}
            body["return_token_ids"] = True
            request = urllib.request.Request(
                f"{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=300) as response:
                answer = json.load(response)
            assert answer["choices"][0]["token_ids"] == plain[number]
            answered += 1
        return answered

    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        running = [threads.submit(ask_until_the_end, seed) for seed in range(24)]
        time.sleep(SECONDS / 3)
        early = memory(process)
        replaced = build(model, plain, tmp_path / "next.tasc", range(len(INPUTS)))
        shutil.copy(replaced, tmp_path / "copy.tasc")
        os.replace(tmp_path / "copy.tasc", index)
        answered = sum(one.result() for one in running)
    assert answered >= 24
    assert memory(process) - early < 300 << 20  # served rows take 64 MB at most, and twice that while they go over
    ask_again = concurrent.futures.ThreadPoolExecutor(1)
    time.sleep(6)  # metrics are written every five seconds, by a step
    end = time.monotonic() + 1
    ask_again.submit(ask_until_the_end, 0).result()
    written = (index.parent / "tasc.prom").read_text()
    assert 'tasc_reloads_total{index="task.tasc"} 1' in written
    assert 'tasc_failures_total{index="task.tasc"} 0' in written


def memory(process: int) -> int:
    """Resident bytes of a process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(memory(int(child)) for child in children)


def ending_early(model: Path, said: list[int], folder: Path) -> tuple[Path, list[int]]:
    """The model with one more end token, and what it then says: the random model's own end hardly ever comes."""
    shutil.copytree(model, folder)
    first = {token: at for at, token in reversed(list(enumerate(said)))}
    end = max(first, key=lambda token: first[token])
    config = json.loads((model / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [1, end]}))
    return folder, said[: first[end] + 1]


@pytest.mark.parametrize("field", ["tasc_salt", pytest.param("cache_salt", marks=pytest.mark.slow)])
def test_tenants_of_the_openai_client(
    model: Path, prompts: list[list[int]], plain: list[list[int]], index: Path, tmp_path: Path, field: str
) -> None:
    """Keys choose the index; what one salt learns makes no other salt's answer faster, and none's other."""
    from openai import OpenAI

    from tasc.drafting.protocol import salt_digest

    number = 1  # not in the index
    ending, said = ending_early(model, plain[number], tmp_path / "ending")
    indexes = [{"path": index.name, "key": "A"}, {"path": index.name}]
    settings = {"indexes": indexes, "learn": True, "cost": 0.02, "salt": field, "metrics": "tasc.prom"}
    with served(ending, index, settings) as (address, _):
        client = OpenAI(base_url=f"{address}/v1", api_key="none")

        def ask(salt: str | None = None, **extra: str) -> float:
            """Accepted drafted tokens of a request."""
            before = accepted(address)
            sent: dict[str, Any] = {"return_token_ids": True, "vllm_xargs": dict(extra)}
            if salt is not None and field == "tasc_salt":
                sent["vllm_xargs"]["tasc_salt"] = salt
            elif salt is not None:
                sent["cache_salt"] = salt
            answer = client.completions.create(
                model="small", prompt=prompts[number], max_tokens=60, temperature=0.0, extra_body=sent
            )
            assert answer.choices[0].token_ids == said  # type: ignore[attr-defined]
            return accepted(address) - before

        def log(salt: str) -> Path:
            return Path(f"{index}.served.{salt_digest(salt)}")

        alone = ask("one")
        wait_for(log("one").exists)
        assert ask("one") > alone + 5
        assert ask("two") == alone
        assert ask() == alone
        assert ask("three", tasc_index="A") == alone
        ask("four", tasc_index="nobody")
        for salt in ("one", "two", "three"):
            wait_for(log(salt).exists)
            assert log(salt).stat().st_mode & 0o777 == 0o600
        assert not log("four").exists()
        time.sleep(6)  # metrics are written every five seconds, by a step
        ask()
        written = (index.parent / "tasc.prom").read_text()
    assert 'tasc_requests_total{index="unknown"} 1' in written
    assert 'tasc_salts{index="task.tasc"} 3' in written
    assert 'tasc_failures_total{index="task.tasc"} 0' in written


def test_two_adapters_and_two_indexes_of_the_openai_client(
    model: Path, prompts: list[list[int]], tmp_path: Path
) -> None:
    """The client names an adapter; its index drafts, and the text is that of the adapter without drafts."""
    from openai import OpenAI

    adapters = {name: lora(tmp_path / f"lora-{name}", 0.1) for name in ("slots", "sql")}
    asked = [(name, prompt) for name in adapters for prompt in prompts]
    loras = [[name, 1 + list(adapters).index(name), str(adapters[name])] for name, _ in asked]
    said = ask(model, [prompt for _, prompt in asked], None, None, adapters=loras, chunk=64)["said"][0]
    half = len(prompts)
    assert all(one != other for one, other in zip(said[:half], said[half:], strict=True))
    for at, name in enumerate(adapters):
        build(model, said[at * half :], tmp_path / f"{name}.tasc", range(half))
    settings = {
        "indexes": [{"path": f"{name}.tasc", "lora": name} for name in adapters], "cost": 0.02, "metrics": "tasc.prom",
    }  # fmt: skip
    options = ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", *(f"{n}={f}" for n, f in adapters.items())]
    with served(model, tmp_path / "slots.tasc", settings, *options) as (address, _):
        client = OpenAI(base_url=f"{address}/v1", api_key="none")

        def answer(name: str, prompt: list[int]) -> list[int]:
            made = client.completions.create(
                model=name, prompt=prompt, max_tokens=60, temperature=0.0, extra_body={"return_token_ids": True}
            )
            return list(made.choices[0].token_ids)  # type: ignore[attr-defined]

        assert [answer(*one) for one in asked] == said
        time.sleep(6)  # metrics are written every five seconds, by a step
        answer("small", prompts[0])
        written = (tmp_path / "tasc.prom").read_text()
    counts = {line.split()[0]: float(line.split()[1]) for line in written.splitlines() if line.startswith("tasc_")}
    for name, outputs in zip(adapters, (said[:half], said[half:]), strict=True):
        ended = any(output[-1] == 1 for output in outputs)  # the others are cut off and do not count
        recent = counts.get(f'tasc_recent_tau{{index="{name}.tasc"}}')
        assert recent >= 1 if ended else recent is None, (name, recent)
    for name in adapters:
        assert counts[f'tasc_requests_total{{index="{name}.tasc"}}'] == half
        drafted = sum(
            n for key, n in counts.items() if key.startswith(f'tasc_accepted_tokens_total{{index="{name}.tasc"')
        )
        assert drafted > counts[f'tasc_tokens_total{{index="{name}.tasc"}}'] / 8  # random text is tokenised otherwise


def accepted(address: str) -> float:
    """Drafted tokens that the server has accepted so far."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("vllm:spec_decode_num_accepted_tokens_total")
    )


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def extended(model: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The model with new tokens, and their plan."""
    rows = [
        {"output": f'{{"intent": "flight", "city": "{city}", "number": {number}}} — köln 🙂'}
        for city in ("boston", "denver")
        for number in range(8)
    ]
    folder = tmp_path_factory.mktemp("vocabulary")
    plan = learn_vocabulary(rows, model, folder / "task.plan", size=40, min_count=2, min_documents=2, held_out=0.0)
    return extend_checkpoint(model, plan, folder / "extended"), plan


def towards(plan: Any, weight: float) -> dict[str, float]:
    return {str(plan.base_vocab_size + k): weight for k in range(len(plan))}


def answers(folder: Path, requests: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    return list(ask(folder, [], None, None, requests=requests, **options)["answers"])


@pytest.mark.slow
def test_a_task_vocabulary_is_decoded_in_streams(
    extended: tuple[Path, Any], prompts: list[list[int]], tokenizer: Tokenizer
) -> None:
    """Text, streamed text, log-probabilities and stop strings of outputs with new tokens."""
    folder, plan = extended
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    base = plan.base_vocab_size
    plain = [
        {"prompt": prompt, "logprobs": 2, "logit_bias": towards(plan, 40.0 * (k % 2)), "ignore_eos": True}
        for k, prompt in enumerate(prompts)
    ]
    found = answers(folder, plain)
    for one in found:
        decoded = whole.decode(one["ids"], skip_special_tokens=False)
        assert decoded == tokenizer.decode(plan.expand(one["ids"]).tolist(), skip_special_tokens=False)
        assert one["text"] == "".join(one["parts"])
        assert one["text"].rstrip("�") == decoded.rstrip("�")  # vLLM leaves out half a character at the end
        assert [at["id"] for at in one["logprobs"]] == one["ids"]
        for at in one["logprobs"]:
            if at["id"] >= base:
                text = tokenizer.decode(plan.expansion(at["id"] - base).tolist(), skip_special_tokens=False)
                assert "�" in text or at["text"] == text
    assert sum(token >= base for one in found for token in one["ids"]) > 20
    assert len({len(one["ids"]) for one in found}) == 1  # max_tokens counts new tokens as one
    text = next(one["text"] for one in found[1::2] if '": "' in one["text"] or "flight" in one["text"])
    stop = "flig" if "flight" in text else '": '  # ends inside a new token
    number = next(k for k, one in enumerate(found) if one["text"] == text)
    (stopped,) = answers(folder, [{**plain[number], "stop": [stop]}])
    assert stopped["text"] == "".join(stopped["parts"]) == text[: text.index(stop)]
    assert (stopped["reason"], stopped["stopped_by"]) == ("stop", stop)


SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["flight", "fare"]}, "city": {"enum": ["boston", "denver"]},
        "number": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["intent", "city", "number"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["xgrammar", "guidance"])
def test_a_grammar_may_emit_new_tokens(extended: tuple[Path, Any], prompts: list[list[int]], backend: str) -> None:
    """An output that the schema constrains is valid, with new tokens favoured and not."""
    folder, plan = extended
    common = {"grammar": {"json": SCHEMA}, "max_tokens": 100}
    requests = [{"prompt": prompts[0], **common, "logit_bias": towards(plan, weight)} for weight in (0.0, 40.0)]
    for one, favoured in zip(answers(folder, requests, grammars=backend), (False, True), strict=True):
        text = one["text"].removesuffix("<|im_end|>")
        assert one["text"] == "".join(one["parts"])
        if one["reason"] == "stop":  # else white space, which JSON allows, took all tokens
            assert json.loads(text).keys() == set(SCHEMA["required"])
        new = sum(token >= plan.base_vocab_size for token in one["ids"])
        print(f"{backend}: {len(one['ids'])} tokens, {new} of them new, {one['reason']}: {one['text']!r}")
        if favoured:
            assert new > 0
            assert one["reason"] == "stop"
