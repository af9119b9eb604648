"""A page as Chromium, without a window and without a network, shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0",
    "--dump-dom",
)  # fmt: skip
FOUND = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)

needed = pytest.mark.skipif(FOUND is None, reason="Chromium is not installed (Debian: apt-get install chromium)")

# Counts what a page must not do, before the page can do it, and notes what it looks like at the end.
WITNESS = """<script>
const seen = document.documentElement.dataset;
seen.alerts = seen.violations = seen.errors = 0;
window.alert = () => seen.alerts++;
document.addEventListener("securitypolicyviolation", () => seen.violations++);
addEventListener("error", () => seen.errors++, true);
setTimeout(() => {
  seen.requests = performance.getEntriesByType("resource").length;
  seen.ground = getComputedStyle(document.body).backgroundColor;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  const steps = [...document.querySelectorAll(".plot")].filter((plot) => plot.layout?.xaxis?.title?.text === "step");
  if (!steps.length) return;
  Plotly.relayout(steps[0], { "xaxis.range[0]": 5, "xaxis.range[1]": 15 }).then(() => setTimeout(() => {
    seen.ranges = JSON.stringify(steps.map((plot) => plot.layout.xaxis.range));
  }, 500));
}, 4000);
</script>"""


@dataclass
class Shown:
    """The document after its scripts ran, and what was said on the console."""

    html: str
    console: list[str]
    noted: dict[str, str]

    @property
    def words(self) -> str:
        """Everything that is text, inside pictures too."""
        return words(self.html)

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.html))


def words(html: str) -> str:
    """Return what is text in a piece of a document."""
    return _Words(html).text


class _Words(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self._inside = "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


def show(page: Path, *, dark: bool = False, width: int = 1280) -> Shown:
    """Open a page and wait until it is drawn."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(
            re.sub(r"(<head>.*?)<title>", lambda m: f"{m[1]}{WITNESS}<title>", page.read_text(), count=1, flags=re.S)
        )
        command = [
            FOUND, *FLAGS, f"--user-data-dir={folder}/profile", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},900", copy.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    opening = re.search(r"<html[^>]*>", done.stdout)[0]
    return Shown(
        done.stdout,
        [line for line in done.stderr.splitlines() if ":CONSOLE" in line],
        {name: value.replace("&quot;", '"') for name, value in re.findall(r'data-(\w+)="([^"]*)"', opening)},
    )
