"""Kinds of files of rows, and objects that hold rows."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tasc.data import TokenStore, read_rows
from tasc.data.columns import dataset_files
from tasc.data.files import CHUNK
from tasc.errors import CorpusError

ROWS = [{"input": "né", "output": 'a\nb "c"'}, {"input": "x,y", "output": "ünï 🙂"}, {"input": "", "output": ""}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, indent=1)
CSV = 'input,output\r\nné,"a\nb ""c"""\r\n"x,y",ünï 🙂\r\n\r\n"",\r\n'


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("text", [LINES, ARRAY, CSV, CSV.replace(",", "\t").replace("x\ty", "x,y")])
@pytest.mark.parametrize("name", ["data", "data.xyz"])
def test_a_file_whose_name_says_nothing_is_known_by_its_contents(
    tmp_path: Path, name: str, text: str, pack: Callable[[bytes], bytes]
) -> None:
    for data in (text.encode(), b"\xef\xbb\xbf \n" + text.encode()):
        (tmp_path / name).write_bytes(pack(data))
        assert list(read_rows(tmp_path / name)) == ROWS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.json", ARRAY),
        ("r.jsonl", ARRAY),
        ("r.json", LINES),
        ("r.csv", CSV),
        ("r.csv", CSV.replace('"x,y"', "x,y").replace(",", ";").replace("x;y", "x,y")),
        ("r.tsv", CSV.replace('"x,y"', "x,y").replace(",", "\t").replace("x\ty", "x,y")),
        ("R.CSV", "\n" + CSV),
    ],
)
def test_a_file_is_of_the_kind_that_its_name_says(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert list(read_rows(tmp_path / name)) == ROWS
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert list(read_rows(tmp_path / f"{name}.gz")) == ROWS


def test_json_without_a_known_field_is_never_indexed_as_text(tmp_path: Path) -> None:
    (tmp_path / "data").write_text('{"label": "x"}\n')
    with pytest.raises(
        CorpusError, match=r"data:1: has no field 'output'; its fields are 'label': name one as output_"
    ):
        list(read_rows(tmp_path / "data"))
    (tmp_path / "data").write_text("plain text\n[in brackets]\n")
    assert [row["output"] for row in read_rows(tmp_path / "data")] == ["plain text", "[in brackets]"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("r.json", "[", r"r\.json: row 1: is not JSON: Expecting value"),
        ("r.json", '[{"output": "x"}', r"r\.json: is no array of JSON: the end of the file stands where ',' must be"),
        ("r.json", '[{"output": "x"} {}]', r"r\.json: is no array of JSON: '\{' stands where ',' must be"),
        ("r.json", '[{"output": "x"},]', r"r\.json: row 2: is not JSON: Expecting value at its character 1"),
        (
            "r.json",
            '[{"output": "x"}, {"output": "y]',
            r"is not JSON: Unterminated string starting at its character 12",
        ),
        ("r.json", '[{"output": "x"}] 7', r"r\.json: goes on with '7' after the end of the array"),
        ("r.json", '[{"output": "x"}, 7]', r"r\.json: row 2: is an int, a row is an object"),
        ("r.json", "[" * 200_000, r"row 1: is JSON that cannot be read: brackets in brackets"),
        ("r.json", '[{"output": 1' + "0" * 5000 + "}]", r"row 1: is JSON that .* a number has over 4300 digits"),
        ("r.csv", "input,output\na\n", r"r\.csv:2: has 1 values, but the table has 2 columns"),
        ("r.csv", 'input,output\n"a,b\n', r"r\.csv:2: is no row of a table: unexpected end of data"),
        ("r.csv", "output,output\na,b\n", r"r\.csv:1: has 2 columns named 'output'; rename one"),
        ("r.csv", "in,out\na,b\n", r"r\.csv:2: has no field 'output'; its fields are 'in', 'out'"),
        ("r.arrow", "ARROW1 or not", r"r\.arrow: is no Arrow file that can be read"),
        ("r.arrow", "", r"r\.arrow: is no Arrow file that can be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=why):
        list(read_rows(tmp_path / name))


def test_a_long_array_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    rows = [{"output": "x" * 100_000, "number": k} for k in range(200)]
    path.write_text(json.dumps(rows))
    told: list[int] = []
    tracemalloc.start()
    try:
        assert [row["number"] for row in read_rows(path, progress=lambda done, total: told.append(done))] == [
            *range(200)
        ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert told == sorted(told)
    assert len(told) > 50
    path.write_text(json.dumps([{"output": "x" * 3 * CHUNK}]))
    assert len(next(read_rows(path))["output"]) == 3 * CHUNK
    for long in ('"' + "x" * 99_999_999, '"x": [' + "[1]," * 99_999, '"x": "' + "y" * 100_000 + '"}]'):
        path.write_text('[{"a": 1, ' + long)
        with pytest.raises(
            CorpusError, match=r"row 1: the row is longer than 100,000 bytes, the limit; shorten the row"
        ):
            list(read_rows(path, max_line_bytes=100_000))


def test_a_row_of_a_table_may_have_as_many_bytes_as_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('output\n"' + "x\n" * 200_000 + '"\n')
    assert len(next(read_rows(path))["output"]) == 400_000
    with pytest.raises(CorpusError, match=r"r\.csv:\d+: the row is longer than 1,000 bytes, the limit"):
        list(read_rows(path, max_line_bytes=1000))
    path.write_text('output\n"' + "x\n" * 20_000_000)
    with pytest.raises(CorpusError, match=r"r\.csv:\d+: the row is longer than 16,777,216 bytes, the limit"):
        list(read_rows(path))


def test_arrow_and_feather(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather, ipc

    rows = [row | {"split": "train", "extra": b"x"} for row in ROWS * 50]
    table = pyarrow.Table.from_pylist(rows)
    read = [row | {"split": "train"} for row in ROWS * 50]
    for name, make in (("r.arrow", ipc.new_file), ("stream.arrow", ipc.new_stream), ("data", ipc.new_file)):
        with make(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=40)
        assert list(read_rows(tmp_path / name)) == read
    feather.write_feather(table, str(tmp_path / "r.feather"))
    told: list[int] = []
    assert list(read_rows(tmp_path / "r.feather", progress=lambda done, total: told.append(done))) == read
    assert told[-1] == (tmp_path / "r.feather").stat().st_size
    with pytest.raises(CorpusError, match=r"r\.arrow: row 1: has 1\d bytes, more than 5, the limit; shorten the row"):
        list(read_rows(tmp_path / "r.arrow", max_line_bytes=5))
    (tmp_path / "r.feather.gz").write_bytes(gzip.compress((tmp_path / "r.feather").read_bytes()))
    with pytest.raises(CorpusError, match="arrow is read from a file that is not compressed"):
        list(read_rows(tmp_path / "r.feather.gz"))


def test_a_row_that_holds_one_value_many_times_is_bounded(tmp_path: Path) -> None:
    """Of dictionaries, runs and views in lists, which are small in the file and in memory of Arrow."""
    pa = pytest.importorskip("pyarrow")
    ends, zeros = pa.array([2000], pa.int32()), [0] * 2000
    text = pa.DictionaryArray.from_arrays(pa.array(zeros, pa.int8()), pa.array(["x" * 1000]))
    numbers = pa.ListViewArray.from_arrays(pa.array(zeros, pa.int32()), pa.array([2000] * 2000, pa.int32()), zeros)
    values = {
        "dictionary": text,
        "runs": pa.RunEndEncodedArray.from_arrays(ends, pa.array(["x" * 1000])),
        "views": numbers,
        "of structs": pa.StructArray.from_arrays([text], ["a"]),
    }
    file = tmp_path / "r.arrow"
    for name, inner in values.items():
        for size in (3, 2000):
            column = pa.ListArray.from_arrays(pa.array([0, size], pa.int32()), inner)
            with pa.ipc.new_file(str(file), pa.schema([("output", column.type)])) as writer:
                writer.write_batch(pa.record_batch([column], names=["output"]))
            if size == 3:
                assert json.loads(next(read_rows(file))["output"]) == column[0].as_py(), name
                continue
            with pytest.raises(CorpusError, match=r"r\.arrow: row 1: has more than 100,000 bytes, the limit"):
                list(read_rows(file, max_line_bytes=100_000))


def test_parquet_is_known_by_its_contents_and_each_row_is_bounded(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data")
    assert list(read_rows(tmp_path / "data")) == ROWS
    rows = [{"output": "x"}] * 99 + [{"output": "y" * 300_000}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    with pytest.raises(CorpusError, match=r"r\.parquet: row 100: has 300,000 bytes, more than 200,000, the limit"):
        list(read_rows(tmp_path / "r.parquet", max_line_bytes=200_000))
    assert len(list(read_rows(tmp_path / "r.parquet", max_line_bytes=300_000))) == 100
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That.", "name": "me"}]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": turns}]), tmp_path / "chat.parquet")
    assert list(read_rows(tmp_path / "chat.parquet")) == [{"input": "What?", "output": "That.", "messages": turns}]


def saved(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write a folder as `datasets.Dataset.save_to_disk` does."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc

    folder.mkdir(parents=True)
    files = [f"data-{k:05}-of-00002.arrow" for k in range(2)]
    for k, name in enumerate(files):
        table = pyarrow.Table.from_pylist(rows[k::2])
        with ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]}))
    (folder / "dataset_info.json").write_text("{}")


