import gzip
import json
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zstandard

from tasc.data import read_rows
from tasc.data.files import CHUNK
from tasc.data.rows import check_json, located_rows
from tasc.errors import CorpusError, InputError, MissingExtraError

ROWS = [
    {"input": "né", "output": "a\nb", "split": "train"},
    {"output": "ünï 🙂", "split": "test", "id": 7},
    {"input": None, "output": "", "split": "train"},
]
READ = [{k: v for k, v in row.items() if v is not None} for row in ROWS]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("r.jsonl", JSONL),
        ("r.json", JSONL.rstrip()),
        ("r.jsonl", b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n\r\n")),
        ("r.jsonl.gz", gzip.compress(JSONL, mtime=0)),
        ("r.jsonl.gz", gzip.compress(JSONL[:50], mtime=0) + gzip.compress(JSONL[50:], mtime=0)),
        ("r.jsonl.zst", zstd(JSONL)),
        ("R.JSONL.GZ", gzip.compress(JSONL, mtime=0)),
        ("r.Json.Zst", zstd(JSONL)),
        ("r.jsonl.zst", zstd(JSONL[:50]) + zstd(JSONL[50:])),
    ],
)
def test_json_lines_in_every_wrapping(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert list(read_rows(tmp_path / name)) == READ
    assert list(read_rows([tmp_path / name], "train")) == [READ[0], READ[2]]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "r.parquet"
    rows = [{"input": row.get("input"), "output": row["output"]} for _ in range(1000) for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=700)
    assert list(read_rows(path)) == [{k: v for k, v in row.items() if v is not None} for row in rows]
    rows[2345]["output"] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(CorpusError, match=r"r\.parquet: row 2346: field 'output' is NoneType, it must be text"):
        list(read_rows(path))
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) - 12) + content[-8:])
    with pytest.raises(CorpusError, match=r"r\.parquet: is no Parquet file that can be read: "):
        list(read_rows(path))
    path.write_bytes(b"PAR1 or not")
    with pytest.raises(CorpusError, match="is no Parquet file"):
        list(read_rows(path))


def test_of_parquet_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "r.parquet"
    when = pyarrow.array([10**18 + 1], pyarrow.timestamp("ns"))  # Python's datetime has no nanoseconds
    table = pyarrow.table({"input": ["a"], "output": ["b"], "split": ["test"], "id": [7], "when": when})
    parquet.write_table(table, path)
    row = {"input": "a", "output": "b", "split": "test"}
    assert list(read_rows(path)) == list(read_rows(path, "test")) == [row]
    assert list(read_rows(path, other_fields=["id", "none"])) == [row | {"id": 7}]
    with pytest.raises(CorpusError, match=r"row 1: field 'when' is timestamp\[ns\], which cannot be read; store it as"):
        list(read_rows(path, input_field="when"))
    with pytest.raises(CorpusError, match=r"has no field 'a'; its fields are 'input', 'output', 'split', 'id', 'when'"):
        list(read_rows(path, output_field="a"))
    parquet.write_table(pyarrow.Table.from_arrays([["a"], ["b"]], names=["output", "output"]), path)
    with pytest.raises(CorpusError, match=r"r\.parquet: has 2 columns named 'output'; rename or remove one"):
        list(read_rows(path))


def test_text_of_parquet_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    text = pyarrow.array([b"good", b"\xff"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"output": text}), tmp_path / "r.parquet")
    with pytest.raises(CorpusError, match=r"r\.parquet: row 2: field 'output' is not UTF-8: .* at byte 1"):
        list(read_rows(tmp_path / "r.parquet"))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"tasc-lm\[parquet\].*pip install '\.\[parquet\]'"):
        list(read_rows(tmp_path / "r.parquet"))


def test_text_is_one_output_per_line(tmp_path: Path) -> None:
    path = tmp_path / "r.txt.gz"
    path.write_bytes(gzip.compress("first\r\n\n  second\u2028still \nlast".encode()))
    assert [row["output"] for row in read_rows(path)] == ["first", "  second\u2028still ", "last"]


def test_long_lines_and_many_files(tmp_path: Path) -> None:
    paths = []
    for k in range(3):
        paths.append(tmp_path / f"{k}.jsonl")
        paths[-1].write_text("".join(json.dumps({"output": f"{k}" * 300_000}) + "\n" for _ in range(3)))
    told: list[tuple[int, int]] = []
    rows = list(read_rows(paths, progress=lambda done, total: told.append((done, total))))
    assert [row["output"][0] for row in rows] == list("000111222")
    assert all(len(row["output"]) == 300_000 for row in rows)
    total = sum(path.stat().st_size for path in paths)
    assert told == sorted(told)
    assert {t for _, t in told} == {total}
    assert told[-1] == (total, total)
    assert len(set(told)) > 6


