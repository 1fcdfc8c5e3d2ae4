"""`tasc distill`: a draft is made from the command line, and what was refused says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("torch")
pytest.importorskip("accelerate")
from drafts import ROWS, folder, tiny

from tasc.cli import app
from tasc.cli.distill import print_distilled


def tasc(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    path = tmp_path_factory.mktemp("task")
    lines = [{**row, "split": "test" if n % 4 == 0 else "train"} for n, row in enumerate(ROWS)]
    (path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder(path / "target", tiny(hidden_size=32)), path / "rows.jsonl"


QUICK = ("--steps", "3", "--threads", "1")
SETTINGS = {"batch_size": 4, "precision": "fp32", "max_output": 12}


def config(path: Path, **settings: object) -> Path:
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in (SETTINGS | settings).items()))
    return path


def test_a_draft_is_made_and_reported(task: tuple[Path, Path], tmp_path: Path) -> None:
    target, rows = task
    common = ("distill", "--target", target, "--data", rows, "--split", "train", "--validation-split", "test", *QUICK)
    file = config(tmp_path / "first.toml", select="adaspec", k=0.5, length=3)
    result = tasc(*common, "--layers", "0,3", "-o", tmp_path / "draft", "--config", file)
    assert result.exit_code == 0, result.output
    assert "3 prompts, 3 tokens per draft" in result.stdout and "the draft less the baseline: α" in result.stdout
    assert "baseline: 7 steps of 4 rows" in result.stdout
    facts = json.loads((tmp_path / "draft" / "distill.json").read_text())
    assert facts["options"]["k"] == 0.5 and facts["draft"] == "[0, 3]" and facts["rows"] == 9
    narrow = ("--draft-size", "35K", "-o", tmp_path / "narrow")
    result = tasc(*common, *narrow, "--config", config(tmp_path / "narrow.toml", vocabulary=40))
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "narrow" / "distill.json").read_text())
    ids, coverage = (facts["draft_vocabulary"][name] for name in ("ids", "coverage"))
    held_out = f"{facts['coverage']:.1%} of the validation outputs'"
    said = f"draft vocabulary: {ids} ids, {coverage:.1%} of the training outputs' tokens, {held_out}"
    assert said in result.stdout and facts["options"]["trainable"] == "all"
    more = ("--draft", tmp_path / "draft", "-o", tmp_path / "second", "--json")
    file = config(tmp_path / "second.toml", baseline=False, loss="tvd", limit=5, outputs="target")
    result = tasc(*common, *more, "--config", file)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert list(facts["stages"]) == ["draft"] and facts["rows"] == 5 and facts["outputs"] == "target"


def test_a_stage_without_a_loss_curve_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """As after an early stop before the first entry, of which a long run has one every few steps."""
    stage = {"steps": 2, "rows_per_step": 4, "seconds": 1.0, "curve": [], "kept_step": 1}
    print_distilled(Path("draft"), {"stages": {"draft": stage}, "draft_vocabulary": None})
    assert "draft: 2 steps of 4 rows, 1 s; step 1 is the best and kept" in capsys.readouterr().out


def test_what_is_refused(task: tuple[Path, Path], tmp_path: Path) -> None:
    target, rows = task
    common = ("distill", "--target", target, "--data", rows, "-o", tmp_path / "draft")
    for wrong, said in (
        ((), "give --draft (a smaller model, or eagle), --layers"),
        (("--draft", target, "--layers", "2"), "one of the three"),
        (("--draft-size", "small"), "draft size 'small': give the number of weights"),
        (("--layers", "two"), "--layers two: give how many layers"),
        (("--layers", "4"), "fewer than the target's 4"),
    ):
        result = tasc(*common, *wrong)
        assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "best"}, "select = 'best'; allowed: adaspec, moving, random, all"),
        ({"lenght": 5}, "unknown key lenght = 5; allowed keys: accumulate, adapter"),
        ({"limit": "5"}, "limit = '5'; allowed: an integer"),
        ({"length": True}, "length = True; allowed: an integer"),
        ({"k": 2}, "k=2: a share of the tokens"),
        ({"limit": -1}, "limit=-1: give a finite number above 0"),
        ({"validation_rows": -1}, "validation_rows=-1: at least 1"),
        ({"max_output": 0}, "max_output=0: at least 1"),
    ],
)
def test_config_files_that_are_refused(
    task: tuple[Path, Path], tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    file = config(tmp_path / "a.toml", **settings)
    common = ("distill", "--target", task[0], "--data", task[1], "-o", tmp_path / "draft", "--layers", "2")
    result = tasc(*common, "--config", file)
    assert result.exit_code == 2 and message in result.output, result.output
    assert list(tmp_path.iterdir()) == [file]
    file.write_text("= 1")
    assert "is not TOML" in tasc(*common, "--config", file).output


def test_the_printed_config_is_the_default(tmp_path: Path) -> None:
    from tasc.training.distill.config import DistillConfig

    result = tasc("distill", "--print-config")
    assert result.exit_code == 0
    (tmp_path / "a.toml").write_text(result.stdout)
    assert DistillConfig.read(tmp_path / "a.toml") == DistillConfig()
    assert DistillConfig.read(tmp_path / "a.toml", steps=7).steps == 7
    file = config(tmp_path / "b.toml", epochs=2.5)
    assert DistillConfig.read(file, steps=None).epochs == 2.5
    assert DistillConfig.read(file, steps=7).epochs is None
