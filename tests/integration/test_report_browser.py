"""Pages in a real browser: dark and light, on a desk and on a phone. Skipped where no Chromium is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
pytest.importorskip("jinja2")
image = pytest.importorskip("matplotlib.image")
import test_report  # noqa: E402
import test_report_evaluation  # noqa: E402

from tasc.evaluation.report import render, render_evaluation, render_replay  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium")
PAGES = {
    "bench": (render, test_report.full),
    "replay": (render_replay, test_report.replayed),
    "eval": (render_evaluation, test_report_evaluation.evaluated),
}
PROBE = """<iframe id=page src="page.html" style="border:0;width:%dpx;height:900px"></iframe><pre id=found></pre>
<script>
const parse = c => c.match(/[\\d.]+/g).map(Number);
function light(c) {
  const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(view, e) {
  for (; e; e = e.parentElement) {
    const c = parse(view.getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
}
page.onload = () => {
  const doc = page.contentDocument, view = page.contentWindow, faint = [];
  for (const e of doc.querySelectorAll("main *")) {
    const text = [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.data.trim()).join("");
    const style = view.getComputedStyle(e);
    if (!text || style.display == "none" || e.closest("defs, style, metadata")) continue;
    const svg = e.closest("svg");
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(ground(view, svg ? svg.parentElement : e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push([text, contrast]);
  }
  found.textContent = JSON.stringify({
    width: doc.documentElement.scrollWidth, faint, ground: light(ground(view, doc.body)),
    tables: [...doc.querySelectorAll("table")].map(t => !!t.closest(".wide")),
    plots: [...doc.querySelectorAll("svg")].map(s => [s.getAttribute("role"), s.getAttribute("aria-label")]),
    last: [...doc.querySelectorAll("main > section")].at(-1).className,
  });
};
</script>"""


def browse(folder: Path, address: Path, *options: str) -> str:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", "--virtual-time-budget=9000"]
    done = subprocess.run(
        [*command, *options, address.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_readable(tmp_path: Path, name: str, scheme: str) -> None:
    draw, results = PAGES[name]
    draw(results(), tmp_path / "page.html")
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    for width in (360, 1200):
        probe = tmp_path / "probe.html"
        probe.write_text(PROBE % width)
        dom = browse(tmp_path, probe, "--dump-dom", *dark)
        match = re.search(r"<pre id=\"found\">(.*?)</pre>", dom, re.DOTALL)
        assert match, dom
        found: dict[str, Any] = json.loads(html.unescape(match[1]))
        assert found["width"] <= width, "the page scrolls sideways"
        assert found["faint"] == []
        assert all(found["tables"]) and found["tables"]
        assert all(role == "img" and ": " in text for role, text in found["plots"])
        assert (found["ground"] < 0.1) == (scheme == "dark")
        assert found["last"] == "next"
    picture = tmp_path / "page.png"
    browse(tmp_path, tmp_path / "page.html", f"--screenshot={picture}", "--window-size=1000,1400", *dark)
    pixels = image.imread(picture)[..., :3]
    assert pixels.shape[:2] == (1400, 1000)
    assert (pixels.mean() < 0.4) == (scheme == "dark")
    assert pixels.std() > 0.02, "nothing is drawn"
