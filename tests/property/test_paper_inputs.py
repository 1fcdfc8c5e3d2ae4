"""`benches/python/paper.py` ends in one line where its input cannot be measured, and overwrites nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PAPER = Path(__file__).parents[2] / "benches" / "python" / "paper.py"
DRAFTS = ["drafts", "sets", "--sets", "a", "-o", "kept.json"]
ROW = {"input": "x", "output": "y"}


def failure(folder: Path, *arguments: str) -> str:
    """Last line of a run that must fail without a traceback."""
    made = subprocess.run([sys.executable, PAPER, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode not in (0, -2)
    assert "Traceback" not in made.stderr
    return made.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (DRAFTS, "--tokenizer"),
        (["drafts", "-o", "new.json"], "holds no results"),
        (["drafts", "-o", "list.json"], "holds no results"),
        (["vocabulary", "a.jsonl", "--tokenizer", "t", "-k"], "-k"),
        (["vocabulary", "a.jsonl", "--tokenizer", "t", "-k", "0"], "-k"),
        (["vocabulary", "a.jsonl", "--tokenizer", "t", "--settings", "4", "9"], "--settings"),
        (["vocabulary", "a.jsonl", "--tokenizer", "t", "--show", "--tune", "f", "-o", "list.json"], "--tune"),
        (["vocabulary", "a.jsonl", "b.jsonl", "--tokenizer", "t", "--tune", "f"], "--tune takes one DATA"),
    ],
)
def test_arguments_that_cannot_be_measured(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "list.json").write_text("[1]")
    assert said in failure(tmp_path, *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["list.json"]
    assert (tmp_path / "list.json").read_text() == "[1]"


def test_a_tokenizer_that_is_not_there_leaves_no_settings(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert failure(tmp_path, *DRAFTS, "--tokenizer", "tokenizer.json").startswith("paper.py drafts: ")
    assert not (tmp_path / "kept.json").exists()


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_sets_without_both_splits(tmp_path: Path, split: str | None) -> None:
    sys.path.insert(0, str(PAPER.parent))
    from paper_drafts import load_task

    from tasc.errors import InputError

    rows = [ROW if split is None else {**ROW, "split": split}] * 8
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="train rows"):
        load_task(tmp_path / "a.jsonl", None, 5)  # type: ignore[arg-type]  # it is not reached


def test_results_that_are_shown_are_not_written(tmp_path: Path) -> None:
    """Otherwise a first `--show` with other sizes would keep them, and the run that measures would be refused."""
    sys.path.insert(0, str(PAPER.parent))
    from paper_results import KeptResults

    file = tmp_path / "kept.json"
    file.write_text("{}")
    shown = KeptResults(file, write=False)
    shown.require("a: settings", {"sizes": [64]})
    assert shown.values == {"a: settings": {"sizes": [64]}}
    assert file.read_text() == "{}"


@pytest.mark.parametrize("wrong", [["--sizes", "0", "-5"], ["--ways", "--sizes", "500"], ["--rounds", "0"]])
def test_sizes_that_cannot_be_measured_are_refused_before_hours_of_tuning(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.path.insert(0, str(PAPER.parent))
    from paper_quality import main

    with pytest.raises(SystemExit):
        main(["a.jsonl", "--work", str(tmp_path / "w"), *wrong])
    assert wrong[0] in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "w").exists()


def test_ways_compare_the_fewest_with_the_most_new_tokens_of_one_seed() -> None:
    sys.path.insert(0, str(PAPER.parent))
    from paper_quality import Arm, ends

    assert ends([Arm(500, 1), Arm(0, 1), Arm(500, 0), Arm(0, 0)]) == (Arm(0, 1), Arm(500, 1))
    assert ends([Arm(0, 0)]) == (Arm(0, 0), Arm(0, 0))


def test_prompts_without_a_shared_end_are_counted() -> None:
    sys.path.insert(0, str(PAPER.parent))
    from paper_drafts import PaperTask

    from tasc.evaluation.replay import ReplayRow

    task = PaperTask("a", [], [], None, 9)  # type: ignore[arg-type]  # rows are given
    ids = [np.array(one, np.uint32) for one in ([], [1], [5, 9])]
    task.__dict__["train"] = [ReplayRow(prompt, ids[2], None) for prompt in ids[:2] * 2]
    counts = task.counts(1, all_rows=True)
    match = counts.longest_match(ids[2][:1].tobytes(), 2)
    assert match is not None
    assert counts.best(match) == (9, 1.0)
