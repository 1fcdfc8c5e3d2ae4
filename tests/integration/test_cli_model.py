"""`tasc generate` and `tasc bench` from files to files, on a tiny random model."""

import gzip
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard
from forks import fork
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner, Result

from tasc import Generator
from tasc.cli import app, main
from tasc.cli.resumable import PartialOutputs
from tasc.files import scratch_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

generate_module = sys.modules["tasc.cli.generate"]

WORDS = ["show", "flights", "from", "to", "boston", "denver", "dallas", "intent", "flight", "end"]
ROWS = [
    {"input": f"show flights from {a} to {b}", "output": f"intent flight from {a} to {b} end", "split": split}
    for a, b, split in [
        ("boston", "denver", "train"),
        ("denver", "dallas", "train"),
        ("dallas", "boston", "train"),
        ("boston", "dallas", "test"),
        ("denver", "boston", "test"),
    ]
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder."""
    folder = tmp_path_factory.mktemp("model")
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["</s>", "[UNK]", *WORDS])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "plain.json"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "plain.json"), eos_token="</s>", pad_token="</s>", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        eos_token_id=0,
        bos_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A checkpoint of a smaller model with the same tokenizer."""
    folder = tmp_path_factory.mktemp("draft")
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(model, num_hidden_layers=1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    return path


def tasc(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


def generated(prompts: Path, model: Path, output: Path, *args: Any) -> list[dict[str, Any]]:
    result = tasc("generate", prompts, "--model", model, "-o", output, "--max-tokens", 12, *args)
    assert result.exit_code == 0, result.output
    assert "tokens/s" in result.stderr
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_generate_is_the_same_with_and_without_an_index(tmp_path: Path, model: Path, data: Path) -> None:
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", model, "-o", index, "--split", "train").exit_code == 0
    plain = generated(data, model, tmp_path / "plain.jsonl", "--max-draft", 0)
    assert [r["input"] for r in plain] == [r["input"] for r in ROWS]
    assert [r["reference"] for r in plain] == [r["output"] for r in ROWS]
    assert all(r["finish_reason"] in ("eos", "length") for r in plain)
    own = data.with_name("own.jsonl")
    own.write_text(json.dumps({"input": ROWS[0]["input"], "reference": 7, "text": "t", "score": None}))
    (row,) = generated(own, model, tmp_path / "own.out", "--max-draft", 0)
    assert row == {**json.loads(own.read_text()), "output": plain[0]["output"], "finish_reason": row["finish_reason"]}
    drafted = generated(data, model, tmp_path / "drafted.jsonl", "--index", index, "--batch-size", 2)
    assert drafted == plain


def test_generate_samples_by_seed(tmp_path: Path, model: Path, data: Path) -> None:
    options = ("--temperature", 1.5, "--seed")
    first = generated(data, model, tmp_path / "a.jsonl", *options, 1)
    assert generated(data, model, tmp_path / "b.jsonl", *options, 1) == first
    assert generated(data, model, tmp_path / "c.jsonl", *options, 2) != first


def test_generate_leaves_nothing_behind_when_it_fails(tmp_path: Path, model: Path, data: Path) -> None:
    result = tasc("generate", data, "--model", tmp_path / "no-model", "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "cannot load model" in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("*out.jsonl*"))


def encodings(rows: list[dict[str, str]]) -> dict[str, bytes]:
    """One list of rows in every kind of file that is read."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return {
        "bom.jsonl": b"\xef\xbb\xbf" + lines,
        "blanks.ndjson": lines.replace(b"\n", b"\r\n\r\n"),
        "rows.jsonl.gz": gzip.compress(lines),
        "rows.json.zst": zstandard.ZstdCompressor().compress(lines),
        "rows.parquet": sink.getvalue(),
    }


def test_generate_reads_what_the_other_commands_read(tmp_path: Path, model: Path, data: Path) -> None:
    plain = generated(data, model, tmp_path / "plain.jsonl")
    for name, content in encodings(ROWS).items():
        (tmp_path / name).write_bytes(content)
        assert generated(tmp_path / name, model, tmp_path / f"{name}.out") == plain, name


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (b'{"id": "\\ud83d", "input": "show"}', ":3: field 'id' is no valid text: surrogates not allowed"),
        (b'{"input": "\\ud83d"}', ":3: field 'input' is no valid text: surrogates not allowed"),
        (b'{"input": "caf\xe9"}', ":3: is not UTF-8: invalid continuation byte at byte 15; save the file as UTF-8"),
        (b'{"input": "a", "n": ' + b"1" * 5000 + b"}", ":3: is JSON that cannot be read: a number has over 4300"),
        (b'["show"]', ":3: is a list, a row is an object"),
        (b'{"input": "a", "x": [NaN]}', ":3: field 'x' holds NaN or an infinite number, which JSON does not have; "),
        (b'{"input": "a", "x": -1e999}', ":3: field 'x' holds NaN or an infinite number, which JSON does not have; "),
        (b'{"input": "a", "finish_reason": ""}', ":3: field 'finish_reason' is needed for the reason why the output"),
        (b'{"input": "a", "output": "b", "reference": "c"}', ":3: field 'reference' is needed for the row's own"),
        (b'{"input": 3}', ":3 has no such `input`"),
    ],
)
def test_a_bad_row_is_named_before_a_model_is_loaded(tmp_path: Path, model: Path, last: bytes, why: str) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(b'{"input": "show"}\n\n' + last)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasc.models.load_checkpoint", lambda *a, **o: pytest.fail("loaded"))
        result = tasc("generate", prompts, "--model", model, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    line = " ".join(result.stderr.split())
    assert line.startswith("error: ")
    assert f"{prompts}{why}" in line
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A checkpoint whose chat template refuses the message "end" and renders "to" as nothing."""
    folder = tmp_path_factory.mktemp("chat")
    transformers.LlamaForCausalLM.from_pretrained(model).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% set text = messages[-1].content %}{% if text == 'end' %}{{ raise_exception('no end') }}{% endif %}"
        "{% if text != 'to' %}{{ text }}{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("batch_size", [1, 3])
def test_prompts_that_cannot_be_used_are_named_and_the_rest_goes_on(
    tmp_path: Path, chat_model: Path, batch_size: int
) -> None:
    good = [{"input": row["input"], "id": k} for k, row in enumerate(ROWS * 2)]
    bad = {3: "show " * 200, 4: "end", 9: "to"}
    rows: list[dict[str, Any]] = list(good)
    for at, text in bad.items():
        rows.insert(at, {"input": text, "id": None})
    files = {name: tmp_path / f"{name}.jsonl" for name in ("good", "mixed", "out", "bad", "none")}
    for name, content in (("good", good), ("mixed", rows), ("bad", [rows[k] for k in bad])):
        files[name].write_text("".join(json.dumps(row) + "\n" for row in content))
    options = ("--model", chat_model, "--max-tokens", 12, "--batch-size", batch_size)
    result = tasc("generate", files["mixed"], *options, "-o", files["out"])
    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.stderr.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("skipped")] == [
        f"skipped {files['mixed']}:4: has 200 tokens, but the model's context holds 128; shorten it",
        f"skipped {files['mixed']}:5: is refused by the tokenizer's chat template (no end); change the messages",
        f"skipped {files['mixed']}:10: has no token; give at least one, such as the tokenizer's BOS",
        "skipped 3 of 13 rows",
    ]
    assert lines[-1] == "skipped 3 of 13 rows"  # no two for the same reason
    kept = [json.loads(line) for line in files["out"].read_text().splitlines()]
    assert kept == generated(files["good"], chat_model, tmp_path / "expected.jsonl", "--batch-size", batch_size)
    result = tasc("generate", files["bad"], *options, "-o", files["none"])
    assert result.exit_code == 2
    assert "none of the 3 rows can be used" in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("none*")) and not list(tmp_path.glob("*.partial"))


def last_line(result: Result) -> str:
    return " ".join(result.stderr.strip().splitlines()[-1].split())


def test_a_reason_that_rows_share_is_said_once_and_with_the_count(tmp_path: Path, chat_model: Path) -> None:
    prompts, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"input": text}) + "\n" for text in ["end", "show", "end", "to", "end"]))
    command = ("generate", prompts, "--model", chat_model, "--max-tokens", 4, "-o", output, "--force")
    result = tasc(*command)
    refused = "is refused by the tokenizer's chat template (no end); change the messages"
    assert result.exit_code == 1
    assert last_line(result) == f"skipped 4 of 5 rows; in 3 of them, the prompt {refused}"
    assert f"skipped {prompts}:5: for the same reason as {prompts}:1\n" in result.stderr
    assert result.stderr.count(refused) == 2
    prompts.write_text('{"input": "end"}\n' * 3)
    result = tasc(*command)
    assert result.exit_code == 2
    assert last_line(result).endswith(f"and {output} is not written; in 3 of them, the prompt {refused}")


