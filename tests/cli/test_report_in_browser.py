"""The report in headless Chromium: its script runs, nothing is loaded, and nothing is wider than a phone.

Slow, and skipped where no Chromium is found (``CHROMIUM=/path/to/chromium`` names one).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import contralex
from tests.noise import noise
from tests.pages import Page, parse_page
from tests.train.tiny import TINY

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000"),
)
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
# Runs in the page after its own script: what a person would do, and what is then seen, as an element of the page.
PROBE = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const found = { wide: [], errors: window.problems };
  document.querySelectorAll("body *").forEach((element) => {
    if (element.closest(".wide, svg, pre, #map-tip")) return;
    const right = element.getBoundingClientRect().right;
    if (right > document.documentElement.clientWidth + 1) found.wide.push(element.tagName);
  });
  const canvas = document.getElementById("map-canvas"), box = canvas.getBoundingClientRect();
  const tip = document.getElementById("map-tip");
  const at = (x, y, kind) => canvas.dispatchEvent(new PointerEvent(kind, {
    clientX: box.left + x, clientY: box.top + y, pointerId: 1, pointerType: "mouse", bubbles: true }));
  let hit = null;
  for (let x = 4; x < box.width && !hit; x += 12) {
    for (let y = 4; y < box.height && !hit; y += 12) {
      at(x, y, "pointermove");
      window.drawNow();
      if (tip.style.visibility === "visible") hit = [x, y];
    }
  }
  found.tip = tip.style.visibility + " " + tip.textContent;
  const inked = () => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let sum = 0;
    for (let index = 3; index < pixels.length; index += 4) sum += pixels[index] > 0;
    return sum;
  };
  const before = inked();
  found.ink = before;
  canvas.dispatchEvent(new WheelEvent("wheel", {
    clientX: box.left + hit[0], clientY: box.top + hit[1], deltaY: -900, ctrlKey: true, cancelable: true }));
  window.drawNow();
  found.zoomed = inked();
  document.querySelector("#map-classes button").click();
  found.pressed = document.querySelector("#map-classes button").getAttribute("aria-pressed");
  const chart = document.querySelector("svg.chart"), over = chart.getBoundingClientRect();
  chart.dispatchEvent(new PointerEvent("pointermove", { clientX: over.left + over.width / 2, clientY: over.top + 50 }));
  found.readout = chart.parentElement.querySelector(".readout").textContent;
  found.paper = getComputedStyle(document.body).backgroundColor;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}, 300));
</script>
"""
# Before the page's own script: its errors are kept, and frames are drawn when they are asked for.
EARLY = """
<script>
window.problems = [];
window.addEventListener("error", (event) => window.problems.push(event.message));
document.addEventListener("securitypolicyviolation", (event) => window.problems.push(event.violatedDirective));
window.waitingFrames = [];
window.requestAnimationFrame = (draw) => window.waitingFrames.push(draw);
window.drawNow = () => {
  const frames = window.waitingFrames;
  window.waitingFrames = [];
  frames.forEach((draw) => draw());
};
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for number in range(60):
        path = folder / "photos" / ("red", "green & <b>")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = noise((36, 36), 60, number).convert("RGB")
        Image.blend(picture, Image.new("RGB", picture.size, ("red", "green")[number % 2]), 0.5).save(path)
    sets = [*TINY, "train.batch_norm=sync", "method.negatives.size=32"]
    return (
        contralex.train("moco-v2", preset="digits", data=folder / "photos", sets=sets, out=folder / "run").report().path
    )


@pytest.fixture
def browse(report: Path, tmp_path: Path) -> Callable[..., Page]:
    """The page with the probe, as Chromium has it in the end."""
    probed = tmp_path / "probed.html"
    text = report.read_text("utf-8").replace("<style>", EARLY + "<style>", 1).replace("</body>", PROBE + "</body>")
    probed.write_text(text, "utf-8")

    def run(width: int, *flags: str) -> Page:
        profile = tmp_path / f"profile-{width}-{len(flags)}"
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", *flags]
        done = subprocess.run([*command, "--dump-dom", probed.as_uri()], capture_output=True, timeout=120, check=True)
        return parse_page(done.stdout.decode())

    return run


@pytest.mark.parametrize(
    "flags", [(), ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")], ids=["light", "dark"]
)
@pytest.mark.parametrize("width", [1200, 390])
def test_a_person_finds_images_on_the_map_and_values_on_the_curves(
    width: int, flags: tuple[str, ...], browse: Callable[..., Page]
) -> None:
    found = json.loads(browse(width, *flags).by_id("probe").text)
    assert found["errors"] == []
    assert found["wide"] == []  # only tables and pictures that scroll by themselves
    assert found["tip"].startswith("visible ") and ".png" in found["tip"]
    assert found["ink"] > 100
    assert found["zoomed"] > 1000  # an image where there was a dot
    assert found["pressed"] == "true"
    assert " at epoch " in found["readout"]
    assert found["paper"] == ("rgb(20, 24, 29)" if flags else "rgb(255, 255, 255)")
