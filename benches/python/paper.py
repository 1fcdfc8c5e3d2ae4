"""The methods of the TASC paper (arXiv 2602.24174) as published, tuned, beside tasc's own.

    python benches/python/paper.py drafts DATA_FOLDER --tokenizer T -o DRAFTS.json
    python benches/python/paper.py vocabulary …
    python benches/python/paper.py quality …
    python benches/python/paper.py PART --help
    python benches/python/paper.py [PART] --smoke

Each part is a module of its own (`paper_drafts.py`) with a function `main(arguments)`, which has the options `--smoke` and
`-o FILE`. FILE keeps each result as soon as it is there: a second call with the same FILE measures only what is missing.
With --smoke and no part, all parts run on a tiny generated task.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path

from tasc.errors import TascError

PARTS = ("drafts", "vocabulary", "quality")


def run(part: str, arguments: list[str]) -> None:
    """Run one part; its module is imported only then."""
    try:
        importlib.import_module(f"paper_{part}").main(arguments)
    except (TascError, OSError) as error:
        sys.exit(f"paper.py {part}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def smoke(output: Path | None) -> None:
    """Run every part small; their results go to one file, by part."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts_here():
            file = Path(folder) / f"{part}.json"
            run(part, ["--smoke", "-o", str(file)])
            found[part] = json.loads(file.read_text(encoding="utf-8"))
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def parts_here() -> list[str]:
    """Return the parts whose module lies beside this one."""
    return [part for part in PARTS if (Path(__file__).parent / f"paper_{part}.py").exists()]


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] in PARTS:
        run(arguments[0], arguments[1:])
    elif arguments == ["--smoke"]:
        smoke(None)
    elif len(arguments) == 3 and arguments[:2] == ["--smoke", "-o"]:
        smoke(Path(arguments[2]))
    else:
        sys.exit(f"{__doc__}\nname a part ({', '.join(PARTS)}), or --smoke [-o FILE]")


if __name__ == "__main__":
    main(sys.argv[1:])