def test_folders_of_datasets(tmp_path: Path) -> None:
    saved(tmp_path / "one", ROWS)
    assert list(read_rows(tmp_path / "one")) == [*ROWS[::2], *ROWS[1::2]]
    for split in ("train", "test"):
        saved(tmp_path / "both" / split, ROWS[:2])
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    told: list[tuple[float, float]] = []
    rows = list(read_rows(tmp_path / "both", "test", progress=lambda *done: told.append(done)))
    assert rows == [row | {"split": "test"} for row in ROWS[:2]]
    total = sum(file.stat().st_size for _, file in dataset_files(tmp_path / "both"))
    assert told[-1] == (total, total)
    assert len(list(read_rows(tmp_path / "both"))) == 4
    with pytest.raises(CorpusError, match="is a folder, and none that save_to_disk of `datasets` has written"):
        list(read_rows(tmp_path))


DAMAGED = [
    '[{"filename": "../r.arrow"}]',
    '[{"filename": ".."}]',
    '[{"filename": "a"}, {"filename": "a"}]',
    "[7]",
    "7",
    "{",
    '[{"filename": 7}]',
]


@pytest.mark.parametrize("named", DAMAGED)
def test_a_damaged_folder_of_datasets_is_named(tmp_path: Path, named: str) -> None:
    (tmp_path / "state.json").write_text('{"_data_files": ' + named + "}")
    with pytest.raises(CorpusError, match=r"state\.json: must list names under '_data_files'; save the dataset again"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize(("pipe", "why"), [("state.json", "none that save_to_disk"), ("a.arrow", "is no file, though")])
def test_a_pipe_in_a_folder_of_datasets_is_refused_at_once(tmp_path: Path, pipe: str, why: str) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (folder / pipe).unlink(missing_ok=True)
    os.mkfifo(folder / pipe)
    assert why in run("READ saved", tmp_path)


def run(command: str, folder: Path, **options: Any) -> str:
    code = (
        "import json, sys\nfrom tasc.data import read_rows\nfrom tasc.errors import TascError\n"
        "try: print(json.dumps(list(read_rows(sys.argv[1]))))\n"
        "except TascError as error: print(error)"
    )
    (folder / "read.py").write_text(code)
    line = command.replace("READ", f"{sys.executable} read.py")
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("text", [LINES, ARRAY, CSV])
def test_standard_input_and_process_substitution(tmp_path: Path, text: str) -> None:
    (tmp_path / "data").write_bytes(text.encode())
    (tmp_path / "data.gz").write_bytes(gzip.compress(text.encode()))
    for command in ("READ - < data", "cat data | READ -", "READ - < data.gz", "cat data.gz | READ /dev/stdin"):
        assert json.loads(run(command, tmp_path)) == ROWS, command
    assert json.loads(run("READ <(cat data)", tmp_path)) == ROWS


def test_columns_cannot_be_read_from_a_pipe(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data")
    for command in ("cat data | READ -", "READ - < data"):
        said = run(command, tmp_path)
        assert said == "-: parquet is read from a file that is not compressed; write it to one"


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = run("READ pipe", tmp_path)
    assert said == "pipe is a named pipe, which may never have a writer; give its content as -: … - < pipe"


class Columns:
    """A DataFrame as pandas has it."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.columns, self._rows = list(rows[0]), rows

    def itertuples(self, *, index: bool, name: None) -> Any:
        assert not index
        return (tuple(row.values()) for row in self._rows)


class Dataset(list[dict[str, Any]]):
    """A `Dataset` as `datasets` has it."""

    column_names = ("input", "output")


def test_objects_that_hold_rows() -> None:
    numpy = pytest.importorskip("numpy")
    assert list(read_rows(ROWS)) == list(read_rows(iter(ROWS))) == list(read_rows(Dataset(ROWS))) == ROWS
    both = {"train": Dataset(ROWS), "test": Dataset(ROWS[:1])}
    assert list(read_rows(both, "test")) == [ROWS[0] | {"split": "test"}]
    frame = Columns([{"input": float("nan"), "output": "x", "n": numpy.int64(3), "l": numpy.array([1, 2])}])
    assert list(read_rows(frame)) == [{"output": "x", "n": 3, "l": [1, 2]}]
    pyarrow = pytest.importorskip("pyarrow")
    assert list(read_rows(pyarrow.Table.from_pylist(ROWS))) == ROWS


def test_frames_of_pandas_and_polars_and_datasets() -> None:
    pandas = pytest.importorskip("pandas")
    assert list(read_rows(pandas.DataFrame(ROWS))) == ROWS
    polars = pytest.importorskip("polars")
    assert list(read_rows(polars.DataFrame(ROWS))) == ROWS
    datasets = pytest.importorskip("datasets")
    assert list(read_rows(datasets.Dataset.from_list(ROWS))) == ROWS


REQUEST = {
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "a"}]},
}
RESPONSE = {"status_code": 200, "body": {"choices": [{"message": {"role": "assistant", "content": "b"}}]}}


def test_files_without_rows_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.json").write_text("[]\n")
    (tmp_path / "rows.jsonl").write_text('{"output": "a"}\n')
    assert len(list(read_rows([tmp_path / f"{name}" for name in ("empty.jsonl", "rows.jsonl", "blank.json")]))) == 1
    assert caplog.messages == [f"{tmp_path / name}: holds no rows" for name in ("empty.jsonl", "blank.json")]


def test_batch_files_are_joined_by_their_custom_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    requests, responses = tmp_path / "requests.jsonl", tmp_path / "responses.jsonl"
    ids = ["a", "b", "c"]
    requests.write_text("".join(json.dumps({"custom_id": one, **REQUEST}) + "\n" for one in [*ids, "failed", "lost"]))
    answers = [{"id": f"r{one}", "custom_id": one, "response": RESPONSE, "error": None} for one in reversed(ids)]
    failed = {"custom_id": "failed", "response": {"status_code": 400, "body": {"error": {}}}, "error": None}
    responses.write_text("".join(json.dumps(row) + "\n" for row in [*answers, failed]))
    for files in ([requests, responses], [responses, requests]):
        rows = list(read_rows(files))
        assert sorted(row["custom_id"] for row in rows) == ids
        assert all((row["input"], row["output"], len(row["messages"])) == ("a", "b", 2) for row in rows)
        assert f"left out: 1 request without a response, the first at {requests}:5" in caplog.text
    assert len(list(read_rows([requests, responses], needs_output=False))) == 4
    for file in (requests, responses):
        with pytest.raises(CorpusError, match=f"{file}:1: no request has a response; give the file of requests and"):
            list(read_rows(file))
    assert len(list(read_rows(requests, needs_output=False))) == 5


def test_batches_that_share_a_custom_id(tmp_path: Path) -> None:
    """The response to one request must never become that of the other."""
    names = []
    for day in ("1", "2"):
        body = {"model": "m", "messages": [{"role": "user", "content": f"in {day}"}]}
        message = {"role": "assistant", "content": f"out {day}"}
        answer = {"status_code": 200, "body": {"choices": [{"message": message}]}}
        (tmp_path / f"in{day}.jsonl").write_text(json.dumps({**REQUEST, "custom_id": "a", "body": body}))
        (tmp_path / f"out{day}.jsonl").write_text(json.dumps({"custom_id": "a", "response": answer, "error": None}))
        names.append([tmp_path / f"in{day}.jsonl", tmp_path / f"out{day}.jsonl"])
    (first, first_out), (second, second_out) = names
    rows = read_rows([first, first_out, second_out, second])
    assert [(row["input"], row["output"]) for row in rows] == [("in 1", "out 1"), ("in 2", "out 2")]
    said = f"{second}:1: the custom_id 'a' is that of the request at {first}:1 too.* one after the other"
    for needs_output in (True, False):
        with pytest.raises(CorpusError, match=said):
            list(read_rows([first, second, first_out, second_out], needs_output=needs_output))
    with pytest.raises(CorpusError, match=f"'a' is that of the response at {first_out}:1 too"):
        list(read_rows([first_out, second_out, first, second]))


def test_a_refusal_is_what_the_model_has_said(tmp_path: Path) -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    request = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    items = [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}]
    rows = [
        {"request": request, "response": {"choices": [{"message": refused}]}},
        {"request": {"model": "m", "input": "a"}, "response": {"output": items}},
        {"messages": [*request["messages"], refused]},
    ]
    for row in rows:
        (made,) = read_rows([row])
        assert (made["input"], made["output"], made["messages"][-1]["content"]) == ("a", "I cannot.", "I cannot.")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", "output," + ",".join(map(str, range(200_000))) + "\n"),
        ("r.log", "Generated response 1: output: None, output_token_ids: , " * 50_000),
    ],
)
def test_a_long_line_takes_time_in_proportion(tmp_path: Path, name: str, text: str) -> None:
    """Hours where it takes the square of its length: the run would be ended."""
    (tmp_path / name).write_text(text)
    assert run(f"READ {name}", tmp_path).startswith(("[]", "r.log: is a log without responses"))


def test_logs_of_vllm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lines as `RequestLogger` of vLLM 0.32 writes them, and 0.9."""
    lines = [
        "DEBUG 11-28 10:00:00 [logger.py:1] Request cmpl-1 details: prompt: 'it\\'s a\\n', prompt_token_ids: [1], "
        "prompt_embeds shape: None.",
        "INFO 11-28 [logger.py:1] Received request cmpl-1: params: SamplingParams(n=1), lora_request: None.",
        'INFO 11-28 [logger.py:1] Received request cmpl-2: prompt: "it\'s b", params: SamplingParams(n=1), lora: None.',
        "INFO Generated response cmpl-2 (streaming delta): output: 'o', finish_reason: None",
        "INFO Generated response cmpl-2 (streaming complete): output: 'out, b', finish_reason: streaming_complete",
        "INFO Generated response cmpl-1: output: 'ü\\\\', output_token_ids: [1, 2], finish_reason: stop",
        "INFO Generated response cmpl-1: output: 'a second choice', finish_reason: stop",
        "INFO Generated response cmpl-1: output: 'cut o', finish_reason: length",
        "INFO Generated response cmpl-1: output: '[tool_calls: find({})]', finish_reason: tool_calls",
        "INFO Generated response cmpl-1 (streaming complete): output: '<streaming_complete: 9 tokens>', "
        "finish_reason: streaming_complete",
        "INFO Generated response cmpl-3: output: 'c', finish_reason: abort",
        "INFO Generated response cmpl-4: output: 'd', finish_reason: stop",
    ]
    file = tmp_path / "server.log"
    file.write_text("\n".join(lines))
    first = {"input": "it's a\n", "output": "ü\\"}
    rows = [{"input": "it's b", "output": "out, b"}, first, first | {"output": "a second choice"}, {"output": "d"}]
    assert list(read_rows(file)) == rows
    assert [line for line in caplog.messages if "left out" in line] == [
        f"1 answers that were cut off are left out, the first at {file}:8",
        "2 answers that the log does not hold as the model wrote them (calls of tools) are left out, "
        f"the first at {file}:9",
    ]
    file.write_text("INFO Generated response cmpl-1: output: '\\x', finish_reason: stop\n")
    with pytest.raises(CorpusError, match=r"server\.log:1: \"'.*'\" is no text as Python writes it; remove the line"):
        list(read_rows(file))
    file.write_text("INFO started\n")
    with pytest.raises(CorpusError, match=r"server\.log: is a log without responses of vLLM; start its server with"):
        list(read_rows(file))
    file.write_text(LINES)
    assert list(read_rows(file)) == ROWS


def test_a_store_of_any_source(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "data").write_text(ARRAY)
    stores = [TokenStore.build(rows, tokenizer, tmp_path / f"{k}") for k, rows in enumerate([ROWS, tmp_path / "data"])]
    assert [store.num_inputs for store in stores] == [3, 3]
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_text_that_begins_with_json_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "r.txt").write_text('{"output": "a"}\n{"output": "b"}\n')
    assert [row["output"] for row in read_rows(tmp_path / "r.txt")] == ['{"output": "a"}', '{"output": "b"}']
    (line,) = caplog.messages
    assert line.endswith("r.txt: is text, so each line is an output, though it begins with JSON; name it .jsonl")