def test_other_fields(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"q": "x", "a": "y"}\n{"q": "x", "b": "y"}\n')
    rows = read_rows(path, output_field="a", input_field="q")
    assert next(rows) == {"input": "x", "output": "y"}
    with pytest.raises(CorpusError, match=r"r\.jsonl:2: has no field 'a'; its fields are 'q', 'b': name one as output"):
        next(rows)
    with pytest.raises(CorpusError, match=r"r\.jsonl:1: has no field 'p'.*name one as input_field"):
        next(read_rows(path, output_field="a", input_field="p"))


GOOD = b'{"output": "x"}\n'


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("r.jsonl", GOOD + b'{"output": "ha', r"r\.jsonl:2: is not JSON: Unterminated string starting at column 12"),
        ("r.json", b'{\n "output": "a"\n}\n', r"r\.json:1: is not JSON: .*; a row must be one line, or an element"),
        ("r.jsonl", GOOD * 2 + b'{"output": }\n', r"r\.jsonl:3: is not JSON: .* at column 12"),
        ("r.jsonl", GOOD + b'\n["x"]\n', r"r\.jsonl:3: is a list, a row is an object"),
        ("r.jsonl", b'{"output": 1' + b"0" * 5000 + b"}", r"r\.jsonl:1: is JSON that .* a number has over 4300 digits"),
        ("r.jsonl", b'{"output": ' + b"[" * 200_000, r"r\.jsonl:1: is JSON that cannot be read: brackets in brackets"),
        ("r.jsonl", GOOD.decode().encode("utf-16"), r"r\.jsonl:1: is not UTF-8: .* save the file as UTF-8"),
        ("r.jsonl", GOOD + b'{"output": "\xff"}', r"r\.jsonl:2: is not UTF-8: .* at byte 13"),
        ("r.jsonl", GOOD + b'{"output": "\\ud800"}', r"r\.jsonl:2: field 'output' is no valid text: surrogates"),
        ("r.jsonl", b'{"output": 3}', r"r\.jsonl:1: field 'output' is int, it must be text; write it as \"3\""),
        (
            "r.jsonl",
            b'{"output": "x", "input": true}',
            r"'input' is bool, it must be text or null; write it as \"true\"",
        ),
        ("r.jsonl", b'{"label": "x"}', r"r\.jsonl:1: has no field 'output'; its fields are 'label'"),
        ("r.jsonl", b"{}", "its fields are none"),
        ("r.xml", b"<output>\nx\n", r"r\.xml: files like '\.xml' are not read; give one of \.jsonl"),
        ("r.jsonl.gz", gzip.compress(GOOD * 99, mtime=0)[:-12], r"r\.jsonl\.gz: cannot be decompressed"),
        ("r.jsonl.gz", GOOD, r"r\.jsonl\.gz: cannot be decompressed"),
        ("r.jsonl.zst", zstd(GOOD * 99)[:-5], r"r\.jsonl\.zst: cannot be decompressed: the file is cut short"),
        ("r.jsonl.zst", GOOD, r"r\.jsonl\.zst: cannot be decompressed"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=why):
        list(read_rows(tmp_path / name))


def test_a_bad_array_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"[" + GOOD.strip() + b"," * (CHUNK * 4) + b"]")
    told: list[int] = []
    with pytest.raises(CorpusError, match=r"r\.json: row 2: is not JSON: Expecting value at its character 1"):
        list(read_rows(path, progress=lambda done, total: told.append(done)))
    assert told == [CHUNK]


def test_rows_at_their_places_with_all_that_json_can_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "r.jsonl").write_bytes(GOOD + b"\n" + GOOD)
    row = {"prompt": "a", "id": 1.5, "on": True, "of": None, "kind": "k", "in": [{"x": ["y"]}]}
    table = pyarrow.table({name: [value] for name, value in row.items()})
    table = table.set_column(4, "kind", table["kind"].dictionary_encode())
    left = {"image": pyarrow.array([b"x"]), "at": pyarrow.array([0], pyarrow.date32()), "raw": [[{"x": b"y"}]]}
    for name, values in left.items():
        table = table.append_column(name, pyarrow.array(values))
    parquet.write_table(table, tmp_path / "r.parquet")
    paths = [tmp_path / "r.jsonl", tmp_path / "r.parquet"]
    where = [f"{paths[0]}:1", f"{paths[0]}:3", f"{paths[1]}: row 1"]
    assert list(located_rows(paths)) == list(zip(where, [{"output": "x"}, {"output": "x"}, row], strict=True))
    assert "r.parquet: columns that JSON cannot hold are left out: image (binary), at (date32[day]), raw" in caplog.text


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": "\ud83d"}, "at: field 'id' is no valid text: surrogates not allowed"),
        ({"id": [{"\ud83d": 1}]}, "at: field 'id' is no valid text: surrogates not allowed"),
        ({"\ud83d": 1}, r"at: field '\\ud83d' is no valid text: surrogates not allowed"),
        ({"id": {"score": [1.5, float("nan")]}}, "at: field 'id' holds NaN or an infinite number, .*; write null"),
        ({"id": float("-inf")}, "at: field 'id' holds NaN or an infinite number"),
        ({"id": {"image": b"x"}}, "at: field 'id' cannot be written as JSON"),
        (["x"], "at: is a list, a row is an object"),
    ],
)
def test_a_row_that_cannot_be_written_as_json_is_named(row: object, why: str) -> None:
    check_json("at", {"id": ["🙂", 1, None]})
    with pytest.raises(CorpusError, match=why):
        check_json("at", row)


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(JSONL + GOOD)
    with pytest.raises(CorpusError, match=r"no row has the split 'trian'; .*: 'test', 'train', none"):
        list(read_rows(path, "trian"))


