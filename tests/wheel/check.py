"""Check of a built wheel, run by `make wheel` where nothing but the wheel is installed.

    python check.py DIST_FOLDER

The files of wheel and sdist, the metadata, the command, and the main job without torch: rows → index → draft.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from importlib.metadata import entry_points, version
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import tasc

SOURCES = Path(__file__).parents[2] / "python"
BUILT = (".so", ".pyc")
ROWS = [{"input": f"{n} cups of tea", "output": f'{{"item": "tea", "count": {n}}}'} for n in range(1, 60)]


def check_files(folder: Path) -> None:
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    assert "-abi3-" in wheel.name and "cp311" in wheel.name, f"{wheel.name} is no wheel of the stable interface"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [facts] = [Parser().parsestr(archive.read(n).decode()) for n in names if n.endswith(".dist-info/METADATA")]
    ours = {n for n in names if not n.startswith(f"tasc_lm-{version('tasc-lm')}.dist-info/") and not n.endswith("/")}
    files = [path for path in (SOURCES / "tasc").rglob("*") if path.is_file() and path.suffix not in BUILT]
    wanted = {path.relative_to(SOURCES).as_posix() for path in files} | {"tasc/_core.abi3.so"}
    assert {"tasc/py.typed", "tasc/_core.pyi", "tasc/evaluation/report/page.html.j2"} < wanted
    assert ours == wanted, f"{wheel.name} lacks {sorted(wanted - ours)} and should not hold {sorted(ours - wanted)}"
    assert any(name.endswith("LICENSE") for name in names), f"{wheel.name} holds no LICENSE"
    assert facts["Name"] == "tasc-lm" and facts["License-Expression"] == "Apache-2.0" and facts["Requires-Python"]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    built = [name for name in inside if name.endswith(BUILT) or name.startswith(("target/", ".venv"))]
    assert not built, f"{sdist.name} holds what was built: {built}"
    for name in ("LICENSE", "Cargo.lock", "pyproject.toml", "rust/tasc-core/src/lib.rs", "python/tasc/__init__.py"):
        assert name in inside, f"{sdist.name} lacks {name}"


def check_main_job(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|im_end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([row["output"] for row in ROWS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = ["tasc", "index", "build", "rows.jsonl", "--tokenizer", "tokenizer.json", "-o", "task.tasc"]
    subprocess.run([*command, "--eos", "<|im_end|>"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    task = tasc.load_tokenizer(str(folder / "tokenizer.json"))
    drafter = tasc.NgramDrafter(tasc.TaskIndex.open(folder / "task.tasc"), tokenizer=task)
    draft = drafter.start(task.encode("61 cups of tea\n"), "61 cups of tea").draft(16)
    assert task.decode(draft.tokens).startswith('{"item": "tea"'), task.decode(draft.tokens)


def main() -> None:
    assert shutil.which("cargo") is None, "Rust is on PATH here; the wheel must work without"
    check_files(Path(sys.argv[1]))
    told = subprocess.run(["tasc", "--version"], check=True, capture_output=True, text=True).stdout
    assert version("tasc-lm") in told, told
    for group in ("vllm.general_plugins", "sglang.srt.plugins"):
        assert [entry.name for entry in entry_points(group=group)] == ["tasc"], f"{group} does not name tasc"
    assert "torch" not in sys.modules
    with tempfile.TemporaryDirectory() as name:
        check_main_job(Path(name))
    print("the wheel is complete and works without Rust and torch")


if __name__ == "__main__":
    main()
