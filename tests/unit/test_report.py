"""The report shows what is there, escapes what it is given, and needs no other file."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tasc.errors import InputError
from tasc.evaluation.report import render, render_replay

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def full() -> dict[str, Any]:
    """Results with every field of the schema."""
    drafted = {
        "tau": 8.25,
        "steps": 63,
        "drafted_per_step": 9.4,
        "accepted": 0.77,
        "drafted_by_position": [60, 50, 0],
        "accepted_by_position": [54, 30, 0],
        "accepted_by_source": {"task": 75, "context": 25},
        "time": {"prefill": 0.4, "draft": 0.01, "verify": 5.0, "rest": 0.1},
        "divergences": 0,
    }
    common = {"requests": 2, "tokens": 100, "identical": 2, "exact": 1, "latency_p50": 2.5, "latency_p90": 2.9}
    return {
        "title": "a run",
        "settings": {"model": "tiny", "system": None},
        "machine": {"cpus": 2},
        "methods": {
            "plain": {"tokens_per_second": 20.0, "speedup": 1.0, **common},
            "tasc": {"tokens_per_second": 90.0, "speedup": 4.5, "repeats": [88.0, 92.0], **common, **drafted},
        },
        "requests": [
            {"input": f"request {i}", "output": "{}", "seconds": {"plain": 2.5, "tasc": 0.5 + i}} for i in range(2)
        ],
    }


def page(results: dict[str, Any], folder: Path) -> str:
    return render(results, folder / "report.html").read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Tags opened, ids, what refers to them, and what is loaded from elsewhere. Every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open
        assert set(re.findall(r'(?:url\(|href=")#([^)"]*)', text)) <= set(self.ids)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.ids += [v or "" for k, v in attrs if k == "id"]
        self.loaded += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]


def test_everything_known_is_shown(tmp_path: Path) -> None:
    text = page(full(), tmp_path)
    for expected in ("a run", "4.5 times as fast", "every text is identical", "8.25", "77 %", "2500", "1/2", "75.0 %"):
        assert expected in text
    assert Structure(text).tags.count("svg") == 4


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    structure = Structure(page(full(), tmp_path))
    assert len(set(structure.ids)) == len(structure.ids) > 0
    assert structure.loaded == []
    assert not {"script", "link", "img", "iframe"} & set(structure.tags)


def test_what_the_model_says_is_escaped_everywhere(tmp_path: Path) -> None:
    attack = "<script>alert('$x$')</script>"
    results = full()
    results["title"] = attack
    results["methods"][attack] = results["methods"]["tasc"]
    results["requests"][0] |= {"input": attack, "output": attack, "seconds": {attack: 1.0}}
    results["settings"] |= {attack: attack}
    text = page(results, tmp_path)
    assert "script" not in Structure(text).tags
    assert text.count("&lt;script&gt;") >= 9  # title twice, table, samples, settings, and four plots


@pytest.mark.parametrize("kept", [set(), {"speedup"}, {"requests", "time"}, {"tau", "drafted_by_position"}])
def test_missing_fields_are_left_out(kept: set[str], tmp_path: Path) -> None:
    methods = full()["methods"]
    bare = {n: {k: v for k, v in m.items() if k in kept | {"tokens_per_second"}} for n, m in methods.items()}
    text = page({"methods": bare}, tmp_path)
    assert "90.0" in text
    assert "Samples" not in text
    assert "None" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_acceptance_is_accepted_over_drafted() -> None:
    from tasc.evaluation.report.plots import _by_position

    assert _by_position(full()["methods"]["tasc"]) == [0.9, 0.6]


def test_texts_that_differ_are_counted_not_hidden(tmp_path: Path) -> None:
    results = full()
    results["methods"]["tasc"]["identical"] = 1
    text = page(results, tmp_path)
    assert "1 of 2 texts are identical" in text
    assert "every text" not in text


@pytest.mark.parametrize(
    ("results", "named"),
    [({}, "no methods"), ({"methods": {}}, "no methods"), ({"methods": {"tasc": {}}}, "'tasc' has tokens_per_second")],
)
def test_wrong_results_are_named(results: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        render(results, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_page(tmp_path: Path) -> None:
    old = page(full(), tmp_path)
    broken = full()
    broken["methods"]["tasc"]["tau"] = "not a number"
    with pytest.raises((ValueError, TypeError)):
        render(broken, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_same_results_same_bytes(tmp_path: Path) -> None:
    assert page(full(), tmp_path / "a") == page(full(), tmp_path / "b")


def replayed() -> dict[str, Any]:
    """What `tasc replay --ablate --explain 1 --json` prints."""
    facts = {"tau": 8.25, "drafted_per_step": 9.4, "accepted": 0.77, "speedup": 6.5}
    token = {"token": 5, "text": " boston", "verdict": "rejected", "prob": 0.75}
    drafted = token | {"sources": {"copy": 0.5, "task": 0.75}, "candidates": [(" boston", 0.75), (" denver", 0.25)]}
    own = {"token": 6, "text": "\n", "verdict": "own", "prob": None, "sources": {}, "candidates": []}
    return {
        "k": 16,
        "cost": 0.02,
        "rows": 300,
        "drafters": {"tasc": facts, "tasc-without-copy": facts},
        "ablations": {"copy": {"speedup": 5.5, "lost": 0.154}},
        "explained": {"row": 1, "input": "to boston", "output": "boston", "tokens": 1, "steps": [[drafted, own]]},
    }


def test_a_replay_is_shown_whole(tmp_path: Path) -> None:
    text = render_replay(replayed(), tmp_path / "replay.html").read_text(encoding="utf-8")
    for expected in (
        "300 rows",
        "8.25",
        "77 %",
        "words copied from the input",
        "15.4 %",
        "to boston",
        "task 0.75",
        "⏎",
    ):
        assert expected in text
    assert text.index("task 0.75") < text.index("copy 0.50")
    assert " denver 0.25" in text and " boston 0.75" not in text
    structure = Structure(text)
    assert structure.loaded == []
    assert "script" not in structure.tags


@pytest.mark.parametrize("kept", [set(), {"drafters", "rows"}, {"explained"}])
def test_a_replay_shows_what_there_is(kept: set[str], tmp_path: Path) -> None:
    results = {name: value for name, value in replayed().items() if name in kept | {"k", "cost"}}
    text = render_replay(results, tmp_path / "replay.html").read_text(encoding="utf-8")
    assert ("8.25" in text) == ("drafters" in kept)
    assert ("to boston" in text) == ("explained" in kept)
    assert "None" not in text


def test_rows_are_escaped_in_a_replay(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    results = replayed()
    results["explained"]["input"] = attack
    token = results["explained"]["steps"][0][0]
    token |= {"text": attack, "sources": {attack: 0.5}, "candidates": [(attack + "x", 0.5)]}
    results["drafters"][attack] = results["drafters"]["tasc"]
    results["ablations"][attack] = results["ablations"]["copy"]
    text = render_replay(results, tmp_path / "replay.html").read_text(encoding="utf-8")
    assert "script" not in Structure(text).tags
    assert text.count("&lt;script&gt;") >= 7