def test_a_missing_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(read_rows(tmp_path / "nowhere.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    assert list(read_rows(tmp_path / "empty.jsonl")) == []


def test_what_the_callback_raises_stops_the_reading(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD)
    with pytest.raises(RuntimeError, match="enough"):
        list(read_rows(path, progress=stop))


def test_rows_may_lack_their_output_where_it_is_not_needed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"input": "a"}\n{"input": "b", "output": null}\n{"input": "c", "output": "d"}\n')
    rows = [{"input": "a"}, {"input": "b"}, {"input": "c", "output": "d"}]
    assert list(read_rows(file, needs_output=False)) == rows
    file.write_text('{"input": "a", "output": 3}\n')
    with pytest.raises(CorpusError, match="'output' is int"):
        list(read_rows(file, needs_output=False))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("name", ["r.jsonl", "r.txt"])
def test_a_line_may_have_as_many_bytes_as_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / (name + {bytes: "", gzip.compress: ".gz"}.get(pack, ".zst"))
    short = GOOD + json.dumps({"output": "x" * (CHUNK - 14)}).encode()
    path.write_bytes(pack(short))
    assert len(list(read_rows(path, max_line_bytes=CHUNK))) == 2
    for size in (CHUNK - 1, 20):
        why = rf"{name}.*:2: the line is longer than {size:,} bytes, the limit; shorten the row, or set TASC_MAX_LINE"
        with pytest.raises(CorpusError, match=why):
            list(read_rows(path, max_line_bytes=size))
    with pytest.raises(CorpusError, match=r":1: the line is longer than 10 bytes"):
        list(read_rows(path, max_line_bytes=10))
    path.write_bytes(pack(short + b"\n" + GOOD))
    assert len(list(read_rows(path, max_line_bytes=CHUNK))) == 3
    monkeypatch.setenv("TASC_MAX_LINE_BYTES", "20")
    with pytest.raises(CorpusError, match=r":2: the line is longer than 20 bytes"):
        list(read_rows(path))
    assert len(list(read_rows(path, max_line_bytes=CHUNK))) == 3


@pytest.mark.parametrize("told", ["x", "0", "-1", "1.5", "9" * 30])
def test_a_limit_that_is_no_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    (tmp_path / "r.jsonl").write_bytes(GOOD)
    monkeypatch.setenv("TASC_MAX_LINE_BYTES", told)
    with pytest.raises(InputError, match=r"TASC_MAX_LINE_BYTES is .*; it must be a number of bytes from 1"):
        list(read_rows(tmp_path / "r.jsonl"))
    with pytest.raises(InputError, match="max_line_bytes is 0; it must be at least 1"):
        list(read_rows(tmp_path / "r.jsonl", max_line_bytes=0))


def test_rows_of_parquet_are_bounded_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "r.parquet"
    table = pyarrow.table({"output": ["x" * 100_000, "y" * 100_000], "image": ["z" * 300_000] * 2})
    parquet.write_table(table, path, row_group_size=1, compression="zstd")
    assert len(list(read_rows(path, max_line_bytes=101_000))) == 2
    with pytest.raises(CorpusError, match=r"row group 0 have 100,\d+ bytes on average, more than 99,000, the limit"):
        list(read_rows(path, max_line_bytes=99_000))


@pytest.mark.parametrize("pack", [partial(gzip.compress, compresslevel=1), zstd])
def test_a_small_file_of_much_text_takes_little_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """zstd packs 64 MiB of lines, or one line of 64 MiB, into some kilobytes."""
    path = tmp_path / ("r.txt" + (".zst" if pack is zstd else ".gz"))
    line = b"a" * ((1 << 16) - 1) + b"\n"
    path.write_bytes(pack(line * 1024))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 1024
        lines = tracemalloc.get_traced_memory()[1]
        path.write_bytes(pack(line[:-1] * 1024))
        tracemalloc.reset_peak()
        with pytest.raises(CorpusError, match="the line is longer than 16,777,216 bytes"):
            list(read_rows(path))
        bomb = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines < 24 << 20
    assert bomb < 64 << 20


def test_a_frame_of_zstd_whose_window_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    path.write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(GOOD * 99_999))
    with pytest.raises(CorpusError, match=r"cannot be decompressed: .* too much memory"):
        list(read_rows(path))


def test_many_frames_of_zstd(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    path.write_bytes((zstd(GOOD) + zstd(b"")) * 20_000)
    assert sum(1 for _ in read_rows(path)) == 20_000