def test_a_row_whose_logits_are_nan_is_skipped_and_the_rest_goes_on(tmp_path: Path, model: Path) -> None:
    loaded = transformers.LlamaForCausalLM.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    texts = ["show to", "from dallas", "show from", "dallas", "to to", "show"]
    with Generator(loaded, tokenizer, max_draft=0) as generator:
        plain = [item.text for item in generator.generate(prompts=texts, max_tokens=4)]
    good = [n for n, text in enumerate(plain) if "dallas" not in text + texts[n]]
    assert 1 < len(good) < len(texts)
    with torch.no_grad():
        loaded.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("dallas")] = float("nan")
    loaded.save_pretrained(tmp_path / "damaged")
    tokenizer.save_pretrained(tmp_path / "damaged")
    prompts, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text, "n": n}) + "\n" for n, text in enumerate(texts)))
    for batch_size in (1, 3):
        command = ("--model", tmp_path / "damaged", "--max-tokens", 4, "--max-draft", 0, "--batch-size", batch_size)
        result = tasc("generate", prompts, *command, "-o", output, "--force")
        assert result.exit_code == 1
        assert f"skipped {prompts}:2: has no next token after 0 output tokens: its logits are NaN" in result.stderr
        assert f"skipped {len(texts) - len(good)} of {len(texts)} rows" in last_line(result)
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["n"] for row in rows] == good
        assert [row["output"] for row in rows] == [plain[n] for n in good]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (OSError(28, "No space left on device"), 2)])
