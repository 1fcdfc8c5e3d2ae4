"""`tasc index remove`: rows that are removed are in no file any more, and all others are."""

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import train_tokenizer
from test_cli import tasc
from typer.testing import Result

from tasc import NgramDrafter, TaskIndex
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.drafting.protocol import salt_digest, served_log
from tasc.files import scratch_folder

Row = dict[str, Any]
Counts = Counter[tuple[str | None, str]]

NAMES = ["anna", "berta", "cecil", "david", "emil", "frida", "gustav", "hanna", "ida", "jakob"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["<|im_end|>"], 300).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return folder


def printed(result: Result, code: int) -> str:
    """What was printed, unwrapped, of a run that ended with `code`."""
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def some_rows(rng: random.Random, count: int) -> list[Row]:
    rows = []
    for _ in range(count):
        name, city = rng.choice(NAMES), rng.choice(["oslo", "rome", "bern"])
        given = rng.choice([f"fly {name} to {city} please", f"{name}: {city}", None])
        rows.append({"input": given, "output": f"to={city}; name={name};"})
    return rows


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Task:
    """An index in a folder, its logs, and the rows that they should hold."""

    def __init__(self, folder: Path, tokenizer: Path, rows: list[Row], *options: str) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.task: TaskTokenizer = load_tokenizer(tokenizer)
        self.path = folder / "task.tasc"
        made = write(folder / "rows.jsonl", rows)
        result = tasc("index", "build", made, "--tokenizer", tokenizer, "-o", self.path, "--no-fit", *options)
        assert result.exit_code == 0, result.output
        made.unlink()

    def ids(self, text: str) -> list[int]:
        assert self.task.eos_id is not None
        return [*self.task.encode(text).tolist(), self.task.eos_id]

    def serve(self, rows: list[Row], digest: str | None = None) -> None:
        index = TaskIndex.open(self.path)
        drafter = NgramDrafter(index, served=served_log(index, digest))
        drafter.serve([(row["input"], self.ids(row["output"]), row.get("key")) for row in rows])

    def compact(self) -> None:
        result = tasc("index", "compact", self.path, "--tokenizer", self.tokenizer, "--no-fit")
        assert result.exit_code == 0, result.output

    def remove(self, *options: str | Path) -> str:
        args = ["index", "remove", self.path, *options, "--tokenizer", self.tokenizer, "--no-fit"]
        return printed(tasc(*args), 0)

    def remove_rows(self, rows: list[Row]) -> str:
        named = write(self.folder / "named.jsonl", rows)
        result = self.remove("--where", named)
        named.unlink()
        return result

    def rows(self, log: Path | None = None) -> Counts:
        """Rows of the index once it has merged a log; the files stay as they are."""
        index, found = TaskIndex.open(self.path), Counts()
        index.verify()
        copy, store_path = self.folder / "copy.tasc", self.folder / "copy.store"
        logs = [path for path in [log or served_log(index)] if path.exists()]
        merged, _ = index.compact(copy, served=logs, tokenizer=self.task, fit=False)
        merged.to_store(store_path)
        store = TokenStore.open(store_path)
        texts = [self.task.decode(ids) for ids, _ in store]
        left = [store.weight(k) for k in range(len(store))]
        for k in range(store.num_inputs):
            text, document, weight = store.input(k)
            found[text, texts[document]] += weight
            left[document] -= weight
        found.update({(None, text): weight for text, weight in zip(texts, left, strict=True) if weight})
        copy.unlink()
        store_path.unlink()
        return found

    def holds(self, text: str) -> bool:
        """Whether any file has this text, as text or as the ids of an output."""
        index = TaskIndex.open(self.path)
        _, _, length, _ = index.successors(self.task.encode(text), from_start=False)
        ids = self.task.encode(text).tobytes()
        files = [path.read_bytes() for path in self.folder.iterdir() if path.is_file()]
        return length == len(self.task.encode(text)) or any(text.encode() in b or ids in b for b in files)


def counts(rows: list[Row]) -> Counts:
    return Counter((row["input"], row["output"]) for row in rows)


