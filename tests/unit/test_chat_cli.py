"""Rows with messages and the system prompt, from command to command, on a tiny random model."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from chats import CALL, SYSTEM, TOOLS, answer, row, task_tokenizer, transformers_tokenizer
from tiny_models import tiny_model
from typer.testing import CliRunner, Result

from tasc import DistillOptions, Generator, TuneOptions, distill, tune
from tasc._core import TaskIndex
from tasc.cli import app
from tasc.data.chat import encode_outputs, render_rows

generate_module = sys.modules["tasc.cli.generate"]
ROWS: list[dict[str, Any]] = [
    row({"role": "user", "content": f"To {city}?"}, answer(None, tool_calls=[CALL]), tools=TOOLS, split=split)
    for city, split in [("Bern", "train"), ("Chur", "train"), ("Thun", "train"), ("Bonn", "test")]
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    made = tiny_model("llama", vocab=task_tokenizer("qwen3").vocab_size, positions=2048)
    made.generation_config.eos_token_id = task_tokenizer("qwen3").eos_id
    made.save_pretrained(folder)
    transformers_tokenizer("qwen3").save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    return path


def tasc(*args: Any) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in args], prog_name="tasc")
    assert result.exit_code == 0, result.output
    return result


def test_outputs_of_another_system_prompt_are_not_gone_on_from(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system message may come from the index alone: another index is another text."""
    data = tmp_path / "plain.jsonl"
    data.write_text("".join(json.dumps({"input": city, "output": "yes"}) + "\n" for city in ("Bern", "Chur", "Thun")))
    for name in ("one", "other"):
        tasc("index", "build", data, "--tokenizer", model, "--system", f"Be {name}.", "-o", tmp_path / name)
    made = generate_module._line

    def stopped(row: Any, *rest: Any) -> bytes:
        if row["input"] != "Bern":
            raise KeyboardInterrupt
        return made(row, *rest)

    monkeypatch.setattr(generate_module, "_line", stopped)
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text(data.read_text().replace('"output"', '"was"'))
    words = ["generate", str(prompts), "--model", str(model), "-o", str(output), "--max-tokens", "2"]

    def run(*options: Any) -> Result:
        return CliRunner().invoke(app, [*words, *map(str, options)], prog_name="tasc")

    assert run("--index", tmp_path / "one").exit_code == 130
    monkeypatch.setattr(generate_module, "_line", made)
    for options, now in [((), "null"), (("--index", tmp_path / "other"), '"Be other."')]:
        result = run(*options)
        assert result.exit_code == 2, result.output
        assert f'system was "Be one." and is {now} now' in " ".join(result.stderr.split())
    assert run("--system", "Be one.").exit_code == 0  # the same text without the index
    assert len(output.read_text().splitlines()) == 3


def test_prompts_that_go_without_the_template_are_said(model: Path, tmp_path: Path) -> None:
    """`tune`, `check` and `bench` take the same rows as inputs."""
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "Bern", "completion": "yes"}) + "\n")
    said = "goes as it is, without the chat template; with --input-field prompt it is the input"
    for number, (options, is_said) in enumerate([((), True), (("--input-field", "prompt"), False)]):
        made = tmp_path / f"{number}.jsonl"
        result = tasc("generate", data, "--model", model, "--max-tokens", 2, "-o", made, *options)
        assert (said in " ".join(result.stderr.split())) == is_said