def test_finished_outputs_survive(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, error: Any, code: int
) -> None:
    plain = generated(data, model, tmp_path / "plain.jsonl")
    output, partial, made = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial", generate_module._line
    written: list[int] = []

    def stopped(*args: Any) -> bytes:
        written.append(partial.read_bytes().count(b"\n") if partial.exists() else 0)
        if len(written) == 4:
            raise error
        return made(*args)

    monkeypatch.setattr(generate_module, "_line", stopped)
    command = ("generate", data, "--model", model, "-o", output, "--max-tokens", 12, "--force")
    output.write_text("of an earlier run")
    result = tasc(*command)
    assert result.exit_code == code
    assert f"3 outputs are in {partial}; the same command goes on from there" in " ".join(result.stderr.split())
    assert written == [0, 2, 3, 4]  # each output is in the file, below the settings, before the next one ends
    assert [json.loads(line) for line in partial.read_text().splitlines()[1:]] == [[k, plain[k]] for k in range(3)]
    assert output.read_text() == "of an earlier run"
    with partial.open("ab") as file:
        file.write(b'[3, {"inp')  # of a kill in the middle of a line
    monkeypatch.setattr(generate_module, "_line", lambda *a: (written.append(-1), made(*a))[1])
    result = tasc(*command)
    assert result.exit_code == 0, result.output
    assert f"going on: 3 of {len(ROWS)} outputs are in {partial}" in " ".join(result.stderr.split())
    assert written[4:] == [-1] * (len(ROWS) - 3)
    assert [json.loads(line) for line in output.read_text().splitlines()] == plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out.jsonl", "plain.jsonl"]