@pytest.mark.parametrize("seed", range(4))
def test_removed_rows_are_in_no_file_and_all_others_are(tmp_path: Path, tokenizer: Path, seed: int) -> None:
    rng = random.Random(seed)
    past, merged, online = (some_rows(rng, count) for count in (30, 10, 10))
    task = Task(tmp_path, tokenizer, past)
    task.serve(merged)
    if seed % 2:
        task.compact()
    task.serve(online)
    everything = past + merged + online
    assert task.rows() == counts(everything)
    assert task.holds("anna")
    whole = [row for row in everything if "anna" in row["output"]]
    with_input = [row for row in everything if row["input"] == "berta: rome"]
    of_output = [row for row in everything if row["output"] == "to=bern; name=cecil;"]
    named = [*whole, {"input": "berta: rome"}, {"output": "to=bern; name=cecil;"}]
    said = task.remove_rows(named)
    gone = [row for row in everything if row in whole or row in with_input or row in of_output]
    left = [row for row in everything if row not in gone]
    assert task.rows() == counts(left)
    assert f"{len(gone)}" == str(sum(int(word) for word in said.split() if word.isdecimal())), said
    assert not task.holds("anna")
    assert not task.holds("fly anna")
    assert task.holds("david") == any("david" in row["output"] for row in left)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert "0 rows removed from the index, 0 from its logs" in task.remove_rows(named)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    task.compact()
    assert task.rows() == counts(left)


def test_a_row_goes_whatever_tokens_the_model_wrote_it_with(tmp_path: Path, tokenizer: Path) -> None:
    task = Task(tmp_path, tokenizer, some_rows(random.Random(1), 20))
    letters = [task.ids(letter)[0] for letter in '{"intent": "flight"}']
    assert letters != task.ids('{"intent": "flight"}')[:-1]
    index = TaskIndex.open(task.path)
    NgramDrafter(index, served=served_log(index)).serve([("odd", [*letters, task.ids("")[0]])])
    assert "0 rows removed from the index, 1 from its logs" in task.remove_rows([{"output": '{"intent": "flight"}'}])


def test_rows_go_by_key_before_and_after_a_compaction(tmp_path: Path, tokenizer: Path) -> None:
    past = some_rows(random.Random(2), 20)
    own, other = {**past[0], "key": "user 17"}, {**past[0], "key": "user 18"}
    task = Task(tmp_path, tokenizer, past)
    task.serve([own, other, own])
    task.compact()
    task.serve([own, other])
    said = task.remove_rows([{"key": "user 17"}])
    assert "2 rows removed from the index, 1 from its logs" in said
    assert task.rows() == counts([*past, other, other])
    assert not task.holds("user 17")
    assert task.holds("user 18")


def test_old_rows_go_from_logs_and_from_what_they_were_compacted_into(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, online = some_rows(random.Random(3), 20), some_rows(random.Random(4), 4)
    task = Task(tmp_path, tokenizer, past)
    task.serve(online[:2])
    task.compact()
    task.serve(online[2:])
    assert "0 rows removed from the index, 0 from its logs; 20 rows without a time" in task.remove("--older-than", "1")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400)
    said = task.remove("--older-than", "1")
    assert "2 rows removed from the index, 2 from its logs; 20 rows without a time stay" in said
    assert task.rows() == counts(past)


def test_a_row_with_an_empty_input_and_one_without_go_one_by_one(tmp_path: Path, tokenizer: Path) -> None:
    past = [*some_rows(random.Random(10), 5), {"input": "", "output": "x"}, {"input": None, "output": "x"}]
    task = Task(tmp_path, tokenizer, past)
    task.serve([{"input": None, "output": "x", "key": "k"}])
    task.compact()
    assert "1 row removed from the index, 0 from its logs" in task.remove_rows([{"key": "k"}])
    assert task.rows().total() == len(past)


