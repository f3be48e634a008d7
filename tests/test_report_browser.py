"""The report in a real browser: scripts run, the example browser works, hostile text does not run.

A copy of each page gets a few lines of script, which click and look, and leave what they saw as
JSON on the page; headless Chromium dumps it. A browser takes seconds to start, so that each page is
opened once for all tests.
"""

from __future__ import annotations

import functools
import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamprm.report.page import ReportData, render
from tests.report_samples import ATTACK, bare_report, full_report, hostile_report

CHROMIUM = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
Look = Callable[[str], dict[str, Any]]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PRELUDE = """
const q = (s) => document.querySelector(s), all = (s) => [...document.querySelectorAll(s)];
const choose = (text) => {
  const select = q("#filter");
  select.value = all("#filter option").find((o) => o.textContent.startsWith(text)).value;
  select.dispatchEvent(new Event("change"));
};
"""


def chromium(page: Path, *arguments: str) -> str:
    assert CHROMIUM
    usual = "headless no-sandbox disable-gpu no-first-run disable-background-networking"
    words = [CHROMIUM, *(f"--{name}" for name in usual.split()), "--hide-scrollbars"]
    words += [f"--user-data-dir={page.parent / 'profile'}", *arguments, page.as_uri()]
    run = subprocess.run(words, capture_output=True, timeout=90, check=True)
    return run.stdout.decode("utf-8")


CHARTS = """
const bars = () => q("#weights").data.filter((t) => t.type === "bar").flatMap((t) => t.x);
const final = bars(), step = q("#weights-step").textContent;
const slider = q("#weights-slider");
slider.value = 0; slider.dispatchEvent(new Event("input"));
return {final, step, start: bars(), startStep: q("#weights-step").textContent,
  drawn: all("#weights .bars .point > path").length,
  overTokens: q("#tokens").data.filter((t) => t.name).map((t) => t.name),
  curves: q("#scaling").data.filter((t) => t.name).map((t) => t.name),
  calibrated: all("#calibration .scatterlayer .trace").length,
  stepsCalibrated: all("#step-calibration .scatterlayer .trace").length,
  fates: all("#fates tbody tr").length};
"""
BROWSE = """
const at = () => q("#example").dataset.index;
const trail = [at()];
q("#next").click(); trail.push(at());
q("#next").click(); trail.push(at());
q("#previous").click(); trail.push(at());
choose("DreamPRM right, PRM, uniform weights wrong");
const filtered = [at(), q("#position").textContent];
q("#next").click(); filtered.push(at(), q("#next").disabled);
choose("DreamPRM wrong, PRM, uniform weights right");
return {trail, filtered, wrong: at(),
  picked: q(".picked .verdict").textContent,
  tags: all(".tag.main").map((n) => n.textContent),
  chips: all(".candidate:first-child .chip").map((n) => n.textContent),
  tinted: all("#example .chip").every((n) => n.style.background.startsWith("rgb")),
  openCandidates: all(".candidate[open]").length,
  question: q(".question").textContent};
"""
HOSTILE = """
return {question: q(".question").textContent, step: q(".step").textContent,
  title: q("h1").textContent, images: all("main img").length,
  domain: all("#weights .ytick text").map((n) => n.textContent),
  legend: all("#scaling .legendtext").map((n) => n.textContent)};
"""
HEALTH = """
return {ready: document.body.dataset.ready, error: document.body.dataset.error ?? null,
  box: q("#error").hidden, attacked: typeof window.attacked,
  sideways: document.documentElement.scrollWidth > innerWidth};
"""
PAGES: dict[str, tuple[Callable[[], ReportData], str, dict[str, str]]] = {
    "full": (full_report, "1280,900", {"charts": CHARTS, "browse": BROWSE, "health": HEALTH}),
    "narrow": (full_report, "500,900", {"health": HEALTH}),
    "bare": (bare_report, "1280,900", {"health": HEALTH}),
    "hostile": (hostile_report, "1280,900", {"hostile": HOSTILE, "health": HEALTH}),
}


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Page -> what each of its scripts (the body of a function) returned, and the page's `dom`."""

    @functools.cache
    def open_page(name: str) -> dict[str, Any]:
        make, size, scripts = PAGES[name]
        calls = ", ".join(f"{part}: (() => {{ {script} }})()" for part, script in scripts.items())
        probe = (
            f"<script>{PRELUDE} const seen = {{ {calls} }};"
            "const box = document.createElement('pre'); box.id = 'seen';"
            "box.textContent = JSON.stringify(seen); document.body.append(box);</script>"
        )
        page = tmp_path_factory.mktemp(name) / "report.html"
        page.write_text(render(make()).replace("</body>", probe + "</body>"), encoding="utf-8")
        dom = chromium(page, f"--window-size={size}", "--virtual-time-budget=3000", "--dump-dom")
        seen = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
        assert seen, "the page's script stopped before the test's"
        return {"dom": dom, **json.loads(html.unescape(seen[1]))}

    return open_page


@pytest.mark.parametrize("page", PAGES)
def test_the_script_runs_to_its_end_and_nothing_sticks_out_sideways(page: str, look: Look) -> None:
    health = {"ready": "1", "error": None, "box": True, "attacked": "undefined"}
    seen = look(page)["health"]
    assert seen == health | {"sideways": page == "hostile" and seen["sideways"]}


def test_charts_show_every_domain_and_method_and_the_slider_moves_the_bars(look: Look) -> None:
    seen = look("full")["charts"]
    assert sorted(seen.pop("final")) == sorted(d.weight for d in full_report().domains)
    curves = seen.pop("curves")
    assert (curves[0], len(curves), len(seen.pop("overTokens"))) == ("One sample", 7, 2)
    steps = {"step": "training step 300 (final)", "startStep": "training step 0"}
    counts = {"drawn": 9, "calibrated": 2, "stepsCalibrated": 1, "fates": 6}
    assert seen == steps | counts | {"start": [1.0] * 9}


def test_the_example_browser_pages_and_filters(look: Look) -> None:
    seen = look("full")["browse"]
    assert seen["trail"] == ["0", "1", "2", "1"]
    assert seen["filtered"] == ["1", "1 of 2", "3", True]
    assert seen["wrong"] == "2"
    assert seen["picked"] == "✗ wrong"
    assert seen["tags"] == ["chosen by DreamPRM"]
    assert seen["chips"] == ["0.83", "0.65", "0.80", "0.70", "0.75"]  # best candidate first
    assert seen["tinted"]
    assert seen["openCandidates"] == 3  # the chosen ones
    assert seen["question"].startswith("Example 3.")


def test_small_images_are_enlarged_crisply(look: Look) -> None:
    assert 'class="picture small"' in look("full")["dom"]


def test_hostile_text_is_shown_as_text(look: Look) -> None:
    seen = look("hostile")["hostile"]
    assert seen["question"] == seen["step"] == seen["title"] == ATTACK
    assert seen["images"] == 0
    assert ATTACK in seen["domain"]
    assert "__proto__" in seen["domain"]
    assert "<b>bold</b> &amp;" in seen["domain"]  # Plotly would take this for markup
    assert ATTACK in seen["legend"]


def test_a_screenshot_is_not_blank(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(full_report()), encoding="utf-8")
    chromium(page, "--window-size=1280,900", f"--screenshot={tmp_path / 'shot.png'}")
    with Image.open(tmp_path / "shot.png") as shot:
        pixels = np.asarray(shot.convert("L"), dtype=float)
    assert pixels.mean() > 180  # dark text on white
    assert (pixels < 100).mean() > 0.005