@pytest.fixture
def stopped(tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The partial file of a run that was stopped after three outputs, of `out.jsonl`."""
    partial, made = tmp_path / "out.jsonl.partial", generate_module._line
    calls = iter(range(10))

    def stop(*args: Any) -> bytes:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return made(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generate_module, "_line", stop)
        result = tasc("generate", data, "--model", model, "-o", tmp_path / "out.jsonl", "--max-tokens", 12)
    assert result.exit_code == 130 and partial.exists()
    return partial


def test_other_settings_do_not_go_on(tmp_path: Path, model: Path, draft: Path, data: Path, stopped: Path) -> None:
    output, content = tmp_path / "out.jsonl", stopped.read_bytes()
    more = tmp_path / "more.jsonl"
    more.write_text(data.read_text() + data.read_text())
    for prompts, options, why in (
        (data, ("--model", model, "--max-tokens", 13), "max_tokens was 12 and is 13 now"),
        (data, ("--model", model, "--max-tokens", 12, "--stop", "a"), 'stop was null and is ["a"] now'),
        (data, ("--model", model, "--max-tokens", 12, "--int8"), "int8 was false and is true now"),
        (data, ("--model", draft, "--max-tokens", 12), f'model was "{model}" and is "{draft}" now'[:60]),
        (more, ("--model", model, "--max-tokens", 12), "rows was "),
        (data, ("--model", model, "--max-tokens", 12, "--limit", 2), "has the output of row 3; set --limit to that"),
    ):
        result = tasc("generate", prompts, *options, "-o", output)
        line = " ".join(result.stderr.split())
        assert result.exit_code == 2 and line.startswith("error: ") and why in line, line
        assert stopped.read_bytes() == content
    # what changes no text may change: drafts, batches, the number of rows
    assert generated(data, model, output, "--batch-size", 2, "--max-draft", 0, "--limit", 4)[:3]
    assert len(output.read_text().splitlines()) == 4 and not stopped.exists()


def test_a_run_can_begin_again(tmp_path: Path, model: Path, data: Path, stopped: Path) -> None:
    output = tmp_path / "out.jsonl"
    result = tasc("generate", data, "--model", model, "-o", output, "--max-tokens", 5, "--no-resume")
    assert result.exit_code == 0, result.output
    assert "going on" not in result.stderr
    assert all(json.loads(line)["output"].count(" ") <= 5 for line in output.read_text().splitlines())
    assert not stopped.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A line that does not fit is cut off again, and the next run goes on behind the last whole one."""
    from tasc.cli.resumable import resumable

    output = tmp_path / "out.jsonl"
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match=r"too large|No space"), resumable(output, {"a": 1}, rows=2) as sink:
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            sink.write(1, b'{"n": 1}')
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            sink.write(0, b'{"n": "%s"}' % (b"x" * 200))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    partial = tmp_path / "out.jsonl.partial"
    assert partial.read_bytes().endswith(b'[1, {"n": 1}]\n')
    with resumable(output, {"a": 1}, rows=2) as sink:
        assert sink.done == {1}
        sink.write(0, b'{"n": 0}')
    assert output.read_text() == '{"n": 0}\n{"n": 1}\n'
    assert not partial.exists()


def test_sigterm_ends_as_ctrl_c_does(tmp_path: Path, model: Path, data: Path) -> None:
    """In a process of its own, while it decodes."""
    many, output, errors = tmp_path / "many.jsonl", tmp_path / "out.jsonl", tmp_path / "stderr"
    many.write_text(data.read_text() * 400)
    process = fork(command_line, errors, "generate", many, "--model", model, "-o", output)
    partial = tmp_path / "out.jsonl.partial"
    while process.is_alive() and not (partial.exists() and partial.read_bytes().count(b"\n") > 2):
        time.sleep(0.05)
    process.terminate()
    process.join()
    said = errors.read_text()
    assert process.exitcode == 143, said
    assert "the same command goes on from there" in said and said.rstrip().endswith("terminated")
    left = ["data.jsonl", "many.jsonl", "out.jsonl.partial", "stderr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def command_line(errors: Path, *arguments: Any) -> None:
    """Run `tasc`; what it prints as errors goes to a file."""
    sys.argv = ["tasc", *map(str, arguments)]
    with errors.open("w") as sys.stderr:
        main()


def test_outputs_go_to_a_file_that_is_created(tmp_path: Path, model: Path, data: Path) -> None:
    """Not to a link or a file of something else that has the name; it has the mode of the file that it replaces."""
    output, partial, victim = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial", tmp_path / "victim"
    command = ("generate", data, "--model", model, "-o", output, "--max-tokens", 12)
    victim.write_text("")
    partial.symlink_to(victim)
    for more in ((), ("--no-resume",)):
        assert "rename it or remove it" in " ".join(tasc(*command, *more).stderr.split())
        assert partial.is_symlink() and victim.read_text() == ""
    partial.unlink()
    for content in ("something else\n", '{"tasc": 1}\n', "[1, 2]\n"):
        partial.write_text(content)
        for more in ((), ("--no-resume",)):
            assert "is in the way, and not of" in " ".join(tasc(*command, *more).stderr.split())
            assert partial.read_text() == content
    partial.unlink()
    with scratch_folder(output):  # of another run
        result = tasc(*command)
    assert result.exit_code == 2
    assert f"{output} is being written by process {os.getpid()}" in " ".join(result.stderr.split())
    partial.write_text("")  # of a run that was killed early
    output.write_text("old")
    output.chmod(0o600)
    modes: list[int] = []
    write = PartialOutputs.write
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            PartialOutputs, "write", lambda *a: (write(*a), modes.append(partial.stat().st_mode & 0o777))[0]
        )
        generated(data, model, output, "--force")
    assert set(modes) == {0o600} == {output.stat().st_mode & 0o777}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out.jsonl", "victim"]