def test_each_salt_is_gone_through_and_can_go_whole(tmp_path: Path, tokenizer: Path) -> None:
    past = some_rows(random.Random(5), 20)
    task = Task(tmp_path, tokenizer, past)
    anna, secret = ({"input": f"a {name}", "output": f"name={name};"} for name in ("marianna", "secret"))
    digests = [salt_digest(salt) for salt in ("one", "two", "three")]
    for digest in digests:
        task.serve([anna, secret], digest)
    index = TaskIndex.open(task.path)
    second = Path(f"{served_log(index, digests[0])}.1")  # of a second process that learns; the first one's is gone
    served_log(index, digests[0]).rename(second)
    own = Path(f"{task.path}.{digests[1]}")
    compact = ("index", "compact", task.path, "--tokenizer", tokenizer, "--no-fit", "--salt")
    assert "2 served rows merged" in printed(tasc(*compact, "two"), 0)
    assert "nothing was learnt under the salt 'four'" in printed(tasc(*compact, "four"), 2)
    assert "leave --log and -o out" in printed(tasc(*compact, "two", "-o", tmp_path / "other"), 2)
    rows = write(tmp_path / "gone.jsonl", [{"output": anna["output"]}])
    for digest in (digests[0], digests[2]):
        with scratch_folder(Path(f"{task.path}.{digest}")):  # of a compaction that runs
            named = tasc("index", "remove", task.path, "--where", rows, "--tokenizer", tokenizer, "--no-fit")
            assert f"task.tasc.{digest} is being written by process" in printed(named, 2)
    rows.unlink()
    said = task.remove_rows([{"output": anna["output"]}])
    assert "task.tasc: 0 rows removed from the index, 2 from its logs" in said
    assert f"task.tasc.{digests[1]}: 1 row removed from the index, 0 from its logs" in said
    assert not task.holds("marianna")
    assert task.rows(second) == counts([*past, secret])
    (tmp_path / ".tasc-dead.tmp").mkdir()  # of a compaction that was killed
    (tmp_path / ".tasc-dead.tmp" / "rows.store").write_text("secret")
    with scratch_folder(own):  # of a compaction that runs
        assert "is being written by process" in said_of_salt(task, "two", 2)
    for salt in ("one", "two"):
        assert "deleted" in said_of_salt(task, salt, 0)
    assert "nothing was learnt under the salt 'two'" in said_of_salt(task, "two", 2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["task.tasc", f"task.tasc.served.{digests[2]}"]
    drafter = NgramDrafter(index, served=served_log(index, digests[2]))
    assert "another writer has this log open" in said_of_salt(task, "three", 2)
    assert "another writer has this log open" in printed(
        tasc("index", "remove", task.path, "--older-than", "0", "--tokenizer", tokenizer), 2
    )
    del drafter
    assert task.holds("secret")


def said_of_salt(task: Task, salt: str, code: int) -> str:
    return printed(tasc("index", "remove", task.path, "--salt", salt), code)


def test_an_index_without_inputs_goes_by_outputs(tmp_path: Path, tokenizer: Path) -> None:
    past = some_rows(random.Random(6), 30)
    task = Task(tmp_path, tokenizer, past, "--no-inputs")
    named = next(row for row in past if row["input"])
    task.remove_rows([named])
    assert task.rows() == counts([{**row, "input": None} for row in past if row["output"] != named["output"]])


def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, tokenizer: Path) -> None:
    past = some_rows(random.Random(7), 3)
    task = Task(tmp_path, tokenizer, past)
    before = task.path.read_bytes()
    rows = write(tmp_path / "named.jsonl", [{"output": row["output"]} for row in past])
    own = ("--tokenizer", tokenizer)
    for options, why in [
        ((), "give one of --where ROWS, --salt SALT and --older-than DAYS"),
        (("--where", rows, "--salt", "s", *own), "give one of"),
        (("--where", rows), "name it with --tokenizer"),
        (("--where", rows, *own), "task.tasc would be left; delete the index"),
        (("--where", tmp_path / "none.jsonl", *own), "none.jsonl"),
    ]:
        assert why in printed(tasc("index", "remove", task.path, *options), 2)
    for row in [{}, {"input": None}, {"key": "k", "input": "a"}, {"key": 3}, {"name": "a"}]:
        write(rows, [row])
        line = printed(tasc("index", "remove", task.path, "--where", rows, *own), 2)
        assert "named.jsonl:1: names no rows; give an `input`" in line
    assert task.path.read_bytes() == before
    with pytest.raises(ValueError, match="picks returned 1 answers about"):
        TaskIndex.open(task.path).remove(lambda rows: [True], tokenizer=task.task)
    with pytest.raises(ZeroDivisionError):
        TaskIndex.open(task.path).remove(lambda rows: [1 // 0 > 0], tokenizer=task.task)
    assert task.path.read_bytes() == before


def test_rows_leave_a_log_after_log_days(tmp_path: Path, tokenizer: Path) -> None:
    task = Task(tmp_path, tokenizer, some_rows(random.Random(8), 3))
    task.serve(some_rows(random.Random(9), 5))
    index = TaskIndex.open(task.path)
    assert NgramDrafter(index, served=served_log(index), log_days=1).num_served == 5
    with pytest.raises(ValueError, match="log_days=0 is out of range: give at least 1"):
        NgramDrafter(index, log_days=0)
