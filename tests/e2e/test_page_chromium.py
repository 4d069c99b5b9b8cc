"""The plain page in a real browser, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from chromium import Browser, browsing

pytestmark = pytest.mark.slow

_MANUAL = "runtime: python\ntrigger: {manual: true}\n"
_EVIL = (
    'name: "<script>document.title = 1</script>"\n'
    'description: "</td><img src=x onerror=document.title=1> \\u202Egnp.exe"\n'
)
_LONG = "x" * 400
TASKS = {
    "hello": (f"name: Hello\ndescription: Greets\n{_MANUAL}", "print('hi')\nresult = {'n': 1}\n"),
    "evil": (
        _EVIL + _MANUAL,
        f"print('<script>document.title = 1</script>', '{_LONG}')\nraise ValueError('<b>')\n",
    ),
    "gated": (
        f"name: Gated\n{_MANUAL}permissions: {{fs: [{{path: GATES}}]}}\n",
        "import pathlib, time\nprint('on it', flush=True)\n"
        "while not pathlib.Path('GATES/gate').exists():\n    time.sleep(0.05)\n",
    ),
    "broken": ("name: Broken\nruntime: python\ntriger: {manual: true}\n", ""),
    "nightly": (
        'name: Nightly\nruntime: python\ntrigger: {cron: "0 3 * * *", timezone: Europe/Berlin}\n'
        "params: {city: {description: Where, default: Rome}}\n",
        "result = 1\n",
    ),
}

# Every text against the colour behind it, as WCAG 2 counts contrast; 4.5 is level AA.
_FAINT = """(() => {
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => {
    const [r, g, b] = rgba(colour).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const pair = [light(getComputedStyle(element).color), light(behind(element))].sort();
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) faint.push([walker.currentNode.data.slice(0, 40), contrast]);
  }
  return faint;
})()"""


class House(NamedTuple):
    """A server with tasks, and the command line on it."""

    tasks: Path
    env: dict[str, str]

    def dicode(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dicode_mcp.cli.main", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.env,
            cwd=self.tasks.parent,
            check=False,
        )

    def json(self, *words: str) -> Any:
        return json.loads(self.dicode(*words, "--json").stdout)

    def run(self, task: str, *words: str) -> str:
        """Run a task; gives the run's id."""
        self.dicode("run", task, *words)
        return self.json("runs", task)["runs"][0]["run_id"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    tasks = tmp_path / "tasks"
    gates = tmp_path / "gates"
    gates.mkdir()
    for name, (manifest, script) in TASKS.items():
        folder = tasks / name
        folder.mkdir(parents=True)
        (folder / "task.yaml").write_text(manifest.replace("GATES", str(gates)))
        (folder / "task.py").write_text(script.replace("GATES", str(gates)))
    env = {k: v for k, v in os.environ.items() if not k.startswith("DICODE_")}
    env |= {"DICODE_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path)}
    made = House(tasks, env)
    started = made.dicode("serve", "--detach", "--port", "0", "--source", str(tasks))
    assert started.returncode == 0, started.stderr
    yield made
    made.dicode("stop")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path / "profile") as made:
        yield made


def test_a_browser_shows_every_page_as_meant(browser: Browser, house: House) -> None:
    failed, done = house.run("evil"), house.run("hello")
    url = house.json("status")["url"]
    paths = ("/", "/runs", f"/runs/{failed}", f"/runs/{done}", "/tasks/evil", "/tasks/nightly")
    for path in paths:
        for width, scheme in ((1200, "light"), (800, "dark"), (360, "dark")):
            browser.show_as(width=width, scheme=scheme)
            browser.open(url + path)
            where = f"{path} at {width} in {scheme}"
            assert browser.complaints() == [], where
            assert all(address.startswith(url) for address in browser.requested()), where
            assert any("/style.css" in address for address in browser.requested()), where
            assert browser.ask("document.scripts.length") == 0, where
            assert browser.ask("document.title").endswith("dicode"), where
            assert browser.ask("document.documentElement.scrollWidth") <= width, where
            assert browser.ask(_FAINT) == [], where
    assert browser.ask("document.querySelector('h1').textContent") == "Nightly"
    browser.open(f"{url}/runs/{failed}")
    assert "ValueError: <b>" in browser.ask("document.querySelector('.alarm').innerText")
    assert "<script>" in browser.ask("document.querySelector('.message').textContent")
    browser.open(f"{url}/tasks/none")
    assert "Task 'none' not found" in browser.ask("document.body.innerText")


def test_the_page_of_a_run_that_is_on_follows_it_to_its_end(browser: Browser, house: House) -> None:
    run = house.run("gated", "--no-wait")
    url = house.json("status")["url"]
    browser.open(f"{url}/runs/{run}")
    browser.wait_for("document.querySelector('.message')?.textContent === 'on it'")
    assert browser.ask("document.querySelector('.badge').textContent") == "running"
    (house.tasks.parent / "gates" / "gate").touch()
    browser.wait_for("document.querySelector('.badge')?.textContent === 'success'")
    assert browser.ask("document.querySelector('meta[http-equiv=refresh]')") is None