def test_outputs_have_the_order_of_the_rows(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [1, 126, 127, 1, 125]  # a longer prompt leaves room for fewer tokens and ends earlier
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": "show " * n, "id": k}) + "\n" for k, n in enumerate(lengths)))
    ended: list[int] = []
    made = generate_module._line

    def noted(row: dict[str, Any], generation: Any) -> bytes:
        ended.append(row["id"])
        return made(row, generation)

    monkeypatch.setattr(generate_module, "_line", noted)
    plain = generated(prompts, model, tmp_path / "plain.jsonl")
    rows = generated(prompts, model, tmp_path / "out.jsonl", "--batch-size", 3)
    assert ended[:5] == [0, 1, 2, 3, 4] != ended[5:]
    assert rows == plain
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]


def test_a_seed_gives_each_row_its_own_numbers(tmp_path: Path, model: Path) -> None:
    """Whatever the batch size, the rows before it, and whether other rows are skipped."""
    prompts = tmp_path / "prompts.jsonl"
    texts = ["show flights from boston"] * 20
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    options = ("--temperature", 1.5, "--seed", 5, "--batch-size")
    made = [generated(prompts, model, tmp_path / f"{n}.jsonl", *options, n) for n in (1, 4, 16)]
    assert made[1] == made[0] and made[2] == made[0]
    assert len({row["output"] for row in made[0]}) > 10
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    with Generator(loaded, transformers.AutoTokenizer.from_pretrained(model), batch_size=3) as generator:
        again = generator.generate(prompts=texts, max_tokens=12, temperature=1.5, seed=5)
    assert [item.text for item in again] == [row["output"] for row in made[0]]
    texts[6] = "show " * 200
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    output = tmp_path / "skipped.jsonl"
    command = ("generate", prompts, "--model", model, "-o", output, "--max-tokens", 12, *options, 4)
    assert tasc(*command).exit_code == 1
    assert [json.loads(line) for line in output.read_text().splitlines()] == made[0][:6] + made[0][7:]


def test_outputs_over_prompts_are_refused(model: Path, data: Path) -> None:
    result = tasc("generate", data, "--model", model, "-o", data)
    assert result.exit_code == 2
    assert "is one of the inputs of this command; name another file" in " ".join(result.stderr.split())


def test_an_index_of_another_tokenizer_is_refused(tmp_path: Path, model: Path, data: Path) -> None:
    other = tmp_path / "other.json"
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(other))
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", other, "-o", index).exit_code == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasc.models.load_checkpoint", lambda *a, **o: pytest.fail("loaded"))
        for command in (("generate", data, "-o", tmp_path / "out.jsonl"), ("bench", "--data", data)):
            result = tasc(*command, "--model", model, "--index", index)
            assert result.exit_code == 2
            assert "the index was made with tokenizer" in result.stderr