def test_an_index_with_a_system_prompt_serves_rows_with_messages(model: Path, data: Path, tmp_path: Path) -> None:
    import transformers

    index, made = tmp_path / "task.tasc", tmp_path / "made.jsonl"
    tasc("index", "build", data, "--tokenizer", model, "--system", SYSTEM["content"], "-o", index)
    assert f"system {SYSTEM['content']}" in " ".join(tasc("index", "info", index).stdout.split())
    assert json.loads(tasc("index", "info", index, "--json").stdout)["notes"]["system"] == SYSTEM["content"]
    task = task_tokenizer("qwen3")
    [expected] = encode_outputs(task, list(render_rows(task.chat_template, ROWS[:1])))
    tokens, *_ = TaskIndex.open(index).successors(expected[:-1])
    assert tokens.tolist() == [expected[-1]]

    result = tasc("generate", data, "--model", model, "--index", index, "-o", made, "--max-tokens", 8)
    assert f"system prompt: {SYSTEM['content']}" in result.stderr
    found = [json.loads(line)["output"] for line in made.read_text().splitlines()]
    loaded, tokenizer = transformers.AutoModelForCausalLM.from_pretrained(model), transformers_tokenizer("qwen3")
    for one, output in zip(ROWS, found, strict=True):
        prompt = tokenizer.apply_chat_template(
            [SYSTEM, *one["messages"][:-1]], tools=TOOLS, add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        ids = loaded.generate(prompt, do_sample=False, max_new_tokens=8, pad_token_id=0)[0, prompt.shape[1] :]
        assert output == tokenizer.decode(ids, skip_special_tokens=True)


def test_bench_gives_every_method_the_conversation(model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    tasc(
        "bench", "--model", model, "--data", data, "--system", "Be brief.", "--max-tokens", 6,
        "--methods", "transformers,tasc", "-o", output,
    )  # fmt: skip
    found = json.loads(output.read_text())
    assert {facts["identical"] for facts in found["methods"].values()} == {1}
    assert found["settings"]["system"] == "Be brief."


def test_a_tuned_model_and_its_draft_know_their_system_prompt(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    quick = TuneOptions(max_steps=1, batch_size=2, precision="fp32", rank=2)
    tuned = tune(model, ROWS, tmp_path / "tuned", options=quick, system="Be brief.")
    noted = json.loads((tuned.path / "tuning.json").read_text())["prompts"]
    assert noted == {"system": "Be brief.", "chat_template_sha256": task_tokenizer("qwen3").chat_template.digest}  # type: ignore[union-attr]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tuned.path).eval()
    with Generator(loaded, transformers.AutoTokenizer.from_pretrained(tuned.path)) as generator:
        assert generator.system == "Be brief."
        generator.generate(["To Bern?"], max_tokens=1)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        generator.generate(["To Bern?"], system="Be quick.", max_tokens=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"prompts have the system message 'Be quick.', but the model {tuned.path} was made with the system message "
        "'Be brief.'"
    ]
    options = DistillOptions(steps=1, batch_size=2, loss="forward_kl", select="all", init_from="draft")
    draft = distill(tuned.path, 1, ROWS, tmp_path / "draft", options=options, baseline=False)
    assert draft.metrics["prompts"] == noted


def test_a_model_that_was_tuned_without_a_system_prompt_says_so(model: Path, tmp_path: Path) -> None:
    quick = TuneOptions(max_steps=1, batch_size=2, precision="fp32", rank=2)
    plain = tune(model, ROWS, tmp_path / "plain", options=quick)
    assert plain.metrics["prompts"]["system"] is None
    shared = [{**one, "messages": [SYSTEM, *one["messages"]]} for one in ROWS]
    assert tune(model, shared, tmp_path / "shared", options=quick).metrics["prompts"]["system"] == "Be brief."


def test_rows_with_messages_are_removed_by_their_messages(model: Path, data: Path, tmp_path: Path) -> None:
    index, named = tmp_path / "task.tasc", tmp_path / "named.jsonl"
    tasc("index", "build", data, "--tokenizer", model, "-o", index)
    assert TaskIndex.open(index).info()["inputs"] == 4
    named.write_text(json.dumps({"messages": ROWS[1]["messages"], "tools": TOOLS}) + "\n")
    tasc("index", "remove", index, "--where", named, "--tokenizer", model)
    assert TaskIndex.open(index).info()["inputs"] == 3