def test_bench_compares_methods_on_the_same_prompts(tmp_path: Path, model: Path, data: Path) -> None:
    target = tmp_path / "out.json"
    methods = "transformers,transformers-prompt-lookup,tasc"
    options = ("--methods", methods, "--max-tokens", 8, "--max-draft", 4, "--limit", 2, "-o", target, "--json")
    result = tasc("bench", "--model", model, "--data", data, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert json.loads(target.read_text()) == found
    assert found["methods"].keys() == {"plain", *methods.split(",")}
    tokens = found["methods"]["plain"]["tokens"]
    for facts in found["methods"].values():
        assert (facts["requests"], facts["identical"], facts["tokens"]) == (2, 2, tokens)
        assert facts["tokens_per_second"] == pytest.approx(tokens / facts["seconds"])
        assert facts["latency_p50"] <= facts["latency_p90"] <= facts["seconds"]
    assert found["methods"]["plain"]["speedup"] == 1.0
    assert found["methods"]["plain"]["tau"] == pytest.approx(1.0)
    ours = found["methods"]["tasc"]
    assert sum(ours["accepted_by_position"]) == pytest.approx(ours["accepted"] * sum(ours["drafted_by_position"]))
    assert [set(r["seconds"]) for r in found["requests"]] == [set(found["methods"])] * 2
    assert [r["input"] for r in found["requests"]] == [r["input"] for r in ROWS[3:]]


def test_a_table_is_printed_whatever_happens_to_its_files(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasc.evaluation.report.render", full)
    options = ("--methods", "tasc", "--max-tokens", 4, "--limit", 1, "--html", tmp_path / "page.html")
    result = tasc("bench", "--model", model, "--data", data, *options)
    assert (result.exit_code, "No space left" in result.stderr) == (2, True)
    assert "plain" in result.stdout and "tokens/s" in result.stdout


def test_bench_on_the_deployed_index(tmp_path: Path, model: Path, data: Path) -> None:
    index, new = tmp_path / "task.tasc", tmp_path / "new.jsonl"
    assert tasc("index", "build", data, "--tokenizer", model, "-o", index, "--split", "train").exit_code == 0
    new.write_text(json.dumps({"input": "show flights", "output": "intent flight end"}) + "\n")
    options = ("--methods", "tasc", "--max-tokens", 4, "--json", "--system", "end")
    result = tasc("bench", "--model", model, "--index", index, "--held-out", new, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [request["input"] for request in found["requests"]] == ["show flights"]
    facts = found["provenance"]
    assert facts["held_out"]["rows"] == 1 and facts["index"]["path"] == str(index)
    assert facts["model"]["name"] == str(model) and facts["model"]["dtype"] == "float32" and facts["system"] == "end"
    assert found["methods"]["tasc"]["speedup_interval"]["value"] == pytest.approx(found["methods"]["tasc"]["speedup"])


def test_bench_names_an_unknown_method(model: Path, data: Path) -> None:
    result = tasc("bench", "--model", model, "--data", data, "--methods", "magic")
    assert result.exit_code == 2
    assert "unknown method 'magic': choose from plain, transformers" in " ".join(result.stderr.split())


def test_generate_is_the_same_with_a_draft_model(tmp_path: Path, model: Path, data: Path, draft: Path) -> None:
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", model, "-o", index, "--split", "train").exit_code == 0
    plain = generated(data, model, tmp_path / "plain.jsonl", "--max-draft", 0)
    assert generated(data, model, tmp_path / "alone.jsonl", "--draft", draft) == plain
    assert generated(data, model, tmp_path / "both.jsonl", "--draft", draft, "--index", index) == plain


def test_bench_with_a_draft_model(tmp_path: Path, model: Path, data: Path, draft: Path) -> None:
    out, page = tmp_path / "bench.json", tmp_path / "bench.html"
    names = ["plain", "tasc", "model", "combined"]
    result = tasc(
        "bench", "--model", model, "--data", data, "--draft", draft, "--draft-length", 3,
        "--methods", ",".join(names[1:]), "--max-tokens", 8, "-o", out, "--html", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    assert list(results["methods"]) == names
    assert results["settings"]["draft"] == str(draft)
    assert results["settings"]["draft_length"] == 3
    assert all(facts["identical"] == facts["requests"] == 2 for facts in results["methods"].values())
    assert set(results["methods"]["model"]["drafted_by_source"]) == {"model"}
    assert len(results["methods"]["model"]["drafted_by_position"]) == 3
    assert "combined" in result.stdout
    assert "combined" in page.read_text()


def test_bench_says_what_a_draft_model_needs(model: Path, data: Path, draft: Path, tmp_path: Path) -> None:
    for extra, said in (
        (["--methods", "combined"], "method 'combined' needs a draft model: give its folder with --draft"),
        (["--draft-length", 3], "--draft-length is for a draft model: give its folder with --draft"),
        (["--draft", draft, "--draft-length", 80], "draft_length is 80; it must be at most max_draft, 64"),
    ):
        result = tasc("bench", "--model", model, "--data", data, *extra)
        assert result.exit_code == 2
        assert said in " ".join(result.stderr.split())
    other = tmp_path / "other"
    transformers.AutoModelForCausalLM.from_pretrained(draft).save_pretrained(other)
    made = Tokenizer(models.WordLevel({"</s>": 0, "[UNK]": 1}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>").save_pretrained(other)
    result = tasc("bench", "--model", model, "--data", data, "--draft", other, "--methods", "model")
    assert result.exit_code == 2
    assert "take a draft model made for this target's tokenizer" in " ".join(result.stderr.split())
